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
    return list(iter(parser.next, None))


@settings(max_examples=40)
@given(st.lists(messages, max_size=3), st.data())
def test_frames_are_read_from_any_split_of_the_stream(sent, data):
    stream = b"".join(encode(message) for message in sent)
    parser, received = FrameParser(limit=1 << 20), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        parser.feed(stream[:cut])
        stream = stream[cut:]
        received += drain(parser)
    assert received == sent


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_protocol_errors(data):
    parser = FrameParser()
    parser.feed(data)
    with contextlib.suppress(ProtocolError):
        assert all(isinstance(message, dict) for message in drain(parser))


@given(st.binary(max_size=200))
def test_any_framed_payload_is_an_object_or_a_protocol_error(payload):
    parser = FrameParser()
    parser.feed(struct.pack("<I", len(payload)) + payload)
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
def test_hostile_payloads_raise_protocol_errors(payload):
    with pytest.raises(ProtocolError):
        decode(payload)


def test_frame_over_the_limit_is_refused_before_it_is_read():
    parser = FrameParser()
    parser.feed(struct.pack("<I", MAX_FRAME + 1))
    with pytest.raises(ProtocolError, match=str(MAX_FRAME)):
        parser.next()


def test_parser_requests_no_bytes_beyond_the_current_frame():
    parser = FrameParser()
    assert parser.wanted == 4
    parser.feed(struct.pack("<I", 7) + b"{")
    assert parser.wanted == 6


def connect(**options: bool) -> tuple[Channel, Channel]:
    here, there = pair()
    return Channel(here), Channel(there, **options)


def test_descriptors_arrive_with_their_message():
    ours, theirs = connect(accept_fds=True)
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


def test_received_descriptors_are_not_inherited_across_exec():
    ours, theirs = connect(accept_fds=True)
    ours.send({}, [readonly_memory(b"x")])
    theirs.receive(1.0)
    assert [os.get_inheritable(fd) for fd in theirs.take_fds()] == [False]


def test_descriptors_are_dropped_unless_accepted():
    ours, theirs = connect()
    fd = readonly_memory(b"x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        ours.send({"a": 1}, [fd] * 4)
        assert theirs.receive(1.0)["a"] == 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_frame_that_names_missing_descriptors_is_refused():
    ours, theirs = connect(accept_fds=True)
    ours.send({"fds": 3})
    with pytest.raises(ProtocolError, match="descriptors"):
        theirs.receive(1.0)


def test_partial_frame_times_out_and_is_completed_later():
    here, there = pair()
    ours = Channel(here)
    frame = encode({"loss": 1.5})
    there.send(frame[:7])
    with pytest.raises(PeerTimeout):
        ours.receive(0.01)
    there.send(frame[7:])
    assert ours.receive(1.0) == {"loss": 1.5}


def test_closed_connection_is_noticed_by_send_and_receive():
    ours, theirs = connect()
    theirs.close()
    with pytest.raises(PeerGone):
        ours.receive(1.0)
    with pytest.raises(PeerGone):
        ours.send({"a": 1})


def test_peer_that_never_reads_cannot_block_the_sender():
    ours, theirs = connect()
    message = {"text": "x" * 1000}
    with pytest.raises(PeerTimeout):
        any(ours.send(message, timeout_s=0.01) for _ in range(10_000))
    theirs.close()


def test_nan_cannot_be_sent():
    with pytest.raises(ValueError, match="JSON"):
        encode({"loss": float("nan")})
    assert json.loads(encode({"a": 1})[4:]) == {"a": 1}


def test_readonly_memory_cannot_be_written_or_resized():
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


def test_mapped_memory_is_written_by_its_owner_only():
    memory, fd = mapped_memory(4096)
    memory[:5] = b"hello"
    assert os.pread(fd, 5, 0) == b"hello"
    for attack in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0)):
        with pytest.raises(OSError, match="not permitted"):
            attack()
    memory[:5] = b"still"
    assert os.pread(fd, 5, 0) == b"still"
