"""The shipped train.py and the documented example fulfil the training contract."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[2]
V, T = 97, 32


def load(path: Path = ROOT / "train.py") -> ModuleType:
    spec = importlib.util.spec_from_file_location("candidate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Loader:
    """A few batches of a sequence in which each token determines the next."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.losses: list[float] = []

    def __call__(self, batch_size: int, seq_len: int):
        generator = torch.Generator().manual_seed(0)
        for step in range(self.steps):
            start = torch.randint(V, (batch_size, 1), generator=generator)
            stream = (start + 7 * torch.arange(seq_len + 1)) % V
            yield stream[:, :-1], stream[:, 1:], step / self.steps

    def report(self, *, loss: float) -> None:
        self.losses.append(loss)


@pytest.fixture(scope="module")
def train() -> ModuleType:
    torch.set_num_threads(1)
    return load()


@pytest.fixture(scope="module")
def trained(train: ModuleType):
    torch.manual_seed(1)
    model, loader = train.build(V, T), Loader(40)
    train.train(model, loader)
    return model.eval(), loader.losses


def test_training_lowers_the_loss(trained) -> None:
    _, losses = trained
    assert len(losses) >= 20
    assert losses[-1] < 0.6 * losses[0]


def test_logits_have_the_documented_shape_at_any_length(train, trained) -> None:
    for length in (1, 5, T):
        out = train.logits(trained[0], torch.zeros(2, length, dtype=torch.long))
        assert out.shape == (2, length, V)
        assert out.dtype == torch.float32


def test_logits_do_not_depend_on_later_tokens(train, trained) -> None:
    x = torch.randint(V, (1, T))
    changed = x.clone()
    changed[0, 20] = (x[0, 20] + 1) % V
    before, after = train.logits(trained[0], x), train.logits(trained[0], changed)
    assert torch.equal(before[0, :20], after[0, :20])
    assert not torch.equal(before[0, 20:], after[0, 20:])


def test_logits_do_not_depend_on_other_rows_or_calls(train, trained) -> None:
    x = torch.randint(V, (4, T))
    together = train.logits(trained[0], x)
    alone = torch.cat([train.logits(trained[0], row[None]) for row in x])
    assert torch.allclose(together, alone, atol=1e-4)
    assert torch.equal(together, train.logits(trained[0], x))


def test_checkpoint_restores_the_model(train, trained) -> None:
    fresh = train.build(V, T)
    fresh.load_state_dict(trained[0].state_dict())
    x = torch.randint(V, (2, T))
    assert torch.equal(train.logits(fresh, x), train.logits(trained[0], x))


def test_diverged_loss_raises_at_once(train) -> None:
    model = train.build(V, T)
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="loss is nan at step 1: diverged"):
        train.train(model, Loader(5))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 4), (2, 4, 16)])
def test_orthogonalize_makes_all_singular_values_close_to_one(train, shape) -> None:
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(train.orthogonalize(torch.randn(shape)))
    assert singular.min() > 0.7
    assert singular.max() < 1.3


def test_accumulated_batches_equal_one_large_batch(train, monkeypatch) -> None:
    monkeypatch.setattr(train, "WEIGHT_DECAY", 0.0)

    def weights(rows: int) -> torch.Tensor:
        monkeypatch.setattr(train, "DEVICE_BATCH_SIZE", rows)
        monkeypatch.setattr(train, "TOTAL_BATCH_SIZE", 8 * T)
        torch.manual_seed(3)
        model = train.build(V, T)

        class Same(Loader):
            def __call__(self, batch_size: int, seq_len: int):
                stream = (torch.arange(8)[:, None] * 5 + 7 * torch.arange(seq_len + 1)) % V
                for part in stream.split(batch_size):
                    yield part[:, :-1], part[:, 1:], 0.0

        train.train(model, Same(1))
        return model.head.weight.detach().clone()

    assert torch.allclose(weights(8), weights(4), atol=1e-5)


def test_documented_example_trains(tmp_path: Path) -> None:
    text = (ROOT / "docs/contract.md").read_text()
    path = tmp_path / "train.py"
    path.write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    example = load(path)
    model, loader = example.build(V, 64), Loader(30)
    example.train(model, loader)
    assert loader.losses[-1] < loader.losses[0]
    assert example.logits(model, torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, V)
