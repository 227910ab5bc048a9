"""Limits and onlookers of one trial, whatever kind it is."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..core.run import Progress, RunStatus
from ..core.text import one_line
from . import vram

OnProgress = Callable[[Progress], object]

ShouldStop = Callable[[], bool]

DISK_BYTES = 16 << 30
"""What a candidate may write into its folder altogether."""

_MAX_FILES = 20_000

_DISK_SECONDS = 2.0

_GPU_SECONDS = 0.5

_SHOW_SECONDS = 0.25


class Ended(Exception):
    """The trial is over without a score: its status, and one line for people."""

    def __init__(self, status: RunStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = one_line(reason)


class Watch:
    """Wall seconds by cause, the hard limits, and whoever looks on.

    Args:
        wall_limit_s: Seconds from now after which `check` ends the trial.
        on_progress: Told where the trial is, a few times a second.
        should_stop: Asked a few times a second.

    Attributes:
        began: When the trial began, on the monotonic clock.
        causes: Wall seconds by cause.
        folder: Where the candidate may write, once there is one.
        gpu: Whether the leased GPU's memory is watched.
        loss: Training loss reported last.
        work: Units of training data handed out.
    """

    def __init__(
        self,
        wall_limit_s: float,
        on_progress: OnProgress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> None:
        self.began = time.monotonic()
        self.causes: dict[str, float] = {}
        self.folder: Path | None = None
        self.loss: float | None = None
        self.work = 0.0
        self._limit = wall_limit_s
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._phase, self._phase_began, self._shown = "start", self.began, 0.0
        self.gpu = False
        self._disk_checked = self._gpu_checked = self.began

    @property
    def left_s(self) -> float:
        """Wall seconds left."""
        return self._limit - (time.monotonic() - self.began)

    @contextlib.contextmanager
    def cause(self, name: str) -> Iterator[None]:
        """Book the wall seconds of a block."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.book(name, time.monotonic() - began)

    def book(self, name: str, seconds: float) -> None:
        """Book wall seconds."""
        self.causes[name] = self.causes.get(name, 0.0) + seconds

    def enter(self, phase: str, fraction: float = 0.0) -> None:
        """Begin a phase.

        Raises:
            Ended: As `check`.
        """
        self._phase, self._phase_began, self._shown = phase, time.monotonic(), 0.0
        self.check()
        self.show(fraction)

    def check(self) -> None:
        """End the trial if it must.

        Raises:
            Ended: It was interrupted, is over its wall limit, fills the disk or the GPU.
        """
        if self._should_stop is not None and self._should_stop():
            raise Ended("interrupted", "stopped from outside")
        if self.left_s < 0:
            raise Ended("timeout", f"over its limit of {self._limit:g} s in all")
        now = time.monotonic()
        if self.folder is not None and now - self._disk_checked > _DISK_SECONDS:
            self._disk_checked = now
            if _fills(self.folder):
                raise Ended(
                    "guard",
                    f"wrote more than {DISK_BYTES >> 30} GiB or {_MAX_FILES} files",
                )
        if self.gpu and now - self._gpu_checked > _GPU_SECONDS:
            self._gpu_checked = now
            seen = vram.read()
            if seen is not None and seen.too_full:
                raise Ended(
                    "guard",
                    f"{seen.used >> 20} of {seen.total >> 20} MiB of the GPU are used; the bound "
                    f"is {vram.SHARE:.0%}",
                )

    def show(self, fraction: float) -> None:
        """Tell whoever looks on, not too often."""
        now = time.monotonic()
        if self._on_progress is not None and now - self._shown > _SHOW_SECONDS:
            self._shown = now
            self._on_progress(
                Progress(self._phase, fraction, now - self._phase_began, self.loss, self.work)
            )


def _fills(folder: Path) -> bool:
    """Whether a folder holds more than a candidate may write."""
    size = files = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_blocks * 512
        files += len(names) + 1
        if size > DISK_BYTES or files > _MAX_FILES:
            return True
    return False
