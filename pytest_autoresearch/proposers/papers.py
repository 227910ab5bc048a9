"""Literature for a proposer: recent papers from arXiv's public API, and a folder of notes.

Titles and abstracts are untrusted: a prompt quotes them as data. arXiv asks for at most one request
in three seconds and for caching; here it is one request in many attempts.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..core.files import locked, write_atomic

ARXIV = "https://export.arxiv.org/api/query"

EVERY = 20
"""Attempts after which papers are requested again."""

MOST = 8
"""Papers in a prompt."""

PAUSE_S = 3.0
"""Seconds between two requests, as arXiv asks."""

TIMEOUT_S = 15.0

MAX_BYTES = 4 << 20

ABSTRACT = 700

NOTE = 4_000

NOTES = ("*.md", "*.txt")

_ATOM = "{http://www.w3.org/2005/Atom}"


class PapersError(Exception):
    """No papers could be fetched; the reason in one line."""


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
    """Fetch the newest papers that match a query.

    Args:
        query: Words, or arXiv's own syntax (``cat:cs.LG AND ti:muon``).
        most: Number of papers.
        url: Address of the API.

    Raises:
        PapersError: No network, a server's error, or a response that is not an Atom feed.
    """
    parameters = {
        "search_query": _expression(query),
        "start": 0,
        "max_results": most,
        "sortBy": "submittedDate",
        "sortOrder": "descending",
    }
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise PapersError(f"{url} is not an http address")
    request = urllib.request.Request(
        f"{url}?{urllib.parse.urlencode(parameters)}",
        headers={"User-Agent": f"pytest-autoresearch/{version('pytest-autoresearch')}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            data = _read(response)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise PapersError(" ".join(f"{url}: {error}".split())[:200]) from None
    return parse(data)


def _read(response: http.client.HTTPResponse) -> bytes:
    """Read a body within bounds of size and time."""
    data, deadline = b"", time.monotonic() + TIMEOUT_S
    while part := response.read1(1 << 16):
        data += part
        if len(data) > MAX_BYTES:
            raise ValueError(f"the answer is larger than {MAX_BYTES >> 20} MiB")
        if time.monotonic() > deadline:
            raise ValueError(f"the answer is not complete after {TIMEOUT_S:g} s")
    return data


def _expression(query: str) -> str:
    """Return a query in arXiv's syntax; plain words must all occur."""
    if re.search(r"\b(?:ti|au|abs|co|jr|cat|rn|id|all):", query):
        return query
    return " AND ".join(f"all:{word}" for word in re.findall(r'"[^"]+"|[^\s"]+', query))


def parse(data: bytes) -> tuple[Paper, ...]:
    """Parse an Atom feed.

    Raises:
        PapersError: It is not one, or it declares a document type: entities could grow without
            bounds or name files.
    """
    try:
        parser = ElementTree.XMLParser(target=_WithoutDoctype())
        root = ElementTree.fromstring(data, parser=parser)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise PapersError(f"the response is not an Atom feed: {error}") from None
    if root.tag != f"{_ATOM}feed":
        raise PapersError(f"the response is not an Atom feed but {root.tag[:60]!r}")
    papers = []
    for entry in root.iter(f"{_ATOM}entry"):
        identity, title, summary, published = (
            " ".join((entry.findtext(f"{_ATOM}{name}") or "").split())
            for name in ("id", "title", "summary", "published")
        )
        match = re.search(r"arxiv\.org/abs/(\S+)$", identity)
        if match and title:
            papers.append(Paper(match[1], title[:300], summary, published[:10]))
        elif "api/errors" in identity:
            raise PapersError(f"arXiv refuses the query: {summary[:150]}")
    return tuple(papers)


class _WithoutDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type")


@dataclass
class Library:
    """Papers and notes of a campaign; its processes share one cache file.

    Attributes:
        cache: File of the papers fetched last.
        query: Search query; '' fetches nothing.
        notes: Folder of the user's notes, which need not exist.
        url: Address of the API.
        every: Attempts after which papers are requested again.
        pause_s: Seconds between two requests.
        say: Receives one warning per session if nothing can be fetched.
    """

    cache: Path
    query: str = ""
    notes: Path | None = None
    url: str = ARXIV
    every: int = EVERY
    pause_s: float = PAUSE_S
    say: Callable[[str], None] = field(default=lambda message: None)
    _warned: bool = False

    def text(self, attempt: int) -> str:
        """Return papers and notes for an attempt; '' if there are none.

        The same within `every` attempts, unless a person changes the notes.
        """
        return "\n\n".join([*map(_show, self.papers(attempt)), *self._notes()])

    def papers(self, attempt: int, again: bool = False) -> tuple[Paper, ...]:
        """Return the papers for an attempt; requests new ones if the cached ones are old.

        Args:
            attempt: Number of the attempt.
            again: Whether to repeat a request that failed.
        """
        cached = self._cached()
        if self._due(cached, attempt, again):
            try:
                with locked(self.cache.with_name(f".{self.cache.name}.lock")):
                    cached = self._cached()  # another process may have fetched meanwhile
                    if self._due(cached, attempt, again):
                        cached = self._fetch(attempt, cached)
            except OSError as error:
                self._warn(f"{self.cache}: {error.strerror}")
        return _papers(cached)

    def _due(self, cached: dict[str, Any], attempt: int, again: bool) -> bool:
        if not self.query:
            return False
        if cached.get("query") != self.query or (again and cached["failed"]):
            return True
        return bool(cached["attempt"] // self.every < attempt // self.every)

    def _fetch(self, attempt: int, cached: dict[str, Any]) -> dict[str, Any]:
        due = cached.get("asked", 0.0) + self.pause_s
        time.sleep(max(0.0, min(self.pause_s, due - time.time())))
        entry = {"query": self.query, "attempt": attempt, "failed": False}
        try:
            entry["papers"] = [asdict(paper) for paper in fetch(self.query, url=self.url)]
        except PapersError as error:
            entry["failed"] = True
            entry["papers"] = cached["papers"] if cached.get("query") == self.query else []
            self._warn(str(error))
        entry["asked"] = time.time()
        write_atomic(self.cache, json.dumps(entry, indent=1))
        return entry

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            self.say(f"no new papers: {why}; going on without them (--autoresearch-papers)")

    def _cached(self) -> dict[str, Any]:
        try:
            entry = json.loads(self.cache.read_text(encoding="utf-8"))
            _papers(entry)
            kinds = {"attempt": int, "asked": float, "failed": bool}
            return {**entry, **{name: kind(entry[name]) for name, kind in kinds.items()}}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _notes(self) -> Iterator[str]:
        if self.notes is None or not self.notes.is_dir():
            return
        for path in sorted({path for pattern in NOTES for path in self.notes.glob(pattern)}):
            try:
                text = path.read_text(encoding="utf-8", errors="replace").strip()
            except OSError:  # a folder, a dead link, or a file that an editor is replacing
                continue
            cut = "" if len(text) <= NOTE else "\n(the rest is left out)"
            yield f"{path.name}:\n{text[:NOTE]}{cut}"


def _papers(cached: dict[str, Any]) -> tuple[Paper, ...]:
    papers = cached.get("papers", ())
    return tuple(Paper(**{name: str(value) for name, value in paper.items()}) for paper in papers)


def _show(paper: Paper) -> str:
    cut = paper.abstract if len(paper.abstract) <= ABSTRACT else paper.abstract[:ABSTRACT] + " …"
    return f"arXiv:{paper.id} ({paper.published}) {paper.title}\n{cut}"
