"""The best gain of all rehearsed attacks over the same program without the attack.

    python benchmarks/forgery.py            # all attacks, about five minutes on a quiet machine
    python benchmarks/forgery.py --quick    # a sixth of them
    python benchmarks/forgery.py --write    # and write both tables of docs/security.md
    python benchmarks/forgery.py NAME ...   # some attacks

An attack that ends without a score gains nothing. Attacks on scoring are compared with the score of
the same weights; those on training with a run of the same program on the same seed and budget. The
last line is JSON: ``max_gain`` in bits per byte, the goal is at most 0.001.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from attacks.arena import Arena, Attack, Outcome, attacks, open_arena, pretrain

from pytest_autoresearch.scoring import AUDIT, AUDIT_KEEP
from pytest_autoresearch.scoring.evaluator import evaluate, load_losses

DOCUMENT = Path(__file__).parents[1] / "docs" / "security.md"
QUICK = 6
FORMATTER = argparse.RawDescriptionHelpFormatter
FORGED_BPB = 0.001


def row(arena: Arena, attack: Attack, outcome: Outcome) -> str:
    """Format one line of the table of attacks."""
    reason = re.sub(rf"'{re.escape(str(arena.root))}[^']*'", "its checkpoint", outcome.reason)
    result = f"**{outcome.verdict}**: {reason}"
    if outcome.bpb is not None:
        gain = arena.honest_score(attack) - outcome.bpb
        result = (
            "no effect: the honest score" if abs(gain) < 2e-6 else f"score moved by {gain:+.6f}"
        )
    trick = attack.trick[0].upper() + attack.trick[1:]
    cells = (f"`{attack.name}`", trick, outcome.layer or attack.layer, result)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def rehearse(arena: Arena, chosen: list[Attack]) -> tuple[list[str], float]:
    """Run the attacks; print each line of the table when it is finished.

    Returns:
        The table, and the largest gain.
    """
    rows, best = [], 0.0
    for attack in chosen:
        began = time.monotonic()
        outcome = arena.rehearse(attack)
        if outcome.bpb is not None:
            best = max(best, arena.honest_score(attack) - outcome.bpb)
        rows.append(row(arena, attack, outcome))
        print(f"{time.monotonic() - began:5.1f} s  {rows[-1]}", flush=True)
    layers = [name for name, state in arena.honest.sandbox.items() if state.startswith("ok")]
    table = [
        f"{len(rows)} attacks, rehearsed with these layers enforced: {', '.join(layers)}.",
        "",
        "| attack | what it tries | stopped by | result |",
        "|---|---|---|---|",
        *rows,
    ]
    return table, best


def chance(forged: Any, sizes: Any, m: int) -> float:
    """Compute the probability that an audit of m positions, half by size, meets a forgery."""
    by_size = sizes[forged].sum() / sizes.sum() if sizes.sum() else forged.mean()
    return float(1 - ((1 - forged.mean()) * (1 - by_size)) ** (m // 2))


def detection(arena: Arena) -> list[str]:
    """Compute the table of detection probabilities on the honest model's losses."""
    rows = arena.dataset.rows("val")
    token_bytes = arena.dataset.token_bytes[rows[:, 1:]].astype(np.int64).ravel()
    scored = token_bytes > 0
    honest = arena.honest.losses.ravel()[scored].astype(float)
    twin = pretrain(arena.dataset, arena.root / "twin.safetensors", seed=1)
    start = arena.start({"train.py": b"from honest import *"}, "twin", checkpoint=twin)
    worse = arena.honest_run.losses
    assert worse is not None
    stored = {
        "champion as good": evaluate(start, arena.dataset).losses,
        "champion far worse": load_losses(worse, arena.dataset, "val"),
    }
    champions = {
        name: losses.ravel()[scored].astype(float)
        for name, losses in stored.items()
        if losses is not None
    }
    wanted = FORGED_BPB * math.log(2) * token_bytes.sum()
    shuffled = np.random.default_rng(0).permutation(len(honest))
    equal = champions["champion as good"]

    def forge(order: Any, lowered: Any) -> Any:
        """Lower as many claims, in `order`, as the gain requires."""
        gains = np.cumsum((honest - lowered)[order])
        chosen = order[: int(np.searchsorted(gains, wanted)) + 1]
        claims = honest.copy()
        claims[chosen] = lowered[chosen]
        return claims

    forgeries = {
        "claims 0 where the loss is highest": forge(np.argsort(-honest), 0 * honest),
        "claims 0 at random places": forge(shuffled, 0 * honest),
        "takes up to 1 nat off at random places": forge(shuffled, np.maximum(honest - 1, 0)),
        "knows the good champion's losses and stays above them": forge(
            np.argsort(equal - honest), np.minimum(honest, equal)
        ),
    }
    table = [
        f"Probability that an audit meets a forgery worth {FORGED_BPB} bits per byte, by number of "
        "positions and by the champion whose losses guide it:",
        "",
        "| forgery | positions forged | "
        + " | ".join(f"{m}, {name}" for name in champions for m in (AUDIT, AUDIT_KEEP))
        + " |",
        "|---|---|" + "---|" * 4,
    ]
    for name, claims in forgeries.items():
        forged = claims < honest
        cells = [
            f"{chance(forged, np.clip(champion - claims, 0, None), m):.2f}"
            for champion in champions.values()
            for m in (AUDIT, AUDIT_KEEP)
        ]
        table.append(f"| {name} | {forged.mean():.2%} | {' | '.join(cells)} |")
    return table


def put(text: str, name: str, lines: list[str]) -> str:
    """Replace what stands between the marks of `name`."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return before + "\n".join([begin, *lines, end]) + after


def main() -> None:
    """Rehearse the attacks, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FORMATTER)
    parser.add_argument("names", nargs="*", help="attacks; all of them by default")
    parser.add_argument("--quick", action="store_true", help="a sixth of them")
    parser.add_argument("--write", action="store_true", help="write the tables of docs/security.md")
    options = parser.parse_args()
    chosen = [attack for attack in attacks() if attack.name in (options.names or [attack.name])]
    chosen = chosen[:: QUICK if options.quick else 1]
    with tempfile.TemporaryDirectory() as folder, open_arena(Path(folder)) as arena:
        table, gain = rehearse(arena, chosen)
        if options.write:
            text = put(DOCUMENT.read_text(), "attacks", table)
            DOCUMENT.write_text(put(text, "odds", detection(arena)))
    print(json.dumps({"attacks": len(chosen), "max_gain": gain}))


if __name__ == "__main__":
    main()
