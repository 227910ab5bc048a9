"""Sandboxed children of the forkserver: start them, exchange frames with them, end them.

Infrastructure failures raise `LaunchFailed`; all other errors of a `Child` are the candidate's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar, cast

from ..core.text import one_line
from ..sandbox.limits import candidate_environment
from ..sandbox.policy import Limits, Mode, Policy
from ..sandbox.seal import Supervisor, make_files_resident
from .channel import Channel, PeerGone, PeerTimeout, pair
from .client import ForkServerClient, LaunchFailed
from .group import Exit, Group
from .output import Output
from .usage import held_files, tasks

PRELOAD = (
    "torch._dynamo", "numpy", "torch", "safetensors.torch", "pytest_autoresearch.training.worker",
)  # fmt: skip
"""Modules of the forkserver; each fork runs the last one. Any ``torch.optim`` optimizer imports
torch._dynamo, which takes a second or two."""

_CONFINE_S = 30.0
_EXIT_S = 30.0

T = TypeVar("T", bound="Closable")


class ChildGone(Exception):
    """The child ended or closed its channel."""

    def __init__(self, exit: Exit) -> None:
        super().__init__(exit.describe())
        self.exit = exit


class ChildTimeout(Exception):
    """The child sent nothing in time; it still runs."""


@dataclass(frozen=True)
class Job:
    """The task of one child: its first frame and its confinement.

    Attributes:
        phase: ``"train"`` or ``"score"``.
        directory: The candidate's private copy; readable.
        entry: Its entry file, relative to `directory`.
        checkpoint: File that training saves and scoring loads.
        writable: The only folder it may write (also its home and working directory), or None.
        discard: Whether to remove `writable` once the child has ended.
        hide: Files it must not be able to read.
        memory_limit_bytes, disk_limit_bytes: The group is stopped above them.
        file_bytes: Largest file that it may write.
        capture: Whether to keep its output.
    """

    phase: Literal["train", "score"]
    directory: Path
    entry: str
    checkpoint: Path
    writable: Path | None = None
    discard: bool = False
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    vocab_size: int = 0
    seq_len: int = 0
    hide: tuple[str, ...] = ()
    sandbox: Mode = "auto"
    memory_limit_bytes: int | None = None
    disk_limit_bytes: int | None = None
    file_bytes: int = 8 << 30
    capture: bool = True

    def message(self) -> dict[str, object]:
        """Return the first frame."""
        names = ("phase", "entry", "seed", "threads", "device", "vocab_size", "seq_len")
        message: dict[str, object] = {name: getattr(self, name) for name in names}
        return message | {"directory": str(self.directory), "checkpoint": str(self.checkpoint)}

    def policy(self) -> Policy:
        """Return the sandbox policy of the child."""
        read = [self.directory, *([self.checkpoint] if self.phase == "score" else [])]
        home, gpu = str(self.writable or self.directory), self.device == "cuda"
        cuda = os.environ.get("CUDA_VISIBLE_DEVICES") if gpu else None
        return Policy(
            read=tuple(map(str, read)),
            write=(str(self.writable),) if self.writable else (),
            devices=gpu_devices(cuda) if gpu else (),
            hide=self.hide,
            gpu=gpu,
            candidate=True,
            seal=self.phase == "score",
            env=candidate_environment(home, threads=self.threads, cuda_devices=cuda),
            cwd=home,
            limits=Limits(file_bytes=self.file_bytes),
        )


def gpu_devices(visible: str | None) -> tuple[str, ...]:
    """Return the device files of `visible` GPUs; of all GPUs unless they are named by number."""
    numbers = [part.strip() for part in visible.split(",")] if visible else []
    if numbers and all(number.isdigit() for number in numbers):
        return tuple(f"/dev/nvidia{number}" for number in numbers)
    return tuple(sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*")))


class Child:
    """One sandboxed process group, used by one thread at a time.

    Every method that talks to it raises `LaunchFailed` if the forkserver died.

    Attributes:
        pid: Its process group.
        report: State of each sandbox layer.
        on_wait: Called when `receive` times out; its exceptions reach the caller.
    """

    def __init__(
        self,
        server: ForkServerClient,
        group: Group,
        channel: Channel,
        output: Output | None,
        discard: Path | None,
    ) -> None:
        self.pid = group.pid
        self.report: Mapping[str, str] = {}
        self.on_wait: Callable[[], object] | None = None
        self._discard = discard
        self._server = server
        self._group = group
        self._channel = channel
        self._output = output
        self._exit: Exit | None = None
        self._supervisor: Supervisor | None = None
        self._shows_files = False

    def await_confinement(self) -> None:
        """Receive the report of the sandbox, and the listener if the process can be sealed.

        Raises:
            ChildGone, ChildTimeout: It ended or hangs.
            LaunchFailed: It could not be confined as required.
        """
        self._channel.accept_fds = True  # it runs none of the candidate's code yet
        first = self.receive(_CONFINE_S)
        self._channel.accept_fds = False
        if first.get("type") != "sandbox":
            raise LaunchFailed(one_line(first.get("error", "a child was not confined")))
        self.report = cast("dict[str, str]", first["layers"])
        for listener in self._channel.take_fds():
            self._supervisor = Supervisor(listener)
            self._shows_files = not held_files(self._group.living()).unreadable

    def seal(self) -> None:
        """Let the group compute and answer from now on, and nothing else; see `sandbox.seal`.

        The report tells whether this machine enforces it.

        Raises:
            PermissionError: It hides which files it has mapped or opened.
        """
        if self._supervisor is None:
            return
        self._supervisor.close()
        if not self._shows_files:
            state = "failed: this machine does not show the files of a process"
            self.report = {**self.report, "seal": state}
            return
        self.pause()  # files could be moved between threads and sockets while they are listed
        try:
            living = self._group.living()
            held = held_files(living)
            if held.unreadable or held.under_way:
                raise PermissionError("files are hidden in a socket or an unreadable process")
            threads = [thread for pid in living for thread in tasks(pid)]
            state = make_files_resident(threads, self.folder)
            self.report = {**self.report, "seal": state}
        finally:
            self.resume()

    def send(
        self, message: Mapping[str, object], fds: Sequence[int] = (), timeout_s: float = 10.0
    ) -> None:
        """Send a frame, with descriptors.

        Raises:
            ChildGone: It has ended, or does not read its messages.
        """
        try:
            self._channel.send(message, fds, timeout_s)
        except (PeerGone, PeerTimeout):
            raise ChildGone(self._end("")) from None

    def receive(self, timeout_s: float) -> dict[str, object]:
        """Return the next frame.

        Raises:
            ChildGone: It ended or closed its channel; it is dead when this is raised.
            ChildTimeout: Nothing came in time.
            ProtocolError: It sent an invalid frame.
        """
        try:
            return self._channel.receive(timeout_s)
        except PeerTimeout:
            if self.on_wait is not None:
                self.on_wait()
            raise ChildTimeout(f"nothing in {timeout_s:.3g} s") from None
        except PeerGone:
            raise ChildGone(self._end("")) from None

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of the whole group so far, measured from outside it."""
        return self._group.cpu_seconds() if self._exit is None else self._exit.cpu_seconds

    @property
    def folder(self) -> Path | None:
        """The folder that it may write to."""
        return self._group.folder

    def disk_bytes(self) -> int:
        """Measure the bytes that it holds on the disk, also in deleted files."""
        return self._group.disk_bytes()

    def pause(self) -> None:
        """Suspend every process of the group until `resume`."""
        self._group.pause()

    def resume(self) -> None:
        """Continue the group after `pause`; a group that ran meanwhile is ended."""
        self._group.resume()

    def kill(self) -> Exit:
        """End the whole group, reap it, close everything; idempotent."""
        return self._end("kill") if self._exit is None else self._exit

    def log(self) -> tuple[str, str]:
        """Return head and tail of its output, cleaned; complete once it has ended."""
        if self._output is None:
            return ("", "")
        return self._output.finish() if self._exit is not None else self._output.text()

    def _end(self, why: str) -> Exit:
        # A child that closed its channel is usually about to end by itself.
        if why or not self._group.ended.wait(1.0):
            self._group.stop(why)
        ended = self._group.ended.wait(_EXIT_S)
        self._exit = self._group.exit()
        self._channel.close()
        if self._supervisor is not None:
            self._supervisor.close()
        self._server.forget(self._group)
        if self._discard is not None:
            shutil.rmtree(self._discard, ignore_errors=True)
        if self._group.orphaned or not ended:
            raise LaunchFailed(f"the forkserver died while its child {self.pid} ran")
        return self._exit


class Closable(Protocol):
    """A resource that a launcher keeps between runs."""

    def close(self) -> None:
        """Release it; idempotent."""


class Launcher:
    """Starts children; one per pytest process, shared by its runs.

    Args:
        preload: Modules that the forkserver imports (see `PRELOAD`).
    """

    def __init__(self, *, preload: Sequence[str] = PRELOAD) -> None:
        self._preload = tuple(preload)
        self._starting = threading.Lock()
        self._keeping = threading.RLock()
        self._server: ForkServerClient | None = None
        self._kept: tuple[object, Closable] | None = None

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, job: Job) -> Child:
        """Start a confined child and send it its job.

        Raises:
            LaunchFailed: The forkserver, the fork or the required confinement failed; the
                candidate's code has not run yet.
        """
        server = self._running()
        server.wait_ready()
        child = self._fork(server, job)
        try:
            child.await_confinement()
            child.send(job.message())
        except (ChildGone, ChildTimeout) as error:
            child.kill()
            detail = " ".join(child.log())
            raise LaunchFailed(one_line(f"a child was not confined: {error} {detail}")) from None
        except BaseException:
            child.kill()
            raise
        return child

    def _fork(self, server: ForkServerClient, job: Job) -> Child:
        output = Output() if job.capture else None
        try:
            stdout = output.write_fd if output else os.open(os.devnull, os.O_WRONLY)
            here, there = pair()
        except OSError as error:
            raise LaunchFailed(f"no channel to a child could be opened: {error}") from None
        channel = Channel(here)
        try:
            with there:
                group = server.launch(job.policy().to_json(), job.sandbox, there.fileno(), stdout)
        except BaseException:
            channel.close()
            raise
        finally:
            os.close(stdout)
        group.memory_limit_bytes = job.memory_limit_bytes
        group.disk_limit_bytes, group.folder = job.disk_limit_bytes, job.writable
        return Child(server, group, channel, output, job.writable if job.discard else None)

    def keep(self, key: object, make: Callable[[], T]) -> T:
        """Return the resource kept under `key`; create it, after closing another key's, if need be.

        Calls exclude each other.
        """
        with self._keeping:
            if self._kept is None or self._kept[0] != key:
                self.drop()
                self._kept = (key, make())
            return cast("T", self._kept[1])

    def drop(self) -> None:
        """Close the kept resource, if there is one."""
        with self._keeping:
            kept, self._kept = self._kept, None
            if kept is not None:
                kept[1].close()

    def close(self) -> None:
        """End the forkserver and all children; idempotent."""
        with contextlib.suppress(LaunchFailed):
            self.drop()
        with self._starting:
            server, self._server = self._server, None
        if server is not None:
            server.close()

    def _running(self) -> ForkServerClient:
        with self._starting:
            if self._server is not None and not self._server.alive:
                self._server.close()
                self._server = None
            if self._server is None:
                try:
                    self._server = ForkServerClient(self._preload)
                except OSError as error:
                    raise LaunchFailed(f"the forkserver could not be started: {error}") from None
            return self._server
