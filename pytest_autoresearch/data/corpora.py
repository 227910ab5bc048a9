"""Sources of documents and their split into train, val and holdout.

A corpus is the running Python's standard library (the default, offline), local text or parquet
files, or a data set published on the Hugging Face Hub.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .dataset import DatasetError, file_sha256

EVAL_SHARE = 1 / 17  # of the bytes, for val and again for holdout

FEW_FILES = 40  # a corpus of fewer text files is split by pieces, not by files

PIECE_CHARS = 4096

HUB = {  # corpus -> repository and pinned revision on the Hugging Face Hub
    "climbmix": ("karpathy/climbmix-400b-shuffle", "915333b4f8b8684f39aeaafea600fea6f43fb703"),
    "tinystories": ("roneneldan/TinyStories", "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64"),
    "wikitext-103": ("Salesforce/wikitext", "b08601e04326c79dfdd32d625aee71d232d685c3"),
}


@dataclass(frozen=True)
class Document:
    """A text and its name, which is unique in the corpus."""

    name: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Documents by split, in a fixed order.

    Attributes:
        documents: Returns a new iterator over the documents of a split.
        fingerprint: Changes when the documents may have changed.
        hide: Whether val and holdout are files of this machine that trainings must not read.
        skipped: Number of files left out because they are not UTF-8 text.
    """

    documents: Callable[[str], Iterator[Document]]
    fingerprint: str
    hide: bool = False
    skipped: int = 0


def digest(*parts: object) -> str:
    """Return the sha256 of the JSON of `parts`."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def split_of(name: str) -> str:
    """Assign a document to a split by the hash of its name."""
    place = int(digest(name)[:8], 16) / 16**8
    return "val" if place < EVAL_SHARE else "holdout" if place < 2 * EVAL_SHARE else "train"


def split_files(sizes: Mapping[str, int], eligible: Iterable[str]) -> dict[str, list[str]]:
    """Split files by name and size: in the order of their names' hashes, fill val, then holdout.

    Only names in `eligible` may go to these two.
    """
    target = sum(sizes.values()) * EVAL_SHARE
    candidates, remaining = set(eligible), sorted(sizes, key=digest)
    splits: dict[str, list[str]] = {}
    for split in ("val", "holdout"):
        chosen, filled = [], 0
        for name in remaining:
            fits = filled < 0.95 * target and filled + sizes[name] <= 1.05 * target
            if fits and name in candidates:
                chosen.append(name)
                filled += sizes[name]
        remaining = [name for name in remaining if name not in set(chosen)]
        splits[split] = chosen
    return splits | {"train": remaining}


def file_corpus(paths: Mapping[str, Path], eligible: Iterable[str], hide: bool) -> Corpus:
    """Make a corpus of one document per file, split by file."""
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    splits = split_files(sizes, eligible)

    def documents(split: str) -> Iterator[Document]:
        for name in splits[split]:
            yield Document(name, paths[name].read_bytes().decode())

    return Corpus(documents, digest(sizes, splits), hide)


def is_text(path: Path) -> bool:
    """Check that a file is UTF-8 text without NUL."""
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

# Modules that future train.py files may need, that are imported late, or that other packages copy.
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
    """Yield the sources of the standard library, without `SKIPPED_FOLDERS`."""
    for folder, folders, files in os.walk(library):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        paths = (Path(folder, name) for name in files if name.endswith(".py"))
        yield from (path for path in paths if is_text(path))


def loaded_files(names: Sequence[str]) -> set[Path]:
    """Return the files of all modules loaded by a new process that imports `names`.

    Names that cannot be imported are skipped; without torch, DatasetError is raised.
    """
    with tempfile.TemporaryDirectory() as empty:
        result = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", LIST_IMPORTS],
            input=json.dumps(names), capture_output=True, text=True, cwd=empty, check=False,
        )  # fmt: skip
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no error message"])[-1]
        raise DatasetError(
            f"torch cannot be imported ({reason}); run: pip install 'pytest-autoresearch[gpt]'"
        )
    return {Path(file) for file in json.loads(result.stdout.splitlines()[-1])}


def imported_names(trainer: Path) -> set[str]:
    """Return the modules named in a file's import statements, inside functions too."""
    nodes = list(ast.walk(ast.parse(trainer.read_text()))) if trainer.is_file() else []
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module
    }


def stdlib_corpus(trainer: Path) -> Corpus:
    """Make a corpus of the standard library, without tests, tables and generated files.

    Val and holdout are modules that torch, numpy, safetensors and the trainer never import, not
    even inside a function: the sandbox hides these files and training still works.
    """
    library = Path(sysconfig.get_path("stdlib")).resolve()
    paths = {
        path.relative_to(library).as_posix(): path
        for path in library_sources(library)
        if not path.relative_to(library).as_posix().startswith(("config-", "_sysconfigdata"))
    }
    mentioned = imported_names(trainer)
    for package in ("torch", "numpy", "safetensors"):
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            for source in Path(folder).rglob("*.py"):
                mentioned.update(IMPORT_LINE.findall(source.read_text(errors="replace")))
    excluded = SKIPPED_FOLDERS | {"antigravity", "this", "__main__"}
    library_names = sys.stdlib_module_names - excluded
    late = sorted(name for name in mentioned if name.split(".")[0] in library_names)
    needed = loaded_files([*TRAINER_IMPORTS, *late])
    eligible = [
        name for name, path in paths.items()
        if path not in needed and name.removesuffix(".py").split("/")[0] not in NEVER_HIDDEN
    ]  # fmt: skip
    return file_corpus(paths, eligible, hide=True)


# --- local text and parquet files ---


def parquet_texts(path: Path) -> Iterator[str]:
    """Yield the non-empty values of the ``text`` column of a parquet file."""
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise missing_library("reading parquet files", "pyarrow") from None
    try:
        with parquet.ParquetFile(path) as file:
            if "text" not in file.schema_arrow.names:
                raise DatasetError(f"{path} has no column `text`; give parquet files that have one")
            for batch in file.iter_batches(columns=["text"], batch_size=256):
                yield from (text for text in batch.column(0).to_pylist() if text)
    except ArrowInvalid as error:
        raise DatasetError(
            f"{path} is not a parquet file ({error}); delete it and try again"
        ) from None


def missing_library(purpose: str, library: str) -> DatasetError:
    """Return the error for a library of the extra ``data`` that is not installed."""
    return DatasetError(f"{purpose} needs {library}; run: pip install 'pytest-autoresearch[data]'")


def pieces(path: Path) -> Iterator[str]:
    """Cut a text file at line ends into pieces of at least `PIECE_CHARS` (the last: any size)."""
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
    """Make a corpus of a file or folder.

    Text files are split by file, or by pieces if there are fewer than `FEW_FILES`; parquet files
    are split by row.
    """
    if not source.exists():
        known = ", ".join(("stdlib", *HUB))
        raise DatasetError(f"--corpus {source}: no such file or folder, and not one of {known}")
    base = source.parent if source.is_file() else source
    files = {
        path.relative_to(base).as_posix(): path
        for path in ([source] if source.is_file() else sorted(source.rglob("*")))
        if path.is_file() and path.stat().st_size
    }
    files = {
        name: path for name, path in files.items()
        if not any(part[0] == "." or part == "__pycache__" for part in Path(name).parts)
    }  # fmt: skip
    tables = {name: path for name, path in files.items() if path.suffix == ".parquet"}
    texts = {name: path for name, path in files.items() if name not in tables and is_text(path)}
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

    stats = {name: [path.stat().st_size, path.stat().st_mtime_ns] for name, path in files.items()}
    return Corpus(documents, digest(stats), skipped=len(files) - len(tables) - len(texts))


# --- published data sets ---


def grouped(lines: Iterable[str], first_line: str) -> Iterator[str]:
    """Join lines to documents, each of which begins with a line that matches `first_line`."""
    document: list[str] = []
    for line in lines:
        if document and re.fullmatch(first_line, line):
            yield "".join(document)
            document = []
        document.append(line)
    yield "".join(document)


def stories(path: Path) -> Iterator[str]:
    """Yield the stories of a TinyStories text file."""
    end = "<|endoftext|>"
    with path.open(encoding="utf-8") as file:
        for story in grouped(file, rf"\s*{re.escape(end)}\s*"):
            yield story.strip().removeprefix(end).strip()


def hub_files(corpus: str, num_shards: int) -> dict[str, list[str]]:
    """Return the files of a published corpus by split."""
    if corpus == "climbmix":  # karpathy/autoresearch validates on the last shard, too
        shards = [f"shard_{index:05d}.parquet" for index in range(6543)]
        train = shards[: min(num_shards, 6541)]
        return {"train": train, "val": shards[-1:], "holdout": shards[-2:-1]}
    if corpus == "tinystories":  # the published validation stories are divided
        train, val = ([f"TinyStoriesV2-GPT4-{part}.txt"] for part in ("train", "valid"))
        return {"train": train, "val": val, "holdout": val}
    folder = "wikitext-103-raw-v1"
    return {
        "train": [f"{folder}/train-0000{index}-of-00002.parquet" for index in range(2)],
        "val": [f"{folder}/validation-00000-of-00001.parquet"],
        "holdout": [f"{folder}/test-00000-of-00001.parquet"],
    }


def download(corpus: str, name: str, folder: Path) -> tuple[Path, str]:
    """Download a file of a published corpus, at its pinned revision, unless `folder` has it.

    HF_ENDPOINT selects a mirror of huggingface.co.

    Returns:
        Its path and sha256.

    Raises:
        DatasetError: huggingface_hub is missing, or the file cannot be fetched or is damaged.
        OSError: The file cannot be written.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise missing_library(f"downloading {corpus}", "huggingface_hub") from None
    repo, revision = HUB[corpus]
    print(f"{repo}: {name}", flush=True)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings repeat the error
    try:
        path = Path(
            hf_hub_download(
                repo, name, repo_type="dataset", revision=revision, cache_dir=folder / "downloads"
            )
        )
    except Exception as error:  # the library's own, its HTTP client's or the system's
        if isinstance(error, OSError) and error.errno:
            raise
        reason = str(error.__cause__ or error).strip().split("\n")[0]
        raise DatasetError(
            f"cannot download {name} of {repo} ({reason}); check the network, or set HF_ENDPOINT "
            "to a mirror, and run the same command again"
        ) from None
    # The cache names a large file by the sha256 that the Hub states.
    sha256, stated = file_sha256(path), path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", stated) and sha256 != stated:
        raise DatasetError(
            f"{path.resolve()} has sha256 {sha256[:12]} instead of {stated[:12]}; "
            "delete it and run the same command again"
        )
    return path, sha256


def hub_corpus(corpus: str, out: Path, num_shards: int) -> Corpus:
    """Download a published corpus to `out` and make a corpus of its pinned files."""
    files = hub_files(corpus, num_shards)
    names = sorted({name for split in files.values() for name in split})
    downloads = {name: download(corpus, name, out) for name in names}

    def texts(name: str) -> Iterator[str]:
        path = downloads[name][0]
        if corpus == "tinystories":
            return stories(path)
        rows = parquet_texts(path)
        # Wikitext's rows are lines; an article begins with a heading of the first level.
        return grouped(rows, r" = [^=]+ = \n") if corpus == "wikitext-103" else rows

    def documents(split: str) -> Iterator[Document]:
        shared = files["val"] == files["holdout"] and split != "train"
        for name in files[split]:
            for index, text in enumerate(texts(name)):
                if text and (not shared or (index % 2 == 0) == (split == "val")):
                    yield Document(f"{name}#{index}", text)

    return Corpus(documents, digest({name: sha for name, (_, sha) in downloads.items()}, files))
