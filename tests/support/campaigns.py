"""Made-up campaigns: ledgers with any content that a real one could have, written as one is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from pytest_autoresearch.core.proposal import Edit, Proposal, Usage
from pytest_autoresearch.core.records import CheckNote
from pytest_autoresearch.core.run import Run
from pytest_autoresearch.ledger.store import Ledger

FACTS = {
    "base_commit": "b" * 40, "budget": "600ktok", "calibrate": 2, "seed": 0,
    "metric": {"name": "val_bpb", "direction": "min", "unit": "bits/byte"},
    "files": ["train.py"], "started": 1.5,
}  # fmt: skip

hostile = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
"""Text as a column holds it: everything but lone surrogates."""

any_text = st.one_of(st.text(st.characters(), max_size=40), st.just("]]>\x00\x7f\ud800\r\n& <b>"))
"""Text as JSON holds it."""

numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**40)

proposals = st.builds(
    Proposal,
    title=any_text.filter(bool),
    edits=st.lists(st.builds(Edit, any_text, any_text, any_text), max_size=3).map(tuple),
    hypothesis=any_text,
    proposer=any_text,
    usage=st.builds(
        Usage, any_text, counts, counts, counts, counts, counts, st.none() | numbers, numbers
    ),
    meta=st.dictionaries(any_text, st.recursive(numbers | any_text, st.lists, max_leaves=3)),
)

results = st.builds(
    Run,
    st.just("ok"),
    reason=any_text,
    score=numbers,
    score_se=st.none() | numbers,
    train_seconds=numbers,
    total_seconds=st.floats(0, 1e6),
    steps=counts,
    peak_memory_bytes=counts,
    curve=st.lists(st.tuples(numbers, numbers), max_size=5).map(tuple),
    log_tail=any_text,
    metrics=st.dictionaries(any_text, numbers, max_size=2),
    causes=st.dictionaries(any_text, numbers, max_size=2),
    sandbox=st.dictionaries(any_text, any_text, max_size=2),
    hashes=st.dictionaries(any_text, any_text, max_size=2),
    checkpoint=st.none() | st.just(Path("/runs/1/checkpoint.safetensors")),
    evidence=st.dictionaries(any_text, numbers, max_size=2),
)

attempts = st.fixed_dictionaries(
    {
        "proposal": st.none() | proposals,
        "results": st.lists(results, max_size=3),
        "end": st.sampled_from(
            ["keep", "discard", "crash", "invalid", "interrupted", "infra", "running"]
        ),
        "reason": hostile,
        "fingerprint": hostile,
        "check_notes": st.lists(st.builds(CheckNote, any_text, st.booleans(), any_text, numbers)),
        "gain": st.none() | numbers,
    }
)

campaigns = st.fixed_dictionaries(
    {
        "attempts": st.lists(attempts, max_size=5),
        "drafts": st.lists(proposals, max_size=2),
    }
)


def write(ledger: Ledger, data: dict[str, Any]) -> None:
    """Write a made-up campaign as its sessions would have."""
    session = ledger.begin_session(driver="d", worker="gw0", config={"iterations": 3})
    ledger.set_meta("campaign", FACTS)
    for number in (1, 2):
        attempt = start(ledger, session, "baseline", number)
        run(ledger, attempt, number, "calibrate", Run("ok", score=1.0 + number / 1000))
        ledger.finish_attempt(
            attempt, verdict="baseline", score=1.0, n=1, commit=FACTS["base_commit"]
        )
    ledger.promote(0, 1, FACTS["base_commit"], {1: 1.001, 2: 1.002})
    for number, entry in enumerate(data["attempts"], 1):
        attempt = start(ledger, session, "mutation", number)
        if entry["proposal"] is not None:
            ledger.save_proposal(attempt, entry["proposal"], parent=1)
        ledger.add_check_notes(attempt, entry["check_notes"])
        for seed, result in enumerate(entry["results"]):
            run(ledger, attempt, seed, "first" if seed == 0 else "replicate", result)
        finish(ledger, attempt, entry)
    for proposal in data["drafts"]:
        ledger.add_draft(proposal, parent=1)


def start(ledger: Ledger, session: int, kind: str, number: int) -> int:
    return ledger.start_attempt(
        session_id=session, worker="gw0", name=f"{kind}-{number}", kind=kind, number=number
    ).id


def run(ledger: Ledger, attempt: int, seed: int, purpose: str, result: Run) -> None:
    run = ledger.start_run(
        attempt, seed=seed, purpose=purpose, device="cpu", concurrency=2, budget="600ktok"
    )
    ledger.finish_run(run, result)


def finish(ledger: Ledger, attempt: int, entry: dict[str, Any]) -> None:
    end = entry["end"]
    if end == "running":
        return
    if end in ("interrupted", "infra"):
        ledger.abandon_attempt(attempt, end, entry["reason"])
        return
    outcome = {
        "verdict": end, "reason": entry["reason"], "fingerprint": entry["fingerprint"],
        "gain": entry["gain"], "score": 0.5, "n": 1, "parent": 1, "champion_before": 1,
        "commit": f"{attempt:040x}",
    }  # fmt: skip
    champion = ledger.champion()
    if end == "keep" and champion is not None:
        ledger.promote(
            champion.version, attempt, f"{attempt:040x}", {1: 0.1 + 0.2}, outcome=outcome
        )
        ledger.add_champion_scores(champion.version + 1, {7: 1 / 3})
    else:
        ledger.finish_attempt(attempt, **outcome)
