"""A standalone run of train.py: batches, evaluation, summary."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.prepare import SETTINGS, load_prepare, write_texts

from pytest_autoresearch import Budget
from pytest_autoresearch.data.dataset import Dataset
from pytest_autoresearch.forkserver.channel import ProtocolError

torch = pytest.importorskip("torch")
prepare = load_prepare()
DEPTH = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("run")
    source = write_texts(folder / "source")
    arguments = ["--corpus", str(source), "--out", str(folder / "data"), *SETTINGS]
    assert prepare.main(arguments) == 0
    return Dataset.open(folder / "data")


def build(vocab_size: int, seq_len: int) -> Any:
    """Build a bigram model."""
    return torch.nn.Embedding(vocab_size, vocab_size)


def train(model: Any, batches: Any) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=100.0)
    for x, y, _ in batches(8, 16):
        loss = torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        batches.report(loss=loss.detach())


def logits(model: Any, x: Any) -> Any:
    return model(x)


@pytest.fixture
def environment(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setenv("AUTORESEARCH_DATA", str(data.root))
    monkeypatch.setenv("AUTORESEARCH_BUDGET", "4ktok")
    monkeypatch.delenv("AUTORESEARCH_SEED", raising=False)
    threads = torch.get_num_threads()
    yield monkeypatch
    torch.set_num_threads(threads)


def summary(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    capsys.readouterr()
    prepare.run(build, train, logits)
    block = capsys.readouterr().out.rpartition("---\n")[2]
    assert re.fullmatch(r"(\w+: +[\d.]+\n)+", block)
    return dict(re.findall(r"(\w+): +([\d.]+)\n", block))


def test_batches_are_windows_of_the_stream_shifted_by_one(data: Dataset) -> None:
    stream = data.tokens("train").astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(stream, 11)
    known = {window.tobytes() for window in np.ascontiguousarray(windows)}
    seen = []
    for x, y, progress in prepare.Batches(data, Budget.parse("300tok"), 1)(3, 10):
        assert x.dtype == y.dtype == torch.int64
        assert x.shape == y.shape == (3, 10)
        assert x.is_contiguous()
        assert y.is_contiguous()
        assert torch.equal(x[:, 1:], y[:, :-1])
        joined = torch.cat([x, y[:, -1:]], dim=1).numpy()
        assert all(row.tobytes() in known for row in joined)
        seen.append(progress)
    assert seen == [pytest.approx(step / 10) for step in range(10)]


def test_batches_never_exceed_the_budget(data: Dataset) -> None:
    batches = prepare.Batches(data, Budget.parse("100tok"), 0)
    assert len(list(batches(3, 10))) == 3
    assert list(batches(3, 10)) == []
    assert [x.numel() for x, _, _ in batches(1, 10)] == [10]
    assert (batches.tokens, batches.steps) == (100, 4)


def test_data_repeats_after_an_epoch(data: Dataset) -> None:
    total = len(data.tokens("train"))
    batches = prepare.Batches(data, Budget("work", 3 * total), 0)
    assert sum(x.numel() for x, _, _ in batches(8, 16)) > 2.9 * total


def test_order_follows_the_seed(data: Dataset) -> None:
    def tokens(seed: int) -> list[int]:
        batches = prepare.Batches(data, Budget.parse("1ktok"), seed)
        return [token for x, _, _ in batches(4, 16) for token in x.flatten().tolist()]

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)


def test_seconds_end_a_wall_budget(data: Dataset) -> None:
    seen = [progress for _, _, progress in prepare.Batches(data, Budget("wall", 0.05), 0)(2, 8)]
    assert seen
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[-1] < 1


@pytest.mark.parametrize("shape", [(0, 8), (4, 0), (1 << 20, 64)])
def test_invalid_batch_shapes_are_refused(data: Dataset, shape: tuple[int, int]) -> None:
    with pytest.raises(ProtocolError, match="asked for a batch"):
        next(prepare.Batches(data, Budget.parse("1mtok"), 0)(*shape))


def test_uniform_predictions_cost_log2_of_the_vocabulary_a_token(data: Dataset) -> None:
    model = build(data.vocab_size, data.seq_len)
    model.weight.data.zero_()
    targets = data.rows("val")[:, 1:].ravel()
    lengths = data.token_bytes[targets]
    expected = (lengths > 0).sum() * math.log2(data.vocab_size) / lengths.sum(dtype=np.int64)
    assert prepare.evaluate(logits, model, data) == pytest.approx(expected, rel=1e-5)
    assert (lengths == 0).sum() > 0


def test_separator_is_not_scored(data: Dataset) -> None:
    model = build(data.vocab_size, data.seq_len)
    model.weight.data.zero_()
    before = prepare.evaluate(logits, model, data)
    model.weight.data[:, -1] = -50.0  # separators become impossible; others a little likelier
    gain = math.log2(data.vocab_size / (data.vocab_size - 1))
    after = prepare.evaluate(logits, model, data)
    assert before - after == pytest.approx(gain * before / math.log2(data.vocab_size), rel=0.05)


def test_run_trains_and_prints_the_summary(
    environment: pytest.MonkeyPatch, data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    values = summary(capsys)
    assert list(values) == [
        "val_bpb", "training_seconds", "total_seconds", "peak_vram_mb", "mfu_percent",
        "total_tokens_M", "num_steps", "num_params_M", "depth",
    ]  # fmt: skip
    assert re.fullmatch(r"\d\.\d{6}", values["val_bpb"])
    assert values["num_steps"] == "31"  # 4,000 tokens in batches of 128
    assert values["depth"] == "3"
    untrained = prepare.evaluate(logits, build(data.vocab_size, data.seq_len), data)
    assert float(values["val_bpb"]) < untrained


def test_one_seed_repeats_and_another_differs(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = []
    for seed in ("5", "5", "6"):
        environment.setenv("AUTORESEARCH_SEED", seed)
        scores.append(summary(capsys)["val_bpb"])
    assert scores[0] == scores[1] != scores[2]


def test_equal_budget_counts_tokens_and_prints_it(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("AUTORESEARCH_BUDGET", "equal:4ktok")
    prepare.run(build, train, logits)
    output = capsys.readouterr().out
    assert "training for 4,000 tokens" in output
    assert "num_steps:        31\n" in output


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("AUTORESEARCH_BUDGET", "soon", "'soon' is not a budget"),
        ("AUTORESEARCH_BUDGET", "100tok", "a batch may hold 100;"),
        ("AUTORESEARCH_SEED", "x", "AUTORESEARCH_SEED=x is not a whole number"),
        ("AUTORESEARCH_DATA", "/nowhere", "no data set in /nowhere; run: python prepare.py"),
    ],
)
def test_invalid_settings_are_one_line_and_status_2(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    variable: str, value: str, expected: str,
) -> None:  # fmt: skip
    environment.setenv(variable, value)
    with pytest.raises(SystemExit) as caught:
        prepare.run(build, train, logits)
    message = capsys.readouterr().err
    assert caught.value.code == 2
    assert message.count("\n") == 1
    assert expected in message


def test_rows_longer_than_the_data_are_one_line(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train_on_long_rows(model: Any, batches: Any) -> None:
        next(batches(1, 200_000))

    environment.setenv("AUTORESEARCH_BUDGET", "1mtok")
    with pytest.raises(SystemExit) as caught:
        prepare.run(build, train_on_long_rows, logits)
    assert caught.value.code == 2
    assert "the training stream holds" in capsys.readouterr().err


def test_diverged_model_fails(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverge(model: Any, batches: Any) -> None:
        model.weight.data.fill_(math.nan)

    with pytest.raises(SystemExit) as caught:
        prepare.run(build, diverge, logits)
    assert caught.value.code == 1
    output = capsys.readouterr()
    assert "FAIL" in output.err
    assert "---" not in output.out


def test_damaged_data_set_is_refused(
    environment: pytest.MonkeyPatch, data: Dataset, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for path in data.root.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    stream = bytearray((tmp_path / "train.bin").read_bytes())
    stream[1000] ^= 1
    (tmp_path / "train.bin").write_bytes(stream)
    environment.setenv("AUTORESEARCH_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        prepare.run(build, train, logits)
    assert caught.value.code == 2
    assert "train.bin has changed since it was prepared" in capsys.readouterr().err
