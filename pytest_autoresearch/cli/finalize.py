"""Turn a campaign's branch into history to review.

A new branch starts where the campaign did and has one commit per keep, each with its measured gain,
without ablated keeps. It is created only if its last commit holds exactly the champion's files; the
working tree is not touched.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..campaign.facts import CampaignFacts
from ..campaign.project import check, experiment_at
from ..core.errors import UsageError
from ..core.experiment import Experiment, Metric
from ..core.files import write_atomic
from ..core.proposal import EditError
from ..core.records import ABLATION, Attempt, Confirmation
from ..judge.parents import built_on, stack
from ..ledger.git import Repository, attempt_ref
from ..report.markdown import cell
from ..source.edits import apply
from .ledgers import locked_ledger


@dataclass(frozen=True)
class Step:
    """One commit of the new branch.

    Attributes:
        attempts: Keeps that it holds, in order.
        files: The editable files after it.
    """

    attempts: tuple[Attempt, ...]
    files: Mapping[str, str]


def finalize(
    root: Path, tag: str | None, branch: str | None, groups: Sequence[Sequence[str]], squash: bool
) -> int:
    """Create the branch and print how to use it.

    Args:
        root: Folder of the project.
        tag: Of the campaign; None for the name of the current git branch.
        branch: Branch to create; None for ``research/<tag>``.
        groups: Names of adjacent keeps that become one commit each.
        squash: Whether all keeps become one commit.

    Returns:
        Exit code 0.

    Raises:
        UsageError: It is refused, and nothing is created.
    """
    experiment = experiment_at(root)
    repository = check(root, experiment)
    if dirty := repository.changes():
        raise UsageError(
            f"the working tree has changes ({', '.join(dirty[:3])}); commit or stash them first"
        )
    with locked_ledger(repository, root, tag, "finalize") as ledger:
        tag = ledger.path.parent.name
        branch = branch or f"research/{tag}"
        facts, confirmation = CampaignFacts.load(ledger), ledger.confirmation()
        champions = ledger.champions()
        if facts is None or len(champions) < 2:
            raise UsageError("nothing was kept, so there is nothing to finalize")
        base = facts.base_commit
        repository.check_branch(tag, [champion.commit for champion in champions])
        last = champions[-1]
        if confirmation is not None and confirmation.champion != last.version:
            confirmation = replace(confirmation, confirmed=None, holdout=None)
        by_id, promoted = {s.id: s for s in ledger.attempts()}, {c.attempt_id for c in champions}
        attempts = [_whole(stack(by_id[c.attempt_id], by_id, promoted)) for c in champions[1:]]
        keeps = plan(repository, experiment, base, attempts)
        everything = [[attempt.name for step in keeps for attempt in step.attempts]]
        steps = group(keeps, everything if squash else groups)
        scratch = attempt_ref(tag, "finalize")
        try:
            tip = build(repository, base, steps, experiment.metric, confirmation, scratch)
            wanted = repository.read(last.commit, experiment.files)
            if repository.read(tip, experiment.files) != wanted:
                raise UsageError("the commits do not add up to the champion; nothing was created")
            if ledger.champion() != last:
                raise UsageError("the champion changed meanwhile; run it again")
            page = ledger.path.with_name("pull-request.md")
            write_atomic(page, pull_request(tag, steps, experiment.metric, confirmation))
            repository.create_branch(branch, tip)  # last, so that a failure leaves no branch behind
        except OSError as error:
            raise UsageError(f"{error.filename}: {error.strerror}; nothing was created") from None
        finally:
            repository.delete(scratch)
    for number, step in enumerate(steps, 1):
        print(f"{number}. {subject(step)}")
    title = subject(steps[-1])
    create = ["gh", "pr", "create", "--head", branch, "--title", title, "--body-file", str(page)]
    print(f"\nbranch {branch} holds the champion's files: git log -p {base[:10]}..{branch}")
    print(f"push it:       {shlex.join(['git', 'push', '-u', 'origin', branch])}")
    print(f"pull request:  {shlex.join(create)}")  # a model wrote the title: quoted
    return 0


def _whole(parts: Sequence[Attempt]) -> Attempt:
    """Return a keep with the edits of what it was built on, named in its hypothesis."""
    *below, keep = parts
    if not below:
        return keep
    edits = tuple(edit for one in parts for edit in one.edits)
    return replace(keep, edits=edits, hypothesis=f"{built_on(below)}\n{keep.hypothesis}".strip())


def plan(
    repository: Repository, experiment: Experiment, base: str, attempts: Sequence[Attempt]
) -> list[Step]:
    """Return one step per keep, without ablated keeps if the rest adds up to the champion.

    Args:
        repository: Of the project.
        experiment: Declares the editable files.
        base: Commit that the campaign began at.
        attempts: Keeps and ablations of the champion, oldest first.
    """
    gone = {row for attempt in attempts for row in attempt.made_from("ablation")}
    alive = [attempt for attempt in attempts if attempt.kind != ABLATION and attempt.id not in gone]
    files = repository.read(base, experiment.files)
    steps = []
    try:
        for attempt in alive:
            files = apply(files, attempt.edits)
            steps.append(Step((attempt,), files))
    except EditError:
        steps = []
    if not steps or files != repository.read(attempts[-1].commit, experiment.files):
        return [
            Step((attempt,), repository.read(attempt.commit, experiment.files))
            for attempt in attempts
        ]
    return steps


def group(steps: Sequence[Step], groups: Sequence[Sequence[str]]) -> list[Step]:
    """Join adjacent steps.

    Raises:
        UsageError: A name is not a keep, or the keeps of a group are not adjacent.
    """
    names = [step.attempts[0].name for step in steps]
    joined = list(steps)
    for wanted in groups:
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise UsageError(
                f"--group {','.join(wanted)}: {unknown[0]} is not a keep; there are "
                + ", ".join(names)
            )
        places = sorted(
            i for i, step in enumerate(joined) if any(s.name in wanted for s in step.attempts)
        )
        if places != list(range(places[0], places[-1] + 1)):
            raise UsageError(
                f"--group {','.join(wanted)}: only adjacent keeps can become one commit; their "
                "order is " + ", ".join(names)
            )
        parts = joined[places[0] : places[-1] + 1]
        whole = Step(tuple(attempt for part in parts for attempt in part.attempts), parts[-1].files)
        joined[places[0] : places[-1] + 1] = [whole]
    return joined


def build(
    repository: Repository,
    base: str,
    steps: Sequence[Step],
    metric: Metric,
    confirmation: Confirmation | None,
    ref: str,
) -> str:
    """Create the commits, with `ref` on the last one; return its id."""
    tip = base
    for step in steps:
        text = repository.describe(
            subject=subject(step),
            body="\n\n".join(describe(attempt, metric, confirmation) for attempt in step.attempts),
            trailers={
                "Attempts": " ".join(attempt.name for attempt in step.attempts),
                "Measured-Commits": " ".join(attempt.commit for attempt in step.attempts),
            },
        )
        tip = repository.commit(tip, step.files, text, ref)
    return tip


def subject(step: Step) -> str:
    """Return the subject of a commit."""
    first = step.attempts[0].title or step.attempts[0].name
    return first if len(step.attempts) == 1 else f"{len(step.attempts)} steps: {first}, …"[:72]


def describe(attempt: Attempt, metric: Metric, confirmation: Confirmation | None) -> str:
    """Return the measurements and the hypothesis of one keep."""
    lines = [f"{attempt.name}: {attempt.title}"]
    if attempt.gain is not None and attempt.score is not None:
        lines.append(
            f"{metric.name} {attempt.score:.6f}, gain {attempt.gain:+.6f} "
            f"({attempt.gain_sigma or 0:.1f} sigma) over {attempt.n} paired seed(s)"
        )
    for keep in confirmation.keeps if confirmation else ():
        if keep.attempt == attempt.id and keep.again is not None:
            lines.append(f"on fresh seeds {keep.again}: {keep.standing}")
    if attempt.hypothesis:
        lines.append(attempt.hypothesis)
    return "\n".join(lines)


def pull_request(
    tag: str, steps: Sequence[Step], metric: Metric, confirmation: Confirmation | None
) -> str:
    """Return the text of a pull request."""
    lines = [f"Research campaign `{tag}`: {metric.name}", ""]
    if confirmation and confirmation.confirmed:
        gain = confirmation.confirmed
        lines.append(f"- gain on fresh seeds: {gain} ({gain.standing}, {gain.n} pairs)")
    else:
        lines.append("- not confirmed on fresh seeds")
    if confirmation and confirmation.holdout:
        lines.append(f"- gain on the holdout: {confirmation.holdout}")
    lines.append("")
    for step in steps:
        lines += [f"### {cell(subject(step))}", ""]
        for attempt in step.attempts:
            lines += [*map(cell, describe(attempt, metric, confirmation).splitlines()), ""]
    return "\n".join(lines)
