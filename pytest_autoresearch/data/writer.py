"""Writer of the prepared data set: drop repeats, train the tokenizer, encode the splits.

Each finished step is recorded and every file is written atomically, so an interrupted preparation
resumes at the first unfinished step.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.files import replacing, write_atomic
from . import dataset
from .corpora import Corpus, Document, digest
from .dataset import Dataset, DatasetError

EVAL_BYTES = 96_000_000  # upper bound of the text of val and of holdout

MIN_ROWS = 64  # a split with fewer rows of seq_len tokens is refused

TOKENIZER_CHARS = 1_000_000_000  # the tokenizer is trained on the first so many of train

SPARE_MERGES = 64

SHINGLE = 8  # words; an evaluation document that shares more than half of them is dropped

# The pattern of GPT-4's tokenizer, with numbers of at most two digits for small vocabularies.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)


def shingles(text: str) -> npt.NDArray[np.uint64]:
    """Hash every run of `SHINGLE` words to 64 bits, in order (Broder 1997, unsampled)."""
    words = np.array([zlib.crc32(word.encode()) for word in re.findall(r"\w+", text)], np.uint64)
    runs = np.zeros(max(0, len(words) - SHINGLE + 1), np.uint64)
    for place in range(SHINGLE):
        runs = runs * np.uint64(0x9E3779B97F4A7C15) + words[place : place + len(runs)]
    return runs


def find_repeats(corpus: Corpus) -> dict[str, Any]:
    """Find val documents that repeat train, and holdout documents that repeat train or val.

    Returns:
        ``dropped``: names of documents with more than half of their shingles found elsewhere;
        ``leakage``: split to the share of such shingles in the documents that are kept.
    """
    held_out = {
        split: {document.name: shingles(document.text) for document in head(corpus, split)}
        for split in ("val", "holdout")
    }
    runs_by_split = (runs for documents in held_out.values() for runs in documents.values())
    table = np.unique(np.concatenate([np.zeros(1, np.uint64), *runs_by_split]))
    seen = np.zeros(len(table), bool)

    def mark(runs: npt.NDArray[np.uint64]) -> None:
        places = np.minimum(np.searchsorted(table, runs), len(table) - 1)
        seen[places[table[places] == runs]] = True

    for document in with_progress(corpus.documents("train"), "looking for repeats"):
        mark(shingles(document.text))
    dropped: list[str] = []
    leakage: dict[str, float] = {}
    for split, documents in held_out.items():
        shared = {name: seen[np.searchsorted(table, runs)] for name, runs in documents.items()}
        repeats = [name for name, hits in shared.items() if 2 * hits.sum() > max(1, len(hits))]
        kept = [name for name in documents if name not in set(repeats)]
        total = sum(len(shared[name]) for name in kept)
        leakage[split] = round(sum(int(shared[name].sum()) for name in kept) / max(1, total), 5)
        dropped += repeats
        for name in kept:
            mark(documents[name])
    return {"dropped": dropped, "leakage": leakage}


def head(corpus: Corpus, split: str, dropped: Iterable[str] = ()) -> Iterator[Document]:
    """Yield the documents of a split except `dropped`; of val and holdout up to `EVAL_BYTES`."""
    budget, excluded = EVAL_BYTES if split != "train" else math.inf, frozenset(dropped)
    for document in corpus.documents(split):
        budget -= len(document.text.encode())
        if budget < 0:
            return
        if document.name not in excluded:
            yield document


def with_progress(documents: Iterator[Document], step: str) -> Iterator[Document]:
    """Pass documents through and count them on a terminal."""
    if not sys.stdout.isatty():
        yield from documents
        return
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, transient=True) as progress:
        yield from progress.track(documents, description=step)


def train_tokenizer(corpus: Corpus, vocab_size: int, out: Path) -> None:
    """Learn byte-pair merges from the train split and write the tokenizer's file."""
    try:
        import rustbpe
    except ImportError:
        raise DatasetError(
            "training the tokenizer needs rustbpe; run: pip install 'pytest-autoresearch[gpt]' "
            "(outside Python 3.10 to 3.14 this needs a Rust compiler)"
        ) from None

    def texts() -> Iterator[str]:
        budget = TOKENIZER_CHARS
        for document in with_progress(corpus.documents("train"), "training the tokenizer"):
            yield document.text[:budget]
            budget -= len(document.text)
            if budget <= 0:
                return

    # Two merges may yield the same bytes; spare merges replace the duplicates.
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(texts(), vocab_size + SPARE_MERGES, pattern=SPLIT_PATTERN)
    ranked = sorted((rank, bytes(token)) for token, rank in tokenizer.get_mergeable_ranks())
    tokens = list(dict.fromkeys(token.decode("latin-1") for _, token in ranked))[: vocab_size - 1]
    if len(tokens) < vocab_size - 1:
        raise DatasetError(
            f"the training text yields only {len(tokens) + 1} of {vocab_size} tokens; "
            f"give more text or --vocab-size {len(tokens) + 1}"
        )
    write_json(out / dataset.TOKENIZER, {"pattern": SPLIT_PATTERN, "tokens": tokens})


def write_split(corpus: Corpus, split: str, dropped: Iterable[str], out: Path) -> dict[str, Any]:
    """Write the token stream of a split.

    Returns:
        ``documents``, ``tokens`` and ``bytes`` (of text), the ``sha256`` of names and text, and,
        if the corpus is hidden from trainings, the documents' ``names``.
    """
    encoding = dataset.build_encoding(json.loads((out / dataset.TOKENIZER).read_bytes()))
    separator, threads = encoding.n_vocab - 1, os.cpu_count() or 1
    text_hash, names, tokens, size = hashlib.sha256(), [], 0, 0
    documents = with_progress(head(corpus, split, dropped), f"writing {split}.bin")
    with replacing(out / f"{split}.bin") as file:
        while batch := list(islice(documents, 64)):
            texts = [document.text for document in batch]
            encoded = encoding.encode_ordinary_batch(texts, num_threads=threads)
            for document, ids in zip(batch, encoded, strict=True):
                file.write(np.array([separator, *ids], "<u2").tobytes())
                data = document.text.encode()
                text_hash.update(json.dumps([document.name, len(data)]).encode() + data)
                names.append(document.name)
                tokens, size = tokens + 1 + len(ids), size + len(data)
    return {
        "documents": len(names), "tokens": tokens, "bytes": size,
        "sha256": text_hash.hexdigest(), "names": names if corpus.hide else [],
    }  # fmt: skip


class Journal:
    """Results of the finished steps of a preparation, so that it can be resumed."""

    def __init__(self, path: Path, task: str) -> None:
        self.path, self.task = path, task
        saved = json.loads(path.read_bytes()) if path.is_file() else {}
        self.results: dict[str, Any] = saved["results"] if saved.get("task") == task else {}

    def step(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return the recorded result of a step, or compute and record it.

        A step named after a file writes that file; it is repeated if the file is missing.
        """
        missing = name in dataset.FILES and not (self.path.parent / name).is_file()
        if missing or name not in self.results:
            started = time.perf_counter()
            self.results[name] = compute()
            write_json(self.path, {"task": self.task, "results": self.results})
            print(f"{name}: {time.perf_counter() - started:.1f} s", flush=True)
        return self.results[name]


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file atomically."""
    write_atomic(path, json.dumps(value, indent=1))


def build(corpus: Corpus, out: Path, request: dict[str, Any], command: str) -> Dataset:
    """Write a data set, or the steps of it that are missing; the manifest is written last.

    Args:
        corpus: Documents of all splits.
        out: Folder of the data set.
        request: ``corpus``, ``vocab_size``, ``seq_len`` and what else the user chose.
        command: Command line that recreates the data set, for error messages.

    Raises:
        DatasetError: The corpus is too small or too uniform for the request.
    """
    vocab_size, seq_len = request["vocab_size"], request["seq_len"]
    for leftover in out.glob(".*.tmp"):  # of a killed process
        leftover.unlink()
    journal = Journal(out / "unfinished.json", digest(request, corpus.fingerprint, SPLIT_PATTERN))
    repeats = journal.step("repeated documents", lambda: find_repeats(corpus))
    journal.step(dataset.TOKENIZER, lambda: train_tokenizer(corpus, vocab_size, out))
    splits: dict[str, Any] = {}
    hidden: list[str] = []
    for split in ("val", "holdout", "train"):
        write = partial(write_split, corpus, split, repeats["dropped"], out)
        counts = dict(journal.step(f"{split}.bin", write))
        if (rows := (counts["tokens"] - 1) // seq_len) < MIN_ROWS:
            raise DatasetError(
                f"{split} has {max(rows, 0)} rows of {seq_len} tokens, fewer than {MIN_ROWS}; "
                "give a larger corpus or a smaller --seq-len"
            )
        names = counts.pop("names")
        hidden += names if split != "train" else []
        splits[split] = counts
    tokens = json.loads((out / dataset.TOKENIZER).read_bytes())["tokens"]
    write_atomic(out / dataset.TOKEN_BYTES, np.array([*map(len, tokens), 0], "<u2").tobytes())
    hashes = {name: dataset.file_sha256(out / name) for name in dataset.FILES}
    files = {
        name: {"sha256": hashes[name], "bytes": (out / name).stat().st_size}
        for name in dataset.FILES
    }
    write_json(out / dataset.MANIFEST, {
        "format": dataset.FORMAT, "corpus": request["corpus"], "request": request,
        "python": sys.version.split()[0], "vocab_size": vocab_size, "seq_len": seq_len,
        "dtype": dataset.DTYPE, "created_by": command, "files": files,
        "splits": {split: splits[split] for split in dataset.SPLITS},
        "hidden_sources": sorted(hidden), "skipped_files": corpus.skipped, **repeats,
        "data_sha256": dataset.identity(vocab_size, seq_len, hashes),
    })  # fmt: skip
    journal.path.unlink()
    return Dataset.open(out)
