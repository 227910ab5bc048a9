"""Ablate a champion: leave out one keep at a time and remove those that are not needed.

As in autoresearch, a change that deletes code and loses nothing is a success. Every ablation is an
attempt with the same checks, runs, judge and record as a mutation; an equal score is enough, once
it is replicated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..core.proposal import Edit, EditError, Origin, Proposal
from ..core.records import ABLATION, Attempt
from ..source.edits import apply, edits_between
from .check import check
from .loop import Campaign


def ablate(campaign: Campaign, say: Callable[[str], object] = lambda line: None) -> int:
    """Try to leave out every keep of the champion, the smallest gain first; return the successes.

    Raises:
        InfrastructureFailure: A run failed for a reason that is not the candidate's.
        Interrupted: The session was asked to stop.
    """
    removed = 0
    keeps = _keeps(campaign)
    for keep in sorted(keeps, key=lambda attempt: attempt.gain or 0.0):
        rest = [attempt for attempt in keeps if attempt.id != keep.id]
        if not rest:
            break  # without its only keep the champion is the baseline, which it has beaten
        champion = campaign.runner.read(campaign.runner.champion().commit)
        files = without(campaign, keeps, keep, champion)
        if files is None or files == champion:
            say(f"{keep.name} {keep.title}: later keeps build on it")
            continue
        verdict = _try(campaign, keep, champion, files)
        say(f"without {keep.name} {keep.title}: {'removed' if verdict == 'keep' else verdict}")
        if verdict == "keep":
            keeps = rest
            removed += 1
    return removed


def _keeps(campaign: Campaign) -> list[Attempt]:
    attempts = {attempt.id: attempt for attempt in campaign.ledger.attempts()}
    chain = [attempts[champion.attempt_id] for champion in campaign.ledger.champions()[1:]]
    removed = {row for attempt in chain for row in attempt.made_from("ablation")}
    return [one for one in chain if one.kind != ABLATION and one.id not in removed]


def without(
    campaign: Campaign, keeps: Sequence[Attempt], keep: Attempt, champion: Mapping[str, str]
) -> dict[str, str] | None:
    """Return the champion's files without one keep; None if later keeps build on it.

    If the keeps' edits add up to the champion, apply all but that one's. If they do not, since one
    of them started from a near-miss or a former champion, revert in the champion what it changed.
    """
    if _replay(campaign, keeps) == champion:
        return _replay(campaign, [attempt for attempt in keeps if attempt.id != keep.id])
    assert keep.champion_before is not None
    after = campaign.runner.read(keep.commit)
    before = campaign.runner.read(campaign.ledger.attempt(keep.champion_before).commit)
    try:
        return apply(champion, _edits(after, before))
    except EditError:
        return None


def _edits(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[Edit, ...]:
    return tuple(edit for name in old for edit in edits_between(old[name], new[name], name))


def _replay(campaign: Campaign, keeps: Sequence[Attempt]) -> dict[str, str] | None:
    """Return the baseline with the edits of these keeps; None if they need another's."""
    files = campaign.runner.read(campaign.facts.base_commit)
    try:
        for keep in keeps:
            files = apply(files, keep.edits)
    except EditError:
        return None
    return files


def _try(
    campaign: Campaign, keep: Attempt, champion: Mapping[str, str], files: Mapping[str, str]
) -> str:
    number = campaign.ledger.next_number(ABLATION)
    attempt = campaign.begin(f"{ABLATION}-{number:04d}", ABLATION, number)
    proposal = Proposal(
        f"without {keep.title}"[:100],
        _edits(champion, files),
        f"{keep.name} may have been kept by luck, or be of no use any more.",
        proposer=ABLATION,
        origin=Origin("ablation", (keep.id,)),
    )
    campaign.adopt(attempt, proposal)
    check(campaign.runner, attempt)
    trial = campaign.measurement.measure(attempt)
    if trial.value is None:
        verdict, reason = trial.verdict, trial.reason
    else:
        bar = campaign.measurement.bar(attempt)
        verdict, reason = ("keep", "") if trial.score < bar else ("discard", bar.explanation)
    campaign.recorder.record_verdict(attempt, trial, verdict, reason)
    return verdict
