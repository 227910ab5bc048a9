"""Every option and ini key, and the one frozen `Config` they become."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import pytest

from .core.experiment import Budget

MAX_ATTEMPTS = 10_000
"""Attempts collected for ``--iterations 0``; measured at 2 s and 69 MB of collection."""


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("write a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("write a number") from None


def _at_least(lowest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = _whole(text)
        if number < lowest:
            raise ValueError(f"must be {lowest} or more")
        return number

    return parse


def _control(text: str) -> int:
    every = _whole(text)
    if every < 0 or every == 1:
        raise ValueError("must be 2 or more, or 0 for none")
    return every


def _share(text: str) -> float:
    share = _number(text)
    if not 0 < share < 1:
        raise ValueError("must lie between 0 and 1")
    return share


def _dollars(text: str) -> float:
    match = re.fullmatch(r"\$?\s*(\d+(?:\.\d+)?)\s*(?:usd|\$)?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is not an amount of money; write 5usd")
    return float(match[1])


def _rates(text: str) -> tuple[float, float]:
    match = re.fullmatch(r"\$?(\d+(?:\.\d+)?)/\$?(\d+(?:\.\d+)?)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no price; write INPUT/OUTPUT per million tokens, e.g. 0.5/2")
    return float(match[1]), float(match[2])


def _duration(text: str) -> float:
    wrong = f"{text!r} is not a duration; write 8h, 30min or 90s"
    try:
        budget = Budget.parse(text if re.search(r"[a-z]", text) else f"{text}s")
    except ValueError:
        raise ValueError(wrong) from None
    if budget.kind != "wall":
        raise ValueError(wrong)
    return budget.amount


def _tag(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", text) or text.endswith((".lock", ".")):
        raise ValueError(
            "a tag has letters, digits, '.', '_' and '-', and starts with one of the first two"
        )
    return text


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"choose one of {', '.join(choices)}")
        return text

    return parse


def _path_or_off(text: str) -> str:
    return "" if text.strip().lower() in ("off", "none", "no") else expanded(text)


def expanded(text: str) -> str:
    """A shell expands no ``~`` after ``=``; pytest does for its own paths."""
    return os.path.expanduser(os.path.expandvars(text))


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "1", "yes", "on", "false", "0", "no", "off", ""):
        raise ValueError("write true or false")
    return text.lower() in ("true", "1", "yes", "on")


@dataclass(frozen=True)
class _Option:
    """One row of the table: field, option string, parser, default, metavar and help."""

    field: str
    flag: str
    parse: Callable[[str], Any]
    default: Any
    metavar: str | None
    help: str

    @property
    def dest(self) -> str:
        return f"autoresearch_{self.field}"

    @property
    def ini(self) -> str:
        return self.dest


OPTIONS = (
    _Option(
        "iterations",
        "--iterations",
        _at_least(0),
        10,
        "N",
        "Mutations to try in this session; 0 goes on until stopped",
    ),
    _Option(
        "tag",
        "--autoresearch-tag",
        _tag,
        None,
        "TAG",
        "Campaign to start or resume; default: the name of the current git branch",
    ),
    _Option(
        "proposer",
        "--autoresearch-proposer",
        str,
        None,
        "NAME",
        "Who proposes: anthropic, openai:MODEL, command:AGENT, gp, ratchet, random, replay:DIR or "
        "module:factory; default anthropic where its key is set, else gp",
    ),
    _Option(
        "model",
        "--autoresearch-model",
        str,
        None,
        "ID",
        "Model of the anthropic, openai or command proposer",
    ),
    _Option(
        "effort",
        "--autoresearch-effort",
        str,
        None,
        "LEVEL",
        "How hard the model thinks, e.g. low, medium or high; default: its own",
    ),
    _Option(
        "client",
        "--autoresearch-client",
        str,
        None,
        "MODULE:FACTORY",
        "Makes the language model's async client (Bedrock, Vertex, Foundry, a proxy)",
    ),
    _Option(
        "max_cost",
        "--autoresearch-max-cost",
        _dollars,
        None,
        "AMOUNT",
        "Most that a campaign may spend on proposals, e.g. 5usd; an estimate from list prices",
    ),
    _Option(
        "price",
        "--autoresearch-price",
        _rates,
        None,
        "IN/OUT",
        "Dollars per million tokens of the model's input and output, e.g. 0.5/2; default: listed",
    ),
    _Option(
        "control",
        "--autoresearch-control",
        _control,
        4,
        "K",
        "With a language model, every K-th attempt goes to gp as a control; 0: none",
    ),
    _Option(
        "papers",
        "--autoresearch-papers",
        str,
        None,
        "QUERY",
        "Show the model the newest papers that arXiv finds for QUERY, e.g. 'muon optimizer'",
    ),
    _Option(
        "budget",
        "--autoresearch-budget",
        Budget.parse,
        None,
        "BUDGET",
        "Training budget of a trial: 300s, 600ktok or equal:600ktok; default by device",
    ),
    _Option(
        "deadline",
        "--autoresearch-deadline",
        _duration,
        None,
        "TIME",
        "Start no attempt after this long, e.g. 8h",
    ),
    _Option(
        "min_keep",
        "--autoresearch-min-keep",
        _at_least(0),
        0,
        "N",
        "Exit 1 when fewer mutations are kept in this session",
    ),
    _Option(
        "strict",
        "--autoresearch-strict",
        _flag,
        False,
        None,
        "Report a mutation that is not kept as a failed test",
    ),
    _Option(
        "seed",
        "--autoresearch-seed",
        _at_least(0),
        0,
        "N",
        "Campaign seed: decides trial seeds and keyless proposals",
    ),
    _Option(
        "calibrate",
        "--autoresearch-calibrate",
        _at_least(2),
        3,
        "N",
        "Seeds the baseline is measured with before anything is tried",
    ),
    _Option(
        "confirm",
        "--autoresearch-confirm",
        _at_least(0),
        2,
        "N",
        "Fresh seeds the first and last champion are trained on at the end; 0 leaves it out",
    ),
    _Option(
        "ablate",
        "--autoresearch-ablate",
        _flag,
        False,
        None,
        "At the end, leave out one keep at a time and remove those that cost nothing",
    ),
    _Option(
        "judge",
        "--autoresearch-judge",
        _one_of("sequential", "greedy", "threshold"),
        "sequential",
        "RULE",
        "Verdict rule: sequential replicates close calls, greedy keeps any gain, threshold needs "
        "3 sigma at once",
    ),
    _Option(
        "max_noise",
        "--autoresearch-max-noise",
        _share,
        0.02,
        "SHARE",
        "Refuse an experiment whose unchanged code scatters by more than this share of its mean",
    ),
    _Option(
        "parents",
        "--autoresearch-parents",
        _one_of("archive", "champion"),
        "archive",
        "RULE",
        "Parent of a mutation: archive (a promising discard or the champion; near-misses are "
        "retried and merged) or champion (always the champion)",
    ),
    _Option(
        "plateau",
        "--autoresearch-plateau",
        _at_least(0),
        0,
        "N",
        "Stop after N attempts without a keep; 0 goes on",
    ),
    _Option(
        "target",
        "--autoresearch-target",
        _number,
        None,
        "VALUE",
        "Stop when the champion's mean is this good",
    ),
    _Option(
        "max_failures",
        "--autoresearch-max-failures",
        _at_least(0),
        10,
        "N",
        "Stop after N attempts in a row without a score; 0 goes on",
    ),
    _Option(
        "html",
        "--autoresearch-html",
        _path_or_off,
        ".autoresearch/report.html",
        "PATH",
        "Where the report page is written, during the run, too; off: nowhere",
    ),
    _Option(
        "summary",
        "--autoresearch-summary",
        expanded,
        None,
        "PATH",
        "Append a summary in Markdown there at the end, e.g. $GITHUB_STEP_SUMMARY",
    ),
    _Option(
        "sandbox",
        "--autoresearch-sandbox",
        _one_of("require", "auto", "off"),
        "auto",
        "MODE",
        "Confinement of candidates and agents: require, auto (as much as the machine allows) "
        "or off",
    ),
    _Option("threads", "--autoresearch-threads", _at_least(1), 1, "N", "CPU threads of one trial"),
)
"""The one table that options, ini keys, `Config` and the documentation are made from."""


@dataclass(frozen=True)
class Options:
    """What the user asked for, checked. One field a row of `OPTIONS`; see their help texts."""

    iterations: int
    tag: str | None
    proposer: str | None
    model: str | None
    effort: str | None
    client: str | None
    max_cost: float | None
    price: tuple[float, float] | None
    control: int
    papers: str | None
    budget: Budget | None
    deadline: float | None
    min_keep: int
    strict: bool
    seed: int
    calibrate: int
    confirm: int
    ablate: bool
    judge: Literal["sequential", "greedy", "threshold"]
    max_noise: float
    parents: Literal["archive", "champion"]
    plateau: int
    target: float | None
    max_failures: int
    html: str
    summary: str | None
    sandbox: Literal["require", "auto", "off"]
    threads: int

    @classmethod
    def from_pytest(cls, config: pytest.Config) -> Options:
        """Read options, then ini keys, then defaults.

        Raises:
            pytest.UsageError: If a value does not parse; names the option and the remedy.
        """
        values: dict[str, Any] = {}
        for option in OPTIONS:
            given, where = config.getoption(option.dest), option.flag
            if given is None:
                given, where = config.getini(option.ini) or None, f"ini key {option.ini}"
            if given is None or given is True:
                values[option.field] = option.default if given is None else True
                continue
            try:
                values[option.field] = option.parse(str(given))
            except ValueError as error:
                raise pytest.UsageError(f"{where}={given}: {error}") from None
        return cls(**values)


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and its ini key."""
    group = parser.getgroup("autoresearch", "autonomous research")
    group.addoption(
        "--autoresearch",
        action="store_true",
        default=False,
        help="Run the mutations of program.md instead of the tests",
    )
    for option in OPTIONS:
        kind: dict[str, Any] = {"dest": option.dest, "default": None, "help": option.help}
        if option.parse is _flag:
            kind["action"] = "store_true"
        else:
            kind["metavar"] = option.metavar
        group.addoption(option.flag, **kind)
        parser.addini(option.ini, option.help, default=None)


def options_table() -> str:
    """Return the Markdown table of all options for the documentation."""
    rows = ["| option | ini key | default | meaning |", "|---|---|---|---|"]
    for option in OPTIONS:
        metavar = f" {option.metavar}" if option.metavar else ""
        default = "" if option.default in (None, False) else f"`{option.default}`"
        rows.append(f"| `{option.flag}{metavar}` | `{option.ini}` | {default} | {option.help} |")
    return "\n".join(rows)


assert [option.field for option in OPTIONS] == [field.name for field in fields(Options)]
