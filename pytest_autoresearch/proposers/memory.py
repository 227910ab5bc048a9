"""The campaign's notes: a backlog of ideas, and lessons.

Two plain files in the campaign's folder, for models and people alike. Whatever a person writes in
them stays; only the part of the lessons between two marks is rewritten, from the ledger.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..core.files import locked, write_atomic
from ..core.proposal import PastAttempt
from ..judge.families import FAMILIES
from ..judge.verdicts import NEAR_MISS
from .history import LESSON_EVERY, constants, line

IDEAS, LESSONS = "ideas.md", "lessons.md"

MOST_IDEAS = 3
"""Ideas, and lessons, that one answer may add."""

MOST_OPEN = 100
"""Open ideas in the backlog, above which none is added."""

_REMARK = re.compile(
    r"^[^\w\n]{0,4}(idea|done|lesson|family|expected)[^\w\n]{0,2}:[^\w\n.]{0,3}(\S.*)$",
    re.I | re.M,
)

_NUMBER = re.compile(r"(?<![\w.])\d*\.?\d+(?:[eE][-+]?\d+)?(?![\w%.]|\s*%)")

_SPELLINGS = {
    "optimiser": "optimizer", "initialization": "initialisation", "data-order": "data order",
}  # fmt: skip

_TASK = re.compile(r"^\s*[-*] \[( |x|X)\] (.*?)(?: \(from [^()]*\))?\s*$")

_BEGIN = "<!-- from the ledger after {} attempts; rewritten every {} -->"

_GENERATED = re.compile(
    r"<!-- from the ledger after (\d+) attempts(?:(?!<!-- from the ledger).)*?<!-- end -->\n?",
    re.DOTALL,
)

_KEYS = {"idea": "ideas", "done": "done", "lesson": "lessons"}

_FINISHED = ("keep", "discard", "crash", "timeout", "invalid", "duplicate", "guard", "cheat")


def remarks(prose: str) -> dict[str, Any]:
    """Parse an answer's lines ``Idea:``, ``Done:``, ``Lesson:``, ``Family:`` and ``Expected:``.

    Returns:
        ``ideas``, ``done`` and ``lessons``, lists of texts, ``family``, one of `FAMILIES`, and
        ``expected``, a gain above zero: each only if there is one, for a proposal's `meta`.
    """
    found: dict[str, Any] = {}
    for key, value in _REMARK.findall(prose):
        key, text = key.lower(), line(value.strip("*` "), 200)
        if key in _KEYS:
            group = found.setdefault(_KEYS[key], [])
            if text and len(group) < MOST_IDEAS:
                group.append(text)
        elif key not in found:
            found[key] = _family(text) if key == "family" else _expected(text)
    return {key: value for key, value in found.items() if value}


def _family(text: str) -> str:
    """Return the first family that a text names, or ''."""
    text = text.lower()
    for other, name in _SPELLINGS.items():
        text = text.replace(other, name)
    places = [(text.find(name), name) for name in FAMILIES if name in text]
    return min(places)[1] if places else ""


def _expected(text: str) -> float:
    """Return the gain that a text states, of a range its middle; 0 if it states none.

    Nobody proposes a loss, so the sign only says which direction of the metric is meant.
    """
    numbers = [float(number) for number in _NUMBER.findall(text)[:2]]
    ranged = len(numbers) == 2 and re.search(r"\d\s*(?:-|–|to)\s*[+-]?\.?\d", text)
    value = fmean(numbers) if ranged else numbers[0] if numbers else 0.0
    return value if value < math.inf else 0.0


@dataclass(frozen=True)
class Notebook:
    """The two files of one campaign, which several processes may use.

    Attributes:
        folder: The campaign's folder.
    """

    folder: Path

    def ideas(self) -> str:
        """Return the backlog, a person's changes included; '' if there is none yet."""
        return self._read(IDEAS)

    def lessons(self, history: Sequence[PastAttempt] = ()) -> str:
        """Return the lessons, drawn from the history again after every `LESSON_EVERY` attempts."""
        finished = [a for a in history if a.verdict in _FINISHED]
        count = len(finished) // LESSON_EVERY * LESSON_EVERY
        if _attempts_covered(self._read(LESSONS)) < count:
            with self._lock():
                self._rewrite(finished[:count])
        return _GENERATED.sub(lambda part: _without_marks(part[0]), self._read(LESSONS))

    def note(self, meta: Mapping[str, Any], name: str = "") -> None:
        """Add the remarks of an answer to the files, without duplicates.

        Args:
            meta: A proposal's, with the keys of `remarks`; untrusted.
            name: Attempt that they are attributed to.
        """
        ideas, done, lessons = (_texts(meta.get(key)) for key in _KEYS.values())
        if not (ideas or done or lessons):
            return
        source = f" (from {name})" if name else ""
        with self._lock():
            if ideas or done:
                before = self._read(IDEAS) or "# Ideas\n\n"
                self._write(IDEAS, before, _add_ideas(_tick(before, done), ideas, source))
            if lessons:
                before = self._read(LESSONS) or "# Lessons\n\n"
                self._write(LESSONS, before, _add_lessons(before, lessons, source))

    def _rewrite(self, finished: Sequence[PastAttempt]) -> None:
        before = self._read(LESSONS) or "# Lessons\n\n"
        if _attempts_covered(before) >= len(finished):
            return
        begin = _BEGIN.format(len(finished), LESSON_EVERY)
        part = "\n".join([begin, *(f"- {x}" for x in distil(finished)), "<!-- end -->\n"])
        if _GENERATED.search(before):
            after = _GENERATED.sub(lambda _: part, before, count=1)
        else:
            after = before.rstrip("\n") + "\n\n" + part
        self._write(LESSONS, before, after)

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_bytes().decode("utf-8", "surrogateescape")
        except OSError:
            return ""

    def _write(self, name: str, before: str, after: str) -> None:
        if after != before:
            write_atomic(self.folder / name, after.encode("utf-8", "surrogateescape"))

    def _lock(self) -> AbstractContextManager[None]:
        return locked(self.folder / ".notes.lock")


def _attempts_covered(text: str) -> int:
    part = _GENERATED.search(text)
    return int(part[1]) if part else 0


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list | tuple):
        return []
    return [t for v in value[:MOST_IDEAS] if isinstance(v, str) and (t := line(v, 200))]


def _without_marks(part: str) -> str:
    return "\n".join(x for x in part.split("\n") if not x.startswith("<!--"))


def _key(text: str) -> str:
    """Return letters and digits only, which two spellings of a line share."""
    return re.sub(r"[\W_]+", " ", text).strip().lower()


def _tick(text: str, done: Sequence[str]) -> str:
    """Tick off ideas given in full, or by a beginning that only one of them has."""
    lines = text.split("\n")
    for wanted in map(_key, done):
        tasks = {i: _key(m[2]) for i, x in enumerate(lines) if (m := _TASK.match(x))}
        matches = [i for i, key in tasks.items() if key == wanted]
        if not matches and len(wanted) >= 12:
            matches = [i for i, key in tasks.items() if key.startswith(wanted)]
        if len(matches) == 1:
            lines[matches[0]] = lines[matches[0]].replace("[ ]", "[x]", 1)
    return "\n".join(lines)


def _add_ideas(text: str, ideas: Sequence[str], source: str) -> str:
    tasks = [m for x in text.split("\n") if (m := _TASK.match(x))]
    present = {_key(m[2]) for m in tasks}
    room = MOST_OPEN - sum(m[1] == " " for m in tasks)
    for idea in ideas:
        if _key(idea) not in present and room > 0:
            text = f"{text if text.endswith(chr(10)) else text + chr(10)}- [ ] {idea}{source}\n"
            present.add(_key(idea))
            room -= 1
    return text


def _add_lessons(text: str, lessons: Sequence[str], source: str) -> str:
    present = {_key(re.sub(r" \(from [^()]*\)\s*$", "", x)) for x in text.split("\n")}
    new = [f"- {x}{source}" for x in dict.fromkeys(lessons) if _key(x) not in present]
    if not new:
        return text
    part = _GENERATED.search(text)
    head, tail = (text[: part.start()], text[part.start() :]) if part else (text, "")
    gap = "\n\n" if _key(head) == "lessons" else "\n"
    return head.rstrip("\n") + gap + "\n".join(new) + "\n" + ("\n" + tail if tail else "")


def distil(finished: Sequence[PastAttempt], most: int = 5) -> list[str]:
    """Draw lessons from finished attempts; deterministic.

    Args:
        finished: Attempts, oldest first.
        most: Attempts that each lesson names.
    """
    counts = Counter(a.verdict for a in finished)
    shown = ", ".join(f"{n} {v}" for v, n in sorted(counts.items()))
    lessons = [f"of {len(finished)} attempts: {shown}"]
    gains = sorted((-a.gain, a.attempt_id, a) for a in finished if a.gain is not None)
    ranked = [a for _, _, a in gains]
    groups = {
        "helped": [a for a in ranked if a.verdict == "keep"],
        "near misses, worth another look or a combination": [
            a for a in ranked if a.verdict == "discard" and (a.gain_sigma or 0.0) > NEAR_MISS
        ],
        "clearly hurt": [a for a in reversed(ranked) if (a.gain_sigma or 0.0) < -3],
    }
    for title, group in groups.items():
        if group:
            described = (f"{line(a.title, 80)} ({a.gain:+.6f}, {a.name})" for a in group[:most])
            lessons.append(f"{title}: " + "; ".join(described))
    why = Counter(a.cause for a in finished if a.verdict == "discard" and a.cause)
    if why:
        listed = ", ".join(f"{cause} (x{n})" for cause, n in why.most_common())
        lessons.append(f"discards: {listed}")
    causes = Counter(
        f"{a.verdict}: {line(a.reason, 60)}" for a in finished if a.score is None and a.reason
    )
    if causes:
        often = sorted(causes.items(), key=lambda item: (-item[1], item[0]))[:most]
        lessons.append("failed: " + "; ".join(f"{cause} (x{n})" for cause, n in often))
    return lessons + _lessons_of_constants(finished, most)


def _lessons_of_constants(finished: Sequence[PastAttempt], most: int) -> list[str]:
    """Return the range of gains of each constant that was changed alone more than once."""
    gains: dict[str, list[float]] = {}
    for attempt in finished:
        names = set(attempt.meta.get("changes") or constants(attempt.edits))
        if len(names) == 1 and attempt.gain is not None:
            gains.setdefault(names.pop(), []).append(attempt.gain)
    often = sorted((-len(values), name) for name, values in gains.items() if len(values) > 1)
    return [
        f"{line(name, 40)} alone, {-n} times: gains from {min(gains[name]):+.6f} "
        f"to {max(gains[name]):+.6f}"
        for n, name in often[:most]
    ]
