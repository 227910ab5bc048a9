"""Downloads over a loopback server that fails in every way a real one does."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.file_server import FileServer, serving
from support.prepare import ROOT, SETTINGS, load_prepare, prose

from pytest_autoresearch.data import download
from pytest_autoresearch.data.dataset import Dataset
from pytest_autoresearch.data.download import DownloadError, download_all

prepare = load_prepare()
DATA = random.Random(0).randbytes(8 << 16)


def fetch(server: FileServer, folder: Path, *names: str) -> dict[str, str]:
    return download_all(server.url, names or sorted(server.files), folder, pause_s=0.0)


def faults(server: FileServer, name: str, *kinds: str) -> None:
    server.faults[name] = list(kinds)


def test_files_arrive_whole_under_their_names(tmp_path: Path) -> None:
    files = {f"deep/file{index}": DATA[index:] for index in range(12)}
    with serving(files) as server:
        hashes = fetch(server, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files} == files
    assert hashes == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"lock.json", *(f"file{index}" for index in range(12))}


def test_dropped_connection_resumes_where_it_stopped(tmp_path: Path) -> None:
    with serving({"a": DATA}) as server:
        faults(server, "a", "drop", "drop")
        fetch(server, tmp_path)
        assert server.ranges("a") == [None, f"bytes={4 << 16}-", f"bytes={6 << 16}-"]
    assert (tmp_path / "a").read_bytes() == DATA


def test_next_run_resumes_what_the_last_one_left(tmp_path: Path) -> None:
    with serving({"a": DATA}) as server:
        faults(server, "a", "drop", "404")
        with pytest.raises(DownloadError, match="HTTP 404"):
            fetch(server, tmp_path)
        assert not (tmp_path / "a").exists()
        fetch(server, tmp_path)
        assert server.ranges("a")[-1] == f"bytes={4 << 16}-"
    assert (tmp_path / "a").read_bytes() == DATA


def test_file_that_changed_meanwhile_is_not_mixed(tmp_path: Path) -> None:
    with serving({"a": DATA}) as server:
        faults(server, "a", "drop", "404")
        with pytest.raises(DownloadError):
            fetch(server, tmp_path)
        server.files["a"] = DATA[::-1]
        fetch(server, tmp_path)
    assert (tmp_path / "a").read_bytes() == DATA[::-1]


@pytest.mark.parametrize("status", ["500", "503", "429", "408"])
def test_busy_server_is_asked_again(tmp_path: Path, status: str) -> None:
    with serving({"a": DATA}) as server:
        faults(server, "a", status, status)
        fetch(server, tmp_path)
        assert len(server.requests) == 3
    assert (tmp_path / "a").read_bytes() == DATA


@pytest.mark.parametrize("fault", ["wrong", "truncate"])
def test_wrong_bytes_are_fetched_again(tmp_path: Path, fault: str) -> None:
    with serving({"a": DATA}) as server:
        faults(server, "a", fault)
        fetch(server, tmp_path)
    assert (tmp_path / "a").read_bytes() == DATA


def test_bytes_that_stay_wrong_are_never_kept(tmp_path: Path) -> None:
    with serving({"a": DATA}) as server:
        faults(server, "a", *["wrong"] * 20)
        with pytest.raises(DownloadError, match="sha256") as caught:
            fetch(server, tmp_path)
    assert "\n" not in str(caught.value)
    assert "run the same command again" in str(caught.value)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "a.part").exists()


def test_slow_server_is_waited_for(tmp_path: Path) -> None:
    with serving({"a": DATA[:2000]}) as server:
        faults(server, "a", "throttle")
        fetch(server, tmp_path)
        assert len(server.requests) == 1
    assert (tmp_path / "a").read_bytes() == DATA[:2000]


def test_silent_server_is_given_up_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.3)
    with serving({"a": DATA}) as server:
        faults(server, "a", "stall")
        fetch(server, tmp_path)
        assert len(server.requests) == 2
    assert (tmp_path / "a").read_bytes() == DATA


def test_server_that_never_answers_well_ends_the_attempts(tmp_path: Path) -> None:
    with serving({"a": DATA}) as server:
        faults(server, "a", *["500"] * 50)
        with pytest.raises(DownloadError, match=r"HTTP 500 \(5 times in a row\)"):
            fetch(server, tmp_path)
        assert len(server.requests) == 5


def test_progress_renews_the_patience(tmp_path: Path) -> None:
    with serving({"a": DATA}) as server:
        faults(server, "a", *["500", "500", "500", "drop"] * 2, "500", "500", "500")
        fetch(server, tmp_path)
    assert (tmp_path / "a").read_bytes() == DATA


def test_no_server_at_all_is_one_line(tmp_path: Path) -> None:
    with serving({}) as server:
        address = server.url
    with pytest.raises(DownloadError, match="the connection failed") as caught:
        download_all(address, ["a"], tmp_path, pause_s=0.0)
    assert "\n" not in str(caught.value)


def test_absent_file_is_not_asked_for_again(tmp_path: Path) -> None:
    with serving({"a": DATA}) as server:
        with pytest.raises(DownloadError, match="HTTP 404"):
            fetch(server, tmp_path, "b")
        assert len(server.requests) == 1


def test_finished_part_is_verified_not_fetched(tmp_path: Path) -> None:
    with serving({"a": DATA}) as server:
        faults(server, "a", "drop", "404")
        with pytest.raises(DownloadError):
            fetch(server, tmp_path)
        (tmp_path / "a.part").write_bytes(DATA)
        fetch(server, tmp_path)
    assert (tmp_path / "a").read_bytes() == DATA


def test_files_already_there_are_hashed_not_fetched(tmp_path: Path) -> None:
    with serving({"a": DATA}) as server:
        first = fetch(server, tmp_path)
        assert fetch(server, tmp_path) == first
        assert len(server.requests) == 1


def test_file_that_changed_on_disk_is_refused(tmp_path: Path) -> None:
    with serving({"a": DATA}) as server:
        fetch(server, tmp_path)
        (tmp_path / "a").write_bytes(DATA[:-1] + b"!")
        with pytest.raises(DownloadError, match="has changed; delete it to fetch it again"):
            fetch(server, tmp_path)
        (tmp_path / "a").unlink()
        fetch(server, tmp_path)
    assert (tmp_path / "a").read_bytes() == DATA


def test_file_that_changed_on_the_server_is_refused(tmp_path: Path) -> None:
    with serving({"a": DATA}) as server:
        fetch(server, tmp_path)
        (tmp_path / "a").unlink()
        server.files["a"] = DATA[::-1]
        with pytest.raises(DownloadError, match="is not the file it was"):
            fetch(server, tmp_path)
        assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("stated_hash", [True, False])
def test_lock_file_records_every_hash(tmp_path: Path, stated_hash: bool) -> None:
    with serving({"a": DATA, "b": b"small"}) as server:
        server.stated_hash = stated_hash
        hashes = fetch(server, tmp_path)
    assert json.loads((tmp_path / "lock.json").read_text()) == hashes


def test_damaged_lock_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text("{")
    with serving({"a": DATA}) as server, pytest.raises(DownloadError, match="is damaged"):
        fetch(server, tmp_path)


# --- published corpora, from the loopback ---


def parquet_file(texts: list[str]) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": texts}), buffer, row_group_size=50)
    return buffer.getvalue()


def prose_shard(seed: int, count: int = 80) -> bytes:
    return parquet_file([prose(1000 * seed + index, 60) for index in range(count)])


def stories_file(seed: int, count: int) -> bytes:
    texts = (prose(1000 * seed + index, 60) for index in range(count))
    return "\n<|endoftext|>\n".join(texts).encode()


CORPORA = {
    "climbmix": (
        lambda: {f"shard_{index:05d}.parquet": prose_shard(index) for index in (0, 1, 6541, 6542)},
        {"train": 160, "val": 80, "holdout": 80},
    ),
    "tinystories": (
        lambda: {
            "TinyStoriesV2-GPT4-train.txt": stories_file(1, 150),
            "TinyStoriesV2-GPT4-valid.txt": stories_file(2, 100),
        },
        {"train": 150, "val": 50, "holdout": 50},
    ),
    "wikitext-103": (
        lambda: {
            f"wikitext-103-raw-v1/{name}.parquet": parquet_file(
                [line for index in range(40) for line in ("", f" = Article {seed} {index} = \n",
                 " = = Part = = \n", " " + prose(1000 * seed + index, 100) + "\n")]
            )
            for seed, name in enumerate(
                ["train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001",
                 "test-00000-of-00001"]
            )
        },
        {"train": 80, "val": 40, "holdout": 40},
    ),
}  # fmt: skip


@pytest.mark.parametrize("corpus", CORPORA)
def test_published_corpus_is_fetched_split_and_encoded(corpus: str, tmp_path: Path) -> None:
    make, documents = CORPORA[corpus]
    with serving(make()) as server:
        status = prepare.main(
            ["--corpus", corpus, "--base-url", server.url, "--out", str(tmp_path), "--num-shards",
             "2", *SETTINGS]
        )  # fmt: skip
        assert status == 0
        assert sorted({name for name, _ in server.requests}) == sorted(server.files)
    dataset = Dataset.open(tmp_path)
    dataset.verify()
    splits = dataset.manifest["splits"]
    assert {split: splits[split]["documents"] for split in splits} == documents
    assert dataset.hidden_paths() == ()
    assert dataset.manifest["leakage"]["val"] < 0.2


def test_failed_download_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving({}) as server:
        status = prepare.main(
            ["--corpus", "tinystories", "--base-url", server.url, "--out", str(tmp_path)]
        )
    assert status == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "HTTP 404" in message


def test_download_killed_half_way_goes_on_with_range(tmp_path: Path) -> None:
    files = {"TinyStoriesV2-GPT4-train.txt": stories_file(1, 600),
             "TinyStoriesV2-GPT4-valid.txt": stories_file(2, 100)}  # fmt: skip
    train = "TinyStoriesV2-GPT4-train.txt"
    with serving(files) as server:
        call = [sys.executable, str(ROOT / "prepare.py"), "--corpus", "tinystories", "--out",
                str(tmp_path), "--base-url", server.url, *SETTINGS]  # fmt: skip
        faults(server, train, "drop", "stall")
        process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(server.ranges(train)) < 2:
            time.sleep(0.005)
        process.kill()
        process.wait()
        assert subprocess.run(call, stdout=subprocess.DEVNULL, check=False).returncode == 0
        first, second, third = server.ranges(train)
        assert first is None
        assert second is not None
        assert second == third
    Dataset.open(tmp_path).verify()
