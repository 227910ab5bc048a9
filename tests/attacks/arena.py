"""Where attacks are rehearsed: a small real data set, a trained honest model, real processes."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from pytest_autoresearch.scoring import corpora
from pytest_autoresearch.scoring.dataset import Dataset
from pytest_autoresearch.trial.launch import Child, Job, Launcher

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HONEST = HERE / "honest.py"

SEQ_LEN = 64
VOCAB_SIZE = 384
HELD_OUT = {
    "val": ("plistlib.py", "zipapp.py", "tabnanny.py"),
    "holdout": ("trace.py", "pipes.py", "smtplib.py", "ftplib.py"),
}
TRAIN_BYTES = 900_000
PRETRAIN_STEPS = 250

PRETRAIN = """
import sys, numpy as np, torch
from safetensors.torch import save_model
folder, data, out, steps, vocab, length = sys.argv[1:]
steps, vocab, length = int(steps), int(vocab), int(length)
sys.path.insert(0, folder)
import honest
torch.manual_seed(0); torch.set_num_threads(1)
tokens = np.memmap(data, "<u2", mode="r").astype(np.int64)
random = np.random.default_rng(0)
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


def prepare_module() -> ModuleType:
    """The repository's prepare.py, imported under a name of its own."""
    spec = importlib.util.spec_from_file_location("attacks_prepare", ROOT / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_corpus() -> corpora.Corpus:
    """A few library modules; those of val and holdout are to be hidden, as in the real one."""
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
    request = {"corpus": "stdlib", "vocab_size": VOCAB_SIZE, "seq_len": SEQ_LEN}
    request["python"] = sys.version.split()[0]
    with contextlib.redirect_stdout(None):
        dataset: Dataset = prepare_module().build(small_corpus(), folder, request, "rehearsal")
    return dataset


def pretrain(dataset: Dataset, checkpoint: Path) -> Path:
    """Train the honest model in a process of its own and save its weights."""
    data = dataset.root / "train.bin"
    numbers = (PRETRAIN_STEPS, dataset.vocab_size, dataset.seq_len)
    command = [sys.executable, "-c", PRETRAIN, HERE, data, checkpoint, *numbers]
    subprocess.run([str(part) for part in command], check=True)
    return checkpoint


@dataclass(frozen=True)
class Arena:
    """What a rehearsal needs, made once a session.

    Attributes:
        root: A folder to put candidates in.
        dataset: The small data set.
        checkpoint: Weights of the honest model.
        launcher: Starts the real, confined processes.
    """

    root: Path
    dataset: Dataset
    checkpoint: Path
    launcher: Launcher

    def start(
        self, source: str, name: str, **changes: Any
    ) -> Callable[[], Child]:
        """What `evaluate` calls to get a scoring process of the candidate `source`."""
        directory = self.root / name
        directory.mkdir(exist_ok=True)
        (directory / "train.py").write_text(source)
        shutil.copy(HONEST, directory)
        job: dict[str, Any] = {
            "phase": "score",
            "directory": directory,
            "entry": "train.py",
            "checkpoint": self.checkpoint,
            "vocab_size": self.dataset.vocab_size,
            "seq_len": self.dataset.seq_len,
            "hide": tuple(str(path) for path in self.dataset.hidden_paths()),
            "capture": False,
        }
        return lambda: self.launcher.start(Job(**{**job, **changes}))
