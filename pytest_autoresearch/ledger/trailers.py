"""What a commit says of its attempt for machines, and a campaign read back from its commits alone.

Every mutation's commit carries its rows of the ledger; the baseline, which has no commit of its
own, is described by one more commit, `ANCHOR`. Edits are not repeated: the commit is them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..core.records import OWN, Champion
from ..source.edits import edits_between
from . import snapshot
from .git import Repository, RepositoryError
from .snapshot import AttemptRows, Row, Snapshot, SnapshotError
from .store import Ledger

ANCHOR = "campaign"
"""Name under ``refs/autoresearch/<tag>/`` of the commit that describes campaign and baseline."""

_BULKY = ("log_head", "log_tail", "curve")


# ---------------------------------------------------------------------- writing


def of_attempt(
    ledger: Ledger, attempt_id: int, outcome: Mapping[str, object], champion: Champion | None
) -> dict[str, str]:
    """Return the trailers from which an attempt's rows can be made again.

    Args:
        ledger: Holds the attempt, without its outcome yet.
        attempt_id: Its row.
        outcome: What its row is about to say.
        champion: The champion it was compared with.
    """
    rows = snapshot.take_attempt(ledger, attempt_id)
    done = {"state": "done", "finished": time.time(), **outcome}
    if outcome.get("verdict") == "keep":
        done["champion_after"] = attempt_id
    return of_rows(replace(rows, attempt={**rows.attempt, **done}), _champion(champion))


def of_rows(rows: AttemptRows, champion: Row | None) -> dict[str, str]:
    """Return the trailers of an attempt's rows; `champion` is what it was compared with."""
    attempt = {name: value for name, value in rows.attempt.items() if name != "commit"}
    proposal = rows.proposal
    if proposal is not None:
        body = {name: value for name, value in proposal["body"].items() if name != "edits"}
        proposal = {**proposal, "state": "spent", "body": body}
    return {
        "Champion": _value(champion),
        "Record": _value(snapshot.attempt_data(AttemptRows(attempt, proposal, _slim(rows.runs)))),
    }


def describe(repository: Repository, ledger: Ledger) -> str:
    """Make the commit that says, to whoever has only the refs, what the campaign is.

    Returns:
        Its id, which the ledger's fact ``anchor`` holds, too.
    """
    made = repository.commit(
        ledger.meta("campaign")["base_commit"],
        {},
        subject=f"campaign {ledger.path.parent.name}: baseline",
        body="",
        trailers=of_campaign(ledger),
    )
    ledger.set_meta("anchor", made)
    return made


def of_campaign(ledger: Ledger) -> dict[str, str]:
    """Return the trailers of the commit that describes a campaign and its baseline."""
    known = snapshot.take(ledger)
    first = Snapshot(
        known.tag,
        known.taken,
        meta={name: known.meta[name] for name in ("campaign", "data_sha256") if name in known.meta},
        champions=known.champions[:1],
    )
    baselines = [
        snapshot.attempt_data(replace(rows, runs=_slim(rows.runs)))
        for rows in known.attempts
        if rows.attempt["kind"] == "baseline" and rows.attempt["state"] == "done"
    ]
    return {"Campaign": _value(snapshot.campaign_data(first)), "Baselines": _value(baselines)}


def _champion(champion: Champion | None) -> Row | None:
    if champion is None:
        return None
    return {
        "version": champion.version,
        "attempt_id": champion.attempt_id,
        "commit": champion.commit,
        "scores": {str(seed): score for seed, score in champion.scores.items()},
        "at": champion.at,
    }


def _slim(runs: Iterable[Row]) -> list[Row]:
    slim = []
    for run in runs:
        result = {name: value for name, value in run["result"].items() if name not in _BULKY}
        slim.append({**run, "result": result})
    return slim


def _value(data: object) -> str:
    """Data as JSON without any white space, which a trailer's value would lose."""
    return snapshot.line(data).replace(" ", "\\u0020")


# ---------------------------------------------------------------------- reading


class History(Repository):
    """A repository from whose commits a campaign can be read."""

    def keeps(self, tag: str, base: str) -> dict[str, str]:
        """Return attempt name to commit of what lies on the campaign's branch above `base`."""
        listing = self._git("rev-list", self.branch_ref(tag), "--not", base, "--", check=False)
        found = {}
        for commit in listing.split():
            if name := self.trailers(commit).get("Attempt"):
                found[name] = commit
        return found


def read(repository: History, tag: str) -> Snapshot:
    """Make the ledger of a campaign from its commits.

    Attempts that left no commit (their edits did not apply, or they were cut off) are not in it, nor
    are logs, loss curves and what was measured after a verdict.

    Raises:
        SnapshotError: There are no such commits, or a record in them is damaged.
    """
    tried = repository.tried(tag)
    anchor = tried.pop(ANCHOR, None)
    if anchor is None:
        raise SnapshotError(
            f"refs/autoresearch/{tag}/{ANCHOR} is missing, and it describes the baseline; fetch "
            f"the campaign's refs (git fetch origin 'refs/autoresearch/{tag}/*:"
            f"refs/autoresearch/{tag}/*') or import its junit log"
        )
    try:
        said = repository.trailers(anchor)
        known = snapshot.read(json.loads(said["Campaign"]), json.loads(said["Baselines"]))
        facts = known.meta["campaign"]
        commits = {**tried, **repository.keeps(tag, facts["base_commit"])}
        champions: dict[int, Row] = {row["version"]: row for row in known.champions}
        attempts = {rows.attempt["id"]: rows for rows in known.attempts}
        for commit in commits.values():
            rows = _attempt(repository, commit, facts["files"])
            attempts[rows.attempt["id"]] = rows
        for commit in commits.values():
            _champions(repository, commit, attempts, champions)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, SnapshotError):
            raise
        raise SnapshotError(f"a commit of campaign {tag!r} has a damaged record: {error}") from None
    except RepositoryError as error:
        raise SnapshotError(str(error)) from None
    return replace(
        known,
        champions=[champions[version] for version in sorted(champions)],
        attempts=[attempts[row] for row in sorted(attempts)],
    )


def _attempt(repository: Repository, commit: str, files: Iterable[str]) -> AttemptRows:
    said = repository.trailers(commit)
    data: dict[str, Any] = json.loads(said["Record"])
    before = repository.read(said["Parent"], files)
    after = repository.read(commit, files)
    edits = [
        {"file": edit.file, "search": edit.search, "replace": edit.replace}
        for name in before
        for edit in edits_between(before[name], after[name], name)
    ]
    proposal = data["proposal"]
    if proposal is not None:
        proposal = {**proposal, "body": {**proposal["body"], "edits": edits}}
    return AttemptRows({**data["attempt"], "commit": commit}, proposal, data["runs"])


def _champions(
    repository: Repository,
    commit: str,
    attempts: Mapping[int, AttemptRows],
    champions: dict[int, Row],
) -> None:
    """Note what a commit says of champions: the one it was compared with, and itself if kept."""
    said = repository.trailers(commit)
    before = json.loads(said["Champion"])
    if before is None:
        return
    version = before["version"]
    known = champions.setdefault(version, before)
    champions[version] = {**known, "scores": {**known["scores"], **before["scores"]}}
    if said["Verdict"] != "keep":
        return
    rows = attempts[json.loads(said["Record"])["attempt"]["id"]]
    own = {
        str(run["seed"]): run["score"]
        for run in rows.runs
        if run["purpose"] in OWN and run["score"] is not None
    }
    later = champions.get(version + 1, {"scores": {}})
    champions[version + 1] = {
        "version": version + 1,
        "attempt_id": rows.attempt["id"],
        "commit": commit,
        "scores": {**own, **later["scores"]},
        "at": rows.attempt["finished"],
    }
