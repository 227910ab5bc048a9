"""Where trials run: one contract, one file an executor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..trial import Progress, TrialResult, TrialSpec


class TrialExecutor(Protocol):
    """Runs trials; submission and completion are apart, so that one driver can hold many."""

    capacity: int

    def submit(
        self,
        spec: TrialSpec,
        *,
        on_progress: Callable[[Progress], object] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Start a trial, or queue it while `capacity` trials run.

        Args:
            spec: What to run; its ``trial_id`` must not be in flight.
            on_progress: Told where the trial is; may be called from another thread.
            should_stop: Once true, the trial ends ``"interrupted"``.

        Raises:
            ValueError: A trial of that id is in flight.
        """
        ...

    def wait_any(self, timeout_s: float | None = None) -> tuple[str, TrialResult] | None:
        """Return (trial id, result) of a trial that has ended, once; None if none did in time.

        An executor that loses a trial reports it as ``"infra"``; it never raises for a candidate.
        """
        ...

    def cancel(self, trial_id: str) -> None:
        """End a trial as ``"interrupted"``; nothing happens if it is not in flight."""
        ...

    def close(self) -> None:
        """End every trial and helper process; safe to call twice."""
        ...
