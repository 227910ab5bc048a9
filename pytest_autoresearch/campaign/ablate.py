"""Leave one keep out at a time: a keep whose removal costs nothing is removed.

autoresearch's criterion: a change that deletes code and loses nothing is a success. Every removal
is an attempt of its own, with the same gates, trials, judge and record as a mutation; being equal to
the champion is enough, once it is replicated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..core.outcome import Trial
from ..core.proposal import EditError, Origin, Proposal
from ..core.records import ABLATION, Attempt
from ..source.edits import apply, edits_between
from .attempt import WorkingAttempt
from .loop import Campaign


def ablate(campaign: Campaign, say: Callable[[str], object] = lambda line: None) -> int:
    """Try to leave out every keep of the champion, the smallest gain first.

    Args:
        campaign: With a champion.
        say: Told what came of each, line by line.

    Returns:
        How many were removed.

    Raises:
        InfrastructureFailure: A trial could not be run.
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
    gone = {row for attempt in chain for row in attempt.made_from("ablation")}
    return [attempt for attempt in chain if attempt.kind != ABLATION and attempt.id not in gone]


def without(
    campaign: Campaign, keeps: Sequence[Attempt], keep: Attempt, champion: Mapping[str, str]
) -> dict[str, str] | None:
    """The champion's files without one keep, or None where later keeps build on it.

    Where the keeps' edits add up to the champion, it is all but that one's edits. Where they do
    not, since one of them began at a near-miss or at a former champion, it is the champion with
    what that keep had changed in it changed back.
    """
    if _replay(campaign, keeps) == champion:
        return _replay(campaign, [attempt for attempt in keeps if attempt.id != keep.id])
    assert keep.champion_before is not None
    after = campaign.runner.read(keep.commit)
    before = campaign.runner.read(campaign.ledger.attempt(keep.champion_before).commit)
    edits = [edit for name in after for edit in edits_between(after[name], before[name], name)]
    try:
        return apply(champion, edits)
    except EditError:
        return None


def _replay(campaign: Campaign, keeps: Sequence[Attempt]) -> dict[str, str] | None:
    """The baseline with these keeps' edits, or None where they need another's."""
    files = campaign.runner.read(campaign.rules.base_commit)
    try:
        for keep in keeps:
            files = apply(files, keep.edits)
    except EditError:
        return None
    return files


def _try(
    campaign: Campaign, keep: Attempt, champion: Mapping[str, str], files: Mapping[str, str]
) -> str:
    edits = [edit for name in champion for edit in edits_between(champion[name], files[name], name)]
    number = campaign.ledger.next_number(ABLATION)
    attempt = campaign.begin(f"{ABLATION}-{number:04d}", ABLATION, number)
    proposal = Proposal(
        f"without {keep.title}"[:100],
        tuple(edits),
        f"{keep.name} may have been kept by luck, or be of no use any more.",
        proposer=ABLATION,
        origin=Origin("ablation", (keep.id,)),
    )
    campaign.adopt(attempt, proposal)
    campaign.check(attempt)
    run = campaign.measurement.measure(attempt)
    verdict, reason = _verdict(campaign, attempt, run)
    campaign.settle(attempt, run, verdict, reason)
    return verdict


def _verdict(campaign: Campaign, attempt: WorkingAttempt, run: Trial) -> tuple[str, str]:
    if run.value is None:
        return run.verdict, run.reason
    bar = campaign.measurement.bar(attempt)
    if run.score < bar:
        return "keep", ""
    return "discard", bar.explanation
