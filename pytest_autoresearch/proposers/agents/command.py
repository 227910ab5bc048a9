"""Any agent CLI as a proposer: it edits a plain copy, from which the editable files are read back.

Its own confinement is not relied on. It runs in our sandbox with the network open. Of this machine
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
    EditError,
    Proposal,
    ProposalInvalid,
    ProposalRefused,
    Proposer,
    ProposerError,
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
from ...source.blocks import Parsed, fields, without_thoughts
from ..history import describe, quote
from ..llm.prompt import Prompt, compose
from ..llm.provider import REFUSALS
from ..llm.repair import Reply, Turn, converse
from .recipes import RECIPES, AgentReply, AgentRequest, Key, Recipe, read_any
from .workspace import (
    changes,
    fill,
    hidden_files,
    installation,
    interpreters,
    read_text,
    workspace,
)

DEADLINE_S = 1200.0
"""Seconds for one proposal, repairs included."""

VERSION_S = 60.0

BUDGET_USD = 2.0
"""Bound on the cost of a run, if the CLI takes one; reserved for every run under a cap."""

AGAIN_S = 60.0
"""Seconds before an agent whose provider is busy is asked again, if the failure was free."""

MEMORY_BYTES = 8 << 30

OUTPUT_BYTES = 4 << 20

_SCAN_S = 1.0

_BUSY = re.compile(r"\b(429|503|529)\b|overloaded|rate.?limit", re.IGNORECASE)

_DENIED = re.compile(r"Permission denied: '(/[^']+\.py)'")

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE")

_LIMITS = Limits(file_bytes=256 << 20)


@dataclass(frozen=True)
class ProcessResult:
    """The end of a process.

    Attributes:
        output: Its standard output, else its standard error, bounded.
        complaint: Last line of its standard error, else of its output, or ''.
        code: Exit status; negative for a signal.
        timed_out: Whether the deadline ended it.
        stopped: Limit that ended it, or ''.
        confinement: The sandbox's layers in one line.
    """

    output: str
    complaint: str
    code: int
    timed_out: bool
    stopped: str
    confinement: str


@dataclass
class AgentProposer(Proposer):
    """Proposes an agent's changes to a copy of the project.

    Attributes:
        recipe: How the CLI is called.
        argv: Program and the user's arguments, which follow the recipe's.
        name: ``command:`` and the CLI's name.
        model, effort: Options of the user, or None.
        passed: Environment variables passed on, besides the recipe's one key.
        read: Further files and folders that the agent may read.
        hide: Files with validation and holdout text, which it may not read.
        cost_budget: The campaign's money, or None.
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
    hide: tuple[str, ...] = ()
    cost_budget: CostBudget | None = None
    sandbox: Mode = "auto"
    deadline_s: float = DEADLINE_S
    _version: str | None = None
    _confinement: str = ""
    _refusals: int = 0
    _running: set[Sandboxed] = field(default_factory=set)
    _closed: bool = False

    slow = True

    def check(self) -> str:
        """Start the CLI once; return a warning if nothing confines it.

        Raises:
            ProposerUnavailable: It does not run.
        """
        self._version = self._read_version()
        if self._confined():
            return ""
        return f"{self.name} is not confined here: it can read and write whatever you can"

    def propose(self, context: Context) -> Proposal:
        """Return the agent's proposal; see `Proposer.propose`."""
        if self._refusals >= REFUSALS:
            raise ProposerExhausted(
                f"{self.name} declined {self._refusals} times in this session; choose another "
                "model or proposer (the provider's terms may exclude such work)"
            )
        deadline = time.monotonic() + self.deadline_s
        self._version = self._version or self._read_version()
        prompt = compose(context, agent=True)
        try:
            proposal = converse(
                lambda turns: self._ask(prompt, turns, context, deadline), context, self.name
            )
        except ProposalInvalid as error:
            error.meta = {**error.meta, **self._meta()}
            raise
        return replace(proposal, meta={**proposal.meta, **self._meta()})

    def close(self) -> None:
        """End the processes that still run."""
        self._closed = True
        for process in list(self._running):
            process.kill_group()

    def _meta(self) -> dict[str, object]:
        return {"agent": self._version, "sandbox": self._confinement}

    def _confined(self) -> bool:
        return self.sandbox != "off" and survey().files_confined

    # ------------------------------------------------------------------ one run

    def _ask(
        self, prompt: Prompt, turns: Sequence[Turn], context: Context, deadline: float
    ) -> Reply:
        start, reservation = time.monotonic(), self._reserve(deadline)
        with workspace() as (home, copy):
            fill(copy, context)
            (home / "prompt.md").write_bytes(_flatten(prompt, turns).encode("utf-8", "replace"))
            try:
                result = self._run(self._arguments(home, context), copy, home, deadline)
            except ProposerUnavailable:
                if self.cost_budget is not None and reservation is not None:
                    self.cost_budget.settle(reservation, 0.0)
                raise
            reply = self.recipe.read(result.output, read_text(home / "last.txt") or "")
            reply = replace(reply, text=clean(reply.text))
            with contextlib.suppress(EditError):
                reply = replace(reply, text=without_thoughts(reply.text))
            usage = self._settle(reservation, reply, time.monotonic() - start)
            self._confinement = result.confinement
            if (failure := self._failure(result, reply, usage)) is not None:
                raise failure.with_usage(usage)
            title, hypothesis = fields(reply.text)
            try:
                edits = changes(copy, context)
            except ProposalInvalid as error:
                error.title, error.usage = title, usage
                raise
        if not edits:
            return Reply(reply.text, usage)
        parsed = Parsed(title or describe(edits), hypothesis, edits, reply.text)
        return Reply(reply.text, usage, parsed)

    def _arguments(self, home: Path, context: Context) -> list[str]:
        request = AgentRequest(
            context.experiment.files,
            home / "prompt.md",
            home / "last.txt",
            self.model or "",
            self.effort or "",
            self._key_provider(),
            BUDGET_USD,
            self._confined(),
        )
        program, *own = self.argv
        own = [word.replace("{prompt_file}", str(request.prompt)) for word in own]
        own = [word.replace("{model}", request.model) for word in own]
        return [program, *self.recipe.argv(request), *own]

    def _run(self, argv: Sequence[str], copy: Path, home: Path, deadline: float) -> ProcessResult:
        """Run a program in the sandbox until it ends or the deadline has passed.

        Raises:
            ProposerUnavailable: It cannot be started.
        """
        stdout, stderr = Output(OUTPUT_BYTES, OUTPUT_BYTES // 4), Output()
        prompt = home / "prompt.md"
        try:
            with open(prompt if prompt.exists() else os.devnull, "rb") as stdin:
                process = launch(
                    argv,
                    self._policy(argv[0], copy, home),
                    self.sandbox,
                    stdin=stdin,
                    stdout=stdout.write_fd,
                    stderr=stderr.write_fd,
                )
        except (SandboxError, OSError) as error:
            raise ProposerUnavailable(f"{self.name}: {one_line(error)}") from None
        finally:
            os.close(stdout.write_fd)
            os.close(stderr.write_fd)
        self._running.add(process)
        if self._closed:  # by another thread
            process.kill_group()
        group = Group(process.pid, None, lambda pid: process.kill_group())
        group.memory_limit_bytes = MEMORY_BYTES
        try:
            timed_out = _wait(process, group, deadline)
        finally:
            process.kill_group()
            process.wait()
            self._running.discard(process)
        group.take_end({})
        output, complaint = "".join(stdout.finish()), "".join(stderr.finish())
        lines = (complaint.strip() or output.strip()).splitlines()
        return ProcessResult(
            output if output.strip() else complaint,
            one_line(lines[-1], 200) if lines else "",
            process.returncode,
            timed_out,
            group.exit().describe() if group.exit().stopped else "",
            process.report.headline(),
        )

    def _policy(self, program: str, copy: Path, home: Path) -> Policy:
        names = (*self.recipe.settings, *self.passed, *_PROXIES, *_CERTIFICATES)
        extra = {name: os.environ[name] for name in names if name in os.environ}
        path = (*interpreters(program), os.environ.get("PATH", os.defpath))
        extra.setdefault("PATH", os.pathsep.join(path))
        if (key := self._key()) is not None:
            extra[key.renamed or key.name] = os.environ[key.name]
        certificates = [os.environ[name] for name in _CERTIFICATES if name in os.environ]
        return Policy(
            read=(*installation(program), *certificates, *self.read),
            write=(str(copy), str(home)),
            hide=hidden_files(self.hide, program, self.read),
            network=True,
            env=candidate_environment(str(home), threads=None, extra=extra),
            cwd=str(copy),
            limits=_LIMITS,
        )

    def _key(self) -> Key | None:
        """Return the one credential that is passed on."""
        provider, slash, _ = (self.model or "").partition("/")
        present = [key for key in self.recipe.keys if os.environ.get(key.name)]
        named = [key for key in present if slash and key.provider == provider]
        return next(iter(named or present), None)

    def _key_provider(self) -> str:
        return key.provider if (key := self._key()) else ""

    def _read_version(self) -> str:
        name = self.name.partition(":")[2] or self.name
        if not self.recipe.program:
            return name
        with workspace() as (home, copy):
            deadline = time.monotonic() + VERSION_S
            result = self._run([self.argv[0], "--version"], copy, home, deadline)
        if result.code or not result.output.strip():
            raise ProposerUnavailable(
                f"{name} --version ended with status {result.code}: "
                f"{result.complaint or 'no output'}; reinstall it ({self.recipe.install})"
            )
        return one_line(f"{name} {result.output.strip().splitlines()[-1]}", 80)

    # ------------------------------------------------------------------ outcome and money

    def _failure(
        self, result: ProcessResult, reply: AgentReply, usage: Usage
    ) -> ProposerError | None:
        """Return the error of a run that gave no answer, or None."""
        if self._closed:
            return ProposerUnavailable(f"{self.name} was ended with the session")
        stopped = f"no answer in {self.deadline_s:g} s" if result.timed_out else result.stopped
        if stopped:
            return ProposerUnavailable(f"{self.name}: {stopped}; the attempt is not charged")
        if reply.refused:
            self._refusals += 1
            return ProposalRefused(f"{self.name}: {reply.refused}")
        if reply.unfinished:
            title = fields(reply.text)[0]
            return ProposalInvalid(f"the agent was cut off: {reply.unfinished}", title)
        if not (reply.failure or result.code):
            return None
        why = reply.failure or f"it ended with status {result.code}: {result.complaint}"
        if self.hide and (path := _DENIED.search(why)):
            why += f"; it may hold validation text: show it with command:read:{path[1]} …"
        error = ProposerUnavailable(f"{self.name}: {why}; the attempt is not charged")
        if usage.cost_usd == 0 and _BUSY.search(why):
            error.again_s = AGAIN_S
        return error

    def _reserve(self, deadline: float) -> int | None:
        if self.cost_budget is None or self.cost_budget.cap is None:
            return None
        while True:
            try:
                return self.cost_budget.reserve(self.model or self.name, BUDGET_USD)
            except SetAside as error:
                if self._closed or time.monotonic() >= deadline:
                    raise ProposerUnavailable(f"{error}; the attempt is not charged") from None
            time.sleep(_SCAN_S)

    def _settle(self, reservation: int | None, reply: AgentReply, seconds: float) -> Usage:
        """Return the cost of a run; under a cap, one without a known price costs `BUDGET_USD`."""
        model = reply.usage.model or (self.model or "").rpartition("/")[2]
        usage = replace(reply.usage, model=model, requests=1, seconds=seconds)
        if usage.cost_usd is None and (usage.input_tokens or usage.output_tokens):
            with contextlib.suppress(NoPrice):
                usage = replace(usage, cost_usd=price(self._key_provider(), usage))
        if usage.cost_usd is None and reservation is not None:
            usage = replace(usage, cost_usd=BUDGET_USD)
        if self.cost_budget is not None and usage.cost_usd is not None:
            if reservation is None:
                reservation = self.cost_budget.reserve(model or self.name, usage.cost_usd)
            self.cost_budget.settle(reservation, usage.cost_usd)
        return usage


def create_agent(argument: str, root: Path) -> AgentProposer:
    """Return the proposer that ``command:ARGUMENT`` names.

    Args:
        argument: Words ``env:NAME`` (a variable to pass on) and ``read:PATH`` (to be readable),
            then the name of a recipe or a program, then its arguments.
        root: Folder that relative paths start from.

    Raises:
        ValueError: No such program, or the one key it needs is not set.
    """
    words = shlex.split(argument)
    options: dict[str, list[str]] = {"env": [], "read": []}
    while words and (match := re.match(r"(env|read):(.*)", words[0], re.DOTALL)):
        options[match[1]].append(match[2])
        words.pop(0)
    if not words:
        names = ", ".join(RECIPES)
        raise ValueError(f"command: names no program; write command:{{{names}}} or command:./agent")
    for name in options["env"]:
        if name not in os.environ:
            raise ValueError(f"command: the variable {name} is not set; export it first")
    for path in options["read"]:
        if not (root / path).exists():
            raise ValueError(f"command: there is no {path} to read; give its path from {root}")
    recipe = RECIPES.get(words[0], Recipe("", lambda request: [], read_any))
    program = recipe.program or words[0]
    found = shutil.which(str(root / program) if os.sep in program else program)
    if found is None:
        remedy = recipe.install or "give its path, or put it on PATH and make it executable"
        raise ValueError(f"command: {program} is not a program here; {remedy}")
    name = words[0] if recipe.program else Path(program).name
    proposer = AgentProposer(
        recipe,
        (os.path.abspath(found), *words[1:]),
        f"command:{name}",
        passed=tuple(options["env"]),
        read=tuple(str(root / path) for path in options["read"]),
    )
    if recipe.keys and proposer._key() is None and not options["env"]:
        wanted = " or ".join(key.name for key in recipe.keys)
        raise ValueError(
            f"command:{name} needs {wanted}; a login in your home is not visible to it"
        )
    return proposer


def _flatten(prompt: Prompt, turns: Sequence[Turn]) -> str:
    parts = [*prompt.system, *prompt.user]
    for answer, response in turns:
        parts.append(f"You were asked this before and answered:\n{quote('answer', answer[-8000:])}")
        parts.append(f"The copy is as it was at first. {response}")
    return "\n\n".join(parts) + "\n"


def _wait(process: Sandboxed, group: Group, deadline: float) -> bool:
    """Wait for the process; return whether the deadline came first."""
    scanned = time.monotonic()
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(min(left, 0.2))
            return False
        if sys.platform == "linux" and time.monotonic() - scanned > _SCAN_S:
            group.take_scan(scan_groups([group.pid])[group.pid])
            scanned = time.monotonic()
    return True
