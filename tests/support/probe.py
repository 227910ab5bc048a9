"""Escape attempts of a hostile train.py, one function each.

``python probe.py attack`` runs them inside a sandbox: it reads the targets from standard input
(JSON) and prints name to outcome. ``python probe.py arena SETTINGS`` sets up the targets and runs
the attempts confined; it needs the package and runs as the user who starts it.
Standard library only.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import errno
import json
import mmap
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Target = dict[str, Any]
ATTACKS: dict[str, Callable[[Target], object]] = {}
PRIVILEGED: set[str] = set()
MAIN_PROCESS: set[str] = set()
CONTROLS = ("write_run_folder", "read_training_text", "pair_of_sockets", "anonymous_memory_file")
"""Not attacks: actions that a candidate must be able to perform."""

libc = ctypes.CDLL(None, use_errno=True)


class Blocked(Exception):
    """The attempt failed without an errno."""


def attack(function: Callable[[Target], object]) -> Callable[[Target], object]:
    """Register an attempt that succeeds for any user's process unless it is confined."""
    ATTACKS[function.__name__] = function
    return function


def privileged(function: Callable[[Target], object]) -> Callable[[Target], object]:
    """Register an attempt that needs root, a kernel option, or a machine outside a container."""
    PRIVILEGED.add(function.__name__)
    return attack(function)


def of_main_process(function: Callable[[Target], object]) -> Callable[[Target], object]:
    """Mark an attempt that the confined process itself must make, not a fork of it."""
    MAIN_PROCESS.add(function.__name__)
    return function


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def call(target: Target, name: str, *arguments: object) -> int:
    number = target["numbers"][name]
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked(libc.syscall(ctypes.c_long(number), *wide))


def reached(target: Target, name: str, *arguments: object) -> str:
    """Make a call with invalid arguments: an error about these means that the call is allowed."""
    try:
        return str(call(target, name, *arguments))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EFAULT, errno.EBADF, errno.ENOENT, errno.E2BIG):
            return f"reached, {errno.errorcode[error.errno]}"
        raise


# Network and sockets


@attack
def tcp_to_this_machine(target: Target) -> object:
    """Connect to a server on the loopback interface."""
    with socket.create_connection(("127.0.0.1", target["tcp"]), 2):
        return "connected"


@privileged
def tcp_over_ipv6(target: Target) -> object:
    """Make an IPv6 stream socket and bind it."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as made:
        made.bind(("::1", 0))


@attack
def udp_to_this_machine(target: Target) -> object:
    """Send a datagram, like a DNS tunnel."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", ("127.0.0.1", target["tcp"]))


@attack
def listen_for_others(target: Target) -> object:
    """Wait for a connection from outside."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        made.bind(("127.0.0.1", 0))
        made.listen()


@privileged
def raw_socket(target: Target) -> object:
    """Make a raw packet socket."""
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


@attack
def netlink_socket(target: Target) -> object:
    """Open a netlink socket to the kernel's interfaces and routes."""
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()


@attack
def unix_name(target: Target) -> object:
    """Connect to an abstract UNIX socket, such as a desktop bus."""
    with socket.socket(socket.AF_UNIX) as made:
        made.connect("\0" + target["unix_name"])


@attack
def unix_path(target: Target) -> object:
    """Connect to a UNIX socket by path, such as Docker's or an ssh agent's."""
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(target["unix_path"])


@attack
def inherited_descriptor(target: Target) -> object:
    """Use a descriptor that the harness left open."""
    return os.read(target["leaked_fd"], 10)


# Reading what must stay hidden


@attack
def read_validation(target: Target) -> object:
    """Open the validation data by its path."""
    return Path(target["validation"]).read_text()[:20]


@attack
def read_validation_through_own_root(target: Target) -> object:
    """Open it through /proc/self/root."""
    return Path("/proc/self/root" + target["validation"]).read_text()[:20]


@attack
def read_validation_through_victims_root(target: Target) -> object:
    """Open it through another process's root."""
    return Path(f"/proc/{target['victim']}/root{target['validation']}").read_text()[:20]


@attack
def read_validation_through_victims_cwd(target: Target) -> object:
    """Open it through another process's working directory."""
    return Path(f"/proc/{target['victim']}/cwd/validation.bin").read_text()[:20]


@attack
def read_validation_through_victims_descriptor(target: Target) -> object:
    """Open it through another process's open file."""
    return Path(f"/proc/{target['victim']}/fd/{target['victim_fd']}").read_text()[:20]


@attack
def read_validation_through_hard_link(target: Target) -> object:
    """Create a hard link to the data in the run folder and read it."""
    link = Path(target["run"], "hard")
    os.link(target["validation"], link)
    return link.read_text()[:20]


@attack
def read_validation_through_symbolic_link(target: Target) -> object:
    """Create a symbolic link to the data in the run folder and read it."""
    link = Path(target["run"], "soft")
    link.symlink_to(target["validation"])
    return link.read_text()[:20]


@privileged
def read_validation_by_handle(target: Target) -> object:
    """Open the data by file handle, which bypasses path checks."""
    handle = ctypes.create_string_buffer(struct.pack("Ii", 120, 0) + bytes(120))
    number = ctypes.create_string_buffer(8)
    path = target["validation"].encode()
    call(target, "name_to_handle_at", -100, path, handle, number, 0)
    mount = os.open(os.path.dirname(target["validation"]), os.O_RDONLY)
    fd = call(target, "open_by_handle_at", mount, handle, os.O_RDONLY)
    return os.read(fd, 20)


@attack
def list_validation_folder(target: Target) -> object:
    """List the folder of the data."""
    return os.listdir(os.path.dirname(target["validation"]))


@attack
def stat_validation(target: Target) -> object:
    """Read size and times of the data."""
    return os.stat(target["validation"]).st_size


@attack
def read_home_secret(target: Target) -> object:
    """Read a credential from the user's home."""
    return Path(target["home_secret"]).read_text()


@privileged
def read_password_hashes(target: Target) -> object:
    """Read /etc/shadow."""
    return len(Path("/etc/shadow").read_bytes())


@privileged
def read_disk(target: Target) -> object:
    """Read the block device under the file system."""
    device = os.stat(target["validation"]).st_dev
    name = f"/dev/block/{os.major(device)}:{os.minor(device)}"
    fd = os.open(name if os.path.exists(name) else target["disk"], os.O_RDONLY)
    return len(os.read(fd, 512))


@privileged
def make_disk_node(target: Target) -> object:
    """Make a node of the block device in the run folder."""
    node = os.path.join(target["run"], "disk")
    os.mknod(node, 0o600 | 0o060000, os.stat(target["run"]).st_dev)
    return "made"


@attack
def environment_secret(target: Target) -> object:
    """Find an API key in the environment."""
    return os.environ["PROBE_API_KEY"]


@attack
@of_main_process
def environment_secret_in_memory(target: Target) -> object:
    """Find it in the environment block of execve."""
    block = Path("/proc/self/environ").read_bytes()
    if b"PROBE_API_KEY" not in block:
        raise Blocked("not in the block")


# Writing outside the run folder


@attack
def write_conftest(target: Target) -> object:
    """Write code that the next pytest session imports."""
    Path(target["repo"], "conftest.py").write_text("x")


@attack
def write_git_hook(target: Target) -> object:
    """Write a hook that the next commit runs."""
    Path(target["repo"], ".git/hooks/post-commit").write_text("x")


@attack
def write_own_source(target: Target) -> object:
    """Change train.py after it was checked."""
    Path(target["copy"], "train.py").write_text("x")


@privileged
def write_installed_package(target: Target) -> object:
    """Write a .pth file beside the installed packages."""
    planted = Path(target["site"], "zz_probe.pth")
    planted.write_text("")
    planted.unlink()


@attack
def write_temporary_folder_of_machine(target: Target) -> object:
    """Leave a file in the machine's /tmp for another run."""
    Path("/tmp", target["tag"]).write_text("x")
    if not _of_machine(target, "/tmp"):
        raise Blocked("private folder")


@attack
def write_shared_memory_of_machine(target: Target) -> object:
    """Leave a file in the machine's /dev/shm for another run."""
    Path("/dev/shm", target["tag"]).write_text("x")
    if not _of_machine(target, "/dev/shm"):
        raise Blocked("private folder")


@attack
def truncate_validation(target: Target) -> object:
    """Empty a file by path, without opening it."""
    os.truncate(target["scratch"], 3)


@attack
def truncate_while_reading(target: Target) -> object:
    """Empty a readable file by opening it for reading."""
    os.close(os.open(os.path.join(target["copy"], "notes"), os.O_RDONLY | os.O_TRUNC))


@attack
def unlink_file(target: Target) -> object:
    """Remove a file of the repository."""
    os.unlink(os.path.join(target["repo"], "removable"))


@attack
def rename_file(target: Target) -> object:
    """Move a file of the repository into the run folder."""
    os.rename(os.path.join(target["repo"], "movable"), os.path.join(target["run"], "moved"))


@attack
def change_mode(target: Target) -> object:
    """Make a file of the repository unreadable for the harness."""
    os.chmod(target["scratch"], 0)
    if os.stat(target["scratch"]).st_mode & 0o777:
        raise Blocked("mode unchanged")


@attack
def change_times(target: Target) -> object:
    """Make a changed file look unchanged to git."""
    os.utime(target["scratch"], (1, 1))
    if os.stat(target["scratch"]).st_mtime != 1:
        raise Blocked("times unchanged")


@attack
def large_file(target: Target) -> object:
    """Fill the disk with one file."""
    with open(os.path.join(target["run"], "large"), "wb") as stream:
        stream.truncate(target["file_bytes"] + 1)


# Other processes


@attack
def signal_victim(target: Target) -> object:
    """Signal a process of the same user."""
    os.kill(target["victim"], signal.SIGCONT)


@attack
def signal_parent(target: Target) -> object:
    """Signal the process that started this one."""
    if os.getppid() == 0:
        raise Blocked("no parent is visible")
    os.kill(target["launcher"], signal.SIGCONT)


@privileged
def trace_victim(target: Target) -> object:
    """Attach as a debugger."""
    call(target, "ptrace", 0x4206, target["victim"], 0, 0)


@privileged
def read_victims_memory(target: Target) -> object:
    """Read another process's memory through a system call."""
    buffer = ctypes.create_string_buffer(8)
    here = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(buffer), 8))
    there = ctypes.create_string_buffer(struct.pack("QQ", target["victim_address"], 8))
    call(target, "process_vm_readv", target["victim"], here, 1, there, 1, 0)
    return buffer.raw


@attack
def open_victims_memory(target: Target) -> object:
    """Open another process's memory as a file."""
    os.close(os.open(f"/proc/{target['victim']}/mem", os.O_RDONLY))


@privileged
def take_victims_descriptor(target: Target) -> object:
    """Copy an open file out of another process."""
    pidfd = os.pidfd_open(target["victim"])
    os.close(call(target, "pidfd_getfd", pidfd, target["victim_fd"], 0))


@attack
def read_victims_environment(target: Target) -> object:
    """Read another process's environment."""
    return len(Path(f"/proc/{target['victim']}/environ").read_bytes())


@attack
def read_victims_command(target: Target) -> object:
    """Read another process's command line."""
    text = Path(f"/proc/{target['victim']}/cmdline").read_bytes()
    if b"probe" not in text:
        raise Blocked("another process")


@attack
def list_processes(target: Target) -> object:
    """List the processes of the machine."""
    if str(target["victim"]) not in os.listdir("/proc"):
        raise Blocked("not among them")


@attack
def slow_victim_down(target: Target) -> object:
    """Give another process the lowest priority."""
    priority = os.getpriority(os.PRIO_PROCESS, target["victim"])
    os.setpriority(os.PRIO_PROCESS, target["victim"], priority)


@attack
def slow_every_process_of_this_user_down(target: Target) -> object:
    """Lower the priority of all processes of the user."""
    os.setpriority(os.PRIO_USER, 0, os.getpriority(os.PRIO_PROCESS, 0))


@attack
def slow_disks_of_every_process_of_this_user(target: Target) -> object:
    """Lower the priority of all reads and writes of the user."""
    return call(target, "ioprio_set", 3, os.getuid(), 2 << 13 | 4)


@attack
def slow_disks_of_group(target: Target) -> object:
    """Lower the priority of all reads and writes of a process group."""
    return call(target, "ioprio_set", 2, 0, 2 << 13 | 4)


@attack
def limit_victim(target: Target) -> object:
    """Lower another process's resource limits."""
    resource.prlimit(target["victim"], resource.RLIMIT_CORE, (0, 0))


@attack
def pin_victim(target: Target) -> object:
    """Set another process's CPU affinity."""
    os.sched_setaffinity(target["victim"], os.sched_getaffinity(0))


@attack
def shared_segment_of_victim(target: Target) -> object:
    """Attach to a System V shared memory segment by key."""
    return checked(libc.shmget(ctypes.c_int(target["segment"]), ctypes.c_size_t(1), 0))


@attack
def leave_process_group(target: Target) -> object:
    """Start a new session, out of reach of a group kill."""
    if (child := os.fork()) == 0:
        before = os.getpgid(0)
        os.setsid()
        os._exit(os.getpgid(0) == before)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise Blocked("still in the group")


@attack
def outlive_parent(target: Target) -> object:
    """Cancel the signal on the death of the harness."""
    armed = ctypes.c_int(0)
    libc.prctl(1, ctypes.c_ulong(signal.SIGUSR1), 0, 0, 0)
    libc.prctl(2, ctypes.byref(armed), 0, 0, 0)
    if armed.value != signal.SIGUSR1:
        raise Blocked("the request is ignored")


@attack
def push_into_terminal(target: Target) -> object:
    """Type into the terminal that the harness runs in."""
    return reached(target, "ioctl", -1, 0x5412, b"x")


# Privileges and kernel surface


@attack
@of_main_process
def gain_by_execve(target: Target) -> object:
    """Gain privileges by a set-user-id program."""
    if "NoNewPrivs:\t1" in Path("/proc/self/status").read_text():
        raise Blocked("no_new_privs")


@privileged
@of_main_process
def capabilities(target: Target) -> object:
    """Use a capability, or gain one."""
    status = Path("/proc/self/status").read_text()
    held = {name: int(value, 16) for name, value in re.findall(r"Cap(\w+):\t(\w+)", status)}
    if not (held["Eff"] or held["Prm"] or held["Inh"] or held["Amb"]):
        raise Blocked("none")


@privileged
def become_another_user(target: Target) -> object:
    """Change the user id."""
    os.setuid(os.getuid() + 7)


@privileged
def mount_something(target: Target) -> object:
    """Mount a file system."""
    mounted = libc.mount(b"tmpfs", target["run"].encode(), b"tmpfs", ctypes.c_ulong(0), None)
    checked(mounted)
    libc.umount2(target["run"].encode(), 2)


@privileged
def change_root(target: Target) -> object:
    """Move to another root."""
    os.chroot(target["run"])


@privileged
def new_user_namespace(target: Target) -> object:
    """Regain capabilities in a new user namespace."""
    checked(libc.unshare(0x10000000))


@privileged
def new_user_namespace_by_clone(target: Target) -> object:
    """Create a user namespace with clone."""
    pid = call(target, "clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@privileged
def new_user_namespace_by_clone3(target: Target) -> object:
    """Create a user namespace with clone3, whose flags a filter cannot read."""
    arguments = struct.pack("8Q", 0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    pid = call(target, "clone3", arguments, len(arguments))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@privileged
def join_victims_namespace(target: Target) -> object:
    """Enter another process's namespace."""
    pidfd = os.pidfd_open(target["victim"])
    checked(libc.setns(pidfd, 0x04000000))


@privileged
def load_kernel_program(target: Target) -> object:
    """Reach the BPF system call."""
    return reached(target, "bpf", 0, bytes(128), 128)


@privileged
def asynchronous_ring(target: Target) -> object:
    """Reach io_uring, whose operations a filter cannot see."""
    return reached(target, "io_uring_setup", 0, bytes(120))


@privileged
def handle_page_faults(target: Target) -> object:
    """Reach userfaultfd, which many kernel exploits use."""
    return reached(target, "userfaultfd", 1)


@privileged
def kernel_keyring(target: Target) -> object:
    """Read the user's keyring."""
    return reached(target, "keyctl", 0, -4, 0, 0, 0)


@privileged
def performance_counters(target: Target) -> object:
    """Reach perf_event_open."""
    return reached(target, "perf_event_open", bytes(128), 0, -1, -1, 0)


@attack
def alarm_that_continues_a_paused_process(target: Target) -> object:
    """Make a timer whose signal continues this process while the harness pauses it."""
    return reached(target, "timer_create", 1, None, None)


@attack
def change_personality(target: Target) -> object:
    """Switch off address space randomisation."""
    return reached(target, "personality", 0x0040000)


@privileged
def set_clock(target: Target) -> object:
    """Set the machine's clock."""
    time.clock_settime(time.CLOCK_REALTIME, time.time())


# Controls


@attack
def write_run_folder(target: Target) -> object:
    path = Path(target["run"], "made")
    path.write_text("x")
    path.rename(path.with_name("renamed"))
    path.with_name("renamed").unlink()


@attack
def read_training_text(target: Target) -> object:
    return Path(target["copy"], "train.py").read_text()


@attack
def pair_of_sockets(target: Target) -> object:
    left, right = socket.socketpair()
    left.send(b"x")
    return right.recv(1)


@attack
def anonymous_memory_file(target: Target) -> object:
    fd = os.memfd_create("probe")
    os.truncate(fd, 4096)
    return len(mmap.mmap(fd, 4096))


# Hunting hidden texts


def hunt(target: Target) -> dict[str, object]:
    """Search every reachable .py, .pyc and zip file for the needles; return those found."""
    needles = re.compile(b"|".join(re.escape(needle.encode()) for needle in target["needles"]))
    found: dict[str, str] = {}
    read = 0
    for path in _places(target):
        try:
            data = Path(path).read_bytes()
        except OSError:
            continue
        read += 1
        for match in needles.findall(data):
            found.setdefault(match.decode(), str(path))
    for name in target["modules"]:
        for text in _through_import(name):
            for match in needles.findall(text.encode()):
                found.setdefault(match.decode(), f"import of {name}")
    return {"found": found, "read": read}


def _places(target: Target) -> Iterator[str]:
    for root in [root.format(**target) for root in target["roots"]]:
        for tree in target["trees"][: 1 if root else None]:
            for folder, folders, files in os.walk(root + tree):
                folders[:] = [name for name in folders if name not in ("site-packages", "test")]
                for name in files:
                    if name.endswith((".py", ".pyc", ".zip")):
                        yield os.path.join(folder, name)
    for number, path in enumerate([*target["secrets"], *target["aliases"]]):
        yield path
        for make in (os.link, os.symlink):
            made = os.path.join(target["run"], f"{make.__name__}{number}")
            with contextlib.suppress(OSError):
                make(path, made)
                yield made
        with contextlib.suppress(OSError):
            yield f"/proc/self/fd/{os.open(path, os.O_PATH)}"


def _through_import(name: str) -> Iterator[str]:
    import importlib.util
    import linecache

    try:
        spec = importlib.util.find_spec(name)
        yield "".join(linecache.getlines(spec.origin))
        yield spec.loader.get_source(name)
        yield repr(spec.loader.get_code(name).co_consts)
    except (OSError, ImportError, AttributeError, TypeError, ValueError):
        return


# Inside


def run_attacks(target: Target) -> dict[str, str]:
    """Run every attack in a separate process; return name to ``OPEN…`` or ``blocked…``."""
    results = {}
    for name, function in ATTACKS.items():
        if name in MAIN_PROCESS:
            results[name] = _outcome(function, target)
            continue
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            os.write(write, _outcome(function, target).encode()[:4000])
            os._exit(0)
        os.close(write)
        with open(read, errors="replace") as stream:
            results[name] = stream.read() or "blocked: killed"
        os.waitpid(child, 0)
    return results


def _outcome(function: Callable[[Target], object], target: Target) -> str:
    try:
        detail = function(target)
        return "OPEN" if detail is None else f"OPEN: {detail!r}"
    except OSError as error:
        return f"blocked: {errno.errorcode.get(error.errno or 0, error.errno)}"
    except Exception as error:
        return f"blocked: {type(error).__name__} {error}"


def inside() -> None:
    target = json.load(sys.stdin)
    print(json.dumps(hunt(target) if target.get("needles") else run_attacks(target)))


def _of_machine(target: Target, folder: str) -> bool:
    """Return whether `folder` is the one that the arena sees under that name."""
    status = os.stat(folder)
    return [status.st_dev, status.st_ino] == target["folders"][folder]


# Outside


def arena(settings: dict[str, Any]) -> dict[str, Any]:
    """Set up the targets, run the attacks confined by `settings` and return the outcome.

    Settings: ``root`` (of the source tree), ``folder`` (to work in), ``mode``, ``skip`` (layers),
    ``refuse_namespaces`` (like a container), ``hide`` (modules to hide and to search for).
    """
    sys.path.insert(0, settings["root"])
    from pytest_autoresearch import sandbox
    from pytest_autoresearch.sandbox import syscalls

    off = settings["mode"] == "off"
    with contextlib.ExitStack() as stack:
        target = _make_targets(Path(settings["folder"]), stack)
        target["numbers"] = {name: syscalls.number(name) for name in syscalls.NAMES}
        if settings.get("hide"):
            target |= _hidden_texts(settings["hide"], Path(target["copy"]))
            target["roots"] = [""] if off else ["", "/proc/self/root", "/proc/{victim}/root"]
        if settings.get("refuse_namespaces"):
            refuse_namespaces()
        policy = sandbox.Policy(
            read=(target["copy"], os.path.realpath(__file__)),
            write=(target["run"],),
            hide=tuple(target.get("secrets", ())),
            skip=tuple(settings.get("skip", ())),
            limits=sandbox.Limits(file_bytes=target["file_bytes"]),
            env=None if off else sandbox.candidate_environment(target["run"]),
        )
        os.environ["PROBE_API_KEY"] = "sk-probe"
        process = sandbox.launch(
            [sys.executable, "-I", "-S", os.path.realpath(__file__), "attack"],
            policy, settings["mode"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            keep_fds=[target["leaked_fd"]] if off else [], text=True,
        )  # fmt: skip
        output, _ = process.communicate(json.dumps(target))
        for folder in target["folders"]:
            with contextlib.suppress(OSError):
                os.unlink(f"{folder}/{target['tag']}")
    return {
        "layers": dict(process.report.layers),
        "headline": process.report.headline(),
        "verified": process.report.verified,
        "needles": target.get("needles", []),
        "results": json.loads(output),
    }


def _hidden_texts(modules: list[str], copy: Path) -> Target:
    """Return files to hide and needles: a line of each module, also in its compiled form.

    The candidate's folder gets links to, and a copy of, hidden texts. The last needle is of a
    module that is not hidden.
    """
    library = Path(os.__file__).parent
    names = [name for name in modules if (library / name).exists()]
    needles = {name: _needle(library / name) for name in names}
    secrets = [library / name for name, needle in needles.items() if needle]
    aliases = [copy / f"alias{number}.py" for number in range(3)]
    with contextlib.suppress(OSError):  # not permitted to users for files of others
        os.link(secrets[0], aliases[0])
    aliases[1].symlink_to(secrets[1])
    (copy / secrets[2].name).write_bytes(secrets[2].read_bytes())
    (copy / "library").symlink_to(library)
    trees = [str(library), str(copy), str(copy / "library") + "/"]
    trees += [
        str(path)
        for pattern in ("lib", "local/lib", "lib64")
        for path in Path("/usr", pattern).glob("python3*")
    ]
    return {
        "secrets": [str(path) for path in secrets],
        "needles": [
            needle for needle in [*needles.values(), _needle(library / "enum.py")] if needle
        ],
        "modules": [name[:-3].replace("/", ".") for name in names],
        "aliases": [str(path) for path in aliases],
        "trees": trees,
    }


def _needle(source: Path) -> str:
    """Return a line of a docstring, which the compiled file contains unchanged."""
    tree = ast.parse(source.read_bytes())
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Module)
    for node in ast.walk(tree):
        if isinstance(node, kinds):
            for line in (ast.get_docstring(node) or "").splitlines():
                if len(line.strip()) > 40 and line.isascii():
                    return line.strip()
    return ""


def _make_targets(folder: Path, stack: contextlib.ExitStack) -> Target:
    for name in ("private", "repo/.git/hooks", "copy", "run", "home"):
        (folder / name).mkdir(parents=True)
    for name in ("private/validation.bin", "private/scratch", "repo/removable", "repo/movable"):
        (folder / name).write_text("the validation text")
    (folder / "copy/train.py").write_text("print('hello')\n")
    (folder / "copy/notes").write_text("notes\n")
    (folder / "home/credentials").write_text("secret")
    tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    tag = f"probe-{os.getpid()}"
    for address in ("\0" + tag, str(folder / "private/socket")):
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(address)
        server.listen()
    segment = 0x7E57 + os.getpid()
    identity = libc.shmget(ctypes.c_int(segment), ctypes.c_size_t(4096), 0o1600)
    if identity >= 0:
        stack.callback(libc.shmctl, identity, 0, None)
    leaked = os.open(folder / "private/validation.bin", os.O_RDONLY)
    stack.callback(os.close, leaked)
    buffer = ctypes.create_string_buffer(b"secret!!")
    victim = os.fork()
    if victim == 0:  # the same program text at the same addresses as this process
        os.chdir(folder / "private")
        time.sleep(600)
        os._exit(0)
    stack.callback(os.waitpid, victim, 0)
    stack.callback(os.kill, victim, signal.SIGKILL)
    stack.callback(lambda: buffer)  # stays alive, at its address, as long as the victim
    folders = {path: os.stat(path) for path in ("/tmp", "/dev/shm")}
    disks = [
        f"/dev/{name}" for name in os.listdir("/sys/block") if name.startswith(("vd", "sd", "nv"))
    ]
    return {
        "tag": tag,
        "tcp": tcp.getsockname()[1],
        "unix_name": tag,
        "unix_path": str(folder / "private/socket"),
        "leaked_fd": leaked,
        "validation": str(folder / "private/validation.bin"),
        "scratch": str(folder / "private/scratch"),
        "home_secret": str(folder / "home/credentials"),
        "repo": str(folder / "repo"),
        "copy": str(folder / "copy"),
        "run": str(folder / "run"),
        "site": os.path.dirname(os.__file__),
        "disk": disks[0] if disks else "/dev/sda",
        "file_bytes": 64 << 20,
        "segment": segment,
        "victim": victim,
        "victim_fd": leaked,
        "victim_address": ctypes.addressof(buffer),
        "launcher": os.getpid(),
        "folders": {path: [status.st_dev, status.st_ino] for path, status in folders.items()},
    }


def refuse_namespaces() -> None:
    """Refuse unshare and mount, like a container's default profile."""
    from pytest_autoresearch.sandbox import seccomp, syscalls

    machine = os.uname().machine
    code = [seccomp.LOAD_NUMBER]
    for name in ("unshare", "mount"):
        code += seccomp.on(machine, name, seccomp.fail(errno.EPERM))
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.load(seccomp.assemble([*code, seccomp.PASS]))


if __name__ == "__main__":
    if sys.argv[1] == "attack":
        inside()
    else:
        print(json.dumps(arena(json.loads(sys.argv[2]))))
