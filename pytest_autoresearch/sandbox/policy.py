"""What a confined process may do, and what was really enforced: plain data, no mechanism."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Mode = Literal["require", "auto", "off"]

LAYERS = (
    "session",
    "limits",
    "user",
    "network",
    "ipc",
    "pid",
    "descriptors",
    "mount",
    "environment",
    "privileges",
    "landlock",
    "seccomp",
)
"""Every layer, in the order in which it is attempted."""

COUNTED = ("landlock", "seccomp", "mount", "pid", "network", "ipc", "privileges")
"""The layers a headline counts; the others are preparation (``user``) or always succeed."""

NETWORK_ALLOWED = "skipped: the policy allows the network"

_NAMESPACES = ("mount", "pid", "network", "ipc")


class SandboxError(Exception):
    """The process cannot be confined as asked and must not run: an infrastructure failure."""


class SandboxUnavailable(SandboxError):
    """Mode ``require`` was asked for and this machine cannot enforce it."""


@dataclass(frozen=True)
class Limits:
    """Resource limits of every process inside; None leaves a limit as it is.

    Attributes:
        file_bytes: Largest file (memory files included) a process may write.
        open_files: Descriptors a process may hold.
        address_space: Bytes of address space; leave None on CUDA, which reserves far more than
            it uses.
        cpu_seconds: CPU seconds of one process, after which the kernel kills it.
        tmp_bytes: Size of the private ``/tmp``, where there is one.
        shm_bytes: Size of the private ``/dev/shm``, where there is one.
    """

    file_bytes: int | None = 8 << 30
    open_files: int | None = 4096
    address_space: int | None = None
    cpu_seconds: int | None = None
    tmp_bytes: int = 512 << 20
    shm_bytes: int = 1 << 30


@dataclass(frozen=True)
class Policy:
    """What a confined process may reach. Everything not named here is out of reach.

    The running interpreter, its libraries and the system's shared libraries and tools are always
    readable; this package is not, unless `read` names it or a path inside it.

    Attributes:
        read: Files and folders readable besides the interpreter; absolute. Missing ones are left
            out.
        write: Folders readable and writable; absolute, and they must exist. What lies beneath a
            writable folder is writable, even if `read` names it.
        devices: Device files usable besides null, zero, full, random and urandom.
        hide: Absolute files and folders that must be unreadable although they lie in readable
            folders. Compiled caches, hard links, further mounts and verbatim copies of a hidden
            source are hidden with it.
        network: Whether sockets of the internet families work.
        gpu: Whether NVIDIA's control devices, ``/sys`` and the driver's files are reachable;
            name the leased ``/dev/nvidiaN`` in `devices`.
        keep_fds: Descriptors that stay open besides 0, 1 and 2.
        env: The whole environment afterwards; None keeps the caller's. The memory that held the
            caller's is wiped.
        cwd: Working directory afterwards; None means the first of `write`, else ``/``.
        limits: Resource limits.
        skip: Layers not to attempt (see `LAYERS`), for diagnosis.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    network: bool = False
    gpu: bool = False
    keep_fds: tuple[int, ...] = ()
    env: Mapping[str, str] | None = None
    cwd: str | None = None
    limits: Limits = field(default_factory=Limits)
    skip: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that JSON can carry; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Policy:
        """Read what `to_json` wrote."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        values["limits"] = Limits(**data["limits"])
        return cls(**values)


@dataclass(frozen=True)
class Report:
    """What is enforced on one confined process.

    Attributes:
        layers: Layer name to ``"ok"`` or ``"ok: detail"``, ``"failed: reason"`` or
            ``"skipped: reason"``. All that the other properties need is in here, so a report
            crosses a process boundary as this mapping.
    """

    layers: Mapping[str, str]

    def active(self, layer: str) -> bool:
        """Whether `layer` is enforced."""
        return self.layers.get(layer, "").startswith("ok")

    @property
    def files_confined(self) -> bool:
        """Whether only what the policy names can be read."""
        return self.active("landlock") or self.active("mount")

    @property
    def offline(self) -> bool:
        """Whether no network and no socket of the machine can be reached."""
        allowed = self.layers.get("network") == NETWORK_ALLOWED
        return not allowed and (self.active("network") or self.active("seccomp"))

    @property
    def group_kill(self) -> bool:
        """Whether killing the process group surely ends every descendant."""
        return self.active("pid") or self.active("seccomp")

    @property
    def verified(self) -> bool:
        """Whether a score can be trusted: validation hidden, no network, group kill."""
        return self.files_confined and self.offline and self.group_kill

    def headline(self) -> str:
        """Return one line, like ``landlock+seccomp (3/7), missing: namespaces (EPERM)``."""
        on = [layer for layer in COUNTED if self.active(layer)]
        names: list[str] = [layer for layer in COUNTED[:2] if layer in on]
        if any(layer in on for layer in _NAMESPACES):
            names.append("namespaces")
        text = f"{'+'.join(names) or 'no confinement'} ({len(on)}/{len(COUNTED)})"
        missing = [layer for layer in COUNTED if layer not in on]
        if not missing:
            return text
        if set(_NAMESPACES) <= set(missing):
            kept = [layer for layer in missing if layer not in _NAMESPACES]
            return f"{text}, missing: {self._reasons([*kept, 'namespaces'])}"
        return f"{text}, missing: {self._reasons(missing)}"

    def _reasons(self, layers: list[str]) -> str:
        parts = []
        for layer in layers:
            state = self.layers.get("pid" if layer == "namespaces" else layer, "skipped: not tried")
            parts.append(f"{layer} ({state.partition(': ')[2] or state})")
        return ", ".join(parts)
