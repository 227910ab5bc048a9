"""Trials on this machine: a thread for each place, a process group for each trial."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

from ..core.run import Progress, Run, RunSpec
from ..core.text import one_line
from ..forkserver.launch import Launcher
from ..sandbox.policy import Mode
from .run import execute


class LocalExecutor:
    """Implements `TrialExecutor` with `run_trial`.

    Args:
        launcher: Shared by all trials; stays the caller's to close.
        root: Folder of run directories.
        capacity: Trials at a time.
        sandbox_mode: ``"require"``, ``"auto"`` or ``"off"``.
        on_progress: Told the id and the progress of running trials, on their threads.
    """

    def __init__(
        self,
        launcher: Launcher,
        root: Path,
        *,
        capacity: int = 1,
        sandbox_mode: Mode = "auto",
        on_progress: Callable[[str, Progress], object] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a capacity of {capacity} runs nothing; give 1 or more")
        self._capacity = capacity
        self._launcher = launcher
        self._root = root
        self._mode = sandbox_mode
        self._on_progress = on_progress
        self._threads = ThreadPoolExecutor(capacity, thread_name_prefix="trial")
        self._cancelled: dict[str, threading.Event] = {}
        self._finished: queue.SimpleQueue[Finished] = queue.SimpleQueue()
        self._closed = False

    @property
    def capacity(self) -> int:
        """Trials that run at the same time."""
        return self._capacity

    def submit(self, spec: RunSpec) -> None:
        """Queue a trial; see `TrialExecutor.submit`."""
        if self._closed:
            raise ExecutorClosed("the executor is closed and takes no more trials")
        if spec.run_id in self._cancelled:
            raise ValueError(f"trial {spec.run_id} was submitted already")
        self._cancelled[spec.run_id] = threading.Event()
        self._threads.submit(self._run, spec, self._cancelled[spec.run_id])

    def wait_any(self, timeout_s: float | None = None) -> Finished | None:
        """Take the next trial that is over; see `TrialExecutor.wait_any`."""
        if not self._cancelled:
            return None
        try:
            finished = self._finished.get(timeout=timeout_s)
        except queue.Empty:
            return None
        del self._cancelled[finished.run_id]
        return finished

    def cancel(self, run_id: str) -> None:
        """End a trial soon; see `TrialExecutor.cancel`."""
        if (event := self._cancelled.get(run_id)) is not None:
            event.set()

    def close(self) -> None:
        """Cancel everything and wait until it is over; idempotent."""
        self._closed = True
        for event in list(self._cancelled.values()):
            event.set()
        self._threads.shutdown()

    def _run(self, spec: RunSpec, cancelled: threading.Event) -> None:
        def show(progress: Progress) -> None:
            if self._on_progress is not None:
                self._on_progress(spec.run_id, progress)

        if cancelled.is_set():
            result = Run("interrupted", "cancelled before it began")
        else:
            try:
                result = execute(
                    spec, self._launcher, self._root, on_progress=show,
                    sandbox_mode=self._mode, should_stop=cancelled.is_set,
                )  # fmt: skip
            except BaseException as error:
                # A defect of ours or of an onlooker must not leave its waiter waiting for ever.
                result = Run(
                    "infra",
                    one_line(f"{type(error).__name__}: {error}"),
                    log_tail=traceback.format_exc(),
                )
        self._finished.put(Finished(spec.run_id, result))


class Finished(NamedTuple):
    """A trial that is over."""

    run_id: str
    result: Run


class ExecutorClosed(Exception):
    """The executor takes no more trials."""


class RunExecutor(Protocol):
    """Runs trials, `capacity` at a time. Used by one thread."""

    @property
    def capacity(self) -> int:
        """Trials that run at the same time; more may be submitted and wait."""

    def submit(self, spec: RunSpec) -> None:
        """Queue a trial.

        Raises:
            ExecutorClosed: `close` was called.
            ValueError: A trial of this id is queued, running, or not yet taken.
        """

    def wait_any(self, timeout_s: float | None = None) -> Finished | None:
        """Take the next trial that is over; each is returned once.

        A trial never raises: what went wrong, the machinery included, is in its result
        (``"infra"``).

        Args:
            timeout_s: Seconds to wait; None: until one is over.

        Returns:
            The trial, or None if none was over in time, or if none is queued or running.
        """

    def cancel(self, run_id: str) -> None:
        """End a trial soon; its result, ``"interrupted"``, still comes by `wait_any`.

        An id that is not queued or running is ignored: it may just have finished.
        """

    def close(self) -> None:
        """Cancel everything and wait until no process is left; idempotent."""
