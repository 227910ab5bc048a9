"""What one process holds of a campaign: ledger, device, launcher, proposer, hands.

Each is made when it is first needed, and released whatever happened.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .experiment import Budget, Experiment
from .night import Night
from .options import Config
from .plan import Plan

if TYPE_CHECKING:
    from .campaign import Campaign
    from .researcher import Researcher
    from .trial import Progress


@dataclass
class Holdings:
    """One process's share of a campaign.

    Attributes:
        root: The project.
        options: What the user asked for.
        plan: What the driver decided.
        say: Shows a person a line.
        on_progress: Told how a trial gets on, by its id.
        should_stop: Whether running trials end at once.
        night: What a pause heeds.
        session_id: This process's row in the ledger, once it has joined.
        campaign: Its hands, once a slot has needed them.
    """

    root: Path
    options: Config
    plan: Plan
    say: Callable[[str], None]
    on_progress: Callable[[str, Progress], None]
    should_stop: Callable[[], bool]
    night: Night
    session_id: int | None = None
    campaign: Campaign | None = None
    _lease: Any = None
    _launcher: Any = None
    _ledger: Any = None
    _researcher: Researcher | None = None

    @property
    def worker(self) -> str:
        """Xdist's name of this process, or ``main``."""
        return os.environ.get("PYTEST_XDIST_WORKER", "main")

    @property
    def folder(self) -> Path:
        """Where the campaign's state lives."""
        return self.root / ".autoresearch" / self.plan.tag

    @property
    def ledger(self) -> Any:
        """The campaign's ledger, opened when first needed."""
        if self._ledger is None:
            from .ledger import Ledger

            self._ledger = Ledger.open(self.root, self.plan.tag)
        return self._ledger

    def join(self) -> int:
        """Register this process with the campaign; the lock of the driver is the first.

        Raises:
            pytest.UsageError: Somebody else works on it, or it cannot be written.
        """
        from .ledger import CampaignBusy, LedgerUnavailable

        if self.session_id is None:
            config = {
                name: value if isinstance(value, int | float | str | None) else str(value)
                for name, value in vars(self.options).items()
            }
            try:
                self.session_id = self.ledger.begin_session(
                    driver=self.plan.driver, worker=self.worker, config=config
                )
            except (CampaignBusy, LedgerUnavailable) as error:
                raise pytest.UsageError(str(error)) from None
        return self.session_id

    def workers(self) -> list[int]:
        """Return the processes of this pytest run that have joined and live, but this one."""
        from .processes import is_alive

        return [
            one.pid
            for one in self.ledger.sessions()
            if one.driver == self.plan.driver
            and one.id != self.session_id
            and one.ended is None
            and one.host == platform.node()
            and is_alive(one.host, one.boot_id, one.pid, one.pid_start)
        ]

    def researcher(self, experiment: Experiment) -> Researcher:
        """Who proposes in this process."""
        from .researcher import Researcher

        if self._researcher is None:
            self._researcher = Researcher(
                self.root, self.ledger.path, self.options, experiment, self.say
            )
        return self._researcher

    def open(self, experiment: Experiment) -> Campaign:
        """Return this process's hands on the campaign, made with the first slot.

        Raises:
            InfrastructureFailure: There is no device for it.
        """
        if self.campaign is None:
            self.campaign = self._open(experiment)
        return self.campaign

    def _open(self, experiment: Experiment) -> Campaign:
        from .campaign import Campaign
        from .devices import Lease
        from .executors.local import LocalExecutor
        from .judge import Judge
        from .repository import Repository
        from .slots import InfrastructureFailure, Rules
        from .trial.launch import Launcher
        from .trials import Trials

        session_id, plan, options = self.join(), self.plan, self.options
        self._lease = Lease()
        try:
            device = self._lease.take()
        except RuntimeError as error:
            raise InfrastructureFailure(str(error)) from None
        if device.kind == "cuda":
            os.environ["CUDA_VISIBLE_DEVICES"] = device.index
        self._launcher = Launcher()
        rules = Rules(
            tag=plan.tag,
            base_commit=plan.base_commit,
            budget=Budget.parse(plan.budget),
            seed=self.ledger.meta("campaign")["seed"],
            calibrate=plan.calibrate,
            sandbox=options.sandbox,
            threads=options.threads,
            concurrency=plan.concurrency,
            policy=options.policy,
            max_noise=options.max_noise,
        )
        trials = Trials(
            root=self.root,
            experiment=experiment,
            rules=rules,
            ledger=self.ledger,
            repository=Repository.open(self.root),
            device=device,
            executor=LocalExecutor(
                self._launcher,
                self.folder / "runs",
                sandbox_mode=options.sandbox,
                on_progress=self.on_progress,
            ),
            should_stop=self.should_stop,
        )
        return Campaign(
            trials=trials,
            judge=Judge(options.judge, experiment.metric.direction),
            proposer=self.researcher(experiment).proposer,
            session_id=session_id,
            worker=self.worker,
            night=self.night,
        )

    def close(self) -> None:
        """Release everything, also where releasing one thing fails; safe to call twice.

        Raises:
            Exception: Whatever a proposer of one's own raised, after all is released.
        """
        with ExitStack() as held:  # the last one first
            if self._ledger is not None:
                held.callback(self._ledger.close)
            if self._lease is not None:
                held.callback(self._lease.release)
            for one in (self._launcher, self._researcher, self.campaign):
                if one is not None:
                    held.callback(one.close)
            self.campaign = None
