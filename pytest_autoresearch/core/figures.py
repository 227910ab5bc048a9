"""The figures of an attempt by name, for the junit log, CSV, trackers and tables."""

from __future__ import annotations

from collections.abc import Mapping

from .records import Attempt

Figure = str | float


def figures(attempt: Attempt, names: Mapping[int, str] | None = None) -> dict[str, Figure]:
    """Return every figure and short text of an attempt by name, in the order of docs/logs.md.

    Absent ones are left out. `names` maps ledger rows to names of parent and champions.
    """
    names = names or {}
    usage = attempt.usage
    values: dict[str, Figure | None] = {
        "verdict": attempt.verdict or attempt.state,
        "reason": attempt.reason,
        "title": attempt.title,
        "hypothesis": attempt.hypothesis,
        "score": attempt.score,
        "bar": attempt.bar,
        "gain": attempt.gain,
        "gain_sigma": attempt.gain_sigma,
        "replicates": attempt.n or None,
        "commit": attempt.commit,
        "parent": _name(attempt.parent, names),
        "champion_before": _name(attempt.champion_before, names),
        "champion_after": _name(attempt.champion_after, names),
        "lines_added": attempt.lines_added,
        "lines_removed": attempt.lines_removed,
        "checks": " ".join(
            f"{note.name.replace(' ', '-')}={'ok' if note.ok else 'no'}"
            for note in attempt.check_notes
        ),
        "refused_by": "; ".join(f"{n.name}: {n.detail}" for n in attempt.check_notes if not n.ok),
        "check_seconds": sum(note.seconds for note in attempt.check_notes) or None,
        "ledger_row": str(attempt.id),
        "worker": attempt.worker,
        "session": str(attempt.session_id),
        "proposer": attempt.proposer,
        "brief": attempt.meta.get("brief"),
        "model": usage.model,
        "tokens": usage.tokens_in + usage.output_tokens or None,
        "input_tokens": usage.input_tokens or None,
        "cache_read_tokens": usage.cache_read_tokens or None,
        "cache_write_tokens": usage.cache_write_tokens or None,
        "output_tokens": usage.output_tokens or None,
        "requests": usage.requests or None,
        "dollars": usage.cost_usd,
        "proposer_seconds": usage.seconds or None,
        **_run_figures(attempt),
    }
    return {name: value for name, value in values.items() if value not in (None, "")}


def _name(row: int | None, names: Mapping[int, str]) -> str:
    return "" if row is None else names.get(row, str(row))


def _run_figures(attempt: Attempt) -> dict[str, Figure | None]:
    own = attempt.own_runs
    if not own:
        return {}
    last = own[-1]
    scored = [run for run in own if run.status == "ok"]
    return {
        "seeds": " ".join(str(run.seed) for run in scored),
        "scores": " ".join(f"{run.seed}={run.score!r}" for run in scored),
        "training_seconds": last.train_seconds,
        "total_seconds": sum(run.total_seconds for run in attempt.runs),
        "cpu_seconds": last.cpu_seconds,
        "work": last.work,
        "steps": last.steps,
        "parameters": last.parameters,
        "worst_token_nats": last.evidence.get("worst_token_nats"),
        "peak_memory_mb": max(run.peak_memory_bytes for run in own) / 2**20,
        "mfu_percent": last.metrics.get("mfu_percent"),
        "score_kind": last.score_kind,
        "score_se": last.score_se,
        "budget": last.budget,
        "device": last.device,
        "concurrency": last.concurrency,
        "sandbox": " ".join(f"{k}={v.split(':')[0]}" for k, v in last.sandbox.items()),
        **{f"hash_{name}": value for name, value in last.hashes.items()},
    }
