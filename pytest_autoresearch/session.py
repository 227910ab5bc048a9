"""What one pytest process holds while it works on a campaign: the glue between hooks and steps."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import preflight
from .experiment import Budget, Experiment
from .options import Config
from .outcome import LETTERS, NoScore, Score, Trial
from .plan import Plan, make

if TYPE_CHECKING:
    from .campaign import Campaign
    from .collector import Slot
    from .reporting.live import LiveView
    from .reporting.livepage import LivePage
    from .reporting.logs import Logs
    from .researcher import Researcher
    from .slots import Slot as ActiveSlot
    from .trial import Progress

SESSION = pytest.StashKey["Session"]()
STOP_FILE = "STOP"
INTERRUPTED = "interrupted"


def start(config: pytest.Config) -> Session:
    """Check everything, open or resume the campaign and plan the session.

    Raises:
        pytest.UsageError: Before anything is spent, with the remedy.
    """
    options = Config.from_pytest(config)
    root = config.rootpath
    experiment = preflight.find_experiment(config)
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        # here, for xdist's workers too: they read the project's testpaths again
        config.args[:] = [str(root / experiment.program)]
    given = getattr(config, "workerinput", {}).get("autoresearch")
    if given is not None:
        plan = Plan(**{**json.loads(given), "baselines": tuple(json.loads(given)["baselines"])})
        return Session(config, options, experiment, plan, is_driver=False)
    repository = preflight.check(root, experiment)
    _check_proposer(options, root)
    if not (config.option.collectonly or config.option.setupplan):
        preflight.check_outputs(config, options)
    plan = make(config, options, experiment, repository)
    if getattr(config.option, "maxschedchunk", 0) is None:
        config.option.maxschedchunk = 1
    return Session(config, options, experiment, plan, is_driver=True)


def _check_proposer(options: Config, root: Path) -> None:
    from .proposers.registry import check, default

    try:
        check(options.proposer or default(), root)
    except ValueError as error:
        raise pytest.UsageError(f"--autoresearch-proposer: {error}") from None


@dataclass
class Session:
    """One process's part in a session.

    Attributes:
        config: pytest's.
        options: What the user asked for.
        experiment: The declaration.
        plan: What the driver decided.
        is_driver: False in an xdist worker.
        counts: Verdicts of this session (driver).
        stopping: Why no further slot starts, or ''.
        more: Whether this process has another slot to fill after the one that runs.
    """

    config: pytest.Config
    options: Config
    experiment: Experiment
    plan: Plan
    is_driver: bool
    counts: Counter[str] = field(default_factory=Counter)
    session_id: int | None = None
    stopping: str = ""
    more: bool = False
    _page: LivePage | None = None
    _logs: Logs | None = None
    _campaign: Campaign | None = None
    _lease: Any = None
    _launcher: Any = None
    _slots: dict[str, ActiveSlot] = field(default_factory=dict)
    _live: LiveView | None = None
    _ledger: Any = None
    _researcher: Researcher | None = None
    _told: list[str] = field(default_factory=list)
    _signals: dict[signal.Signals, Any] = field(default_factory=dict)

    # ------------------------------------------------------------------ campaign of this process

    @property
    def worker(self) -> str:
        """Xdist's name of this process, or ``main``."""
        return os.environ.get("PYTEST_XDIST_WORKER", "main")

    @property
    def folder(self) -> Path:
        """Where the campaign's state lives."""
        return self.config.rootpath / ".autoresearch" / self.plan.tag

    @property
    def ledger(self) -> Any:
        """The campaign's ledger, opened when first needed."""
        if self._ledger is None:
            from .ledger import Ledger

            self._ledger = Ledger.open(self.config.rootpath, self.plan.tag)
        return self._ledger

    def join(self) -> None:
        """Register this process with the campaign; the lock of the driver is the first."""
        from .ledger import CampaignBusy

        try:
            self.session_id = self.ledger.begin_session(
                driver=self.plan.driver, worker=self.worker, config=_plain(self.options)
            )
        except CampaignBusy as error:
            raise pytest.UsageError(str(error)) from None

    def campaign(self, experiment: Experiment | None = None) -> Campaign:
        """This process's hands on the campaign, made when the first slot runs."""
        if self._campaign is None:
            self._campaign = self._open(experiment or self.experiment)
        return self._campaign

    def _open(self, experiment: Experiment) -> Campaign:
        from .campaign import Campaign
        from .devices import Lease
        from .executors.local import LocalExecutor
        from .judge import Judge
        from .repository import Repository
        from .slots import InfrastructureFailure, Rules
        from .trial.launch import Launcher
        from .trials import Trials

        root = self.config.rootpath
        if self.session_id is None:
            self.join()
        assert self.session_id is not None
        self._lease = Lease()
        try:
            device = self._lease.take()
        except RuntimeError as error:
            raise InfrastructureFailure(str(error)) from None
        if device.kind == "cuda":
            os.environ["CUDA_VISIBLE_DEVICES"] = device.index
        self._launcher = Launcher()
        facts = self.ledger.meta("campaign")
        rules = Rules(
            tag=self.plan.tag,
            base_commit=self.plan.base_commit,
            budget=Budget.parse(self.plan.budget),
            seed=facts["seed"],
            calibrate=self.plan.calibrate,
            sandbox=self.options.sandbox,
            threads=self.options.threads,
            concurrency=self.plan.concurrency,
            policy=self.options.policy,
            max_noise=self.options.max_noise,
        )
        trials = Trials(
            root=root,
            experiment=experiment,
            rules=rules,
            ledger=self.ledger,
            repository=Repository.open(root),
            device=device,
            executor=LocalExecutor(
                self._launcher,
                self.folder / "runs",
                sandbox_mode=self.options.sandbox,
                on_progress=self._progress,
            ),
            should_stop=lambda: self.stopping == INTERRUPTED,
        )
        return Campaign(
            trials=trials,
            judge=Judge(self.options.judge, experiment.metric.direction),
            proposer=self.researcher(experiment).proposer,
            session_id=self.session_id,
            worker=self.worker,
        )

    def researcher(self, experiment: Experiment | None = None) -> Researcher:
        """Who proposes in this process."""
        from .researcher import Researcher

        if self._researcher is None:
            self._researcher = Researcher(
                self.config.rootpath,
                self.ledger.path,
                self.options,
                experiment or self.experiment,
                self._tell,
            )
        return self._researcher

    def _tell(self, line: str) -> None:
        if self._live is not None:
            self._live.say(line)
        else:
            self._told.append(line)

    def _prepare(self) -> None:
        """See that proposals can be had, before the baseline is measured."""
        from .proposers import ProposerUnavailable

        plan = self.plan
        try:
            lines = self.researcher().prepare(plan.first, plan.slots, plan.first - 1)
        except Exception as error:  # a factory of one's own may raise anything
            known = isinstance(error, ProposerUnavailable | ValueError)
            said = str(error) if known else f"{type(error).__name__}: {error}"
            raise pytest.UsageError(f"--autoresearch-proposer={self.proposer}: {said}") from None
        self._told += lines

    @property
    def proposer(self) -> str:
        """Who proposes."""
        from .proposers.registry import default

        return self.options.proposer or default()

    # ------------------------------------------------------------------ fixtures

    def propose(self, item: Slot, experiment: Experiment) -> ActiveSlot:
        """Open the item's slot and fill it."""
        from .proposers import ProposerExhausted
        from .trial import Progress

        campaign = self.campaign(experiment)
        slot = campaign.begin(item.name, item.kind, item.number)
        self._slots[item.nodeid] = slot
        if item.kind == "mutation":
            self._show(slot, "", Progress("propose"))
            try:
                campaign.propose(slot)
            except ProposerExhausted as error:
                self.stopping = str(error) or "nothing is left to propose"
                pytest.skip(self.stopping)
            if slot.proposal is not None:
                self.researcher().note(slot.proposal.meta, slot.name)
        return slot

    def train(self, item: Slot, slot: ActiveSlot) -> Trial:
        """Gate, train, score and replicate."""
        campaign = self.campaign()
        campaign.gate(slot)
        if self.more and item.kind == "mutation":
            campaign.draft_ahead(slot)
        return campaign.measurement.measure(slot)

    def bar(self, item: Slot) -> Score:
        """The number to beat."""
        return self.campaign().measurement.bar(self._slots[item.nodeid])

    # ------------------------------------------------------------------ the call phase

    def judge_call(self, item: Slot) -> Generator[None, object, object]:
        """Run the body; what it says is the verdict, recorded before the phase ends."""
        slot = self._slots.get(item.nodeid)
        trial = item.funcargs.get("trial")
        try:
            result = yield
        except NoScore as error:
            self._settle(item, slot, trial, error.verdict, error.reason)
            raise
        except AssertionError as error:
            best = item.funcargs.get("best")
            why = getattr(best, "explanation", "") or str(error)
            value = trial.value if isinstance(trial, Trial) else None
            shown = why
            if isinstance(best, Score):
                shown = f"{value:.6f} is not better than {float(best):.6f}: {why}"
            error.autoresearch_reason = shown  # type: ignore[attr-defined]
            self._settle(item, slot, trial, "discard", shown)
            raise
        if slot is not None:
            verdict = "baseline" if item.kind == "baseline" else "keep"
            self._settle_keep(item, slot, trial, verdict)
        return result

    def _settle_keep(self, item: Slot, slot: ActiveSlot, trial: Any, verdict: str) -> None:
        from .ledger import ChampionMoved

        while True:
            try:
                self._settle(item, slot, trial, verdict, "")
                return
            except ChampionMoved:
                bar = self.campaign().measurement.bar(slot)
                if not trial.score < bar:
                    reason = f"beaten meanwhile: the bar moved to {float(bar):.6f}"
                    self._settle(item, slot, trial, "discard", reason)
                    error = AssertionError(reason)
                    error.autoresearch_reason = reason  # type: ignore[attr-defined]
                    raise error from None

    def _settle(self, item: Slot, slot: Any, trial: Any, verdict: str, reason: str) -> None:
        if slot is None or not isinstance(trial, Trial):
            return
        from .reporting.junit import properties

        record = self.campaign().settle(slot, trial, verdict, reason)
        self._slots.pop(item.nodeid, None)
        self.idle()
        item.user_properties.extend(properties(record, self.experiment.metric))

    # ------------------------------------------------------------------ reports

    def shape_report(
        self, item: Slot, call: pytest.CallInfo[None], report: pytest.TestReport
    ) -> None:
        """Map the call phase to a verdict; give back what infrastructure cut off."""
        verdict = dict(report.user_properties).get("verdict")
        if call.excinfo is None:
            if report.when == "call" and verdict:
                report.autoresearch = verdict  # type: ignore[attr-defined]
            return
        slot = self._slots.pop(item.nodeid, None)
        if slot is not None and self._campaign is not None:
            reason = f"{call.excinfo.typename}: {call.excinfo.value}"
            interrupted = call.excinfo.errisinstance((KeyboardInterrupt, pytest.skip.Exception))
            with contextlib.suppress(Exception):
                state = "interrupted" if interrupted else "infra"
                self._campaign.give_back(slot, state, reason[:500])
            return
        if verdict is None:
            return
        report.autoresearch = verdict  # type: ignore[attr-defined]
        error = call.excinfo.value
        said = getattr(error, "autoresearch_reason", None) or getattr(error, "reason", error)
        runxfail = self.config.getoption("runxfail", False)
        if self.options.strict or runxfail or item.kind == "baseline":
            report.longrepr = f"{verdict}: {said}"
            return
        report.outcome = "skipped"
        report.wasxfail = f"{verdict}: {said}"

    def teststatus(self, report: pytest.TestReport) -> Any:
        """Category, letter and word of a verdict."""
        verdict = getattr(report, "autoresearch", None)
        quiet = self._live is not None and self._live.speaks  # the slot has a line of its own
        if report.failed and quiet:
            word = "failed" if report.when == "call" else "error"
            return word, "", (word.upper(), {"red": True})
        if verdict not in LETTERS or report.failed:
            return None
        word, letter, colour = LETTERS[verdict]
        return (word, "", "") if quiet else (word, letter, (verdict.upper(), {colour: True}))

    def logged(self, report: pytest.TestReport) -> None:
        """Driver: count, print and project."""
        if not self.is_driver:
            return
        verdict = getattr(report, "autoresearch", None)
        if report.when == "call" and verdict:
            self.counts[verdict] += 1
            self._mention_steering(dict(report.user_properties))
            if self._live is not None:
                self._live.finished(report)
            self.write_logs()
            self._announce(report)
        elif report.failed:
            self.counts["infra"] += 1
            if self._live is not None:
                self._live.failed(report)

    def _announce(self, report: pytest.TestReport) -> None:
        """Tell plugins of a verdict; what they raise is said and changes nothing."""
        from .hookspecs import announce, artifacts_of

        row = dict(report.user_properties).get("ledger_row")
        if row is None:
            return
        record = self.ledger.slot(int(str(row)))
        root, page = self.config.rootpath, self.options.html
        files = artifacts_of(
            record,
            self.ledger.path,
            tsv=root / "results.tsv",
            junit=preflight.junit_log(self.config),
            html=root / page if page else None,
        )
        say = self._live.tell if self._live is not None else None
        announce(self.config.pluginmanager, record, files, say)

    def _mention_steering(self, facts: dict[str, Any]) -> None:
        """Say with which slot a changed program was seen first."""
        row, brief = int(facts.get("ledger_row", 0)), facts.get("brief")
        earlier = [s for s in self.ledger.slots() if s.id < row and s.meta.get("brief")]
        if brief and earlier and earlier[-1].meta["brief"] != brief:
            name = self.ledger.slot(row).name
            self._tell(f"{self.plan.program} changed; {name} is the first to see it ({brief})")

    # ------------------------------------------------------------------ session

    def for_worker(self) -> str:
        """The plan as xdist carries it."""
        return json.dumps(asdict(self.plan))

    def started(self) -> None:
        """Take the campaign's lock, turn signals into Ctrl-C, start the live view."""
        if self.config.option.collectonly or self.config.option.setupplan:
            return
        if self.is_driver:
            self._prepare()
            self.join()
            self._listen()
            from .reporting.live import LiveView

            self._live = LiveView(self)
            self._live.start()
            if self.options.html:
                from .reporting.livepage import LivePage

                root = self.config.rootpath
                self._page = LivePage(root / self.options.html, root, self.plan.tag)
                self._page.start()

    def _progress(self, trial_id: str, progress: Progress) -> None:
        if self._campaign is not None and self._campaign.trials.running is not None:
            self._show(*self._campaign.trials.running, progress)

    def _show(self, slot: ActiveSlot, purpose: str, progress: Progress) -> None:
        from .reporting.live import write_status

        write_status(self.folder, self.worker, slot, purpose, progress)

    def idle(self) -> None:
        """Nothing runs in this process for the moment."""
        from .reporting.live import clear_status

        clear_status(self.folder, self.worker)

    def stop_reason(self) -> str:
        """Why no further slot should start here, or ''."""
        if self.stopping:
            return f"autoresearch: {self.stopping}"
        if self.plan.deadline is not None and time.time() >= self.plan.deadline:
            self.stopping = "deadline reached"
        elif (self.folder / STOP_FILE).exists():
            self.stopping = f"{self.folder / STOP_FILE} exists"
        elif self.session_id is not None:
            self.stopping = self._policy_stop()
        return f"autoresearch: {self.stopping}" if self.stopping else ""

    def _policy_stop(self) -> str:
        from .policy import stop

        options = self.options
        return stop(
            [s for s in self.ledger.slots() if s.session_id >= self._first_session()],
            self.ledger.champions(),
            self.experiment.metric,
            plateau=options.plateau,
            target=options.target,
            failures=options.max_failures,
        )

    def _first_session(self) -> int:
        """The first session of this pytest run: what earlier nights failed at stops nothing."""
        ours = [s.id for s in self.ledger.sessions() if s.driver == self.plan.driver]
        return min(ours, default=0)

    def interrupted(self) -> None:
        """Ctrl-C: running trials end at once and give their proposals back."""
        self._handle({number: signal.SIG_IGN for number in self._signals})
        self.stopping = INTERRUPTED

    def _listen(self) -> None:
        """End as Ctrl-C does on SIGTERM and when the terminal closes, unless that is ignored."""
        numbers = {signal.SIGTERM, signal.SIGHUP}
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
            numbers.remove(signal.SIGHUP)
        self._signals = self._handle({number: self._terminated for number in numbers})

    @staticmethod
    def _handle(handlers: Mapping[signal.Signals, Any]) -> dict[signal.Signals, Any]:
        """Set handlers and return those before; none outside of the main thread."""
        with contextlib.suppress(ValueError):
            return {number: signal.signal(number, new) for number, new in handlers.items()}
        return {}

    def _terminated(self, number: int, frame: object) -> None:
        """Once is enough: another one would cut off what is being written."""
        self._handle({number: signal.SIG_IGN for number in self._signals})
        raise KeyboardInterrupt

    def exit_status(self, status: int) -> int:
        """0: the campaign ran; 1: baseline failed, all crashed, or too few keeps."""
        if not self.is_driver or status in (
            pytest.ExitCode.USAGE_ERROR,
            pytest.ExitCode.INTERNAL_ERROR,
        ):
            return int(status)
        own_stop = bool(self.stop_reason()) and self.stopping != INTERRUPTED
        if status == pytest.ExitCode.INTERRUPTED and not own_stop:
            return int(status)
        if status == pytest.ExitCode.NO_TESTS_COLLECTED:
            return int(status)
        tried = sum(n for v, n in self.counts.items() if v not in ("baseline", "infra"))
        crashed = sum(self.counts[v] for v in ("crash", "timeout", "infra"))
        failed = self.counts["infra"] > 0 or bool(self.options.strict and status)
        all_crashed = tried > 0 and crashed >= tried
        too_few = self.counts["keep"] < self.options.min_keep
        baseline_failed = status == pytest.ExitCode.TESTS_FAILED
        return int(failed or all_crashed or too_few or baseline_failed)

    def write_logs(self, last: bool = False) -> None:
        """Project the ledger into the files that people and machines read."""
        from .reporting.logs import Logs

        if self._logs is None:
            self._logs = Logs(
                self.config.rootpath,
                self.ledger,
                self.experiment.metric,
                preflight.junit_log(self.config),
                self.session_id or 0,
                self._page,
            )
        self._logs.write(last)

    def _summarise_for_ci(self) -> None:
        if not self.options.summary:
            return
        from .reporting import markdown

        text = markdown.render(
            self.plan.tag,
            self.ledger.slots(),
            self.ledger.champions(),
            self.experiment.metric,
            self.ledger.meta("closing"),
        )
        with contextlib.suppress(OSError):
            markdown.append(self.config.rootpath / self.options.summary, text)

    def finished(self, status: int) -> None:
        """End this process's part; the driver writes the logs after pytest's own writers."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self.idle()
        if self.config.option.collectonly or self.config.option.setupplan:
            return
        if self._campaign is not None:
            with contextlib.suppress(Exception):
                self._campaign.project()
        if self.session_id is not None:
            self.ledger.end_session(self.session_id, status)
        if self.is_driver and self.session_id is not None:
            self.ledger.recover()
            self.write_logs(last=True)
            self._summarise_for_ci()

    def confirm(self) -> None:
        """Leave out keeps that cost nothing, then see on fresh seeds whether the rest holds."""
        from .closing import close, forgiving
        from .prune import prune

        tried = self.counts["keep"] + self.counts["discard"] > 0
        if not tried or self.session_id is None or self.stopping == INTERRUPTED:
            return
        say = self._live.say if self._live is not None else lambda line: None
        with forgiving(say):
            if self.options.prune:
                prune(self.campaign(), say)
            champion, known = self.ledger.champion(), self.ledger.meta("closing") or {}
            new = champion is not None and known.get("champion") != champion.version
            if self.options.confirm and new:
                close(self.campaign(), self.options.confirm, say=say)

    def header(self) -> list[str]:
        """What is in force, for pytest's header."""
        from .reporting.terminal import header

        return [*header(self), *self._told] if self.is_driver else []

    def summarise(self, reporter: Any) -> None:
        """The block at the end."""
        if self.config.option.collectonly or self.config.option.setupplan or not self.is_driver:
            return
        from .reporting.terminal import summary, write

        if self.config.option.verbose < -1:
            return
        reporter.section("autoresearch")
        for line in summary(self):
            write(reporter, line)

    def close(self) -> None:
        """Release what is held, whatever happened; safe to call twice."""
        if self._campaign is not None:
            self._campaign.close()
            self._campaign = None
        if self._researcher is not None:
            self._researcher.close()
        if self._launcher is not None:
            self._launcher.close()
        if self._lease is not None:
            self._lease.release()
        if self._ledger is not None:
            self._ledger.close()
        self._handle({number: old or signal.SIG_DFL for number, old in self._signals.items()})
        self._signals = {}


def _plain(options: Config) -> dict[str, object]:
    return {
        name: value if isinstance(value, int | float | str | None) else str(value)
        for name, value in vars(options).items()
    }
