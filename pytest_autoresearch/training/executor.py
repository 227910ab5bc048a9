"""Execution of one run while the calling thread stays responsive to Ctrl-C."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..core.run import Progress, Run, RunSpec
from ..core.text import one_line
from ..forkserver.launch import Launcher
from ..sandbox.policy import Mode
from .run import execute

_TICK_S = 0.25
_STOP_S = 10.0


@dataclass(frozen=True)
class Executor:
    """Runs one training at a time in a helper thread.

    A KeyboardInterrupt in the middle of a message would leave the forkserver's channel unusable;
    in a helper thread there is none.

    The attributes are those of `execute`; `on_progress` also gets the run id, and is called in the
    helper thread. The caller closes the launcher.
    """

    launcher: Launcher
    root: Path
    sandbox_mode: Mode = "auto"
    on_progress: Callable[[str, Progress], object] | None = None

    def run(self, spec: RunSpec, should_stop: Callable[[], bool] = lambda: False) -> Run:
        """Run `spec` and wait for it.

        A failure of the harness itself is a result of status ``"infra"``. What a signal handler
        raises in the calling thread, such as KeyboardInterrupt, stops the run and propagates.

        Args:
            spec: What to run.
            should_stop: Polled in the calling thread; once true, the run ends ``"interrupted"``.
        """
        stop, results = threading.Event(), list[Run]()
        thread = threading.Thread(
            target=lambda: results.append(self._run(spec, stop.is_set)), name=spec.run_id
        )
        try:
            thread.start()
            while thread.is_alive():
                thread.join(_TICK_S)
                if should_stop():
                    stop.set()
        except BaseException:
            stop.set()
            thread.join(_STOP_S)
            raise
        return results[0]

    def _run(self, spec: RunSpec, should_stop: Callable[[], bool]) -> Run:
        def show(progress: Progress) -> None:
            if self.on_progress is not None:
                self.on_progress(spec.run_id, progress)

        try:
            return execute(
                spec, self.launcher, self.root, on_progress=show,
                sandbox_mode=self.sandbox_mode, should_stop=should_stop,
            )  # fmt: skip
        except BaseException as error:
            reason = one_line(f"{type(error).__name__}: {error}")
            return Run("infra", reason, log_tail=traceback.format_exc())
