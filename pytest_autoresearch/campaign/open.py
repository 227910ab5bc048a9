"""Build the objects of a campaign, for a pytest process and for the commands beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InfrastructureFailure, UsageError
from ..core.experiment import Experiment
from ..core.processes import process_start
from ..forkserver.launch import Launcher
from ..judge.verdicts import Judge
from ..ledger.git import Repository, RepositoryError
from ..ledger.repair import Commits
from ..ledger.store import CampaignBusy, Ledger, LedgerUnavailable
from ..training.devices import Lease
from ..training.executor import Executor
from .cleanup import RUNS, sweep_campaign
from .facts import CampaignFacts, SessionSettings
from .loop import Campaign
from .pause import PauseControl
from .project import check, check_data_identity, default_tag, experiment_at
from .researcher import Researcher
from .runs import Runner

if TYPE_CHECKING:
    from ..core.run import Progress

ORPHANS_S = 5.0
"""Longest wait for the workers of a killed driver, in seconds."""


@dataclass
class CampaignResources:
    """One process's ledger, device, fork server and proposer, each opened when first needed.

    Attributes:
        root: Folder of the project.
        driver: Token that the processes of one pytest run share; they share the campaign's lock.
        worker: xdist's name of this process, ``main``, or the command.
        config: Options to record with the session.
        on_progress: Called with the id and the progress of a run.
        should_stop: Whether running runs end at once.
        session_id: This process's row in the ledger, once it has joined.
        campaign: The campaign, once an attempt has needed it.
    """

    root: Path
    tag: str
    experiment: Experiment
    facts: CampaignFacts
    settings: SessionSettings
    driver: str
    worker: str = field(default_factory=lambda: os.environ.get("PYTEST_XDIST_WORKER", "main"))
    config: Mapping[str, object] = field(default_factory=dict)
    say: Callable[[str], None] = lambda line: None
    on_progress: Callable[[str, Progress], None] = lambda run_id, progress: None
    should_stop: Callable[[], bool] = lambda: False
    pauses: PauseControl = field(default_factory=PauseControl)
    session_id: int | None = None
    campaign: Campaign | None = None
    _opened: ExitStack = field(default_factory=ExitStack, init=False, repr=False)

    @property
    def folder(self) -> Path:
        """Folder of the campaign's state."""
        return self.root / ".autoresearch" / self.tag

    @cached_property
    def ledger(self) -> Ledger:
        """The campaign's ledger."""
        ledger = Ledger.open(self.root, self.tag)
        self._opened.callback(ledger.close)
        return ledger

    @cached_property
    def researcher(self) -> Researcher:
        """The proposer of this process with its notes and papers."""
        researcher = Researcher(
            self.root, self.ledger.path, self.settings, self.experiment, self.say
        )
        self._opened.callback(researcher.close)
        return researcher

    def join(self) -> int:
        """Register this process with the campaign; the first one takes the campaign's lock.

        Raises:
            UsageError: Another session works on the campaign, or its ledger cannot be written.
        """
        if self.session_id is None:
            config = {
                name: value if isinstance(value, int | float | str | None) else str(value)
                for name, value in self.config.items()
            }
            try:
                self._wait_for_orphans()
                self.session_id = self.ledger.begin_session(
                    driver=self.driver, worker=self.worker, config=config
                )
            except (CampaignBusy, LedgerUnavailable) as error:
                raise UsageError(str(error)) from None
            if not self.workers():
                self.sweep()
                self.repair()
        return self.session_id

    def _wait_for_orphans(self) -> None:
        """Wait a moment for the workers of a driver that was killed, which are ending."""
        ends = time.monotonic() + ORPHANS_S
        while time.monotonic() < ends:
            others = [s for s in self.ledger.sessions() if not s.ended and s.driver != self.driver]
            first = {session.driver: session for session in reversed(others)}
            alive = [process_start(s.pid) == s.pid_start != "" for s in first.values()]
            if not others or any(alive):
                return
            self.ledger.recover()
            time.sleep(0.1)

    def sweep(self) -> None:
        """Remove what killed processes left, and the files of runs that nothing needs."""
        sweep_campaign(self.root, self.ledger)

    def repair(self) -> None:
        """Make the commits again that git has lost since the last session.

        Raises:
            UsageError: The champion's or the baseline's cannot be made.
        """
        try:
            commits = Commits(Repository.open(self.root), self.ledger, self.experiment.files)
            unmade = commits.remake(commits.lost())
        except RepositoryError as error:
            raise UsageError(str(error)) from None
        champion = self.ledger.champion()
        for attempt in unmade:
            if attempt.kind == "baseline" or (champion and champion.attempt_id == attempt.id):
                raise UsageError(
                    f"git has lost commit {attempt.commit[:10]} of {attempt.name}; fetch it from "
                    "another clone (git fetch), or give another --autoresearch-tag"
                )

    def workers(self) -> list[int]:
        """Return the ids of the other live processes of this pytest run."""
        return self.ledger.live_processes(self.driver)

    def open(self) -> Campaign:
        """Return the campaign; the first call leases a device and starts the fork server.

        Raises:
            InfrastructureFailure: No device is free.
        """
        if self.campaign is None:
            self.campaign = self._open()
        return self.campaign

    def _open(self) -> Campaign:
        session_id, sandbox = self.join(), self.settings.sandbox
        lease = Lease()
        self._opened.callback(lease.release)
        try:
            device = lease.take()
        except RuntimeError as error:
            raise InfrastructureFailure(str(error)) from None
        if device.kind == "cuda":
            os.environ["CUDA_VISIBLE_DEVICES"] = device.index
        launcher = Launcher()
        self._opened.callback(launcher.close)
        runner = Runner(
            root=self.root,
            experiment=self.experiment,
            facts=self.facts,
            settings=self.settings,
            ledger=self.ledger,
            repository=Repository.open(self.root),
            device=device,
            executor=Executor(
                launcher,
                self.folder / RUNS,
                sandbox_mode=sandbox,
                on_progress=self.on_progress,
            ),
            should_stop=lambda: self.should_stop() or self.ledger.lost(),
        )
        campaign = Campaign(
            runner=runner,
            judge=Judge(self.settings.judge, self.experiment.metric.direction),
            proposer=self.researcher.proposer,
            session_id=session_id,
            worker=self.worker,
            pauses=self.pauses,
        )
        self._opened.callback(campaign.close)
        return campaign

    def close(self) -> None:
        """Release everything in reverse order, even if one step fails; safe to call twice.

        Raises:
            Exception: What a user's own proposer raised, after everything is released.
        """
        self.campaign = None
        self.__dict__.pop("researcher", None)
        self.__dict__.pop("ledger", None)
        self._opened.close()


@contextmanager
def open_campaign(root: Path, tag: str | None, command: str) -> Iterator[Campaign]:
    """Join an existing campaign for one command, under the settings of its last pytest session.

    Args:
        root: Folder of the project.
        tag: Name of the campaign; None for the name of the current git branch.
        command: Recorded as the session's worker.

    Raises:
        UsageError: No such campaign, another session works on it, or the project is not ready.
    """
    experiment = experiment_at(root)
    tag = tag or default_tag(check(root, experiment))
    if not Ledger.exists(root, tag):
        raise UsageError(f"no campaign {tag!r} in {root}; give --tag")
    with closing(Ledger.open(root, tag)) as ledger:
        facts = CampaignFacts.load(ledger)
        if facts is None:
            raise UsageError(f"campaign {tag!r} ended before it began; give another --tag")
        facts.check_comparable(experiment, tag)
        check_data_identity(root, experiment, ledger, tag)
        configs = [session.config for session in ledger.sessions() if session.config]
        settings = SessionSettings.select(configs[-1] if configs else {})
        resources = CampaignResources(
            root,
            tag,
            experiment,
            facts,
            replace(settings, proposer="ratchet", price=None),
            driver=command,
            worker=command,
        )
        session = resources.join()
        with ExitStack() as stack:
            stack.callback(ledger.end_session, session, None)
            stack.callback(resources.close)
            stack.callback(resources.sweep)
            yield resources.open()
