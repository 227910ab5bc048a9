"""Run one command on an existing campaign."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ..campaign.loop import Campaign
from ..campaign.open import open_campaign
from ..core.errors import InfrastructureFailure, UsageError
from ..ledger.git import RepositoryError
from ..ledger.store import LedgerUnavailable

OK, NEGATIVE, NOT_RUN = 0, 1, 4
"""Exit codes: the answer is yes, the answer is no, there is no answer."""


def run_command(root: Path, tag: str | None, name: str, work: Callable[[Campaign], bool]) -> int:
    """Run `work` on a campaign; print one line if it could not be done.

    Args:
        root: Folder of the project.
        tag: Of the campaign; None for the name of the current git branch.
        name: Of the command.
        work: Returns whether the answer is yes.

    Returns:
        Exit code.
    """
    try:
        with open_campaign(root, tag, name) as campaign:
            return OK if work(campaign) else NEGATIVE
    except (
        UsageError, InfrastructureFailure, LedgerUnavailable, RepositoryError, RuntimeError,
        OSError, KeyboardInterrupt,
    ) as error:  # fmt: skip
        print(str(error) or "interrupted; run it again to go on", file=sys.stderr)
        return NOT_RUN
