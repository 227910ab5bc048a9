"""The proposer contract: who suggests the next mutation, and what it is told.

A proposer sees a `Context` and returns a `Proposal`; it never touches files, git or the ledger.
One backend a file; `create` in ``registry.py`` finds them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, Self

from .experiment import Experiment


class ProposerError(Exception):
    """Base of everything that a proposer may raise.

    Attributes:
        usage: What was spent before it, or None.
    """

    usage: Usage | None = None

    def with_usage(self, usage: Usage) -> Self:
        """Return the error with what was spent before it."""
        self.usage = usage
        return self


class ProposerUnavailable(ProposerError):
    """The provider's fault (network, overload, quota): infrastructure, never a verdict.

    Attributes:
        again_s: Seconds after which asking again is free and may help: the night pauses for so
            long. None: the attempt fails.
    """

    again_s: float | None = None


class ProposalRefused(ProposerError):
    """The model declined. Never resent, never reworded."""


class ProposalInvalid(ProposerError):
    """Text came back that holds no applicable edits, after all repairs: verdict ``invalid``.

    Attributes:
        title: What the proposal called itself, for the record.
        meta: The backend's notes, as a `Proposal` would carry them.
    """

    def __init__(
        self, message: str, title: str = "", meta: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.title = title
        self.meta = dict(meta or {})


class ProposerExhausted(ProposerError):
    """Nothing is left to propose (the end of a recorded list): the campaign stops, exit 0."""


@dataclass(frozen=True)
class Usage:
    """What one proposal cost.

    Attributes:
        model: Model that answered, or ''.
        input_tokens, cache_read_tokens, cache_write_tokens, output_tokens: As billed.
        requests: Calls made, repairs included.
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
    """An idea with its edits, not yet applied.

    Attributes:
        title: One line, at most 100 characters.
        hypothesis: Why it should help; may be ''.
        edits: Applied to the parent's files in order.
        proposer: Name of the backend, e.g. ``"gp"``.
        usage: Its price.
        meta: JSON-serialisable notes of the backend (e.g. the knob values it set).
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
class PastAttempt:
    """One finished or running attempt, as history shows it to a proposer.

    Attributes:
        attempt_id: Ledger id.
        name: Item name, e.g. ``"mutation-0007"`` or ``"baseline-1"``.
        parent: Ledger id of the attempt whose files it was applied to; None for a baseline.
        title, hypothesis, proposer: Of its proposal.
        verdict: ``keep``, ``discard``, ``crash``, ``timeout``, ``invalid``, ``duplicate``,
            ``guard``, ``cheat``, ``baseline`` or ``running``.
        reason: One line saying why.
        score: Mean of its replicates in the metric's unit, or None.
        gain: Gain over its bar's champion mean (positive is better), or None.
        gain_sigma: `gain` in units of the noise, or None.
        lines_added, lines_removed: Size of the change.
        meta: The proposal's `meta`.
        read_files: Returns the resulting editable files, path to text (read lazily from git).
        edits: What was changed.
        log_tail: Last lines of its log (untrusted) where it has no score, else ''.
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


@dataclass(frozen=True)
class Context:
    """Everything a proposer may know. Holdout scores are never in it.

    Attributes:
        experiment: The declaration.
        program: Text of program.md as it is now, front matter included.
        attempt: Number of the attempt to fill, from 1; also the source of reproducible randomness.
        seed: Campaign seed; ``(seed, attempt)`` determines a keyless proposal.
        parent: Attempt whose files the edits apply to: the champion, or a discard to build on.
        files: The parent's editable files, path to text.
        fixed_files: The experiment's context files, path to text.
        history: Every attempt of the campaign so far, oldest first, running ones included.
        champion: The champion's attempt.
        sigma: Standard deviation of one trial's score near the champion, or None.
        figures: The parent's measured figures (tokens/s, parameters, memory, …).
        log_tail: Last lines of the parent's training log (untrusted bytes, decoded).
        hint: A word of the campaign's policy, e.g. that a structural change is wanted; or ''.
        curve: The parent's training loss, as (share of the budget, loss).
        ideas, lessons: The campaign's files of that name, or ''; models and people write them.
        literature: Titles and abstracts of papers, and a person's notes, or ''.
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
    figures: Mapping[str, float] = field(default_factory=dict)
    log_tail: str = ""
    hint: str = ""
    curve: Sequence[tuple[float, float]] = ()
    ideas: str = ""
    lessons: str = ""
    literature: str = ""


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
            ProposerUnavailable: The provider cannot answer now; the attempt is not charged.
            ProposalRefused: The model declined.
            ProposalInvalid: No applicable edits after all repairs.
            ProposerExhausted: Nothing left to propose.
        """
        ...

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
    """An edit does not apply; the message says which, why, and shows the nearest real lines."""


def add(one: Usage, two: Usage) -> Usage:
    """Add up the cost of two turns; an unknown price makes the sum unknown."""
    both = one.cost_usd is not None or one.requests == 0
    cost = (one.cost_usd or 0.0) + two.cost_usd if both and two.cost_usd is not None else None
    return replace(
        two,
        input_tokens=one.input_tokens + two.input_tokens,
        cache_read_tokens=one.cache_read_tokens + two.cache_read_tokens,
        cache_write_tokens=one.cache_write_tokens + two.cache_write_tokens,
        output_tokens=one.output_tokens + two.output_tokens,
        requests=one.requests + two.requests,
        cost_usd=cost,
        seconds=one.seconds + two.seconds,
    )
