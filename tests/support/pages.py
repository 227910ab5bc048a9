"""Records that the tests of the report page share."""

from __future__ import annotations

from pytest_autoresearch.core.records import (
    Champion,
    GateNote,
    SlotRecord,
    TrialRecord,
)


def trial(slot: int, seed: int = 1, score: float | None = 1.0, **other) -> TrialRecord:
    values = {
        "id": slot * 100 + seed, "slot_id": slot, "seed": seed, "purpose": "first",
        "state": "done", "device": "CPU", "budget": "equal:600ktok", "started": 100.0 * slot,
        "finished": 100.0 * slot + 30, "status": "ok" if score is not None else "crash",
        "score": score, "score_kind": "trusted", "train_seconds": 20.0, "total_seconds": 36.0,
        "steps": 500, "curve": tuple((i / 100, 7 - i / 25) for i in range(100)),
    }  # fmt: skip
    return TrialRecord(**{**values, **other})


def slot(number: int, verdict: str = "discard", score: float | None = 1.0, **other) -> SlotRecord:
    kind = "baseline" if verdict == "baseline" else "mutation"
    values = {
        "id": number, "name": f"{kind}-{number:04d}", "kind": kind, "number": number,
        "session_id": 1, "worker": "main", "state": "done", "started": 100.0 * number,
        "finished": 100.0 * number + 40, "verdict": verdict, "title": f"idea {number}",
        "proposer": "gp" if kind == "mutation" else "", "score": score, "n": 1,
        "parent": 1 if kind == "mutation" else None,
        "champion_before": 1 if kind == "mutation" else None,
        "trials": (trial(number, score=score),),
    }  # fmt: skip
    return SlotRecord(**{**values, **other})


BASE = Champion(1, 1, "a" * 40, {1: 1.0, 2: 1.0}, 130.0)


KEPT = Champion(2, 3, "b" * 40, {1: 0.9, 2: 0.9}, 330.0)


SLOTS = (
    slot(1, "baseline"),
    slot(
        2, "crash", None, reason="RuntimeError: shapes", gates=(GateNote("parses", True, "", 0.5),)
    ),
    slot(3, "keep", 0.9, gain=0.1, gain_sigma=9.0, commit="b" * 40),
    slot(4, "discard", 0.95, gain=-0.05, gain_sigma=-4.0, champion_before=3, parent=3),
)


CLOSING = {
    "champion": 2, "seeds": [501, 502], "kept": 0.1, "trouble": [],
    "confirmed": {"gain": 0.0712, "low": 0.0512, "high": 0.0912, "n": 2},
    "holdout": {"gain": 0.0634, "low": 0.0434, "high": 0.0834, "n": 2},
    "keeps": [
        {"slot": 3, "name": "mutation-0003", "title": "idea 3", "claimed": 0.1, "gain": -0.02,
         "held": False},
    ],
}  # fmt: skip


STATUS = {
    "slot": "mutation-0009", "title": "wider", "purpose": "first", "phase": "train",
    "fraction": 0.4, "elapsed": 12.0, "loss": 3.5,
}  # fmt: skip


# ---------------------------------------------------------------------- hostile text

NASTY = (
    "<script>alert(1)</script>", "</script><script>", "</style>", "</title>", "<!--", "-->", "]]>",
    "<img src=x onerror=alert(1)>", '" onmouseover="alert(1)', "' autofocus onfocus='x",
    "</textarea></pre></details></table>", "{{ 7*7 }}", "{% raw %}", "javascript:alert(1)",
    "<meta http-equiv=refresh content=0>", "<svg/onload=alert(1)>", "&lt;b&gt;", "\x00", "\u202e",
    "\ud800", "<base href=http://x.example>", "<a href=http://x.example>", "\r\n", "`", "\u2028",
)  # fmt: skip
