"""The page of a running campaign, written by its own thread from a real ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_autoresearch.ledger.store import Ledger
from pytest_autoresearch.report import html
from pytest_autoresearch.session.reporter import SHARE, LivePage, pause

LIMIT_S = 30.0


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < deadline, "never true"
        time.sleep(0.02)


def says(path: Path, text: str) -> bool:
    return path.exists() and text in path.read_text(encoding="utf-8")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    opened = Ledger.open(tmp_path, "night")
    opened.set_meta("campaign", {"metric": {"name": "acc", "direction": "max"}})
    return opened


@pytest.fixture
def live(tmp_path: Path, ledger: Ledger) -> Iterator[LivePage]:
    page = LivePage(tmp_path / "reports" / "night.html", ledger)
    page.start()
    yield page
    page.finish()


def begin(ledger: Ledger, number: int) -> int:
    return ledger.start_attempt(
        session_id=1, worker="main", name=f"mutation-{number:04d}", kind="mutation", number=number
    ).id


def test_page_shows_a_running_attempt_and_later_its_verdict(ledger, live, monkeypatch):
    monkeypatch.setattr(html, "RELOAD_S", 0.5)
    until(lambda: says(live.path, "Running now"))
    attempt = begin(ledger, 1)
    live.changed()
    until(lambda: says(live.path, "mutation-0001</code> "))
    ledger.finish_attempt(attempt, verdict="crash", reason="RuntimeError: shapes")
    live.changed()
    until(lambda: says(live.path, "RuntimeError: shapes"))
    assert says(live.path, 'http-equiv="refresh"')


def test_page_is_rewritten_soon_after_a_change(ledger, live, monkeypatch):
    monkeypatch.setattr(html, "RELOAD_S", 3600)
    until(lambda: says(live.path, "Running now"))
    begin(ledger, 1)
    live.changed()
    until(lambda: says(live.path, "mutation-0001"))


def test_page_of_a_finished_session_does_not_reload(tmp_path, ledger):
    page = LivePage(tmp_path / "night.html", ledger)
    page.start()
    until(lambda: says(page.path, 'http-equiv="refresh"'))
    begin(ledger, 1)
    page.finish()
    assert says(page.path, "mutation-0001")
    assert not says(page.path, 'http-equiv="refresh"')


def test_page_is_written_at_the_end_even_if_no_attempt_started(tmp_path, ledger):
    begin(ledger, 1)
    page = LivePage(tmp_path / "night.html", ledger)
    page.finish()
    assert says(page.path, "mutation-0001")


def test_unwritable_page_is_reported_at_the_end(tmp_path, ledger):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    page = LivePage(blocked / "night.html", ledger)
    page.start()
    page.changed()
    with pytest.raises(OSError, match="File exists"):
        page.finish()
    assert blocked.read_text() == "in the way"


def test_slow_page_is_written_less_often():
    assert pause(0.001) == 1.0
    for cost in (0.5, 2.0, 60.0):
        assert cost / (cost + pause(cost)) <= SHARE
