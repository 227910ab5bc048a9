"""The proposer contract: a proposer gets a `Context` and returns a `Proposal`.

It never accesses files, git or the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, Self

from .experiment import Experiment


class ProposerError(Exception):
    """Base class of a proposer's errors.

    Attributes:
        usage: Cost before the error, or None.
    """

    usage: Usage | None = None

    def with_usage(self, usage: Usage) -> Self:
        """Set the cost before the error, and return the error."""
        self.usage = usage
        return self


class ProposerUnavailable(ProposerError):
    """The provider failed (network, overload, quota): infrastructure, never a verdict.

    Attributes:
        again_s: Seconds to pause before a free retry that may succeed. None: the attempt fails.
    """

    again_s: float | None = None


class ProposalRefused(ProposerError):
    """The model declined to answer. It is not asked again."""


class ProposalInvalid(ProposerError):
    """The answer has no applicable edits after all repairs: verdict ``invalid``.

    Attributes:
        title: Of the proposal.
        meta: As in `Proposal`.
    """

    def __init__(
        self, message: str, title: str = "", meta: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.title = title
        self.meta = dict(meta or {})


class ProposerExhausted(ProposerError):
    """No proposals are left: the campaign stops with exit code 0."""


@dataclass(frozen=True)
class Usage:
    """The cost of one proposal.

    Attributes:
        model: Model that answered, or ''.
        input_tokens, cache_read_tokens, cache_write_tokens, output_tokens: As billed.
        requests: Number of calls, repairs included.
        cost_usd: Price in US dollars, or None when unknown.
        seconds: Wall seconds until the proposal was complete.
    """

    model: str = ""
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    cost_usd: float | None = None
    seconds: float = 0.0

    @property
    def tokens_in(self) -> int:
        """Return all tokens of prompts, read from a cache or written to it included."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    def __add__(self, other: Usage) -> Usage:
        """Return the sum of two costs; an unknown price makes the sum unknown."""
        numbers = {
            one.name: getattr(self, one.name) + getattr(other, one.name)
            for one in fields(self)
            if one.name not in ("model", "cost_usd")
        }
        known = other.cost_usd is not None and (self.cost_usd is not None or self.requests == 0)
        cost = (self.cost_usd or 0.0) + (other.cost_usd or 0.0) if known else None
        return Usage(other.model, cost_usd=cost, **numbers)


@dataclass(frozen=True)
class Origin:
    """Earlier attempts from which the harness itself made a proposal.

    Attributes:
        kind: ``"retest"``: a near-miss, again on a new champion; ``"merge"``: two near-misses
            together; ``"ablation"``: the champion without one keep.
        attempts: Ledger ids of these attempts.
    """

    kind: Literal["retest", "merge", "ablation"]
    attempts: tuple[int, ...]


@dataclass(frozen=True)
class Proposal:
    """A proposed mutation.

    Attributes:
        title: One line, at most 100 characters.
        hypothesis: Why it should help; may be ''.
        edits: Applied to the parent's files in order.
        proposer: Name of the backend, e.g. ``"gp"``.
        usage: Its cost.
        meta: JSON-serialisable notes of the backend, e.g. the hyperparameters it set.
        origin: Set by the harness only; that of a proposer's answer is dropped.
    """

    title: str
    edits: tuple[Edit, ...]
    hypothesis: str = ""
    proposer: str = ""
    usage: Usage = field(default_factory=Usage)
    meta: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None


@dataclass(frozen=True)
class Measured:
    """What an attempt's runs measured, as means over them; zero where unknown.

    Attributes:
        seeds: Of its runs.
        steps, work: Batches and units of training data (tokens).
        step_ms: CPU milliseconds a batch; wall milliseconds on CUDA.
        parts: Part of a step to its CPU milliseconds, self-reported.
        train_loss: Mean training loss of the last tenth, self-reported.
        worst_token: Largest loss of one token, in nats.
        parameters, memory_mb: Size of the model, and peak memory.
        more_work: Share of work beyond the champion's on the same seeds; None without pairs.
        lead: How far the training loss was below the champion's at equal work; None if unknown.
    """

    seeds: tuple[int, ...] = ()
    steps: float = 0.0
    work: float = 0.0
    step_ms: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    train_loss: float = 0.0
    worst_token: float = 0.0
    parameters: int = 0
    memory_mb: float = 0.0
    more_work: float | None = None
    lead: float | None = None


@dataclass(frozen=True)
class PastAttempt:
    """One finished or running attempt in a proposer's history.

    Attributes:
        attempt_id: Ledger id.
        name: Item name, e.g. ``"mutation-0007"`` or ``"baseline-1"``.
        parent: Ledger id of its parent; None for a baseline.
        title, hypothesis, proposer: Of its proposal.
        verdict: ``keep``, ``discard``, ``crash``, ``timeout``, ``invalid``, ``duplicate``,
            ``guard``, ``cheat``, ``baseline`` or ``running``.
        reason: One line: why it has this verdict.
        score: Mean of its replicates in the metric's unit, or None.
        gain: Paired gain over the champion (positive is better), or None.
        gain_sigma: `gain` in units of the noise, or None.
        lines_added, lines_removed: Size of the change.
        meta: The proposal's `meta`.
        read_files: Reads the resulting editable files from git, path to text.
        edits: Its edits.
        log_tail: Last lines of its log (untrusted) where it has no score, else ''.
        measured: What its runs measured.
        cause: Why it gained or lost, from these figures, e.g. ``slower``; ''.
    """

    attempt_id: int
    name: str
    parent: int | None
    title: str
    hypothesis: str
    proposer: str
    verdict: str
    reason: str
    score: float | None
    gain: float | None
    gain_sigma: float | None
    lines_added: int
    lines_removed: int
    meta: Mapping[str, Any]
    read_files: Callable[[], Mapping[str, str]]
    edits: tuple[Edit, ...] = ()
    log_tail: str = ""
    measured: Measured = Measured()
    cause: str = ""


@dataclass(frozen=True)
class Context:
    """The input of a proposer. It never contains holdout scores.

    Attributes:
        experiment: The declaration.
        program: Text of program.md as it is now, front matter included.
        attempt: Number of the attempt, from 1.
        seed: Campaign seed; ``(seed, attempt)`` seeds reproducible randomness.
        parent: Attempt whose files the edits apply to: the champion, or a discard to build on.
        files: The parent's editable files, path to text.
        fixed_files: The experiment's context files, path to text.
        history: Every attempt of the campaign so far, oldest first, with running ones that have a
            proposal.
        champion: The champion's attempt; its score is the mean over all its seeds.
        sigma: Standard deviation of one paired difference, or None.
        setting: Data, budget, limits and machine in words.
        bits_per_nat: Bits per byte of a loss of one nat a token on the training text; 0: unknown.
        log_tail: Last lines of the parent's training log (untrusted bytes, decoded).
        hint: Request of the parent selection, e.g. for a structural change, or ''.
        ideas, lessons: Text of these files of the campaign, or ''.
        literature: Titles and abstracts of papers and the researcher's notes, or ''.
        stale: A proposal that was made for an earlier champion, and why it does not apply to
            `files`: it is to be written again. None otherwise.
        cuda: Whether runs train on CUDA: of ``NAME = a if CUDA else b``, `a` counts.
    """

    experiment: Experiment
    program: str
    attempt: int
    seed: int
    parent: PastAttempt
    files: Mapping[str, str]
    fixed_files: Mapping[str, str]
    history: Sequence[PastAttempt]
    champion: PastAttempt
    sigma: float | None
    setting: str = ""
    bits_per_nat: float = 0.0
    log_tail: str = ""
    hint: str = ""
    ideas: str = ""
    lessons: str = ""
    literature: str = ""
    stale: tuple[Proposal, str] | None = None
    cuda: bool = False


class Proposer(Protocol):
    """Suggests mutations; one instance serves one pytest process.

    A user's class may leave out all but `name`, `propose` and `close`: `registry.create` adds the
    defaults.

    Attributes:
        name: Name of the backend.
        slow: Whether an answer takes long and may be requested from another thread while a run
            trains; the context then also holds ideas, lessons and literature.
        fixed_order: Whether proposals come in a given order: the campaign adds none of its own.
        bypass_queue: Whether proposals that wait in the ledger are left to other sessions.
    """

    name: str
    slow: bool = False
    fixed_order: bool = False
    bypass_queue: bool = False

    def propose(self, context: Context) -> Proposal:
        """Return one proposal for `context.attempt`.

        Raises:
            ProposerUnavailable, ProposalRefused, ProposalInvalid, ProposerExhausted: See there.
        """
        ...

    def ahead(self, context: Context) -> bool:
        """Return whether the proposal for this context may be requested ahead of its attempt."""
        return self.slow

    def check(self) -> str:
        """Check once per session, before anything is spent; return a warning or ''.

        Raises:
            ProposerUnavailable: Nothing can be proposed.
        """
        return ""

    def close(self) -> None:
        """Release processes and connections; safe to call twice."""
        return


@dataclass(frozen=True)
class Edit:
    """Replace one passage of one file.

    Attributes:
        file: Path relative to the root.
        search: Text that occurs exactly once in the file.
        replace: Text that takes its place.
    """

    file: str
    search: str
    replace: str


class EditError(ValueError):
    """An edit does not apply; the message says which and why, with the nearest real lines."""
