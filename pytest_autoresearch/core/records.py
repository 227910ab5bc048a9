"""The ledger's records as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal, Required, TypedDict

from .proposal import Edit, Origin, Usage
from .run import SCORING, Run

ABLATION = "ablation"
"""Kind of an attempt that omits one keep."""


@dataclass(frozen=True)
class CheckNote:
    """The result of one check or constraint of a mutation.

    Attributes:
        name: Of the check.
        ok: False if the mutation failed it.
        detail: One line, or ''.
        seconds: Its duration.
    """

    name: str
    ok: bool
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Attempt:
    """One numbered attempt of a campaign and its result.

    Attributes:
        id: Ledger row.
        name: Item name.
        kind: ``baseline``, ``mutation`` or `ABLATION`.
        number: Counts over the campaign, per kind.
        session_id, worker: Process that ran it.
        state: ``running``, ``done``, ``interrupted`` or ``infra``.
        verdict: None until done.
        parent: Attempt whose files were changed; None for a baseline.
        bar: Score that its mean had to beat.
        score: Mean over `n` replicates.
        gain, gain_sigma: Over the champion's mean, in the metric's unit and in sigma.
        commit: Commit object that holds the resulting files, or ''.
        runs: Its runs, oldest first.
    """

    id: int
    name: str
    kind: str
    number: int
    session_id: int
    worker: str
    state: str
    started: float
    finished: float | None = None
    verdict: str | None = None
    reason: str = ""
    title: str = ""
    hypothesis: str = ""
    proposer: str = ""
    edits: tuple[Edit, ...] = ()
    usage: Usage = field(default_factory=Usage)
    meta: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None
    parent: int | None = None
    champion_before: int | None = None
    champion_after: int | None = None
    fingerprint: str = ""
    bar: float | None = None
    score: float | None = None
    n: int = 0
    gain: float | None = None
    gain_sigma: float | None = None
    lines_added: int = 0
    lines_removed: int = 0
    commit: str = ""
    check_notes: tuple[CheckNote, ...] = ()
    runs: tuple[Run, ...] = ()

    @property
    def own_runs(self) -> tuple[Run, ...]:
        """Return the runs whose mean is its score, without later ones."""
        return tuple(run for run in self.runs if run.purpose in SCORING)

    def made_from(self, kind: Literal["retest", "merge", "ablation"]) -> tuple[int, ...]:
        """Return the attempts that it retests, merges or leaves out; () for any other."""
        return self.origin.attempts if self.origin and self.origin.kind == kind else ()


class Outcome(TypedDict, total=False):
    """Columns of an attempt's row that its verdict sets; see `Attempt`."""

    verdict: Required[str]
    reason: str
    score: float | None
    n: int
    bar: float | None
    gain: float | None
    gain_sigma: float | None
    fingerprint: str
    lines_added: int
    lines_removed: int
    parent: int
    champion_before: int | None
    champion_after: int | None
    commit: str
    commit_object: str


@dataclass(frozen=True)
class Champion:
    """The best kept commit.

    Attributes:
        version: From 1; each keep adds one. The only compare-and-swap of a campaign.
        attempt_id: Attempt that made it.
        commit: Its commit.
        scores: Seed to score, later replicates included.
        at: Unix seconds.
    """

    version: int
    attempt_id: int
    commit: str
    scores: Mapping[int, float]
    at: float

    @property
    def mean(self) -> float:
        """Return the mean over all measured seeds."""
        return fmean(self.scores.values())


Standing = Literal["confirmed", "open", "lost"]
"""How far a gain is established on fresh seeds."""


@dataclass(frozen=True)
class Gain:
    """A gain over paired seeds; ``str`` gives ``+0.071200 [+0.051200, +0.091200]``.

    Attributes:
        gain: Mean difference in the metric's unit, positive is better.
        low, high: 95 % interval of it.
        n: Pairs.
    """

    gain: float
    low: float
    high: float
    n: int

    @property
    def standing(self) -> Standing:
        """Return whether the interval lies above zero, includes it, or lies below."""
        return "confirmed" if self.low > 0 else "open" if self.high >= 0 else "lost"

    def __str__(self) -> str:
        return f"{self.gain:+.6f} [{self.low:+.6f}, {self.high:+.6f}]"


@dataclass(frozen=True)
class Transfer(Gain):
    """The gain of a champion under other conditions.

    Attributes:
        champion: Its version.
        where: The conditions in words.
    """

    champion: int
    where: str


@dataclass(frozen=True)
class Survival:
    """The result of one keep on fresh seeds.

    Attributes:
        attempt: Ledger row of the kept attempt.
        name, title: Of the attempt.
        claimed: Gain it was kept with.
        again: Gain over the champion before it, on fresh seeds; None if it has no score there.
        standing: How far that gain or, for a simplification, equality is established.
    """

    attempt: int
    name: str
    title: str
    claimed: float
    again: Gain | None
    standing: Standing

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Survival:
        """Read the stored form; older ones have a mean without an interval."""
        gain, again = stored.get("gain"), stored.get("again")
        if gain is not None:
            again = {"gain": gain, "low": gain, "high": gain, "n": 0}
        older = "confirmed" if stored.get("held") else "open" if gain is None else "lost"
        names = ("attempt", "name", "title", "claimed")
        return cls(
            **{name: stored[name] for name in names},
            again=Gain(**again) if again else None,
            standing=stored.get("standing", older),
        )


@dataclass(frozen=True)
class Confirmation:
    """The gain of a campaign, measured again.

    Attributes:
        champion: Version of the last champion.
        seeds: The fresh seeds that were used.
        kept: Sum of the paired gains of the last champion's keeps.
        confirmed: Gain of the last over the first champion on the fresh seeds; None if either has
            no score there.
        holdout: The same for the saved checkpoints on the holdout; None without one.
        keeps: One entry per examined keep.
        trouble: One line per measurement that failed.
    """

    champion: int
    seeds: tuple[int, ...]
    kept: float
    confirmed: Gain | None = None
    holdout: Gain | None = None
    keeps: tuple[Survival, ...] = ()
    trouble: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Confirmation:
        """Read the stored form, which is that of `dataclasses.asdict`."""
        confirmed, holdout = stored["confirmed"], stored["holdout"]
        return cls(
            stored["champion"],
            tuple(stored["seeds"]),
            stored["kept"],
            Gain(**confirmed) if confirmed else None,
            Gain(**holdout) if holdout else None,
            tuple(map(Survival.from_json, stored["keeps"])),
            tuple(stored["trouble"]),
        )


@dataclass(frozen=True)
class SessionRecord:
    """One process that worked on a campaign.

    Attributes:
        id: Ledger row.
        host, boot_id, pid, pid_start: Identity of the process.
        worker: xdist worker name, or ``main``.
        config: Its options.
        started, ended: Unix seconds.
        exit: Exit code, or None if it died.
        driver: Token that the processes of one pytest run share.
    """

    id: int
    host: str
    boot_id: str
    pid: int
    pid_start: str
    worker: str
    config: Mapping[str, Any]
    started: float
    ended: float | None = None
    exit: int | None = None
    driver: str = ""
