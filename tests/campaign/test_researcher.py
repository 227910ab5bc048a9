"""Notes, papers, steering and cost forecast of a language model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.arxiv import Server, nowhere
from support.llm_campaign import ANSWER, idea, run_session
from support.project import PYTHON, Project
from support.prompts import context
from support.wire.server import Wire

from pytest_autoresearch.ledger.spend import CostBudget
from pytest_autoresearch.options import MAX_ATTEMPTS, OPTIONS
from pytest_autoresearch.proposers.llm.anthropic import AnthropicProposer
from pytest_autoresearch.proposers.llm.forecast import forecast
from pytest_autoresearch.proposers.llm.openai import ChatCompletionsProposer
from pytest_autoresearch.proposers.search.literals import LiteralSearch, ratchet


class Steered(Wire):
    """A person edits the brief when the second request has come in."""

    program: Path

    def step(self, body: dict[str, Any]) -> dict[str, Any]:
        """The next step of the script."""
        if len(self.requests) == 1:
            self.program.write_text("# lower it\n\nOnly ever change the warmup.\n")
        return super().step(body)


@pytest.fixture
def steered(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Steered]:
    wire = Steered(
        [
            {"text": idea(0.9) + "Idea: tie the weights\n"},
            {"text": idea(0.85)},  # drafted under the old brief: forgotten
            {"text": idea(0.8) + "Done: tie the weights\nLesson: lower is better\n"},
            {"text": idea(0.7)},
        ]
    )
    wire.program = project.path / "program.md"
    monkeypatch.setenv("ANTHROPIC_BASE_URL", wire.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    yield wire
    wire.close()


def asked(wire: Wire) -> list[tuple[str, str]]:
    """System and last part of every request's prompt."""
    return [
        (
            "\n".join(part["text"] for part in body["system"]),
            body["messages"][0]["content"][-1]["text"],
        )
        for body in wire.requests
    ]


@pytest.mark.slow
def test_prompt_contains_ideas_papers_and_the_edited_brief(
    project: Project, steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    arxiv = Server()
    monkeypatch.setenv("AUTORESEARCH_ARXIV", arxiv.url)
    project.write(".autoresearch/main/ideas.md", "# Ideas\n\n- [ ] my own idea\n")
    project.write("literature/notes.md", "smaller batches generalise\n")
    result = run_session(
        project, "--iterations=3", "--autoresearch-papers=muon", "--junitxml=log.xml"
    )
    arxiv.close()
    assert result.ret == 0

    prompts = asked(steered)
    for _, user in prompts:
        assert "my own idea" in user
        assert "arXiv:2505.16932v1" in user
        assert "| smaller batches generalise" in user
    assert len(arxiv.asked) == 1
    assert "tie the weights" not in prompts[0][1]
    assert "| - [ ] tie the weights (from mutation-0001)" in prompts[2][1]
    assert "| - [x] tie the weights (from mutation-0001)" in prompts[3][1]
    assert "| - lower is better (from mutation-0002)" in prompts[3][1]

    assert ["Only ever change the warmup." in system for system, _ in prompts] == [
        False, False, True, True,
    ]  # fmt: skip
    attempts = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert [s.title for s in attempts] == ["score 0.9", "score 0.8", "score 0.7"]
    briefs = [s.meta["brief"] for s in attempts]
    assert briefs[0] != briefs[1] == briefs[2]
    spent = CostBudget(project.ledger().path).spent()
    assert spent == pytest.approx(4 * ANSWER)  # the forgotten draft's price is the first attempt's
    assert [s.usage.cost_usd for s in attempts] == pytest.approx([2 * ANSWER, ANSWER, ANSWER])
    result.stdout.fnmatch_lines(["program.md changed; mutation-0002 is the first to use it (*)"])
    assert result.stdout.str().count("program.md changed") == 1
    properties = [
        {p.get("name"): p.get("value") for p in case.iter("property")}
        for name, case in project.cases().items()
        if name.startswith("mutation")
    ]
    assert [found["brief"] for found in properties] == briefs


AGENT = """\
#!{python}
import pathlib, sys
told = sys.stdin.read()
file = pathlib.Path("train.py")
file.write_text(file.read_text().replace("# ideas go here", "SCORE = 0.9\\n# ideas go here", 1))
print("Title: score 0.9")
if "| - [ ] my own idea" in told and "| smaller batches generalise" in told:
    print("Done: my own idea\\nIdea: of an agent")
"""


@pytest.mark.slow
def test_an_agent_reads_and_writes_the_same_notes(project: Project) -> None:
    project.write(".autoresearch/main/ideas.md", "- [ ] my own idea\n")
    project.write("literature/notes.md", "smaller batches generalise\n")
    project.write(".autoresearch/agent.py", AGENT.format(python=PYTHON))
    (project.path / ".autoresearch/agent.py").chmod(0o755)
    result = project.run(
        "--autoresearch-proposer=command:./.autoresearch/agent.py", "--iterations=1",
        "--autoresearch-control=0", "--autoresearch-confirm=0",
    )  # fmt: skip
    assert result.ret == 0
    result.stdout.fnmatch_lines(["proposals: 1 attempts, unknown price (command:agent.py)"])
    assert (project.path / ".autoresearch/main/ideas.md").read_text().splitlines() == [
        "- [x] my own idea", "- [ ] of an agent (from mutation-0001)",
    ]  # fmt: skip


@pytest.mark.slow
def test_workers_share_notes_papers_and_the_brief(
    project: Project, steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    arxiv = Server()
    monkeypatch.setenv("AUTORESEARCH_ARXIV", arxiv.url)
    steered.script = [{"text": idea(1 + n / 10) + "Idea: tie the weights\n"} for n in range(1, 9)]
    result = run_session(project, "--iterations=4", "--autoresearch-papers=muon", "-n2")
    arxiv.close()
    assert result.ret == 0
    assert len(arxiv.asked) == 1
    assert all("arXiv:2505.16932v1" in user for _, user in asked(steered))
    briefs = {s.meta["brief"] for s in project.ledger().attempts() if s.kind == "mutation"}
    assert 1 <= len(briefs) <= 2
    ideas = (project.path / ".autoresearch/main/ideas.md").read_text()
    assert ideas.count("tie the weights") == 1


def test_unknown_model_ends_the_session_before_the_baseline(
    project: Project, steered: Steered
) -> None:
    steered.model = {"status": 404, "type": "not_found_error", "message": "no such model"}
    result = run_session(project, "--iterations=3")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --autoresearch-proposer=anthropic: not found*"])
    assert not steered.requests
    assert not project.ledger().attempts()


def test_fast_proposer_is_checked_before_the_baseline(project: Project) -> None:
    project.write(
        "absent.py",
        "from pytest_autoresearch.core.proposal import ProposerUnavailable\n"
        "class Absent:\n"
        "    name = 'absent'\n"
        "    def __init__(self, experiment): pass\n"
        "    def check(self): raise ProposerUnavailable('nobody is here')\n"
        "    def close(self): pass\n",
    )
    project.pytester.syspathinsert()
    result = project.pytester.runpytest_subprocess(
        "--autoresearch", "--autoresearch-proposer=absent:Absent", "-p", "no:cacheprovider"
    )
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --autoresearch-proposer=absent:Absent: nobody is here"])
    assert not project.ledger().attempts()


@pytest.mark.slow
def test_session_prints_cost_forecast_and_warnings_first(
    project: Project, steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTORESEARCH_ARXIV", nowhere())
    result = run_session(project, "--iterations=1", "--autoresearch-papers=muon")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["no new papers:*refused*", "proposals: 1 attempts, about $0.0*claude-sonnet-5-5, genai-*"]
    )
    assert result.stdout.str().count("no new papers") == 1


# ---------------------------------------------------------------------- the preview


def cost(line: str) -> float:
    return float(line.split("about $")[1].split()[0])


def test_cost_forecast_grows_with_attempts_history_and_prices() -> None:
    sonnet, opus = AnthropicProposer("claude-sonnet-5-5"), AnthropicProposer("claude-opus-5-5")
    line = forecast(sonnet, context(), 100)
    assert line.startswith("proposals: 100 attempts, about $")
    assert 4.0 < cost(line) < 6.0  # 4,000 tokens of answer at $10 a million are $4.00
    assert cost(forecast(opus, context(), 100)) > cost(line)
    assert cost(forecast(sonnet, context(), 100, known=400)) > cost(line)
    assert cost(forecast(sonnet, context(files={"train.py": SOURCE * 9000}), 100)) > cost(line)
    controlled = forecast(sonnet, context(), 100, control=4)
    assert "100 attempts, at least 75 of them anthropic's" in controlled
    assert cost(controlled) < 0.76 * cost(line)


SOURCE = "LR = 0.02\n"


def test_control_arm_of_every_attempt_is_refused() -> None:
    parse = {option.field: option.parse for option in OPTIONS}["control"]
    assert [parse(text) for text in ("0", "2", "4")] == [0, 2, 4]
    for text in ("1", "-1", "often"):
        with pytest.raises(ValueError):
            parse(text)


@pytest.mark.parametrize(
    ("proposer", "says"),
    [
        (ChatCompletionsProposer("my-own-model"), "unknown price (my-own-model has no list price)"),
        (LiteralSearch("ratchet", ratchet), "unknown price (ratchet)"),
    ],
)
def test_forecast_without_a_list_price_says_so(proposer, says: str) -> None:
    assert says in forecast(proposer, context(), 10)
    assert "$" not in forecast(proposer, context(), MAX_ATTEMPTS)


HALF_EDITED = """
import pathlib

def pytest_runtest_setup(item):
    brief = pathlib.Path("program.md")
    if item.name == "mutation-0002":
        brief.write_text("---\\nsearch_space: {LR: [0.1\\n---\\n")
    elif item.name == "mutation-0003":
        brief.unlink()
    elif item.name == "mutation-0004":
        brief.write_text("# now this\\n")
"""


def test_temporarily_unreadable_brief_costs_no_attempt(project: Project) -> None:
    conftest = (project.path / "conftest.py").read_text()
    project.write("conftest.py", conftest + HALF_EDITED)
    project.commit("somebody edits")
    result = project.run("--autoresearch-proposer=ratchet", "--iterations=4")
    assert result.ret == 0
    attempts = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert [s.state for s in attempts] == ["done"] * 4
    briefs = [s.meta["brief"] for s in attempts]
    assert briefs[0] == briefs[1] == briefs[2] != briefs[3]
    printed = result.stdout.str()
    assert printed.count("program.md line 2: the front matter is not YAML; proposals use") == 1
    assert printed.count("No such file or directory: '") == 1


def test_unreadable_brief_at_the_start_is_a_usage_error(project: Project) -> None:
    project.write("program.md", "---\nsearch_space: {LR: 3}\n---\n")
    project.commit("half a brief")
    result = project.run("--autoresearch-proposer=ratchet", "--iterations=4")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*program.md: search_space: LR: write *"])
