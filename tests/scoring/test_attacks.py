"""Every attack in ``attacks/candidates`` against real scoring."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from attacks.arena import Arena, Attack, attacks

pytest_plugins = ("attacks.fixtures",)

DEFAULT_TIER = {
    "honest_in_small_batches",
    "claims_zero_for_one_percent",
    "patched_worker",
    "peek_next_token",
    "recalls_by_files",
    "quotes_the_text_in_an_error",
    "reads_the_library",
    "sends_a_pickle",
    "smuggles_weights",
    "symlinks_the_checkpoint",
}

CASES = [
    pytest.param(
        attack, id=attack.name, marks=[] if attack.name in DEFAULT_TIER else [pytest.mark.slow]
    )
    for attack in attacks()
]


@pytest.mark.attacks
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("attack", CASES)
def test_attack_gains_nothing(
    arena: Arena, attack: Attack, record_property: Callable[[str, object], None]
) -> None:
    outcome = arena.rehearse(attack)
    moved = None if outcome.bpb is None else arena.honest_score(attack) - outcome.bpb
    record_property("attack", (attack.name, outcome.verdict, moved))
    if attack.expected == "harmless":
        assert (outcome.verdict, outcome.reason) == ("ok", "")
        assert outcome.bpb == pytest.approx(arena.honest_score(attack), abs=2e-6)
    elif attack.expected == "useless":
        assert (outcome.verdict, outcome.reason) == ("ok", "")
        assert outcome.bpb is not None
        assert outcome.bpb > arena.honest_score(attack)
    else:
        assert outcome.verdict == attack.expected or attack.expected == "refused", outcome
        assert outcome.bpb is None
    if attack.expected == "cheat":
        assert outcome.layer in attack.layer.replace(" and ", " or ").split(" or ") or (
            not outcome.layer and attack.layer == "evaluator"
        ), outcome
    assert "LEAK" not in outcome.output
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202e]", outcome.output)


@pytest.mark.slow
@pytest.mark.attacks
@pytest.mark.parametrize(
    "name",
    [
        "recalls_by_files",
        "recalls_by_shared_memory",
        "reads_the_data_set",
        "reads_the_library",
        "reads_its_surroundings",
        "overwrites_the_checkpoint",
    ],
)
def test_attack_succeeds_without_a_sandbox(arena: Arena, name: str) -> None:
    attack = next(attack for attack in attacks() if attack.name == name)
    outcome = arena.rehearse(attack, sandbox="off")
    if name.startswith("recalls"):
        # Nearly all targets are recalled: the audit depends on the sandbox.
        assert outcome.bpb is None or outcome.bpb < arena.honest.bpb / 2
        assert outcome.verdict == "ok" or int(outcome.reason.split()[0]) < 64
    else:
        assert outcome.verdict == "crash"
        assert re.search("can be (read|had|imported|written)|inherited", outcome.reason)


def test_attacks_cover_every_outcome_and_stage() -> None:
    cases = attacks()
    assert len(cases) >= 40
    assert {attack.expected for attack in cases} >= {"cheat", "crash", "timeout", "harmless"}
    assert {attack.stage for attack in cases} == {"score", "run", "equal", "checks"}
    assert {attack.name for attack in cases} >= DEFAULT_TIER
