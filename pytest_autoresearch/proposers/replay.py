"""Recorded proposals, and one that a person wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from ..core.proposal import (
    Context,
    Edit,
    EditError,
    Proposal,
    ProposalInvalid,
    Proposer,
    ProposerExhausted,
)
from ..source.blocks import parse, without_thoughts
from ..source.edits import apply, edits_between
from .memory import remarks

_PARENT = re.compile(r"^Parent:\s*(\S+)\s*$", re.MULTILINE)


def read(path: Path, files: Mapping[str, str], name: str = "replay") -> Proposal:
    """Read one recorded proposal for the editable files.

    Raises:
        ProposalInvalid: The file holds no edits.
    """
    title = path.stem.replace("_", " ").replace("-", " ")
    meta = {name: path.name}
    try:
        parsed = parse(without_thoughts(path.read_text(encoding="utf-8")), files)
    except (EditError, UnicodeDecodeError) as error:
        raise ProposalInvalid(f"{path.name}: {error}", title, meta) from None
    return Proposal(
        parsed.title or title,
        parsed.edits,
        parsed.hypothesis,
        proposer=name,
        meta={**remarks(parsed.prose), **meta},
    )


class Replay(Proposer):
    """Proposes the files of a folder in the order of their names, each once in a campaign.

    A line ``Parent: FILE`` names the recorded proposal that a file builds on. What the champion
    lacks of it and of its own ancestors is proposed together with the file, because verdicts differ
    between campaigns, and a recorded proposal may build on a discard.
    """

    name = "replay"
    fixed_order = True

    def __init__(self, folder: Path) -> None:
        """List the folder; raise ValueError if it is none, or empty."""
        if not folder.is_dir():
            raise ValueError(f"replay:{folder} is not a folder; give one with recorded proposals")
        self._files = sorted(path for path in folder.iterdir() if path.is_file())
        if not self._files:
            raise ValueError(f"replay:{folder} is empty; put proposals there")

    def propose(self, context: Context) -> Proposal:
        """Return attempt n's proposal: the n-th file, or else the first unused one."""
        used = {attempt.meta.get("replay") for attempt in context.history}
        order = [*self._files[context.attempt - 1 : context.attempt], *self._files]
        for path in order:
            if path.name not in used:
                return self._proposal(path, context)
        raise ProposerExhausted(f"all {len(self._files)} recorded proposals are used")

    def _proposal(self, path: Path, context: Context) -> Proposal:
        """Return a recorded proposal, with what the parent's files lack of its ancestors."""
        lineage = self._lineage(path)
        if len(lineage) == 1:
            return read(path, context.files)
        present = set(_present(context))
        missing = [file for file in lineage if file is path or file.name not in present]
        try:
            proposal, edits, _ = _build(missing, context.files)
            return _with(proposal, edits, missing)
        except (EditError, ProposalInvalid):
            pass
        # The champion holds something that the recorded parent did not: return to the latter.
        baseline = next(past for past in context.history if past.verdict == "baseline")
        try:
            proposal, _, after = _build(lineage, baseline.read_files())
        except EditError as error:
            raise ProposalInvalid(f"{path.name}: {error}", path.stem) from None
        changed = (edits_between(context.files[name], after[name], name) for name in after)
        return _with(proposal, chain.from_iterable(changed), lineage, whole=True)

    def _lineage(self, path: Path) -> list[Path]:
        """Return the recorded ancestors of a proposal, oldest first, and the proposal itself.

        Raises:
            ProposalInvalid: One is not in the folder, or is its own ancestor.
        """
        by_name = {file.name: file for file in self._files}
        lineage = [path]
        while found := _PARENT.search(lineage[0].read_text(encoding="utf-8", errors="replace")):
            parent = by_name.get(found[1])
            if parent is None or parent in lineage:
                raise ProposalInvalid(
                    f"{lineage[0].name}: its parent {found[1]} is not in the folder, or builds on "
                    "it; name an earlier file",
                    path.stem,
                    {"replay": path.name},
                )
            lineage.insert(0, parent)
        return lineage


def _build(
    lineage: Sequence[Path], files: Mapping[str, str]
) -> tuple[Proposal, list[Edit], Mapping[str, str]]:
    """Read and apply proposals in order; return the last, all edits and the files after them."""
    edits: list[Edit] = []
    for path in lineage:
        proposal = read(path, files)
        files = apply(files, proposal.edits)
        edits += proposal.edits
    return proposal, edits, files


def _with(
    proposal: Proposal, edits: Iterable[Edit], stack: Sequence[Path], whole: bool = False
) -> Proposal:
    """Return the proposal with other edits; note what they hold, and whether nothing else."""
    meta = {**proposal.meta, "stack": [path.name for path in stack], "whole": whole}
    return replace(proposal, edits=tuple(edits), meta=meta)


def _present(context: Context) -> Iterator[str]:
    """Yield the names of the recorded proposals that the parent's files contain."""
    by_id = {past.attempt_id: past for past in context.history}
    past = by_id.get(context.parent.attempt_id)
    while past is not None:
        if name := past.meta.get("replay"):
            yield from past.meta.get("stack", (name,))
        past = None if past.parent is None or past.meta.get("whole") else by_id.get(past.parent)


class OneFile(Proposer):
    """Proposes one file that a person wrote, ahead of proposals that wait in the ledger."""

    name = "human"
    fixed_order = True
    bypass_queue = True

    def __init__(self, path: Path) -> None:
        """Raise ValueError if there is no such file."""
        if not path.is_file():
            raise ValueError(f"{path} is not a file; give a patch or SEARCH/REPLACE blocks")
        self._path = path

    def propose(self, context: Context) -> Proposal:
        """Return the file's proposal."""
        return read(self._path, context.files, self.name)
