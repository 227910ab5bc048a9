"""Shared by the tests of data preparation: the script as a module, and small corpora."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("--vocab-size", "320", "--seq-len", "16")


def load_prepare() -> ModuleType:
    """Import the repository's prepare.py once."""
    if "prepare" not in sys.modules:
        spec = importlib.util.spec_from_file_location("prepare", ROOT / "prepare.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["prepare"] = module
        spec.loader.exec_module(module)
    return sys.modules["prepare"]


def prose(seed: int, words: int) -> str:
    """Generate text of random words; two seeds share words but no run of eight."""
    order = random.Random(seed)
    syllables = ["ka", "ro", "mi", "te", "su", "no", "la", "vé", "der", "ing", "7", "x_"]
    vocabulary = ["".join(order.choices(syllables, k=order.randint(1, 4))) for _ in range(400)]
    text = [
        order.choice(vocabulary) + order.choice([" ", " ", " ", ", ", ".\n"]) for _ in range(words)
    ]
    return "".join(text)


def write_texts(folder: Path, files: int = 60, words: int = 220) -> Path:
    """Write distinct text files, enough for every split at 16 tokens per row."""
    for index in range(files):
        path = folder / f"part{index % 3}" / f"text{index:03}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(prose(index, words), encoding="utf-8", newline="")
    return folder
