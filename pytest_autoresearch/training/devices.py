"""Devices for training: what this machine has, and a lease that keeps two runs off one GPU.

Works without torch, which a pytest process never imports.
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

GPU_MEMORY_SHARE = 0.9
"""Share of a GPU's memory above which a run is stopped."""

GROUPS = Path("/sys/fs/cgroup")

OWN_GROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Device:
    """A device that a run is trained on.

    Attributes:
        kind: ``"cpu"`` or ``"cuda"``.
        index: Entry of CUDA_VISIBLE_DEVICES for the run; ``""`` on a CPU.
        name: Name; scores from devices of different names are not compared.
    """

    kind: str
    index: str = ""
    name: str = ""


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves visible, by index or UUID."""
    names = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    nodes = sorted(name for name in names if name.isdigit())
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not nodes or listed is None:
        return tuple(nodes)
    return tuple(entry.strip() for entry in listed.split(",") if entry.strip() not in ("", "-1"))


def default_budget(kind: str) -> Budget:
    """Return 300 s for CUDA, where the device is exclusive; counted CPU work for a CPU."""
    return Budget.parse("300s" if kind == "cuda" else "equal:600ktok")


@dataclass(frozen=True)
class GpuMemory:
    """Bytes of one GPU's memory, in use by any process and in total."""

    used: int
    total: int

    @property
    def too_full(self) -> bool:
        """Whether more is used than a run may use."""
        return self.used > GPU_MEMORY_SHARE * self.total


def gpu_memory(device: str | None = None) -> GpuMemory | None:
    """Read a GPU's memory by NVML (extra ``cuda``); None without NVML, its driver or the device.

    The leased GPU is exclusive, so all its memory counts as the run's; most containers hide
    figures per process.

    Args:
        device: Index or UUID; None: the first of CUDA_VISIBLE_DEVICES.
    """
    device = device or os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        if device.isdigit():
            handle = pynvml.nvmlDeviceGetHandleByIndex(int(device))
        else:
            handle = pynvml.nvmlDeviceGetHandleByUUID(device)
        info = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError:
        return None
    return GpuMemory(int(info.used), int(info.total))


def memory_bytes() -> int:
    """Return the memory of this machine, or the lowest limit of its control groups.

    A container sees its own group at the root; a service or a batch job is some folders below.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _memory_limits():
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(path.read_text()))
    return total


def _memory_limits() -> Iterator[Path]:
    """Yield the files that may limit our memory, of both versions of control groups."""
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
    """Return the processor's model name, or ``"cpu"``."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "cpu"


class Lease:
    """An exclusive hold on one GPU by file lock, which the kernel frees when the holder dies.

    xdist worker numbers would not do: a replaced worker gets a new number and would collide.
    """

    def __init__(self) -> None:
        self._file: IO[str] | None = None

    def take(self) -> Device:
        """Hold the first free visible GPU, or the CPU where there is none.

        Raises:
            RuntimeError: Every visible GPU is held by another process.
        """
        gpus = visible_gpus()
        if not gpus:
            return Device("cpu", name=cpu_name())
        folder = Path(tempfile.gettempdir()) / f"pytest-autoresearch-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        for gpu in gpus:
            file = open(folder / f"gpu-{gpu}.lock", "w")  # noqa: SIM115 (held until release)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            self._file = file
            return Device("cuda", gpu, f"cuda:{gpu}")
        raise RuntimeError(
            f"all {len(gpus)} visible GPUs are in use; run with -n {len(gpus)} at most"
        )

    def release(self) -> None:
        """Release the GPU; safe to call twice."""
        if self._file is not None:
            self._file.close()
            self._file = None
