"""Rehearse every attack and write what stopped it into ``docs/security.md``.

python tests/attacks/table.py           # rewrite the table
python tests/attacks/table.py NAME ...  # only show what comes of some attacks
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from attacks.arena import Arena, Attack, Outcome, attacks, open_arena

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- attacks: begin -->", "<!-- attacks: end -->"


def row(attack: Attack, outcome: Outcome) -> str:
    """One line of the table."""
    trick = attack.trick[0].upper() + attack.trick[1:]
    result = f"**{outcome.verdict}**: {outcome.reason}"
    if outcome.verdict == "ok":
        result = "no effect: the honest score" if attack.expected == "harmless" else "**SCORED**"
    cells = (f"`{attack.name}`", trick, outcome.layer or attack.layer, result)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def rehearse(arena: Arena, chosen: list[Attack]) -> list[str]:
    """Rows of the attacks; each is shown as it is done."""
    rows = []
    for attack in chosen:
        began = time.monotonic()
        outcome = arena.rehearse(attack)
        rows.append(row(attack, outcome))
        print(f"{time.monotonic() - began:5.1f} s  {rows[-1]}", flush=True)
    return rows


def main(names: list[str]) -> int:
    """Returns 1 if an attack came to something that it should not."""
    chosen = [attack for attack in attacks() if not names or attack.name in names]
    with tempfile.TemporaryDirectory() as folder, open_arena(Path(folder)) as arena:
        rows = rehearse(arena, chosen)
        layers = arena.honest.sandbox
    if names:
        return 0
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    enforced = ", ".join(name for name, state in layers.items() if state.startswith("ok"))
    table = [
        f"{len(rows)} attacks, rehearsed with these layers enforced: {enforced}.",
        "",
        "| attack | what it tries | stopped by | what came of it |",
        "|---|---|---|---|",
        *rows,
    ]
    DOCUMENT.write_text(f"{before}{BEGIN}\n" + "\n".join(table) + f"\n{END}{after}")
    return int(any("**SCORED**" in line for line in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
