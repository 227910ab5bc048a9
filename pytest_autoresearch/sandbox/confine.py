"""Confine the calling process: attempt every layer in order and report each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from . import landlock, limits, namespaces, paths, root, seccomp, syscalls
from .landlock import Rule
from .policy import LAYERS, NETWORK_ALLOWED, Mode, Policy, Report, SandboxError, SandboxUnavailable


def prepare(policy: Policy) -> None:
    """Compute and cache the rules of `policy`, so that `enter` is cheap in the forks that follow.

    Raises:
        SandboxError: A writable folder is missing or contains a hidden file.
    """
    if not syscalls.supported():
        paths.layout(policy)


def enter(policy: Policy, mode: Mode = "auto", *, layout: paths.Layout | None = None) -> Report:
    """Confine the calling process: freshly forked, single-threaded, about to run untrusted code.

    First the process becomes the leader of a new session and process group (id = its pid), which
    dies with the thread that forked it. Then every layer is attempted, and descriptors other than
    0, 1, 2 and `policy.keep_fds` are closed. Where process id namespaces are permitted this
    function forks: the caller continues as process 1 of a new namespace, while the original
    process, without descriptors, waits and ends as the inner process ends (same exit status or
    signal), so its parent needs only the pid it forked. One ``os.killpg(pid, SIGKILL)`` ends both,
    and everything they started.

    Args:
        policy: What may be reached.
        mode: ``"require"``: raise unless all of `policy.GUARANTEES` are enforced (the network only
            if the policy forbids it). ``"auto"``: enforce what the machine permits. ``"off"``:
            only session, limits, descriptors and environment.
        layout: The readable files, where another process has computed them already.

    Raises:
        SandboxUnavailable: Mode ``"require"``, and the machine cannot enforce it.
        SandboxError: The process is multi-threaded, the policy contradicts itself, or a private
            root failed half-way; the caller must exit without running anything.
    """
    return _Entry(policy, mode, layout).run()


class _Entry:
    """One call of `enter`."""

    def __init__(self, policy: Policy, mode: Mode, layout: paths.Layout | None) -> None:
        self._policy = policy
        self._mode = mode
        self._states: dict[str, str] = {}
        self._private_proc = False
        unsupported = syscalls.supported()
        self._confining = mode != "off" and not unsupported
        self._idle = "skipped: the sandbox is off" if mode == "off" else f"skipped: {unsupported}"
        if self._confining:
            self._layout = layout or paths.layout(policy)

    def run(self) -> Report:
        policy = self._policy
        if self._confining:
            limits.refuse_threads()
        self._attempt("session", limits.lead_session)
        self._attempt("limits", lambda: limits.apply_limits(policy.limits))
        self._leave_namespaces()
        self._attempt("descriptors", lambda: limits.close_descriptors(policy.keep_fds))
        if self._on("mount"):
            self._attempt("mount", self._build_root)
        self._attempt("environment", lambda: limits.replace_environment(policy.env))
        self._confine("privileges", limits.drop_privileges)
        self._confine("landlock", self._restrict_files)
        self._confine("seccomp", self._filter_calls)
        self._change_directory()
        report = Report({layer: self._states[layer] for layer in LAYERS})
        if self._mode == "require":
            _require(report, policy)
        return report

    def _change_directory(self) -> None:
        folder = self._policy.cwd or next(iter(self._policy.write), "/")
        try:
            os.chdir(folder)
        except OSError as error:
            raise SandboxError(
                f"working directory {folder} cannot be entered ({error.strerror}); "
                "create it, and let the policy read or write it"
            ) from error

    def _on(self, layer: str) -> bool:
        return self._states.get(layer, "").startswith("ok")

    def _attempt(self, layer: str, action: Callable[[], str]) -> None:
        if layer in self._policy.skip:
            self._states[layer] = "skipped: the policy leaves it out"
            return
        try:
            self._states[layer] = action()
        except (OSError, ValueError) as error:
            self._states[layer] = f"failed: {syscalls.reason(error)}"

    def _confine(self, layer: str, action: Callable[[], str]) -> None:
        if self._confining:
            self._attempt(layer, action)
        else:
            self._states[layer] = self._idle

    def _leave_namespaces(self) -> None:
        for layer in namespaces.FLAGS:
            if layer == "network" and self._policy.network:
                self._states[layer] = NETWORK_ALLOWED
            else:
                self._confine(layer, lambda layer=layer: namespaces.unshare(layer))  # type: ignore[misc]
        if self._on("pid"):
            try:
                namespaces.enter_pid_namespace()
            except OSError as error:
                raise SandboxError(f"no inner process: {syscalls.reason(error)}") from error

    def _build_root(self) -> str:
        state, self._private_proc = root.build(self._policy, self._layout, own_proc=self._on("pid"))
        return state

    def _restrict_files(self) -> str:
        return landlock.restrict(self._rules(), network=self._policy.network)

    def _rules(self) -> Iterator[Rule]:
        policy = self._policy
        yield from self._layout.rules
        yield from paths.process_rules(
            private=self._private_proc, network=policy.network, gpu=policy.gpu
        )
        if self._on("mount"):  # which shows only what the policy names
            yield Rule("/", landlock.LIST)
        for path in (*policy.write, *(("/tmp", "/dev/shm") if self._on("mount") else ())):
            yield Rule(path, landlock.WRITE)
        for path in (*paths.DEVICES, *policy.devices, *(paths.GPU_DEVICES if policy.gpu else ())):
            yield Rule(path, landlock.DEVICE)
        if policy.gpu:  # CUDA names its threads by writing to /proc/self/task/N/comm
            yield Rule(os.path.realpath("/proc/self/task"), landlock.OVERWRITE)

    def _filter_calls(self) -> str:
        policy = self._policy
        scoped = self._on("landlock") and landlock.scopes_signals()
        names_private = self._on("network") or scoped
        alone = not (self._on("pid") or scoped)
        return seccomp.install(
            seccomp.Filter(
                network=policy.network,
                unix=self._on("mount") and names_private,
                signals_only_to=os.getpid() if alone else None,
                candidate=policy.candidate,
                guard_files=not self._on("mount"),
                guard_others=not self._on("pid"),
            )
        )


def _require(report: Report, policy: Policy) -> None:
    lacking = [what for what in report.lacking if not (policy.network and what == "the network")]
    if lacking:
        raise SandboxUnavailable(
            f"this machine cannot confine {', '.join(lacking)}: {report.headline()}; enable "
            "seccomp and Landlock (Linux 5.13 or newer) or permit unprivileged user namespaces, "
            "or choose sandbox mode auto (scores are then unverified)"
        )
