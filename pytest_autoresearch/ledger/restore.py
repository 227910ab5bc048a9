"""A ledger from a log: the junit file, or the commits' trailers; either is enough to go on from.

Commits that are not in this repository are made again from the edits, so that a fresh clone and a
junit log are all that a campaign needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..core.proposal import Edit, EditError
from ..source.edits import apply
from . import trailers
from .git import Repository, RepositoryError
from .snapshot import AttemptRows, EmptyLedger, Snapshot, SnapshotError
from .store import Ledger

RESTORED, NOT_TRIED = 0, 4


def restore(repository: Repository, tag: str, known: Snapshot) -> tuple[int, Ledger]:
    """Fill the campaign's ledger, make missing commits again and set its refs.

    Args:
        repository: Must have the commit that the campaign started from.
        tag: Of the campaign; its ledger must be empty or absent.
        known: What is written.

    Returns:
        How many commits were made again, and the ledger.

    Raises:
        SnapshotError: The ledger is not empty, or the snapshot is damaged.
        RepositoryError: The first commit is missing, or the branch is somebody else's.
        LedgerUnavailable: The ledger cannot be written.
    """
    if not _is_tag(tag):
        raise SnapshotError(f"{tag!r} is no campaign's name; give --tag")
    ledger = EmptyLedger.open(repository.root, tag)
    assert isinstance(ledger, EmptyLedger)
    if ledger.attempts():
        raise SnapshotError(f"campaign {tag!r} has attempts already; give another --tag")
    try:
        known, made = _revive(repository, known)
    except (KeyError, TypeError, AttributeError) as error:
        raise SnapshotError(f"a row lacks {error}; the log is damaged") from None
    repository.check_branch(tag, [row["commit"] for row in known.champions])
    ledger.fill(known)
    champion = ledger.champion()
    if champion is not None:
        tried = {s.name: s.commit for s in ledger.attempts() if s.kind != "baseline" and s.commit}
        anchor = trailers.describe(repository, ledger)
        repository.project(tag, champion.commit, {**tried, trailers.ANCHOR: anchor})
    return made, ledger


def _is_tag(tag: str) -> bool:
    from ..options import OPTIONS

    [option] = [option for option in OPTIONS if option.field == "tag"]
    try:
        return bool(option.parse(tag))
    except ValueError:
        return False


def _revive(repository: Repository, known: Snapshot) -> tuple[Snapshot, int]:
    """Make the commits again that the repository lacks; parents come before their children."""
    facts = known.meta.get("campaign")
    if facts is None:
        raise SnapshotError("the log has no facts of its campaign; it ended before it began")
    base, files = facts["base_commit"], facts["files"]
    if not _has(repository, base, files):
        raise RepositoryError(
            f"commit {base[:10]}, which the campaign starts from, is not in this repository; "
            "fetch it (git fetch --unshallow, or git fetch origin COMMIT)"
        )
    commits: dict[str, str] = {base: base}
    by_id = {rows.attempt["id"]: rows for rows in known.attempts}
    champions = {row["attempt_id"]: row for row in known.champions}
    attempts, made = [], 0
    for rows in known.attempts:
        old = rows.attempt["commit"]
        if old and old not in commits:
            if _has(repository, old, files):
                commits[old] = old
            else:
                commits[old] = _again(repository, rows, by_id, champions, commits, facts)
                made += 1
        attempts.append(replace(rows, attempt={**rows.attempt, "commit": commits.get(old, "")}))
    crowned = [{**row, "commit": commits[row["commit"]]} for row in known.champions]
    return replace(known, attempts=attempts, champions=crowned), made


def _has(repository: Repository, commit: str, files: list[str]) -> bool:
    if not commit or commit.startswith("-"):
        return False
    try:
        repository.read_bytes(commit, files)
    except RepositoryError:
        return False
    return True


def _again(
    repository: Repository,
    rows: AttemptRows,
    attempts: Mapping[int, AttemptRows],
    champions: Mapping[int, Mapping[str, Any]],
    commits: Mapping[str, str],
    facts: Mapping[str, Any],
) -> str:
    attempt, proposal = rows.attempt, rows.proposal
    if proposal is None:
        raise SnapshotError(f"{attempt['name']} has a commit and no edits; the log is damaged")
    body = proposal["body"]
    parent = commits[attempts[attempt["parent"]].attempt["commit"]]
    try:
        edits = [Edit(**edit) for edit in body["edits"]]
        after = apply(repository.read(parent, facts["files"]), edits)
    except (EditError, TypeError) as error:
        raise SnapshotError(f"the edits of {attempt['name']} do not apply: {error}") from None
    champion = champions.get(attempt["champion_before"])
    kept = attempt["verdict"] == "keep" and champion is not None
    score = attempt["score"]
    metric = facts["metric"]
    shown = [] if score is None else [f"{metric['name']} {score:.6f} over {attempt['n']} seed(s)"]
    return repository.commit(
        commits[champion["commit"]] if kept and champion is not None else parent,
        after,
        subject=body["title"] or attempt["name"],
        body="\n".join([*shown, attempt["reason"] or "", "", body["hypothesis"]]),
        trailers={
            "Attempt": attempt["name"],
            "Verdict": attempt["verdict"],
            "Metric": f"{metric['name']} {metric['direction']}",
            "Score": "" if score is None else repr(score),
            "Parent": parent,
            "Proposer": body["proposer"],
            **trailers.of_rows(rows, dict(champion) if champion is not None else None),
        },
    )
