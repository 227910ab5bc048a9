"""The reader of the data set."""

from __future__ import annotations

import json
import shutil
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.prepare import SETTINGS, load_prepare, write_texts

from pytest_autoresearch.data.dataset import SEPARATOR, SPLITS, Dataset, DatasetError


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    source = write_texts(folder / "source")
    arguments = ["--corpus", str(source), "--out", str(folder / "data"), *SETTINGS]
    assert load_prepare().main(arguments) == 0
    return folder / "data"


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "data"))


def edit_manifest(root: Path, **changes: object) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps(manifest | changes))


def flip_byte(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def refusal(root: Path, *, verify: bool = False) -> str:
    if verify:
        dataset = Dataset.open(root)
    with pytest.raises(DatasetError) as caught:
        dataset.verify() if verify else Dataset.open(root)
    message = str(caught.value)
    assert "\n" not in message
    assert "python prepare.py" in message
    return message


def test_opens_and_verifies_what_prepare_wrote(root: Path) -> None:
    dataset = Dataset.open(root)
    dataset.verify()
    assert (dataset.vocab_size, dataset.seq_len) == (320, 16)
    assert dataset.encoding().n_vocab == dataset.vocab_size
    for split in SPLITS:
        tokens = dataset.tokens(split)
        assert tokens.dtype == np.dtype("<u2")
        assert len(tokens) == dataset.manifest["splits"][split]["tokens"]
        assert tokens.max() < dataset.vocab_size


def test_absent_folder_names_the_command(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refusal(tmp_path / "none")


@pytest.mark.parametrize("name", ["train.bin", "val.bin", "holdout.bin", "tokenizer.json"])
def test_verify_finds_one_changed_byte(root: Path, name: str) -> None:
    flip_byte(root / name)
    assert f"{name} has changed" in refusal(root, verify=True)


@pytest.mark.parametrize("name", ["train.bin", "val.bin", "token_bytes.bin"])
def test_open_finds_missing_and_short_files(root: Path, name: str) -> None:
    data = (root / name).read_bytes()
    (root / name).write_bytes(data[:-2])
    assert f"{len(data) - 2} bytes long instead of {len(data)}" in refusal(root)
    (root / name).unlink()
    assert f"{name} is missing" in refusal(root)


def test_edited_manifest_is_refused(root: Path) -> None:
    edit_manifest(root, seq_len=8)
    assert "contradicts its files" in refusal(root, verify=True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "files": {}}', "\xff"])
def test_unreadable_manifest_is_one_line(root: Path, text: str) -> None:
    (root / "manifest.json").write_bytes(text.encode("latin-1"))
    assert "unreadable" in refusal(root)


def test_other_format_is_refused(root: Path) -> None:
    edit_manifest(root, format=99)
    assert "format" in refusal(root)


def test_library_of_another_python_is_refused(root: Path) -> None:
    edit_manifest(root, python="3.2.1", hidden_sources=["trace.py"])
    assert "Python 3.2" in refusal(root)


def test_unknown_split_is_refused(root: Path) -> None:
    with pytest.raises(DatasetError, match="no split named 'test'"):
        Dataset.open(root).tokens("test")


def test_damaged_tokenizer_is_one_line(root: Path) -> None:
    dataset = Dataset.open(root)
    (root / "tokenizer.json").write_text("{")
    with pytest.raises(DatasetError, match=r"tokenizer\.json is unreadable"):
        dataset.encoding()


@given(length=st.integers(2, 60), seq_len=st.integers(1, 12))
def test_rows_hold_every_target_that_fills_a_row_once(
    tmp_path_factory: pytest.TempPathFactory, length: int, seq_len: int
) -> None:
    assume(length > seq_len)
    root = tmp_path_factory.mktemp("rows")
    stream = np.arange(length, dtype="<u2")
    stream.tofile(root / "val.bin")
    manifest = {"vocab_size": 100, "seq_len": seq_len, "data_sha256": ""}
    rows = Dataset(root, manifest).rows("val")
    assert rows.shape == ((length - 1) // seq_len, seq_len + 1)
    assert rows[:, 1:].ravel().tolist() == list(range(1, len(rows) * seq_len + 1))
    assert rows[:, :-1].ravel().tolist() == list(range(len(rows) * seq_len))


def test_only_the_separator_stands_for_no_bytes(pristine: Path) -> None:
    dataset = Dataset.open(pristine)
    lengths, encoding = dataset.token_bytes, dataset.encoding()
    assert lengths[-1] == 0
    assert encoding.decode([dataset.vocab_size - 1]) == SEPARATOR
    expected = [len(encoding.decode_single_token_bytes(i)) for i in range(dataset.vocab_size - 1)]
    assert lengths[:-1].tolist() == expected


def test_token_bytes_of_a_split_add_up_to_its_text(pristine: Path) -> None:
    dataset = Dataset.open(pristine)
    for split in SPLITS:
        total = dataset.token_bytes[dataset.tokens(split)].sum(dtype=np.int64)
        assert total == dataset.manifest["splits"][split]["bytes"]


lookalikes = st.sampled_from([SEPARATOR, "<|endoftext|>", "<|reserved_0|>", "<|doc", "ument|>"])


@given(parts=st.lists(st.text() | lookalikes, max_size=8))
def test_any_text_round_trips_through_the_tokenizer(pristine: Path, parts: list[str]) -> None:
    text = "".join(parts)
    encoding = Dataset.open(pristine).encoding()
    ids = encoding.encode_ordinary(text)
    assert encoding.decode_bytes(ids) == text.encode()
    assert encoding.n_vocab - 1 not in ids


def test_hidden_paths_name_sources_and_caches_of_this_library(root: Path) -> None:
    edit_manifest(root, python=sys.version.split()[0], hidden_sources=["trace.py", "json/tool.py"])
    paths = Dataset.open(root).hidden_paths()
    library = Path(sysconfig.get_path("stdlib"))
    assert all(path.is_absolute() for path in paths)
    assert {library / "trace.py", library / "json" / "tool.py"} <= set(paths)
    names = {path.name for path in paths if path.parent == library / "__pycache__"}
    tag = sys.implementation.cache_tag
    assert {f"trace.{tag}.pyc", f"trace.{tag}.opt-1.pyc", f"trace.{tag}.opt-2.pyc"} <= names
    assert all((library / name).exists() for name in ("trace.py", "json/tool.py"))


def test_local_corpus_hides_no_files(pristine: Path) -> None:
    assert Dataset.open(pristine).hidden_paths() == ()
