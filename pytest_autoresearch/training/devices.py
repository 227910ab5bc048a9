"""Which device trials run on, and the lease that keeps two trials off one GPU.

Found without torch: a pytest process never imports it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..core.experiment import Budget

GROUPS = Path("/sys/fs/cgroup")

OWN_GROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Device:
    """Where a trial runs.

    Attributes:
        kind: ``"cpu"`` or ``"cuda"``.
        index: Entry of CUDA_VISIBLE_DEVICES to give to the trial; ``""`` on a CPU.
        name: For people and for keeping scores of unlike devices apart.
    """

    kind: str
    index: str = ""
    name: str = ""


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that the caller's environment leaves visible, as CUDA would name them."""
    nodes = sorted(
        path.name.removeprefix("nvidia")
        for path in Path("/dev").glob("nvidia[0-9]*")
        if path.name.removeprefix("nvidia").isdigit()
    )
    if not nodes:
        return ()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return tuple(nodes)
    return tuple(entry.strip() for entry in listed.split(",") if entry.strip() not in ("", "-1"))


def default_budget(kind: str) -> Budget:
    """300 s on CUDA, where an exclusive device keeps time; equal counted work on a CPU."""
    return Budget.parse("300s") if kind == "cuda" else Budget.parse("equal:600ktok")


def memory_bytes() -> int:
    """Return the memory of this machine, or of a control group that confines us if less.

    Containers see their own group at the root; a service or a batch job is some folders below it.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _memory_limits():
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(path.read_text()))
    return total


def _memory_limits() -> Iterator[Path]:
    """Files that may hold a bound on our memory, of either version of control groups."""
    roots = {"": (GROUPS, "memory.max"), "memory": (GROUPS / "memory", "memory.limit_in_bytes")}
    for root, name in roots.values():
        yield root / name
    with contextlib.suppress(OSError, ValueError):
        for line in OWN_GROUPS.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            for controller in {*controllers.split(",")} & roots.keys():
                root, name = roots[controller]
                below = Path(group.strip("/"))
                yield from (root / folder / name for folder in (below, *below.parents))


def cpu_name() -> str:
    """Return the processor's model, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "cpu"


class Lease:
    """An exclusive hold on one GPU, by file lock: freed by the kernel when the holder dies.

    Worker numbers would not do: a replaced xdist worker gets a new number and would collide.
    """

    def __init__(self) -> None:
        self._file: IO[str] | None = None
        self.device = Device("cpu", name=cpu_name())

    def take(self) -> Device:
        """Hold the first free visible GPU, or the CPU where there is none.

        Raises:
            RuntimeError: Every visible GPU is held by another process.
        """
        gpus = visible_gpus()
        folder = Path(tempfile.gettempdir()) / f"pytest-autoresearch-{os.getuid()}"
        for gpu in gpus:
            folder.mkdir(mode=0o700, exist_ok=True)
            file = open(folder / f"gpu-{gpu}.lock", "w")  # noqa: SIM115 (held until release)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            self._file = file
            self.device = Device("cuda", gpu, f"cuda:{gpu}")
            return self.device
        if gpus:
            raise RuntimeError(
                f"all {len(gpus)} visible GPUs are in use; run with -n {len(gpus)} at most"
            )
        return self.device

    def release(self) -> None:
        """Give the GPU back; safe to call twice."""
        if self._file is not None:
            self._file.close()
            self._file = None
