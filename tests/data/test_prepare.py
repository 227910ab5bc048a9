"""prepare.py: splits, repeats, tokenizer, streams, interruptions and refusals."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.prepare import ROOT, SETTINGS, load_prepare, prose, write_texts

from pytest_autoresearch.data import corpora, writer
from pytest_autoresearch.data.corpora import Corpus, Document
from pytest_autoresearch.data.dataset import SEPARATOR, SPLITS, Dataset, DatasetError

prepare = load_prepare()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def pristine(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "data"
    assert run("--corpus", source, "--out", out) == 0
    return out


def run(*arguments: object) -> int:
    given = [str(argument) for argument in arguments]
    status: int = prepare.main([*given, *(SETTINGS if "--vocab-size" not in given else ())])
    return status


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert run(*arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("prepare.py: ")
    assert message.count("\n") == 1
    return message


def corpus_of(hide: bool = False, **texts: list[str]) -> Corpus:
    def documents(split: str) -> Iterator[Document]:
        for index, text in enumerate(texts.get(split, [])):
            yield Document(f"{split}{index}", text)

    return Corpus(documents, corpora.digest(texts), hide)


# --- splits ---

names = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(0, 10_000), max_size=80)


@given(sizes=names, order=st.randoms(), share=st.floats(0, 1))
def test_split_by_file_depends_on_names_and_sizes_alone(
    sizes: dict[str, int], order: object, share: float
) -> None:
    eligible = sorted(sizes)[: int(share * len(sizes))]
    first = corpora.split_files(sizes, eligible)
    shuffled = list(sizes.items())
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert corpora.split_files(dict(shuffled), reversed(eligible)) == first
    assert sorted(name for split in SPLITS for name in first[split]) == sorted(sizes)
    target = sum(sizes.values()) * corpora.EVAL_SHARE
    for split in ("val", "holdout"):
        assert set(first[split]) <= set(eligible)
        assert sum(sizes[name] for name in first[split]) <= 1.05 * target


def test_split_by_name_is_the_same_on_every_machine() -> None:
    splits = [corpora.split_of(f"file.txt#{index}") for index in range(400)]
    assert [index for index, split in enumerate(splits) if split == "val"][:5] == VAL_PIECES
    assert Counter(splits).keys() == set(SPLITS)


VAL_PIECES = [2, 35, 80, 90, 143]


def test_every_file_is_in_exactly_one_split(pristine: Path, source: Path) -> None:
    dataset = Dataset.open(pristine)
    counts = [dataset.manifest["splits"][split]["documents"] for split in SPLITS]
    assert sum(counts) == len(list(source.rglob("*.txt")))
    assert min(counts) >= 2


def test_few_files_are_split_by_pieces(tmp_path: Path) -> None:
    text = prose(1, 30_000)
    (tmp_path / "book.txt").write_text(text, encoding="utf-8", newline="")
    corpus = corpora.path_corpus(tmp_path / "book.txt")
    pieces = {d.name: d.text for split in SPLITS for d in corpus.documents(split)}
    ordered = sorted(pieces, key=lambda name: int(name.split("#")[1]))
    assert "".join(pieces[name] for name in ordered) == text
    assert all(list(corpus.documents(split)) for split in SPLITS)


def test_line_ends_are_preserved(tmp_path: Path) -> None:
    data = b"one\r\ntwo\rthree\n\nfour"
    (tmp_path / "ends.txt").write_bytes(data)
    corpus = corpora.path_corpus(tmp_path)
    texts = [d.text for split in SPLITS for d in corpus.documents(split)]
    assert "".join(texts).encode() == data


def test_files_that_are_not_text_are_counted_and_skipped(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "source")
    (source / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    (source / "zeros.bin").write_bytes(bytes(100))
    (source / ".git").mkdir()
    (source / ".git" / "config").write_text("[core]")
    assert run("--corpus", source, "--out", tmp_path / "out") == 0
    manifest = Dataset.open(tmp_path / "out").manifest
    assert manifest["skipped_files"] == 2
    assert sum(manifest["splits"][split]["documents"] for split in SPLITS) == 60


# --- repeats ---


def test_document_that_repeats_train_is_dropped() -> None:
    shared = prose(1, 300)
    corpus = corpus_of(
        train=[prose(2, 300), shared], val=[prose(3, 300), shared + prose(4, 100)],
        holdout=[prose(5, 300)],
    )  # fmt: skip
    result = writer.find_repeats(corpus)
    assert result["dropped"] == ["val1"]
    assert result["leakage"] == {"val": 0.0, "holdout": 0.0}


def test_holdout_document_that_repeats_val_is_dropped() -> None:
    shared = prose(1, 300)
    corpus = corpus_of(train=[prose(2, 300)], val=[shared], holdout=[shared, prose(3, 300)])
    assert writer.find_repeats(corpus)["dropped"] == ["holdout0"]


def test_leakage_is_the_share_of_runs_of_words_found_in_train() -> None:
    words = [f"w{index}" for index in range(107)]  # 100 runs of 8
    corpus = corpus_of(train=[" ".join(words[:32])], val=[", ".join(words)], holdout=["short"])
    assert writer.find_repeats(corpus) == {
        "dropped": [], "leakage": {"val": 0.25, "holdout": 0.0},
    }  # fmt: skip


# --- tokenizer and streams ---


def test_tokenizer_is_trained_on_train_only(tmp_path: Path) -> None:
    foreign = "zqzqzqzq " * 2000
    corpus = corpus_of(train=[prose(1, 5000)], val=[foreign], holdout=[foreign])
    writer.train_tokenizer(corpus, 320, tmp_path)
    tokens = json.loads((tmp_path / "tokenizer.json").read_text())["tokens"]
    assert len(tokens) == len(set(tokens)) == 319
    assert not any("zq" in token for token in tokens)


def test_tokenizer_training_is_deterministic(tmp_path: Path) -> None:
    corpus = corpus_of(train=[prose(seed, 500) for seed in range(20)])
    results = []
    for _ in range(3):
        writer.train_tokenizer(corpus, 400, tmp_path)
        results.append((tmp_path / "tokenizer.json").read_bytes())
    assert results[0] == results[1] == results[2]


@given(texts=st.lists(st.text(max_size=60) | st.just(SEPARATOR), max_size=150))
def test_one_stream_holds_every_document_whole(pristine: Path, texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        shutil.copy(pristine / "tokenizer.json", out)
        counts = writer.write_split(corpus_of(train=texts), "train", [], out)
        stream = np.fromfile(out / "train.bin", dtype="<u2")
    encoding = Dataset.open(pristine).encoding()
    separator = encoding.n_vocab - 1
    assert counts["tokens"] == len(stream)
    assert counts["documents"] == len(texts) == int((stream == separator).sum())
    ends = np.flatnonzero(stream == separator).tolist()
    documents = [
        encoding.decode_bytes(stream[start + 1 : end].tolist())
        for start, end in zip(ends, [*ends, len(stream)][1:], strict=True)
    ]
    assert documents == [text.encode() for text in texts]


def test_evaluation_text_does_not_depend_on_the_vocabulary(source: Path, tmp_path: Path) -> None:
    hashes = []
    for vocab_size in ("300", "400"):
        out = tmp_path / vocab_size
        assert run("--corpus", source, "--out", out, "--vocab-size", vocab_size,
                   "--seq-len", "16") == 0  # fmt: skip
        dataset = Dataset.open(out)
        hashes.append(dataset.manifest["splits"]["val"]["sha256"])
        assert dataset.vocab_size == int(vocab_size)
    assert hashes[0] == hashes[1]


def test_identity_is_reproducible_and_depends_on_the_text(
    pristine: Path, source: Path, tmp_path: Path
) -> None:
    assert run("--corpus", source, "--out", tmp_path / "same") == 0
    assert Dataset.open(tmp_path / "same").sha256 == Dataset.open(pristine).sha256
    changed = Path(shutil.copytree(source, tmp_path / source.name))
    victim = changed / "part0" / "text000.txt"
    victim.write_text(victim.read_text(encoding="utf-8") + "!", encoding="utf-8")
    assert run("--corpus", changed, "--out", tmp_path / "other") == 0
    assert Dataset.open(tmp_path / "other").sha256 != Dataset.open(pristine).sha256


# --- repeated, interrupted and concurrent preparation ---


def test_second_run_changes_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("--corpus", source, "--out", out) == 0
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("[!.]*")}
    assert run("--corpus", source, "--out", out) == 0
    assert "already prepared" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("[!.]*")} == stamps


def test_damaged_data_set_is_prepared_again(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run("--corpus", source, "--out", out)
    before = Dataset.open(out).sha256
    (out / "val.bin").write_bytes(bytes((out / "val.bin").stat().st_size))
    assert run("--corpus", source, "--out", out) == 0
    assert "val.bin has changed" in capsys.readouterr().out
    Dataset.open(out).verify()
    assert Dataset.open(out).sha256 == before


def test_other_settings_need_force(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run("--corpus", source, "--out", out)
    other = ("--corpus", source, "--out", out, "--vocab-size", "300", "--seq-len", "16")
    message = refusal(capsys, *other)
    assert "differs in vocab_size" in message
    assert "--force" in message
    assert Dataset.open(out).vocab_size == 320
    assert run(*other, "--force") == 0
    assert Dataset.open(out).vocab_size == 300


def test_default_folder_is_ignored_by_git(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "DATA", tmp_path / ".autoresearch" / "data")
    assert run("--corpus", source) == 0
    Dataset.open(tmp_path / ".autoresearch" / "data" / source.name)
    assert (tmp_path / ".autoresearch" / ".gitignore").read_text() == "*\n"


def test_interrupted_build_does_not_repeat_finished_steps(tmp_path: Path) -> None:
    texts = {split: [prose(hash_of(split, i), 400) for i in range(8)] for split in SPLITS}
    reads: Counter[str] = Counter()
    interrupt_at = 3  # train is read for repeats, for merges, then for train.bin

    def documents(split: str) -> Iterator[Document]:
        reads[split] += 1
        for index, text in enumerate(texts[split]):
            if split == "train" and reads["train"] == interrupt_at and index == 4:
                raise KeyboardInterrupt
            yield Document(f"{split}{index}", text)

    corpus = Corpus(documents, "same")
    request = {"corpus": "c", "vocab_size": 300, "seq_len": 16}
    with pytest.raises(KeyboardInterrupt):
        writer.build(corpus, tmp_path, request, "python prepare.py")
    assert not list(tmp_path.glob("*.tmp"))
    with pytest.raises(DatasetError):
        Dataset.open(tmp_path)
    reads.clear()
    writer.build(corpus, tmp_path, request, "python prepare.py").verify()
    assert reads == {"train": 1}
    assert not (tmp_path / "unfinished.json").exists()


def hash_of(*parts: object) -> int:
    return int(corpora.digest(*parts)[:8], 16)


def test_build_of_another_corpus_starts_over(tmp_path: Path) -> None:
    request = {"corpus": "c", "vocab_size": 300, "seq_len": 16}
    first = corpus_of(train=[prose(1, 4000)], val=[prose(2, 900)], holdout=["too short"])
    with pytest.raises(DatasetError, match="holdout has"):
        writer.build(first, tmp_path, request, "python prepare.py")
    second = corpus_of(train=[prose(4, 4000)], val=[prose(5, 900)], holdout=[prose(6, 900)])
    dataset = writer.build(second, tmp_path, request, "python prepare.py")
    encoding, val = dataset.encoding(), dataset.tokens("val")
    assert encoding.decode(val[1:].tolist()) == prose(5, 900)


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "prepare.py"), *map(str, arguments), *SETTINGS]


def test_next_run_completes_a_killed_one(pristine: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(command("--corpus", source, "--out", out), stdout=subprocess.DEVNULL)
    while process.poll() is None and not (out / "tokenizer.json").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run("--corpus", source, "--out", out) == 0
    Dataset.open(out).verify()
    assert Dataset.open(out).sha256 == Dataset.open(pristine).sha256
    assert not list(out.glob("*.tmp"))


def test_full_disk_is_one_line_and_leaves_no_half_file(
    pristine: Path, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def few_bytes_a_file() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    result = subprocess.run(
        command("--corpus", source, "--out", out), preexec_fn=few_bytes_a_file,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "train.bin" in result.stderr
    assert "--out" in result.stderr
    assert not (out / "train.bin").exists()
    assert not (out / "manifest.json").exists()
    assert not list(out.glob("*.tmp"))
    assert run("--corpus", source, "--out", out) == 0
    assert Dataset.open(out).sha256 == Dataset.open(pristine).sha256


def test_concurrent_runs_prepare_once(source: Path, tmp_path: Path) -> None:
    call = command("--corpus", source, "--out", tmp_path / "out")
    both = [subprocess.Popen(call, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("already prepared" in output for output in outputs) == 1
    Dataset.open(tmp_path / "out").verify()


# --- refusals ---


@pytest.mark.parametrize("vocab_size", ["0", "256", "65536", "100000"])
def test_vocabulary_out_of_range_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], vocab_size: str
) -> None:
    message = refusal(
        capsys, "--corpus", source, "--out", tmp_path, "--vocab-size", vocab_size
    )  # fmt: skip
    assert f"--vocab-size {vocab_size} is out of range" in message


def test_text_with_too_few_pairs_names_the_possible_vocabulary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_texts(tmp_path / "source", files=50, words=2)
    message = refusal(
        capsys, "--corpus", source, "--out", tmp_path / "out", "--vocab-size", "9000"
    )  # fmt: skip
    assert "of 9000 tokens" in message
    assert "--vocab-size" in message


def test_too_few_rows_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(capsys, "--corpus", source, "--out", tmp_path, "--vocab-size", "320",
                      "--seq-len", "512")  # fmt: skip
    assert "rows of 512 tokens, fewer than 64" in message
    assert "--seq-len" in message


def test_unknown_corpus_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "--corpus", "no-such-corpus")
    assert "climbmix" in message
    assert "no-such-corpus" in message


def test_folder_that_cannot_be_created_is_one_line(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    message = refusal(capsys, "--corpus", source, "--out", tmp_path / "file" / "out")
    assert str(tmp_path / "file") in message


@pytest.mark.parametrize(("library", "extra"), [("rustbpe", "gpt"), ("pyarrow", "data")])
def test_missing_library_names_the_extra_that_installs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    library: str, extra: str,
) -> None:  # fmt: skip
    source = write_texts(tmp_path / "source")
    if library == "pyarrow":
        (source / "rows.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, library, None)
    message = refusal(capsys, "--corpus", source, "--out", tmp_path / "out")
    assert f"needs {library}; run: pip install 'pytest-autoresearch[{extra}]'" in message


def test_parquet_rows_are_documents(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = [prose(index, 60) for index in range(400)]
    parquet.write_table(pyarrow.table({"id": range(400), "text": texts}), tmp_path / "a.parquet")
    assert run("--corpus", tmp_path / "a.parquet", "--out", tmp_path / "out") == 0
    manifest = Dataset.open(tmp_path / "out").manifest
    assert sum(manifest["splits"][split]["documents"] for split in SPLITS) == 400
    assert sum(manifest["splits"][split]["bytes"] for split in SPLITS) == sum(
        len(text.encode()) for text in texts
    )


def test_invalid_parquet_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    source = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"body": ["x"]}), source)
    assert "no column `text`" in refusal(capsys, "--corpus", source, "--out", tmp_path / "out")
    source.write_bytes(b"not parquet at all")
    assert "is not a parquet file" in refusal(capsys, "--corpus", source, "--out", tmp_path / "out")


# --- the default corpus ---


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("stdlib")
    assert prepare.main(["--out", str(out)]) == 0
    return Dataset.open(out)


@pytest.mark.slow
def test_standard_library_makes_the_default_corpus(library: Dataset) -> None:
    splits = library.manifest["splits"]
    total = sum(splits[split]["bytes"] for split in SPLITS)
    for split in ("val", "holdout"):
        assert 0.05 < splits[split]["bytes"] / total < 0.07
        assert library.manifest["leakage"][split] < 0.1
    assert (library.vocab_size, library.seq_len) == (1024, 64)
    assert library.token_bytes[library.tokens("val")].sum(dtype=np.int64) == splits["val"]["bytes"]


@pytest.mark.slow
def test_no_hidden_module_is_needed_to_train(library: Dataset) -> None:
    hidden = {path.resolve() for path in library.hidden_paths()}
    sources = {path for path in hidden if path.suffix == ".py"}
    assert len(sources) >= 10
    assert all(path.is_file() for path in sources)
    used = corpora.loaded_files(
        ["torch", "torch._dynamo", "torch.optim", "torch.utils.data", "numpy", "safetensors.torch",
         "pytest_autoresearch.forkserver.server", "pytest_autoresearch.training.worker",
         "pytest_autoresearch.scoring.worker", *corpora.imported_names(ROOT / "train.py")]
    )  # fmt: skip
    assert len(used) > 500
    assert not hidden & used


@pytest.mark.slow
def test_training_works_without_the_hidden_modules(library: Dataset, tmp_path: Path) -> None:
    """A model trains and saves while the hidden modules cannot be imported."""
    blocked = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in library.manifest["hidden_sources"]
    ]
    script = (
        f"import sys\nfor name in {blocked!r}:\n    sys.modules[name] = None\n"
        "import torch, safetensors.torch\n"
        "model = torch.nn.Linear(4, 4)\n"
        "optimizer = torch.optim.AdamW(model.parameters())\n"
        "model(torch.ones(2, 4)).sum().backward(); optimizer.step()\n"
        f"safetensors.torch.save_model(model, {str(tmp_path / 'm')!r})\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert (tmp_path / "m").exists()
