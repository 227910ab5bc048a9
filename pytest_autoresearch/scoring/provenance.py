"""Who computed a score, from what: hashes that go with every score and make tampering evident."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .. import __version__
from ..data.dataset import TOKEN_BYTES, TOKENIZER, Dataset, file_sha256


def evaluator_sha256() -> str:
    """Sha256 over the names and contents of this package's sources, in order of name.

    Read from disk at every call, so it tells what the next process would run.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(f"{path.name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def score_hashes(dataset: Dataset, split: str) -> dict[str, str]:
    """Identities behind a score on `split`.

    Returns:
        ``evaluator`` (the scoring package's sources), ``package`` (its version), ``data`` (the
        data set's identity) and, taken now from the very files that are scored with, the hashes
        of the split, of the tokenizer and of the bytes each token stands for.
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
