"""Memory of the leased GPU, read from outside by NVML (the extra ``cuda``: nvidia-ml-py).

The device is exclusive, so what is used on it is the trial's; per-process figures are not to be
had in most containers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

SHARE = 0.9
"""Share of the device's memory above which a trial is stopped."""


@dataclass(frozen=True)
class Vram:
    """Bytes of one device.

    Attributes:
        used: In use, by anybody.
        total: There are.
    """

    used: int
    total: int

    @property
    def too_full(self) -> bool:
        """Whether more is used than a trial may."""
        return self.used > SHARE * self.total


def read(device: str | None = None) -> Vram | None:
    """Read the leased device.

    Args:
        device: Index or UUID; None: the first of CUDA_VISIBLE_DEVICES.

    Returns:
        None where NVML, its driver or the device is not there; then nothing is watched.
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
        found = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError:
        return None
    return Vram(int(found.used), int(found.total))
