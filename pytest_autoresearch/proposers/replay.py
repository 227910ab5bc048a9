"""Recorded proposals, and one that a person wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..core.proposal import (
    Context,
    EditError,
    Proposal,
    ProposalInvalid,
    Proposer,
    ProposerExhausted,
)
from ..source.blocks import parse, without_thoughts


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
        parsed.title or title, parsed.edits, parsed.hypothesis, proposer=name, meta=meta
    )


class Replay(Proposer):
    """Proposes the files of a folder in the order of their names, each once in a campaign."""

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
                return read(path, context.files)
        raise ProposerExhausted(f"all {len(self._files)} recorded proposals are used")


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
