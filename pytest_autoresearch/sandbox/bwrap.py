"""Bubblewrap as the maker of namespaces and root, for those who trust it more than ours.

The other layers (Landlock, seccomp, limits, environment, descriptors) are still our own, applied
inside.
"""

from __future__ import annotations

import os
import shutil

from . import paths
from .policy import NETWORK_ALLOWED, Policy, SandboxUnavailable


def layers(policy: Policy) -> dict[str, str]:
    """The layers that bubblewrap enforces; it starts nothing unless all of them hold."""
    names = ("user", "network", "ipc", "pid", "mount")
    states = dict.fromkeys(names, "ok: bubblewrap")
    return states | ({"network": NETWORK_ALLOWED} if policy.network else {})


def command(policy: Policy, layout: paths.Layout | None) -> list[str]:
    """Return the command that a confined command is appended to.

    Raises:
        SandboxUnavailable: No ``bwrap`` on PATH.
    """
    program = shutil.which("bwrap")
    if program is None or layout is None:
        raise SandboxUnavailable(
            "sandbox mode bwrap needs the program bwrap on PATH; install bubblewrap, or use auto"
        )
    limits = policy.limits
    argv = [
        program, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts",
        *([] if policy.network else ["--unshare-net"]), "--die-with-parent", "--cap-drop", "ALL",
        "--size", str(limits.tmp_bytes), "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev",
        "--size", str(limits.shm_bytes), "--tmpfs", "/dev/shm",
    ]  # fmt: skip
    argv += _binds(policy, layout)
    for link, target in dict(_links(policy, layout)).items():
        argv += ["--symlink", target, link]
    for hole in layout.holes:
        if os.path.isdir(hole):
            argv += ["--remount-ro", hole]
    # Readable for the entry point only: Landlock takes it away before the command runs.
    own = os.path.join(paths.PACKAGE, "sandbox")
    argv += ["--ro-bind", own, own]
    start = os.path.join(paths.PACKAGE, "__init__.py")
    return [*argv, "--ro-bind", start, start, "--remount-ro", "/", "--"]


def _binds(policy: Policy, layout: paths.Layout) -> list[str]:
    devices = (*policy.devices, *(paths.GPU_DEVICES if policy.gpu else ()))
    work = [(root, "--ro-bind") for root in layout.roots]
    work += [(hole, "--tmpfs" if os.path.isdir(hole) else "cover") for hole in layout.holes]
    work += [(os.path.realpath(path), "--bind") for path in policy.write]
    work += [(path, "--dev-bind-try") for path in devices]
    argv = []
    for path, kind in sorted(work):  # a parent before what lies in it
        if kind == "cover":
            argv += ["--ro-bind", os.devnull, path]
        else:
            argv += [kind, path] if kind == "--tmpfs" else [kind, path, path]
    return argv


def _links(policy: Policy, layout: paths.Layout) -> list[tuple[str, str]]:
    """The links that are not inside something bound, which shows them already."""
    chains = [link for path in (*policy.write, *policy.read) for link in paths.resolve(path)[1]]
    bound = (*layout.roots, *map(os.path.realpath, policy.write))
    return [
        (link, target)
        for link, target in (*layout.links, *chains)
        if not any(paths.within(link, root) for root in bound)
    ]
