from __future__ import annotations

import os
import re

from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.forkserver.output import Output


def printed(*chunks: bytes, head: int = 64, tail: int = 64) -> tuple[str, str]:
    output = Output(head, tail)
    for chunk in chunks:
        os.write(output.write_fd, chunk)
    os.close(output.write_fd)
    return output.finish()


def test_short_output_is_kept_completely():
    assert printed(b"one\n", b"two\n") == ("one\ntwo\n", "")


def test_long_output_keeps_head_and_tail_and_counts_dropped_bytes():
    lines = [b"line %03d\n" % i for i in range(100)]
    head, tail = printed(*lines)
    assert head.startswith("line 000\n")
    assert tail.endswith("line 099\n")
    assert len(tail) <= 64
    dropped = int(re.search(r"\[(\d+) bytes dropped\]", head)[1])
    assert dropped == 900 - 128


def test_one_long_line_is_bounded():
    head, tail = printed(b"x" * 60_000)
    assert len(head) + len(tail) < 200


def test_line_across_head_and_tail_is_not_split():
    head, tail = printed(b"a" * 50 + b"\n" + b"b" * 40 + b"\n")
    assert tail == "b" * 40 + "\n"
    assert head == "a" * 50 + "\n"


@given(st.binary(max_size=300))
def test_invalid_utf8_is_decoded(data):
    head, tail = printed(data)
    (head + tail).encode("utf-8")
