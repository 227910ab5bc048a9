"""Any agent CLI as a proposer: it edits a plain copy, of which the editable files are read back.

Its own confinement is not relied on. It runs in our sandbox with the network open: of this machine
it sees the system, its own installation and the copy; data, ledger, repository and home are out of
reach where the kernel can enforce it. It gets one key and no other variable of the caller's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...core.money import NoPrice, SetAside, price
from ...core.proposal import (
    Context,
    Proposal,
    ProposalInvalid,
    ProposalRefused,
    ProposerExhausted,
    ProposerUnavailable,
    Usage,
)
from ...core.text import clean, one_line
from ...forkserver.group import Group
from ...forkserver.output import Output
from ...forkserver.usage import scan_groups
from ...ledger.spend import CostBudget
from ...sandbox import launch
from ...sandbox.launch import Sandboxed, survey
from ...sandbox.limits import candidate_environment
from ...sandbox.policy import Limits, Mode, Policy, SandboxError
from ...source.blocks import Parsed, fields
from ..llm.calls import REFUSALS
from ..llm.prompt import Prompt, compose, describe, quote
from ..llm.repair import Reply, Turn, converse
from .recipes import RECIPES, Asked, Key, Recipe, Told, read_any
from .workspace import changes, desk, installation, interpreters, lay_out, read_text

DEADLINE_S = 1200.0
"""Seconds for one proposal, repairs included."""

VERSION_S = 60.0

BUDGET_USD = 2.0
"""What one proposal may cost, where the CLI can be told; set aside under a cap, wherever."""

AGAIN_S = 60.0
"""Seconds before an agent is asked again whose provider is busy, where that cost nothing."""

MEMORY_BYTES = 8 << 30

OUTPUT_BYTES = 4 << 20

_SCAN_S = 1.0

_BUSY = re.compile(r"\b(429|503|529)\b|overloaded|rate.?limit", re.IGNORECASE)

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE")

_LIMITS = Limits(file_bytes=256 << 20)


@dataclass(frozen=True)
class Ran:
    """How a run of a program ended.

    Attributes:
        output: What it printed to its standard output, else to its standard error, bounded.
        complaint: The last line of its standard error, or of its output, or ''.
        code: Exit status; negative for a signal.
        overdue: Whether the deadline ended it.
        stopped: Which limit ended it, or ''.
        confined: What held it, in one line.
    """

    output: str
    complaint: str
    code: int
    overdue: bool
    stopped: str
    confined: str


@dataclass
class Command:
    """Proposes what an agent CLI makes of a copy of the project.

    Attributes:
        recipe: How it is asked.
        argv: Program and a person's own arguments, which come after the recipe's.
        name: ``command:`` and what it is called.
        model, effort: As a person chose, or None.
        passed: Variables that it gets besides the recipe's one key.
        read: Further files and folders that it may read.
        purse: The campaign's money, or None.
        sandbox: Mode of confinement.
        deadline_s: Seconds for one proposal.
    """

    recipe: Recipe
    argv: tuple[str, ...]
    name: str = "command"
    model: str | None = None
    effort: str | None = None
    passed: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    cost_budget: CostBudget | None = None
    sandbox: Mode = "auto"
    deadline_s: float = DEADLINE_S
    slow: bool = True
    _version: str | None = None
    _confined: str = ""
    _refusals: int = 0
    _running: set[Sandboxed] = field(default_factory=set)
    _closed: bool = False

    def check(self) -> str:
        """Start it once, before anything is spent; returns a warning where nothing confines it.

        Raises:
            ProposerUnavailable: It does not run.
        """
        self._version = self._ask_version()
        if self.sandbox != "off" and survey().files_confined:
            return ""
        return f"{self.name} is not confined here: it can read and write whatever you can"

    def propose(self, context: Context) -> Proposal:
        """Return what the agent proposes; see `Proposer.propose`."""
        if self._refusals >= REFUSALS:
            raise ProposerExhausted(
                f"{self.name} declined {self._refusals} times in this session; choose another "
                "model or proposer (the provider's terms may exclude such work)"
            )
        ends = time.monotonic() + self.deadline_s
        self._version = self._version or self._ask_version()
        prompt = compose(context, agent=True)
        meta = {"agent": self._version}
        try:
            proposal = converse(lambda t: self._ask(prompt, t, context, ends), context, self.name)
        except ProposalInvalid as error:
            error.meta = {**error.meta, **meta, "sandbox": self._confined}
            raise
        return replace(proposal, meta={**proposal.meta, **meta, "sandbox": self._confined})

    def close(self) -> None:
        """End what still runs."""
        self._closed = True
        for process in list(self._running):
            process.kill_group()

    # ------------------------------------------------------------------ one run

    def _ask(self, prompt: Prompt, turns: Sequence[Turn], context: Context, ends: float) -> Reply:
        began, reservation = time.monotonic(), self._reserve(ends)
        with desk() as (home, copy):
            lay_out(copy, context)
            (home / "prompt.md").write_bytes(_flat(prompt, turns).encode("utf-8", "replace"))
            try:
                ran = self._run(self._arguments(home, context), copy, home, ends)
            except ProposerUnavailable:
                if self.cost_budget is not None and reservation is not None:
                    self.cost_budget.settle(reservation, 0.0)
                raise
            told = self.recipe.read(ran.output, read_text(home / "last.txt") or "")
            told = replace(told, text=clean(told.text))
            usage = self._settle(reservation, told, time.monotonic() - began)
            self._confined = ran.confined
            self._judge(ran, told, usage)
            try:
                edits = changes(copy, context)
            except ProposalInvalid as error:
                error.title, error.usage = fields(told.text)[0], usage
                raise
        if not edits:
            return Reply(told.text, usage)
        title, hypothesis = fields(told.text)
        parsed = Parsed(title or describe(edits), hypothesis, edits, told.text)
        return Reply(told.text, usage, parsed)

    def _arguments(self, home: Path, context: Context) -> list[str]:
        asked = Asked(
            context.experiment.files,
            home / "prompt.md",
            home / "last.txt",
            self.model or "",
            self.effort or "",
            key.provider if (key := self._key()) else "",
            BUDGET_USD,
            self.sandbox != "off" and survey().files_confined,
        )
        program, *own = self.argv
        own = [word.replace("{prompt_file}", str(asked.prompt)) for word in own]
        own = [word.replace("{model}", asked.model) for word in own]
        return [program, *self.recipe.argv(asked), *own]

    def _run(self, argv: Sequence[str], copy: Path, home: Path, ends: float) -> Ran:
        """Run a program confined, until it ends or the deadline has come.

        Raises:
            ProposerUnavailable: It cannot be started.
        """
        said, complained = Output(OUTPUT_BYTES, OUTPUT_BYTES // 4), Output()
        prompt = home / "prompt.md"
        try:
            with open(prompt if prompt.exists() else os.devnull, "rb") as stdin:
                process = launch(
                    argv,
                    self._policy(argv[0], copy, home),
                    self.sandbox,
                    stdin=stdin,
                    stdout=said.write_fd,
                    stderr=complained.write_fd,
                )
        except (SandboxError, OSError) as error:
            raise ProposerUnavailable(f"{self.name}: {one_line(error)}") from None
        finally:
            os.close(said.write_fd)
            os.close(complained.write_fd)
        self._running.add(process)
        if self._closed:  # meanwhile
            process.kill_group()
        group = Group(process.pid, None, lambda pid: process.kill_group())
        group.memory_limit_bytes = MEMORY_BYTES
        try:
            overdue = _wait(process, group, ends)
        finally:
            process.kill_group()
            process.wait()
            self._running.discard(process)
        group.take_end({})
        output, complaint = "".join(said.finish()), "".join(complained.finish())
        lines = (complaint.strip() or output.strip()).splitlines()
        return Ran(
            output if output.strip() else complaint,
            one_line(lines[-1], 200) if lines else "",
            process.returncode,
            overdue,
            group.exit().describe() if group.exit().stopped else "",
            process.report.headline(),
        )

    def _policy(self, program: str, copy: Path, home: Path) -> Policy:
        path = (*interpreters(program), os.environ.get("PATH", os.defpath))
        extra = {"PATH": os.pathsep.join(path)}
        wanted = (*self.recipe.settings, *self.passed, *_PROXIES, *_CERTIFICATES)
        extra |= {name: os.environ[name] for name in wanted if name in os.environ}
        if (key := self._key()) is not None:
            extra[key.inside] = os.environ[key.name]
        certificates = [os.environ[name] for name in _CERTIFICATES if name in os.environ]
        return Policy(
            read=(*installation(program), *certificates, *self.read),
            write=(str(copy), str(home)),
            network=True,
            env=candidate_environment(str(home), threads=None, extra=extra),
            cwd=str(copy),
            limits=_LIMITS,
        )

    def _key(self) -> Key | None:
        """Return the one credential that is passed on."""
        provider, slash, _ = (self.model or "").partition("/")
        ours = [key for key in self.recipe.keys if os.environ.get(key.name)]
        named = [key for key in ours if slash and key.provider == provider]
        return next(iter(named or ours), None)

    def _ask_version(self) -> str:
        name = self.name.partition(":")[2] or self.name
        if not self.recipe.program:
            return name
        with desk() as (home, copy):
            ends = time.monotonic() + VERSION_S
            ran = self._run([self.argv[0], "--version"], copy, home, ends)
        if ran.code or not ran.output.strip():
            raise ProposerUnavailable(
                f"{name} --version ended with status {ran.code}: {ran.complaint or 'no output'}; "
                f"reinstall it ({self.recipe.install})"
            )
        return one_line(f"{name} {ran.output.strip().splitlines()[-1]}", 80)

    # ------------------------------------------------------------------ outcome and money

    def _judge(self, ran: Ran, told: Told, usage: Usage) -> None:
        """See that there is an answer at all.

        Raises:
            ProposerUnavailable: There is none, and not for the model's doing.
            ProposalRefused: The model declined.
            ProposalInvalid: It was cut off.
        """
        error: ProposerUnavailable | ProposalRefused | ProposalInvalid | None = None
        if self._closed:
            error = ProposerUnavailable(f"{self.name} was ended with the session")
        elif stopped := f"no answer in {self.deadline_s:g} s" if ran.overdue else ran.stopped:
            error = ProposerUnavailable(f"{self.name}: {stopped}; the attempt is not charged")
        elif told.refused:
            self._refusals += 1
            error = ProposalRefused(f"{self.name}: {told.refused}")
        elif told.unfinished:
            error = ProposalInvalid(
                f"the agent was cut off: {told.unfinished}", fields(told.text)[0]
            )
        elif told.failure or ran.code:
            why = told.failure or f"it ended with status {ran.code}: {ran.complaint}"
            error = ProposerUnavailable(f"{self.name}: {why}; the attempt is not charged")
            if usage.cost_usd == 0 and _BUSY.search(why):
                error.again_s = AGAIN_S
        if error is not None:
            error.usage = usage
            raise error

    def _reserve(self, ends: float) -> int | None:
        if self.cost_budget is None or self.cost_budget.cap is None:
            return None
        while True:
            try:
                return self.cost_budget.reserve(self.model or self.name, BUDGET_USD)
            except SetAside as error:
                if self._closed or time.monotonic() >= ends:
                    raise ProposerUnavailable(f"{error}; the attempt is not charged") from None
            time.sleep(_SCAN_S)

    def _settle(self, reservation: int | None, told: Told, seconds: float) -> Usage:
        """Work out what a run cost; under a cap, one that nobody can price stays set aside."""
        model = told.usage.model or (self.model or "").rpartition("/")[2]
        usage = replace(told.usage, model=model, requests=1, seconds=seconds)
        if usage.cost_usd is None and (usage.input_tokens or usage.output_tokens):
            vendor = key.provider if (key := self._key()) else ""
            with contextlib.suppress(NoPrice):
                usage = replace(usage, cost_usd=price(vendor, usage))
        if self.cost_budget is not None and usage.cost_usd is not None:
            if reservation is None:
                reservation = self.cost_budget.reserve(model or self.name, usage.cost_usd)
            self.cost_budget.settle(reservation, usage.cost_usd)
        elif self.cost_budget is not None and reservation is not None:
            usage = replace(usage, cost_usd=BUDGET_USD)
            self.cost_budget.settle(reservation, BUDGET_USD)
        return usage


def make(argument: str, root: Path) -> Command:
    """Return the proposer that ``command:ARGUMENT`` names.

    Args:
        argument: Words ``env:NAME`` (a variable to pass on) and ``read:PATH`` (to be readable),
            then the name of a recipe or a program, then its arguments.
        root: Where relative paths start.

    Raises:
        ValueError: No such program, or the one key it needs is not set.
    """
    words = shlex.split(argument)
    passed: list[str] = []
    read: list[str] = []
    while words and (match := words[0].partition(":"))[0] in ("env", "read") and match[1]:
        (passed if match[0] == "env" else read).append(match[2])
        words.pop(0)
    if not words:
        names = ", ".join(RECIPES)
        raise ValueError(f"command: names no program; write command:{{{names}}} or command:./agent")
    for name in passed:
        if name not in os.environ:
            raise ValueError(f"command: the variable {name} is not set; export it first")
    for path in read:
        if not (root / path).exists():
            raise ValueError(f"command: there is no {path} to read; give its path from {root}")
    recipe = RECIPES.get(words[0], Recipe("", lambda asked: [], read_any))
    program = recipe.program or words[0]
    found = shutil.which(str(root / program) if os.sep in program else program)
    if found is None:
        remedy = recipe.install or "give its path, or put it on PATH and make it executable"
        raise ValueError(f"command: {program} is no program here; {remedy}")
    name = words[0] if recipe.program else Path(program).name
    made = Command(
        recipe,
        (os.path.abspath(found), *words[1:]),
        f"command:{name}",
        passed=tuple(passed),
        read=tuple(str(root / path) for path in read),
    )
    if recipe.keys and made._key() is None and not passed:
        wanted = " or ".join(key.name for key in recipe.keys)
        raise ValueError(
            f"command:{name} needs {wanted}; a login in your home is not visible to it"
        )
    return made


def _flat(prompt: Prompt, turns: Sequence[Turn]) -> str:
    parts = [*prompt.system, *prompt.user]
    for said, answered in turns:
        parts.append(f"You were asked this before and answered:\n{quote('answer', said[-8000:])}")
        parts.append(f"The copy is as it was at first. {answered}")
    return "\n\n".join(parts) + "\n"


def _wait(process: Sandboxed, group: Group, ends: float) -> bool:
    """Wait for the end; returns whether the deadline came first."""
    scanned = time.monotonic()
    while (left := ends - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(min(left, 0.2))
            return False
        if sys.platform == "linux" and time.monotonic() - scanned > _SCAN_S:
            group.take_scan(scan_groups([group.pid])[group.pid])
            scanned = time.monotonic()
    return True
