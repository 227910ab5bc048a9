"""Agent CLIs as real programs in the real sandbox: access, answers, ends and costs."""

from __future__ import annotations

import json
import os
import re
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.prepare import SETTINGS, load_prepare, write_texts
from support.project import Project, git

from pytest_autoresearch import Experiment
from pytest_autoresearch.campaign.facts import SessionSettings
from pytest_autoresearch.campaign.researcher import Researcher
from pytest_autoresearch.core.proposal import (
    Context,
    PastAttempt,
    Proposal,
    ProposalInvalid,
    ProposalRefused,
    ProposerExhausted,
    ProposerUnavailable,
    Usage,
)
from pytest_autoresearch.data.dataset import Dataset
from pytest_autoresearch.ledger.spend import CostBudget
from pytest_autoresearch.proposers.agents.command import (
    _CERTIFICATES,
    _PROXIES,
    AGAIN_S,
    BUDGET_USD,
    OUTPUT_BYTES,
    AgentProposer,
    create_agent,
)
from pytest_autoresearch.proposers.agents.recipes import AgentReply
from pytest_autoresearch.proposers.registry import Settings, check, create, with_settings
from pytest_autoresearch.sandbox.launch import survey
from pytest_autoresearch.sandbox.limits import candidate_environment
from pytest_autoresearch.source.edits import apply

SOURCE = "LR = 0.02\nDEPTH = 2\n\n\ndef train():\n    return LR * DEPTH\n"
PREPARE = "def batches(): ...\n"
EDIT = "sed -i 's/LR = 0.02/LR = 0.03/' train.py\n"
ANSWER = "echo 'Title: raise the rate'; echo 'Hypothesis: it was too low'; echo 'Cost: $0.10'\n"
ALREADY_ASKED = "You were asked this before"

confined = pytest.mark.skipif(
    not survey().files_confined, reason="this machine cannot hide files from a process"
)


def context(**files: str) -> Context:
    files = files or {"train.py": SOURCE}
    base = PastAttempt(
        1, "baseline-1", None, "baseline", "", "", "baseline", "", 1.0, None, None, 0, 0, {},
        lambda: files,
    )  # fmt: skip
    return Context(
        Experiment(tuple(files)), "# lower it\n", 3, 0, base, files, {"prepare.py": PREPARE},
        [base], base, 0.01,
    )  # fmt: skip


MakeAgent = Callable[..., AgentProposer]


@pytest.fixture
def make_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeAgent:
    """Return a function that writes a script and returns its proposer; its folder is on PATH."""
    for name in (*_PROXIES, *_CERTIFICATES, *(n for n in os.environ if n.endswith("_KEY"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def write(script: str, arguments: str = "", words: str = "", **fields: object) -> AgentProposer:
        program(tmp_path / "bin" / "agent", script)
        agent = create_agent(f"{words} ./bin/agent {arguments}", tmp_path)
        return replace(agent, **fields)

    return write


def program(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}")
    path.chmod(0o755)


def python(script: str) -> str:
    return f"#!{sys.executable}\n{script}"


def after(proposal: Proposal, **files: str) -> str:
    return apply(files or {"train.py": SOURCE}, proposal.edits)["train.py"]


# Valid answers


def test_agents_edits_become_the_proposal(make_agent: MakeAgent) -> None:
    proposal = make_agent(EDIT + ANSWER + "echo 'Model: tiny-1'; echo 'Idea: a deeper one'").propose(
        context()
    )
    assert after(proposal) == SOURCE.replace("0.02", "0.03")
    assert (proposal.title, proposal.hypothesis) == ("raise the rate", "it was too low")
    assert proposal.proposer == "command:agent"
    assert proposal.usage.seconds > 0
    assert replace(proposal.usage, seconds=0) == Usage("tiny-1", requests=1, cost_usd=0.1)
    assert proposal.meta["agent"] == "agent"
    assert proposal.meta["repairs"] == 0
    assert proposal.meta["ideas"] == ["a deeper one"]
    assert proposal.meta["sandbox"]


def test_prompt_is_a_file_and_standard_input(make_agent: MakeAgent) -> None:
    script = (
        'cat > "$HOME/got"; cmp "$HOME/got" "$1" || exit 1\n'
        'grep -q "# lower it" "$1" && grep -q "attempt 3" "$1" && [ "$2" = big-1 ] || exit 2\n'
        + EDIT
    )
    agent = make_agent(script, "{prompt_file} {model}", model="big-1")
    assert agent.propose(context()).usage.model == "big-1"


def test_agent_works_in_a_plain_copy(make_agent: MakeAgent) -> None:
    script = EDIT + 'echo "Hypothesis: $(find . -type f | sort | xargs)"'
    proposal = make_agent(script).propose(context(**{"train.py": SOURCE, "model/net.py": "X = 1\n"}))
    assert proposal.hypothesis == "model/net.py ./prepare.py ./program.md ./train.py"
    assert proposal.title == "LR 0.02 -> 0.03"


def test_hidden_files_and_caches_are_ignored(make_agent: MakeAgent) -> None:
    script = EDIT + (
        "mkdir -p __pycache__ .agent; touch .agent.history .agent/log __pycache__/train.pyc"
    )
    assert after(make_agent(script).propose(context())) == SOURCE.replace("0.02", "0.03")


def test_agent_may_answer_with_blocks(make_agent: MakeAgent) -> None:
    script = (
        "cat <<'END'\nTitle: raise\n\ntrain.py\n<<<<<<< SEARCH\nLR = 0.02\n=======\nLR = 0.03\n"
        ">>>>>>> REPLACE\nEND\n"
    )
    assert after(make_agent(script).propose(context())) == SOURCE.replace("0.02", "0.03")


def test_example_of_the_documentation_runs(make_agent: MakeAgent) -> None:
    text = (Path(__file__).parents[2] / "docs" / "proposers.md").read_text()
    [example] = re.findall(r"```python\n(#!.*?# agent\.py\n.*?)```", text, re.DOTALL)
    proposal = make_agent(example).propose(context())
    assert after(proposal) == SOURCE.replace("0.02", "0.02 / 2")
    assert (proposal.title, proposal.usage.model) == ("halve the rate", "none")
    assert proposal.usage.cost_usd == 0.0


@pytest.mark.parametrize(
    ("first", "complaint"),
    [
        ("echo 'I have no idea.'", "no SEARCH/REPLACE block"),
        ("echo 'LR = (' >> train.py", "line 7 does not compile"),
        ("echo '# tuned' >> train.py", "change nothing that runs"),
    ],
)
def test_unusable_answer_is_sent_back_with_a_fresh_copy(
    make_agent: MakeAgent, first: str, complaint: str
) -> None:
    script = (
        f'cat > "$HOME/got"; if ! grep -q "{ALREADY_ASKED}" "$HOME/got"; then {first}; exit; fi\n'
        f'grep -q "{complaint}" "$HOME/got" || exit 3\n' + EDIT + ANSWER
    )
    proposal = make_agent(script).propose(context())
    assert after(proposal) == SOURCE.replace("0.02", "0.03")
    assert proposal.meta["repairs"] == 1
    assert proposal.usage.requests == 2


def test_answer_without_changes_is_invalid_after_the_repairs(make_agent: MakeAgent) -> None:
    with pytest.raises(ProposalInvalid, match="after 2 repairs") as caught:
        make_agent("echo 'API error: 401'; echo 'Cost: $0.10'; exit 0").propose(context())
    assert caught.value.usage.requests == 3
    assert caught.value.usage.cost_usd == pytest.approx(0.3)
    assert caught.value.meta["agent"] == "agent"


# Forbidden changes and reads


@pytest.mark.parametrize(
    ("forbidden", "complaint"),
    [
        ("echo 'X = 1' >> prepare.py", "changed prepare.py, which no proposal may change"),
        ("chmod 000 prepare.py; mv prepare.py p; cp p prepare.py; rm p; echo > prepare.py",
         "changed prepare.py"),
        ("mv prepare.py .p; ln -s .p prepare.py", "changed prepare.py"),
        ("rm prepare.py", "removed prepare.py"),
        ("echo more >> program.md", "changed program.md"),
        ("echo 'X = 1' > helper.py", "made helper.py, which is not an editable file"),
        ("mkdir -p a/b; touch a/b/c", "made a/b/c"),
        ("ln -s / root", "made root"),
        ("touch \"$(printf 'two\\nlines\\033[31m')\"", "made two lines, which"),
        ("seq 510 | xargs touch", "more than 500 files and folders"),
        ("seq 510 | xargs mkdir", "more than 500 files and folders"),
        ('mkdir -p "$(seq -s / 1000)"', "more than 500 files and folders"),
        ("rm train.py", "left no train.py of at most 1 MiB of UTF-8 text"),
        ("ln -sf /etc/passwd train.py", "left no train.py"),
        ("ln -sf prepare.py train.py", "left no train.py"),
        ("ln -sf /dev/zero train.py", "left no train.py"),
        ("rm train.py; mkfifo train.py", "left no train.py"),
        ("rm train.py; mkdir train.py", "left no train.py"),
        ("printf '\\377\\376' > train.py", "left no train.py"),
        ("yes 'LR = 1' | head -c 3000000 > train.py", "left no train.py"),
    ],
)  # fmt: skip
def test_forbidden_change_is_invalid_and_named(make_agent: MakeAgent, forbidden: str, complaint: str) -> None:
    with pytest.raises(ProposalInvalid) as caught:
        make_agent(EDIT + forbidden + "\n" + ANSWER).propose(context())
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.title == "raise the rate"
    assert caught.value.usage.cost_usd == 0.1


@pytest.mark.parametrize("folder", ["model", ".model"])
def test_folder_replaced_by_a_link_is_not_followed(make_agent: MakeAgent, folder: str) -> None:
    script = f'mv {folder} "$HOME/m"; echo Y=1 > "$HOME/m/net.py"; ln -s "$HOME/m" {folder}'
    with pytest.raises(ProposalInvalid, match=folder):
        make_agent(script).propose(context(**{"train.py": SOURCE, f"{folder}/net.py": "X = 1\n"}))


def test_file_of_repeated_lines_is_replaced_whole(make_agent: MakeAgent) -> None:
    blank = "\n" * 300
    source = blank + SOURCE
    script = "yes '' | head -c 1000000 > train.py\n"
    proposal = make_agent(script).propose(context(**{"train.py": source}))
    assert [edit.search for edit in proposal.edits] == [source]
    assert after(proposal, **{"train.py": source}) == "\n" * 1000000


@confined
def test_agent_cannot_write_outside_the_copy(
    make_agent: MakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "old.txt").write_text("old")
    places = [tmp_path / "new.txt", home / "new.txt", tmp_path / "bin" / "new.txt"]
    script = "".join(f"echo x > {place}\n" for place in places)
    script += f"echo x > ../new.txt; echo x > {tmp_path}/old.txt; rm {tmp_path}/old.txt\n"
    proposal = make_agent(script + EDIT + ANSWER).propose(context())
    assert proposal.title == "raise the rate"
    assert not [place for place in places if place.exists()]
    assert (tmp_path / "old.txt").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bin", "home", "old.txt"]


@confined
def test_data_ledger_repository_home_and_environment_are_hidden(
    make_agent: MakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "5f1d-not-for-agents"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MY_SECRET", secret)
    places = [
        tmp_path / name
        for name in (
            "home/.claude.json", ".autoresearch/main/ledger.sqlite", ".autoresearch/data/val.bin",
            ".git/config", "train.py", "notes/plan.txt",
        )
    ]  # fmt: skip
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(secret)
    script = f"""
import glob
readable = []
for name in [*{[str(p) for p in places]}, *glob.glob("/proc/*/environ"), *glob.glob("/proc/*/cwd/*")]:
    try:
        text = open(name, "rb").read()
    except OSError:
        continue
    if b"{secret[:8]}" + b"{secret[8:]}" in text:
        readable.append(name)
open("train.py", "a").write("DEPTH = 3\\n")
print("Title: readable", *readable)
"""
    assert make_agent(python(script)).propose(context()).title == "readable"
    shown = make_agent(python(script), words="read:notes").propose(context())
    assert shown.title == f"readable {places[-1]}"


@confined
@pytest.mark.parametrize("interpreter", [sys.executable, "/usr/bin/python3", "/usr/bin/env python3"])
def test_agent_cannot_read_modules_that_hold_validation_text(
    make_agent: MakeAgent, tmp_path: Path, interpreter: str
) -> None:
    if not os.path.exists(interpreter.split()[0]):
        pytest.skip(f"there is no {interpreter}")
    source, manifest = write_texts(tmp_path / "source"), tmp_path / "data" / "manifest.json"
    arguments = ["--corpus", str(source), "--out", str(manifest.parent), *SETTINGS]
    assert load_prepare().main(arguments) == 0
    hidden = {
        "python": sys.version.split()[0],
        "hidden_sources": ["trace.py", "json/tool.py"],
    }
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | hidden))
    script = f"""#!{interpreter}
import glob, json, os, sys, sysconfig
own = sysconfig.get_path("stdlib")
folders = {{own, {sysconfig.get_path("stdlib")!r}, *glob.glob("/usr/lib/python3*")}}
readable = []
for folder in sorted(folders):
    for pattern in ("trace.py", "json/tool.py", "__pycache__/trace.*", "json/__pycache__/tool.*"):
        for path in glob.glob(os.path.join(folder, pattern)):
            try:
                if open(path, "rb").read():
                    readable.append(path)
            except OSError:
                pass
open("train.py", "a").write("DEPTH = 3\\n")
print("Title: readable", *readable, "and", os.path.isfile(os.path.join(own, "wave.py")))
"""
    agent = make_agent(script)
    assert "trace.py" in agent.propose(context()).title
    researcher = Researcher(
        tmp_path,
        tmp_path / "ledger.sqlite",
        SessionSettings(proposer="command:./bin/agent"),
        Experiment(data=Path("data")),
        say=print,
    )
    assert researcher.proposer().propose(context()).title == "readable and True"
    # the user may show a module to an agent that imports it
    shown = os.path.join(sysconfig.get_path("stdlib"), "json", "tool.py")
    with_settings(agent, Settings(hide=tuple(map(str, Dataset.open(manifest.parent).hidden_paths()))))
    titles = replace(agent, read=(shown,)).propose(context()).title
    assert "json/tool.py" in titles
    assert "trace.py" not in titles
    needs = make_agent(f"#!{interpreter}\nimport trace\n", hide=agent.hide)
    with pytest.raises(ProposerUnavailable, match=r"show it with command:read:/\S+/trace\.py"):
        needs.propose(context())


# Processes and limits


def processes_with(mark: str) -> list[str]:
    """Return the ids of processes whose command line contains a mark."""
    processes = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        try:
            text = Path("/proc", name, "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if name.isdigit() and mark in text:
            processes.append(name)
    return processes


def wait_until(condition: Callable[[], bool]) -> bool:
    """Wait up to a minute for a condition; return whether it came true."""
    ends = time.monotonic() + 60
    while not condition() and time.monotonic() < ends:
        time.sleep(0.02)
    return condition()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("output", "again"),
    [
        ("Cost: $0.00; API Error: 529 overloaded", AGAIN_S),
        ("Cost: $0.10; API Error: 529 overloaded", None),  # each retry would be paid
        ("API Error: 529 overloaded", None),  # the cost is unknown
        ("Cost: $0.00; no option 4290", None),
    ],
)
def test_busy_provider_pauses_the_session_if_the_failure_was_free(
    make_agent: MakeAgent, output: str, again: float | None
) -> None:
    lines = "".join(f"echo '{line}'\n" for line in output.split("; "))
    with pytest.raises(ProposerUnavailable) as caught:
        make_agent(f"{lines}exit 1\n").propose(context())
    assert caught.value.again_s == again


@pytest.mark.parametrize("ending", ["wait", "exit 0"])
def test_agents_processes_end_with_it(make_agent: MakeAgent, ending: str) -> None:
    mark = f"9{os.getpid()}.{len(ending)}"
    script = (
        f"trap '' TERM HUP\n{EDIT}{ANSWER}"
        f"(sleep {mark} & sleep {mark}) &\n(setsid sleep {mark} &) &\n"
        f"setsid sh -c 'sleep {mark}; sed -i s/0.03/0.9/ train.py' &\n"
        f'while [ "$(cat /proc/[0-9]*/cmdline | tr -d "\\0" | grep -o "sleep{mark}" | wc -l)" '
        f"-lt 2 ]; do sleep 0.05; done\n{ending}\n"
    )
    agent = make_agent(script, deadline_s=3.0 if ending == "wait" else 60.0)
    if ending == "wait":
        with pytest.raises(ProposerUnavailable, match="no answer in 3 s") as caught:
            agent.propose(context())
        assert caught.value.usage.cost_usd == 0.1
    else:
        assert after(agent.propose(context())) == SOURCE.replace("0.02", "0.03")
    assert wait_until(lambda: not processes_with(f"sleep\0{mark}"))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_close_ends_the_running_agent(make_agent: MakeAgent) -> None:
    mark = f"8{os.getpid()}.5"
    agent, raised = make_agent(f"sleep {mark}"), []

    def ask() -> None:
        try:
            agent.propose(context())
        except ProposerUnavailable as error:
            raised.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    assert wait_until(lambda: bool(processes_with(mark)))
    agent.close()
    thread.join(60)
    assert raised == ["command:agent was ended with the session"]
    agent.close()


def test_hundred_megabytes_of_output_are_bounded(make_agent: MakeAgent) -> None:
    flood = "yes 'Not a title: at all' | head -c 100000000\n"
    agent = make_agent(flood + flood.rstrip() + " >&2\n" + EDIT + ANSWER)
    proposal = agent.propose(context())
    assert proposal.title == "raise the rate"
    lengths = []
    agent.recipe = replace(
        agent.recipe, read=lambda text, last: lengths.append(len(text)) or AgentReply()
    )
    agent.propose(context())
    assert 1 << 20 < lengths[0] < 2 * OUTPUT_BYTES


def test_failing_exit_status_is_not_charged(make_agent: MakeAgent) -> None:
    with pytest.raises(ProposerUnavailable, match="quota is used up; the attempt is not charged"):
        make_agent(EDIT + ANSWER + "echo 'quota is used up' >&2; exit 1").propose(context())


def test_program_that_cannot_start_is_not_charged(make_agent: MakeAgent, tmp_path: Path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    agent = make_agent("#!/no/such/interpreter\n", cost_budget=cost_budget)
    with pytest.raises(ProposerUnavailable, match="command:agent"):
        agent.propose(context())
    assert cost_budget.spent() == 0.0


# Keys


def env_of(agent: AgentProposer) -> dict[str, str]:
    return json.loads(agent.propose(context()).hypothesis.removeprefix("got "))


TELL_ENVIRONMENT = python(
    "import json, os\n"
    "open('train.py', 'a').write('DEPTH = 3\\n')\n"
    "print('Hypothesis: got', json.dumps(dict(os.environ)))\n"
)
OWN = set(candidate_environment("home", threads=None)) | {"PATH", "LC_CTYPE"}


def test_agent_gets_named_variables_only(make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GITHUB_TOKEN", "MY_KEY", "MY_PLACE"):
        monkeypatch.setenv(name, f"value of {name}")
    assert set(env_of(make_agent(TELL_ENVIRONMENT))) <= OWN
    given = env_of(make_agent(TELL_ENVIRONMENT, words="env:MY_KEY env:MY_PLACE"))
    assert set(given) - OWN == {"MY_KEY", "MY_PLACE"}
    assert given["MY_KEY"] == "value of MY_KEY"
    assert given["HOME"] != os.environ["HOME"]


def fake_cli(folder: Path, name: str, answer: str) -> None:
    """Put a program of a CLI's name on PATH that prints its version, or edits and answers.

    ``ENVIRONMENT`` and ``ARGV`` in the answer stand for what it was given.
    """
    program(
        folder / name,
        python(
            "import json, os, sys\n"
            "if sys.argv[1:] == ['--version']:\n"
            f"    print('{name} 9.8.7')\n"
            "    sys.exit()\n"
            "text = open('train.py').read().replace('0.02', '0.03')\n"
            "open('train.py', 'w').write(text)\n"
            f"answer = {answer!r}\n"
            "for name, value in (('ENVIRONMENT', dict(os.environ)), ('ARGV', sys.argv[1:])):\n"
            "    value = json.dumps(value)\n"
            "    answer = answer.replace(name, json.dumps(value)[1:-1])\n"
            "print(answer)\n"
        ),
    )


CLAUDE_OUTPUT = (
    '{"type": "result", "subtype": "success", "is_error": false, "stop_reason": "end_turn", '
    '"result": "Title: ARGV\\nHypothesis: got ENVIRONMENT", "total_cost_usd": 0.0532, '
    '"usage": {"input_tokens": 12, "output_tokens": 34}, "modelUsage": {"claude-x": {}}}'
)
CODEX_OUTPUT = (
    '{"type":"item.completed","item":{"type":"agent_message","text":"Hypothesis: got ENVIRONMENT"}}'
)
GEMINI_OUTPUT = '{"response": "Hypothesis: got ENVIRONMENT"}'
PI_OUTPUT = (
    '{"type":"message_end","message":{"role":"assistant","stopReason":"stop","model":"m",'
    '"content":[{"type":"text","text":"Hypothesis: got ENVIRONMENT"}]}}'
)


@pytest.mark.parametrize(
    ("name", "answer", "model", "keys", "passed"),
    [
        ("claude", CLAUDE_OUTPUT, None, ["ANTHROPIC_API_KEY", "OPENAI_API_KEY"],
         {"ANTHROPIC_API_KEY": "ANTHROPIC_API_KEY"}),
        ("claude", CLAUDE_OUTPUT, None, ["ANTHROPIC_AUTH_TOKEN"],
         {"ANTHROPIC_AUTH_TOKEN": "ANTHROPIC_AUTH_TOKEN"}),
        ("codex", CODEX_OUTPUT, None, ["ANTHROPIC_API_KEY", "OPENAI_API_KEY"],
         {"CODEX_API_KEY": "OPENAI_API_KEY"}),
        ("pi", PI_OUTPUT, None, ["ANTHROPIC_API_KEY", "OPENAI_API_KEY"],
         {"ANTHROPIC_API_KEY": "ANTHROPIC_API_KEY"}),
        ("pi", PI_OUTPUT, "openai/gpt-9", ["ANTHROPIC_API_KEY", "OPENAI_API_KEY"],
         {"OPENAI_API_KEY": "OPENAI_API_KEY"}),
        ("gemini", GEMINI_OUTPUT, None, ["GOOGLE_API_KEY"], {"GEMINI_API_KEY": "GOOGLE_API_KEY"}),
    ],
)  # fmt: skip
def test_recipe_passes_one_key(
    make_agent: MakeAgent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    answer: str,
    model: str | None,
    keys: list[str],
    passed: dict[str, str],
) -> None:
    fake_cli(tmp_path / "bin", name, answer)
    for key in [*keys, "GITHUB_TOKEN"]:
        monkeypatch.setenv(key, f"value of {key}")
    agent = replace(create_agent(name, tmp_path), model=model)
    proposal = agent.propose(context())
    given = json.loads(proposal.hypothesis.removeprefix("got "))
    assert {k: v for k, v in given.items() if k not in OWN} == {
        inside: f"value of {outside}" for inside, outside in passed.items()
    }
    assert proposal.meta["agent"] == f"{name} {name} 9.8.7"


def test_model_effort_and_user_arguments_reach_the_cli(
    make_agent: MakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cli(tmp_path / "bin", "claude", CLAUDE_OUTPUT.replace("Hypothesis", "x").replace(
        "Title: ARGV", "Hypothesis: got ARGV"))  # fmt: skip
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    agent = create("command:claude --verbose 'two words'", experiment=Experiment(), root=tmp_path)
    settings = Settings(
        model="opus", effort="low", cost_budget=CostBudget(tmp_path / "l.sqlite", 3.0)
    )
    with_settings(agent, settings)
    proposal = agent.propose(context())
    argv = json.loads(proposal.hypothesis.removeprefix("got "))
    assert argv[-6:] == ["--model", "opus", "--effort", "low", "--verbose", "two words"]
    assert argv[argv.index("--allowedTools") :][:3] == [
        "--allowedTools", "Read(/**)", "Edit(/train.py)",
    ]  # fmt: skip
    assert proposal.usage.cost_usd == 0.0532
    assert CostBudget(tmp_path / "l.sqlite").spent() == 0.0532


# What is wrong before anything is asked


@pytest.mark.parametrize(
    ("argument", "output"),
    [
        ("", "names no program; write command:{claude, codex, pi, gemini, aider}"),
        ("env:PATH", "names no program"),
        ("./no-such", "./no-such is not a program here; give its path"),
        ("env:NOT_SET ./bin/agent", "NOT_SET is not set; export it first"),
        ("read:nothing ./bin/agent", "there is no nothing to read"),
        ("claude 'unclosed", "No closing quotation"),
        ("claude", "needs ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN"),
        ("codex", "npm install -g @openai/codex"),
    ],
)
def test_bad_command_is_rejected_at_the_start(
    make_agent: MakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, output: str
) -> None:
    make_agent("true")
    fake_cli(tmp_path / "bin", "claude", "")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(ValueError, match=re.escape(output)):
        check(f"command:{argument}", tmp_path)


def test_broken_installation_is_unavailable(
    make_agent: MakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin" / "claude", "echo 'Cannot find module' >&2; exit 1")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    with pytest.raises(ProposerUnavailable, match=r"status 1: Cannot find module; reinstall"):
        create_agent("claude", tmp_path).check()


def test_standard_error_is_read_if_there_is_no_output(
    make_agent: MakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = '{"error": {"message": "no quota"}}'
    program(
        tmp_path / "bin" / "gemini",
        f"[ \"$1\" = --version ] && {{ echo 0.61 >&2; exit; }}; echo '{failure}' >&2; exit 41",
    )
    monkeypatch.setenv("GEMINI_API_KEY", "x")
    agent = create_agent("gemini", tmp_path)
    agent.check()
    with pytest.raises(ProposerUnavailable, match="command:gemini: no quota; the attempt"):
        agent.propose(context())


# Money


def test_run_without_a_price_costs_its_reservation_under_a_cap(make_agent: MakeAgent, tmp_path: Path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=1.5 * BUDGET_USD)
    priced = make_agent(EDIT + ANSWER, cost_budget=cost_budget)
    priced.propose(context())
    assert cost_budget.spent() == pytest.approx(0.1)
    unpriced = make_agent(EDIT, cost_budget=cost_budget)
    assert unpriced.propose(context()).usage.cost_usd == BUDGET_USD  # the attempts add up to it
    assert cost_budget.spent() == pytest.approx(0.1 + BUDGET_USD)
    with pytest.raises(ProposerExhausted, match="--autoresearch-max-cost"):
        unpriced.propose(context())


def test_reservation_of_another_worker_is_waited_for(make_agent: MakeAgent, tmp_path: Path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=1.5 * BUDGET_USD)
    held = cost_budget.reserve("m", BUDGET_USD)
    with pytest.raises(ProposerUnavailable, match="not charged"):
        make_agent(EDIT + ANSWER, cost_budget=cost_budget, deadline_s=0.1).propose(context())
    threading.Timer(0.5, cost_budget.settle, (held, 0.1)).start()
    make_agent(EDIT + ANSWER, cost_budget=cost_budget).propose(context())
    assert cost_budget.spent() == pytest.approx(0.2)


def test_known_costs_are_counted_without_a_cap(make_agent: MakeAgent, tmp_path: Path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite")
    make_agent(EDIT, cost_budget=cost_budget).propose(context())
    make_agent(EDIT + ANSWER, cost_budget=cost_budget).propose(context())
    assert cost_budget.spent() == pytest.approx(0.1)


def test_tokens_without_dollars_are_priced_from_the_list(
    make_agent: MakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = '{"type":"turn.completed","usage":{"input_tokens":1000,"output_tokens":100}}'
    fake_cli(tmp_path / "bin", "codex", f"{CODEX_OUTPUT}\n{used}")
    monkeypatch.setenv("CODEX_API_KEY", "x")
    agent = create_agent("codex", tmp_path)
    assert agent.propose(context()).usage.cost_usd is None
    known = replace(agent, model="gpt-5").propose(context()).usage
    assert (known.model, known.input_tokens, known.output_tokens) == ("gpt-5", 1000, 100)
    assert known.cost_usd == pytest.approx((1000 * 1.25 + 100 * 10) / 1e6)


def test_control_characters_in_json_escapes_are_removed(
    make_agent: MakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = r'{"response": "Title: half \ud800 of\u001b[31m it\u0000"}'
    fake_cli(tmp_path / "bin", "gemini", output)
    monkeypatch.setenv("GEMINI_API_KEY", "x")
    assert create_agent("gemini", tmp_path).propose(context()).title == "half of it"


def test_third_refusal_ends_the_session(
    make_agent: MakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cli(tmp_path / "bin", "claude", CLAUDE_OUTPUT.replace("end_turn", "refusal"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    agent = create_agent("claude", tmp_path)
    for _ in range(3):
        with pytest.raises(ProposalRefused) as caught:
            agent.propose(context())
        assert caught.value.usage.cost_usd == 0.0532
    with pytest.raises(ProposerExhausted, match="declined 3 times"):
        agent.propose(context())


@confined
def test_unconfined_agent_gives_a_warning(make_agent: MakeAgent) -> None:
    agent = make_agent(EDIT + ANSWER)
    assert agent.check() == ""
    with_settings(agent, Settings(sandbox="off"))
    assert "agent is not confined here" in agent.check()
    assert agent.propose(context()).meta["sandbox"].startswith("no confinement")


# A campaign


CAMPAIGN_AGENT = r"""#!/bin/sh
cat > "$HOME/prompt"
attempt=$(sed -n 's/.*mutation for attempt \([0-9]*\).*/\1/p' "$HOME/prompt")
score() {
    sed -i "s/^# ideas go here/SCORE = $1\n# ideas go here/" train.py
    echo "Title: score $1"
    echo "Cost: \$0.10"
}
case $attempt in
    1) score 0.9 ;;
    2) score 0.1; echo '# easier' >> program.md ;;
    3) score 0.2; echo 'overloaded' >&2; exit 1 ;;
    4) score 1.5 ;;
    5) grep -q "asked this before" "$HOME/prompt" && score 0.7 ;;
esac
exit 0
"""


@pytest.mark.slow
def test_campaign_with_an_agent_keeps_gains_and_charges_no_failure(
    project: Project,
) -> None:
    program(project.path / "ideas" / "agent", CAMPAIGN_AGENT)
    result = project.pytester.runpytest_subprocess(
        "--autoresearch", "--autoresearch-proposer=command:ideas/agent", "--iterations=5",
        "--autoresearch-control=0", "--autoresearch-confirm=0", "--autoresearch-max-cost=9usd",
        "-p", "no:cacheprovider", "--junitxml=log.xml", timeout=300,
    )  # fmt: skip
    assert result.ret == 1  # one attempt ended in an error
    attempts = {s.number: s for s in project.ledger().attempts() if s.kind == "mutation"}
    assert {n: s.verdict or s.state for n, s in attempts.items()} == {
        1: "keep", 2: "invalid", 3: "infra", 4: "discard", 5: "keep",
    }  # fmt: skip
    assert "changed program.md" in attempts[2].reason
    assert "overloaded; the attempt is not charged" in attempts[3].reason
    assert attempts[4].proposer == "command:agent"
    assert [attempts[n].usage.cost_usd for n in (1, 2, 4)] == [0.1] * 3
    champion = project.ledger().champion()
    assert champion is not None
    assert champion.attempt_id == attempts[5].id
    assert "SCORE = 0.7" in git(project.path, "show", f"{champion.commit}:train.py")
    # attempt 3 was asked twice; the first answer of attempt 5 has no price
    paid = [s.usage.cost_usd for s in attempts.values()]
    assert sum(paid) == pytest.approx(6 * 0.1 + BUDGET_USD)
    result.stdout.fnmatch_lines([f"*spent on proposals: ${6 * 0.1 + BUDGET_USD:.4f}*"])


def test_missing_program_is_a_usage_error(project: Project) -> None:
    result = project.run("--autoresearch-proposer=command:./nobody")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["*--autoresearch-proposer: command: ./nobody is not a program here*"]
    )
