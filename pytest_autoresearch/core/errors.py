"""Errors that every package may raise."""

from __future__ import annotations


class UsageError(Exception):
    """A mistake in the options, the files or the project.

    The message is one line that names the option or file, its value and the remedy. A pytest
    session turns it into `pytest.UsageError`; the commands print it and exit with status 4.
    """


class InfrastructureFailure(Exception):
    """A failure of the machine (no device, full disk): never a verdict on a mutation."""


class BaselineFailed(InfrastructureFailure):
    """The unchanged code cannot be measured, so nothing can be compared: the session ends."""


class Interrupted(Exception):
    """The session was asked to stop during a run; the proposal goes back into the queue."""
