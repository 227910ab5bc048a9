"""Trials on this machine: a thread per slot, a shared warm launcher."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from .. import sandbox
from ..trial import Progress, TrialResult, TrialSpec


class LocalExecutor:
    """A `TrialExecutor` over `trial.run.run_trial`.

    Args:
        root: Folder of run directories.
        capacity: Trials side by side.
        sandbox_mode: Confinement of candidates.
        warm: Whether trials share a process that has imported torch already.
    """

    def __init__(
        self,
        root: Path,
        *,
        capacity: int = 1,
        sandbox_mode: sandbox.Mode = "auto",
        warm: bool = True,
    ) -> None:
        from ..trial.launch import Launcher

        self.capacity = capacity
        self._root = root
        self._mode: sandbox.Mode = sandbox_mode
        self._launcher = Launcher(warm=warm)
        self._pool = ThreadPoolExecutor(capacity, thread_name_prefix="trial")
        self._done: queue.Queue[tuple[str, TrialResult]] = queue.Queue()
        self._running: dict[str, Event] = {}

    def submit(
        self,
        spec: TrialSpec,
        *,
        on_progress: Callable[[Progress], object] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """See `TrialExecutor.submit`."""
        if spec.trial_id in self._running:
            raise ValueError(f"trial {spec.trial_id} is in flight already")
        if spec.command is None:
            self._launcher.begin()
        cancelled = self._running[spec.trial_id] = Event()
        self._pool.submit(self._run, spec, on_progress, should_stop, cancelled)

    def _run(
        self,
        spec: TrialSpec,
        on_progress: Callable[[Progress], object] | None,
        should_stop: Callable[[], bool] | None,
        cancelled: Event,
    ) -> None:
        from ..trial.run import run_trial

        try:
            result = run_trial(
                spec,
                self._launcher,
                self._root,
                on_progress=on_progress,
                sandbox_mode=self._mode,
                should_stop=lambda: cancelled.is_set() or bool(should_stop and should_stop()),
            )
        except Exception as error:  # whatever it was, it was not the candidate
            result = TrialResult("infra", f"{type(error).__name__}: {error}")
        self._running.pop(spec.trial_id, None)
        self._done.put((spec.trial_id, result))

    def wait_any(self, timeout_s: float | None = None) -> tuple[str, TrialResult] | None:
        """See `TrialExecutor.wait_any`."""
        try:
            return self._done.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def cancel(self, trial_id: str) -> None:
        """See `TrialExecutor.cancel`."""
        if trial_id in self._running:
            self._running[trial_id].set()

    def close(self) -> None:
        """See `TrialExecutor.close`."""
        for cancelled in list(self._running.values()):
            cancelled.set()
        self._pool.shutdown(wait=True)
        self._launcher.close()
