"""Policy and report of a sandbox: plain data, no mechanism."""

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
"""Every layer, in the order of the attempts."""

COUNTED = ("landlock", "seccomp", "mount", "pid", "network", "ipc", "privileges")
"""The layers a headline counts; the others are preparation (``user``) or always succeed."""

NETWORK_ALLOWED = "skipped: the policy allows the network"

_SEAL = "traces of the text that is scored"

GUARANTEES: Mapping[str, tuple[str, ...]] = {
    "file access": ("landlock", "mount"),
    "the network": ("network", "seccomp"),
    "a kill of the whole group": ("pid", "seccomp"),
    "System V memory and queues": ("ipc", "seccomp"),
    "keyrings, page cache and priorities": ("seccomp",),
    "capabilities": ("privileges",),
    "inherited descriptors": ("descriptors",),
    _SEAL: ("seal",),
}
"""What a trusted score rests on, and the layers of which one has to confine it. Otherwise a process
that has seen secret text can leave some for a later one."""

_NAMESPACES = ("mount", "pid", "network", "ipc")


class SandboxError(Exception):
    """The process cannot be confined as requested and must not run: an infrastructure failure."""


class SandboxUnavailable(SandboxError):
    """This machine cannot enforce what mode ``require`` needs."""


@dataclass(frozen=True)
class Limits:
    """Resource limits of every process inside; None leaves a limit as it is.

    Attributes:
        file_bytes: Largest file (memory files included) a process may write.
        open_files: Descriptors a process may hold.
        tmp_bytes, shm_bytes: Size of the private ``/tmp`` and ``/dev/shm``, where there are any.
    """

    file_bytes: int | None = 8 << 30
    open_files: int | None = 4096
    tmp_bytes: int = 512 << 20
    shm_bytes: int = 1 << 30


@dataclass(frozen=True)
class Policy:
    """Files, devices and network a confined process may reach; nothing else is reachable.

    The running interpreter, its libraries and the system's shared libraries and tools are always
    readable; this package is not, unless `read` names it or a path inside it.

    Attributes:
        read: Absolute files and folders readable besides the interpreter; missing ones are
            ignored.
        write: Absolute folders readable and writable; they must exist. Everything beneath a
            writable folder is writable, even if `read` names it.
        devices: Device files usable besides null, zero, full, random and urandom.
        hide: Absolute files and folders that must be unreadable although they lie in readable
            folders. Compiled caches, hard links, further mounts and verbatim copies of a hidden
            source are hidden with it.
        network: Whether sockets of the internet families work.
        gpu: Whether NVIDIA's control devices, ``/sys`` and the driver's files are reachable;
            name the leased ``/dev/nvidiaN`` in `devices`.
        keep_fds: Descriptors that stay open besides 0, 1 and 2.
        env: The whole environment; None keeps the caller's. The memory that held the caller's is
            wiped.
        cwd: Working directory; None means the first of `write`, else ``/``.
        candidate: Whether it runs code of the training contract, which needs no file locks, file
            events or handlers of SIGCHLD.
        seal: Whether the process can be sealed before it sees secret text; see `sandbox.seal`.
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
    candidate: bool = False
    seal: bool = False
    skip: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the policy as a dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Policy:
        """Return the policy of a `to_json` dictionary."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        values["limits"] = Limits(**data["limits"])
        return cls(**values)


@dataclass(frozen=True)
class Report:
    """State of each layer on one confined process.

    Attributes:
        layers: Layer name to ``"ok"`` or ``"ok: detail"``, ``"failed: reason"`` or
            ``"skipped: reason"``. The other properties are computed from it, so a report crosses
            a process boundary as this mapping.
    """

    layers: Mapping[str, str]

    def active(self, layer: str) -> bool:
        """Return whether `layer` is enforced."""
        return self.layers.get(layer, "").startswith("ok")

    @property
    def offline(self) -> bool:
        """Whether the network and the machine's sockets are out of reach."""
        return "the network" not in self.lacking

    @property
    def files_confined(self) -> bool:
        """Whether only files that the policy names can be read."""
        return "file access" not in self.lacking

    @property
    def rests_on(self) -> dict[str, tuple[str, ...]]:
        """The enforced layers behind each of `GUARANTEES`."""
        found = {what: tuple(filter(self.active, layers)) for what, layers in GUARANTEES.items()}
        if self.layers.get("network") == NETWORK_ALLOWED:
            found["the network"] = ()
        if "seal" not in self.layers:  # this process sees no secret text
            del found[_SEAL]
        return found

    @property
    def lacking(self) -> tuple[str, ...]:
        """The guarantees that no layer enforces."""
        return tuple(what for what, layers in self.rests_on.items() if not layers)

    @property
    def verified(self) -> bool:
        """Whether a score can be trusted: every one of `GUARANTEES` is enforced."""
        return not self.lacking

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
