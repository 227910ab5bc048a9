"""Where documents come from, and which split each belongs to.

A corpus is an iterator of documents for each of train, val and holdout: the running Python's own
library (the default, offline), text or parquet files of one's own, or a published data set.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .dataset import DatasetError
from .download import download_all

REMOTE = ("climbmix", "tinystories", "wikitext-103")

EVAL_SHARE = 1 / 17  # of the bytes, for val and again for holdout

FEW_FILES = 40  # a collection of fewer text files is split by pieces, not by files

PIECE_CHARS = 4096

HUB = "https://huggingface.co/datasets"


@dataclass(frozen=True)
class Document:
    """A text and the name it is known by in the split."""

    name: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Documents by split, in a fixed order.

    Attributes:
        documents: Split to its documents, anew at each call.
        fingerprint: Changes when the documents may have.
        hide: Whether val and holdout are files of this machine that trials must not read.
        skipped: Files left out because they are not UTF-8 text.
    """

    documents: Callable[[str], Iterator[Document]]
    fingerprint: str
    hide: bool = False
    skipped: int = 0


def digest(*parts: object) -> str:
    """Sha256 over the JSON of `parts`."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def split_of(name: str) -> str:
    """The split a document falls into by its name alone."""
    place = int(digest(name)[:8], 16) / 16**8
    return "val" if place < EVAL_SHARE else "holdout" if place < 2 * EVAL_SHARE else "train"


def split_files(sizes: Mapping[str, int], eligible: Iterable[str]) -> dict[str, list[str]]:
    """Split by file: in the order of the names' hashes, what fits fills val, then holdout.

    Args:
        sizes: Name to bytes.
        eligible: Names that may go to val and holdout.

    Returns:
        Split to names; the same for the same names and sizes, in whatever order they come.
    """
    target = sum(sizes.values()) * EVAL_SHARE
    candidates, left = set(eligible), sorted(sizes, key=digest)
    splits: dict[str, list[str]] = {}
    for split in ("val", "holdout"):
        taken, filled = [], 0
        for name in left:
            fits = filled < 0.95 * target and filled + sizes[name] <= 1.05 * target
            if fits and name in candidates:
                taken.append(name)
                filled += sizes[name]
        left = [name for name in left if name not in set(taken)]
        splits[split] = taken
    return splits | {"train": left}


def file_corpus(paths: Mapping[str, Path], eligible: Iterable[str], hide: bool) -> Corpus:
    """One document a file, split by file."""
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    splits = split_files(sizes, eligible)

    def documents(split: str) -> Iterator[Document]:
        for name in splits[split]:
            yield Document(name, paths[name].read_bytes().decode())

    return Corpus(documents, digest(sizes, splits), hide)


def is_text(path: Path) -> bool:
    """Whether a file is UTF-8 text without NUL."""
    data = path.read_bytes()
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


# --- the standard library ---

SKIPPED_FOLDERS = frozenset((
    "test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data", "turtledemo", "ensurepip",
    "site-packages", "dist-packages", "__pycache__",
))  # fmt: skip

# Needed by trainers that were not written yet, imported late, or copied into other packages.
NEVER_HIDDEN = frozenset((
    "asyncio", "collections", "concurrent", "ctypes", "distutils", "email", "importlib", "json",
    "logging", "multiprocessing", "unittest", "zoneinfo", "_strptime", "_threading_local",
    "_py_abc", "antigravity", "this", "__hello__", "__phello__", "csv", "decimal", "fractions",
    "statistics", "timeit", "profile", "cProfile", "pstats", "sched", "tracemalloc", "imp",
    "py_compile", "plistlib",
))  # fmt: skip

TRAINER_IMPORTS = (
    "torch", "torch._dynamo", "torch._inductor", "torch.utils.data", "torch.profiler",
    "torch.distributed", "numpy", "safetensors.torch", "multiprocessing", "socket", "struct",
    "json", "array", "mmap", "importlib.util", "ctypes", "resource", "signal", "random",
    "pytest_autoresearch.forkserver.server", "pytest_autoresearch.training.worker",
)  # fmt: skip

IMPORT_LINE = re.compile(r"^[ \t]*(?:from|import)[ \t]+([A-Za-z_][\w.]*)", re.MULTILINE)

LIST_IMPORTS = """
import importlib, json, os, sys
for name in json.loads(sys.stdin.read()):
    try:
        importlib.import_module(name)
    except Exception:
        if name == "torch":
            raise
files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
print(json.dumps([os.path.realpath(file) for file in files if file]))
"""


def library_sources(library: Path) -> Iterator[Path]:
    """Sources of a library folder, less the folders that are no corpus."""
    for folder, folders, files in os.walk(library):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        paths = (Path(folder, name) for name in files if name.endswith(".py"))
        yield from (path for path in paths if is_text(path))


def loaded_files(names: Sequence[str]) -> set[Path]:
    """Files of all modules in a fresh process that imports `names` (torch, and what it can)."""
    with tempfile.TemporaryDirectory() as empty:
        result = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", LIST_IMPORTS],
            input=json.dumps(names), capture_output=True, text=True, cwd=empty, check=False,
        )  # fmt: skip
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise DatasetError(f"torch cannot be imported ({reason}); run: pip install torch")
    return {Path(file) for file in json.loads(result.stdout.splitlines()[-1])}


def package_sources(package: str) -> Iterator[Path]:
    """Sources of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        yield from Path(folder).rglob("*.py")


def imported_names(trainer: Path) -> set[str]:
    """Modules that a trainer's file names in its import statements, at any depth."""
    nodes = list(ast.walk(ast.parse(trainer.read_text()))) if trainer.is_file() else []
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module
    }


def stdlib_corpus(trainer: Path) -> Corpus:
    """The running Python's library, without tests, tables and generated files.

    Val and holdout come from modules that neither torch, numpy, safetensors nor the trainer
    imports, be it inside a function: the sandbox can hide them and training still works.
    """
    library = Path(sysconfig.get_path("stdlib")).resolve()
    paths = {
        path.relative_to(library).as_posix(): path
        for path in library_sources(library)
        if not path.relative_to(library).as_posix().startswith(("config-", "_sysconfigdata"))
    }
    mentioned = imported_names(trainer)
    for package in ("torch", "numpy", "safetensors"):
        for source in package_sources(package):
            mentioned.update(IMPORT_LINE.findall(source.read_text(errors="replace")))
    needless = SKIPPED_FOLDERS | {"antigravity", "this", "__main__"}
    library_names = sys.stdlib_module_names - needless
    late = sorted(name for name in mentioned if name.split(".")[0] in library_names)
    needed = loaded_files([*TRAINER_IMPORTS, *late])
    free = [
        name for name, path in paths.items()
        if path not in needed and name.removesuffix(".py").split("/")[0] not in NEVER_HIDDEN
    ]  # fmt: skip
    return file_corpus(paths, free, hide=True)


# --- text and parquet of one's own ---


def parquet_texts(path: Path) -> Iterator[str]:
    """The ``text`` column of a parquet file, row by row."""
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise DatasetError(
            f"reading {path.name} needs pyarrow; run: pip install pyarrow "
            "(or: pip install 'pytest-autoresearch[data]')"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            if "text" not in file.schema_arrow.names:
                raise DatasetError(f"{path} has no column `text`; give parquet files that have one")
            for batch in file.iter_batches(columns=["text"], batch_size=256):
                yield from (text for text in batch.column(0).to_pylist() if text)
    except ArrowInvalid as error:
        raise DatasetError(
            f"{path} is no parquet file ({error}); delete it and try again"
        ) from None


def pieces(path: Path) -> Iterator[str]:
    """A text file cut at line ends into pieces of at least `PIECE_CHARS` (the last: any size)."""
    piece: list[str] = []
    length = 0
    with path.open(encoding="utf-8", newline="") as file:
        for line in file:
            piece.append(line)
            length += len(line)
            if length >= PIECE_CHARS:
                yield "".join(piece)
                piece, length = [], 0
    if piece:
        yield "".join(piece)


def path_corpus(source: Path) -> Corpus:
    """A file or folder: text files split by file, few text files by pieces, parquet by row."""
    if not source.exists():
        raise DatasetError(
            f"no corpus named {source}: it is neither a path nor one of stdlib, {', '.join(REMOTE)}"
        )
    found = [source] if source.is_file() else sorted(source.rglob("*"))
    base = source.parent if source.is_file() else source
    named = {path.relative_to(base).as_posix(): path for path in found if path.is_file()}
    named = {
        name: path for name, path in named.items()
        if path.stat().st_size
        and not any(part[0] == "." or part == "__pycache__" for part in Path(name).parts)
    }  # fmt: skip
    tables = {name: path for name, path in named.items() if path.suffix == ".parquet"}
    texts = {name: path for name, path in named.items() if name not in tables and is_text(path)}
    skipped = len(named) - len(tables) - len(texts)
    by_file = len(texts) >= FEW_FILES
    whole = file_corpus(texts if by_file else {}, texts, hide=False)
    parts = tables if by_file else tables | texts

    def documents(split: str) -> Iterator[Document]:
        yield from whole.documents(split)
        for name in sorted(parts):
            rows = parquet_texts(tables[name]) if name in tables else pieces(texts[name])
            for index, text in enumerate(rows):
                if split_of(f"{name}#{index}") == split:
                    yield Document(f"{name}#{index}", text)

    stats = {name: [path.stat().st_size, path.stat().st_mtime_ns] for name, path in named.items()}
    return Corpus(documents, digest(stats), skipped=skipped)


# --- downloads ---


def articles(lines: Iterable[str]) -> Iterator[str]:
    """Wikitext's lines joined to articles, which start at a heading of the first level."""
    article: list[str] = []
    for line in lines:
        if re.fullmatch(r" = [^=]+ = \n", line) and article:
            yield "".join(article)
            article = []
        article.append(line)
    yield "".join(article)


def stories(path: Path) -> Iterator[str]:
    """TinyStories' text file, story by story."""
    story: list[str] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip() == "<|endoftext|>":
                yield "".join(story).strip()
                story = []
            else:
                story.append(line)
    yield "".join(story).strip()


def remote_files(corpus: str, num_shards: int) -> tuple[str, dict[str, list[str]]]:
    """Base address of a known corpus and its files by split (val and holdout are pinned)."""
    if corpus == "climbmix":  # the shards of karpathy/autoresearch, whose val is the last one
        shards = [f"shard_{index:05d}.parquet" for index in range(6543)]
        train = shards[: min(num_shards, 6541)]
        split = {"train": train, "val": shards[-1:], "holdout": shards[-2:-1]}
        return f"{HUB}/karpathy/climbmix-400b-shuffle/resolve/main", split
    if corpus == "tinystories":  # the published validation stories make val and holdout
        names = [f"TinyStoriesV2-GPT4-{part}.txt" for part in ("train", "valid")]
        split = {"train": names[:1], "val": names[1:], "holdout": names[1:]}
        return f"{HUB}/roneneldan/TinyStories/resolve/main", split
    names = [f"wikitext-103-raw-v1/train-0000{index}-of-00002.parquet" for index in range(2)]
    test, val = (f"wikitext-103-raw-v1/{p}-00000-of-00001.parquet" for p in ("test", "validation"))
    return f"{HUB}/Salesforce/wikitext/resolve/main", {
        "train": names, "val": [val], "holdout": [test],
    }  # fmt: skip


def remote_corpus(
    name: str, out: Path, num_shards: int, base_url: str | None, workers: int
) -> Corpus:
    """Download what is missing and read it."""
    url, files = remote_files(name, num_shards)
    wanted = sorted({file for split in files.values() for file in split})
    hashes = download_all(base_url or url, wanted, out / "downloads", workers)

    def texts(file: str) -> Iterator[str]:
        path = out / "downloads" / file
        if name == "tinystories":
            return stories(path)
        return articles(parquet_texts(path)) if name == "wikitext-103" else parquet_texts(path)

    def documents(split: str) -> Iterator[Document]:
        shared = files["val"] == files["holdout"] and split != "train"
        for file in files[split]:
            for index, text in enumerate(texts(file)):
                if text and (not shared or (index % 2 == 0) == (split == "val")):
                    yield Document(f"{file}#{index}", text)

    return Corpus(documents, digest(hashes, files))
