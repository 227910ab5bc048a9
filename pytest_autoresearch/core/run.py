"""One training: `RunSpec` in, `Run` out, across the process boundary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any, Literal

from .experiment import Budget

RunStatus = Literal[
    "", "ok", "crash", "timeout", "invalid", "cheat", "guard", "interrupted", "infra"
]

ScoreKind = Literal["trusted", "unverified", "self-reported"]


class Purpose(StrEnum):
    """What a run is for, in the order in which a campaign comes to them."""

    CALIBRATE = "calibrate"  # the unchanged code, on one seed of the calibration
    FIRST = "first"  # a mutation's first training
    REPLICATE = "replicate"  # a mutation on another seed
    CHAMPION = "champion"  # the champion on a seed it lacks, so that a comparison stays paired
    REPEAT = "repeat"  # a champion on a seed it has, with another random stream: the noise
    SMOKE = "smoke"  # two steps and one scored batch, before the first training
    CHECK = "check"  # the experiment's checks: the command must only succeed
    AUDIT = "audit"  # a run's claims audited at more positions, without training
    DOWNSTREAM = "downstream"  # the downstream task on a run's checkpoint, without training
    CONFIRM = "confirm"  # a champion on a fresh seed
    HOLDOUT = "holdout"  # a checkpoint on the holdout; not shown before the confirmation
    VERIFY = "verify"  # a score repeated from its checkpoint, or by training where that is gone
    TRANSFER = "transfer"  # a champion under another budget or at another size


SCORING = (Purpose.CALIBRATE, Purpose.FIRST, Purpose.REPLICATE)
"""Purposes of the runs whose mean is the attempt's score."""


@dataclass(frozen=True)
class Allowances:
    """What a run may use besides its budget; fixed by what the baseline needed.

    Nothing here depends on what a candidate says. CPU seconds above an allowance count against the
    budget. The defaults are for the baseline's own runs.

    Attributes:
        start_cpu_s: CPU seconds before the first batch.
        save_cpu_s: CPU seconds from the end of the budget to the end of the process.
        train_cpu_s: CPU seconds of the baseline's training, which limit the start; 0 if unknown.
        step: The baseline's step in units of the budget; 0 if unknown.
        start_wall_s, save_wall_s: Wall seconds, for budgets of wall time.
    """

    start_cpu_s: float = 120.0
    save_cpu_s: float = 30.0
    train_cpu_s: float = 0.0
    step: float = 0.0
    start_wall_s: float = 300.0
    save_wall_s: float = 120.0

    @classmethod
    def of(cls, baseline: Sequence[Run], budget: Budget) -> Allowances:
        """Return the allowances that follow from the baseline's finished runs.

        A budget in tokens has no price in CPU seconds, so everything above an allowance ends the
        run; its allowances are wider.
        """
        bills = [run.evidence["charged"] for run in baseline if "charged" in run.evidence]
        if not bills:
            return cls()
        factor, margin_s = (4.0, 1.0) if budget.kind == "work" else (1.0, 0.01)

        def allowed(name: str) -> float:
            return factor * float(median(bill[name] for bill in bills)) + margin_s

        used = [run.train_seconds if budget.kind == "wall" else run.work for run in baseline]
        steps = [total / run.steps for total, run in zip(used, baseline, strict=True) if run.steps]
        return cls(
            start_cpu_s=allowed("start_cpu_s"),
            save_cpu_s=allowed("save_cpu_s"),
            train_cpu_s=median(bill["train_cpu_s"] for bill in bills),
            step=median(steps) if steps else 0.0,
            start_wall_s=4 * allowed("start_wall_s") + 5.0,
            save_wall_s=4 * allowed("save_wall_s") + 2.0,
        )


@dataclass(frozen=True)
class CostPlan:
    """The cost by which an ``equal`` budget is turned into a number of tokens before the run.

    Attributes:
        cost: Of one token of the program, in tokens of the baseline.
        tolerance: Relative difference between measured and planned cost up to which the plan holds.
        bias: What the same measurement finds for the baseline itself, whose cost is 1.
        first_cpu_s: CPU seconds that the first batch may take, which allocates.
    """

    cost: float = 1.0
    tolerance: float = 0.03
    bias: float = 1.0
    first_cpu_s: float = 30.0


@dataclass(frozen=True)
class RunSpec:
    """One training run.

    Attributes:
        run_id: Unique in the campaign; names the run directory.
        files: Path to contents; the first is the entry file.
        modes: Path to git's mode, of executable files and symbolic links.
        entry: Path of the file that holds ``build``, ``train`` and ``logits``.
        seed: Of the order of the data and of the candidate's random numbers; the only difference
            between replicates.
        stream: Changes the random numbers alone.
        budget: How long it may train.
        data: Folder of the prepared data set; None for a `command`.
        command: None for the training contract; else argv run in the copy.
        metric: Name of the score in a command's output.
        purpose: What the run is for.
        from_checkpoint: No training: the checkpoint in the run directory is scored.
        device: ``"cpu"`` or ``"cuda"``.
        threads: CPU threads of the candidate.
        allowances: What the run may use besides its budget.
        plan: What the program is expected to cost, for ``equal`` budgets.
        wall_limit_s: Hard limit for the process group, everything included.
        memory_limit_bytes: Memory of the group; above it the run is stopped.
        disk_limit_bytes: Files of the group; above it, or near the end of the disk, it is stopped.
        checkpoint_limit_bytes: Largest checkpoint, or None for the first baseline.
        audit: Audited positions.
        reference_files: The campaign's baseline files, for ``equal`` budgets; None otherwise.
        champion_losses: File of the champion's stored per-token losses, or None.
        scoring_cpu_limit_s: CPU seconds one scoring pass may take, or None for no cap.
    """

    run_id: str
    files: Mapping[str, bytes]
    entry: str
    seed: int
    budget: Budget
    data: Path | None = None
    command: tuple[str, ...] | None = None
    metric: str = "val_bpb"
    purpose: Purpose = Purpose.FIRST
    from_checkpoint: bool = False
    device: str = "cpu"
    threads: int = 1
    allowances: Allowances = Allowances()
    plan: CostPlan = CostPlan()
    wall_limit_s: float = 600.0
    memory_limit_bytes: int | None = None
    disk_limit_bytes: int = 16 << 30
    checkpoint_limit_bytes: int | None = None
    audit: int = 512
    reference_files: Mapping[str, bytes] | None = None
    champion_losses: Path | None = None
    scoring_cpu_limit_s: float | None = None
    modes: Mapping[str, str] = field(default_factory=dict)
    stream: int = 0

    @property
    def random_seed(self) -> int:
        """Return the seed of the candidate's random number generators."""
        return self.seed + 1_000_003 * self.stream


@dataclass(frozen=True)
class Run:
    """The result of one run, and its ledger row once it has one.

    Attributes:
        status: ``"ok"`` when a score exists; ``"infra"`` is never a property of the mutation.
        reason: One line for people: why there is no score, or ''.
        score: The metric, finite; None unless `status` is ``"ok"``.
        score_se: Standard error of `score` from auditing alone, or None.
        score_kind: Whether the harness computed the score in isolation.
        train_seconds: Wall seconds from the first requested batch to the end of the budget.
        total_seconds: Wall seconds of the whole run.
        cpu_seconds: CPU seconds of the candidate's group while training.
        work: Units of training data handed out (tokens).
        steps: Batches handed out.
        parameters: Numbers in the checkpoint, as measured; as declared where there is none; or 0.
        peak_memory_bytes: Peak resident memory of the group (device memory on CUDA).
        exit_code: Exit status of the training process; None when it was killed by us.
        signal: Signal that ended it, or None.
        curve: Pairs (fraction of the budget, training loss) as the candidate reported them.
        log_head, log_tail: Bounded beginning and end of its output, scrubbed, decoded.
        metrics: Other ``name: value`` figures (self-reported, but finite).
        causes: Wall seconds outside training by cause (``start``, ``score``, ``audit``, …).
        sandbox: Layer to state, as enforced for this run.
        hashes: Evaluator, data set, tokenizer and package identities behind the score.
        checkpoint: Saved weights in the run directory, or None.
        losses: File of per-token losses (float32 nats, row-major), or None.
        evidence: Evidence for the status (a counterexample, audit mismatches, …).
        id: Ledger row; 0 before it is recorded, like `attempt_id`.
        attempt_id: Its attempt.
        seed: Its seed.
        stream: Its random stream; 0 is that of every comparison.
        repeats: Score that it repeats with another stream; None for other purposes, and in the
            calibration.
        purpose: What it was for.
        state: ``running``, ``done``, ``interrupted`` or ``infra``.
        device, concurrency, budget: Conditions that a noise estimate must not mix.
        started, finished: Unix seconds.
    """

    status: RunStatus = ""
    reason: str = ""
    score: float | None = None
    score_se: float | None = None
    score_kind: ScoreKind = "unverified"
    train_seconds: float = 0.0
    total_seconds: float = 0.0
    cpu_seconds: float = 0.0
    work: float = 0.0
    steps: int = 0
    parameters: int = 0
    peak_memory_bytes: int = 0
    exit_code: int | None = None
    signal: int | None = None
    curve: tuple[tuple[float, float], ...] = ()
    log_head: str = ""
    log_tail: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    causes: Mapping[str, float] = field(default_factory=dict)
    sandbox: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    checkpoint: Path | None = None
    losses: Path | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0
    attempt_id: int = 0
    seed: int = 0
    stream: int = 0
    repeats: float | None = None
    purpose: Purpose = Purpose.FIRST
    state: str = ""
    device: str = ""
    concurrency: int = 1
    budget: str = ""
    started: float = 0.0
    finished: float | None = None

    @property
    def verdict(self) -> str:
        """Why there is no score; '' if there is one."""
        return "" if self.status == "ok" else self.status


@dataclass(frozen=True)
class Progress:
    """The progress of a run, for the live view.

    Attributes:
        phase: ``"start"``, ``"train"``, ``"score"`` or ``"audit"``.
        fraction: Of the budget, 0 to 1.
        elapsed_s: Wall seconds since the phase began.
        loss: Last training loss that the candidate reported, or None.
        work: Units of training data handed out.
    """

    phase: str
    fraction: float = 0.0
    elapsed_s: float = 0.0
    loss: float | None = None
    work: float = 0.0
