"""The HTML report in headless Chromium, driven over its debugging pipe."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.pages import ATTEMPTS, BASE, CONFIRMATION, KEPT, NASTY, STATUS, attempt, run

from pytest_autoresearch import Edit
from pytest_autoresearch.report import html

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
LIMIT_S = 40.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium)"
    ),
]


class Browser:
    """One tab of one Chromium, driven by the DevTools protocol over two pipes.

    Attributes:
        requests: Address of every request of the tab.
        complaints: Errors and warnings of its console.
    """

    def __init__(self, profile: Path, *arguments: str) -> None:
        assert CHROMIUM is not None
        read, self._to = os.pipe()
        self._from, write = os.pipe()

        def as_descriptors_3_and_4() -> None:
            high = (os.dup(read), os.dup(write))
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--remote-debugging-pipe", f"--user-data-dir={profile}", *arguments, "about:blank"],
            preexec_fn=as_descriptors_3_and_4, close_fds=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read)
        os.close(write)
        self._ids, self._rest, self._session = itertools.count(1), b"", ""
        self._loads = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        (page,) = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        number = next(self._ids)
        message: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self, limit_s: float = LIMIT_S) -> dict[str, Any]:
        deadline = time.monotonic() + limit_s
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser does not respond"
            chunk = os.read(self._from, 1 << 20)
            assert chunk, "the browser has exited"
            self._rest += chunk
        raw, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Page.loadEventFired":
            self._loads += 1

    def open(self, page: Path) -> None:
        before = self._loads
        self.call("Page.navigate", url=page.as_uri())
        while self._loads == before:
            self._receive()

    def run(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true, across reloads of the page."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            try:
                if self.run(expression):
                    return
            except AssertionError as error:
                if not any(word in str(error).lower() for word in ("context", "navigated")):
                    raise
            time.sleep(0.1)
        raise AssertionError(f"never true: {expression}")

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key,
                windowsVirtualKeyCode=code, **text,
            )  # fmt: skip

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def fresh(request: pytest.FixtureRequest) -> None:
    if "browser" in request.fixturenames:
        tab = request.getfixturevalue("browser")
        tab.requests.clear()
        tab.complaints.clear()


HOSTILE = "".join(NASTY)
CAMPAIGN = (
    *ATTEMPTS[:2],
    replace(ATTEMPTS[2], edits=(Edit("train.py", "rate = 1\n", "rate = 2\n"),), hypothesis="faster"),
    replace(
        ATTEMPTS[3], title=HOSTILE, hypothesis=HOSTILE, reason=HOSTILE, proposer=HOSTILE,
        edits=(Edit(HOSTILE, HOSTILE, HOSTILE + "x"),), runs=(run(4, log_tail=HOSTILE),),
    ),
    attempt(5, "discard", 0.97, gain=-0.07, gain_sigma=-5.0, champion_before=3, parent=3),
)  # fmt: skip
ORDER = "[...document.querySelectorAll('#table > tbody')].filter(b => !b.hidden).map(b => b.id)"


@pytest.fixture
def report(tmp_path: Path) -> Path:
    page = tmp_path / "report.html"
    html.write(
        page,
        CAMPAIGN,
        (BASE, KEPT),
        {"tag": str(tmp_path), "confirmation": CONFIRMATION},
        live=False,
    )
    return page


def click_head(browser: Browser, name: str) -> None:
    browser.run(
        "[...document.querySelectorAll('#table thead button')]"
        f".find(b => b.textContent === '{name}').click()"
    )


def test_page_opens_without_console_errors_or_a_second_request(browser, report):
    browser.open(report)
    browser.run("new Promise(done => setTimeout(done, 300))")
    assert browser.requests == [report.as_uri()]
    assert browser.complaints == []
    assert browser.run("document.getElementById('filter').hidden") is False


def test_hostile_titles_and_logs_stay_text(browser, report):
    browser.run("window.alert = () => {}")
    browser.open(report)
    assert browser.run("document.scripts.length") == 1
    assert (
        browser.run("document.querySelectorAll('img, iframe, base, [onload], [onerror]').length")
        == 0
    )
    shown = browser.run("document.querySelector('#s4 summary').textContent")
    assert "<script>alert(1)</script>" in shown
    assert "<img src=x onerror=alert(1)>" in browser.run(
        "document.querySelector('#s4 .diff').textContent"
    )


def test_injected_script_does_not_run(browser, report):
    injected = report.with_name("injected.html")
    injected.write_text(
        report.read_text().replace(
            "<main>", "<main><script>window.hit = 1</script><img src=x onerror='window.hit = 2'>"
        )
    )
    browser.open(injected)
    assert browser.run("window.hit === undefined")
    assert len(browser.complaints) >= 2


def test_columns_sort_both_ways_with_blanks_last(browser, report):
    browser.open(report)
    click_head(browser, "Gain")
    assert browser.run(ORDER) == ["s5", "s4", "s3", "s1", "s2"]
    click_head(browser, "Gain")
    assert browser.run(ORDER) == ["s3", "s4", "s5", "s1", "s2"]
    assert (
        browser.run("document.querySelector('[aria-sort]').getAttribute('aria-sort')")
        == "descending"
    )
    click_head(browser, "Attempt")
    assert browser.run(ORDER) == ["s1", "s2", "s3", "s4", "s5"]


def test_filters_narrow_the_table_and_count_the_rows_left(browser, report):
    browser.open(report)
    enter = (
        "(name, value) => { const field = document.getElementById('filter').elements[name];"
        " field.value = value; field.dispatchEvent(new Event('input', {bubbles: true})); }"
    )
    browser.run(f"({enter})('verdict', 'discard')")
    assert browser.run(ORDER) == ["s4", "s5"]
    browser.run(f"({enter})('text', 'IDEA 5')")
    assert browser.run(ORDER) == ["s5"]
    assert browser.run("document.getElementById('count').textContent") == "1 of 5 shown"


def test_row_opens_with_the_keyboard(browser, report):
    browser.open(report)
    shown = "document.querySelector('#s3 .diff').checkVisibility()"
    assert not browser.run(shown)
    browser.run("document.querySelector('#s2 summary').focus()")
    for _ in range(8):
        browser.press("Tab", 9)
        if browser.run("document.activeElement.closest('tbody')?.id === 's3'"):
            break
    browser.press("Enter", 13)
    browser.until(shown)
    text = browser.run("document.querySelector('#s3 .diff').innerText")
    assert text.split("\n")[:3] == ["@@ train.py @@", "-rate = 1", "+rate = 2"]


def test_click_on_a_mark_opens_its_row(browser, report):
    browser.open(report)
    browser.run(
        "document.querySelector('[data-s=\"5\"]').dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    browser.until("document.querySelector('#s5 details').open")
    assert browser.run("document.querySelector('#s5 .more').checkVisibility()")


PAUSED = """(async () => {
    const button = document.getElementById("pause");
    if (button?.getAttribute("aria-pressed") === "false") button.click();
    await new Promise(done => setTimeout(done, 500));
    return button?.isConnected && button.getAttribute("aria-pressed") === "true";
})()"""
"""Pause the page and return whether it is paused: a page that reloads ignores the click."""


def test_open_page_shows_a_new_attempt_after_it_ends(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(html, "RELOAD_S", 1)
    page = tmp_path / "report.html"
    facts = {"tag": str(tmp_path)}
    html.write(page, ATTEMPTS, (BASE, KEPT), facts, live=True)
    browser.open(page)
    browser.run("document.querySelector('#s3 details').open = true")
    assert browser.run(f"{ORDER}.length") == 4
    html.write(page, CAMPAIGN, (BASE, KEPT), facts, live=True)
    browser.until("document.getElementById('s5') !== null")
    browser.until("document.querySelector('#s3 details').open")
    browser.until(PAUSED)
    html.write(page, ATTEMPTS, (BASE, KEPT), facts, live=True)
    browser.run("new Promise(done => setTimeout(done, 2500))")
    assert browser.run("document.getElementById('s5') !== null")


def test_page_is_complete_and_reloads_without_scripts(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "RELOAD_S", 3)  # the page is read before the next reload
    page = tmp_path / "report.html"
    html.write(page, ATTEMPTS, (BASE, KEPT), {}, live=True)
    tab = Browser(tmp_path / "profile", "--blink-settings=scriptEnabled=false")
    try:
        tab.open(page)
        first = tab._loads
        while tab._loads == first:
            tab._receive()
        root = tab.call("DOM.getDocument")["root"]["nodeId"]
        for selector, n in (("#table > tbody", 4), (".more svg.curve", 4), ("#s3 details", 1)):
            found = tab.call("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"]
            assert len(found) == n, selector
    finally:
        tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("live", [False, True], ids=["finished", "live"])
def test_axe_finds_no_serious_issue(browser, tmp_path, scheme, live):
    axe = _axe()
    if axe is None:
        pytest.skip("axe-core is not installed (pip install axe-core-python, or AXE=axe.min.js)")
    page = tmp_path / "report.html"
    facts = {"tag": str(tmp_path), "confirmation": CONFIRMATION, "status": [STATUS]}
    running = replace(attempt(9), state="running", verdict=None, runs=())
    html.write(page, (*CAMPAIGN, running), (BASE, KEPT), facts, live=live)
    browser.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    browser.open(page)
    browser.run("document.querySelectorAll('#s3 details, #s4 details').forEach(d => d.open = true)")
    browser.run(axe.read_text(encoding="utf-8"))
    found = json.loads(browser.run("axe.run().then(r => JSON.stringify(r))"))
    assert len(found["passes"]) > 10
    serious = [
        f"{issue['id']}: {issue['nodes'][0]['html'][:200]}"
        for issue in found["violations"]
        if issue["impact"] in ("serious", "critical")
    ]
    assert serious == []


def _axe() -> Path | None:
    if named := os.environ.get("AXE"):
        return Path(named)
    spec = importlib.util.find_spec("axe_core_python")
    folders = spec.submodule_search_locations if spec else None
    return Path(folders[0]) / "axe.min.js" if folders else None


def test_page_fits_a_phone(browser, report):
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=390,
        height=800,
        deviceScaleFactor=1,
        mobile=True,
    )
    try:
        browser.open(report)
        assert browser.run("document.documentElement.scrollWidth") <= 390
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


def test_printed_page_is_light_and_has_no_controls(browser, report):
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", media="print", features=dark)
    try:
        browser.open(report)
        assert (
            browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert not browser.run("document.getElementById('filter').checkVisibility()")
        assert browser.run(
            "document.querySelector('#progress-title').closest('svg').checkVisibility()"
        )
    finally:
        browser.call("Emulation.setEmulatedMedia", media="", features=[])
