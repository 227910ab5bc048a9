"""One sandboxed run on a device, scored by the harness and in process, side by side.

    python benchmarks/device.py [--device cuda|cpu] [--budget 60s] [--quick]

For a machine with a GPU, where training and scoring need /dev/nvidia*, /proc and /sys inside the
sandbox, and bf16 widens the tolerance. Trains the shipped experiment once and prints the active
sandbox layers, the score and its kind, and the score of a plain float32 evaluation of the same
checkpoint in one process. Needs the data of ``python prepare.py``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pytest_autoresearch import Budget
from pytest_autoresearch.core.run import RunSpec
from pytest_autoresearch.data.dataset import Dataset
from pytest_autoresearch.forkserver.launch import Launcher
from pytest_autoresearch.scoring.evaluator import bits_per_byte
from pytest_autoresearch.training.devices import visible_gpus
from pytest_autoresearch.training.run import execute

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".autoresearch/data/stdlib"


def in_process(checkpoint: Path, dataset: Dataset) -> float:
    """Bits per byte of a checkpoint, as the candidate itself would compute them."""
    import torch
    from safetensors.torch import load_model

    spec = importlib.util.spec_from_file_location("train", ROOT / "train.py")
    assert spec is not None
    assert spec.loader is not None
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    model = train.build(dataset.vocab_size, dataset.seq_len)
    load_model(model, checkpoint, strict=True)
    nats, sizes = 0.0, 0
    rows = dataset.rows("val")
    with torch.inference_mode():
        for start in range(0, len(rows), 64):
            part = torch.from_numpy(rows[start : start + 64].astype(np.int64)).to(train.DEVICE)
            logits = train.logits(model, part[:, :-1]).double()
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), part[:, 1:].flatten(), reduction="none"
            )
            counted = dataset.token_bytes[rows[start : start + 64, 1:]].astype(np.int64).ravel()
            nats += float(losses.cpu().numpy()[counted > 0].sum())
            sizes += int(counted.sum())
    return bits_per_byte(nats, sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--budget", type=Budget.parse, default=None)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.device == "cuda" and not visible_gpus():
        sys.exit("no CUDA device is visible here; nothing was measured")
    text = "60s" if options.device == "cuda" else "60ktok"
    budget = options.budget or Budget.parse("10s" if options.quick else text)
    files = {"train.py": (ROOT / "train.py").read_bytes()}
    with tempfile.TemporaryDirectory() as folder, Launcher() as launcher:
        spec = RunSpec("device", files, "train.py", 1, budget, DATA, device=options.device)
        began = time.perf_counter()
        result = execute(spec, launcher, Path(folder))
        seconds = time.perf_counter() - began
        print(f"status {result.status} {result.reason}")
        for layer, state in result.sandbox.items():
            print(f"  {layer:14}{state}")
        if result.score is None or result.checkpoint is None:
            sys.exit(1)
        plain = in_process(result.checkpoint, Dataset.open(DATA))
    print(f"harness    {result.score:.6f} ({result.score_kind})")
    print(f"in process {plain:.6f}   difference {result.score - plain:+.2e}")
    causes = ", ".join(f"{cause} {spent:.1f}" for cause, spent in result.causes.items())
    print(f"seconds    {seconds:.1f}: {causes}")
    print(
        json.dumps(
            {
                "device": options.device,
                "score_kind": result.score_kind,
                "difference_bpb": result.score - plain,
                "work": result.work,
                "peak_memory_mb": result.peak_memory_bytes / 2**20,
            }
        )
    )


if __name__ == "__main__":
    main()
