"""The HTML report: contents, hidden scores, and escaping of candidate text."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.pages import ATTEMPTS, BASE, CONFIRMATION, KEPT, NASTY, STATUS, attempt, run

from pytest_autoresearch.core.proposal import Edit, Origin, Usage
from pytest_autoresearch.core.records import (
    Attempt,
    Champion,
    CheckNote,
    Gain,
    SessionRecord,
    Transfer,
)
from pytest_autoresearch.core.run import Purpose
from pytest_autoresearch.ledger.store import Ledger
from pytest_autoresearch.report import compare, html, rows, svg
from pytest_autoresearch.report.views import Report


class Page(HTMLParser):
    """A parsed page: its elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self.words: list[str] = []
        self._raw = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag):
        self._raw = ""

    def handle_data(self, data):
        if self._raw:
            self.inside.setdefault(self._raw, []).append(data)
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def having(self, **wanted: str) -> list[tuple[str, dict[str, str | None]]]:
        return [e for e in self.elements if all(e[1].get(k) == v for k, v in wanted.items())]


def render(attempts, champions, facts, live: bool) -> str:
    return "".join(html.render(attempts, champions, facts, live=live))


def page(attempts=ATTEMPTS, champions=(BASE, KEPT), live=False, **facts) -> Page:
    return Page(render(attempts, champions, {"tag": "demo", **facts}, live=live))


def test_report_of_a_real_campaign_shows_every_attempt_with_its_diff(project):
    project.propose(0.9, 1.2, "nonsense\nwithout edits")
    project.run("--iterations=3", "--autoresearch-confirm=0")
    ledger = project.ledger()
    out = project.path / "report.html"
    html.write(out, ledger.attempts(), ledger.champions(), html.gather(ledger), live=False)
    shown = Page(out.read_text(encoding="utf-8"))
    for record in ledger.attempts():
        assert shown.having(id=f"s{record.id}")
        assert record.name in shown.text
    assert "+SCORE = 0.9" in shown.text
    assert shown.having(id="progress-title")
    assert str(ledger.sessions()[0].host) in shown.text
    assert [p.name for p in project.path.glob(".report*")] == []


def test_unconfirmed_gain_is_marked():
    assert "val_bpb gain +0.100000, not yet confirmed" in page().text


def test_confirmed_gain_shows_its_interval_and_the_holdout():
    shown = page(confirmation=CONFIRMATION).text
    assert "val_bpb gain +0.071200 [+0.051200, +0.091200] , 95 % confirmed" in shown
    assert "+0.063400 [+0.043400, +0.083400] , 95 %" in shown


def test_confirmation_of_an_earlier_champion_is_ignored():
    shown = page(confirmation=replace(CONFIRMATION, champion=1)).text
    assert "not yet confirmed" in shown
    assert "+0.071200" not in shown


def test_transfer_is_shown_for_the_present_champion_only():
    here = Transfer(0.05, 0.01, 0.09, 2, champion=2, where="budget 1200s")
    old = replace(here, where="budget 600s", gain=-0.03, champion=1)
    shown = page(confirmation=CONFIRMATION, transfers=[old, here]).text
    assert "Under budget 1200s the gain transfers: +0.050000 [+0.010000, +0.090000] , 95 %" in shown
    assert "600s" not in shown


@pytest.mark.parametrize(
    ("low", "high", "word"), [(-0.01, 0.03, "open"), (-0.03, -0.01, "lost")]
)
def test_gain_with_an_interval_below_zero_is_not_confirmed(low, high, word):
    weak = replace(CONFIRMATION, confirmed=Gain((low + high) / 2, low, high, 2))
    assert f"[{low:+.6f}, {high:+.6f}] , 95 % {word} Mean gain" in page(confirmation=weak).text


@pytest.mark.parametrize("kind", ["self-reported", "unverified"])
def test_forgeable_scores_are_marked_at_the_top(kind):
    forged = tuple(replace(s, runs=(run(s.id, score_kind=kind),)) for s in ATTEMPTS)
    assert f"All scores are {kind}" in page(forged).text
    assert f"Some scores are {kind}" in page((*ATTEMPTS[:3], forged[3])).text
    assert "scores are trusted" in page().text
    assert " scores are" not in page().text.partition("Progress")[0]


def test_live_page_hides_the_holdout():
    told = (run(3), run(3, 2, 0.8765, purpose=Purpose.HOLDOUT), run(3, 501, 0.8888, purpose=Purpose.CONFIRM))
    attempts = (*ATTEMPTS[:2], replace(ATTEMPTS[2], runs=told), ATTEMPTS[3])
    shown = page(attempts, live=True, confirmation=CONFIRMATION).text
    assert "0.063400" not in shown
    assert "0.876500" not in shown
    assert "0.888800" in shown


def test_live_page_reloads_and_shows_attempts_in_flight():
    started = {"verdict": None, "score": None, "state": "running", "runs": ()}
    attempts = (*ATTEMPTS, attempt(9, **started), attempt(10, title="deeper", **started))
    old = {**STATUS, "attempt": "mutation-0004"}
    running = page(attempts, live=True, status=[STATUS, old])
    assert running.having(**{"http-equiv": "refresh", "content": str(html.RELOAD_S)})
    now = running.text[: running.text.index("What was gained")]
    assert "mutation-0009 wider: first, train, 12 s, loss 3.500" in now
    assert "mutation-0010 deeper" in now
    assert "mutation-0004" not in now, "it ended while the page was rendered"
    finished = page(attempts, status=[STATUS])
    assert not finished.having(**{"http-equiv": "refresh"})
    assert "loss 3.500" not in finished.text


@pytest.mark.parametrize(
    ("attempts", "champions"),
    [
        ((), ()),
        ((replace(ATTEMPTS[0], state="running", verdict=None, score=None, runs=()),), ()),
        (ATTEMPTS[:1], (BASE,)),
        ((*ATTEMPTS[:2], replace(ATTEMPTS[2], state="interrupted", verdict=None)), (BASE,)),
    ],
    ids=["nothing", "baseline-runs", "baseline-only", "interrupted"],
)
def test_page_renders_at_every_stage_of_a_campaign(attempts, champions):
    shown = Page(render(attempts, champions, {}, live=True))
    assert len(shown.having(scope="row")) >= len(attempts)
    assert "What was gained" in shown.text


def test_order_of_sections():
    shown = page(confirmation=CONFIRMATION)
    order = [e[1]["aria-labelledby"] for e in shown.elements if e[0] == "section"]
    assert order == [
        "gained", "progress", "spent", "attempts", "parents", "proposers", "checks", "failed",
        "origin",
    ]  # fmt: skip


def test_keep_that_fails_on_fresh_seeds_is_listed_with_both_gains():
    shown = page(confirmation=CONFIRMATION).text
    assert "1 of the 1 examined is not confirmed." in shown
    assert "mutation-0003 idea 3 lost +0.100000 -0.020000 [-0.030000, -0.010000]" in shown


def test_ablated_keep_is_listed_with_its_ablation():
    removal = replace(
        attempt(5, "keep", 0.9, gain=0.0),
        name="prune-0001",
        kind="ablation",
        origin=Origin("ablation", (3,)),
    )
    champions = (BASE, KEPT, Champion(3, 5, "c" * 40, {1: 0.9}, 530.0))
    shown = page((*ATTEMPTS, removal), champions).text
    assert "mutation-0003 idea 3, kept with +0.100000; see prune-0001" in shown


def test_proposers_are_compared_by_gain_and_cost():
    paid = replace(
        ATTEMPTS[2], proposer="claude", usage=Usage("claude", 200, 300, 400, 100, 1, 0.5)
    )
    table = compare.by_proposer((*ATTEMPTS[1:2], paid, ATTEMPTS[3]))
    by_name = {proposer["name"]: proposer for proposer in table}
    assert by_name["gp"]["tried"] == 2
    assert by_name["gp"]["failed"] == 1
    assert by_name["gp"]["kept"] == 0
    assert by_name["claude"]["gain"] == 0.1
    assert by_name["claude"]["per_attempt"] == pytest.approx(0.1)
    assert by_name["claude"]["tokens"] == 1000
    assert by_name["claude"]["per_dollar"] == pytest.approx(0.2)
    assert by_name["claude"]["per_hour"] == pytest.approx(0.1 / 0.01)


def test_first_screen_says_what_each_proposer_earned():
    paid = replace(ATTEMPTS[2], proposer="claude", usage=Usage("claude", 900, 0, 0, 100, 1, 0.5))
    tried = (ATTEMPTS[1], paid, ATTEMPTS[3])
    assert compare.earned(tried) == "gp 0 of 2 kept; claude 1 of 1 kept, gain +0.100000, $0.50"
    gained = page((ATTEMPTS[0], *tried)).text.split("Progress")[0]
    assert "claude 1 of 1 kept, gain +0.100000, $0.50" in gained
    baseline = page((ATTEMPTS[0], replace(paid, verdict="discard")), (BASE,)).text
    assert "Proposers: claude 0 of 1 kept, $0.50." in baseline.split("Progress")[0]
    # one search that costs nothing has nothing to be compared with
    assert compare.earned((ATTEMPTS[1], ATTEMPTS[3])) == ""
    assert "Proposers:" not in page().text


def test_families_are_compared_and_each_attempt_has_a_cause():
    meta = {"family": "schedule", "expected": 0.02}
    worse = replace(
        ATTEMPTS[1], meta=meta, verdict="discard", gain=-0.05, gain_sigma=-3.0, score=1.05,
        champion_before=1,
    )  # fmt: skip
    crashed = replace(ATTEMPTS[3], verdict="crash", reason="NameError: x", score=None, gain=None)
    shown = page((ATTEMPTS[0], worse, ATTEMPTS[2], crashed)).text
    assert "Ideas by family" in shown
    assert "schedule 1 0 +0.020000 -0.050000 1" in shown
    assert "; schedule, expected gain +0.02" in shown
    assert "crash: NameError" in shown
    assert "Ideas by family" not in page().text


def test_checks_show_catches_cost_and_spared_training():
    check_notes = (
        CheckNote("parses", True, "", 0.5),
        CheckNote("stays_small", False, "too big", 0.25),
    )
    refused = attempt(5, "invalid", None, check_notes=check_notes, runs=())
    by_name = {check["name"]: check for check in compare.by_check((*ATTEMPTS, refused))}
    assert by_name["stays small"] == {
        "name": "stays small", "seen": 1, "caught": 1, "seconds": 0.25, "spared": 36.0,
    }  # fmt: skip
    assert by_name["parses"]["seen"] == 2
    assert by_name["parses"]["caught"] == 0


def test_device_time_is_listed_by_purpose():
    again = replace(ATTEMPTS[3], runs=(run(4), run(4, 2, purpose=Purpose.REPLICATE)))
    table = compare.by_purpose((*ATTEMPTS[:3], again))
    parts = {part["name"]: (part["runs"], part["seconds"]) for part in table}
    assert parts == {
        "first run of a mutation": (4, 144.0),
        "replicates of close calls": (1, 36.0),
    }


def test_gain_is_drawn_over_device_hours():
    report = Report(ATTEMPTS, (BASE, KEPT), {}, live=False)
    (hours,) = report.spending()
    assert "0.04 device hours spent in all, for a gain of +0.100000" in hours


text = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=12)), max_size=5).map("".join)


@settings(max_examples=40)
@example(*['" onmouseover="alert(1)'] * 8)
@example(*["".join(NASTY)] * 8)
@given(*[text] * 8)
def test_candidate_text_is_never_markup(title, why, code, log, reason, proposer, model, note):
    hostile = replace(
        ATTEMPTS[2],
        title=title, hypothesis=why, reason=reason, proposer=proposer, usage=Usage(model=model),
        edits=(Edit(title or "f", code, note),), check_notes=(CheckNote(proposer, False, note),),
        runs=(run(3, log_tail=log, status=reason, sandbox={note: log}, hashes={note: code}),),
    )  # fmt: skip
    session = SessionRecord(1, title, "", 1, "", proposer, {"x": note}, 0.0)
    attempts, champions = (*ATTEMPTS[:2], hostile, ATTEMPTS[3]), (BASE, KEPT)
    hostile = replace(hostile, name=title, state="running")
    status = [{**STATUS, "attempt": title, "title": why, "purpose": note, "phase": model}]
    facts = {"tag": "demo", "sessions": [session], "status": status}
    rendered = render(attempts, champions, facts, live=True)
    rendered.encode("utf-8")
    shown, plain = Page(rendered), page(live=True)
    allowed = {tag for tag, _ in plain.elements}
    allowed |= {"ins", "del", "b", "pre", "h3", "progress", "caption"}
    assert {tag for tag, _ in shown.elements} <= allowed
    assert sum(tag in ("script", "style", "meta", "title") for tag, _ in shown.elements) == sum(
        tag in ("script", "style", "meta", "title") for tag, _ in plain.elements
    )
    for tag, attributes in shown.elements:
        assert not any(name.startswith("on") or name in ("style", "src") for name in attributes)
        assert str(attributes.get("href", "#")).startswith("#"), tag
    assert not set(rendered) & set("\x00\u202e\ud800")


def test_policy_allows_only_our_script_and_style():
    shown = page()
    (policy,) = [e[1]["content"] for e in shown.having(**{"http-equiv": "Content-Security-Policy"})]
    directives = dict(part.split(" ", 1) for part in str(policy).split("; "))
    assert directives["default-src"] == "'none'"
    for name in ("script", "style"):
        (content,) = ["".join(shown.inside[name])]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert directives[f"{name}-src"] == f"'sha256-{digest}'"


def test_page_refers_to_nothing_outside_itself():
    shown = page(confirmation=CONFIRMATION)
    for _, attributes in shown.elements:
        assert "src" not in attributes
        assert str(attributes.get("href", "#")).startswith("#")
    assert not re.search(r"url\(|@import|https?:", "".join(shown.inside["style"]))
    assert not re.search(r"fetch|https?:|import\(|innerHTML", "".join(shown.inside["script"]))


def test_every_link_has_a_target():
    shown = page(confirmation=CONFIRMATION)
    ids = [e[1]["id"] for e in shown.elements if e[1].get("id")]
    assert len(ids) == len(set(ids))
    targets = {str(e[1]["href"])[1:] for e in shown.elements if e[1].get("href")}
    assert targets <= set(ids)


# ---------------------------------------------------------------------- size


def _crowd(n: int, log: str) -> list[Attempt]:
    edit = Edit("train.py", "a = 1 < 2\n" * 40, "a = 2 < 3\n" * 40)
    verdicts = ("discard", "crash", "discard", "duplicate")
    rest = [
        attempt(
            i, verdicts[i % 4], None if i % 2 else 0.99, title="wide & deep " * 8, gain=-0.01,
            hypothesis="because " * 60, edits=(edit,), reason="not better than its bar " * 7,
            runs=tuple(run(i, seed, 0.99, log_tail=log) for seed in range(1 + i % 3)),
        )
        for i in range(2, n + 1)
    ]  # fmt: skip
    return [ATTEMPTS[0], *rest]


def _size(attempts) -> int:
    return len(render(attempts, (BASE,), {}, live=False).encode())


def test_page_size_does_not_depend_on_the_length_of_logs():
    size = _size(_crowd(500, "<&>" * 2_000))
    assert size < 500 * 12_000
    assert _size(_crowd(500, "<&>" * 20_000)) == size


def test_short_texts_are_shown_whole():
    log = "".join(f"line {i}\n" for i in range(100))
    shown = page(_crowd(10, log), (BASE,)).text
    assert "line 0 line 1" in shown
    assert "Shortened" not in shown


def test_shortened_text_names_where_the_whole_is():
    attempts = [replace(attempt, commit="c" * 40) for attempt in _crowd(12, "x" * 400_000)]
    assert "Shortened: log. Whole text: git show cccccccccc" in page(attempts, (BASE,)).text


@given(text, st.integers(1, 60))
def test_cut_keeps_the_head_of_a_diff_and_the_tail_of_a_log(whole, cap):
    head = rows.head(whole, cap).removesuffix("\n…")
    tail = rows.tail(whole, cap).removeprefix("…\n")
    assert max(len(head), len(tail)) <= cap or whole in (head, tail)
    assert whole.startswith(head)
    assert whole.endswith(tail)


# ---------------------------------------------------------------------- diffs and pictures


def test_diff_shows_each_edit_under_its_file():
    edits = (Edit("train.py", "a = 1\nb = 2\n", "a = 1\nb = 3\n"), Edit("model.py", "x\n", "y\n"))
    assert rows.diff(edits).split("\n") == [
        "@@ train.py @@", " a = 1", "-b = 2", "+b = 3", "@@ model.py @@", "-x", "+y",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("plain", "marked"),
    [
        ("-r = 0.8  # low\n+r = 0.6  # low", "<del>-r = <b>0.8</b>  # low\n</del>"),
        ("-a = f(x)\n+a = f(x, y)", "<del>-a = f(x)\n</del><ins>+a = f(x<b>, y</b>)\n</ins>"),
        ("-a\n+b", "<del>-a\n</del><ins>+b\n</ins>"),
        ("-a = 1\n-b = 1\n+a = 2", "<del>-a = 1\n-b = 1\n</del><ins>+a = 2\n</ins>"),
        (" a\n+<b>", " a\n<ins>+&lt;b&gt;\n</ins>"),
    ],
    ids=["word", "inserted", "nothing-alike", "uneven", "escaped"],
)
def test_diff_marks_what_differs_within_a_line(plain, marked):
    assert marked in rows.coloured(plain)


@given(st.text(alphabet="+- ab<\n"))
def test_markup_keeps_every_character_of_a_diff(code):
    assert "".join(Page(str(rows.coloured(code))).words) == code + "\n"


def _places(picture: str, shape: str) -> list[float]:
    return [float(y) for y in re.findall(rf'cy="([\d.]+)" (?:r="\d" )?class="{shape}"', picture)]


@pytest.mark.parametrize("direction", ["min", "max"])
def test_champion_moves_towards_the_better_side(direction):
    metric = {"name": "acc", "direction": direction, "unit": ""}
    better = 0.9 if direction == "min" else 1.1
    attempts = (ATTEMPTS[0], attempt(2, "keep", better, gain=0.1))
    champions = (BASE, Champion(2, 2, "b", {1: better}, 2.0))
    report = Report(attempts, champions, {"campaign": {"metric": metric}}, live=False)
    picture = str(report.progress())
    levels = re.search(
        r'd="M[\d.]+ ([\d.]+)H[\d.]+L[\d.]+ ([\d.]+)H[\d.]+" class="champion"', picture
    )
    assert levels
    start, end = float(levels[1]), float(levels[2])
    assert end > start if direction == "min" else end < start
    assert f"{'lower' if direction == 'min' else 'higher'} is better" in picture


@pytest.mark.parametrize(("direction", "level"), [("min", 1.2), ("max", 0.8)])
def test_attempt_is_drawn_at_the_champions_mean_less_its_gain(direction, level):
    metric = {"name": "m", "direction": direction, "unit": ""}
    lucky = attempt(2, "discard", 0.5, gain=-0.2)
    report = Report((ATTEMPTS[0], lucky), (BASE,), {"campaign": {"metric": metric}}, live=False)
    assert report._level(lucky) == pytest.approx(level)


def test_crash_is_drawn_at_the_foot_and_a_far_worse_score_at_the_edge():
    ruin = attempt(5, "discard", 50.0, gain=-49.0)
    report = Report((*ATTEMPTS, ruin), (BASE, KEPT), {}, live=False)
    picture = str(report.progress())
    assert re.search(r'class="x" data-s="2"', picture)
    assert re.search(r'class="o" data-s="5"', picture)
    assert re.search(r'class="d" data-s="4"', picture)
    assert 'href="#s3"' in picture


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=30))
def test_loss_curve_of_any_numbers_is_a_path_in_its_frame(curve):
    low, high = svg.loss_range([curve])
    path = svg.curve_path(curve, low, high)
    assert re.fullmatch(r"(M\d+ \d+(l(-?\d+ -?\d+ ?)*)?)?", path)


def test_loss_curve_begins_where_it_enters_its_frame():
    path = svg.curve_path([(0.05, 9.0), (0.35, 8.0), (0.65, 3.0), (0.95, 2.0)], 2.0, 4.0, points=10)
    assert re.fullmatch(rf"M{round(0.65 * svg.CURVE_W)} \d+l\d+ \d+", path)
    assert svg.curve_path([(0.1, 9.0), (0.9, 9.0)], 2.0, 4.0) != ""


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_inside_the_scale_and_few(low, width):
    scale = svg.Scale((low, low + width), (0.0, 100.0))
    ticks = scale.ticks()
    assert len(ticks) <= 11
    slack = (scale.high - scale.low) * 1e-6
    assert all(scale.low - slack <= tick <= scale.high + slack for tick in ticks)


scores = st.one_of(st.none(), st.floats(-1e60, 1e60))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(scores, scores, st.booleans()), max_size=6), st.sampled_from(["min", "max"])
)
def test_page_renders_for_any_scores(outcomes, direction):
    attempts, champions = [ATTEMPTS[0]], [BASE]
    for number, (score, gain, keep) in enumerate(outcomes, 2):
        verdict = "crash" if score is None else "keep" if keep else "discard"
        attempts.append(attempt(number, verdict, score, gain=gain))
        if verdict == "keep":
            champions.append(Champion(len(champions) + 1, number, "b", {1: score or 0.0}, number))
    metric = {"name": "m", "direction": direction, "unit": ""}
    rendered = render(attempts, champions, {"campaign": {"metric": metric}}, live=False)
    assert not re.search(r'="[^"]*\b(nan|inf)\b', rendered)


def test_page_is_made_in_parts():
    attempts = [attempt(i) for i in range(1, 300)]
    parts = list(html.render(attempts, (BASE,), {}, live=False))
    assert max(map(len, parts)) < len("".join(parts)) / 4


def test_failed_write_keeps_the_old_page(tmp_path: Path):
    old = tmp_path / "report.html"
    html.write(old, ATTEMPTS, (BASE, KEPT), {}, live=False)
    before = old.read_bytes()
    with pytest.raises(OSError, match="No such file"):
        html.write(tmp_path / "gone" / "report.html", ATTEMPTS, (BASE,), {}, live=False)
    assert old.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_facts_are_gathered_from_the_ledger(tmp_path: Path):
    ledger = Ledger.open(tmp_path, "demo")
    ledger.save_confirmation(CONFIRMATION)
    session = ledger.begin_session(driver="d", config={"iterations": 3})
    ledger.end_session(session, 0)
    facts = html.gather(ledger)
    assert facts["tag"] == "demo"
    assert facts["confirmation"] == CONFIRMATION
    assert facts["sessions"][0].config == {"iterations": 3}


def test_changed_brief_is_shown_at_its_first_attempt() -> None:
    briefs = ("aaaa1111", "aaaa1111", "bbbb2222", "aaaa1111", "bbbb2222")
    attempts = [
        Attempt(
            n, f"mutation-{n:04d}", "mutation", n, 1, "main", "done", 0.0, verdict="discard",
            meta={"brief": brief},
        )
        for n, brief in enumerate(briefs, 1)
    ]  # fmt: skip
    text = Page(render(attempts, (), {}, live=False)).text
    assert "aaaa1111 from mutation-0001; bbbb2222 from mutation-0003" in text
    assert text.count("First attempt with the changed program.md (bbbb2222).") == 1
    assert text.count("First attempt with") == 1
