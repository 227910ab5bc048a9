"""Locks of a campaign's sessions, which the kernel frees when their process dies.

One file for each session, whose time of change is the session's sign of life. Process ids and host
names cannot be compared between containers; file locks can, but some network file systems do not
carry them to other machines.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import threading
import time
from pathlib import Path
from typing import IO

from ..core.processes import boot_id

LOCKS = "session-*.lock"
"""Names of the lock files in the folder of a campaign."""

BEAT_S = 20.0
"""Seconds between two signs of life of a session."""

SILENT_S = 120.0
"""Seconds without a sign of life after which a session of another machine counts as dead."""


class SessionLocks:
    """The locks of one campaign, those of this process and those of others.

    Args:
        folder: Of the campaign.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own: dict[int, tuple[IO[bytes], threading.Event]] = {}

    def take(self, session_id: int) -> None:
        """Lock a session of this process, and show that it lives until it is released.

        Raises:
            OSError: The file cannot be written or locked.
        """
        file = self._path(session_id).open("wb")
        with contextlib.suppress(OSError):  # a file system without locks has signs of life
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ended = threading.Event()
        self._own[session_id] = file, ended
        threading.Thread(
            target=self._beat, args=(session_id, ended), daemon=True, name="autoresearch-beat"
        ).start()

    def _beat(self, session_id: int, ended: threading.Event) -> None:
        with contextlib.suppress(OSError):  # the folder is gone
            while not ended.wait(BEAT_S):
                os.utime(self._path(session_id))

    def release(self, session_id: int) -> None:
        """Free a session's lock: an own one, or that of a dead process."""
        file, ended = self._own.pop(session_id, (None, None))
        if file and ended:
            ended.set()
            file.close()
        with contextlib.suppress(OSError):
            self._path(session_id).unlink()

    def held(self, session_id: int, host: str, boot: str) -> bool:
        """Return whether the process of a session lives.

        Args:
            session_id: Of the session.
            host: Name of the machine or container of the process.
            boot: Boot of the machine. Another boot of the same host is over.
        """
        if session_id in self._own:
            return True
        by_signs = _elsewhere(host, boot)
        try:
            with self._path(session_id).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError:  # no locks here
            by_signs = True
        return by_signs and self._silent_s(session_id) < SILENT_S

    def hint(self, session_id: int, host: str, boot: str) -> str:
        """Return what to do if a session of another machine has died; '' for this machine."""
        if not _elsewhere(host, boot):
            return ""
        silent = self._silent_s(session_id)
        return (
            f"; if it died: its last sign of life is {silent:.0f} s old, so run again in "
            f"{max(1, SILENT_S - silent):.0f} s"
        )

    def _silent_s(self, session_id: int) -> float:
        try:
            return time.time() - self._path(session_id).stat().st_mtime
        except OSError:
            return SILENT_S

    def _path(self, session_id: int) -> Path:
        return self._folder / LOCKS.replace("*", str(session_id))


def _elsewhere(host: str, boot: str) -> bool:
    """Return whether a process ran on another machine, and not before the last boot of this."""
    return host != platform.node() and boot != boot_id()
