"""Hashes of the code and data behind a score; they are stored with it and expose tampering."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .. import __version__
from ..data.dataset import TOKEN_BYTES, TOKENIZER, Dataset, file_sha256

PACKAGE = Path(__file__).parents[1]

EVALUATOR = ("scoring/*.py", "data/dataset.py", "forkserver/channel.py")
"""Sources that decide a score: the evaluator, its data reader and its protocol."""


def evaluator_sha256(package: Path = PACKAGE) -> str:
    """Hash the names and contents of the `EVALUATOR` sources, in order of name.

    Reads the files at every call: the hash identifies the code that the next process will run.
    """
    digest = hashlib.sha256()
    for path in sorted(path for pattern in EVALUATOR for path in package.glob(pattern)):
        name = path.relative_to(package).as_posix()
        digest.update(f"{name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def score_hashes(dataset: Dataset, split: str) -> dict[str, str]:
    """Hash everything that a score on `split` depends on.

    Returns:
        ``evaluator`` (`evaluator_sha256`), ``package`` (its version), ``data`` (the data set's
        identity), and the hashes of the split, the tokenizer and the token sizes as they are on
        disk now.
    """
    return {
        "evaluator": evaluator_sha256(),
        "package": __version__,
        "data": dataset.sha256,
        **{
            name: file_sha256(dataset.root / name)
            for name in (f"{split}.bin", TOKENIZER, TOKEN_BYTES)
        },
    }
