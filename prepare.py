"""Data preparation (once) and the run-time utilities of a standalone ``python train.py``.

Fixed: no mutation edits this file.

    python prepare.py                                   # the standard library's source, offline
    python prepare.py --corpus climbmix --num-shards 8  # also: tinystories, wikitext-103
    python prepare.py --corpus notes/                   # local text or parquet files

The data set is written to .autoresearch/data/<corpus> beside this file (or --out); its format is
described in pytest_autoresearch/data/dataset.py. HF_ENDPOINT selects a download mirror.
"""

from __future__ import annotations

import argparse
import fcntl
import math
import os
import shlex
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_autoresearch.core.experiment import Budget
from pytest_autoresearch.data import corpora, writer
from pytest_autoresearch.data.dataset import MANIFEST, MAX_VOCAB_SIZE, Dataset, DatasetError
from pytest_autoresearch.forkserver.channel import ProtocolError
from pytest_autoresearch.scoring.evaluator import bits_per_byte
from pytest_autoresearch.training.clock import BudgetTooSmall, WallClock, WorkClock
from pytest_autoresearch.training.dataloader import BatchRequest, Windows

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    Logits = Callable[[Module, Tensor], Tensor]

# ---------------------------------------------------------------------------------------------
# Constants
# ---------------------------------------------------------------------------------------------

VOCAB_SIZE = {"climbmix": 8192, "tinystories": 4096, "wikitext-103": 8192}  # others: 1024
SEQ_LEN = {"climbmix": 2048, "tinystories": 512, "wikitext-103": 1024}  # others: 64
CPU_BUDGET, CUDA_BUDGET = "600ktok", "300s"  # of a standalone `python train.py`

# Dense bf16 peak in FLOP/s by part of the device's name (vendor data sheets); first match wins.
PEAK_FLOPS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989.5e12, "H200": 989.5e12, "B200": 2250e12,
    "A100": 312e12, "L40S": 362e12, "L4": 121e12, "4090": 165.2e12, "3090": 71e12,
}  # fmt: skip

ROOT = Path(__file__).resolve().parent
DATA = ROOT / ".autoresearch" / "data"
STARTED = time.perf_counter()

# ---------------------------------------------------------------------------------------------
# Run-time utilities of a standalone `python train.py`
# ---------------------------------------------------------------------------------------------


class Batches:
    """Training batches and clock of a standalone run.

    ``for x, y, progress in batches(batch_size, seq_len)`` yields int64 tensors of shape
    (batch_size, seq_len) on the CPU, where y is x shifted by one token, and the used part of the
    budget, in [0, 1), until the budget is spent. The harness passes an object with the same
    interface and, for the same seed, the same batches.

    Args:
        data: Data set; each window of its train split is used once per epoch.
        budget: Seconds from now, or tokens; ``equal:`` counts as tokens here.
        seed: Determines the order of the windows.
    """

    def __init__(self, data: Dataset, budget: Budget, seed: int) -> None:
        self.tokens = self.steps = 0
        self.loss = math.nan
        self._stream, self._seed = data.tokens("train"), seed
        self._windows: dict[int, Windows] = {}
        self._clock = (WallClock if budget.kind == "wall" else WorkClock)(budget.amount)
        self._clock.begin()

    def __call__(self, batch_size: int, seq_len: int) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Iterate over batches of this shape until the budget ends.

        Raises:
            ProtocolError: A batch is empty, too large, or longer than the data.
            BudgetTooSmall: The first batch is larger than the budget.
        """
        import torch

        request = BatchRequest.parse({"batch_size": batch_size, "seq_len": seq_len})
        if seq_len not in self._windows:
            self._windows[seq_len] = Windows(self._stream, seq_len, self._seed)
        rows = np.empty((batch_size, seq_len + 1), np.uint16)
        while True:
            progress = self._clock.progress
            if not self._clock.admit(request.tokens):
                return
            self._windows[seq_len].take(batch_size, rows)
            self.tokens, self.steps = self.tokens + request.tokens, self.steps + 1
            pairs = torch.from_numpy(rows.astype(np.int64))
            yield pairs[:, :-1].contiguous(), pairs[:, 1:].contiguous(), progress

    def report(self, *, loss: float | Tensor) -> None:
        """Show the training loss on a terminal."""
        self.loss = float(loss)
        if sys.stdout.isatty():
            progress = f"{self._clock.progress:6.1%}"
            print(f"\rstep {self.steps:05d} ({progress}) loss {self.loss:.4f} ", end="")


def evaluate(logits: Logits, model: Module, data: Dataset, split: str = "val") -> float:
    """Compute bits per byte over all rows of a split in this process (self-reported).

    Args:
        logits: ``logits(model, x)``: (B, T) int64 to (B, T, vocab_size).
        model: A trained model; x is moved to its device.
        data: Data set; the separator is not scored.
        split: Split to score.
    """
    import torch

    device = next(model.parameters()).device
    token_bytes = torch.from_numpy(data.token_bytes.astype(np.int64)).to(device)
    cells = 1 << (23 if device.type == "cpu" else 28)  # floats of logits per batch
    batch_size = max(1, cells // (data.seq_len * data.vocab_size))
    rows, nats, n_bytes = data.rows(split), 0.0, 0
    model.eval()
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            batch = torch.from_numpy(rows[start : start + batch_size].astype(np.int64)).to(device)
            x, y = batch[:, :-1].contiguous(), batch[:, 1:].reshape(-1)
            scores = logits(model, x).float().reshape(len(y), -1)
            losses = torch.nn.functional.cross_entropy(scores, y, reduction="none")
            weights = token_bytes[y]
            nats += float((losses * (weights > 0)).cpu().double().sum())
            n_bytes += int(weights.sum())
    return bits_per_byte(nats, n_bytes)


def run(build: Callable[[int, int], Module], train: Callable[[Module, Batches], None],
        logits: Logits) -> None:  # fmt: skip
    """Train for the budget, evaluate and print the summary of ``python train.py``.

    Reads AUTORESEARCH_BUDGET, AUTORESEARCH_SEED (default 0) and AUTORESEARCH_DATA. Exits with
    status 2 and one line if they or the data set are invalid, with 1 if the loss is not finite.
    """
    import torch

    from pytest_autoresearch.training import worker

    cuda = torch.cuda.is_available()
    try:
        budget = Budget.parse(
            os.environ.get("AUTORESEARCH_BUDGET") or (CUDA_BUDGET if cuda else CPU_BUDGET)
        )
        if not (seed := os.environ.get("AUTORESEARCH_SEED") or "0").isdecimal():
            raise ValueError(f"AUTORESEARCH_SEED={seed} is not a whole number; use 0, 1, 2, …")
        data = Dataset.open(os.environ.get("AUTORESEARCH_DATA") or DATA / "stdlib")
        data.verify()
    except (DatasetError, ValueError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        sys.exit(2)
    if budget.kind == "equal":
        print(f"{budget} needs the harness's baseline; training for {budget.amount:,.0f} tokens")
    if not cuda:  # on a shared machine a second thread costs more than it gains
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    worker.seed(int(seed))
    model = build(data.vocab_size, data.seq_len)
    batches = Batches(data, budget, int(seed))
    started = time.perf_counter()
    try:
        train(model, batches)
    except (BudgetTooSmall, ProtocolError) as error:
        print(f"train.py: {error}; prepare more data or change the budget", file=sys.stderr)
        sys.exit(2)
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    if sys.stdout.isatty():
        print()
    try:
        val_bpb = evaluate(logits, model, data)
    except ValueError as error:
        print(f"FAIL: {error}", file=sys.stderr)
        sys.exit(1)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    name = torch.cuda.get_device_name() if cuda else ""
    peak = next((flops for part, flops in PEAK_FLOPS.items() if part in name), math.inf)
    print("---")  # the rest is self-reported: the harness believes only its own evaluation
    for key, value in {
        "val_bpb": f"{val_bpb:.6f}",
        "training_seconds": f"{seconds:.1f}",
        "total_seconds": f"{time.perf_counter() - STARTED:.1f}",
        "peak_vram_mb": f"{torch.cuda.max_memory_allocated() / 2**20 if cuda else 0.0:.1f}",
        "mfu_percent": f"{100 * 6 * parameters * batches.tokens / seconds / peak:.2f}",
        "total_tokens_M": f"{batches.tokens / 1e6:.1f}",
        "num_steps": f"{batches.steps}",
        "num_params_M": f"{parameters / 1e6:.1f}",
        "depth": f"{getattr(build, '__globals__', {}).get('DEPTH', 0)}",
    }.items():
        print(f"{key + ':':<17} {value}")


# ---------------------------------------------------------------------------------------------
# Preparation: the command line
# ---------------------------------------------------------------------------------------------


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes of this script; the lock ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another prepare.py is running in {folder}; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prepared(out: Path) -> Dataset | None:
    """Open the data set in a folder if it is complete and undamaged."""
    if not (out / MANIFEST).exists():
        return None
    try:
        dataset = Dataset.open(out)
        dataset.verify()
    except DatasetError as error:
        print(f"{str(error).split('; run:')[0]}; preparing it again", flush=True)
        return None
    return dataset


def prepare(options: argparse.Namespace, command: str) -> Dataset:
    """Prepare the data set described by the options, unless it exists.

    Raises:
        DatasetError: It cannot be prepared; one line.
        OSError: The disk is full or the folder is not writable.
    """
    name, source = options.corpus, Path(options.corpus)
    known = name in ("stdlib", *corpora.HUB)
    if not 257 <= options.vocab_size <= MAX_VOCAB_SIZE:
        raise DatasetError(
            f"--vocab-size {options.vocab_size} is out of range; use 257 (256 bytes and a "
            f"separator) to {MAX_VOCAB_SIZE} (tokens are stored in 16 bits)"
        )
    if options.seq_len < 1 or options.num_shards < 1:
        raise DatasetError("--seq-len and --num-shards must be positive")
    request: dict[str, Any] = {
        "corpus": name if known else source.resolve().name,
        "vocab_size": options.vocab_size, "seq_len": options.seq_len,
    }  # fmt: skip
    corpus = None
    if name == "stdlib":
        request["python"] = sysconfig.get_python_version()
    elif name == "climbmix":
        request["num_shards"] = options.num_shards
    elif not known:
        corpus = corpora.path_corpus(source)
        request["source"] = corpus.fingerprint
    out = options.out or DATA / request["corpus"]
    if out.is_relative_to(DATA) and not (DATA.parent / ".gitignore").exists():
        DATA.mkdir(parents=True, exist_ok=True)
        (DATA.parent / ".gitignore").write_text("*\n")
    with locked(out):
        if (dataset := prepared(out)) and not options.force:
            if dataset.manifest.get("request") == request:
                print(f"already prepared: {out}")
                return dataset
            old = dataset.manifest.get("request", {})
            changed = [key for key in request | old if request.get(key) != old.get(key)]
            raise DatasetError(
                f"{out} holds a data set that differs in {', '.join(changed)}; "
                "choose another folder with --out, or replace it with --force"
            )
        if name == "stdlib":
            corpus = corpora.stdlib_corpus(ROOT / "train.py")
        elif corpus is None:
            corpus = corpora.hub_corpus(name, out, options.num_shards)
        (out / MANIFEST).unlink(missing_ok=True)
        return writer.build(corpus, out, request, command)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return 0, 2 after a one-line error, or 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(description="Prepare a data set and its tokenizer, once.")
    add = parser.add_argument
    add("--corpus", default="stdlib", help=f"stdlib, {', '.join(corpora.HUB)}, or a path")
    add("--vocab-size", type=int, help="number of tokens, including the separator")
    add("--seq-len", type=int, help="tokens of an evaluation row")
    add("--out", type=Path, help="folder of the data set (default: .autoresearch/data/CORPUS)")
    add("--force", action="store_true", help="replace a data set made with other settings")
    add("--num-shards", type=int, default=10, help="climbmix: training shards to download")
    options = parser.parse_args(arguments)
    if options.vocab_size is None:
        options.vocab_size = VOCAB_SIZE.get(options.corpus, 1024)
    if options.seq_len is None:
        options.seq_len = SEQ_LEN.get(options.corpus, 64)
    command = ["python", "prepare.py", *(part for part in arguments if part != "--force")]
    started = time.perf_counter()
    try:
        dataset = prepare(options, shlex.join(command))
    except DatasetError as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"prepare.py: {error.filename or options.corpus}: {error.strerror}; fix this, or "
            "choose another folder with --out, and run the same command again",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("prepare.py: interrupted; run the same command again to resume", file=sys.stderr)
        return 130
    for split, counts in dataset.manifest["splits"].items():
        print(
            f"{split:8} {counts['documents']:>8,} documents {counts['bytes']:>13,} bytes "
            f"{counts['tokens']:>12,} tokens {len(dataset.rows(split)):>10,} rows"
        )
    facts = dataset.manifest
    shares = ", ".join(f"{split} {share:.1%}" for split, share in facts["leakage"].items())
    print(
        f"also in train: {shares} of {writer.SHINGLE}-word shingles; "
        f"dropped repeats: {len(facts['dropped'])}; not text: {facts['skipped_files']} files"
    )
    print(f"data {dataset.sha256[:12]} in {dataset.root} ({time.perf_counter() - started:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
