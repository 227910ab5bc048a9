"""Client of a confined scoring process, which holds the candidate's model.

All its answers are untrusted: numbers are copied from shared memory that it cannot resize before
they are used, and only known error codes are accepted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..forkserver.channel import ProtocolError, readonly_memory, writable_memory
from ..forkserver.launch import Child, ChildGone, ChildTimeout
from . import CODES, CheatDetected, ScoringCrash, ScoringTimeout

Tokens = npt.NDArray[np.uint16]

Losses = npt.NDArray[np.float32]

HIGHEST_LOGIT = 1e4
"""Largest magnitude of a logit. Beyond it, rounding in float32 exceeds the audit's tolerance, and
sums overflow, so that an honest score could not be told from a forged one."""

_POLL_SECONDS = 0.2

_DETAIL_CHARS = 300

_SEALED_HINT = " on validation text; it can reach no files, and start no processes, then"


@dataclass
class Allowance:
    """Limits of one scoring, shared by its processes.

    Attributes:
        cpu_s: CPU seconds, including loading; None for no limit.
        wall_s: Wall seconds of each process.
        used_cpu_s: CPU seconds of the processes that have ended.
    """

    cpu_s: float | None = None
    wall_s: float = 600.0
    used_cpu_s: float = 0.0


class Scorer:
    """One scoring process; a context manager that kills it at the end.

    Args:
        start: Starts a new confined child of phase ``score`` with its job.
        vocab_size: V, logits of a position.
        allowance: Shared by all processes of one scoring.
        secret: Whether text that candidates must not learn will be sent. The process must be
            sealed before; after it, only the codes of the child's errors are reported.

    Attributes:
        cpu_s: CPU seconds of the process; set when it is killed.
        sandbox: Layer to state, as enforced on it.

    Raises:
        ScoringCrash: The child died or could not load the model.
        ScoringTimeout: It exceeded a limit.
    """

    def __init__(
        self, start: Callable[[], Child], vocab_size: int, allowance: Allowance, *, secret: bool
    ) -> None:
        self._vocab_size = vocab_size
        self._allowance = allowance
        self._secret = secret
        self._sealed = False
        self._exposed = False
        self._deadline = time.monotonic() + allowance.wall_s
        self._child = start()
        self.sandbox = self._child.report
        self.cpu_s = 0.0
        try:
            self._answer("ready")
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill the process group and add its CPU seconds to the allowance; idempotent."""
        used = self._child.kill().cpu_seconds
        self._allowance.used_cpu_s += used - self.cpu_s
        self.cpu_s = used

    def seal(self, rows: Tokens, batch: int) -> None:
        """Score `rows`, so that all that is loaded late is loaded, then seal the process.

        Args:
            rows: (n, T + 1) tokens that are not secret.
            batch: Rows of one forward pass; n should give passes of all the sizes to come.

        Raises:
            CheatDetected: The process hides which files it has mapped.
        """
        n, width = rows.shape
        self._request({"op": "claims", "rows": n, "batch": batch}, rows, n * (width - 1)).close()
        try:
            self._child.seal()
        except PermissionError:
            raise CheatDetected("the scoring process hides which files it has mapped") from None
        self.sandbox = self._child.report
        self._sealed = True

    def claims(self, rows: Tokens, batch: int) -> Losses:
        """Request the loss of every target of (n, T + 1) tokens, then kill the child.

        Returns:
            (n, T) claimed nats, unchecked.
        """
        self._expose()
        n, width = rows.shape
        data = self._request({"op": "claims", "rows": n, "batch": batch}, rows, n * (width - 1))
        self.kill()
        return data.read().reshape(n, width - 1)

    def audit(self, x: Tokens, positions: list[int], batch: int) -> Losses:
        """Request the logits at one position of each of m sequences: (m, V), untrusted."""
        self._expose()
        m = len(x)
        request = {"op": "audit", "rows": m, "batch": batch, "positions": positions}
        return self._request(request, x, m * self._vocab_size).read().reshape(m, self._vocab_size)

    def logits(self, x: Tokens) -> Losses:
        """Request all logits of a batch of (n, length) tokens that are not secret.

        Returns:
            (n, length, V) logits, untrusted; NaN where the child wrote nothing.
        """
        n, length = x.shape
        request = {"op": "logits", "rows": n, "length": length}
        data = self._request(request, x, n * length * self._vocab_size)
        return data.read().reshape(n, length, self._vocab_size)

    def _expose(self) -> None:
        if self._secret and not self._sealed:
            raise RuntimeError("seal the scoring process before it receives secret text")
        self._exposed = self._secret

    def _request(self, request: dict[str, object], tokens: Tokens, outputs: int) -> _Output:
        fd = readonly_memory(np.ascontiguousarray(tokens, dtype="<u2").data)
        output = _Output(outputs)
        sizes = {"inputs": tokens.size, "outputs": outputs}
        try:
            self._child.send({**request, **sizes}, fds=[fd, output.fd])
            self._answer("end")
        except ChildGone as gone:
            output.close()
            raise _died(gone) from None
        except BaseException:
            output.close()
            raise
        finally:
            os.close(fd)
        return output

    def _answer(self, expected: str) -> None:
        while True:
            left = self._deadline - time.monotonic()
            try:
                message = self._child.receive(min(_POLL_SECONDS, max(left, 0.0)))
                break
            except ChildTimeout:
                self._check_allowance(left)
            except ChildGone as gone:
                raise _died(gone) from None
            except ProtocolError as error:
                raise CheatDetected(f"the scoring process broke the protocol: {error}") from None
        if message.get("type") == "error":
            raise ScoringCrash(self._explain(str(message.get("error", ""))))
        if message.get("type") != expected:
            raise CheatDetected(f"the scoring process sent no {expected!r} message when one is due")
        self._check_allowance(self._deadline - time.monotonic())

    def _check_allowance(self, left: float) -> None:
        allowance = self._allowance
        if left <= 0:
            raise ScoringTimeout(f"scoring took longer than {allowance.wall_s:g} s")
        if allowance.cpu_s is not None:
            used = allowance.used_cpu_s + self._child.cpu_seconds()
            if used > allowance.cpu_s:
                raise ScoringTimeout(
                    f"loading and scoring the model took more than {allowance.cpu_s:.1f} CPU "
                    "seconds; train in train(), not in build(), load_state_dict() or logits()"
                )

    def _explain(self, error: str) -> str:
        code, _, detail = error.partition(":")
        reason = CODES.get(code)
        if reason is None:
            reason, detail = "train.py failed in the scoring process", error
        if self._exposed or not detail.strip():
            return f"{reason}{_SEALED_HINT if self._exposed and code == 'logits' else ''}"
        printable = "".join(c if c.isprintable() else " " for c in detail)
        return f"{reason}: {' '.join(printable.split())[:_DETAIL_CHARS]}"


def _died(gone: ChildGone) -> ScoringCrash:
    return ScoringCrash(f"the scoring process ended before it answered: {gone.exit.describe()}")


def bounded(logits: Losses, where: str) -> Losses:
    """Return logits of which every sum and difference is finite.

    Raises:
        ScoringCrash: One is not a number, infinite or beyond `HIGHEST_LOGIT`.
    """
    with np.errstate(all="ignore"):
        highest = np.abs(logits).max(initial=0.0)
    if not np.isfinite(highest):
        raise ScoringCrash(f"the model's logits are not finite on {where}")
    if highest > HIGHEST_LOGIT:
        raise ScoringCrash(
            f"a logit of the model is {highest:.3g} on {where}; the bound is {HIGHEST_LOGIT:g}"
        )
    return logits


class _Output:
    """Shared memory of float32 that a child fills; initially NaN."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.fd = writable_memory(4 * size)
        nan = np.full(min(size, 1 << 18), np.nan, "<f4").tobytes()
        for offset in range(0, 4 * size, len(nan)):
            os.pwrite(self.fd, nan[: 4 * size - offset], offset)

    def close(self) -> None:
        """Close the memory unread."""
        os.close(self.fd)

    def read(self) -> Losses:
        """Copy the contents and close the memory."""
        data: Losses = np.empty(self._size, "<f4")
        view = memoryview(data.data).cast("B")
        offset = 0
        with os.fdopen(self.fd, "rb", buffering=0) as file:
            file.seek(0)
            while offset < len(view) and (count := file.readinto(view[offset:])):
                offset += count
        if offset < len(view):
            raise CheatDetected("the scoring process truncated the shared memory of its answer")
        return data
