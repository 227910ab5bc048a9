"""The harness's connection to one forkserver process, and the thread that enforces group limits."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ..core.text import one_line
from . import usage
from .channel import Channel, PeerGone, PeerTimeout, ProtocolError, pair
from .group import Group
from .server import TRUSTED_LIMIT

START_S = 300.0
ANSWER_S = 60.0

_WATCH_S = 0.25
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_MAIN = (
    "import sys; sys.path.insert(0, sys.argv[2]); "
    "import pytest_autoresearch.forkserver.server as server; "
    "del sys.path[0]; server.main(int(sys.argv[1]), sys.argv[3:])"
)
_KEPT_ENVIRONMENT = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "TZ", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip


class LaunchFailed(Exception):
    """An infrastructure failure, not one of the candidate; the text is one line."""


class ForkServerClient:
    """One forkserver process, which imports `preload` while the constructor returns.

    `launch` may be called from several threads.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        here, there = pair()
        self._channel = Channel(here, limit=TRUSTED_LIMIT, accept_fds=True)
        self._sending = threading.Lock()
        self._tags = itertools.count()
        self._pending: dict[int, Future[Group]] = {}
        self._groups: dict[int, Group] = {}
        self._ready = threading.Event()
        self._over = threading.Event()
        self._failure = ""
        with there:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-s", "-P", "-c", _MAIN),
                    *(str(there.fileno()), _PACKAGE_PARENT),
                    *preload,
                ],
                pass_fds=[there.fileno()],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        threading.Thread(target=self._listen, name="forkserver", daemon=True).start()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it can still fork children."""
        return not self._over.is_set()

    def wait_ready(self) -> None:
        """Wait until its imports are done; raise LaunchFailed if they failed or took too long."""
        if not self._ready.wait(START_S):
            self.close()
            raise LaunchFailed(f"the forkserver did not start within {START_S:.0f} s")
        if self._over.is_set():
            raise LaunchFailed(self._failure)

    def launch(self, policy: Mapping[str, Any], mode: str, channel_fd: int, stdout: int) -> Group:
        """Fork a child that confines itself by `policy` and talks on `channel_fd`.

        Raises:
            LaunchFailed: The forkserver has died, or the fork failed.
        """
        tag, answer = next(self._tags), Future[Group]()
        self._pending[tag] = answer
        request = {"op": "launch", "tag": tag, "policy": policy, "mode": mode}
        try:
            self._send(request, (channel_fd, stdout))
            return answer.result(0 if self._over.is_set() else ANSWER_S)
        except TimeoutError:
            raise LaunchFailed(self._failure or "the forkserver does not answer") from None
        finally:
            del self._pending[tag]

    def kill(self, pid: int) -> None:
        """Let the forkserver kill a group: only it knows whether the id is still in use."""
        with contextlib.suppress(LaunchFailed):
            self._send({"op": "kill", "pid": pid})

    def forget(self, group: Group) -> None:
        """Stop watching `group`."""
        self._groups.pop(group.pid, None)
        group.close()

    def close(self) -> None:
        """End the forkserver and, with it, every child; idempotent."""
        # Not channel.close(): the listening thread still waits on that descriptor.
        with (
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(self._channel.fileno())) as duplicate,
        ):
            duplicate.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, message: Mapping[str, object], fds: Sequence[int] = ()) -> None:
        with self._sending:
            try:
                self._channel.send(message, fds, timeout_s=ANSWER_S)
            except (PeerGone, PeerTimeout, ValueError) as error:
                reason = self._failure or f"the forkserver is gone ({error})"
                raise LaunchFailed(reason) from None

    def _listen(self) -> None:
        failure = "the forkserver died"
        try:
            while True:
                event = self._channel.receive()
                if event["event"] == "failed":
                    failure = f"the forkserver failed: {one_line(event['error'])}"
                else:
                    self._handle(event)
        except (PeerGone, ProtocolError):
            pass
        self._failure = failure
        self._over.set()
        self._ready.set()
        for answer in list(self._pending.values()):
            if not answer.done():
                answer.set_exception(LaunchFailed(failure))
        for group in list(self._groups.values()):
            group.take_end(None)
        with self._sending:
            self._channel.close()

    def _handle(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "ready":
            self._ready.set()
        elif event["event"] == "exit":
            if (group := self._groups.get(event["pid"])) is not None:
                group.take_end(event)
        else:
            answer = self._pending.get(event["tag"], Future[Group]())
            if event["event"] == "refused":
                answer.set_exception(LaunchFailed(one_line(event["error"])))
                return
            fds = self._channel.take_fds()
            group = Group(event["pid"], fds[0] if fds else None, self.kill)
            # Registered on the thread that receives exit events, so that none is missed.
            self._groups[group.pid] = group
            answer.set_result(group)
            if event["tag"] not in self._pending:  # the request has timed out
                self.kill(group.pid)

    def _watch(self) -> None:
        while not self._over.wait(_WATCH_S):
            groups = dict(self._groups)
            if groups:
                for pid, members in usage.scan_groups(groups).items():
                    groups[pid].take_scan(members)


def _environment() -> dict[str, str]:
    """Return an allow-list: the candidate can read the fork's memory, and so its environment."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**kept, **single, "PYTHONHASHSEED": "0"}
