from __future__ import annotations

import contextlib
import json
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_autoresearch.forkserver.channel import (
    MAX_FRAME,
    Channel,
    FrameParser,
    PeerGone,
    PeerTimeout,
    ProtocolError,
    decode,
    encode,
    mapped_memory,
    pair,
    readonly_memory,
    writable_memory,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip
messages = st.dictionaries(st.text(), json_values, max_size=5)


def drain(parser: FrameParser) -> list[dict[str, object]]:
    found = []
    while (message := parser.next()) is not None:
        found.append(message)
    return found


@settings(max_examples=40)
@given(st.lists(messages, max_size=3), st.data())
def test_frames_survive_any_cutting_of_the_stream(sent, data):
    stream = b"".join(encode(message) for message in sent)
    parser, received = FrameParser(limit=1 << 20), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        parser.dataloader(stream[:cut])
        stream = stream[cut:]
        received += drain(parser)
    assert received == sent


@given(st.binary(max_size=200))
def test_garbage_is_refused_as_a_protocol_error_and_nothing_else(data):
    parser = FrameParser()
    parser.dataloader(data)
    with contextlib.suppress(ProtocolError):
        assert all(isinstance(message, dict) for message in drain(parser))


@given(st.binary(max_size=200))
def test_a_framed_payload_decodes_to_an_object_or_is_refused(payload):
    parser = FrameParser()
    parser.dataloader(struct.pack("<I", len(payload)) + payload)
    try:
        assert isinstance(parser.next(), dict)
    except ProtocolError:
        with pytest.raises(ProtocolError):
            decode(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * MAX_FRAME,
        b'{"a":' * 10_000,
        b'{"a":' + b"9" * 60_000 + b"}",
        b'{"loss": NaN}',
        b'{"loss": -Infinity}',
        b'"text"',
        b"\xff\xfe",
        b"",
    ],
    ids=["deep-list", "deep-object", "long-number", "nan", "infinity", "string", "utf", "empty"],
)
def test_hostile_payloads_are_refused(payload):
    with pytest.raises(ProtocolError):
        decode(payload)


def test_a_frame_over_the_limit_is_refused_before_it_is_read():
    parser = FrameParser()
    parser.dataloader(struct.pack("<I", MAX_FRAME + 1))
    with pytest.raises(ProtocolError, match=str(MAX_FRAME)):
        parser.next()


def test_a_parser_never_wants_more_than_the_frame_it_reads():
    parser = FrameParser()
    assert parser.wanted == 4
    parser.dataloader(struct.pack("<I", 7) + b"{")
    assert parser.wanted == 6


def connected(**theirs: bool) -> tuple[Channel, Channel]:
    here, there = pair()
    return Channel(here), Channel(there, **theirs)


def test_descriptors_stay_with_their_message():
    ours, theirs = connected(accept_fds=True)
    fds = [readonly_memory(text) for text in (b"one", b"two", b"three")]
    ours.send({"n": 0})
    ours.send({"n": 1}, fds[:1])
    ours.send({"n": 2})
    ours.send({"n": 3}, fds[1:])
    received = []
    for _ in range(4):
        message = theirs.receive(1.0)
        received.append((message["n"], [os.pread(fd, 9, 0) for fd in theirs.take_fds()]))
    assert received == [(0, []), (1, [b"one"]), (2, []), (3, [b"two", b"three"])]


def test_descriptors_from_an_untrusted_side_are_dropped():
    ours, theirs = connected()
    fd = readonly_memory(b"x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        ours.send({"a": 1}, [fd] * 4)
        assert theirs.receive(1.0)["a"] == 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_announced_descriptors_that_never_came_are_refused():
    ours, theirs = connected(accept_fds=True)
    ours.send({"fds": 3})
    with pytest.raises(ProtocolError, match="descriptors"):
        theirs.receive(1.0)


def test_a_half_sent_frame_times_out_and_is_completed_later():
    here, there = pair()
    ours = Channel(here)
    frame = encode({"loss": 1.5})
    there.send(frame[:7])
    with pytest.raises(PeerTimeout):
        ours.receive(0.01)
    there.send(frame[7:])
    assert ours.receive(1.0) == {"loss": 1.5}


def test_a_closed_connection_is_noticed_on_both_ways():
    ours, theirs = connected()
    theirs.close()
    with pytest.raises(PeerGone):
        ours.receive(1.0)
    with pytest.raises(PeerGone):
        ours.send({"a": 1})


def test_a_side_that_never_reads_cannot_block_the_sender():
    ours, theirs = connected()
    message = {"text": "x" * 1000}
    with pytest.raises(PeerTimeout):
        any(ours.send(message, timeout_s=0.01) for _ in range(10_000))
    theirs.close()


def test_messages_that_are_not_json_cannot_be_sent():
    with pytest.raises(ValueError, match="JSON"):
        encode({"loss": float("nan")})
    assert json.loads(encode({"a": 1})[4:]) == {"a": 1}


def test_readonly_memory_can_be_neither_written_nor_resized():
    fd = readonly_memory(b"abc")
    assert os.pread(fd, 10, 0) == b"abc"
    with pytest.raises(OSError, match="not permitted"):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(fd, 0)


def test_writable_memory_keeps_its_size():
    fd = writable_memory(4096)
    os.pwrite(fd, b"x", 4095)
    for size in (0, 8192):
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(fd, size)


def test_mapped_memory_shows_its_reader_what_is_written_and_nothing_else_may_change_it():
    memory, fd = mapped_memory(4096)
    memory[:5] = b"hello"
    assert os.pread(fd, 5, 0) == b"hello"
    for attack in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0)):
        with pytest.raises(OSError, match="not permitted"):
            attack()
    memory[:5] = b"still"
    assert os.pread(fd, 5, 0) == b"still"
