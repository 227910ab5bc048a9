"""What a commit says of its slot for machines, and a campaign read back from its commits alone.

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
from .snapshot import Row, SlotRows, Snapshot, SnapshotError
from .store import Ledger

ANCHOR = "campaign"
"""Name under ``refs/autoresearch/<tag>/`` of the commit that describes campaign and baseline."""

_BULKY = ("log_head", "log_tail", "curve")


# ---------------------------------------------------------------------- writing


def of_slot(
    ledger: Ledger, slot_id: int, outcome: Mapping[str, object], champion: Champion | None
) -> dict[str, str]:
    """Return the trailers from which a slot's rows can be made again.

    Args:
        ledger: Holds the slot, without its outcome yet.
        slot_id: Its row.
        outcome: What its row is about to say.
        champion: The champion it was compared with.
    """
    rows = snapshot.take_slot(ledger, slot_id)
    done = {"state": "done", "finished": time.time(), **outcome}
    if outcome.get("verdict") == "keep":
        done["champion_after"] = slot_id
    return of_rows(replace(rows, slot={**rows.slot, **done}), _champion(champion))


def of_rows(rows: SlotRows, champion: Row | None) -> dict[str, str]:
    """Return the trailers of a slot's rows; `champion` is what it was compared with."""
    slot = {name: value for name, value in rows.slot.items() if name != "commit"}
    proposal = rows.proposal
    if proposal is not None:
        body = {name: value for name, value in proposal["body"].items() if name != "edits"}
        proposal = {**proposal, "state": "spent", "body": body}
    return {
        "Champion": _value(champion),
        "Record": _value(snapshot.slot_data(SlotRows(slot, proposal, _slim(rows.trials)))),
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
        snapshot.slot_data(replace(rows, trials=_slim(rows.trials)))
        for rows in known.slots
        if rows.slot["kind"] == "baseline" and rows.slot["state"] == "done"
    ]
    return {"Campaign": _value(snapshot.campaign_data(first)), "Baselines": _value(baselines)}


def _champion(champion: Champion | None) -> Row | None:
    if champion is None:
        return None
    return {
        "version": champion.version,
        "slot_id": champion.slot_id,
        "commit": champion.commit,
        "scores": {str(seed): score for seed, score in champion.scores.items()},
        "at": champion.at,
    }


def _slim(trials: Iterable[Row]) -> list[Row]:
    slim = []
    for trial in trials:
        result = {name: value for name, value in trial["result"].items() if name not in _BULKY}
        slim.append({**trial, "result": result})
    return slim


def _value(data: object) -> str:
    """Data as JSON without any white space, which a trailer's value would lose."""
    return snapshot.line(data).replace(" ", "\\u0020")


# ---------------------------------------------------------------------- reading


class History(Repository):
    """A repository from whose commits a campaign can be read."""

    def keeps(self, tag: str, base: str) -> dict[str, str]:
        """Return slot name to commit of what lies on the campaign's branch above `base`."""
        listing = self._git("rev-list", self.branch_ref(tag), "--not", base, "--", check=False)
        found = {}
        for commit in listing.split():
            if name := self.trailers(commit).get("Slot"):
                found[name] = commit
        return found


def read(repository: History, tag: str) -> Snapshot:
    """Make the ledger of a campaign from its commits.

    Slots that left no commit (their edits did not apply, or they were cut off) are not in it, nor
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
        slots = {rows.slot["id"]: rows for rows in known.slots}
        for commit in commits.values():
            rows = _slot(repository, commit, facts["files"])
            slots[rows.slot["id"]] = rows
        for commit in commits.values():
            _champions(repository, commit, slots, champions)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, SnapshotError):
            raise
        raise SnapshotError(f"a commit of campaign {tag!r} has a damaged record: {error}") from None
    except RepositoryError as error:
        raise SnapshotError(str(error)) from None
    return replace(
        known,
        champions=[champions[version] for version in sorted(champions)],
        slots=[slots[row] for row in sorted(slots)],
    )


def _slot(repository: Repository, commit: str, files: Iterable[str]) -> SlotRows:
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
    return SlotRows({**data["slot"], "commit": commit}, proposal, data["trials"])


def _champions(
    repository: Repository, commit: str, slots: Mapping[int, SlotRows], champions: dict[int, Row]
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
    rows = slots[json.loads(said["Record"])["slot"]["id"]]
    own = {
        str(trial["seed"]): trial["score"]
        for trial in rows.trials
        if trial["purpose"] in OWN and trial["score"] is not None
    }
    later = champions.get(version + 1, {"scores": {}})
    champions[version + 1] = {
        "version": version + 1,
        "slot_id": rows.slot["id"],
        "commit": commit,
        "scores": {**own, **later["scores"]},
        "at": rows.slot["finished"],
    }
