"""Corpora published on the Hugging Face Hub, downloaded from a loopback server."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.prepare import ROOT, SETTINGS, load_prepare, prose

from pytest_autoresearch.data import corpora
from pytest_autoresearch.data.dataset import Dataset, DatasetError

pytest.importorskip("huggingface_hub")
prepare = load_prepare()


@dataclass
class Hub:
    """Files by repository path; `corrupt` changes the bytes but not the hash that is stated."""

    files: dict[str, bytes]
    corrupt: bool = False
    requests: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(corpus: str, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve `files` of a corpus at its pinned revision, and let huggingface_hub use this server."""
    repo, revision = corpora.HUB[corpus]
    hub = Hub({f"/datasets/{repo}/resolve/{revision}/{name}": files[name] for name in files})

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            data = hub.files.get(self.path)
            self.send_response(200 if data is not None else 404)
            self.send_header("X-Repo-Commit", revision)
            self.send_header("ETag", f'"{hashlib.sha256(data or b"").hexdigest()}"')
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()

        def do_GET(self) -> None:
            hub.requests.append(self.path.rpartition(f"{revision}/")[2])
            self.do_HEAD()
            data = hub.files.get(self.path, b"")
            self.wfile.write(data[::-1] if hub.corrupt else data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


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
def test_published_corpus_is_downloaded_split_and_encoded(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, documents = CORPORA[corpus]
    files = make()
    command = ["--corpus", corpus, "--out", str(tmp_path), "--num-shards", "2", *SETTINGS]
    with serve(corpus, files, monkeypatch) as hub:
        assert prepare.main(command) == 0
        assert sorted(hub.requests) == sorted(files)
    dataset = Dataset.open(tmp_path)
    dataset.verify()
    splits = dataset.manifest["splits"]
    assert {split: splits[split]["documents"] for split in splits} == documents
    assert dataset.hidden_paths() == ()
    assert dataset.manifest["leakage"]["val"] < 0.2


def test_downloaded_file_is_not_requested_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve("tinystories", {"a.txt": b"text"}, monkeypatch) as hub:
        path, sha256 = corpora.download("tinystories", "a.txt", tmp_path)
        hub.files.clear()
        assert corpora.download("tinystories", "a.txt", tmp_path) == (path, sha256)
        assert hub.requests == ["a.txt"]
    assert path.read_bytes() == b"text"
    assert sha256 == hashlib.sha256(b"text").hexdigest()


def test_file_that_differs_from_the_stated_hash_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve("tinystories", {"a.txt": b"text"}, monkeypatch) as hub:
        hub.corrupt = True
        with pytest.raises(DatasetError, match=r"has sha256 .* instead of .*; delete it") as error:
            corpora.download("tinystories", "a.txt", tmp_path)
        hub.corrupt = False
        Path(str(error.value).split(" has sha256")[0]).unlink()
        path, _ = corpora.download("tinystories", "a.txt", tmp_path)
    assert path.read_bytes() == b"text"


def test_failed_download_is_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["prepare.py", "--corpus", "tinystories", "--out", str(tmp_path), *SETTINGS]
    with serve("tinystories", {}, monkeypatch) as hub:
        result = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env={**os.environ, "HF_ENDPOINT": hub.url},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "cannot download TinyStoriesV2-GPT4-train.txt" in result.stderr
    assert "404" in result.stderr
    assert "HF_ENDPOINT" in result.stderr


def test_unreachable_server_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve("tinystories", {}, monkeypatch):
        pass
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library's pauses
    with pytest.raises(DatasetError, match="check the network, or set HF_ENDPOINT") as error:
        corpora.download("tinystories", "a.txt", tmp_path)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().err == ""


def test_missing_huggingface_hub_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DatasetError, match=r"pip install 'pytest-autoresearch\[data\]'"):
        corpora.download("tinystories", "a.txt", tmp_path)
