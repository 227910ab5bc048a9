"""The prepared data set: what is on disk, and its reader.

``prepare.py`` writes the folder once, everything else only reads it. Nothing is pickled: token
streams are raw little-endian ``uint16``, the rest is JSON. Every fact of the format stands here.

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
"""End of the training split that is kept for the downstream task: at most so many tokens, and at
most a 64th of it."""


class DatasetError(Exception):
    """The data set is absent, damaged or unfit; one line that names the command that mends it."""


def file_sha256(path: Path) -> str:
    """Sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(vocab_size: int, seq_len: int, hashes: Mapping[str, str]) -> str:
    """Hash of all that a score depends on: scores under different identities never compare.

    Args:
        vocab_size: Tokens in the vocabulary, the separator included.
        seq_len: Tokens of an evaluation row.
        hashes: File name to sha256, for every name in `FILES`.
    """
    facts = [FORMAT, vocab_size, seq_len, [[name, hashes[name]] for name in FILES]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def build_encoding(tokenizer: Mapping[str, Any]) -> tiktoken.Encoding:
    """Make an encoder of the JSON that `TOKENIZER` holds (nothing is downloaded).

    Args:
        tokenizer: ``pattern`` (the split regex) and ``tokens``: every token but the separator in
            order of rank, its bytes written as the Latin-1 characters of the same value.
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
    """A prepared data set, opened for reading; make one with `Dataset.open`.

    Attributes:
        root: Its folder.
        manifest: The parsed manifest: corpus, Python, per-split counts, leakage.
        vocab_size: Tokens in the vocabulary, the separator included.
        seq_len: Tokens of an evaluation row.
        sha256: `identity` of corpus, tokenizer and splits; recorded with every score.
    """

    def __init__(self, root: Path, manifest: dict[str, Any]) -> None:
        self.root = root
        self.manifest = manifest
        self.vocab_size = int(manifest["vocab_size"])
        self.seq_len = int(manifest["seq_len"])
        self.sha256 = str(manifest["data_sha256"])

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> Dataset:
        """Read the manifest and check existence and sizes; hashes are left to `verify`.

        Raises:
            DatasetError: If the folder holds no complete data set of this format, or one made of
                the library of another Python than the running one.
        """
        root = Path(root)
        try:
            dataset = cls(root, json.loads((root / MANIFEST).read_bytes()))
            sizes = {name: int(dataset.manifest["files"][name]["bytes"]) for name in FILES}
            made_by, hidden = dataset.manifest["python"], dataset.manifest["hidden_sources"]
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
        if hidden and _minor(made_by) != _minor(sys.version):
            raise dataset._error(
                f"{root} was made of the library of Python {_minor(made_by)}, "
                f"this is {_minor(sys.version)}"
            )
        return dataset

    def verify(self) -> None:
        """Compare every file, and the identity, with the manifest's hashes.

        Raises:
            DatasetError: On the first difference.
        """
        hashes = {}
        for name in FILES:
            hashes[name] = file_sha256(self.root / name)
            if hashes[name] != self.manifest["files"][name]["sha256"]:
                raise self._error(f"{self.root / name} has changed since it was prepared")
        if identity(self.vocab_size, self.seq_len, hashes) != self.sha256:
            raise self._error(f"{self.root / MANIFEST} contradicts its files")

    def hashes(self) -> dict[str, str]:
        """Hashes to record with a score: ``data`` (the identity) and one per file name."""
        files = self.manifest["files"]
        return {"data": self.sha256, **{name: str(files[name]["sha256"]) for name in FILES}}

    def tokens(self, split: str) -> np.memmap[Any, np.dtype[np.uint16]]:
        """The whole stream of ``train``, ``val`` or ``holdout``: (n,) uint16, read-only."""
        if split not in SPLITS:
            raise DatasetError(f"no split named {split!r}; there are {', '.join(SPLITS)}")
        return np.memmap(self.root / f"{split}.bin", dtype="<u2", mode="r")

    def training_tokens(self) -> Tokens:
        """What candidates are trained on: ``train`` without its reserved end."""
        stream = self.tokens("train")
        return stream[: len(stream) - self._reserved(stream)]

    def reserved_tokens(self) -> Tokens:
        """The end of ``train`` that no candidate is handed."""
        stream = self.tokens("train")
        return stream[len(stream) - self._reserved(stream) :]

    @staticmethod
    def _reserved(stream: Tokens) -> int:
        return min(RESERVED_TOKENS, len(stream) // RESERVED_SHARE)

    def rows(self, split: str) -> Tokens:
        """Evaluation rows of a split: (n, seq_len + 1) uint16, a read-only view.

        Row i is ``tokens[i*T : i*T+T+1]`` with T = `seq_len` and n = (len - 1) // T: inputs are
        ``row[:-1]``, targets ``row[1:]``, and every token but the first is a target once.
        """
        stream = self.tokens(split)
        n = (len(stream) - 1) // self.seq_len
        windows = np.lib.stride_tricks.sliding_window_view(stream, self.seq_len + 1)
        rows: Tokens = windows[:: self.seq_len][:n]
        return rows

    @property
    def token_bytes(self) -> Tokens:
        """Bytes each token stands for: (vocab_size,) uint16; 0 for the separator only."""
        return np.fromfile(self.root / TOKEN_BYTES, dtype="<u2")

    def encoding(self) -> tiktoken.Encoding:
        """The encoder the streams were made with; ``encode_ordinary`` never gives the separator.

        Raises:
            DatasetError: If the tokenizer's file cannot be read.
        """
        try:
            return build_encoding(json.loads((self.root / TOKENIZER).read_bytes()))
        except (OSError, KeyError, ValueError) as error:
            raise self._error(f"{self.root / TOKENIZER} is unreadable ({error!r})") from None

    def hidden_paths(self) -> tuple[Path, ...]:
        """Files on this machine that hold the text of val and holdout; a trial must not read them.

        Returns:
            Absolute paths: each hidden module's source (under both names where the library's
            folder is a link) and its ``.pyc`` at every optimisation level, which need not exist.
            Empty for corpora that are not the standard library.
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
