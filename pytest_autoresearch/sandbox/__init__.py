"""Confinement of untrusted processes: one file a mechanism, one report of what is active.

`enter` confines the calling process, `launch` starts an external command confined, `survey` says
what this machine can enforce. Standard library only; imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable

from .policy import (
    COUNTED,
    LAYERS,
    Limits,
    Mode,
    Policy,
    Report,
    SandboxError,
    SandboxUnavailable,
)

Announce = int | Callable[[int], object] | None


def prepare(policy: Policy) -> None:
    """Compute and cache the rules of `policy`, so that `enter` is cheap in the forks that follow.

    Call it in the process that will fork (the zygote). The cache depends on `read` and `hide`
    only; calling it again for the same paths costs microseconds.
    """


def enter(policy: Policy, mode: Mode = "auto", *, announce: Announce = None) -> Report:
    """Confine the calling process: freshly forked, single-threaded, about to run untrusted code.

    First of all the process leads a new session and process group of its own (id = its pid), and
    dies with the thread that forked it. Then every layer is attempted, and descriptors other than
    0, 1, 2 and `policy.keep_fds` are closed. Where process id namespaces are permitted this
    function forks: the caller goes on as process 1 of a new namespace, while the original process
    stays behind holding nothing, waits, and ends as the inner process ended (same exit status or
    signal), so its parent needs to know only the pid it forked. One ``os.killpg(pid, SIGKILL)``
    ends both, and everything they started.

    Args:
        policy: What may be reached.
        mode: ``"require"``: raise unless network, files and group kill are enforced. ``"auto"``:
            enforce what the machine permits. ``"off"``: only session, limits, descriptors and
            environment.
        announce: Told, from outside the new namespace, the process id under which the confined
            process is seen from outside: a callable gets it as its argument; to a descriptor it is
            written as ASCII digits and a newline. Runs before any descriptor is closed.

    Returns:
        The report, in the confined process.

    Raises:
        SandboxUnavailable: Mode ``"require"`` and the machine cannot enforce it; names the remedy.
        SandboxError: The process is multi-threaded, the policy contradicts itself, or a private
            root failed half-way; the caller must exit without running anything.
    """


def survey(policy: Policy | None = None) -> Report:
    """What `enter` would enforce here, found out by a throw-away child.

    The result for the default policy is cached for the life of the process.
    """


# candidate_environment(home, *, threads=1, cuda_devices=None, extra=None) -> dict[str, str]
# launch(argv, policy, mode="auto", *, stdin=None, stdout=None, stderr=None) -> Sandboxed(Popen)
#   (environment, cwd and kept descriptors are the policy's); .report, .inner_pid, .kill_group()
