"""What one process holds of a campaign: ledger, device, launcher, proposer, hands.

Each is made when it is first needed, and released whatever happened.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..core.errors import InfrastructureFailure
from ..core.experiment import Budget, Experiment
from ..forkserver.launch import Launcher
from ..judge.verdicts import Judge
from ..ledger.git import RepositoryError
from ..ledger.store import CampaignBusy, Ledger, LedgerUnavailable
from ..options import Options
from ..proposers.registry import create
from ..session.plan import Plan
from ..training.devices import Lease
from ..training.executor import Executor
from .attempt import Rules
from .loop import Campaign
from .pause import Night
from .project import check, default_tag, experiment_at
from .runs import Runner

if TYPE_CHECKING:
    from ..core.run import Progress
    from .researcher import Researcher


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
        campaign: Its hands, once an attempt has needed them.
    """

    root: Path
    options: Options
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
            from ..ledger.store import Ledger

            self._ledger = Ledger.open(self.root, self.plan.tag)
        return self._ledger

    def join(self) -> int:
        """Register this process with the campaign; the lock of the driver is the first.

        Raises:
            pytest.UsageError: Somebody else works on it, or it cannot be written.
        """
        from ..ledger.store import CampaignBusy, LedgerUnavailable

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
        from ..core.processes import is_alive

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
        """Return this process's hands on the campaign, made with the first attempt.

        Raises:
            InfrastructureFailure: There is no device for it.
        """
        if self.campaign is None:
            self.campaign = self._open(experiment)
        return self.campaign

    def _open(self, experiment: Experiment) -> Campaign:
        from ..core.errors import InfrastructureFailure
        from ..forkserver.launch import Launcher
        from ..judge.verdicts import Judge
        from ..ledger.git import Repository
        from ..training.devices import Lease
        from ..training.executor import Executor
        from .attempt import Rules
        from .loop import Campaign
        from .runs import Runner

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
            parents=options.parents,
            max_noise=options.max_noise,
        )
        runner = Runner(
            root=self.root,
            experiment=experiment,
            rules=rules,
            ledger=self.ledger,
            repository=Repository.open(self.root),
            device=device,
            executor=Executor(
                self._launcher,
                self.folder / "runs",
                sandbox_mode=options.sandbox,
                on_progress=self.on_progress,
            ),
            should_stop=self.should_stop,
        )
        return Campaign(
            runner=runner,
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


FAILURES = (
    pytest.UsageError, CampaignBusy, InfrastructureFailure, LedgerUnavailable, RepositoryError,
    RuntimeError, OSError, KeyboardInterrupt,
)  # fmt: skip
"""What ends a command with one line: nothing of it is a verdict."""


@contextmanager
def opened(root: Path, tag: str | None, command: str) -> Iterator[Campaign]:
    """Join a campaign that exists, alone, and leave it in order.

    Args:
        root: The project.
        tag: Of the campaign; None: the name of the current git branch.
        command: Who joins; shown to others who find the campaign busy.

    Raises:
        pytest.UsageError: No such campaign, or the project is not in order.
        ledger.CampaignBusy: Somebody else works on it.
    """
    experiment = experiment_at(root)
    repository = check(root, experiment)
    tag = tag or default_tag(repository)
    if not Ledger.exists(root, tag):
        raise pytest.UsageError(f"no campaign {tag!r} in {root}; give --tag")
    ledger = Ledger.open(root, tag)
    facts, asked = ledger.meta("campaign"), _asked(ledger)
    _check_same(ledger, facts, experiment, root, tag)
    session = ledger.begin_session(driver=command, worker=command)
    lease = Lease()
    try:
        rules = Rules(
            tag=tag,
            base_commit=facts["base_commit"],
            budget=Budget.parse(facts["budget"]),
            seed=facts["seed"],
            calibrate=facts["calibrate"],
            sandbox=asked.get("sandbox", "auto"),
            threads=asked.get("threads", 1),
        )
        device = lease.take()
        if device.kind == "cuda":
            os.environ["CUDA_VISIBLE_DEVICES"] = device.index  # without it trials see no GPU
        with Launcher() as launcher:
            runner = Runner(
                root=root,
                experiment=experiment,
                rules=rules,
                ledger=ledger,
                repository=repository,
                device=device,
                executor=Executor(
                    launcher,
                    root / ".autoresearch" / tag / "runs",
                    sandbox_mode=asked.get("sandbox", "auto"),
                ),
            )
            campaign = Campaign(
                runner=runner,
                judge=Judge("sequential", experiment.metric.direction),
                proposer=lambda: create("ratchet", experiment=experiment, root=root),
                session_id=session,
                worker=command,
            )
            try:
                yield campaign
            finally:
                campaign.close()
    finally:
        lease.release()
        ledger.end_session(session, None)
        ledger.close()


def _asked(ledger: Ledger) -> Mapping[str, Any]:
    """What the last pytest session was asked for: its trials are what is compared with."""
    asked = [session.config for session in ledger.sessions() if session.config]
    return asked[-1] if asked else {}


def _check_same(
    ledger: Ledger, facts: Mapping[str, Any] | None, experiment: Experiment, root: Path, tag: str
) -> None:
    """See that scores measured now can be compared with the campaign's.

    Raises:
        pytest.UsageError: They cannot, and why.
    """
    if facts is None:
        raise pytest.UsageError(f"campaign {tag!r} ended before it began; give another --tag")
    metric, files = asdict(experiment.metric), list(experiment.files)
    if facts["metric"] != metric or facts["files"] != files:
        raise pytest.UsageError(
            f"campaign {tag!r} was started with another metric or other editable files than "
            "conftest.py declares now"
        )
    known = ledger.meta("data_sha256")
    if experiment.run is not None or experiment.data is None or known is None:
        return
    from ..data.dataset import Dataset

    if Dataset.open(root / experiment.data).sha256 != known:
        raise pytest.UsageError(
            f"{experiment.data} is other data than campaign {tag!r} was scored on; prepare the old "
            "data again"
        )
