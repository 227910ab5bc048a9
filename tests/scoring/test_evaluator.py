"""The evaluator on real confined processes; attacks are in test_attacks.py."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from attacks.arena import HERE, Arena

from pytest_autoresearch.data.dataset import Dataset
from pytest_autoresearch.forkserver.client import LaunchFailed
from pytest_autoresearch.scoring import AUDIT_KEEP, CheatDetected, ScoringCrash, ScoringTimeout
from pytest_autoresearch.scoring.audit import target_nats
from pytest_autoresearch.scoring.evaluator import (
    bits_per_byte,
    default_batch,
    evaluate,
    load_losses,
    rehearse,
)
from pytest_autoresearch.scoring.provenance import PACKAGE, evaluator_sha256, score_hashes

pytest_plugins = ("attacks.fixtures",)

HONEST = b"from honest import *\n"
PATCH = b"""
from honest import *
from pytest_autoresearch.scoring import worker
honest_nats = worker.nats
"""


def in_process_bpb(arena: Arena, split: str) -> float:
    """Compute bits per byte with torch in float64 in this process."""
    import torch
    from safetensors.torch import load_model

    sys.path.insert(0, str(HERE))
    try:
        import honest
    finally:
        sys.path.remove(str(HERE))
    model = honest.build(arena.dataset.vocab_size, arena.dataset.seq_len)
    load_model(model, arena.checkpoint)
    rows = torch.from_numpy(arena.dataset.rows(split).astype(np.int64))
    with torch.inference_mode():
        result = model.double()(rows[:, :-1])
        nats = torch.nn.functional.cross_entropy(
            result.flatten(0, 1), rows[:, 1:].flatten(), reduction="none"
        )
    sizes = arena.dataset.token_bytes[rows[:, 1:].numpy()].astype(np.int64).ravel()
    return bits_per_byte(float(nats.numpy()[sizes > 0].sum()), int(sizes.sum()))


def text_bytes(dataset: Dataset, split: str) -> int:
    """Count the UTF-8 bytes that the scored tokens of a split decode to."""
    targets = dataset.rows(split)[:, 1:].ravel()
    documents = np.split(targets, np.flatnonzero(targets == dataset.vocab_size - 1))
    encoding = dataset.encoding()
    return sum(
        len(encoding.decode_bytes([t for t in part.tolist() if t < dataset.vocab_size - 1]))
        for part in documents
    )


def test_honest_score_equals_an_in_process_computation(arena: Arena) -> None:
    score = arena.honest
    assert score.bpb == pytest.approx(in_process_bpb(arena, "val"), abs=1e-5)
    assert score.se < 1e-6
    assert score.audited == 512
    assert score.n_bytes == text_bytes(arena.dataset, "val")
    assert score.n_tokens == int((arena.dataset.rows("val")[:, 1:] < 383).sum())
    assert score.losses.shape == (len(arena.dataset.rows("val")), arena.dataset.seq_len)
    assert set(score.seconds) == {"start", "properties", "claims", "audit"}
    assert score.cpu_seconds > 0


def test_holdout_is_scored_the_same_way(arena: Arena) -> None:
    score = evaluate(arena.start({"train.py": HONEST}, "holdout"), arena.dataset, split="holdout")
    assert score.bpb == pytest.approx(in_process_bpb(arena, "holdout"), abs=1e-5)
    assert "holdout.bin" in score.hashes
    assert "val.bin" not in score.hashes


def test_score_does_not_depend_on_the_batch_size(arena: Arena) -> None:
    start = arena.start({"train.py": HONEST}, "batch")
    for batch in (7, 10_000):
        score = evaluate(start, arena.dataset, batch=batch, properties=False)
        assert score.bpb == pytest.approx(arena.honest.bpb, abs=1e-6)
        assert score.properties == 0


def test_losses_are_saved_and_loaded(arena: Arena, tmp_path: Path) -> None:
    path = arena.honest.save_losses(tmp_path / "losses.f32")
    assert path.stat().st_size == 4 * arena.honest.losses.size
    losses = load_losses(path, arena.dataset, "val")
    assert losses is not None
    assert (losses == arena.honest.losses).all()
    assert load_losses(path, arena.dataset, "holdout") is None
    assert load_losses(tmp_path / "absent", arena.dataset, "val") is None
    assert [p.name for p in tmp_path.iterdir()] == ["losses.f32"]


def test_a_second_audit_confirms_honest_claims(arena: Arena) -> None:
    start = arena.start({"train.py": HONEST}, "deepen")
    score = evaluate(start, arena.dataset, claims=arena.champion_losses, audit=AUDIT_KEEP)
    assert score.audited == 2048
    assert score.bpb == pytest.approx(arena.honest.bpb, abs=1e-6)


def test_a_second_audit_finds_one_forged_claim_below_the_champion(
    arena: Arena, tmp_path: Path
) -> None:
    losses = arena.honest.losses.copy()
    losses.ravel()[np.argmax(losses)] = 0
    forged = tmp_path / "forged.f32"
    forged.write_bytes(losses.tobytes())
    start = arena.start({"train.py": HONEST}, "deepen")
    with pytest.raises(CheatDetected, match="audited losses differ") as caught:
        evaluate(
            start, arena.dataset, claims=forged, audit=64, champion_losses=arena.champion_losses
        )
    assert caught.value.evidence["mismatches"] >= 32  # half of the draws are where claims are low
    assert len(caught.value.evidence["examples"]) == 5


def test_losses_of_other_data_are_refused(arena: Arena, tmp_path: Path) -> None:
    short = tmp_path / "short.f32"
    short.write_bytes(arena.champion_losses.read_bytes()[:-4])
    start = arena.start({"train.py": HONEST}, "deepen")
    with pytest.raises(LaunchFailed, match="one loss for every target of val"):
        evaluate(start, arena.dataset, claims=short)
    # A champion's losses only guide the audit and are optional.
    assert evaluate(start, arena.dataset, champion_losses=short).bpb == pytest.approx(
        arena.honest.bpb, abs=1e-6
    )


def test_systematic_difference_below_the_tolerance_is_detected(arena: Arena) -> None:
    source = PATCH + b"worker.nats = lambda *a: honest_nats(*a) + 0.001\n"
    with pytest.raises(CheatDetected, match=r"on average") as caught:
        evaluate(arena.start({"train.py": source}, "mean"), arena.dataset)
    assert caught.value.evidence["mismatches"] == 0


def test_one_costly_token_is_scored_and_named(arena: Arena) -> None:
    rows = arena.dataset.rows("val")[:, 1:]
    numbers, counts = np.unique(rows[rows < arena.dataset.vocab_size - 1], return_counts=True)
    token, count = int(numbers[counts.argmin()]), int(counts.min())
    source = (
        "import honest\nfrom honest import *\ndef logits(model, x):\n"
        f"    z = honest.logits(model, x).clone()\n    z[..., {token}] -= 3000\n    return z\n"
    )
    start = arena.start({"train.py": source.encode()}, "costly")
    score = evaluate(start, arena.dataset)
    costs = 3000 * count / math.log(2) / score.n_bytes
    assert score.bpb == pytest.approx(arena.honest.bpb + costs, abs=0.01 + 0.01 * costs)
    assert 3000 < score.worst_token < 3100
    assert arena.honest.worst_token < 100
    # Every audit of it passes, too: rounding grows with the loss.
    saved = score.save_losses(arena.root / "costly.f32")
    again = evaluate(
        start, arena.dataset, claims=saved, audit=256, champion_losses=arena.champion_losses
    )
    assert again.bpb == pytest.approx(score.bpb, rel=1e-4)


def test_logit_beyond_the_bound_is_a_crash_not_a_cheat(arena: Arena) -> None:
    source = b"from honest import *\ndef logits(model, x):\n    return model(x) * 1e5\n"
    with pytest.raises(ScoringCrash, match=r"a logit of the model is .* the bound is 10000"):
        evaluate(arena.start({"train.py": source}, "diverged"), arena.dataset)


def test_errors_are_reported_in_full_until_secret_text_is_sent(arena: Arena) -> None:
    source = b"from honest import *\ndef logits(model, x):\n    raise ValueError('my words')\n"
    with pytest.raises(ScoringCrash, match=r"logits\(\) raised an error: ValueError: my words"):
        evaluate(arena.start({"train.py": source}, "early"), arena.dataset)
    source = (
        b"import honest\nfrom honest import *\nrows = 0\n"
        b"def logits(model, x):\n    global rows\n    rows += len(x)\n"
        b"    assert rows < 600, 'my words'\n    return honest.logits(model, x)\n"
    )
    with pytest.raises(ScoringCrash, match=r"raised an error on validation text; it can reach no"):
        evaluate(arena.start({"train.py": source}, "late"), arena.dataset, properties=False)


def test_weights_of_another_shape_are_reported(arena: Arena) -> None:
    source = b"import honest\nhonest.WIDTH = 56\nfrom honest import *\n"
    with pytest.raises(ScoringCrash, match="does not fit the model that build"):
        evaluate(arena.start({"train.py": source}, "misfit"), arena.dataset)


def test_import_error_is_reported(arena: Arena) -> None:
    with pytest.raises(ScoringCrash, match="No module named 'nowhere'"):
        evaluate(arena.start({"train.py": b"import nowhere\n"}, "import"), arena.dataset)


def test_cpu_seconds_of_both_processes_count_together(arena: Arena) -> None:
    source = b"""
from honest import *
import time, honest
def build(*sizes):
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    return honest.build(*sizes)
"""
    start = arena.start({"train.py": source}, "burner")
    with pytest.raises(ScoringTimeout, match=r"more than 0\.5 CPU seconds"):
        evaluate(start, arena.dataset, cpu_limit_s=0.5)
    assert evaluate(start, arena.dataset, cpu_limit_s=30).cpu_seconds > 0.6


def test_rehearsal_scores_training_text_and_raises_the_errors_of_scoring(arena: Arena) -> None:
    assert 0 < rehearse(arena.start({"train.py": HONEST}, "rehearsal"), arena.dataset) < 8
    source = b"from honest import *\ndef logits(model, x):\n    return model(x)[:, 1:]\n"
    with pytest.raises(ScoringCrash, match="shape"):
        rehearse(arena.start({"train.py": source}, "rehearsal-bad"), arena.dataset)


def test_launch_failure_is_not_a_scoring_error(arena: Arena) -> None:
    def broken() -> None:
        raise LaunchFailed("no process could be started")

    with pytest.raises(LaunchFailed):
        evaluate(broken, arena.dataset)  # type: ignore[arg-type]


def test_phases_are_reported_when_they_begin(arena: Arena) -> None:
    phases: list[str] = []
    start = arena.start({"train.py": HONEST}, "phases")
    evaluate(start, arena.dataset, properties=False, on_phase=phases.append)
    assert phases == ["score", "audit"]


def test_batches_are_bounded_by_the_size_of_their_logits(arena: Arena) -> None:
    per_row = 4 * arena.dataset.seq_len * arena.dataset.vocab_size
    assert default_batch(arena.dataset, "cpu") * per_row <= 16 << 20
    assert default_batch(arena.dataset, "cuda") <= 256


def test_target_nats_agrees_with_the_definition() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=30, size=(50, 20)).astype(np.float32)
    targets = generator.integers(20, size=50)
    exact = [
        math.log(sum(math.exp(float(v) - float(row[t])) for v in row))
        for row, t in zip(logits, targets, strict=True)
    ]
    assert target_nats(logits, targets) == pytest.approx(exact, abs=1e-5)


def test_hashes_cover_the_evaluator_and_the_data_files(arena: Arena, tmp_path: Path) -> None:
    hashes = score_hashes(arena.dataset, "val")
    assert hashes == dict(arena.honest.hashes)
    assert hashes["evaluator"] == evaluator_sha256()
    for path in arena.dataset.root.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    changed = np.fromfile(tmp_path / "val.bin", "<u2")
    changed[3] ^= 1
    changed.tofile(tmp_path / "val.bin")
    other = score_hashes(Dataset.open(tmp_path), "val")
    assert {name for name in hashes if hashes[name] != other[name]} == {"val.bin"}


def test_a_changed_byte_of_evaluator_reader_or_protocol_changes_the_hash(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(PACKAGE, tmp_path / "package"))
    original = evaluator_sha256(copy)
    assert original == evaluator_sha256()
    paths = [*copy.glob("scoring/*.py"), copy / "data/dataset.py", copy / "forkserver/channel.py"]
    assert len(paths) > 8
    for path in paths:
        source = path.read_bytes()
        path.write_bytes(source + b"#")
        assert evaluator_sha256(copy) != original, path
        path.write_bytes(source)
    (copy / "report" / "__init__.py").write_bytes(b"#")
    assert evaluator_sha256(copy) == original
