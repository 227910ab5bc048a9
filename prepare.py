"""Data preparation (once) and the run-time utilities of a standalone ``python train.py``.

Fixed: no mutation edits this file.

    python prepare.py                                   # the standard library's source, offline
    python prepare.py --corpus climbmix --num-shards 8  # also: tinystories, wikitext-103
    python prepare.py --corpus notes/                   # your own text or parquet files

Everything lands in .autoresearch/data/<corpus> beside this file (or --out); the format and its
reader are in pytest_autoresearch/scoring/dataset.py.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import math
import os
import random
import re
import shlex
import sys
import sysconfig
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_autoresearch.experiment import Budget
from pytest_autoresearch.scoring import corpora
from pytest_autoresearch.scoring import dataset as layout
from pytest_autoresearch.scoring.corpora import Corpus, Document
from pytest_autoresearch.scoring.dataset import Dataset, DatasetError
from pytest_autoresearch.scoring.download import DownloadError, replacing

if TYPE_CHECKING:
    import torch

# ---------------------------------------------------------------------------------------------
# Constants
# ---------------------------------------------------------------------------------------------

VOCAB_SIZE = {"climbmix": 8192, "tinystories": 4096, "wikitext-103": 8192}  # others: 1024
SEQ_LEN = {"climbmix": 2048, "tinystories": 512, "wikitext-103": 1024}  # others: 64
CPU_BUDGET, CUDA_BUDGET = "600ktok", "300s"  # of a standalone `python train.py`

EVAL_BYTES = 96_000_000  # val and holdout hold at most this much text, whatever the vocabulary
MIN_ROWS = 64  # rows of seq_len tokens below which a split is too small to mean anything
SPARE_MERGES = 64
MAX_BATCH_TOKENS = 1 << 22
TOKENIZER_CHARS = 1_000_000_000  # the merges are learnt from the first so many of train
SHINGLE = 8  # words; an evaluation document that shares half of its shingles is dropped

# The split of GPT-4's tokenizer, with numbers of at most two digits for small vocabularies.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)

# Dense bf16 peak, FLOP/s, by a part of the device's name (vendor data sheets); first match counts.
PEAK_FLOPS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989.5e12, "H200": 989.5e12, "B200": 2250e12,
    "A100": 312e12, "L40S": 362e12, "L4": 121e12, "4090": 165.2e12, "3090": 71e12,
}  # fmt: skip

ROOT = Path(__file__).resolve().parent
DATA = ROOT / ".autoresearch" / "data"
STARTED = time.perf_counter()

# ---------------------------------------------------------------------------------------------
# Preparation: filter repeats, learn the merges, write the streams
# ---------------------------------------------------------------------------------------------


def shingles(text: str) -> np.ndarray[Any, np.dtype[np.uint64]]:
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

    def mark(runs: np.ndarray[Any, np.dtype[np.uint64]]) -> None:
        places = np.minimum(np.searchsorted(table, runs), len(table) - 1)
        seen[places[table[places] == runs]] = True

    for document in corpus.documents("train"):
        mark(shingles(document.text))
    dropped, leakage = [], {}
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


def train_tokenizer(corpus: Corpus, vocab_size: int) -> dict[str, Any]:
    """Learn byte-pair merges from the train split.

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
        for document in corpus.documents("train"):
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
    return {"pattern": SPLIT_PATTERN, "tokens": tokens}


def write_split(corpus: Corpus, split: str, dropped: Iterable[str], out: Path) -> dict[str, Any]:
    """Write a split's token stream.

    Returns:
        ``documents``, ``tokens`` and ``bytes`` (of text), the ``sha256`` of names and text, and,
        where the corpus must be hidden, the documents' ``names``.
    """
    encoding = layout.build_encoding(json.loads((out / layout.TOKENIZER).read_bytes()))
    separator, threads = encoding.n_vocab - 1, os.cpu_count() or 1
    text_hash, names, tokens, size = hashlib.sha256(), [], 0, 0
    documents = head(corpus, split, dropped)
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
        """The recorded result of a step, or that of `compute`, recorded."""
        if name not in self.results:
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
    journal = Journal(out / "unfinished.json", corpora.digest(request, corpus.fingerprint))
    repeats = journal.step("repeated documents", lambda: find_repeats(corpus))
    journal.step("merges", lambda: write_json(
        out / layout.TOKENIZER, train_tokenizer(corpus, vocab_size)
    ))  # fmt: skip
    splits, hidden = {}, []
    for split in ("val", "holdout", "train"):
        counts = dict(journal.step(
            f"{split}.bin", lambda split=split: write_split(corpus, split, repeats["dropped"], out)
        ))  # fmt: skip
        if (rows := (counts["tokens"] - 1) // seq_len) < MIN_ROWS:
            raise DatasetError(
                f"{split} makes {max(rows, 0)} rows of {seq_len} tokens, fewer than {MIN_ROWS}; "
                "give a larger corpus or a smaller --seq-len"
            )
        names = counts.pop("names")
        hidden += names if split != "train" else []
        splits[split] = counts
    tokens = json.loads((out / layout.TOKENIZER).read_bytes())["tokens"]
    with replacing(out / layout.TOKEN_BYTES) as file:
        file.write(np.array([*map(len, tokens), 0], "<u2").tobytes())
    files = {
        name: {"sha256": layout.file_sha256(out / name), "bytes": (out / name).stat().st_size}
        for name in layout.FILES
    }
    hashes = {name: file["sha256"] for name, file in files.items()}
    write_json(out / layout.MANIFEST, {
        "format": layout.FORMAT, "corpus": request["corpus"], "request": request,
        "python": request["python"], "vocab_size": vocab_size, "seq_len": seq_len,
        "dtype": layout.DTYPE, "created_by": command, "files": files,
        "splits": {split: splits[split] for split in layout.SPLITS},
        "hidden_sources": sorted(hidden), "skipped_files": corpus.skipped, **repeats,
        "data_sha256": layout.identity(vocab_size, seq_len, hashes),
    })  # fmt: skip
    journal.path.unlink()
    return Dataset.open(out)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time work in a folder; the lock goes with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another prepare.py is at work in {folder}; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prepared(out: Path) -> Dataset | None:
    """The whole and undamaged data set in a folder, if there is one."""
    if not (out / layout.MANIFEST).exists():
        return None
    try:
        dataset = Dataset.open(out)
        dataset.verify()
    except DatasetError as problem:
        print(f"{str(problem).split('; run:')[0]}; preparing it again", flush=True)
        return None
    return dataset


def prepare(options: argparse.Namespace, command: str) -> Dataset:
    """Make the data set that the options describe, unless it is there.

    Raises:
        DatasetError, DownloadError: If it cannot be made; one line.
        OSError: If the disk is full or the folder not writable.
    """
    name, source = options.corpus, Path(options.corpus)
    known = name in ("stdlib", *corpora.REMOTE)
    if not 257 <= options.vocab_size <= layout.MAX_VOCAB_SIZE:
        raise DatasetError(
            f"--vocab-size {options.vocab_size} is out of range: 256 bytes and a separator at "
            f"least, {layout.MAX_VOCAB_SIZE} at most (tokens are stored in 16 bits)"
        )
    if options.seq_len < 1 or options.num_shards < 1 or options.workers < 1:
        raise DatasetError("--seq-len, --num-shards and --workers must be positive")
    request: dict[str, Any] = {
        "corpus": name if known else source.resolve().name,
        "vocab_size": options.vocab_size, "seq_len": options.seq_len,
        "python": sys.version.split()[0], "pattern": SPLIT_PATTERN,
    }  # fmt: skip
    if name == "climbmix":
        request["num_shards"] = options.num_shards
    corpus = None if known else corpora.path_corpus(source)
    if corpus:
        request["source"] = corpus.fingerprint
    out = options.out or DATA / request["corpus"]
    if out.is_relative_to(DATA):
        DATA.mkdir(parents=True, exist_ok=True)
        (DATA.parent / ".gitignore").write_text("*\n")
    with locked(out):
        if (dataset := prepared(out)) and not options.force:
            if dataset.manifest.get("request") == request:
                print(f"already prepared: {out}")
                return dataset
            old = dataset.manifest.get("request", {})
            changed = [key for key in request | old if request.get(key) != old.get(key)]
            raise DatasetError(
                f"{out} holds a data set that differs in {', '.join(changed)}; "
                "choose another folder with --out, or replace it with --force"
            )
        (out / layout.MANIFEST).unlink(missing_ok=True)
        if name == "stdlib":
            corpus = corpora.stdlib_corpus(ROOT / "train.py")
        elif known:
            corpus = corpora.remote_corpus(
                name, out, options.num_shards, options.base_url, options.workers
            )
        assert corpus is not None
        return build(corpus, out, request, command)


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit status: 0, 2 after a one-line error, 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(description="Prepare a corpus and its tokenizer, once.")
    add = parser.add_argument
    add("--corpus", default="stdlib", help=f"stdlib, {', '.join(corpora.REMOTE)}, or a path")
    add("--vocab-size", type=int, help="tokens, the separator included")
    add("--seq-len", type=int, help="tokens of an evaluation row")
    add("--out", type=Path, help="folder of the data set (default: .autoresearch/data/CORPUS)")
    add("--force", action="store_true", help="replace a data set made with other settings")
    add("--num-shards", type=int, default=10, help="climbmix: training shards to download")
    add("--workers", type=int, default=8, help="parallel downloads")
    add("--base-url", help="address to download from instead of the published one")
    options = parser.parse_args(arguments)
    options.vocab_size = options.vocab_size or VOCAB_SIZE.get(options.corpus, 1024)
    options.seq_len = options.seq_len or SEQ_LEN.get(options.corpus, 64)
    kept = [argument for argument in arguments if argument != "--force"]
    started = time.perf_counter()
    try:
        dataset = prepare(options, shlex.join(["python", "prepare.py", *kept]))
    except (DatasetError, DownloadError) as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"prepare.py: {error.filename or options.corpus}: {error.strerror}; mend that (or "
            "choose another folder with --out) and run the same command again",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("prepare.py: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    for split, counts in dataset.manifest["splits"].items():
        print(
            f"{split:8} {counts['documents']:>8,} documents {counts['bytes']:>13,} bytes "
            f"{counts['tokens']:>12,} tokens {len(dataset.rows(split)):>10,} rows"
        )
    leakage = ", ".join(f"{split} {share:.1%}" for split, share in dataset.manifest["leakage"].items())
    print(f"leakage: {leakage} of {SHINGLE}-word shingles; {len(dataset.manifest['dropped'])} dropped")
    print(f"data {dataset.sha256[:12]} in {dataset.root} ({time.perf_counter() - started:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
