"""Bounded JSON frames over a socket pair, and memory shared by descriptor.

A frame is a 4-byte little-endian length and that many bytes of UTF-8 JSON holding one object.
Descriptors travel beside the length (``SCM_RIGHTS``), and the frame holds their number under
``"fds"``, so they stay with their message however the bytes are cut. Nothing is ever unpickled.
Standard library only: both sides import this module.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import mmap
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Mapping, Sequence

MAX_FRAME = 64 * 1024
"""Bytes of the largest frame accepted from an untrusted process."""

_LENGTH = struct.Struct("<I")
_MAX_FDS = 8
_FIXED_SIZE = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_F_SEAL_FUTURE_WRITE = 16


class ProtocolError(Exception):
    """The other side broke the protocol; the text is one line, safe to print."""


class PeerGone(Exception):
    """The other side closed its end."""


class PeerTimeout(Exception):
    """The other side sent or read nothing in time."""


def encode(message: Mapping[str, object]) -> bytes:
    """Return the frame of `message`; NaN and infinities raise ValueError."""
    payload = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    return _LENGTH.pack(len(payload)) + payload


def _refuse_constant(name: str) -> float:
    raise ProtocolError(f"a frame holds {name}, which is not JSON")


def decode(payload: bytes) -> dict[str, object]:
    """Return the JSON object in one frame's payload; ProtocolError if it is anything else."""
    try:
        message = json.loads(payload.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        # UnicodeDecodeError, JSONDecodeError and the limit on digits are all ValueErrors.
        raise ProtocolError(f"a frame is not JSON: {type(error).__name__}") from None
    if not isinstance(message, dict):
        raise ProtocolError(f"a frame holds a {type(message).__name__}, not an object")
    return message


class FrameParser:
    """Cuts a byte stream into frames; holds at most one frame of untrusted bytes."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Append bytes of the stream."""
        self._buffer += data

    @property
    def wanted(self) -> int:
        """Most bytes to read next: never beyond the current frame."""
        if len(self._buffer) < _LENGTH.size:
            return _LENGTH.size - len(self._buffer)
        return _LENGTH.size + self._length() - len(self._buffer)

    def next(self) -> dict[str, object] | None:
        """Return the next complete frame, or None if more bytes are needed.

        Raises:
            ProtocolError: The frame is too long or is not a JSON object.
        """
        if len(self._buffer) < _LENGTH.size:
            return None
        end = _LENGTH.size + self._length()
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return decode(payload)

    def _length(self) -> int:
        length: int = _LENGTH.unpack_from(self._buffer)[0]
        if length > self._limit:
            raise ProtocolError(f"a frame of {length} bytes exceeds the limit of {self._limit}")
        return length


class Channel:
    """One end of a connection that carries frames.

    Args:
        sock: A connected UNIX stream socket; the channel owns it from now on.
        limit: Bytes of the largest frame accepted.
        accept_fds: Whether to accept descriptors. The harness never accepts any from a
            candidate: the kernel then drops them.
    """

    def __init__(
        self, sock: socket.socket, *, limit: int = MAX_FRAME, accept_fds: bool = False
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._parser = FrameParser(limit)
        self.accept_fds = accept_fds
        self._arrived: deque[int] = deque()
        self._taken: list[int] = []

    def fileno(self) -> int:
        """Return the socket's descriptor, for polling."""
        return self._socket.fileno()

    def send(
        self, message: Mapping[str, object], fds: Sequence[int] = (), timeout_s: float = 10.0
    ) -> None:
        """Send one frame, and copies of `fds` with it.

        Raises:
            PeerGone: The other side has closed its end.
            PeerTimeout: The other side does not read its messages.
        """
        frame = memoryview(encode({**message, "fds": len(fds)} if fds else message))
        deadline = time.monotonic() + timeout_s
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())
        ancillary = [rights] if fds else []
        while frame:
            try:
                sent = self._socket.sendmsg([frame], ancillary)
            except BlockingIOError:
                if not _wait(self._socket, select.POLLOUT, deadline - time.monotonic()):
                    raise PeerTimeout("the other side does not read its messages") from None
                continue
            except OSError:
                raise PeerGone("the other side closed the connection") from None
            frame, ancillary = frame[sent:], []

    def receive(self, timeout_s: float | None = None) -> dict[str, object]:
        """Return the next frame; a partly received frame is kept for the next call.

        Args:
            timeout_s: Seconds to wait; None waits for ever, 0 does not wait.

        Raises:
            PeerGone: The other side closed its end.
            PeerTimeout: No complete frame came in time.
            ProtocolError: The bytes are not a valid frame; close the connection.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (message := self._parser.next()) is None:
            try:
                data = self._read(self._parser.wanted)
            except BlockingIOError:
                left = None if deadline is None else deadline - time.monotonic()
                if not _wait(self._socket, select.POLLIN, left):
                    raise PeerTimeout("no message in time") from None
                continue
            except OSError:
                raise PeerGone("the other side closed the connection") from None
            if not data:
                raise PeerGone("the other side closed the connection")
            self._parser.feed(data)
        self._assign_fds(message)
        return message

    def take_fds(self) -> list[int]:
        """Return the descriptors of the frame received last; the caller closes them."""
        taken, self._taken = self._taken, []
        return taken

    def close(self) -> None:
        """Close the connection and the descriptors not taken; idempotent."""
        self._socket.close()
        for fd in (*self._arrived, *self._taken):
            os.close(fd)
        self._arrived.clear()
        self._taken = []

    def _read(self, size: int) -> bytes:
        if not self.accept_fds:
            return self._socket.recv(size)
        space = socket.CMSG_SPACE(4 * _MAX_FDS)
        data, ancillary, _, _ = self._socket.recvmsg(size, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                self._arrived.extend(fds)
        return data

    def _assign_fds(self, message: dict[str, object]) -> None:
        for fd in self._taken:
            os.close(fd)
        self._taken = []
        count = message.pop("fds", 0) if self.accept_fds else 0
        if not isinstance(count, int) or not 0 <= count <= len(self._arrived):
            raise ProtocolError("a frame names descriptors that were not sent with it")
        self._taken = [self._arrived.popleft() for _ in range(count)]


def _wait(sock: socket.socket, event: int, seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(sock, event)
    if seconds is None:
        return bool(poll.poll())
    return seconds > 0 and bool(poll.poll(max(1, round(seconds * 1000))))


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets; neither is inherited across ``exec``."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def readonly_memory(data: bytes | bytearray | memoryview) -> int:
    """Return a descriptor of a sealed copy of `data`."""
    fd = _anonymous()
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(fd, view) :]
    _seal(fd, _FIXED_SIZE | fcntl.F_SEAL_WRITE)
    return fd


def writable_memory(size: int) -> int:
    """Return a descriptor of `size` zero bytes that can be written but not resized."""
    fd = _anonymous()
    os.ftruncate(fd, size)
    _seal(fd, _FIXED_SIZE)
    return fd


def mapped_memory(size: int) -> tuple[mmap.mmap, int]:
    """Return a writable map of `size` bytes and a descriptor for its reader.

    The reader can neither write nor shrink it: a shrunk file would kill the writer (SIGBUS).
    """
    fd = _anonymous()
    os.ftruncate(fd, size)
    memory = mmap.mmap(fd, size)
    _seal(fd, _FIXED_SIZE | _F_SEAL_FUTURE_WRITE)
    return memory, fd


def _anonymous() -> int:
    return os.memfd_create("autoresearch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def _seal(fd: int, seals: int) -> None:
    with contextlib.suppress(OSError):  # a kernel older than the newest seal keeps the others
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals & ~_F_SEAL_FUTURE_WRITE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
