"""A private root file system: an empty tmpfs that shows only what the policy names.

Everything before the final pivot happens beneath an unused folder and is undone if it fails. The
pivot is irreversible, so a later failure is a `SandboxError`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from . import paths, syscalls
from .policy import Policy, SandboxError

_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT = 1, 2, 4, 8, 32
_BIND, _REC, _PRIVATE = 4096, 16384, 1 << 18
_NOATIME, _NODIRATIME, _RELATIME = 1024, 2048, 1 << 21
_DETACH = 2
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_STATVFS_RELATIME = 4096

_BASES = ("/mnt", "/media", "/srv", "/opt", "/tmp", "/run", "/var", "/home", "/boot", "/dev/shm")
_STANDARD_LINKS = {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}

_libc = ctypes.CDLL(None, use_errno=True)


def build(policy: Policy, layout: paths.Layout, *, own_proc: bool) -> tuple[str, bool]:
    """Replace the root of this process, which is in a mount namespace of its own.

    With `own_proc` it is in its own process id namespace, too.

    Returns:
        State for the report, and whether ``/proc`` shows this namespace only.

    Raises:
        OSError: Not permitted; the old root is unchanged.
        SandboxError: Failed half-way; the process must exit.
    """
    _mount("none", "/", flags=_REC | _PRIVATE)
    base = _unused_folder(policy, layout)
    _mount("tmpfs", base, "tmpfs", _NOSUID | _NODEV, "mode=755,size=16m")
    try:
        private_proc = _Root(base).populate(policy, layout, own_proc)
        os.chdir(base)
        syscalls.syscall("pivot_root", b".", b".")
    except OSError as error:
        os.chdir("/")
        if _libc.umount2(os.fsencode(base), _DETACH) < 0:
            raise SandboxError(f"a half-built root at {base} cannot be undone: {error}") from error
        raise
    try:
        _unmount(".")  # the old root, which pivot_root stacked on the new one
        os.chdir("/")
        _restrict("/", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, nested=False)
    except OSError as error:
        raise SandboxError(f"the old root cannot be left: {syscalls.reason(error)}") from error
    proc = "own /proc" if private_proc else "shared /proc"
    return f"ok: private root, {len(layout.holes)} paths covered, {proc}", private_proc


def _unused_folder(policy: Policy, layout: paths.Layout) -> str:
    needed = [*layout.roots, *map(os.path.realpath, (*policy.write, *policy.devices)), "/proc"]
    for base in map(os.path.realpath, _BASES):
        clash = any(paths.within(path, base) or paths.within(base, path) for path in needed)
        if os.path.isdir(base) and not clash:
            return base
    raise OSError(0, "no folder is free to build a root on")


class _Root:
    """The new root, under construction at `base` beneath the old one."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._covers = 0

    def populate(self, policy: Policy, layout: paths.Layout, own_proc: bool) -> bool:
        for folder in ("/dev/shm", "/proc", "/tmp", "/.cover"):
            os.makedirs(self._base + folder)
        limits = policy.limits
        for folder, size in (("/tmp", limits.tmp_bytes), ("/dev/shm", limits.shm_bytes)):
            options = f"mode=1777,size={size}"
            _mount("tmpfs", self._base + folder, "tmpfs", _NOSUID | _NODEV, options)
        devices = [*paths.DEVICES, *policy.devices, *(paths.GPU_DEVICES if policy.gpu else ())]
        # Sorting puts a folder before its contents, so that inner mounts come on top.
        work = [(path, "read") for path in layout.roots]
        work += [(path, "cover") for path in layout.holes]
        work += [(os.path.realpath(path), "write") for path in policy.write]
        work += [(path, "device") for path in devices if os.path.exists(path)]
        for path, kind in sorted(work):
            if kind == "cover":
                self._cover(path)
            else:
                self._bind(path, kind)
        chains = [link for path in (*policy.write, *policy.read) for link in paths.resolve(path)[1]]
        for link, target in (*layout.links, *chains):
            self._link(link, target)
        for name, target in _STANDARD_LINKS.items():
            self._link(f"/dev/{name}", f"/proc/self/{target}")
        for path in layout.holes:
            if os.path.ismount(self._base + path):
                _restrict(self._base + path, _ATTR_RDONLY, nested=False)
        return self._proc(own_proc, hide_counters=not policy.network)

    def _bind(self, path: str, kind: str) -> None:
        there = self._point(path, os.path.isdir(path))
        _mount(path, there, flags=_BIND | _REC)
        attributes = _ATTR_NOSUID
        attributes |= _ATTR_RDONLY if kind == "read" else 0
        attributes |= 0 if kind == "device" else _ATTR_NODEV
        _restrict(there, attributes)

    def _cover(self, path: str) -> None:
        """Cover `path` with an empty file or folder."""
        self._covers += 1
        cover = f"{self._base}/.cover/{self._covers}"
        if os.path.isdir(self._base + path):
            os.mkdir(cover)
        else:
            os.close(os.open(cover, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        _mount(cover, self._base + path, flags=_BIND)

    def _point(self, path: str, folder: bool) -> str:
        """Return the mount point for `path`; create it if it is missing."""
        there = self._base + path
        if folder:
            os.makedirs(there, exist_ok=True)
        elif not os.path.exists(there):
            os.makedirs(os.path.dirname(there), exist_ok=True)
            os.close(os.open(there, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        return there

    def _link(self, link: str, target: str) -> None:
        there = self._base + link
        if not os.path.lexists(there):
            os.makedirs(os.path.dirname(there), exist_ok=True)
            os.symlink(target, there)

    def _proc(self, own: bool, *, hide_counters: bool) -> bool:
        there = f"{self._base}/proc"
        if own:
            try:
                _mount("proc", there, "proc", _NOSUID | _NODEV | _NOEXEC)
                if hide_counters:
                    for name in paths.COUNTERS:
                        if os.path.exists(f"{there}/{name}"):
                            self._cover(f"/proc/{name}")
                return True
            except OSError:
                pass  # a container with a masked /proc may not mount an unmasked one
        _mount("/proc", there, flags=_BIND | _REC)
        return False


def _mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    syscalls.checked(result, f"mount on {target}")


def _unmount(target: str) -> None:
    syscalls.checked(_libc.umount2(os.fsencode(target), _DETACH), "umount2")


def _restrict(target: str, attributes: int, *, nested: bool = True) -> None:
    """Add mount attributes to `target` and, if `nested`, to every mount beneath it."""
    change = struct.pack("QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if nested else 0
    try:
        syscalls.syscall(
            "mount_setattr", _AT_FDCWD, os.fsencode(target), flags, change, len(change)
        )
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        for path in [target, *(_mounts_beneath(target) if nested else ())]:
            _remount(path, attributes)


def _remount(path: str, attributes: int) -> None:
    """Add mount attributes before Linux 5.12."""
    current = os.statvfs(path).f_flag
    # An unprivileged remount must repeat the flags that it cannot clear.
    kept = current & (_RDONLY | _NOSUID | _NODEV | _NOEXEC | _NOATIME | _NODIRATIME)
    kept |= _RELATIME if current & _STATVFS_RELATIME else 0
    _mount("none", path, flags=_REMOUNT | _BIND | kept | attributes)


def _mounts_beneath(target: str) -> list[str]:
    with open("/proc/self/mountinfo") as table:
        points = [line.split()[4].encode().decode("unicode_escape") for line in table]
    return [point for point in points if point != target and paths.within(point, target)]
