"""Sections of the prompt: files, setting, earlier proposals, notes, figures, the task."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...core.proposal import Context, Edit, PastAttempt
from ...judge.families import by_family
from ...source.edits import unified
from ...source.outline import outline
from ..history import LESSON_EVERY, latest_failure, line, quote

WHOLE_FILE_CHARACTERS = 4_000
"""Length above which of a fixed Python file only constants and signatures are shown."""

FIXED_FILE_CHARACTERS = 24_000

NOTE_CHARACTERS = 12_000

LOG_LINES, FAILURE_LOG_LINES, LOG_COLUMNS = 30, 50, 400

SIBLINGS = 6

EDIT_CHARACTERS, FAILED_CHARACTERS = 2_000, 16_000
"""Most characters of an earlier proposal, and of the latest one if it failed."""


def fence(code: str) -> str:
    """Return code between fences that nothing in it can close."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}python\n{code}\n{marks}"


def fixed(files: Mapping[str, str]) -> str:
    """Return the files that no proposal may change; long Python files in outline."""
    parts = []
    for name, text in files.items():
        what = f"{name}, which no proposal may change"
        if name.endswith(".py") and len(text) > WHOLE_FILE_CHARACTERS:
            text, what = outline(text), f"{what} (only constants and signatures are shown)"
        shown = text[:FIXED_FILE_CHARACTERS]
        cut = "" if shown == text else "\n# (the rest is left out)"
        parts.append(f"{what}:\n\n{fence(shown.rstrip() + cut)}")
    return "\n\n".join(parts)


def files(context: Context, agent: bool) -> tuple[str, str]:
    """Return the champion's files, and the parent's difference from them.

    The champion stays the same for many attempts, so that a provider's cache holds its files; the
    parent changes from attempt to attempt and differs by little.
    """
    parent, champion = context.parent, context.champion
    if parent.attempt_id == champion.attempt_id:
        return "" if agent else _whole(context.files, _name(parent)), ""
    note = f"You change the files of {_name(parent)}"
    if parent.verdict == "discard" and parent.gain is not None:
        note += (
            f", a gain of {parent.gain:+.6f} that is not surely one: build on it. What you propose "
            "is judged with it, together, against the champion"
        )
    if agent:
        return "", f"{note}."
    before = {name: champion.read_files().get(name, "") for name in context.files}
    diff = unified(before, context.files)
    whole = _whole(context.files, _name(parent))
    if 2 * len(diff) > len(whole):
        return whole, f"{note}."
    note += ". They are the champion's, above, with these changes made"
    return _whole(before, _name(champion)), f"{note}:\n\n{fence(diff.rstrip())}"


def _name(attempt: PastAttempt) -> str:
    return "the baseline" if attempt.verdict == "baseline" else attempt.name


def _whole(texts: Mapping[str, str], owner: str) -> str:
    return "\n\n".join(
        f"Current {name} (of {owner}):\n\n{fence(text.rstrip())}" for name, text in texts.items()
    )


def failed(context: Context) -> str:
    """Return the latest proposal whole if it failed, so that its fault can be fixed."""
    attempt = latest_failure(context.history)
    if attempt is None or not attempt.edits:
        return ""
    return f"The proposal of {attempt.name}, which failed:\n" + quote(
        "failed", _shortened(_proposal(attempt), FAILED_CHARACTERS)
    )


def siblings(context: Context) -> str:
    """Return the latest attempts on the same parent, shortened."""
    latest = latest_failure(context.history)
    parent = context.parent.attempt_id
    same = [a for a in context.history if a.parent == parent and a is not latest][-SIBLINGS:]
    parts = [
        f"{a.name}: {a.verdict}\n{quote('attempt', _shortened(_proposal(a), EDIT_CHARACTERS))}"
        for a in same
    ]
    return "\n".join(["The latest attempts on the same files:", *parts]) if parts else ""


def _proposal(attempt: PastAttempt) -> str:
    changes = map(_change, attempt.edits)
    texts = [attempt.title, attempt.hypothesis, attempt.reason, *changes]
    return "\n".join(text for text in texts if text)


def _shortened(text: str, most: int) -> str:
    """Return whole lines of at most `most` characters, and a mark of what is left out."""
    if len(text) <= most:
        return text
    shown = text[:most].rpartition("\n")[0] or text[:most]
    return f"{shown}\n(shortened: {len(text) - len(shown):,} more characters)"


def _change(edit: Edit) -> str:
    old, new = (text.splitlines() for text in (edit.search, edit.replace))
    return "\n".join([f"in {edit.file}:", *(f"- {x}" for x in old), *(f"+ {x}" for x in new)])


def note(title: str, name: str, text: str) -> str:
    """Quote a file of notes; of a long one, the end, which is the newest."""
    shown = text.strip()
    if len(shown) > NOTE_CHARACTERS:
        shown = "(the beginning is left out)\n" + shown[-NOTE_CHARACTERS:].partition("\n")[2]
    return f"{title}:\n{quote(name, shown)}" if shown else ""


def log(context: Context) -> str:
    """Return the end of the parent's log, or of the latest attempt's if that one failed."""
    owner, text, length = "the parent", context.log_tail, LOG_LINES
    latest = latest_failure(context.history)
    if latest is not None and latest.log_tail.strip():
        owner, text, length = latest.name, latest.log_tail, FAILURE_LOG_LINES
    text = "\n".join(part[:LOG_COLUMNS] for part in text.splitlines()[-length:])
    return f"End of the training log of {owner}:\n{quote('log', text)}" if text.strip() else ""


def standing(context: Context) -> str:
    """Return the figures of champion, parent and latest attempt, and the record of each family."""
    finished = [a for a in context.history if a.verdict not in ("running", "baseline")]
    shown = {context.champion.attempt_id: ("The champion", context.champion)}
    if context.parent.attempt_id not in shown:
        shown[context.parent.attempt_id] = ("The parent", context.parent)
    if finished and finished[-1].attempt_id not in shown:
        shown[finished[-1].attempt_id] = ("The latest attempt", finished[-1])
    figures = [
        f"{role}, {_name(attempt)}: {text}."
        for role, attempt in shown.values()
        if (text := _figures(attempt, context))
    ]
    parts = []
    if figures:
        parts.append(
            "\n".join(
                [
                    "Figures, as means over the runs. The time of a step is CPU time (on CUDA: of "
                    "the clock); its parts and the training loss are as noted by the process:",
                    *figures,
                ]
            )
        )
    if records := by_family(context.history):
        parts.append("\n".join(["Ideas by family:", *map(str, records)]))
    return "\n\n".join(parts)


def _figures(attempt: PastAttempt, context: Context) -> str:
    """Describe what the runs of an attempt measured."""
    measured, metric = attempt.measured, context.experiment.metric.name
    parts = []
    if attempt.score is not None:
        seeds = measured.seeds
        on = f" (seed{'s' if len(seeds) > 1 else ''} {' '.join(map(str, seeds))})" if seeds else ""
        parts.append(f"{metric} {attempt.score:.6f}{on}")
    if measured.steps:
        parts.append(f"{measured.steps:,.0f} steps, {measured.work:,.0f} tokens")
        times = ", ".join(f"{name} {ms:.1f}" for name, ms in measured.parts.items())
        parts.append(f"{measured.step_ms:.1f} ms a step" + (f" ({times})" if times else ""))
    if measured.train_loss:
        loss = f"training loss of the last tenth {measured.train_loss:.4f}"
        if context.bits_per_nat:
            loss += f" nats = {measured.train_loss * context.bits_per_nat:.4f} bits/byte"
        parts.append(loss)
    if measured.worst_token:
        parts.append(f"worst token {measured.worst_token:.1f} nats")
    if measured.parameters:
        parts.append(f"{measured.parameters:,} parameters")
    if measured.memory_mb:
        parts.append(f"{measured.memory_mb:.0f} MiB")
    return "; ".join(parts)


def task(context: Context) -> str:
    """Return the task: what to propose, what to beat, what to mind."""
    metric, champion = context.experiment.metric, context.champion
    better = "lower" if metric.direction == "min" else "higher"
    parts = [
        f"Propose the mutation for attempt {context.attempt}. {metric.name}: {better} is better."
    ]
    if champion.score is not None:
        parts.append(
            f"The champion is {_name(champion)} with {champion.score:.6f}, the mean over its seeds."
        )
    if context.sigma is not None:
        parts.append(f"One paired comparison scatters by {context.sigma:.6f} (sigma).")
    if running := [a for a in context.history if a.verdict == "running" and a.title]:
        titles = "; ".join(line(a.title, 100) for a in running)
        parts.append(
            f"In flight now; neither repeat them nor edit the lines that they edit: {titles}."
        )
    if (latest := latest_failure(context.history)) is not None:
        parts.append(
            f"The latest attempt, {latest.name}, had no score ({line(latest.reason)}). If its idea "
            "is still worth trying, propose it again with the fault fixed."
        )
    if context.attempt % LESSON_EVERY == 0:
        parts.append("Look back over the history and add one line that begins with Lesson: to it.")
    if context.hint:
        parts.append(context.hint)
    return " ".join(parts)
