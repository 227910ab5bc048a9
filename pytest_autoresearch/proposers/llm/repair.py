"""Conversion of a model's answer to edits that apply, with at most two repairs."""

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
)
from ...core.text import one_line
from ...source.blocks import Parsed, parse
from ...source.edits import apply
from ...source.fingerprint import UNREADABLE, fingerprint
from ...source.fingerprint import parse as parse_program
from ..memory import remarks

REPAIRS = 2


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


def converse(ask: Callable[[Sequence[Turn]], Reply], context: Context, proposer: str) -> Proposal:
    """Ask for a proposal, and ask again while its edits do not apply.

    Args:
        ask: Sends the prompt and the turns so far, which only grow, so that caches stay valid.
        context: Holds the files that the edits must apply to.
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
            error.usage = spent + error.usage if error.usage else spent
            raise
        spent += reply.usage
        # join surrogates: half a character cannot be sent back
        text = reply.text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
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
        response = (
            f"That does not apply: {complaint}\n\nNothing was changed. Send the whole proposal "
            "again, title, hypothesis and all blocks."
        )
        turns.append((text, response))
    raise ProposalInvalid(
        f"after {REPAIRS} repairs: {complaint}", title, {"repairs": REPAIRS}
    ).with_usage(spent)


def check(files: Mapping[str, str], parsed: Parsed) -> None:
    """Check that edits apply, parse and change something.

    Raises:
        EditError: They do not; the message is meant for their author.
    """
    changed = apply(files, parsed.edits)
    for name, text in changed.items():
        if name.endswith(".py"):
            try:
                parse_program(text)
            except UNREADABLE as error:
                number = getattr(error, "lineno", None)
                where = f" line {number}" if number else ""
                reason = getattr(error, "msg", "") or one_line(error) or "it is nested too deeply"
                raise EditError(f"{name}{where} would not parse: {reason}") from None
    if fingerprint(changed) == fingerprint(files):
        raise EditError("the edits change nothing that runs")
