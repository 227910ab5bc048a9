"""The data set's writer: drops repeats, learns the merges, encodes the streams.

The counterpart of `dataset`, which reads what this writes. Every step is recorded when it is
done and every file appears all at once, so an interrupted preparation goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
import sysconfig
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import dataset
from .corpora import Corpus, Document, digest
from .dataset import Dataset, DatasetError
from .download import replacing

EVAL_BYTES = 96_000_000  # val and holdout hold at most this much text, whatever the vocabulary

MIN_ROWS = 64  # rows of seq_len tokens below which a split is too small to mean anything

TOKENIZER_CHARS = 1_000_000_000  # the merges are learnt from the first so many of train

SPARE_MERGES = 64

SHINGLE = 8  # words; an evaluation document that shares half of its shingles is dropped

# The split of GPT-4's tokenizer, with numbers of at most two digits for small vocabularies.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)


def shingles(text: str) -> npt.NDArray[np.uint64]:
    """64-bit hashes of every run of `SHINGLE` words, in order (Broder 1997, unsampled)."""
    words = np.array([zlib.crc32(word.encode()) for word in re.findall(r"\w+", text)], np.uint64)
    runs = np.zeros(max(0, len(words) - SHINGLE + 1), np.uint64)
    for place in range(SHINGLE):
        runs = runs * np.uint64(0x9E3779B97F4A7C15) + words[place : place + len(runs)]
    return runs


def find_repeats(corpus: Corpus) -> dict[str, Any]:
    """Which evaluation documents repeat train (holdout: or val), and what is left of that.

    Returns:
        ``dropped``: names of documents more than half of whose shingles stand elsewhere;
        ``leakage``: split to the share of the kept documents' shingles that still do.
    """
    held = {s: {d.name: shingles(d.text) for d in head(corpus, s)} for s in ("val", "holdout")}
    table = np.unique(np.concatenate([np.zeros(1, np.uint64), *held["val"].values(),
                                      *held["holdout"].values()]))  # fmt: skip
    seen = np.zeros(len(table), bool)

    def mark(runs: npt.NDArray[np.uint64]) -> None:
        places = np.minimum(np.searchsorted(table, runs), len(table) - 1)
        seen[places[table[places] == runs]] = True

    for document in shown(corpus.documents("train"), "looking for repeats"):
        mark(shingles(document.text))
    dropped: list[str] = []
    leakage: dict[str, float] = {}
    for split, documents in held.items():
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
    """The documents of a split; of val and holdout no more than `EVAL_BYTES`."""
    left, out = EVAL_BYTES if split != "train" else math.inf, frozenset(dropped)
    for document in corpus.documents(split):
        left -= len(document.text.encode())
        if left < 0:
            return
        if document.name not in out:
            yield document


def shown(documents: Iterator[Document], doing: str) -> Iterator[Document]:
    """Pass documents through; on a terminal, count them meanwhile."""
    if not sys.stdout.isatty():
        return documents
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    def counted() -> Iterator[Document]:
        columns = TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, transient=True) as progress:
            yield from progress.track(documents, description=doing)

    return counted()


def train_tokenizer(corpus: Corpus, vocab_size: int, out: Path) -> None:
    """Learn byte-pair merges from the train split and write them.

    Raises:
        DatasetError: If rustbpe is missing, or the text has too few distinct pairs.
    """
    try:
        import rustbpe
    except ImportError:
        version = sysconfig.get_python_version()
        raise DatasetError(
            f"rustbpe is not installed for Python {version}; run: pip install rustbpe "
            "(it has wheels for Python 3.10 to 3.14, elsewhere it needs a Rust compiler)"
        ) from None

    def texts() -> Iterator[str]:
        left = TOKENIZER_CHARS
        for document in shown(corpus.documents("train"), "learning the merges"):
            yield document.text[:left]
            left -= len(document.text)
            if left <= 0:
                return

    # Two merges may spell the same bytes; a few spare ones make up for what uniqueness costs.
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
    """Write a split's token stream.

    Returns:
        ``documents``, ``tokens`` and ``bytes`` (of text), the ``sha256`` of names and text, and,
        where the corpus must be hidden, the documents' ``names``.
    """
    encoding = dataset.build_encoding(json.loads((out / dataset.TOKENIZER).read_bytes()))
    separator, threads = encoding.n_vocab - 1, os.cpu_count() or 1
    text_hash, names, tokens, size = hashlib.sha256(), [], 0, 0
    documents = shown(head(corpus, split, dropped), f"writing {split}.bin")
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
    """Results of the finished steps of a preparation: an interrupted one goes on from there."""

    def __init__(self, path: Path, task: str) -> None:
        self.path, self.task = path, task
        saved = json.loads(path.read_bytes()) if path.is_file() else {}
        self.results: dict[str, Any] = saved["results"] if saved.get("task") == task else {}

    def step(self, name: str, compute: Callable[[], Any]) -> Any:
        """The recorded result of a step, or that of `compute`, recorded.

        A step named like a file makes that file; it is done again if the file is gone.
        """
        gone = name in dataset.FILES and not (self.path.parent / name).is_file()
        if gone or name not in self.results:
            started = time.perf_counter()
            self.results[name] = compute()
            write_json(self.path, {"task": self.task, "results": self.results})
            print(f"{name}: {time.perf_counter() - started:.1f} s", flush=True)
        return self.results[name]


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file all at once."""
    with replacing(path) as file:
        file.write(json.dumps(value, indent=1).encode())


def build(corpus: Corpus, out: Path, request: dict[str, Any], command: str) -> Dataset:
    """Carry out every step that is not done yet; the manifest comes last.

    Raises:
        DatasetError: If the corpus is too small or too uniform for what is asked.
    """
    vocab_size, seq_len = request["vocab_size"], request["seq_len"]
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
                f"{split} makes {max(rows, 0)} rows of {seq_len} tokens, fewer than {MIN_ROWS}; "
                "give a larger corpus or a smaller --seq-len"
            )
        names = counts.pop("names")
        hidden += names if split != "train" else []
        splits[split] = counts
    tokens = json.loads((out / dataset.TOKENIZER).read_bytes())["tokens"]
    with replacing(out / dataset.TOKEN_BYTES) as file:
        file.write(np.array([*map(len, tokens), 0], "<u2").tobytes())
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
