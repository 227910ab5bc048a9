"""What the terminal shows of a session."""

from __future__ import annotations

from collections.abc import Callable

from ..core.experiment import Experiment
from ..ledger.store import Ledger
from ..options import Options
from ..report.terminal import SessionView
from ..sandbox.launch import survey
from ..training.devices import cpu_name, visible_gpus
from .plan import Plan


def view(
    plan: Plan,
    options: Options,
    experiment: Experiment,
    proposer: str,
    stopping: str,
    open_ledger: Callable[[], Ledger],
) -> SessionView:
    """Return the present state of a session.

    Args:
        plan: Plan of the session.
        options: Options of the session.
        experiment: The declared experiment.
        proposer: Name of the proposer.
        stopping: Reason why no further attempt starts, or ''.
        open_ledger: Returns the ledger; a dry run must not create one.
    """
    contract = experiment.run is None
    if not contract:
        score = "score: self-reported by the command"
    elif options.sandbox == "off":
        score = "sandbox: off; score: unverified"
    else:
        report = survey()
        open_to = ", ".join(report.lacking)
        trust = f"unverified (nothing confines {open_to})" if open_to else "trusted"
        score = f"sandbox: {report.headline()}; score: {trust}"
    gpus = visible_gpus()
    if not options.proposer and proposer == experiment.proposer:
        proposer += " (named by the experiment, since no key of a language model is set)"
    return SessionView(
        tag=plan.tag,
        first=plan.first,
        resumed=plan.first > 1 or not plan.baselines,
        proposer=proposer,
        rule=options.judge,
        budget=str(plan.facts.budget),
        device=f"{len(gpus)} GPU(s)" if gpus else cpu_name(),
        score=score,
        contract=contract,
        metric=experiment.metric,
        iterations=options.iterations,
        planned=plan.attempts,
        html=options.html,
        stopping=stopping,
        open_ledger=open_ledger,
    )
