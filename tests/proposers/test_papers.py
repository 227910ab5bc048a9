"""Literature over real HTTP: asked for seldom, read safely, and never in the way of a campaign."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.arxiv import Server, feed, nowhere

from pytest_autoresearch.proposers import papers
from pytest_autoresearch.proposers.papers import Library, PapersError, fetch, parse


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def library(server: Server, tmp_path: Path) -> Callable[..., Library]:
    def make(**fields) -> Library:
        values = {
            "query": "muon optimizer",
            "url": server.url,
            "every": 10,
            "pause_s": 0.0,
        } | fields
        return Library(tmp_path / "state/papers.json", **values)

    return make


def test_papers_have_title_abstract_and_id(server: Server) -> None:
    first, second = fetch("muon", url=server.url)
    assert (first.id, first.published) == ("2505.16932v1", "2025-05-22")
    assert first.title == "The Polar Express: Optimal Matrix Sign Methods"
    assert first.abstract == "Computing the polar decomposition has <many> uses."
    assert second.id == "cs/0101001v2"


def test_request_is_sorted_by_date_and_has_a_user_agent(server: Server) -> None:
    fetch('muon "learning rate"', most=3, url=server.url)
    fetch("cat:cs.LG AND ti:muon", url=server.url)
    words, own = server.asked
    assert words["search_query"] == ['all:muon AND all:"learning rate"']
    assert words["max_results"] == ["3"]
    assert words["sortBy"] == ["submittedDate"]
    assert own["search_query"] == ["cat:cs.LG AND ti:muon"]
    assert server.agents[0].startswith("pytest-autoresearch/")


def test_papers_are_requested_once_in_many_attempts(library, server) -> None:
    one = library()
    first = one.text(1)
    assert "arXiv:2505.16932v1 (2025-05-22) The Polar Express" in first
    server.body = feed("Newer")
    assert [one.text(n) for n in range(2, 10)] == [first] * 8
    assert library().text(9) == first  # another process, the same file
    assert len(server.asked) == 1
    assert "Newer" in one.text(10)
    assert len(server.asked) == 2


def test_new_query_is_requested_at_once(library, server) -> None:
    library().text(1)
    library(query="rotary").text(1)
    assert [a["search_query"] for a in server.asked] == [
        ["all:muon AND all:optimizer"], ["all:rotary"],
    ]  # fmt: skip


def test_missing_network_gives_one_warning(library) -> None:
    messages: list[str] = []
    one = library(url=nowhere(), say=messages.append)
    assert [one.text(n) for n in (1, 2, 11, 21)] == [""] * 4
    [message] = messages
    assert "Connection refused" in message
    assert "--autoresearch-papers" in message


def test_failed_request_is_not_repeated_within_a_session(library, server) -> None:
    server.status = 503
    assert [library().text(n) for n in range(1, 10)] == [""] * 9
    assert len(server.asked) == 1
    assert library().papers(9, again=True) == ()
    assert len(server.asked) == 2
    server.status = 200
    assert len(library().papers(9, again=True)) == 2
    assert len(library().papers(9, again=True)) == 2
    assert len(server.asked) == 3


def test_workers_share_one_request(library, server) -> None:
    barrier = threading.Barrier(6)
    texts = []

    def worker() -> None:
        barrier.wait()
        texts.append(library().text(1))

    threads = [threading.Thread(target=worker) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
    assert len(set(texts)) == 1


def test_requests_are_separated_by_a_pause(library, server, monkeypatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(papers.time, "sleep", pauses.append)
    library(query="one", pause_s=3600.0).text(1)
    library(query="two", pause_s=3600.0).text(1)
    assert pauses[0] == 0
    assert 0 < pauses[1] <= 3600


def test_unwritable_cache_gives_a_warning(server, tmp_path) -> None:
    messages: list[str] = []
    (tmp_path / "state").write_text("a file where the folder should be")
    one = Library(tmp_path / "state/papers.json", "muon", url=server.url, say=messages.append)
    assert one.text(1) == ""
    assert len(messages) == 1


def test_cached_papers_are_used_without_a_network(library) -> None:
    text = library().text(1)
    assert library(url=nowhere()).text(35) == text


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (503, b"busy", "503"),
        (404, b"", "404"),
        (200, b"<html>sign in</html>", "not an Atom feed"),
        (200, b"", "not an Atom feed"),
        (200, b"x" * (papers.MAX_BYTES + 1), "larger than"),
        (200, b"<?xml version='1.0' encoding='klingon'?><feed/>", "not an Atom feed"),
    ],
)
def test_bad_response_is_an_error_in_one_line(server, status, body, message) -> None:
    server.status, server.body = status, body
    with pytest.raises(PapersError, match=message) as caught:
        fetch("muon", url=server.url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (b"SSH-2.0-OpenSSH_9.9\r\n", "SSH-2.0"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "IncompleteRead"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n<feed", "not an Atom feed"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "headers"),
        (b"", "closed"),
    ],
    ids=["another protocol", "bad chunks", "half a body", "headers without end", "nothing"],
)
def test_bad_http_is_an_error_in_one_line(response: bytes, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            connection.recv(65536)
            connection.sendall(response)
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(PapersError, match=message) as caught:
            fetch("muon", url=f"http://127.0.0.1:{listening.getsockname()[1]}/api/query")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "entities",
    [
        '<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">',
        '<!ENTITY b SYSTEM "file:///etc/passwd">',
        '<!ENTITY % b SYSTEM "http://127.0.0.1/x.dtd"> %b;',
    ],
)
def test_document_types_are_rejected(entities: str) -> None:
    text = f"<?xml version='1.0'?><!DOCTYPE feed [{entities}]><feed>&b;</feed>"
    with pytest.raises(PapersError, match="document type"):
        parse(text.encode())


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: feed(t.replace("{", ""))))
def test_any_bytes_are_papers_or_a_papers_error(data: bytes) -> None:
    try:
        papers = parse(data)
    except PapersError:
        return
    assert all("\n" not in paper.title and paper.id for paper in papers)


def test_broken_cache_is_replaced(library, server, tmp_path: Path) -> None:
    one = library()
    one.text(1)
    for broken in ("{", "[]", '{"query": "muon optimizer", "attempt": "x", "asked": 1}', "null"):
        (tmp_path / "state/papers.json").write_text(broken)
        assert "Polar Express" in library().text(1)
    assert len(server.asked) == 5


def test_notes_are_read_without_a_query_and_bounded(library, server, tmp_path) -> None:
    notes = tmp_path / "literature"
    notes.mkdir()
    (notes / "b.md").write_text("try smaller batches")
    (notes / "a.txt").write_bytes(b"\xff" + b"y" * 10_000)
    (notes / "paper.pdf").write_bytes(b"%PDF")
    (notes / "folder.md").mkdir()
    (notes / "gone.md").symlink_to(tmp_path / "gone")
    (notes / "round.md").symlink_to("round.md")
    text = library(query="", notes=notes).text(1)
    assert text.index("a.txt:") < text.index("b.md:\ntry smaller batches")
    assert "(the rest is left out)" in text
    assert len(text) < papers.NOTE + 200
    assert "PDF" not in text
    assert not server.asked
    assert library(query="", notes=tmp_path / "none").text(1) == ""
