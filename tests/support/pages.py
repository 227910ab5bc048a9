"""Records for the tests of the report page."""

from __future__ import annotations

from pytest_autoresearch.core.records import (
    Attempt,
    Champion,
    CheckNote,
    Confirmation,
    Gain,
    Survival,
)
from pytest_autoresearch.core.run import Run


def run(attempt: int, seed: int = 1, score: float | None = 1.0, **other) -> Run:
    values = {
        "id": attempt * 100 + seed, "attempt_id": attempt, "seed": seed, "purpose": "first",
        "state": "done", "device": "CPU", "budget": "equal:600ktok", "started": 100.0 * attempt,
        "finished": 100.0 * attempt + 30, "status": "ok" if score is not None else "crash",
        "score": score, "score_kind": "trusted", "train_seconds": 20.0, "total_seconds": 36.0,
        "steps": 500, "curve": tuple((i / 100, 7 - i / 25) for i in range(100)),
    }  # fmt: skip
    return Run(**{**values, **other})


def attempt(number: int, verdict: str = "discard", score: float | None = 1.0, **other) -> Attempt:
    kind = "baseline" if verdict == "baseline" else "mutation"
    values = {
        "id": number, "name": f"{kind}-{number:04d}", "kind": kind, "number": number,
        "session_id": 1, "worker": "main", "state": "done", "started": 100.0 * number,
        "finished": 100.0 * number + 40, "verdict": verdict, "title": f"idea {number}",
        "proposer": "gp" if kind == "mutation" else "", "score": score, "n": 1,
        "parent": 1 if kind == "mutation" else None,
        "champion_before": 1 if kind == "mutation" else None,
        "runs": (run(number, score=score),),
    }  # fmt: skip
    return Attempt(**{**values, **other})


BASE = Champion(1, 1, "a" * 40, {1: 1.0, 2: 1.0}, 130.0)

KEPT = Champion(2, 3, "b" * 40, {1: 0.9, 2: 0.9}, 330.0)

ATTEMPTS = (
    attempt(1, "baseline"),
    attempt(
        2,
        "crash",
        None,
        reason="RuntimeError: shapes",
        check_notes=(CheckNote("parses", True, "", 0.5),),
    ),
    attempt(3, "keep", 0.9, gain=0.1, gain_sigma=9.0, commit="b" * 40),
    attempt(4, "discard", 0.95, gain=-0.05, gain_sigma=-4.0, champion_before=3, parent=3),
)

CONFIRMATION = Confirmation(
    champion=2,
    seeds=(501, 502),
    kept=0.1,
    confirmed=Gain(0.0712, 0.0512, 0.0912, 2),
    holdout=Gain(0.0634, 0.0434, 0.0834, 2),
    keeps=(Survival(3, "mutation-0003", "idea 3", 0.1, Gain(-0.02, -0.03, -0.01, 6), "lost"),),
)


STATUS = {
    "attempt": "mutation-0009", "title": "wider", "purpose": "first", "phase": "train",
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
