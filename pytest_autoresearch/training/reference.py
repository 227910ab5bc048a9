"""The reference of ``equal`` budgets: the campaign's baseline code, run a few steps at a time.

It is a confined process that trains endlessly on the same stream. Between bursts it waits for a
batch and uses no CPU. Only the cost of its steps matters, not its loss.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace

from ..core.files import temporary_folder
from ..core.text import one_line
from ..forkserver.channel import ProtocolError
from ..forkserver.client import LaunchFailed
from ..forkserver.launch import ChildGone, ChildTimeout
from .context import CHECKPOINT, RunContext, write_files
from .dataloader import BatchRequest, DataLoader
from .workclock import Burst

_START_S = 300.0
_STEP_S = 120.0
_BURST_CPU_S = 0.05
_MIN_STEPS, _MAX_STEPS = 3, 64
_WARM_CPU_S, _WARM_STEPS = 0.5, 16


class Reference:
    """A process that trains the baseline in bursts.

    Args:
        context: A run that it is compared with: same data, threads and confinement.
        files: Files of the baseline.

    Raises:
        LaunchFailed: The baseline does not reach its first batch.
    """

    def __init__(self, context: RunContext, files: Mapping[str, bytes]) -> None:
        with contextlib.ExitStack() as undo:
            root = undo.enter_context(temporary_folder("reference"))
            copy, work = root / "copy", root / "work"
            write_files(files, copy)
            work.mkdir()
            self._loader = DataLoader(context.dataset.training_tokens(), seed=0)
            undo.callback(self._loader.close)
            job = context.job("train", work / CHECKPOINT, work)
            job = replace(job, directory=copy, seed=0, memory_limit_bytes=None)
            self._child = context.launcher.start(job)
            undo.callback(self._child.kill)
            self._receive("ready", _START_S)
            self._child.send({"type": "go"}, [self._loader.fd])
            self._request = self._next_request(_START_S)
            self._warm_up()
            self._undo = undo.pop_all()

    def burst(self, progress: float) -> Burst:
        """Run one step to warm the caches, then a few that are measured.

        Args:
            progress: Passed to the baseline, whose steps may cost differently early and late.

        Raises:
            LaunchFailed: The reference ended or hangs; start another.
        """
        began = before = self._child.cpu_seconds()
        costs: list[float] = []
        for step in range(_MAX_STEPS):
            tokens = self._step(progress)
            now = self._child.cpu_seconds()
            if step > 0:
                costs.append((now - before) / tokens)
            before = now
            if len(costs) >= _MIN_STEPS and now - began >= _BURST_CPU_S:
                break
        if min(costs) <= 0:
            raise LaunchFailed("CPU time cannot be read here; use a budget in tokens instead")
        return Burst(tuple(costs), now - began)

    def close(self) -> None:
        """End the process; idempotent."""
        with contextlib.suppress(LaunchFailed):
            self._undo.close()

    def _warm_up(self) -> None:
        """Run the first steps, which allocate and so cost more than later ones."""
        began = self._child.cpu_seconds()
        for step in range(_WARM_STEPS):
            self._step(0.0)
            if step >= _MIN_STEPS and self._child.cpu_seconds() - began > _WARM_CPU_S:
                return

    def _step(self, progress: float) -> int:
        tokens = self._request.tokens
        try:
            self._child.send({**self._loader.hand_out(self._request), "progress": progress})
        except (ChildGone, ProtocolError) as error:
            raise LaunchFailed(one_line(f"the reference stopped: {error}")) from None
        self._request = self._next_request(_STEP_S)
        return tokens

    def _next_request(self, timeout_s: float) -> BatchRequest:
        try:
            return BatchRequest.parse(self._receive("batch", timeout_s))
        except ProtocolError as error:
            raise LaunchFailed(f"the reference {error}") from None

    def _receive(self, kind: str, timeout_s: float) -> dict[str, object]:
        try:
            message = self._child.receive(timeout_s)
        except (ChildGone, ChildTimeout, ProtocolError) as error:
            raise LaunchFailed(one_line(f"the reference stopped: {error}")) from None
        if message.get("type") != kind:
            raise LaunchFailed(one_line(f"the reference failed: {message.get('error', message)}"))
        return message
