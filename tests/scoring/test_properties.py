"""Property checks on models written in numpy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_autoresearch.scoring import CheatDetected, ScoringCrash
from pytest_autoresearch.scoring.properties import EXAMPLES, check_properties

V, T = 20, 16
TABLE = np.random.default_rng(0).normal(size=(V, V)).astype(np.float32)
TEXT = np.random.default_rng(1).integers(V, size=500).astype(np.uint16)

Model = Callable[[Any], Any]


def bigram(x: Any) -> Any:
    return TABLE[x]


def mean_of_the_past(x: Any) -> Any:
    return TABLE[x].cumsum(1) / np.arange(1, x.shape[1] + 1)[:, None]


def check(model: Model, **more: Any) -> int:
    def logits(x: Any) -> Any:
        return np.asarray(model(x), np.float32)

    return check_properties(logits, TEXT, seq_len=T, vocab_size=V, tolerance=2e-3, **more)


def check_often(model: Model) -> None:
    for _ in range(6):
        check(model)


@pytest.mark.parametrize("model", [bigram, mean_of_the_past])
def test_causal_model_passes(model: Model) -> None:
    assert check(model) == EXAMPLES


def test_fixed_shape_uses_one_shape() -> None:
    shapes = set()

    def model(x: Any) -> Any:
        shapes.add(x.shape)
        return bigram(x)

    assert check(model, fixed_shape=True) > 1
    assert shapes == {(2, T)}


def test_rounding_is_tolerated() -> None:
    noise = np.random.default_rng(2)
    check(lambda x: bigram(x) + noise.uniform(-5e-4, 5e-4, (*x.shape, V)))


def test_looking_one_token_ahead_is_shrunk_to_one_sentence() -> None:
    def model(x: Any) -> Any:
        return TABLE[np.roll(x, -1, 1)]

    with pytest.raises(CheatDetected) as caught:
        check(model)
    assert caught.value.reason == "logits at position 0 change when token 1 changes"
    counterexample = caught.value.evidence["counterexample"]
    assert counterexample["length"] == 2
    assert sorted(row["width"] for row in counterexample["rows"]) == [0, 1]
    assert counterexample["order"] == "same"


def test_small_leak_from_a_later_token_is_found() -> None:
    def model(x: Any) -> Any:
        result = TABLE[x].copy()
        if x.shape[1] > 9:
            result[:, 5] += TABLE[x[:, 9]]
        return result

    # One search misses so small a leak in a few of a hundred tries.
    with pytest.raises(CheatDetected, match="at position 5 change when token 9 changes"):
        check_often(model)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (
            lambda x: TABLE[x] - TABLE[x].mean(0),
            "another row change when token 0 changes|when other rows are removed",
        ),
        (lambda x: TABLE[x] + len(x), "change when other rows are removed"),
        (lambda x: TABLE[x] + np.arange(len(x))[:, None, None], "when the rows are reversed"),
    ],
    ids=["mean over rows", "number of rows", "index of the row"],
)
def test_dependence_between_rows_is_found(model: Model, sentence: str) -> None:
    # One search misses the number of rows in one of a hundred tries.
    with pytest.raises(CheatDetected, match=sentence):
        check_often(model)


def test_random_model_is_found() -> None:
    noise = np.random.default_rng(3)
    with pytest.raises(
        CheatDetected, match=r"differ when the same batch is given twice|change when"
    ):
        check(lambda x: bigram(x) + noise.normal(size=(*x.shape, V)))


def test_model_with_state_is_found() -> None:
    calls = []

    def model(x: Any) -> Any:
        calls.append(1)
        return bigram(x) + 0.01 * len(calls)

    with pytest.raises(CheatDetected):
        check(model)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_logits_are_a_crash(value: float) -> None:
    with pytest.raises(ScoringCrash, match="not finite on training text"):
        check(lambda x: np.where(np.arange(V) == 3, value, bigram(x)))


def test_crash_ends_the_search() -> None:
    calls = []

    def model(x: Any) -> Any:
        calls.append(1)
        raise ScoringCrash("it died")

    with pytest.raises(ScoringCrash, match="it died"):
        check(model)
    assert len(calls) == 1


def test_nothing_is_left_in_the_working_folder(tmp_path: Path) -> None:
    program = (
        "import numpy as np\n"
        "from pytest_autoresearch.scoring.properties import check_properties\n"
        "table = np.zeros((9, 9), np.float32)\n"
        "print(check_properties(lambda x: table[x], np.zeros(99), seq_len=8, vocab_size=9,"
        " tolerance=0.1))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(EXAMPLES)
    assert list(tmp_path.iterdir()) == []
