"""Cost of trusted scoring relative to scoring in the candidate's own process.

    python benchmarks/scoring.py           # about ten minutes on one quiet core
    python benchmarks/scoring.py --quick   # coarse, under a minute

One random-weights model per vocabulary, synthetic tokens, rows of 256, one thread, float32. The
reference is the usual loop in the candidate's own process, with the same batch size and the same
settings of the allocator (either alone makes a larger difference). Both are measured in turns.
Compared are CPU seconds of computation: claims plus audit, including the evaluator, without
start-up, which is reported separately, as are the properties and the longer audit of a keep. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_autoresearch.data import dataset
from pytest_autoresearch.data.dataset import Dataset
from pytest_autoresearch.forkserver.launch import Child, Job, Launcher
from pytest_autoresearch.scoring import AUDIT, evaluator
from pytest_autoresearch.scoring.evaluator import bits_per_byte
from pytest_autoresearch.training.worker import keep_memory

SEQ_LEN = 256
VOCABULARIES = (1024, 4096, 8192)

MODEL = """
import torch
import torch.nn as nn
import torch.nn.functional as F

WIDTH, DEPTH, HEADS = 64, 2, 4


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, h):
        rows, length, _ = h.shape
        parts = self.qkv(F.layer_norm(h, (WIDTH,))).view(rows, length, 3, HEADS, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(seen.transpose(1, 2).reshape(rows, length, WIDTH))
        return h + self.down(F.relu(self.up(F.layer_norm(h, (WIDTH,)))).square())


class Model(nn.Module):
    def __init__(self, vocab_size, seq_len):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab_size, WIDTH), nn.Embedding(seq_len, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, vocab_size)

    def forward(self, x):
        h = self.tokens(x) + self.places.weight[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.head(F.layer_norm(h, (WIDTH,)))


def build(vocab_size, seq_len):
    return Model(vocab_size, seq_len)


def train(model, batches):
    pass


def logits(model, x):
    return model(x)
"""


def make_dataset(folder: Path, vocab_size: int, rows: int) -> Dataset:
    """Write a data set of a random Markov chain over synthetic tokens of one or two bytes."""
    folder.mkdir()
    random = np.random.default_rng(vocab_size)
    successors = random.integers(vocab_size, size=(vocab_size, 4))
    for split, count in (("train", 64), ("val", rows), ("holdout", 64)):
        size = count * SEQ_LEN + 1
        tokens = np.empty(size, "<u2")
        token, choices = 0, random.integers(4, size=size)
        for i in range(size):
            tokens[i] = token = int(successors[token, choices[i]])
        tokens.tofile(folder / f"{split}.bin")
    names = [chr(i % 256) + chr(i // 256) * (i >= 256) for i in range(vocab_size - 1)]
    (folder / dataset.TOKENIZER).write_text(json.dumps({"pattern": ".", "tokens": names}))
    np.array([*map(len, names), 0], "<u2").tofile(folder / dataset.TOKEN_BYTES)
    hashes = {name: dataset.file_sha256(folder / name) for name in dataset.FILES}
    manifest = {
        "format": dataset.FORMAT,
        "vocab_size": vocab_size,
        "seq_len": SEQ_LEN,
        "python": sys.version.split()[0],
        "hidden_sources": [],
        "files": {
            name: {"sha256": sha256, "bytes": (folder / name).stat().st_size}
            for name, sha256 in hashes.items()
        },
        "data_sha256": dataset.identity(vocab_size, SEQ_LEN, hashes),
    }
    (folder / dataset.MANIFEST).write_text(json.dumps(manifest))
    return Dataset.open(folder)


class MeteredChild:
    """A child that records its CPU seconds when it is ready, to separate start-up."""

    def __init__(self, child: Child, meter: Meter) -> None:
        self._child = child
        self._meter = meter
        self._killed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._child, name)

    def receive(self, timeout_s: float) -> dict[str, object]:
        """Delegate to `Child.receive`."""
        message = self._child.receive(timeout_s)
        if message.get("type") == "ready":
            self._meter.start_cpu += self._child.cpu_seconds()
        return message

    def kill(self) -> Any:
        """Delegate to `Child.kill`."""
        ended = self._child.kill()
        if not self._killed:
            self._killed = True
            self._meter.total_cpu += ended.cpu_seconds
        return ended


class Meter:
    """CPU seconds of scoring processes and of this one, around one call."""

    def __init__(self, start: Callable[[], Child]) -> None:
        self._start = start
        self.start_cpu = self.total_cpu = self.own_cpu = 0.0

    def start(self) -> Any:
        """Start a metered child; passed to the evaluator."""
        return MeteredChild(self._start(), self)

    def run(self, call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Call with `start` before the other arguments and return the result."""
        before = time.process_time()
        result = call(self.start, *args, **more)
        self.own_cpu = time.process_time() - before
        return result

    @property
    def compute_cpu(self) -> float:
        """CPU seconds without starting and loading."""
        return self.total_cpu - self.start_cpu + self.own_cpu


def load_module(path: Path) -> Any:
    """Import a file as ``python train.py`` would."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_process_bpb(logits: Callable[..., Any], model: Any, dataset: Dataset) -> float:
    """Compute bits per byte of val in this process."""
    import torch

    token_bytes = torch.from_numpy(dataset.token_bytes.astype(np.int64))
    rows, nats, n_bytes = dataset.rows("val"), 0.0, 0
    batch = evaluator.default_batch(dataset, "cpu")
    with torch.inference_mode():
        for start in range(0, len(rows), batch):
            tokens = torch.from_numpy(rows[start : start + batch].astype(np.int64))
            targets = tokens[:, 1:].reshape(-1)
            scores = logits(model, tokens[:, :-1]).flatten(0, 1)
            losses = torch.nn.functional.cross_entropy(scores, targets, reduction="none")
            sizes = token_bytes[targets]
            nats += float((losses * (sizes > 0)).double().sum())
            n_bytes += int(sizes.sum())
    return bits_per_byte(nats, n_bytes)


def reference_nats(model: Any, dataset: Dataset, rows: int) -> Any:
    """Compute the losses of the first rows in float64, in this process."""
    import torch

    tokens = torch.from_numpy(dataset.rows("val")[:rows].astype(np.int64))
    losses = []
    with torch.inference_mode():
        for part in tokens.split(4):
            logits = model(part[:, :-1])
            losses.append(
                torch.nn.functional.cross_entropy(
                    logits.transpose(1, 2), part[:, 1:], reduction="none"
                )
            )
    return torch.cat(losses).numpy()


def bits(nats: Any, dataset: Dataset) -> float:
    """Convert losses of the first rows of val to bits per byte."""
    sizes = dataset.token_bytes[dataset.rows("val")[: len(nats), 1:]].astype(np.int64)
    return float(nats[sizes > 0].sum(dtype=np.float64) / math.log(2) / sizes.sum())


def measure(
    vocab_size: int, rows: int, repeats: int, launcher: Launcher, root: Path
) -> dict[str, Any]:
    """Measure all figures of one vocabulary."""
    import torch
    from safetensors.torch import save_model

    dataset = make_dataset(root / f"data{vocab_size}", vocab_size, rows)
    directory = root / f"candidate{vocab_size}"
    directory.mkdir()
    (directory / "train.py").write_text(MODEL)
    candidate = load_module(directory / "train.py")
    torch.manual_seed(0)
    model = candidate.build(vocab_size, SEQ_LEN)
    checkpoint = root / f"{vocab_size}.safetensors"
    save_model(model, str(checkpoint))
    job = Job(
        "score", directory, "train.py", checkpoint,
        vocab_size=vocab_size, seq_len=SEQ_LEN, capture=False,
    )  # fmt: skip

    audit = min(AUDIT, rows // 8 * 2)
    in_process, trusted, walls = [], [], []
    for _ in range(repeats):
        before = time.process_time()
        own_bpb = in_process_bpb(candidate.logits, model, dataset)
        in_process.append(time.process_time() - before)
        meter, began = Meter(lambda: launcher.start(job)), time.perf_counter()
        score = meter.run(evaluator.evaluate, dataset, audit=audit, properties=False)
        walls.append(time.perf_counter() - began)
        trusted.append(meter.compute_cpu)
    losses = score.save_losses(root / "losses.f32")

    with_properties = Meter(lambda: launcher.start(job))
    few = make_dataset(root / f"few{vocab_size}", vocab_size, 64)
    with_properties.run(evaluator.evaluate, few, audit=2)
    without = Meter(lambda: launcher.start(job))
    without.run(evaluator.evaluate, few, audit=2, properties=False)
    keep = Meter(lambda: launcher.start(job))
    keep.run(evaluator.evaluate, dataset, claims=losses, audit=4 * audit)

    checked = min(rows, 256)
    reference = bits(reference_nats(model.double(), dataset, checked), dataset)
    error = abs(bits(score.losses[:checked], dataset) - reference)
    return {
        "ratio": statistics.median(trusted) / statistics.median(in_process),
        "in_process": statistics.median(in_process),
        "trusted": statistics.median(trusted),
        "wall": statistics.median(walls),
        "start": meter.start_cpu,
        "properties": with_properties.compute_cpu - without.compute_cpu,
        "keep": keep.compute_cpu,
        "error": error + abs(score.bpb - score.claimed_bpb),
        "against_in_process": abs(score.bpb - own_bpb),
        "audit": audit,
    }


def sandbox_start_ms(launcher: Launcher, root: Path, repeats: int) -> tuple[float, float]:
    """Measure the median milliseconds to start a confined and an unconfined child, in turns."""
    took: dict[str, list[float]] = {"require": [], "off": []}
    directory = root / "candidate1024"
    for _ in range(repeats):
        for mode, times in took.items():
            job = Job("score", directory, "train.py", root / "1024.safetensors", sandbox=mode)  # type: ignore[arg-type]
            began = time.perf_counter()
            child = launcher.start(job)
            times.append(1000 * (time.perf_counter() - began))
            child.kill()
    return statistics.median(took["require"]), statistics.median(took["off"])


def main(arguments: Sequence[str]) -> None:
    """Measure, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description="Measure the cost of trusted scoring.")
    parser.add_argument("--quick", action="store_true", help="few rows, one repetition")
    parser.add_argument("--rows", type=int, help="rows of 256 tokens to score (default 4096)")
    parser.add_argument("--repeats", type=int, help="repetitions of each (default 3)")
    options = parser.parse_args(arguments)
    rows = options.rows or (128 if options.quick else 4096)
    repeats = options.repeats or (1 if options.quick else 3)

    import torch

    torch.set_num_threads(1)
    keep_memory()  # as the scoring processes do, so that the rival is not slowed by the allocator
    results = {}
    with tempfile.TemporaryDirectory() as folder, Launcher() as launcher:
        root = Path(folder)
        print(f"{rows} rows of {SEQ_LEN} tokens; CPU seconds, medians of {repeats}")
        print("    V  in process  trusted  ratio  audited  | start  properties  keep's audit  wall")
        for vocab_size in VOCABULARIES:
            r = results[vocab_size] = measure(vocab_size, rows, repeats, launcher, root)
            print(
                f"{vocab_size:5d} {r['in_process']:11.2f} {r['trusted']:8.2f} {r['ratio']:6.3f}"
                f" {r['audit']:8d}  | {r['start']:5.2f} {r['properties']:11.2f} {r['keep']:13.2f}"
                f" {r['wall']:5.1f}   error {r['error']:.1e} bpb against float64,"
                f" {r['against_in_process']:.1e} against in process",
                flush=True,
            )
        confined, plain = sandbox_start_ms(launcher, root, 5 if options.quick else 30)
        print(f"start of a child: {confined:.1f} ms confined, {plain:.1f} ms plain")
    print(
        json.dumps(
            {
                "overhead_ratio": {str(v): round(r["ratio"], 4) for v, r in results.items()},
                "max_abs_bpb_error": max(r["error"] for r in results.values()),
                "sandbox_start_ms": round(confined - plain, 2),
                "sandbox_start_ms_confined": round(confined, 2),
                "sandbox_start_ms_plain": round(plain, 2),
                "properties_cpu_s": {str(v): round(r["properties"], 3) for v, r in results.items()},
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
