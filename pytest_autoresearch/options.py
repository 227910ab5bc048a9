"""Command-line options and ini keys, and the frozen `Options` that they become."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import pytest

from .core.experiment import Budget

PAGE = ".autoresearch/report.html"
"""Default of ``--autoresearch-html``: a link to the page of the campaign that ran last."""

MAX_ATTEMPTS = 10_000
"""Attempts collected for ``--iterations 0``; collecting them takes 2 s and 69 MB."""


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
        raise ValueError(f"{text!r} is not a price; write INPUT/OUTPUT per million tokens: 0.5/2")
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


def parse_tag(text: str) -> str:
    """Return the name of a campaign if it can name a folder and a git branch.

    Raises:
        ValueError: It cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", text) or text.endswith((".lock", ".")):
        raise ValueError(
            "a tag has letters, digits, '.', '_' and '-', and starts with a letter or digit"
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
    """Expand ``~`` and variables, which a shell does not do after ``=``."""
    return os.path.expanduser(os.path.expandvars(text))


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "1", "yes", "on", "false", "0", "no", "off", ""):
        raise ValueError("write true or false")
    return text.lower() in ("true", "1", "yes", "on")


def _option(parse: Callable[[str], Any], default: Any, metavar: str | None, text: str) -> Any:
    return field(metadata={"parse": parse, "default": default, "metavar": metavar, "help": text})


# fmt: off
@dataclass(frozen=True)
class Options:
    """The checked options of one session; each field is an option and an ini key."""

    iterations: int = _option(_at_least(0), 10, "N",
        "Mutations to try in this session; 0 continues until stopped")
    tag: str | None = _option(parse_tag, None, "TAG",
        "Campaign to start or resume; default: the name of the current git branch")
    proposer: str | None = _option(str, None, "NAME",
        "Source of mutations: anthropic, openai:MODEL, command:AGENT, gp, ratchet, random, "
        "replay:DIR or module:factory; several, separated by commas, each when the one before it "
        "is exhausted; default: anthropic where its key is set, else what the experiment names, "
        "else gp")
    model: str | None = _option(str, None, "ID",
        "Model of the anthropic, openai or command proposer")
    effort: str | None = _option(str, None, "LEVEL",
        "Reasoning effort of the model, e.g. low, medium or high; default: the model's own")
    context: int | None = _option(_at_least(1000), None, "N",
        "Tokens of the model's window, prompt and answer together; default: as the server says")
    answer: Literal["blocks", "whole"] = _option(_one_of("blocks", "whole"), "blocks", "FORM",
        "Form of a language model's answers: blocks (SEARCH/REPLACE), or whole files for a model "
        "that cannot write blocks")
    client: str | None = _option(str, None, "MODULE:FACTORY",
        "Factory of the language model's async client (Bedrock, Vertex, Foundry, a proxy)")
    max_cost: float | None = _option(_dollars, None, "AMOUNT",
        "Most that a campaign may spend on proposals, e.g. 5usd; an estimate from list prices")
    price: tuple[float, float] | None = _option(_rates, None, "IN/OUT",
        "Dollars per million input and output tokens of the model, e.g. 0.5/2; default: list price")
    control: int = _option(_control, 10, "K",
        "With a language model, every K-th attempt is proposed by gp as a control, which ends if "
        "none of its first five is kept; 0: none")
    papers: str | None = _option(str, None, "QUERY",
        "Show the model the newest arXiv papers for QUERY, e.g. 'muon optimizer'")
    budget: Budget | None = _option(Budget.parse, None, "BUDGET",  # noqa: RUF009
        "Training budget of a run: 300s, 600ktok or equal:600ktok (compute-matched); default by "
        "device")
    deadline: float | None = _option(_duration, None, "TIME",
        "Start no attempt after this long, e.g. 8h")
    min_keep: int = _option(_at_least(0), 0, "N",
        "Exit 1 when fewer mutations are kept in this session")
    strict: bool = _option(_flag, False, None,
        "Report a mutation that is not kept as a failed test")
    seed: int = _option(_at_least(0), 0, "N",
        "Campaign seed: determines the seeds of runs and of keyless search")
    calibrate: int = _option(_at_least(2), 3, "N",
        "Seeds on which the baseline is measured first, each with two random streams")
    confirm: int = _option(_at_least(0), 6, "N",
        "Fresh seeds at most on which first and last champion are trained at the end; 0: none")
    ablate: bool = _option(_flag, False, None,
        "At the end, leave out one keep at a time and remove those without effect")
    judge: Literal["sequential", "greedy", "threshold"] = _option(
        _one_of("sequential", "greedy", "threshold"), "sequential", "RULE",
        "Verdict rule: sequential trains close calls on a second seed, greedy keeps any gain, "
        "threshold needs 3 sigma at once")
    max_noise: float = _option(_share, 0.02, "SHARE",
        "Refuse an experiment whose unchanged code scatters by more than this share of its mean")
    parents: Literal["archive", "champion"] = _option(
        _one_of("archive", "champion"), "archive", "RULE",
        "Parent of a mutation: archive (a promising discard or the champion; near-misses are "
        "retried and merged) or champion (always the champion)")
    plateau: int = _option(_at_least(0), 0, "N",
        "Stop after N attempts without a keep; 0: never")
    target: float | None = _option(_number, None, "VALUE",
        "Stop when the champion's mean reaches this value")
    max_failures: int = _option(_at_least(0), 10, "N",
        "Stop after N attempts in a row without a score; 0: never")
    html: str = _option(_path_or_off, PAGE, "PATH",
        "Report page, also updated during the session; off: none")
    summary: str | None = _option(expanded, None, "PATH",
        "Append a Markdown summary to this file at the end, e.g. $GITHUB_STEP_SUMMARY")
    sandbox: Literal["require", "auto", "off"] = _option(
        _one_of("require", "auto", "off"), "auto", "MODE",
        "Confinement of candidates and agents: require, auto (as much as the machine allows) "
        "or off")
    threads: int = _option(_at_least(1), 1, "N", "CPU threads of one run")

    @classmethod
    def from_pytest(cls, config: pytest.Config) -> Options:
        """Read options, then ini keys, then defaults.

        Raises:
            pytest.UsageError: A value does not parse; names the option and the remedy.
        """
        return cls(**{option.field: option.read(config) for option in OPTIONS})
# fmt: on


@dataclass(frozen=True)
class Option:
    """One option: name of the field, parser, default, metavar and help."""

    field: str
    parse: Callable[[str], Any]
    default: Any
    metavar: str | None
    help: str

    @property
    def dest(self) -> str:
        """Return the name in pytest's namespace, which is also the ini key."""
        return f"autoresearch_{self.field}"

    @property
    def flag(self) -> str:
        """Return the option string."""
        name = self.field.replace("_", "-")
        return "--iterations" if name == "iterations" else f"--autoresearch-{name}"

    def read(self, config: pytest.Config) -> Any:
        """Return the parsed value of the option, of its ini key, or the default."""
        given, where = config.getoption(self.dest), self.flag
        if given is None:
            given, where = config.getini(self.dest) or None, f"ini key {self.dest}"
        if given is None or given is True:
            return self.default if given is None else True
        try:
            return self.parse(str(given))
        except ValueError as error:
            raise pytest.UsageError(f"{where}={given}: {error}") from None


OPTIONS = tuple(Option(entry.name, **entry.metadata) for entry in fields(Options))
"""All options, in the order of the documentation."""


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
        kind |= {"action": "store_true"} if option.parse is _flag else {"metavar": option.metavar}
        group.addoption(option.flag, **kind)
        parser.addini(option.dest, option.help, default=None)


def options_table() -> str:
    """Return the Markdown table of all options for the documentation."""
    rows = ["| option | ini key | default | meaning |", "|---|---|---|---|"]
    for option in OPTIONS:
        metavar = f" {option.metavar}" if option.metavar else ""
        default = "" if option.default in (None, False) else f"`{option.default}`"
        rows.append(f"| `{option.flag}{metavar}` | `{option.dest}` | {default} | {option.help} |")
    return "\n".join(rows)
