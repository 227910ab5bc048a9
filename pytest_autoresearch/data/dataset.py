"""Format and reader of the prepared data set.

``prepare.py`` writes the folder once; everything else only reads it. Token streams are raw
little-endian ``uint16``, the rest is JSON; nothing is pickled.

A split is one stream of documents, each preceded by the separator. The separator is the last
token of the vocabulary and the only one that stands for no bytes, so it is never scored.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import tiktoken

FORMAT = 1

DTYPE = "uint16"

MAX_VOCAB_SIZE = 65_535

SPLITS = ("train", "val", "holdout")

MANIFEST = "manifest.json"

TOKENIZER = "tokenizer.json"

TOKEN_BYTES = "token_bytes.bin"

FILES = (*(f"{split}.bin" for split in SPLITS), TOKENIZER, TOKEN_BYTES)

SEPARATOR = "<|document|>"

Tokens = npt.NDArray[np.uint16]

RESERVED_TOKENS, RESERVED_SHARE = 32_768, 64
"""The end of the training split is reserved for the downstream task: at most 32,768 tokens and at
most a 64th of the split."""


class DatasetError(Exception):
    """The data set is absent, damaged or unfit; one line that names the command to run."""


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(vocab_size: int, seq_len: int, hashes: Mapping[str, str]) -> str:
    """Hash all data that a score depends on; only scores of one identity are comparable."""
    facts = [FORMAT, vocab_size, seq_len, [[name, hashes[name]] for name in FILES]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def build_encoding(tokenizer: Mapping[str, Any]) -> tiktoken.Encoding:
    """Build the encoder from the JSON of `TOKENIZER`: ``pattern`` and ``tokens``.

    The tokens are those without the separator in order of rank, their bytes decoded as Latin-1.
    """
    import tiktoken

    ranks = {text.encode("latin-1"): rank for rank, text in enumerate(tokenizer["tokens"])}
    return tiktoken.Encoding(
        "autoresearch",
        pat_str=tokenizer["pattern"],
        mergeable_ranks=ranks,
        special_tokens={SEPARATOR: len(ranks)},
    )


class Dataset:
    """A prepared data set, opened for reading with `Dataset.open`.

    Attributes:
        root: Its folder.
        manifest: The parsed manifest: corpus, Python, per-split counts, leakage.
        vocab_size: Tokens in the vocabulary, including the separator.
        seq_len: Tokens of an evaluation row.
        sha256: `identity` of tokenizer and splits; recorded with every score.
    """

    def __init__(self, root: Path, manifest: dict[str, Any]) -> None:
        self.root = root
        self.manifest = manifest
        self.vocab_size = int(manifest["vocab_size"])
        self.seq_len = int(manifest["seq_len"])
        self.sha256 = str(manifest["data_sha256"])

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> Dataset:
        """Read the manifest and check that all files exist with the right sizes.

        Raises:
            DatasetError: The folder holds no complete data set of this format, or one made from
                the standard library of another Python version.
        """
        root = Path(root)
        try:
            dataset = cls(root, json.loads((root / MANIFEST).read_bytes()))
            sizes = {name: int(dataset.manifest["files"][name]["bytes"]) for name in FILES}
            python, hidden = dataset.manifest["python"], dataset.manifest["hidden_sources"]
        except (FileNotFoundError, NotADirectoryError):
            raise DatasetError(f"no data set in {root}; run: python prepare.py") from None
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise DatasetError(
                f"{root / MANIFEST} is unreadable ({error!r}); run: python prepare.py"
            ) from None
        if dataset.manifest.get("format") != FORMAT:
            raise dataset._error(f"{root} is not in format {FORMAT}")
        for name, size in sizes.items():
            path = root / name
            actual = path.stat().st_size if path.is_file() else None
            if actual != size:
                state = "missing" if actual is None else f"{actual} bytes long instead of {size}"
                raise dataset._error(f"{path} is {state}")
        if hidden and _minor(python) != _minor(sys.version):
            raise dataset._error(
                f"{root} was made from the standard library of Python {_minor(python)}, "
                f"but this is Python {_minor(sys.version)}"
            )
        return dataset

    def verify(self) -> None:
        """Raise DatasetError unless every file's hash and the identity are the manifest's."""
        hashes = {}
        for name in FILES:
            hashes[name] = file_sha256(self.root / name)
            if hashes[name] != self.manifest["files"][name]["sha256"]:
                raise self._error(f"{self.root / name} has changed since it was prepared")
        if identity(self.vocab_size, self.seq_len, hashes) != self.sha256:
            raise self._error(f"{self.root / MANIFEST} contradicts its files")

    def tokens(self, split: str) -> np.memmap[Any, np.dtype[np.uint16]]:
        """Map the token stream of a split: (n,) uint16, read-only."""
        if split not in SPLITS:
            raise DatasetError(f"no split named {split!r}; there are {', '.join(SPLITS)}")
        return np.memmap(self.root / f"{split}.bin", dtype="<u2", mode="r")

    def training_tokens(self) -> Tokens:
        """Return the stream of ``train`` without its reserved end."""
        stream = self.tokens("train")
        return stream[: len(stream) - self._reserved(stream)]

    def reserved_tokens(self) -> Tokens:
        """Return the end of ``train``, which no training receives."""
        stream = self.tokens("train")
        return stream[len(stream) - self._reserved(stream) :]

    @staticmethod
    def _reserved(stream: Tokens) -> int:
        return min(RESERVED_TOKENS, len(stream) // RESERVED_SHARE)

    def rows(self, split: str) -> Tokens:
        """Return the evaluation rows of a split: (n, seq_len + 1) uint16, a read-only view.

        Row i is ``tokens[i*T : i*T+T+1]`` with T = `seq_len` and n = (len - 1) // T: inputs are
        ``row[:-1]``, targets ``row[1:]``; every token that fills a row is a target once.
        """
        stream = self.tokens(split)
        n = (len(stream) - 1) // self.seq_len
        windows = np.lib.stride_tricks.sliding_window_view(stream, self.seq_len + 1)
        rows: Tokens = windows[:: self.seq_len][:n]
        return rows

    @property
    def token_bytes(self) -> Tokens:
        """Number of bytes of each token: (vocab_size,) uint16; 0 for the separator only."""
        return np.fromfile(self.root / TOKEN_BYTES, dtype="<u2")

    def encoding(self) -> tiktoken.Encoding:
        """Load the encoder of the streams; its ``encode_ordinary`` never yields the separator."""
        try:
            return build_encoding(json.loads((self.root / TOKENIZER).read_bytes()))
        except (OSError, KeyError, ValueError) as error:
            raise self._error(f"{self.root / TOKENIZER} is unreadable ({error!r})") from None

    def hidden_paths(self) -> tuple[Path, ...]:
        """List the files of this machine that contain val and holdout text, for the library corpus.

        These are absolute paths of each hidden module's source (under both names where the
        library's folder is a link) and its ``.pyc`` at every optimisation level.
        """
        library = Path(sysconfig.get_path("stdlib"))
        paths: dict[Path, None] = {}
        for name in self.manifest["hidden_sources"]:
            for source in (library / name, (library / name).resolve()):
                paths[source] = None
                for level in ("", "1", "2"):
                    cached = importlib.util.cache_from_source(str(source), optimization=level)
                    paths[Path(cached)] = None
                paths[source.with_suffix(".pyc")] = None
        return tuple(paths)

    def _error(self, problem: str) -> DatasetError:
        command = self.manifest.get("created_by", "python prepare.py")
        return DatasetError(f"{problem}; run: {command}")


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
