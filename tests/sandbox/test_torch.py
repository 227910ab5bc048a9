"""A real training step inside the sandbox."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.sandbox.launch import survey
from pytest_autoresearch.sandbox.limits import candidate_environment
from pytest_autoresearch.sandbox.policy import Policy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

TRAIN = """
import tempfile, torch, safetensors.torch
from torch.utils.data import DataLoader
model = torch.nn.Linear(8, 8)
optimizer = torch.optim.AdamW(model.parameters())
for (x,) in DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 8)), batch_size=4):
    model(x).square().mean().backward()
    optimizer.step()
with tempfile.TemporaryFile():
    pass
safetensors.torch.save_model(model, "model.safetensors")
print("trained")
"""


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["portable", "full", "namespaces"])
def test_model_trains_and_is_saved(tmp_path, tier):
    if tier != "portable" and not survey().active("mount"):
        pytest.skip("namespaces are not permitted here")
    skip = {
        "portable": ("user", "network", "ipc", "pid", "mount"),
        "namespaces": ("landlock", "seccomp"),
        "full": (),
    }[tier]
    policy = Policy(write=(str(tmp_path),), env=candidate_environment(str(tmp_path)), skip=skip)
    process = launch(
        [sys.executable, "-c", TRAIN], policy,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    text, _ = process.communicate()
    assert text.endswith("trained\n"), text
    assert (tmp_path / "model.safetensors").stat().st_size > 256
