"""The warm server that candidates are forked from: trusted, single-threaded, not confined.

It imports torch once, then waits. A launch request forks; the fork confines itself
(`sandbox.enter`) before it runs the worker, which loads the candidate. The server itself never
runs candidate code, never initialises CUDA and holds no secret. It reaps children and reports
their exits. When its socket closes (the harness has ended), it kills every group and exits.

Run by `forkserver.client` as ``python -s -P -c …``; standard library only until `main` imports the
preloaded modules.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from .. import sandbox
from ..sandbox import seal, syscalls
from .channel import Channel, PeerGone, PeerTimeout, pair
from .usage import open_cpu_counter, process_table

TRUSTED_LIMIT = 8 << 20
"""Bytes of the largest frame between harness and forkserver; both are trusted."""

_PR_SET_CHILD_SUBREAPER = 36
_SWEEP_MS = 5
_END_SECONDS = 10.0


def main(fd: int, preload: Sequence[str]) -> None:
    """Import `preload`, then serve launch requests on socket `fd` until it closes.

    Each fork runs ``main(channel)`` of the last module.
    """
    channel = Channel(socket.socket(fileno=fd), limit=TRUSTED_LIMIT, accept_fds=True)
    try:
        began = time.process_time()
        for name in preload:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # keeps the collector from touching, and so copying, shared pages
        channel.send({"event": "ready", "cpu_seconds": time.process_time() - began})
        ForkServer(channel, preload[-1]).serve()
    except PeerGone:
        pass
    except Exception as error:
        with contextlib.suppress(PeerGone, PeerTimeout):
            channel.send({"event": "failed", "error": f"{type(error).__name__}: {error}"})
        raise


class ForkServer:
    """Forks on request, and reports a fork's exit once its whole group is gone."""

    def __init__(self, channel: Channel, worker: str) -> None:
        self._channel = channel
        self._worker = worker
        self._running: set[int] = set()
        self._ended: dict[int, dict[str, object]] = {}
        with contextlib.suppress(OSError):  # a group is empty once its orphans were reaped here
            syscalls.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Answer requests until the harness closes the socket; then end every group."""
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        try:
            while True:
                poll.poll(_SWEEP_MS if self._ended else None)
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
                self._reap()
                self._sweep()
                with contextlib.suppress(PeerTimeout):
                    while True:
                        self._answer(self._channel.receive(0))
        finally:
            self._end_all()

    def _answer(self, request: Mapping[str, Any]) -> None:
        if request["op"] == "kill":
            if request["pid"] in self._running:
                _kill(request["pid"])
            return
        fds = self._channel.take_fds()
        try:
            self._launch(request, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _launch(self, request: Mapping[str, Any], fds: list[int]) -> None:
        policy = sandbox.Policy.from_json(request["policy"])
        waiting, release = pair()
        try:
            sandbox.prepare(policy)
            pid = os.fork()
        except (OSError, sandbox.SandboxError) as error:
            waiting.close()
            release.close()
            self._channel.send({"event": "refused", "tag": request["tag"], "error": str(error)})
            return
        if pid == 0:
            release.close()
            _become_child(self._worker, policy, request["mode"], fds, waiting)
        waiting.close()
        self._running.add(pid)
        # The fork waits: a counter covers only processes that are started after it was opened.
        counter = open_cpu_counter(pid)
        opened = [] if counter is None else [counter]
        self._channel.send({"event": "launched", "tag": request["tag"], "pid": pid}, opened)
        for fd in opened:
            os.close(fd)
        release.send(b"1")
        release.close()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid in self._running:
                    code = os.waitstatus_to_exitcode(status)
                    self._ended[pid] = {
                        "event": "exit",
                        "pid": pid,
                        "code": code if code >= 0 else None,
                        "signal": -code if code < 0 else None,
                        "peak_memory_bytes": usage.ru_maxrss * 1024,
                        "cpu_seconds": usage.ru_utime + usage.ru_stime,
                    }

    def _sweep(self) -> None:
        """Kill the remaining processes of ended groups; report the groups that are empty."""
        if self._ended:
            self._kill_strays()
        for pid, event in list(self._ended.items()):
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                del self._ended[pid]
                self._running.discard(pid)
                self._channel.send(event)
            except PermissionError:  # all that is left runs as another user (no sandbox)
                self._reap()

    def _kill_strays(self) -> None:
        """Kill orphans that left their group, which is possible only without a sandbox."""
        me = os.getpid()
        for pid, fields in process_table():
            parent, group = int(fields[1]), int(fields[2])
            if parent == me and pid not in self._running and group not in self._running:
                _kill(pid)

    def _end_all(self) -> None:
        deadline = time.monotonic() + _END_SECONDS
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < deadline:
                for pid in self._running:
                    _kill(pid)
                self._running.clear()
                self._kill_strays()
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
                time.sleep(_SWEEP_MS / 1000)


def _kill(pid: int) -> None:
    for end in (os.kill, os.killpg):  # the group may not exist yet, or no longer
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)


def _become_child(
    worker: str,
    policy: sandbox.Policy,
    mode: sandbox.Mode,
    fds: list[int],
    waiting: socket.socket,
) -> NoReturn:
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        stdin = os.open(os.devnull, os.O_RDONLY)
        for target, source in enumerate((stdin, fds[1], fds[1])):
            os.dup2(source, target)
        if not waiting.recv(1):
            os._exit(code)
        channel = Channel(socket.socket(fileno=fds[0]), accept_fds=True)
        try:
            report = sandbox.enter(dataclasses.replace(policy, keep_fds=(channel.fileno(),)), mode)
            layers, listener = seal.prepare(policy, report, mode)
        except sandbox.SandboxError as error:
            channel.send({"type": "refused", "error": str(error)})
        else:
            channel.send({"type": "sandbox", "layers": layers}, listener)
            for fd in listener:  # it is the supervisor's: the candidate must not hold a copy
                os.close(fd)
            code = importlib.import_module(worker).main(channel)
    except (PeerGone, PeerTimeout):
        pass
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)
