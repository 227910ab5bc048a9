"""Where trials run: a small contract, one file a member.

Knows nothing of campaigns: specs go in, results come out, in any order.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..trial import TrialResult, TrialSpec


class Finished(NamedTuple):
    """A trial that is over."""

    trial_id: str
    result: TrialResult


class ExecutorClosed(Exception):
    """The executor takes no more trials."""


class TrialExecutor(Protocol):
    """Runs trials, `capacity` at a time. Used by one thread."""

    @property
    def capacity(self) -> int:
        """Trials that run at the same time; more may be submitted and wait."""

    def submit(self, spec: TrialSpec) -> None:
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

    def cancel(self, trial_id: str) -> None:
        """End a trial soon; its result, ``"interrupted"``, still comes by `wait_any`.

        An id that is not queued or running is ignored: it may just have finished.
        """

    def close(self) -> None:
        """Cancel everything and wait until no process is left; idempotent."""
