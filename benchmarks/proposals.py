"""Measure what a proposal costs as a campaign grows.

    python benchmarks/proposals.py

Composes prompts, draws lessons and asks the searches with histories of 100, 1,000 and 10,000
attempts, and prints CPU seconds for one proposal.
Prints a table and, as its last line, one JSON object: ``cpu_s`` by part and number of attempts.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pytest_autoresearch import Experiment
from pytest_autoresearch.core.proposal import Context, PastAttempt
from pytest_autoresearch.proposers.llm.prompt import compose
from pytest_autoresearch.proposers.memory import Notebook
from pytest_autoresearch.proposers.registry import create
from pytest_autoresearch.proposers.search.literals import structure
from pytest_autoresearch.source.edits import edits_between
from pytest_autoresearch.source.search_space import find, substitute

SIZES = (100, 1000, 10_000)

REPEATS = 5

NAMES = ("LR", "WD", "WARMUP", "CLIP", "INIT")

SOURCE = "".join(f"{name} = {0.01 * (i + 1):.3g}\n" for i, name in enumerate(NAMES)) + "DEPTH = 4\n"


def history_of(size: int) -> list[PastAttempt]:
    """Return a baseline and mutations of one constant each; one in twenty is kept."""
    rng = random.Random(size)
    space = {parameter.name: parameter for parameter in find(SOURCE)}
    base = PastAttempt(
        1, "baseline-1", None, "baseline", "", "", "baseline", "", 1.0, None, None, 0, 0, {},
        lambda: {"train.py": SOURCE},
    )  # fmt: skip
    history, same = [base], structure(SOURCE, space)
    for number in range(2, size + 1):
        name = rng.choice(NAMES)
        changes = {name: space[name].at(space[name].position(0.03) + rng.uniform(-4, 4))}
        text = substitute(SOURCE, space, changes)
        gain = rng.gauss(-0.01, 0.01)
        values = {key: parameter.value for key, parameter in space.items()} | changes
        history.append(
            PastAttempt(
                number, f"mutation-{number:05d}", 1, f"{name} {changes[name]}", "it may help",
                "gp", "keep" if number % 20 == 0 else "discard", "", 1.0 - gain, gain,
                gain / 0.01, 1, 1, {"changes": changes, "params": values, "structure": same},
                lambda text=text: {"train.py": text}, edits_between(SOURCE, text, "train.py"),
            )
        )  # fmt: skip
    return history


def prompts(context: Context, times: int) -> None:
    for _ in range(times):
        compose(context)


def lessons(context: Context, times: int) -> None:
    """Draw lessons from the whole history, as every tenth attempt does."""
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            Notebook(Path(folder)).lessons(context.history)


def search(name: str, context: Context, times: int) -> None:
    proposer = create(name, experiment=context.experiment, root=Path())
    for _ in range(times):
        proposer.propose(context)


def cost(part: Callable[[Context, int], None], context: Context) -> float:
    """Return CPU seconds of one proposal, without what only the first costs."""
    part(context, 1)
    started = time.process_time()
    part(context, REPEATS)
    return (time.process_time() - started) / REPEATS


def main() -> None:
    parts = {
        "prompt": prompts, "lessons": lessons, "ratchet": partial(search, "ratchet"),
        "gp": partial(search, "gp"),
    }  # fmt: skip
    print(f"| attempts | {' | '.join(parts)} |\n|{'---|' * (len(parts) + 1)}")
    result: dict[str, dict[int, float]] = {name: {} for name in parts}
    for size in SIZES:
        history = history_of(size)
        context = Context(
            Experiment(), "# lower it", size + 1, 0, history[0], {"train.py": SOURCE}, {}, history,
            history[0], 0.01,
        )  # fmt: skip
        for name, part in parts.items():
            result[name][size] = round(cost(part, context), 4)
        shown = " | ".join(f"{result[name][size]:.3f}" for name in parts)
        print(f"| {size:,} | {shown} |", flush=True)
    print(json.dumps({"cpu_s": result}))


if __name__ == "__main__":
    main()
