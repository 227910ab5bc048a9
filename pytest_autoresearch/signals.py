"""SIGTERM and a closed terminal end a session as Ctrl-C does, once: no second one cuts that off."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Mapping
from typing import Any


class Signals:
    """The handlers of a process that runs a session; what was there before comes back."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Take SIGTERM and SIGHUP for Ctrl-C, which pytest ends in order; not under ``nohup``."""
        numbers = {signal.SIGTERM, signal.SIGHUP}
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
            numbers.remove(signal.SIGHUP)
        self._before = _handle({number: self._terminated for number in numbers})

    def ignore(self) -> None:
        """Let none of them cut off what is being written; Ctrl-C still does."""
        _handle({number: signal.SIG_IGN for number in self._before})

    def restore(self) -> None:
        """Set the handlers that were there before; safe to call twice."""
        _handle({number: old or signal.SIG_DFL for number, old in self._before.items()})
        self._before = {}

    def _terminated(self, number: int, frame: object) -> None:
        self.ignore()
        raise KeyboardInterrupt


def terminate(processes: Iterable[int]) -> None:
    """Ask processes to end as Ctrl-C would end them; one that is gone already has."""
    for process in processes:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGTERM)


def _handle(handlers: Mapping[signal.Signals, Any]) -> dict[signal.Signals, Any]:
    """Set handlers and return those before; none outside of the main thread."""
    with contextlib.suppress(ValueError):
        return {number: signal.signal(number, new) for number, new in handlers.items()}
    return {}
