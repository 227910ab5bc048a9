"""Hard limits, time accounting and progress of one run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from ..core.run import Progress, RunStatus
from ..core.text import one_line
from .devices import GPU_MEMORY_SHARE, gpu_memory

OnProgress = Callable[[Progress], object]

ShouldStop = Callable[[], bool]

_GPU_SECONDS = 0.5
_SHOW_SECONDS = 0.25


class Ended(Exception):
    """The run is over without a score: its status, and the reason in one line."""

    def __init__(self, status: RunStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = one_line(reason)


class RunLimits:
    """Hard limits of one run, its wall seconds by cause, and its progress.

    Args:
        wall_limit_s: Seconds from now after which `check` ends the run.
        on_progress: Called with the progress, a few times a second.
        should_stop: Polled by `check`.
        watch_gpu: Whether the memory of the leased GPU is limited too.

    Attributes:
        loss, work: Training loss reported last, and tokens handed out.
    """

    def __init__(
        self,
        wall_limit_s: float,
        on_progress: OnProgress | None = None,
        should_stop: ShouldStop | None = None,
        *,
        watch_gpu: bool = False,
    ) -> None:
        self.began = time.monotonic()
        self.causes: dict[str, float] = {}
        self.loss: float | None = None
        self.work = 0.0
        self._limit = wall_limit_s
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._watch_gpu = watch_gpu
        self._phase, self._phase_began, self._shown = "start", self.began, 0.0
        self._gpu_checked = self.began

    @property
    def left_s(self) -> float:
        """Wall seconds left."""
        return self._limit - (time.monotonic() - self.began)

    @contextlib.contextmanager
    def cause(self, name: str) -> Iterator[None]:
        """Attribute the wall seconds of a block to a cause."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.book(name, time.monotonic() - began)

    def book(self, name: str, seconds: float) -> None:
        """Attribute wall seconds to a cause."""
        self.causes[name] = self.causes.get(name, 0.0) + seconds

    def enter(self, phase: str, fraction: float = 0.0) -> None:
        """Begin a phase; check the limits and report the progress."""
        self._phase, self._phase_began, self._shown = phase, time.monotonic(), 0.0
        self.check()
        self.show(fraction)

    def check(self) -> None:
        """Enforce the limits.

        Raises:
            Ended: The run was interrupted, or exceeds its limit of time or GPU memory.
        """
        if self._should_stop is not None and self._should_stop():
            raise Ended("interrupted", "stopped from outside")
        if self.left_s < 0:
            raise Ended("timeout", f"over its limit of {self._limit:g} s in all")
        now = time.monotonic()
        if self._watch_gpu and now - self._gpu_checked > _GPU_SECONDS:
            self._gpu_checked = now
            memory = gpu_memory()
            if memory is not None and memory.too_full:
                raise Ended(
                    "guard",
                    f"{memory.used >> 20} of {memory.total >> 20} MiB of the GPU are used; the "
                    f"limit is {GPU_MEMORY_SHARE:.0%}",
                )

    def show(self, fraction: float) -> None:
        """Report the progress, at most four times a second."""
        now = time.monotonic()
        if self._on_progress is not None and now - self._shown > _SHOW_SECONDS:
            self._shown = now
            self._on_progress(
                Progress(self._phase, fraction, now - self._phase_began, self.loss, self.work)
            )
