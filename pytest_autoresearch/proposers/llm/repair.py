"""Conversion of a model's answer to edits that apply, with at most two repairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...core.proposal import (
    Context,
    EditError,
    Proposal,
    ProposalInvalid,
    ProposerError,
    Usage,
)
from ...core.text import one_line
from ...source.blocks import Parsed, format_blocks, parse, without_thoughts
from ...source.checks import apply_checked
from ..memory import remarks

REPAIRS = 2

_AGAIN = "Send the whole proposal again, title, hypothesis and all {parts}."


@dataclass(frozen=True)
class Reply:
    """One finished turn of a model.

    Attributes:
        text: The answer.
        usage: Cost of the turn.
        parsed: The proposal, if it is not to be read from the text.
    """

    text: str
    usage: Usage
    parsed: Parsed | None = None


Turn = tuple[str, str]
"""The model's answer, verbatim, and our response to it."""


def converse(
    ask: Callable[[Sequence[Turn]], Reply], context: Context, proposer: str, *, whole: bool = False
) -> Proposal:
    """Ask for a proposal, and ask again while its edits do not apply.

    Args:
        ask: Sends the prompt and the turns so far, which only grow, so that caches stay valid.
        context: Holds the files that the edits must apply to.
        proposer: Name of the backend, for the record.
        whole: Whether answers are whole files.

    Raises:
        ProposalInvalid: The last answer does not apply either; carries the usage of all turns.
        ProposerError: Whatever `ask` raises.
    """
    turns = [_stale_turn(*context.stale)] if context.stale else []
    spent = Usage()
    title, complaint = "", ""
    for _ in range(REPAIRS + 1):
        try:
            reply = ask(turns)
        except ProposerError as error:
            error.usage = spent + error.usage if error.usage else spent
            raise
        spent += reply.usage
        # join surrogates: half a character cannot be sent back
        text = reply.text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        try:
            text = text if reply.parsed else without_thoughts(text)
            parsed = reply.parsed or parse(text, context.files, whole)
            title = one_line(parsed.title, 100) or title
            apply_checked(context.files, parsed.edits)
        except EditError as error:
            complaint = str(error)
        else:
            return Proposal(
                one_line(parsed.title, 100) or "untitled",
                parsed.edits,
                one_line(parsed.hypothesis, 2000),
                proposer=proposer,
                usage=spent,
                meta={"repairs": len(turns), **remarks(parsed.prose)},
            )
        again = _AGAIN.format(parts="files" if whole else "blocks")
        response = f"That does not apply: {complaint}\n\nNothing was changed. {again}"
        turns.append((text, response))
    raise ProposalInvalid(
        f"after {REPAIRS} repairs: {complaint}", title, {"repairs": REPAIRS}
    ).with_usage(spent)


def _stale_turn(draft: Proposal, reason: str) -> Turn:
    """Return the turn that ended with a draft for an earlier champion."""
    answer = f"Title: {draft.title}\nHypothesis: {draft.hypothesis}\n\n{format_blocks(draft.edits)}"
    return answer, (
        f"That was written for an earlier champion and does not apply to the files above: {reason}"
        f"\n\nIf the idea is still worth trying on them, write it again for them, else propose "
        "another. Send the whole proposal."
    )
