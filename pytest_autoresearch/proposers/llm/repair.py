"""From a model's answer to edits that apply, with at most two chances to mend what does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...core.proposal import (
    Context,
    EditError,
    Proposal,
    ProposalInvalid,
    ProposerError,
    Usage,
    add,
)
from ...core.text import one_line
from ...source.blocks import Parsed, parse
from ...source.edits import apply
from ...source.fingerprint import UNREADABLE, fingerprint
from ...source.fingerprint import parse as read_program
from ..memory import remarks

REPAIRS = 2


@dataclass(frozen=True)
class Reply:
    """One finished turn of a model.

    Attributes:
        text: What it said.
        usage: What that turn cost.
        parsed: What it proposes, where that is not to be read from the text.
    """

    text: str
    usage: Usage
    parsed: Parsed | None = None


Turn = tuple[str, str]
"""What the model said, verbatim, and what it was answered."""


def converse(ask: Callable[[Sequence[Turn]], Reply], context: Context, proposer: str) -> Proposal:
    """Ask, read the answer, and ask again where its edits do not apply.

    Args:
        ask: Sends the prompt and the turns so far, which only grow, so that caches stay valid.
        context: Its files are what the edits must apply to.
        proposer: Name of the backend, for the record.

    Raises:
        ProposalInvalid: The last answer does not apply either; carries the usage of all turns.
        ProposerError: Whatever `ask` raises.
    """
    turns: list[Turn] = []
    spent = Usage()
    title, complaint = "", ""
    for _ in range(REPAIRS + 1):
        try:
            reply = ask(turns)
        except ProposerError as error:
            error.usage = add(spent, error.usage) if error.usage else spent
            raise
        spent = add(spent, reply.usage)
        text = _whole(reply.text)
        try:
            parsed = reply.parsed or parse(text, context.experiment.files[0])
            title = one_line(parsed.title, 100) or title
            check(context.files, parsed)
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
        turns.append(
            (
                text,
                f"That does not apply: {complaint}\n\nNothing was changed. Send the whole proposal "
                "again, title, hypothesis and all blocks.",
            )
        )
    unusable = ProposalInvalid(f"after {REPAIRS} repairs: {complaint}", title, {"repairs": REPAIRS})
    unusable.usage = spent
    raise unusable


def _whole(text: str) -> str:
    """Put together what was cut within a character: the halves of one cannot be sent back."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def check(files: Mapping[str, str], parsed: Parsed) -> None:
    """See that edits apply, compile and change something.

    Raises:
        EditError: They do not; the message is meant for whoever wrote them.
    """
    changed = apply(files, parsed.edits)
    for name, text in changed.items():
        if name.endswith(".py"):
            try:
                read_program(text)
            except UNREADABLE as error:
                at = getattr(error, "lineno", None)
                where = f" line {at}" if at else ""
                said = getattr(error, "msg", "") or one_line(error) or "it is nested too deeply"
                raise EditError(f"{name}{where} would not parse: {said}") from None
    if fingerprint(changed) == fingerprint(files):
        raise EditError("the edits change nothing that runs")
