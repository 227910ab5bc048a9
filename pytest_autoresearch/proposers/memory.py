"""What a campaign remembers in words: a backlog of ideas, and lessons.

Two plain files in the campaign's folder, for models and people alike. Whatever a person writes in
them stays; only the part of the lessons between two marks is rewritten, from the ledger.
"""

from __future__ import annotations

import fcntl
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.files import write_atomic
from ..core.proposal import PastAttempt
from ..judge.verdicts import NEAR_MISS
from .llm.prompt import LESSON_EVERY, constants, line

IDEAS, LESSONS = "ideas.md", "lessons.md"

MOST_IDEAS = 3
"""Ideas, and lessons, that one answer may add."""

MOST_OPEN = 100
"""Open ideas in a backlog; above it nothing is added."""

_REMARK = re.compile(
    r"^[^\w\n]{0,4}(idea|done|lesson)[^\w\n]{0,2}:[^\w\n]{0,3}(\S.*)$", re.I | re.M
)

_TASK = re.compile(r"^\s*[-*] \[( |x|X)\] (.*?)(?: \(from [^()]*\))?\s*$")

_BEGIN = "<!-- from the ledger after {} attempts; rewritten every {} -->"

_PART = re.compile(
    r"<!-- from the ledger after (\d+) attempts(?:(?!<!-- from the ledger).)*?<!-- end -->\n?",
    re.DOTALL,
)

_KEYS = {"idea": "ideas", "done": "done", "lesson": "lessons"}

_OVER = ("keep", "discard", "crash", "timeout", "invalid", "duplicate", "guard", "cheat")


def remarks(prose: str) -> dict[str, list[str]]:
    """Read the lines ``Idea:``, ``Done:`` and ``Lesson:`` of an answer.

    Returns:
        ``ideas``, ``done`` and ``lessons``, each only if there are any: notes for a proposal's
        `meta`.
    """
    found: dict[str, list[str]] = {}
    for key, value in _REMARK.findall(prose):
        texts = found.setdefault(_KEYS[key.lower()], [])
        text = line(value.strip("*` "), 200)
        if text and len(texts) < MOST_IDEAS:
            texts.append(text)
    return {key: texts for key, texts in found.items() if texts}


@dataclass(frozen=True)
class Notebook:
    """The two files of one campaign; several processes may use them.

    Attributes:
        folder: Where they lie.
    """

    folder: Path

    def ideas(self) -> str:
        """Return the backlog as it is, a person's changes included; '' before there is one."""
        return self._read(IDEAS)

    def lessons(self, history: Sequence[PastAttempt] = ()) -> str:
        """Return the lessons, drawn from the history again where another ten attempts are over."""
        over = [a for a in history if a.verdict in _OVER]
        upto = len(over) // LESSON_EVERY * LESSON_EVERY
        if self._drawn(self._read(LESSONS)) < upto:
            with self._alone():
                self._draw(over[:upto])
        return _PART.sub(lambda part: _inside(part[0]), self._read(LESSONS))

    def note(self, meta: Mapping[str, Any], name: str = "") -> None:
        """Add what an answer said to the files; what they hold already is not added again.

        Args:
            meta: A proposal's, as `remarks` made it; may come from anyone.
            name: Of the attempt, to say where it is from.
        """
        ideas, done, lessons = (_texts(meta.get(key)) for key in _KEYS.values())
        if not (ideas or done or lessons):
            return
        source = f" (from {name})" if name else ""
        with self._alone():
            if ideas or done:
                before = self._read(IDEAS) or "# Ideas\n\n"
                after = _add_ideas(_tick(before, done), ideas, source)
                self._write(IDEAS, before, after)
            if lessons:
                before = self._read(LESSONS) or "# Lessons\n\n"
                self._write(LESSONS, before, _add_lessons(before, lessons, source))

    def _draw(self, over: Sequence[PastAttempt]) -> None:
        before = self._read(LESSONS) or "# Lessons\n\n"
        if self._drawn(before) >= len(over):
            return
        lines = [
            _BEGIN.format(len(over), LESSON_EVERY),
            *(f"- {x}" for x in distil(over)),
            "<!-- end -->",
        ]
        part = "\n".join(lines) + "\n"
        if _PART.search(before):
            after = _PART.sub(lambda _: part, before, count=1)
        else:
            after = before.rstrip("\n") + "\n\n" + part
        self._write(LESSONS, before, after)

    @staticmethod
    def _drawn(text: str) -> int:
        found = _PART.search(text)
        return int(found[1]) if found else 0

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_bytes().decode("utf-8", "surrogateescape")
        except OSError:
            return ""

    def _write(self, name: str, before: str, after: str) -> None:
        if after != before:
            write_atomic(self.folder / name, after.encode("utf-8", "surrogateescape"))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".notes.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list | tuple):
        return []
    return [t for v in value[:MOST_IDEAS] if isinstance(v, str) and (t := line(v, 200))]


def _inside(part: str) -> str:
    return "\n".join(x for x in part.split("\n") if not x.startswith("<!--"))


def _key(text: str) -> str:
    """Letters and digits: what two wordings of the same line share."""
    return re.sub(r"[\W_]+", " ", text).strip().lower()


def _tick(text: str, done: Sequence[str]) -> str:
    """Tick off ideas that are named whole, or by a beginning that only one of them has."""
    lines = text.split("\n")
    for wanted in map(_key, done):
        tasks = {i: _key(m[2]) for i, x in enumerate(lines) if (m := _TASK.match(x))}
        found = [i for i, key in tasks.items() if key == wanted]
        if not found and len(wanted) >= 12:
            found = [i for i, key in tasks.items() if key.startswith(wanted)]
        if len(found) == 1:
            lines[found[0]] = lines[found[0]].replace("[ ]", "[x]", 1)
    return "\n".join(lines)


def _add_ideas(text: str, ideas: Sequence[str], source: str) -> str:
    tasks = [m for x in text.split("\n") if (m := _TASK.match(x))]
    known = {_key(m[2]) for m in tasks}
    room = MOST_OPEN - sum(m[1] == " " for m in tasks)
    for idea in ideas:
        if _key(idea) not in known and room > 0:
            text = f"{text if text.endswith(chr(10)) else text + chr(10)}- [ ] {idea}{source}\n"
            known.add(_key(idea))
            room -= 1
    return text


def _add_lessons(text: str, lessons: Sequence[str], source: str) -> str:
    known = {_key(re.sub(r" \(from [^()]*\)\s*$", "", x)) for x in text.split("\n")}
    new = [f"- {x}{source}" for x in dict.fromkeys(lessons) if _key(x) not in known]
    if not new:
        return text
    found = _PART.search(text)
    head, tail = (text[: found.start()], text[found.start() :]) if found else (text, "")
    gap = "\n\n" if _key(head) == "lessons" else "\n"
    return head.rstrip("\n") + gap + "\n".join(new) + "\n" + ("\n" + tail if tail else "")


def distil(over: Sequence[PastAttempt], most: int = 5) -> list[str]:
    """Draw lessons from finished attempts; the same attempts give the same words.

    Args:
        over: Finished attempts, oldest first.
        most: Of a kind that are named.
    """
    counts = Counter(a.verdict for a in over)
    lessons = [
        f"of {len(over)} attempts: " + ", ".join(f"{n} {v}" for v, n in sorted(counts.items()))
    ]
    gains = sorted((-a.gain, a.attempt_id, a) for a in over if a.gain is not None)
    kept = [a for _, _, a in gains if a.verdict == "keep"]
    near = [a for _, _, a in gains if a.verdict == "discard" and (a.gain_sigma or 0.0) > NEAR_MISS]
    hurt = [a for _, _, a in reversed(gains) if (a.gain_sigma or 0.0) < -3]
    for title, group in (
        ("helped", kept),
        ("near misses, worth another look or a combination", near),
        ("clearly hurt", hurt),
    ):
        if group:
            lessons.append(f"{title}: " + "; ".join(_told(a) for a in group[:most]))
    causes = Counter(
        f"{a.verdict}: {line(a.reason, 60)}" for a in over if a.score is None and a.reason
    )
    if causes:
        listed = sorted(causes.items(), key=lambda item: (-item[1], item[0]))[:most]
        lessons.append("failed: " + "; ".join(f"{cause} (x{n})" for cause, n in listed))
    return lessons + _of_constants(over, most)


def _told(attempt: PastAttempt) -> str:
    return f"{line(attempt.title, 80)} ({attempt.gain:+.6f}, {attempt.name})"


def _of_constants(over: Sequence[PastAttempt], most: int) -> list[str]:
    """What came of turning each constant that was turned alone, more than once."""
    gains: dict[str, list[float]] = {}
    for attempt in over:
        names = set(attempt.meta.get("changes") or constants(attempt.edits))
        if len(names) == 1 and attempt.gain is not None:
            gains.setdefault(names.pop(), []).append(attempt.gain)
    often = sorted((-len(found), name) for name, found in gains.items() if len(found) > 1)
    return [
        f"{line(name, 40)} alone, {-n} times: gains from {min(gains[name]):+.6f} "
        f"to {max(gains[name]):+.6f}"
        for n, name in often[:most]
    ]
