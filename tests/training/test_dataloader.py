"""The metered data loader: order of the windows, counting, and validation of requests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.forkserver.channel import ProtocolError
from pytest_autoresearch.training.dataloader import (
    MAX_BATCH_TOKENS,
    BatchRequest,
    DataLoader,
    Windows,
)

STREAM = np.arange(1000, dtype="<u2")


def rows(count: int, seq_len: int = 7, seed: int = 1, stream=STREAM, at_once: int = 0):
    windows = Windows(stream, seq_len, seed)
    out = np.empty((count, seq_len + 1), "<u2")
    step = at_once or count
    for start in range(0, count, step):
        windows.take(min(step, count - start), out[start : start + step])
    return out


def test_rows_are_contiguous_windows_of_the_stream():
    found = rows(300)
    assert (np.diff(found.astype(int), axis=1) == 1).all()


def test_epoch_contains_every_window_once_and_the_next_follows():
    count = (len(STREAM) - 1) // 7 - 1
    starts = rows(3 * count)[:, 0].astype(int).reshape(3, count)
    for epoch in starts:
        assert len(set(epoch)) == count
        assert len({start % 7 for start in epoch}) == 1
    assert not (starts[0] == starts[1]).all()


def test_order_depends_on_the_seed_and_not_on_the_batch_size():
    assert (rows(200, at_once=8) == rows(200, at_once=25)).all()
    assert (rows(200) == rows(200)).all()
    assert not (rows(200, seed=1) == rows(200, seed=2)).all()


def test_order_is_the_same_on_every_machine():
    assert rows(4, seed=3)[:, 0].tolist() == [793, 772, 625, 345]


def test_stream_that_is_too_short_is_rejected():
    with pytest.raises(ProtocolError, match="1000"):
        rows(1, seq_len=900)


def test_loader_counts_tokens_and_keeps_an_order_per_length():
    dataloader = DataLoader(STREAM, seed=1)
    for batch, length in ((4, 7), (2, 20), (4, 7)):
        answer = dataloader.hand_out(BatchRequest(batch, length, None))
        assert answer == {"type": "tokens"}
    assert (dataloader.tokens, dataloader.steps) == (28 + 40 + 28, 3)
    assert (dataloader._buffer[:32].reshape(4, 8) == rows(8)[4:]).all()
    dataloader.close()
    dataloader.close()


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"batch_size": 0, "seq_len": 4},
        {"batch_size": 4, "seq_len": -1},
        {"batch_size": True, "seq_len": 4},
        {"batch_size": 4.0, "seq_len": 4},
        {"batch_size": "4", "seq_len": 4},
        {"batch_size": MAX_BATCH_TOKENS, "seq_len": 1},
        {"batch_size": 10**400, "seq_len": 1},
        {"batch_size": 4, "seq_len": 4, "loss": "low"},
        {"batch_size": 4, "seq_len": 4, "loss": [1]},
        {"batch_size": 4, "seq_len": 4, "loss": True},
    ],
)
def test_malformed_request_is_rejected_with_a_short_message(message):
    with pytest.raises(ProtocolError) as caught:
        BatchRequest.parse(message)
    assert len(str(caught.value)) < 150


json_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.dictionaries(st.sampled_from(["batch_size", "seq_len", "loss"]), json_scalars))
def test_any_request_is_bounded_or_rejected(message):
    try:
        request = BatchRequest.parse(message)
    except ProtocolError:
        return
    assert 1 <= request.tokens < MAX_BATCH_TOKENS


def test_infinite_and_nan_losses_are_parsed():
    request = BatchRequest.parse({"batch_size": 1, "seq_len": 1, "loss": "nan"})
    assert math.isnan(request.loss)
    assert BatchRequest.parse({"batch_size": 1, "seq_len": 1, "loss": 10**400}).loss == math.inf
