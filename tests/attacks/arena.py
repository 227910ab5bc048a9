"""Environment of the rehearsed attacks: a small data set, a trained model, real processes."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_autoresearch import Budget
from pytest_autoresearch.core.run import Allowances, Run, RunSpec
from pytest_autoresearch.data import corpora, writer
from pytest_autoresearch.data.dataset import Dataset
from pytest_autoresearch.forkserver.launch import Child, Job, Launcher
from pytest_autoresearch.sandbox.policy import Mode
from pytest_autoresearch.scoring import CheatDetected, ScoringCrash, ScoringError, ScoringTimeout
from pytest_autoresearch.scoring.evaluator import Score, evaluate
from pytest_autoresearch.source.checks import run_checks
from pytest_autoresearch.training.run import execute

HERE = Path(__file__).parent
HONEST = HERE / "honest.py"

SEQ_LEN = 64
VOCAB_SIZE = 384
HELD_OUT = {
    "val": ("plistlib.py", "zipapp.py", "tabnanny.py"),
    "holdout": ("trace.py", "pipes.py", "smtplib.py", "ftplib.py"),
}
TRAIN_BYTES = 900_000
PRETRAIN_STEPS = 250
RUN_TOKENS = 60 * 16 * SEQ_LEN
EQUAL_BUDGET = Budget("equal", 4 * RUN_TOKENS)

PRETRAIN = """
import sys, numpy as np, torch
from safetensors.torch import save_model
folder, data, out = sys.argv[1:4]
steps, vocab, length, seed = map(int, sys.argv[4:])
sys.path.insert(0, folder)
import honest
torch.manual_seed(seed); torch.set_num_threads(1)
tokens = np.memmap(data, "<u2", mode="r").astype(np.int64)
random = np.random.default_rng(seed)
class Batches:
    def __call__(self, batch, length):
        for step in range(steps):
            starts = random.integers(len(tokens) - length - 1, size=batch)
            rows = torch.from_numpy(np.stack([tokens[s : s + length + 1] for s in starts]))
            yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous(), step / steps
    def report(self, *, loss): pass
model = honest.build(vocab, length)
honest.train(model, Batches())
save_model(model, out)
"""


def small_corpus() -> corpora.Corpus:
    """Make a corpus of a few library modules; val and holdout are hidden as in the default one."""
    library = Path(sysconfig.get_path("stdlib"))
    held = {name for names in HELD_OUT.values() for name in names}

    def documents(split: str) -> Iterator[corpora.Document]:
        if split != "train":
            names = [name for name in HELD_OUT[split] if (library / name).exists()]
            for name in names:
                yield corpora.Document(name, (library / name).read_text())
            return
        left = TRAIN_BYTES
        for path in sorted(library.glob("*.py")):
            text = path.read_text(errors="ignore")
            if path.name not in held and (left := left - len(text)) > 0:
                yield corpora.Document(path.name, text)

    return corpora.Corpus(documents, "rehearsal", hide=True)


def make_dataset(folder: Path) -> Dataset:
    """Prepare the small corpus with the shipped preparation."""
    folder.mkdir(parents=True)
    request: dict[str, Any] = {"corpus": "stdlib", "vocab_size": VOCAB_SIZE, "seq_len": SEQ_LEN}
    return writer.build(small_corpus(), folder, request, "rehearsal")


def pretrain(dataset: Dataset, checkpoint: Path, seed: int = 0) -> Path:
    """Train the honest model in a separate process and save its weights."""
    data = dataset.root / "train.bin"
    numbers = (PRETRAIN_STEPS, dataset.vocab_size, dataset.seq_len, seed)
    command = [sys.executable, "-c", PRETRAIN, HERE, data, checkpoint, *numbers]
    subprocess.run([str(part) for part in command], check=True)
    return checkpoint


@dataclass(frozen=True)
class Attack:
    """One candidate with one attack; the first line of its file states the expected outcome.

    Attributes:
        path: Its file.
        expected: ``"cheat"``, ``"crash"``, ``"timeout"``, ``"guard"`` or ``"invalid"``: no score;
            ``"refused"``: no score, by whichever rule notices first;
            ``"harmless"``: the same score as the model without the attack; or ``"useless"``: a
            score, but no better one.
        layer: Protection that stops it.
        trick: The attack, in a sentence.
        settings: Constants of the file: ``STAGE`` (``"score"`` by default: the honest weights are
            scored; ``"run"``: it is trained first, on a budget of tokens; ``"equal"``: likewise, on
            a compute-matched budget; ``"checks"``: only the static checks), ``RUNS``, limits.
    """

    path: Path
    expected: str
    layer: str
    trick: str
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the file without its suffix."""
        return self.path.stem

    @property
    def stage(self) -> str:
        """Stage at which the attack acts."""
        return str(self.settings.get("STAGE", "score"))

    @classmethod
    def read(cls, path: Path) -> Attack:
        """Parse one file without running it."""
        tree = ast.parse(path.read_text())
        header = re.fullmatch(r"(\w+) \(([\w ]+)\): (.+)\.", ast.get_docstring(tree) or "")
        if header is None:
            raise ValueError(f"{path} must begin with 'outcome (layer): trick.'")
        settings = {}
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                with contextlib.suppress(ValueError):
                    settings[node.targets[0].id] = ast.literal_eval(node.value)
        return cls(path, header[1], header[2], header[3], settings)

    def files(self) -> dict[str, bytes]:
        """Files of the candidate."""
        source = self.path.read_text()
        if padding := self.settings.get("PADDING"):
            source = source.replace('WEIGHTS = ""', f'WEIGHTS = "{"A" * padding}"')
        return {"train.py": source.encode(), "honest.py": HONEST.read_bytes()}


def attacks() -> list[Attack]:
    """Read every rehearsed attack, in order of name."""
    return [Attack.read(path) for path in sorted((HERE / "candidates").glob("*.py"))]


@dataclass(frozen=True)
class Outcome:
    """Outcome of an attack.

    Attributes:
        verdict: ``"ok"`` if there is a score.
        layer: Part of the evaluator that objected, as far as the evidence shows.
        reason: The one-line message.
        bpb: The score, or None.
        output: All text of the candidate that is stored and may be shown.
    """

    verdict: str
    layer: str = ""
    reason: str = ""
    bpb: float | None = None
    output: str = ""


class Arena:
    """Resources of the rehearsals, created once per session.

    Attributes:
        root: Folder for candidates.
        dataset: The small data set.
        checkpoint: Weights of the honest model.
        launcher: Starts the real, confined processes.
    """

    def __init__(self, root: Path, dataset: Dataset, checkpoint: Path, launcher: Launcher) -> None:
        self.root = root
        self.dataset = dataset
        self.checkpoint = checkpoint
        self.launcher = launcher

    @cached_property
    def honest(self) -> Score:
        """The honest model's score."""
        return evaluate(self.start({"train.py": b"from honest import *"}, "honest"), self.dataset)

    @cached_property
    def champion_losses(self) -> Path:
        """Its losses, stored as a champion's."""
        return self.honest.save_losses(self.root / "losses.f32")

    @cached_property
    def honest_run(self) -> Run:
        """Training and score of the honest candidate."""
        return self.run({"train.py": b"from honest import *"}, "honest", {})

    @cached_property
    def honest_equal_run(self) -> Run:
        """Training and score of the honest candidate on a compute-matched budget."""
        return self.run({"train.py": b"from honest import *"}, "honest-equal", {"STAGE": "equal"})

    @cached_property
    def allowances(self) -> Allowances:
        """What a run may use besides a compute-matched budget, as in a campaign."""
        return Allowances.of([self.honest_equal_run], EQUAL_BUDGET)

    def start(self, files: Mapping[str, bytes], name: str, **changes: Any) -> Callable[[], Child]:
        """Return a function that starts a scoring process of a candidate with honest weights."""
        directory = self.root / "scored" / name
        directory.mkdir(parents=True, exist_ok=True)
        for path, content in {"honest.py": HONEST.read_bytes(), **files}.items():
            (directory / path).write_bytes(content)
        job: dict[str, Any] = {
            "phase": "score",
            "directory": directory,
            "entry": "train.py",
            "checkpoint": self.checkpoint,
            "vocab_size": self.dataset.vocab_size,
            "seq_len": self.dataset.seq_len,
            "hide": tuple(str(path) for path in self.dataset.hidden_paths()),
            "memory_limit_bytes": 4 << 30,
            "capture": False,
        }
        return lambda: self.launcher.start(Job(**{**job, **changes}))

    def run(self, files: Mapping[str, bytes], name: str, settings: Mapping[str, Any]) -> Run:
        """Train and score a candidate as a campaign does."""
        equal = settings.get("STAGE") == "equal"
        allowances = Allowances(start_cpu_s=settings.get("STARTUP_LIMIT_S", 60), save_cpu_s=0.5)
        if equal:
            baseline = name == "honest-equal"
            allowances = Allowances() if baseline else self.allowances
        spec = RunSpec(
            run_id=name,
            files={"honest.py": HONEST.read_bytes(), **files},
            entry="train.py",
            seed=1,
            budget=EQUAL_BUDGET if equal else Budget("work", RUN_TOKENS),
            reference_files={"train.py": HONEST.read_bytes()} if equal else None,
            data=self.dataset.root,
            allowances=allowances,
            wall_limit_s=settings.get("WALL_LIMIT_S", 120),
            memory_limit_bytes=settings.get("MEMORY_LIMIT", 4 << 30),
            disk_limit_bytes=settings.get("DISK_LIMIT", 1 << 30),
            checkpoint_limit_bytes=64 << 20,
            champion_losses=self.champion_losses,
            scoring_cpu_limit_s=60,
        )
        return execute(spec, self.launcher, self.root / "runs")

    def honest_score(self, attack: Attack) -> float:
        """Score of the attacked model without the attack."""
        if attack.stage == "score":
            return self.honest.bpb
        run = self.honest_equal_run if attack.stage == "equal" else self.honest_run
        assert run.score is not None, run.reason
        return run.score

    def rehearse(self, attack: Attack, sandbox: Mode = "require") -> Outcome:
        """Run an attack and return its outcome; `sandbox` applies to attacks on scoring."""
        if attack.stage == "checks":
            before, after = HONEST.read_text(), attack.files()["train.py"].decode()
            last = run_checks({"train.py": before}, {"train.py": after})[-1]
            return Outcome("ok" if last.ok else "invalid", "checks", last.detail)
        if attack.stage in ("run", "equal"):
            for _ in range(attack.settings.get("RUNS", 1)):
                result = self.run(attack.files(), attack.name, attack.settings)
            output = f"{result.reason}{result.log_head}{result.log_tail}{result.evidence}"
            layer = _layer(result.reason, result.evidence)
            return Outcome(result.status, layer, result.reason, result.score, output)
        limits = {
            "cpu_limit_s": attack.settings.get("CPU_LIMIT_S"),
            "wall_limit_s": attack.settings.get("WALL_LIMIT_S", 60),
        }
        memory = attack.settings.get("MEMORY_LIMIT", 4 << 30)
        start = self.start(attack.files(), attack.name, memory_limit_bytes=memory, sandbox=sandbox)
        try:
            score = evaluate(start, self.dataset, champion_losses=self.champion_losses, **limits)
        except ScoringError as error:
            output = f"{error.reason}{error.evidence}"
            layer = _layer(error.reason, error.evidence)
            return Outcome(_VERDICTS[type(error)], layer, error.reason, output=output)
        return Outcome("ok", bpb=score.bpb)


_VERDICTS = {CheatDetected: "cheat", ScoringCrash: "crash", ScoringTimeout: "timeout"}


def _layer(reason: str, evidence: Mapping[str, object]) -> str:
    if "counterexample" in evidence:
        return "properties"
    if "mismatches" in evidence:
        return "audit"
    if "hides which files" in reason:
        return "seal"
    return "protocol" if "protocol" in reason or "message when one" in reason else ""


@contextlib.contextmanager
def open_arena(own: Path, shared: Path | None = None) -> Iterator[Arena]:
    """Open an arena in folder `own`; data and honest weights are created once in `shared`."""
    folder = (shared or own) / "arena"
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        checkpoint = folder / "honest.safetensors"
        if checkpoint.exists():
            dataset = Dataset.open(folder / "data")
        else:
            dataset = make_dataset(folder / "data")
            pretrain(dataset, checkpoint.with_suffix(".part")).rename(checkpoint)
    # A secret like a provider's key, for the attack that searches for one.
    os.environ["ATTACK_SECRET"] = "attack-secret"
    with Launcher() as launcher:
        yield Arena(own, dataset, checkpoint, launcher)
