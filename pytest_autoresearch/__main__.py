"""Commands beside pytest: ``python -m pytest_autoresearch COMMAND``; ``--help`` lists them."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    from .core.errors import UsageError
    from .ledger.store import LedgerUnavailable

    try:
        return _main(arguments)
    except (LedgerUnavailable, UsageError) as error:
        print(error, file=sys.stderr)
        return 4


def _main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pytest_autoresearch", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    attempt = commands.add_parser(
        "try",
        help="put an idea of your own through the same attempt, judge and record as everyone's",
    )
    attempt.add_argument("idea", type=Path, help="a patch, or SEARCH/REPLACE blocks with a title")
    report = commands.add_parser("report", help="rebuild logs of a campaign from its ledger")
    report.add_argument("--tag", help="campaign; default: the name of the current git branch")
    report.add_argument("--junit", type=Path, help="write the junit report there")
    report.add_argument("--tsv", type=Path, help="write results.tsv there")
    report.add_argument("--html", type=Path, help="write the report page there")
    report.add_argument(
        "--export",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="write NAME.jsonl (attempts with their runs), NAME.csv (attempts) or NAME-runs.csv",
    )
    restore = commands.add_parser("restore", help="restore a ledger from its copy in git")
    restore.add_argument("--tag", help="campaign; default: the name of the current git branch")
    verify = commands.add_parser("verify", help="does a kept score, or a campaign's gain, stand?")
    verify.add_argument(
        "commit", nargs="?", help="score this commit or attempt (mutation-0007) once more"
    )
    verify.add_argument(
        "--campaign", action="store_true", help="train every champion on fresh seeds (the default)"
    )
    verify.add_argument("--seeds", type=int, default=2, metavar="N", help="fresh seeds; default 2")
    verify.add_argument("--tag", help="campaign; default: the name of the current git branch")
    transfer = commands.add_parser(
        "transfer", help="do the keeps survive a longer budget or a larger model?"
    )
    transfer.add_argument(
        "--budget", type=float, default=4.0, metavar="FACTOR", help="on the budget; default 4"
    )
    transfer.add_argument(
        "--scale", action="append", default=[], metavar="NAME=FACTOR", help="e.g. WIDTH=2"
    )
    transfer.add_argument("--seeds", type=int, default=2, metavar="N", help="pairs; default 2")
    transfer.add_argument("--tag", help="campaign; default: the name of the current git branch")
    final = commands.add_parser(
        "finalize", help="turn the campaign's branch into history to review"
    )
    final.add_argument("--tag", help="campaign; default: the name of the current git branch")
    final.add_argument("--branch", help="to be created; default: research/TAG")
    final.add_argument(
        "--group", action="append", default=[], metavar="A,B", help="keeps that become one commit"
    )
    final.add_argument("--squash", action="store_true", help="one commit for all keeps")
    clean = commands.add_parser("clean", help="remove files of a campaign that nothing needs")
    clean.add_argument("--tag", help="campaign; default: the name of the current git branch")
    clean.add_argument(
        "--all", action="store_true", help="remove the whole campaign: ledger, refs, branch, table"
    )
    commands.add_parser("doctor", help="is this machine and this project in order?")
    options, rest = parser.parse_known_args(arguments)
    if options.command == "try":
        return _try(options.idea, rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command == "restore":
        from .cli.restore import restore as run_restore

        return run_restore(Path.cwd(), options.tag)
    if options.command == "finalize":
        from .cli.finalize import finalize

        groups = [text.split(",") for text in options.group]
        return finalize(Path.cwd(), options.tag, options.branch, groups, options.squash)
    if options.command == "clean":
        from .cli.clean import clean as run_clean

        return run_clean(Path.cwd(), options.tag, options.all)
    if options.command == "doctor":
        from .cli.doctor import doctor

        return doctor(Path.cwd())
    if options.command == "verify":
        from .cli.verify import verify_campaign, verify_commit

        if options.campaign and options.commit:
            parser.error("give a commit or --campaign, not both")
        if options.seeds < 1:
            parser.error(f"--seeds {options.seeds}: must be 1 or more")
        if options.commit:
            return verify_commit(Path.cwd(), options.tag, options.commit)
        return verify_campaign(Path.cwd(), options.tag, options.seeds)
    if options.command == "transfer":
        from .cli.transfer import transfer as run_transfer

        if not (0 < options.budget < math.inf) or options.seeds < 1:
            parser.error("--budget and --seeds must be positive")
        scale = {}
        for text in options.scale:
            name, _, factor = text.partition("=")
            try:
                scale[name] = float(factor)
                if not math.isfinite(scale[name]):
                    raise ValueError(factor)
            except ValueError:
                parser.error(f"--scale {text}: write NAME=FACTOR, e.g. WIDTH=2")
        return run_transfer(Path.cwd(), options.tag, options.budget, scale, options.seeds)
    return _report(options)


def _try(idea: Path, rest: Sequence[str]) -> int:
    import pytest

    return int(
        pytest.main(
            [
                "--autoresearch",
                "--iterations=1",
                f"--autoresearch-proposer=file:{idea.absolute()}",
                *rest,
            ]
        )
    )


def _report(options: argparse.Namespace) -> int:
    from .campaign.project import default_tag
    from .core.experiment import Metric
    from .core.files import write_atomic
    from .ledger.git import Repository, RepositoryError
    from .ledger.store import Ledger
    from .report import exports, junit

    root = Path.cwd()
    try:
        tag = options.tag or default_tag(Repository.open(root))
    except RepositoryError as error:
        print(error, file=sys.stderr)
        return 4
    if not Ledger.exists(root, tag):
        print(f"no campaign {tag!r} in {root}; give --tag", file=sys.stderr)
        return 4
    ledger = Ledger.open(root, tag)
    attempts = ledger.attempts()
    facts = ledger.meta("campaign") or {}
    metric = Metric(**facts.get("metric", {}))
    try:
        if options.junit:
            shown = junit.facts_of(ledger, attempts, ledger.champions(), metric)
            junit.write(options.junit, attempts, metric, shown, champions=ledger.champions())
        if options.tsv:
            write_atomic(options.tsv, exports.tsv(attempts))
        for path in options.export:
            exports.write(path, attempts)
        if options.html:
            from .report import html

            html.write(options.html, attempts, ledger.champions(), html.gather(ledger), live=False)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}; choose another place", file=sys.stderr)
        return 4
    except ValueError as error:
        print(error, file=sys.stderr)
        return 4
    if not (options.junit or options.tsv or options.html or options.export):
        print(exports.tsv(attempts), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
