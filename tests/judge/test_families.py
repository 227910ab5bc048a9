"""Families of ideas: records, expectations, and the request for another one."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.core.records import Attempt, Champion
from pytest_autoresearch.judge.families import (
    EXHAUSTED,
    FAMILIES,
    by_family,
    exhausted,
    expected_of,
    family_of,
)
from pytest_autoresearch.judge.parents import PATIENCE, STRUCTURAL, next_step


def attempt(
    number: int, family: object = "optimizer", verdict: str = "discard", **fields: object
) -> Attempt:
    meta = {"family": family} if family else {}
    values = {"kind": "mutation", "meta": meta, "gain": -0.01, "gain_sigma": -1.0} | fields
    return Attempt(number, f"m-{number}", number=number, session_id=1, worker="w", state="done",
                   started=0.0, verdict=verdict, **values)  # fmt: skip


CHAMPION = Champion(1, 1, "c1", {1: 1.0}, 0.0)


def hint(*attempts: Attempt) -> str:
    return next_step("archive", attempts, [CHAMPION], 101, 0).hint


def test_a_family_without_a_keep_in_its_last_attempts_is_exhausted() -> None:
    tried = [attempt(n) for n in range(2, 2 + EXHAUSTED)]
    assert "the family 'optimizer', and none was kept: propose one of another" in hint(*tried)
    assert hint(*tried[1:]) == ""
    assert hint(*tried[1:], attempt(50, "schedule")) == ""
    assert hint(*tried, attempt(50, verdict="keep")) == ""
    # search proposals state no family, and do not count
    assert "'optimizer'" in hint(*tried[:4], attempt(50, None), attempt(51, None), *tried[4:])
    assert exhausted([attempt(1, "magic")] * 20) == ""


def test_other_droughts_ask_for_a_structural_change() -> None:
    tried = [attempt(n, FAMILIES[n % 3]) for n in range(2, 2 + PATIENCE)]
    assert hint(*tried) == STRUCTURAL


def test_records_hold_gains_and_calibration() -> None:
    expected = {"family": "optimizer", "expected": 0.02}
    records = by_family(
        [
            attempt(2, "schedule"),
            attempt(3, verdict="keep", gain=0.04, meta=expected),
            attempt(4, gain=-0.02, meta=expected),
            attempt(5, verdict="crash", gain=None, meta=expected),
            attempt(6, None, verdict="keep", gain=1.0),
            attempt(7, verdict="running"),
        ]
    )
    assert [record.name for record in records] == ["optimizer", "schedule"]
    first = records[0]
    assert (first.tried, first.kept, first.gain, first.judged) == (3, 1, 0.04, 2)
    assert (first.expected, round(first.measured, 9)) == (0.02, 0.01)
    assert (records[1].expected, records[1].measured) == (None, None)


@given(st.dictionaries(st.sampled_from(["family", "expected"]), st.from_type(object)))
def test_notes_of_any_type_are_no_family_and_no_expectation(meta) -> None:
    assert family_of(meta) in ("", *FAMILIES)
    expected = expected_of(meta)
    assert expected is None or math.isfinite(expected)
