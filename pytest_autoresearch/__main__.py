"""Commands beside pytest: ``python -m pytest_autoresearch COMMAND``; ``--help`` lists them."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from .cli.clean import clean
from .cli.doctor import doctor
from .cli.finalize import finalize
from .cli.report import report
from .cli.restore import restore
from .cli.transfer import transfer
from .cli.verify import verify_campaign, verify_commit
from .core.errors import InfrastructureFailure, UsageError
from .ledger.copy import RestoreError
from .ledger.git import RepositoryError
from .ledger.store import CampaignBusy, LedgerUnavailable

EXPECTED = (
    UsageError, InfrastructureFailure, RepositoryError, RestoreError, CampaignBusy,
    LedgerUnavailable,
)  # fmt: skip
"""Errors whose message is one line for the user."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        Exit code: 0 for yes or done, 1 for no, 4 if nothing could be done.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "try":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return _run(parser, options, rest)
    except KeyboardInterrupt:
        print("interrupted; run it again to go on", file=sys.stderr)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{where}{error.strerror or error}", file=sys.stderr)
    except EXPECTED as error:
        print(error, file=sys.stderr)
    return 4


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pytest_autoresearch", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    campaign = argparse.ArgumentParser(add_help=False)
    campaign.add_argument("--tag", help="campaign; default: the name of the current git branch")

    def command(
        name: str, text: str, *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, parents=parents)

    add = command("try", "attempt an idea of your own, judged and recorded like any other")
    add.add_argument("idea", type=Path, help="a patch, or SEARCH/REPLACE blocks with a title")
    add = command("report", "rebuild logs of a campaign from its ledger", campaign)
    add.add_argument("--junit", type=Path, help="write the junit report there")
    add.add_argument("--tsv", type=Path, help="write results.tsv there")
    add.add_argument("--html", type=Path, help="write the report page there")
    export = "write NAME.jsonl (attempts with their runs), NAME.csv (attempts) or NAME-runs.csv"
    add.add_argument(
        "--export", type=Path, action="append", default=[], metavar="FILE", help=export
    )
    command("restore", "restore a ledger from its copy in git", campaign)
    add = command("verify", "does a kept score, or a campaign's gain, stand?", campaign)
    add.add_argument("commit", nargs="?", help="score this commit or attempt (mutation-0007) again")
    everyone = "train every champion on fresh seeds (the default)"
    add.add_argument("--campaign", action="store_true", help=everyone)
    seeds = "fresh seeds at most; default 6"
    add.add_argument("--seeds", type=int, default=6, metavar="N", help=seeds)
    survive = "do the keeps survive a longer budget or a larger model?"
    add = command("transfer", survive, campaign)
    factor = "on the budget; default 4"
    add.add_argument("--budget", type=float, default=4.0, metavar="FACTOR", help=factor)
    add.add_argument(
        "--scale", action="append", default=[], metavar="NAME=FACTOR", help="e.g. WIDTH=2"
    )
    add.add_argument("--seeds", type=int, default=2, metavar="N", help="pairs; default 2")
    add = command("finalize", "turn the campaign's branch into history to review", campaign)
    add.add_argument("--branch", help="to be created; default: research/TAG")
    groups = "keeps that become one commit"
    add.add_argument("--group", action="append", default=[], metavar="A,B", help=groups)
    add.add_argument("--squash", action="store_true", help="one commit for all keeps")
    add = command("clean", "remove files of a campaign that nothing needs", campaign)
    whole = "remove the whole campaign: ledger, refs, branch, table"
    add.add_argument("--all", action="store_true", help=whole)
    command("doctor", "is this machine and this project in order?")
    return parser


def _run(
    parser: argparse.ArgumentParser, options: argparse.Namespace, rest: Sequence[str]
) -> int:
    root = Path.cwd()
    match options.command:
        case "try":
            idea = f"--autoresearch-proposer=file:{options.idea.absolute()}"
            return int(pytest.main(["--autoresearch", "--iterations=1", idea, *rest]))
        case "report":
            outputs = options.junit, options.tsv, options.html, options.export
            return report(root, options.tag, *outputs)
        case "restore":
            return restore(root, options.tag)
        case "finalize":
            groups = [text.split(",") for text in options.group]
            return finalize(root, options.tag, options.branch, groups, options.squash)
        case "clean":
            return clean(root, options.tag, options.all)
        case "verify":
            if options.campaign and options.commit:
                parser.error("give a commit or --campaign, not both")
            if options.seeds < 1:
                parser.error(f"--seeds {options.seeds}: must be 1 or more")
            if options.commit:
                return verify_commit(root, options.tag, options.commit)
            return verify_campaign(root, options.tag, options.seeds)
        case "transfer":
            if not (0 < options.budget < math.inf) or options.seeds < 1:
                parser.error("--budget and --seeds must be positive")
            scale = _factors(parser, options.scale)
            return transfer(root, options.tag, options.budget, scale, options.seeds)
    return doctor(root)


def _factors(parser: argparse.ArgumentParser, texts: Sequence[str]) -> dict[str, float]:
    factors = {}
    for text in texts:
        name, _, factor = text.partition("=")
        try:
            factors[name] = float(factor)
            if not math.isfinite(factors[name]):
                raise ValueError(factor)
        except ValueError:
            parser.error(f"--scale {text}: write NAME=FACTOR, e.g. WIDTH=2")
    return factors


if __name__ == "__main__":
    sys.exit(main())
