"""Literature for a proposer: recent papers from arXiv's public API, and a folder of own notes.

Titles and abstracts are other people's words: a prompt quotes them as data. arXiv asks for one
request in three seconds and for caching; here it is one request in many attempts.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import re
import time
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..core.files import write_atomic

ARXIV = "https://export.arxiv.org/api/query"

EVERY = 20
"""Attempts after which papers are looked for again."""

MOST = 8
"""Papers that are shown."""

PAUSE_S = 3.0
"""Seconds between two requests, as arXiv asks."""

TIMEOUT_S = 15.0

MAX_BYTES = 4 << 20

ABSTRACT = 700

NOTE = 4_000

NOTES = ("*.md", "*.txt")

_ATOM = "{http://www.w3.org/2005/Atom}"


class PapersError(Exception):
    """No papers could be fetched; one line why."""


@dataclass(frozen=True)
class Paper:
    """One paper.

    Attributes:
        id: arXiv's, with its version, e.g. ``2505.16932v1``.
        title, abstract: In one line each.
        published: Day, ``2025-05-22``.
    """

    id: str
    title: str
    abstract: str
    published: str


def fetch(query: str, most: int = MOST, url: str = ARXIV) -> tuple[Paper, ...]:
    """Ask for the newest papers that a query finds.

    Args:
        query: Words, or arXiv's own syntax (``cat:cs.LG AND ti:muon``).
        most: Papers.
        url: Of the API.

    Raises:
        PapersError: No network, a server's error, or an answer that is none.
    """
    parameters = {
        "search_query": _expression(query),
        "start": 0,
        "max_results": most,
        "sortBy": "submittedDate",
        "sortOrder": "descending",
    }
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise PapersError(f"{url} is no address of the web")
    request = urllib.request.Request(
        f"{url}?{urllib.parse.urlencode(parameters)}",
        headers={"User-Agent": f"pytest-autoresearch/{version('pytest-autoresearch')}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            data = _read(answer)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise PapersError(" ".join(f"{url}: {error}".split())[:200]) from None
    return parse(data)


def _read(answer: http.client.HTTPResponse) -> bytes:
    """Read a body that neither grows nor drips without an end."""
    data, ends = b"", time.monotonic() + TIMEOUT_S
    while part := answer.read1(1 << 16):
        data += part
        if len(data) > MAX_BYTES:
            raise ValueError(f"the answer is larger than {MAX_BYTES >> 20} MiB")
        if time.monotonic() > ends:
            raise ValueError(f"the answer is not complete after {TIMEOUT_S:g} s")
    return data


def _expression(query: str) -> str:
    """Plain words must all occur; arXiv's own syntax stays."""
    if re.search(r"\b(?:ti|au|abs|co|jr|cat|rn|id|all):", query):
        return query
    words = re.findall(r'"[^"]+"|[^\s"]+', query)
    return " AND ".join(f"all:{word}" for word in words)


def parse(data: bytes) -> tuple[Paper, ...]:
    """Read an Atom feed.

    Raises:
        PapersError: It is none, or it declares a document type, with which entities come that
            grow without bounds or name files.
    """
    try:
        root = ElementTree.fromstring(data, parser=_parser())
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise PapersError(f"the answer is no Atom feed: {error}") from None
    if root.tag != f"{_ATOM}feed":
        raise PapersError(f"the answer is no Atom feed but {root.tag[:60]!r}")
    papers = []
    for entry in root.iter(f"{_ATOM}entry"):
        said = {name: _text(entry, name) for name in ("id", "title", "summary", "published")}
        found = re.search(r"arxiv\.org/abs/(\S+)$", said["id"])
        if found and said["title"]:
            papers.append(
                Paper(found[1], said["title"][:300], said["summary"], said["published"][:10])
            )
        elif "api/errors" in said["id"]:
            raise PapersError(f"arXiv refuses the query: {said['summary'][:150]}")
    return tuple(papers)


def _parser() -> ElementTree.XMLParser:
    class Plain(ElementTree.TreeBuilder):
        def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
            raise ValueError("it declares a document type")

    return ElementTree.XMLParser(target=Plain())


def _text(entry: ElementTree.Element, name: str) -> str:
    return " ".join((entry.findtext(f"{_ATOM}{name}") or "").split())


@dataclass
class Library:
    """What is read beside the experiment; one file of papers for all processes of a campaign.

    Attributes:
        cache: File that holds what was found.
        query: What is looked for; '' asks nobody.
        notes: Folder of a person's own notes, which need not exist.
        url: Of the API.
        every: Attempts after which it is asked again.
        pause_s: Seconds between two requests.
        say: Told once in a session when nothing can be fetched.
    """

    cache: Path
    query: str = ""
    notes: Path | None = None
    url: str = ARXIV
    every: int = EVERY
    pause_s: float = PAUSE_S
    say: Callable[[str], None] = field(default=lambda message: None)
    _said: bool = False

    def text(self, attempt: int) -> str:
        """Return papers and notes for an attempt; '' where there are none.

        Within `every` attempts the same bytes come, unless a person changes the notes.
        """
        return "\n\n".join([*map(_shown, self.papers(attempt)), *self._own()])

    def papers(self, attempt: int, again: bool = False) -> tuple[Paper, ...]:
        """Return the papers for an attempt, asking where they are old; offline, the old ones.

        Args:
            attempt: Number of the attempt.
            again: Whether to ask, too, where the last request failed.
        """
        known = self._known()
        if not self._due(known, attempt, again):
            return _papers(known)
        try:
            with self._alone():
                known = self._known()  # another process may have asked meanwhile
                if self._due(known, attempt, again):
                    known = self._ask(attempt, known)
        except OSError as error:
            self._complain(f"{self.cache}: {error.strerror}")
        return _papers(known)

    def _due(self, known: dict[str, Any], attempt: int, again: bool) -> bool:
        if not self.query:
            return False
        if known.get("query") != self.query or (again and known["failed"]):
            return True
        return bool(known["attempt"] // self.every < attempt // self.every)

    def _ask(self, attempt: int, known: dict[str, Any]) -> dict[str, Any]:
        asked = known.get("asked", 0.0)
        time.sleep(max(0.0, min(self.pause_s, asked + self.pause_s - time.time())))
        entry: dict[str, Any] = {
            "query": self.query,
            "attempt": attempt,
            "failed": False,
            "papers": [],
        }
        try:
            entry["papers"] = [asdict(paper) for paper in fetch(self.query, url=self.url)]
        except PapersError as error:
            entry["failed"] = True
            if known.get("query") == self.query:
                entry["papers"] = known["papers"]
            self._complain(str(error))
        entry["asked"] = time.time()
        write_atomic(self.cache, json.dumps(entry, indent=1))
        return entry

    def _complain(self, why: str) -> None:
        if not self._said:
            self._said = True
            self.say(f"no new papers: {why}; going on without them (--autoresearch-papers)")

    def _known(self) -> dict[str, Any]:
        try:
            known = json.loads(self.cache.read_text(encoding="utf-8"))
            _papers(known)
            kinds = {"attempt": int, "asked": float, "failed": bool}
            return {**known, **{name: kind(known[name]) for name, kind in kinds.items()}}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _own(self) -> Iterator[str]:
        if self.notes is None or not self.notes.is_dir():
            return
        for path in sorted({path for pattern in NOTES for path in self.notes.glob(pattern)}):
            try:
                text = path.read_text(encoding="utf-8", errors="replace").strip()
            except OSError:  # a folder, a dead link, one that an editor is just replacing
                continue
            cut = "" if len(text) <= NOTE else "\n(the rest is left out)"
            yield f"{path.name}:\n{text[:NOTE]}{cut}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        with open(self.cache.with_name(f".{self.cache.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _papers(known: dict[str, Any]) -> tuple[Paper, ...]:
    found = known.get("papers", ())
    return tuple(Paper(**{name: str(value) for name, value in paper.items()}) for paper in found)


def _shown(paper: Paper) -> str:
    cut = paper.abstract if len(paper.abstract) <= ABSTRACT else paper.abstract[:ABSTRACT] + " …"
    return f"arXiv:{paper.id} ({paper.published}) {paper.title}\n{cut}"
