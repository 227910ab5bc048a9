"""The filter program for both machines, run by an interpreter of classic BPF."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.sandbox import syscalls
from pytest_autoresearch.sandbox.seccomp import DENIED, PRETENDED, Filter

MACHINES = ("x86_64", "aarch64")
ALLOWED = 0x7FFF0000
AF_UNIX, AF_INET, AF_NETLINK, AF_PACKET, AF_VSOCK = 1, 2, 16, 17, 40


def run(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """Execute a classic BPF program on one call; return the filter's verdict."""
    words = [a & 0xFFFFFFFFFFFFFFFF for a in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack("<IIQ6Q", number, arch, 0, *words)
    code = list(struct.iter_unpack("HBBI", program))
    accumulator = place = 0
    while True:
        operation, yes, no, value = code[place]
        place += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x06:
            return value
        else:
            test = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[operation]
            place += yes if test else no


def verdict(wanted: Filter, machine: str, name: str, *arguments: int) -> object:
    """Return ``"allowed"``, ``"killed"``, or the errno's name (``"pretended"`` for none)."""
    number = syscalls.number(name, machine)
    assert number is not None
    result = run(wanted.program(machine), syscalls.AUDIT_ARCH[machine], number, *arguments)
    return describe(result)


def describe(result: int) -> object:
    if result == ALLOWED:
        return "allowed"
    if result >> 16 == 5:
        return errno.errorcode.get(result & 0xFFFF, "pretended")
    return "killed"


@pytest.mark.parametrize("machine", MACHINES)
def test_denied_calls_fail(machine):
    for name in DENIED:
        assert verdict(Filter(), machine, name) == "EPERM", name


@pytest.mark.parametrize("machine", MACHINES)
def test_leaving_the_group_only_appears_to_succeed(machine):
    assert verdict(Filter(), machine, "setsid") == "pretended"
    assert verdict(Filter(), machine, "setpgid", 0, 0) == "pretended"
    assert verdict(Filter(), machine, "prctl", 1, 0) == "pretended"
    assert verdict(Filter(), machine, "prctl", 15, 0) == "allowed"


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_and_children_are_allowed_but_no_namespaces(machine):
    thread = 0x003D0F00
    assert verdict(Filter(), machine, "clone", thread) == "allowed"
    assert verdict(Filter(), machine, "clone", 17) == "allowed"
    assert verdict(Filter(), machine, "clone3") == "ENOSYS"
    for namespace in (1 << 17, 1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30):
        assert verdict(Filter(), machine, "clone", 17 | namespace) == "EPERM"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("wanted", "families"),
    [
        (Filter(), set()),
        (Filter(unix=True), {AF_UNIX}),
        (Filter(network=True), {AF_INET, 10, AF_NETLINK}),
        (Filter(network=True, unix=True), {AF_UNIX, AF_INET, 10, AF_NETLINK}),
    ],
)
def test_socket_families(machine, wanted, families):
    for family in range(46):
        expected = "allowed" if family in families else "EACCES"
        assert verdict(wanted, machine, "socket", family) == expected
    for kind, expected in ((1, "allowed"), (5, "allowed"), (2, "EACCES"), (0x80001, "allowed")):
        assert verdict(wanted, machine, "socketpair", AF_UNIX, kind) == expected
    assert verdict(wanted, machine, "socketpair", AF_INET, 1) == "EACCES"


@pytest.mark.parametrize("machine", MACHINES)
def test_candidates_get_no_locks_file_events_or_handlers_of_sigchld(machine):
    wanted = Filter(candidate=True)
    assert verdict(wanted, machine, "flock", 3, 2) == "pretended"
    assert verdict(wanted, machine, "fcntl", 3, 6) == "pretended"
    assert verdict(wanted, machine, "fcntl", 3, 3) == "allowed"
    assert verdict(wanted, machine, "inotify_init1", 0) == "EPERM"
    assert verdict(wanted, machine, "rt_sigaction", 17) == "pretended"
    assert verdict(wanted, machine, "rt_sigaction", 15) == "allowed"
    assert verdict(Filter(), machine, "flock", 3, 2) == "allowed"


@pytest.mark.parametrize("machine", MACHINES)
def test_terminal_injection_is_denied_and_other_requests_are_not(machine):
    assert verdict(Filter(), machine, "ioctl", 0, 0x5412) == "EPERM"
    assert verdict(Filter(), machine, "ioctl", 0, 0xDEAD00005412) == "EPERM"
    assert verdict(Filter(), machine, "ioctl", 0, 0x541C) == "EPERM"
    assert verdict(Filter(), machine, "ioctl", 0, 0x5401) == "allowed"


@pytest.mark.parametrize("machine", MACHINES)
def test_signals_to_other_processes_are_denied_when_restricted(machine):
    wanted = Filter(signals_only_to=4242)
    for target, expected in ((4242, "allowed"), (0, "allowed"), (1, "EPERM"), (-1, "EPERM")):
        assert verdict(wanted, machine, "kill", target, 9) == expected
    assert verdict(wanted, machine, "pidfd_send_signal", 3, 9) == "EPERM"
    assert verdict(Filter(), machine, "kill", 1, 9) == "allowed"


@pytest.mark.parametrize("machine", MACHINES)
def test_priorities_can_be_changed_only_of_the_caller(machine):
    for name, own, others in (
        ("setpriority", (0, 0), [(0, 5), (1, 0), (2, 0), (2, 1000), (0, 1 << 31)]),
        ("ioprio_set", (1, 0), [(1, 5), (2, 0), (3, 0), (0, 0)]),
        ("sched_setscheduler", (0,), [(5,)]),
    ):
        assert verdict(Filter(), machine, name, *own) == "allowed"
        for arguments in others:
            assert verdict(Filter(), machine, name, *arguments) == "EPERM", (name, arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_affinity_of_others_is_guarded_where_they_are_visible(machine):
    for pid, expected in ((0, "allowed"), (os.getpid(), "allowed"), (1, "EPERM")):
        assert verdict(Filter(guard_others=True), machine, "sched_setaffinity", pid) == expected
        assert verdict(Filter(), machine, "sched_setaffinity", pid) == "allowed"


@pytest.mark.parametrize("machine", MACHINES)
def test_file_guards(machine):
    guarded = Filter(guard_files=True)
    for name in PRETENDED:
        if syscalls.number(name, machine) is not None:
            assert verdict(guarded, machine, name) == "pretended", name
            assert verdict(Filter(), machine, name) == "allowed", name
    assert verdict(guarded, machine, "truncate") == "EPERM"
    assert verdict(guarded, machine, "openat", -100, 0, 0o1000) == "EPERM"
    assert verdict(guarded, machine, "openat", -100, 0, 0o1001) == "allowed"
    assert verdict(guarded, machine, "openat", -100, 0, 0o2000000) == "allowed"


@pytest.mark.parametrize("machine", MACHINES)
def test_unknown_calls_and_other_architectures_are_refused(machine):
    program = Filter().program(machine)
    arch = syscalls.AUDIT_ARCH[machine]
    assert describe(run(program, arch, syscalls.FIRST_UNKNOWN)) == "ENOSYS"
    assert describe(run(program, 0x40000003, 11)) == "killed"  # 32-bit x86
    if machine == "x86_64":
        assert describe(run(program, arch, 0x40000000 | 41, AF_INET)) == "ENOSYS"  # x32


@given(
    st.builds(
        Filter,
        network=st.booleans(),
        unix=st.booleans(),
        signals_only_to=st.none() | st.integers(1, 2**22),
        guard_files=st.booleans(),
        guard_others=st.booleans(),
    ),
    st.sampled_from(MACHINES),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 2**64 - 1), max_size=6),
)
def test_every_call_gets_a_verdict(wanted, machine, number, arguments):
    result = run(wanted.program(machine), syscalls.AUDIT_ARCH[machine], number, *arguments)
    assert describe(result) != "killed"


def test_numbers_are_distinct():
    for machine in MACHINES:
        numbers = [syscalls.number(name, machine) for name in syscalls.NAMES]
        known = [number for number in numbers if number is not None]
        assert len(set(known)) == len(known)
        assert max(known) < syscalls.FIRST_UNKNOWN
