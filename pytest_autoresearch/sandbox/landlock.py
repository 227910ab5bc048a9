"""Landlock (Linux 5.13): a read and write allow-list that privileges cannot lift.

Rights and ABI numbers: ``linux/landlock.h`` and the kernel's ``userspace-api/landlock``.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from . import syscalls

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15

READ = EXECUTE | READ_FILE | READ_DIR
LIST = READ_DIR
DEVICE = READ_FILE | READ_DIR | WRITE_FILE | _IOCTL_DEV
WRITE = 0xFFFF & ~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV)
OVERWRITE = READ_FILE | READ_DIR | WRITE_FILE

_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE | _IOCTL_DEV
_FIRST_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # number of file rights by ABI; 16 from ABI 5 on
_NET_TCP = 3  # bind and connect
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2
_RULE_PATH_BENEATH = 1
_CREATE_RULESET_VERSION = 1


@dataclass(frozen=True)
class Rule:
    """Access to `path` and everything beneath it; a missing path grants nothing."""

    path: str
    rights: int


def abi() -> int:
    """Return the kernel's Landlock ABI version; OSError if it is missing or switched off."""
    return syscalls.syscall("landlock_create_ruleset", None, 0, _CREATE_RULESET_VERSION)


def scopes_signals() -> bool:
    """Return whether Landlock confines signals and abstract UNIX sockets (ABI 6)."""
    try:
        return abi() >= 6
    except OSError:
        return False


def restrict(rules: Iterable[Rule], *, network: bool) -> str:
    """Restrict this process and its descendants to `rules`, irrevocably.

    Returns:
        State for the report, with the ABI and what it covers.

    Raises:
        OSError: Landlock is missing or a rule is refused; nothing is restricted then.
    """
    version = abi()
    handled = (1 << _FIRST_BITS.get(version, 16)) - 1
    tcp = _NET_TCP if version >= 4 and not network else 0
    scoped = _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL if version >= 6 else 0
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    attributes = struct.pack("QQQ", handled, tcp, scoped)[:size]
    ruleset = syscalls.syscall("landlock_create_ruleset", attributes, size, 0)
    try:
        count = sum(_add(ruleset, rule, handled) for rule in rules)
        syscalls.syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    covers = ["files", *(["TCP"] if tcp else []), *(["signals", "UNIX names"] if scoped else [])]
    return f"ok: ABI {version}, {count} rules, {'+'.join(covers)}"


def _add(ruleset: int, rule: Rule, handled: int) -> bool:
    with contextlib.ExitStack() as stack:
        try:
            fd = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return False
        stack.callback(os.close, fd)
        rights = rule.rights & handled
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _FILE_RIGHTS
        if rights:
            beneath = struct.pack("=Qi", rights, fd)
            syscalls.syscall("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, beneath, 0)
        return bool(rights)
