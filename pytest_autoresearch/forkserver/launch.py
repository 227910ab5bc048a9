"""Starting sandboxed children, talking to them, ending them.

Failures of the machinery are `LaunchFailed`; everything else a `Child` raises is its own doing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, TypeVar, cast

from ..core.text import one_line
from ..sandbox.limits import candidate_environment
from ..sandbox.policy import Mode, Policy
from .channel import Channel, PeerGone, PeerTimeout, pair
from .client import LaunchFailed, Server
from .group import Exit, Group
from .output import Output

__all__ = [
    "Child",
    "ChildGone",
    "ChildTimeout",
    "Exit",
    "Job",
    "LaunchFailed",
    "Launcher",
]

TORCH = ("numpy", "torch", "safetensors.torch", "pytest_autoresearch.training.worker")

COMPILER = ("torch._dynamo", *TORCH)
"""What a zygote imports. Any ``torch.optim`` optimizer imports torch._dynamo: a second or two."""

_CONFINE_S = 30.0

_EXIT_S = 30.0

T = TypeVar("T", bound="Closable")


class ChildGone(Exception):
    """The child closed its channel or ended; `exit` says how."""

    def __init__(self, exit: Exit) -> None:
        super().__init__(exit.describe())
        self.exit = exit


class ChildTimeout(Exception):
    """The child said nothing in time; it still runs."""


@dataclass(frozen=True)
class Job:
    """What one child is for: the first frame it gets, and its confinement.

    Attributes:
        phase: ``"train"`` or ``"score"``.
        directory: The candidate's private copy; readable.
        entry: Its entry file, relative to `directory`.
        checkpoint: Where training saves and scoring loads the weights.
        writable: The only folder it may write (also its home and working directory), or None.
        discard: Whether to remove `writable` once the child has ended.
        seed: For its generators.
        threads: CPU threads.
        device: ``"cpu"`` or ``"cuda"``.
        vocab_size: Tokens of the vocabulary.
        seq_len: Context length of an evaluation row.
        hide: Files it must not be able to read.
        sandbox: ``"require"``, ``"auto"`` or ``"off"``.
        memory_limit_bytes: Resident memory of the group; above it the child is stopped.
        env: Extra environment variables.
        capture: Whether to keep its output; else it is thrown away unread.
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
    env: Mapping[str, str] = field(default_factory=dict)
    capture: bool = True

    def message(self) -> dict[str, object]:
        """The first frame."""
        return {
            "phase": self.phase,
            "directory": str(self.directory),
            "entry": self.entry,
            "checkpoint": str(self.checkpoint),
            "seed": self.seed,
            "threads": self.threads,
            "device": self.device,
            "vocab_size": self.vocab_size,
            "seq_len": self.seq_len,
        }

    def policy(self) -> Policy:
        """What the child may reach."""
        read = [self.directory, *([self.checkpoint] if self.phase == "score" else [])]
        home = str(self.writable or self.directory)
        cuda = os.environ.get("CUDA_VISIBLE_DEVICES") if self.device == "cuda" else None
        return Policy(
            read=tuple(map(str, read)),
            write=(str(self.writable),) if self.writable else (),
            devices=gpu_devices(cuda) if self.device == "cuda" else (),
            hide=self.hide,
            gpu=self.device == "cuda",
            env=candidate_environment(
                home, threads=self.threads, cuda_devices=cuda, extra=self.env
            ),
            cwd=home,
        )


def gpu_devices(visible: str | None) -> tuple[str, ...]:
    """Device files of the leased GPUs; all of them where they are not leased by number."""
    numbers = [part.strip() for part in visible.split(",")] if visible else []
    if numbers and all(number.isdigit() for number in numbers):
        return tuple(f"/dev/nvidia{number}" for number in numbers)
    return tuple(sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*")))


class Child:
    """One sandboxed process group. Used by one thread at a time.

    Attributes:
        pid: Its process group.
        report: Sandbox layer to state, as enforced.
        on_wait: Called whenever `receive` has waited in vain; what it raises goes to the caller.
    """

    def __init__(
        self,
        server: Server,
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

    def send(
        self, message: Mapping[str, object], fds: Sequence[int] = (), timeout_s: float = 10.0
    ) -> None:
        """Send a frame, with descriptors.

        Raises:
            ChildGone: It has ended, or does not read what it is sent.
            LaunchFailed: The zygote died.
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
            ProtocolError: It sent something that is no frame.
            LaunchFailed: The zygote died.
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
        """CPU seconds of the whole group so far, read from outside; never decreases."""
        return self._group.cpu_seconds() if self._exit is None else self._exit.cpu_seconds

    def pause(self) -> None:
        """Stop every process of the group where it is; `resume` lets it go on."""
        self._group.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._group.signal(signal.SIGCONT)

    def kill(self) -> Exit:
        """End the whole group, reap it, close everything; idempotent.

        Raises:
            LaunchFailed: The zygote died (and the group with it).
        """
        return self._end("kill") if self._exit is None else self._exit

    def log(self) -> tuple[str, str]:
        """Head and tail of its output, cleaned; complete once it has ended."""
        if self._output is None:
            return ("", "")
        return self._output.finish() if self._exit is not None else self._output.text()

    def _end(self, why: str) -> Exit:
        # A child that closed its channel is about to end by itself, or else lives on without.
        if why or not self._group.ended.wait(1.0):
            self._group.stop(why)
        ended = self._group.ended.wait(_EXIT_S)
        self._exit = self._group.exit()
        self._channel.close()
        self._server.forget(self._group)
        if self._discard is not None:
            shutil.rmtree(self._discard, ignore_errors=True)
        if self._group.orphaned or not ended:
            raise LaunchFailed(f"the zygote died under process {self.pid}, which went with it")
        return self._exit


class Closable(Protocol):
    """Something a launcher keeps between trials."""

    def close(self) -> None:
        """Let go of it; idempotent."""


class Launcher:
    """Starts children; one per pytest process, shared by its trials.

    Args:
        warm: Whether trials share one zygote. False: each trial gets a fresh one (see `trial`).
        preload: Modules that the zygote imports; by default `COMPILER` if warm, else `TORCH`.
    """

    def __init__(self, *, warm: bool = True, preload: Sequence[str] | None = None) -> None:
        self.warm = warm
        self._preload = tuple(preload or (COMPILER if warm else TORCH))
        self._starting = threading.Lock()
        self._keeping = threading.RLock()
        self._server: Server | None = None
        self._kept: dict[str, tuple[object, Closable]] = {}

    def __enter__(self) -> Launcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def begin(self) -> None:
        """Start the zygote without waiting for its imports.

        Raises:
            LaunchFailed: No process could be started.
        """
        self._running()

    def start(self, job: Job) -> Child:
        """Start a confined child and send it its job.

        Raises:
            LaunchFailed: The zygote, the fork or the required confinement failed; never because
                of what the candidate's code does, which has not run yet.
        """
        server = self._running()
        server.wait_ready()
        child = self._fork(server, job)
        try:
            first = child.receive(_CONFINE_S)
            if first.get("type") != "sandbox":
                raise LaunchFailed(one_line(first.get("error", "a child was not confined")))
            child.report = cast("dict[str, str]", first["layers"])
            child.send(job.message())
        except (ChildGone, ChildTimeout) as error:
            child.kill()
            detail = " ".join(child.log())
            raise LaunchFailed(one_line(f"a child was not confined: {error} {detail}")) from None
        except BaseException:
            child.kill()
            raise
        return child

    def _fork(self, server: Server, job: Job) -> Child:
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
        return Child(server, group, channel, output, job.writable if job.discard else None)

    @contextlib.contextmanager
    def run(self) -> Iterator[Launcher]:
        """The launcher for one trial: this one if warm, else a fresh one closed afterwards."""
        if self.warm:
            yield self
            return
        with Launcher(preload=self._preload) as cold:
            yield cold

    def keep(self, name: str, key: object, make: Callable[[], T]) -> T:
        """Return what is kept under `name` for the same `key`, else make it anew and keep it.

        Something kept under another key is closed first. Calls exclude each other.
        """
        with self._keeping:
            found = self._kept.get(name)
            if found is not None and found[0] == key:
                return cast("T", found[1])
            self.drop(name)
            made = make()
            self._kept[name] = (key, made)
            return made

    def drop(self, name: str) -> None:
        """Close what is kept under `name`, if anything."""
        with self._keeping:
            if (found := self._kept.pop(name, None)) is not None:
                found[1].close()

    def close(self) -> None:
        """End the zygote and all children; idempotent."""
        for name in list(self._kept):
            with contextlib.suppress(LaunchFailed):
                self.drop(name)
        with self._starting:
            server, self._server = self._server, None
        if server is not None:
            server.close()

    def _running(self) -> Server:
        with self._starting:
            if self._server is not None and not self._server.alive:
                self._server.close()
                self._server = None
            if self._server is None:
                try:
                    self._server = Server(self._preload)
                except OSError as error:
                    raise LaunchFailed(f"no zygote could be started: {error}") from None
            return self._server
