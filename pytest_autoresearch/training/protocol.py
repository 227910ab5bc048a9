"""Harness side of the training protocol: ready, go, batches, end, done.

The other side is untrusted: every message is checked, every wait has a limit measured from outside,
and each violation has its own reason.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from ..core.run import Allowances
from ..core.text import one_line
from ..forkserver.channel import ProtocolError
from ..forkserver.client import LaunchFailed
from ..forkserver.group import Exit
from ..forkserver.launch import Child, ChildGone, ChildTimeout
from .clock import BudgetTooSmall, Clock
from .dataloader import BatchRequest, DataLoader
from .earlystop import LOOK_EVERY, Silence, exploded
from .limits import Ended, RunLimits

MAX_DECLARED = 1 << 40
"""Largest plausible number of parameters or bytes."""

_POLL_S = 0.2
_SAVE_POLL_S = 0.02
_ROOM_BYTES = 64 << 20
_CURVE_POINTS = 512
_MAX_METRICS = 64


class TrainingProcess:
    """One training process from its first message to its last.

    Args:
        child: The process, just started.
        limits: Limits of the whole run.
        allowances: What the process may use besides its budget.
        wall_budget: Whether the budget is wall time, so that start and saving are limited in it.

    Attributes:
        parameters, declared_bytes: Size of the model, as declared before training.
        train_seconds: Wall seconds from the first batch request to the end of the budget.
        cpu_seconds: CPU seconds of the process group in that time.
        bill: CPU and wall seconds of start, training and saving.
        curve: Pairs (fraction of the budget, loss), as reported.
        metrics: Self-reported finite numbers.
    """

    def __init__(
        self, child: Child, limits: RunLimits, allowances: Allowances, *, wall_budget: bool
    ) -> None:
        self.parameters = 0
        self.declared_bytes = 0
        self.train_seconds = 0.0
        self.cpu_seconds = 0.0
        self.curve: list[tuple[float, float]] = []
        self.metrics: dict[str, float] = {}
        self.bill: dict[str, float] = {}
        self._child = child
        self._limits = limits
        self._allowances = allowances
        self._wall_budget = wall_budget
        self._began = time.monotonic()
        self._looked = 0.0

    def ready(self) -> None:
        """Wait until the model is built.

        Raises:
            Ended: Building it failed.
        """
        message = self._startup_message("ready")
        self.parameters = _count(message, "parameters")
        self.declared_bytes = _count(message, "bytes")

    def run(self, dataloader: DataLoader, clock: Clock) -> None:
        """Hand out batches until the budget ends, then wait until the weights are saved.

        Raises:
            Ended: There is no checkpoint.
        """
        with self._limits.cause("start"):
            self._send({"type": "go"}, [dataloader.fd])
            request = self._startup_message("batch")
        self._limits.enter("train")
        began, cpu_began = time.monotonic(), self._child.cpu_seconds()
        self.bill = {
            "start_cpu_s": cpu_began,
            "start_wall_s": began - self._began,
            "save_wall_s": 0.0,
        }
        try:
            clock.begin(self._above(cpu_began, "start"))
            done = self._serve(dataloader, clock, request)
        finally:
            clock.end()
            self.train_seconds = time.monotonic() - began
            self.cpu_seconds = self._child.cpu_seconds() - cpu_began
            self.bill["train_cpu_s"] = self.cpu_seconds
        if done is None:
            began = time.monotonic()
            with self._limits.cause("save"):
                done = self._saved(clock)
            self.bill["save_wall_s"] = time.monotonic() - began
        self.metrics = _metrics(done.get("metrics"))

    def charge_saving(self, clock: Clock, cpu_s: float) -> None:
        """Complete the bill with the CPU seconds of the whole process, from fork to kill.

        Raises:
            Ended: Start, training and saving took more than their allowances and the budget.
        """
        saving = cpu_s - self.bill["start_cpu_s"] - self.bill["train_cpu_s"]
        self.bill["save_cpu_s"] = max(0.0, saving)
        clock.charge(self._above(saving, "save"))
        if clock.overdue:
            raise Ended(
                "timeout",
                f"train() went on after its budget had ended (for {saving:.2f} CPU seconds); it "
                "must return when its loop over batches ends",
            )

    def _above(self, cpu_s: float, phase: Literal["start", "save"]) -> float:
        """Return the seconds of a phase that its allowance does not cover."""
        allowances = self._allowances
        allowed = allowances.start_cpu_s if phase == "start" else allowances.save_cpu_s
        above = max(0.0, cpu_s - allowed)
        if self._wall_budget and phase == "start":
            above = max(above, self.bill["start_wall_s"] - allowances.start_wall_s)
        return above

    def _serve(
        self, dataloader: DataLoader, clock: Clock, message: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Answer requests until the budget ends (None), or until an earlier ``done`` (returned)."""
        while message.get("type") != "done":
            try:
                request = BatchRequest.parse(message)
                self._note_loss(request.loss, clock.progress, dataloader.steps)
                progress = clock.progress
                if not clock.admit(request.tokens):
                    self._send({"type": "end"})
                    return None
                answer = dataloader.hand_out(request)
            except (ProtocolError, BudgetTooSmall) as error:
                raise Ended("crash", f"the training process {error}") from None
            self._limits.work = float(dataloader.tokens)
            self._send({**answer, "progress": progress})
            silence = Silence(time.monotonic(), self._child.cpu_seconds)
            message = self._message(partial(self._poll, clock, silence), clock.poll_seconds)
        return message

    def _poll(self, clock: Clock, silence: Silence) -> None:
        clock.poll()
        if reason := silence.reason(time.monotonic()):
            raise Ended("timeout", f"the training process {reason}")
        self._limits.show(clock.progress)
        if clock.overdue:
            raise Ended(
                "timeout",
                "train() did not come back for a batch when its budget ended; it must train only "
                "inside its loop over batches",
            )

    def _saved(self, clock: Clock) -> Mapping[str, Any]:
        """Wait for ``done``, within the allowance for saving and what is left of the budget."""
        began, cpu_began = time.monotonic(), self._child.cpu_seconds()

        def check() -> None:
            spent = self._child.cpu_seconds() - cpu_began
            wall = time.monotonic() - began
            late = self._wall_budget and wall > self._allowances.save_wall_s
            if late or clock.overdue_with(self._above(spent, "save")):
                raise Ended(
                    "timeout",
                    f"train() went on after its budget had ended (for {spent:.2f} CPU seconds); "
                    "it must return when its loop over batches ends",
                )

        while (message := self._message(check, _SAVE_POLL_S)).get("type") == "batch":
            self._send({"type": "end"})
        if message.get("type") != "done":
            raise Ended("crash", "the training process sent a message out of turn")
        return message

    def _startup_message(self, kind: str) -> Mapping[str, Any]:
        limit = self._allowances.start_cpu_s + self._allowances.train_cpu_s

        def check() -> None:
            self._limits.show(0.0)
            if self._child.cpu_seconds() > limit:
                raise Ended(
                    "timeout",
                    f"start-up took more than {limit:.1f} CPU seconds before the first batch was "
                    "asked for",
                )

        message = self._message(check, _POLL_S)
        if message.get("type") == "done":
            raise Ended("crash", "train() returned without asking for a batch")
        if message.get("type") != kind:
            raise Ended("crash", f"the training process sent no {kind!r} message when one was due")
        return message

    def _message(self, poll: Callable[[], None], poll_s: float) -> Mapping[str, Any]:
        """Return the next message; until then, check the limits and call `poll`."""
        message: dict[str, Any] | None = None
        while message is None:
            with contextlib.suppress(ChildTimeout):
                try:
                    message = self._child.receive(poll_s)
                except ChildGone as gone:
                    raise _gone(gone.exit) from None
                except ProtocolError as error:
                    reason = f"the training process broke the protocol: {error}"
                    raise Ended("crash", reason) from None
            self._limits.check()
            poll()
        if message.get("type") == "error":
            raise self._failure(message.get("error"))
        return message

    def _send(self, message: Mapping[str, object], fds: Sequence[int] = ()) -> None:
        try:
            self._child.send(message, fds)
        except ChildGone as gone:
            raise _gone(gone.exit) from None

    def _failure(self, text: object) -> Exception:
        """Return what an exception in the process means for the run."""
        folder = self._child.folder
        if folder is not None and os.strerror(errno.ENOSPC) in str(text):
            free = shutil.disk_usage(folder).free
            if free + self._child.disk_bytes() < _ROOM_BYTES + 2 * self.declared_bytes:
                return LaunchFailed(f"{folder} has {free >> 20} MiB left; free some space")
        return Ended("crash", one_line(text) or "train.py failed without a message")

    def _note_loss(self, loss: float | None, fraction: float, steps: int) -> None:
        if loss is None:
            return
        if not math.isfinite(loss):
            raise Ended("crash", f"the training loss became {loss} after {steps} steps")
        self._limits.loss = loss
        self.curve.append((fraction, loss))
        if len(self.curve) > 2 * _CURVE_POINTS:
            self.curve = self.curve[::2]
        if fraction - self._looked > LOOK_EVERY:
            self._looked = fraction
            if reason := exploded(self.curve):
                raise Ended("crash", reason)


def _gone(ended: Exit) -> Ended:
    if ended.over_limit:
        return Ended("guard", f"the training process was {ended.describe()}")
    was = "was " if ended.signal is not None else ""
    hint = " (perhaps the system ran out of memory)" if ended.signal == 9 else ""
    return Ended("crash", f"the training process {was}{ended.describe()}{hint}")


def _count(message: Mapping[str, Any], name: str) -> int:
    value = message.get(name)
    if type(value) is not int or not 0 <= value <= MAX_DECLARED:
        raise Ended("crash", f"the training process declared no sensible number of {name}")
    return value


def _metrics(reported: object) -> dict[str, float]:
    """Return the finite numbers under short names."""
    metrics: dict[str, float] = {}
    items = list(reported.items())[:_MAX_METRICS] if isinstance(reported, dict) else ()
    for name, value in items:
        if type(value) in (int, float) and name.isidentifier() and len(name) <= 64:
            with contextlib.suppress(OverflowError):
                if math.isfinite(number := float(value)):
                    metrics[name] = number
    return metrics
