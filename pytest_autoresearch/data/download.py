"""Downloads that end in the right bytes or in one clear line.

A file arrives in ``NAME.part``; a broken transfer goes on where it stopped (HTTP Range), and the
file gets its name only when its size, and its sha256 where the server states one, are right.
What was downloaded once is recorded in ``lock.json``: the same name never means other bytes
later, neither on the server nor on the disk.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .dataset import file_sha256

if TYPE_CHECKING:
    import requests
    from rich.progress import Progress, TaskID

ATTEMPTS = 5  # in a row without a single new byte

TIMEOUT_S = 30.0

LONGEST_PAUSE_S = 60.0

CHUNK = 1 << 16  # what a broken connection loses at most

LOCK = "lock.json"


class DownloadError(Exception):
    """A file could not be had, or is not the file it was; one line."""


class _RetryError(Exception):
    """This attempt failed in a way that the next may not; with the server's wish to wait."""

    def __init__(self, problem: str, pause_s: float = 0.0) -> None:
        super().__init__(problem)
        self.pause_s = pause_s


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of `path` all at once, when the block ends well.

    Raises:
        OSError: With `path` as its file name; nothing is left behind then.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def download_all(
    base_url: str, names: Sequence[str], folder: Path, workers: int = 8, pause_s: float = 1.0
) -> dict[str, str]:
    """Have every ``base_url/name`` as ``folder/name``, several at a time.

    Args:
        base_url: Address the names are relative to.
        names: File names, possibly with folders in them.
        folder: Where they go; also holds the lock file.
        workers: Parallel transfers.
        pause_s: First pause after a failure, in seconds; doubles with each one in a row.

    Returns:
        Name to sha256. Files that are there already are hashed, not fetched.

    Raises:
        DownloadError: If a file cannot be had or differs from what the lock file records.
        OSError: If it cannot be written.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    folder.mkdir(parents=True, exist_ok=True)
    lock = _Lock(folder / LOCK)
    missing = [name for name in names if not (folder / name).is_file()]
    for name in sorted(set(names) - set(missing)):
        path = folder / name
        lock.check(name, file_sha256(path), f"{path} has changed; delete it to fetch it again")
    if not missing:
        return {name: lock.known[name] for name in names}
    print(f"Download: {len(missing)} of {len(names)} files from {base_url}", flush=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with (
        Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as progress,
        ThreadPoolExecutor(max(1, min(workers, len(missing)))) as pool,
    ):
        fetch = _Fetch(base_url.rstrip("/"), folder, lock, pause_s, progress)
        jobs = [pool.submit(fetch.file, name) for name in missing]
        try:
            for done, (name, job) in enumerate(zip(missing, jobs, strict=True), 1):
                job.result()
                print(f"Download: {done}/{len(missing)} {name}", flush=True)
        except BaseException:
            fetch.stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return {name: lock.known[name] for name in names}


class _Lock:
    """Sha256 by name of everything ever downloaded into a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        try:
            self.known: dict[str, str] = json.loads(path.read_bytes()) if path.is_file() else {}
        except ValueError:
            raise DownloadError(f"{path} is damaged; delete it and the files beside it") from None

    def check(self, name: str, sha256: str, remedy: str) -> None:
        """Record a file, or refuse one that is not what it was."""
        with self._mutex:
            recorded = self.known.setdefault(name, sha256)
            if recorded != sha256:
                raise DownloadError(
                    f"{remedy} (sha256 {sha256[:12]}, but {recorded[:12]} in {self._path})"
                )
            with replacing(self._path) as file:
                file.write(json.dumps(self.known, indent=1, sort_keys=True).encode())


class _Fetch:
    """The transfers of one call: what they share, and how one file is fetched."""

    def __init__(
        self, base_url: str, folder: Path, lock: _Lock, pause_s: float, progress: Progress
    ) -> None:
        self.stop = threading.Event()
        self._base_url, self._folder, self._lock = base_url, folder, lock
        self._pause_s, self._progress = pause_s, progress

    def file(self, name: str) -> None:
        """Fetch one file, attempt after attempt, until it is whole or nothing moves any more."""
        url, path = f"{self._base_url}/{name}", self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        failures, reached = 0, _size(part)
        task = self._progress.add_task(name, total=None)
        while not self.stop.is_set():
            try:
                sha256 = self._transfer(url, part, task)
            except _RetryError as error:
                failures = 1 if _size(part) > reached else failures + 1
                reached = max(reached, _size(part))
                if failures >= ATTEMPTS:
                    raise DownloadError(
                        f"{url}: {error} ({failures} times in a row); "
                        "run the same command again to go on"
                    ) from None
                pause = max(error.pause_s, self._pause_s * 2 ** (failures - 1))
                self.stop.wait(min(pause, LONGEST_PAUSE_S))
                continue
            if sha256:
                self._lock.check(name, sha256, f"{url} is not the file it was; {_ACCEPT}")
                part.replace(path)
                _validator(part).unlink(missing_ok=True)
            break
        self._progress.remove_task(task)

    def _transfer(self, url: str, part: Path, task: TaskID) -> str:
        """One request; appends to `part` if the server's file is still the same.

        Returns:
            Sha256 of the whole file; empty if it was told to stop.
        """
        import requests

        headers = {"Accept-Encoding": "identity"}
        known = _validator(part).read_text() if _validator(part).is_file() else ""
        start = _size(part) if known else 0
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": known}
        try:
            with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
                _check_status(url, response, part)
                resumed = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
                start = start if response.status_code == 206 and resumed else 0
                length = response.headers.get("Content-Length")
                total = start + int(length) if length else None
                self._progress.update(task, completed=start, total=total)
                if not start:
                    headers_of = response.headers
                    strong = headers_of.get("ETag", "").removeprefix("W/")
                    _validator(part).write_text(strong or headers_of.get("Last-Modified", ""))
                with part.open("ab" if start else "wb") as file:
                    for chunk in response.iter_content(CHUNK):
                        file.write(chunk)
                        self._progress.advance(task, len(chunk))
                        if self.stop.is_set():
                            return ""
                    file.flush()
                    os.fsync(file.fileno())
                stated = [_stated_sha256(answer) for answer in (*response.history, response)]
        except requests.Timeout:
            raise _RetryError(f"no answer within {TIMEOUT_S:g} s") from None
        except requests.RequestException as error:
            raise _RetryError(f"the connection failed ({type(error).__name__})") from None
        if total is not None and _size(part) != total:
            raise _RetryError(f"{_size(part)} of {total} bytes arrived")
        sha256 = file_sha256(part)
        if any(expected not in (None, sha256) for expected in stated):
            part.unlink()
            raise _RetryError("the bytes do not have the sha256 that the server states")
        return sha256


_ACCEPT = "to accept the new one, delete the old one's line in the lock file"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _validator(part: Path) -> Path:
    """Where the ETag (or date) is kept that tells whether a partial file may be continued."""
    return part.with_name(part.name + ".etag")


def _stated_sha256(response: requests.Response) -> str | None:
    """A file's sha256 as large-file stores state it: the ETag, or the one a redirect links."""
    stated = response.headers.get("X-Linked-ETag") or response.headers.get("ETag") or ""
    match = re.fullmatch(r'"?([0-9a-f]{64})"?', stated)
    return match[1] if match else None


def _check_status(url: str, response: requests.Response, part: Path) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    if status == 416:  # the partial file is longer than the server's
        part.unlink(missing_ok=True)
    if status in (408, 416, 429) or status >= 500:
        after = response.headers.get("Retry-After", "")
        raise _RetryError(f"HTTP {status}", float(after) if after.isdigit() else 0.0)
    raise DownloadError(f"{url}: HTTP {status} {response.reason}; check the address")
