"""Readable files of a confined process: an allow-list with holes.

A folder without hidden files is granted as a whole. A folder that holds one is granted entry by
entry (`Layout.rules`, for Landlock), and as a whole with the hidden entries covered
(`Layout.holes`, for the private root), so that either mechanism alone hides them.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .landlock import LIST, READ, Rule
from .policy import Policy, SandboxError

PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
STATE_FOLDER = ".autoresearch"
DEVICES = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))
GPU_DEVICES = tuple(
    f"/dev/nvidia{name}" for name in ("ctl", "-uvm", "-uvm-tools", "-modeset", "-caps")
)

_SYSTEM = (
    "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/bin", "/usr/sbin",
    "/usr/include", "/usr/local/lib", "/usr/local/lib64", "/usr/local/bin", "/usr/local/include",
    "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/ld.so.conf",
    "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime", "/sys/devices/system/cpu",
    "/sys/devices/system/node/online", "/sys/devices/system/node/possible",
)  # fmt: skip

_GPU = ("/sys", "/usr/local/nvidia", "/run/opengl-driver", *sorted(glob.glob("/usr/local/cuda*")))

_NETWORK = tuple(
    f"/etc/{name}"
    for name in (
        "resolv.conf", "hosts", "host.conf", "nsswitch.conf", "gai.conf", "services", "protocols",
        "ssl", "pki", "ca-certificates", "passwd", "group",
    )
)  # fmt: skip

_MACHINE_WIDE = (
    "cpuinfo", "meminfo", "version", "filesystems", "sys/kernel", "sys/vm",
)  # fmt: skip

COUNTERS = (
    "stat", "vmstat", "loadavg", "uptime", "interrupts", "softirqs", "schedstat", "zoneinfo",
    "buddyinfo", "pagetypeinfo", "slabinfo", "vmallocinfo", "diskstats", "timer_list", "locks",
    "kpagecount", "kpageflags", "kpagecgroup", "keys", "key-users", "pressure",
)  # fmt: skip
"""Entries of ``/proc`` that count what all processes do, dead ones included: whoever can read them
can learn what an earlier process wanted it to know."""

_GPU_PROC = ("driver", "devices", "modules", "interrupts")
_LIBRARY_MARKS = ({"os.py", "abc.py", "types.py"}, {"os.pyc", "abc.pyc", "types.pyc"})
_ZIPPED_LIBRARY = re.compile(r"python\d+t?\.zip")


@dataclass(frozen=True)
class Layout:
    """The readable files of a policy, for both mechanisms.

    Attributes:
        roots: Real paths readable as a whole, except for `holes`.
        holes: Real paths beneath roots whose contents must be covered.
        links: Symbolic links on the way to `roots`, with their targets.
        rules: The readable files without the holes, as Landlock rules.
    """

    roots: tuple[str, ...]
    holes: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    rules: tuple[Rule, ...]


def layout(policy: Policy) -> Layout:
    """Return the readable files of `policy`; walks each folder once per process.

    Raises:
        SandboxError: A writable folder is missing or contains a hidden file.
    """
    return _layout(policy.read, policy.write, policy.hide, policy.gpu, policy.network)


@functools.lru_cache(maxsize=256)
def _layout(
    read: tuple[str, ...], write: tuple[str, ...], hide: tuple[str, ...], gpu: bool, network: bool
) -> Layout:
    wanted = [*_SYSTEM, *(_GPU if gpu else ()), *(_NETWORK if network else ()), *_interpreter()]
    listed = [resolve(path) for path in read]
    hidden = {os.path.realpath(path) for path in hide}
    if hide:
        hidden.update(_unlisted_libraries())
    if not any(within(real, PACKAGE) for real, _ in listed):
        hidden.add(PACKAGE)
    _check_writable(write, hidden)
    resolved = [*(resolve(path) for path in wanted), *listed]
    # Walking the installed files takes a while; it is needed only if texts are hidden.
    installed = {real for real, _ in resolved} - {real for real, _ in listed}
    trusted = frozenset[str]() if hide else frozenset(installed)
    return _combine(resolved, frozenset(hidden), trusted, strict=bool(hide))


def _combine(
    resolved: list[tuple[str, list[tuple[str, str]]]],
    hidden: frozenset[str],
    trusted: frozenset[str],
    *,
    strict: bool,
) -> Layout:
    roots: list[str] = []
    holes: set[str] = set()
    rules: list[Rule] = []
    for real in sorted({real for real, _ in resolved if os.path.exists(real)}):
        covered = any(within(real, root) for root in roots)
        if covered and not any(within(real, hole) for hole in holes):
            continue
        if any(within(real, path) for path in hidden):
            continue
        roots.append(real)
        if real in trusted and not any(within(path, real) for path in hidden):
            rules.append(Rule(real, READ))
        else:
            granted = _walk(real, hidden, strict)
            rules += granted.rules
            holes |= granted.holes
    links = {link: target for _, chain in resolved for link, target in chain}
    return Layout(tuple(roots), tuple(sorted(holes)), tuple(links.items()), tuple(rules))


def _check_writable(write: tuple[str, ...], hidden: Iterable[str]) -> None:
    for path in write:
        real = os.path.realpath(path)
        if not os.path.isdir(real):
            raise SandboxError(f"writable folder {path} does not exist; create it first")
        for secret in hidden:
            if within(secret, real):
                raise SandboxError(
                    f"writable folder {path} holds {secret}, which must stay hidden; "
                    "make another folder writable"
                )


def within(path: str, folder: str) -> bool:
    """Return whether the real path `path` is `folder` or lies beneath it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def resolve(path: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the real path and the links on the way to it, as (link, target) pairs."""
    links: list[tuple[str, str]] = []
    done, todo = "/", [part for part in os.path.abspath(path).split("/") if part]
    while todo and len(links) <= 40:
        here = os.path.join(done, todo.pop(0))
        if os.path.islink(here):
            target = os.readlink(here)
            links.append((here, target))
            done, rest = "/", todo
            joined = os.path.normpath(os.path.join(os.path.dirname(here), target))
            todo = [part for part in joined.split("/") if part] + rest
        else:
            done = here
    return done, links


# Files of the running interpreter


@functools.cache
def _interpreter() -> tuple[str, ...]:
    """Return paths of the interpreter and its libraries (venv, Debian, pyenv, conda, uv)."""
    paths = [*_standard_libraries(), *_site_folders(), f"{sys.prefix}/pyvenv.cfg"]
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix):
        paths += [f"{prefix}/{name}" for name in ("bin", "lib", "lib64", "include")]
    for program in (sys.executable, getattr(sys, "_base_executable", None)):
        if program:
            paths += [os.path.dirname(program), os.path.dirname(os.path.realpath(program))]
    for folder in _site_folders():
        with os.scandir(folder) as entries:
            paths += [os.path.realpath(entry.path) for entry in entries if entry.is_symlink()]
    return tuple(dict.fromkeys(paths))


def _standard_libraries() -> list[str]:
    return [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]


def _site_folders() -> list[str]:
    """Return the folders of installed packages on the import path, without project folders."""
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    if site.ENABLE_USER_SITE:
        packages.add(site.getusersitepackages())
    return [
        path
        for path in dict.fromkeys([*sys.path, *packages])
        if os.path.isdir(path)
        and (path in packages or os.path.basename(path) in ("site-packages", "dist-packages"))
    ]


def _unlisted_libraries() -> Iterator[str]:
    """Yield package folders in the standard library's that this interpreter does not use."""
    used = {os.path.realpath(path) for path in _site_folders()}
    for library in _standard_libraries():
        for name in ("site-packages", "dist-packages"):
            real = os.path.realpath(os.path.join(library, name))
            if os.path.isdir(real) and real not in used:
                yield real


# Walking a folder


@dataclass
class _Granted:
    """Rules and holes of one root."""

    rules: list[Rule] = field(default_factory=list)
    holes: set[str] = field(default_factory=set)


class _Secrets:
    """Recognises hidden files by path, by identity (hard links, mounts) and by content.

    Args:
        hidden: Real paths.
        strict: Whether texts are hidden; then the standard libraries of other Python
            installations, which hold the same texts, are hidden too, unless `hidden` lists files
            in them.
    """

    def __init__(self, hidden: frozenset[str], strict: bool) -> None:
        self._paths = hidden
        self._strict = strict
        self._own = {os.path.realpath(path) for path in _standard_libraries()}
        self._inodes: dict[int, set[int]] = {}
        self._copies: dict[str, set[tuple[int, bytes]]] = {}
        for path in hidden:
            if os.path.isfile(path):
                status = os.stat(path)
                self._inodes.setdefault(status.st_ino, set()).add(status.st_dev)
                if path.endswith(".py"):
                    fingerprint = (status.st_size, _digest(path))
                    self._copies.setdefault(os.path.basename(path), set()).add(fingerprint)

    def foreign_library(self, folder: str, names: set[str]) -> bool:
        """Return whether `folder` is another installation's standard library."""
        return (
            self._strict
            and folder not in self._own
            and any(marks <= names for marks in _LIBRARY_MARKS)
            and not any(within(path, folder) for path in self._paths)
        )

    def folder(self, path: str, name: str) -> bool:
        """Return whether a folder is hidden as a whole."""
        return path in self._paths or name == STATE_FOLDER

    def same(self, path: str) -> bool:
        """Return whether `path` is a secret under another name."""
        status = os.stat(path, follow_symlinks=False)
        return status.st_dev in self._inodes.get(status.st_ino, ())

    def file(self, entry: os.DirEntry[str]) -> bool:
        """Return whether a file is a secret, a link to one, or a verbatim copy."""
        if entry.path in self._paths or (entry.inode() in self._inodes and self.same(entry.path)):
            return True
        if self._strict and _ZIPPED_LIBRARY.fullmatch(entry.name):
            return True
        copies = self._copies.get(entry.name)
        if not copies:
            return False
        size = entry.stat(follow_symlinks=False).st_size
        return any(size == other for other, _ in copies) and (size, _digest(entry.path)) in copies


def _digest(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).digest()
    except OSError:
        return b""


@functools.lru_cache(maxsize=1024)
def _walk(root: str, hidden: frozenset[str], strict: bool) -> _Granted:
    granted = _Granted()
    secrets = _secrets(hidden, strict)
    if os.path.isdir(root):
        rules = _visit(root, secrets, frozenset(), granted.holes)
        granted.rules = [Rule(root, READ)] if rules is None else rules
    elif secrets.same(root):
        granted.holes.add(root)
    else:
        granted.rules = [Rule(root, READ)]
    granted.holes |= {path for path in hidden if within(path, root) and os.path.lexists(path)}
    return granted


_secrets = functools.lru_cache(maxsize=16)(_Secrets)


def _visit(
    folder: str, secrets: _Secrets, stems: frozenset[str], holes: set[str]
) -> list[Rule] | None:
    """Return the rules of `folder` if a file in it is hidden; None grants it as a whole.

    Args:
        folder: Real path.
        secrets: Files to hide.
        stems: Module names whose compiled files here are hidden.
        holes: Collects the hidden paths.
    """
    try:
        with os.scandir(folder) as stream:
            entries = [entry for entry in stream if not entry.is_symlink()]
    except OSError:
        return []  # cannot be listed, so nothing in it is granted
    if secrets.foreign_library(folder, {entry.name for entry in entries}):
        holes.add(folder)
        return []
    folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    files = [entry for entry in entries if not entry.is_dir(follow_symlinks=False)]
    secret = {entry.name for entry in files if secrets.file(entry)}
    sources = frozenset(name[:-3] for name in secret if name.endswith(".py"))
    if compiled := sources | stems:
        secret |= {entry.name for entry in files if _compiled(entry.name, compiled)}
    whole, plain, rules = not secret, [], [Rule(folder, LIST)]
    for entry in folders:
        if secrets.folder(entry.path, entry.name):
            secret.add(entry.name)
            whole = False
            continue
        inner_stems = sources if entry.name == "__pycache__" else frozenset[str]()
        inner = _visit(entry.path, secrets, inner_stems, holes)
        if inner is None:
            plain.append(entry.path)
        else:
            whole = False
            rules += inner
    if whole:
        return None
    holes.update(os.path.join(folder, name) for name in secret)
    plain += [entry.path for entry in files if entry.name not in secret]
    return rules + [Rule(path, READ) for path in plain]


def _compiled(name: str, stems: frozenset[str]) -> bool:
    return ".pyc" in name and name.partition(".")[0] in stems


def process_rules(*, private: bool, network: bool, gpu: bool) -> Iterator[Rule]:
    """Yield the rules for ``/proc``: all of a private one, else this process and machine figures.

    A process with network access is a tool, not a candidate; its children read their own entries
    there. Landlock still denies other processes' memory and environment.
    """
    if private or network:
        yield Rule("/proc", READ)
        return
    for name in (*_MACHINE_WIDE, *(_GPU_PROC if gpu else ())):
        yield Rule(f"/proc/{name}", READ)
    yield Rule(os.path.realpath("/proc/self"), READ)
