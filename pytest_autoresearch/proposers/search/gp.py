"""Gaussian-process search over the literals of the parent's file (Optuna's GPSampler).

The study is rebuilt from the ledger's history for every proposal, so there is one truth. The
sampler imports torch and therefore runs in a helper process with one thread.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from ...core.proposal import Context, Proposal, ProposerUnavailable
from ...source.search_space import Knob, Value, values_of
from .keyless import Keyless, proposal_of, ratchet, space, tried

MAX_KNOBS = 16

WARM_UP = 9

AT_ONCE = 3
"""Knobs turned in one step: with a few dozen trials in so many dimensions, a whole point of the
sampler is mostly extrapolation, so a drawn few of its coordinates are taken and the others stay as
the parent has them (the coordinate perturbation of DYCORS: Regis and Shoemaker, 2013)."""

TRIES = 20

ANSWER_S = 120.0


class GaussianProcess:
    """Proposes where the model expects improvement; the first few attempts turn one knob each."""

    name = "gp"

    def __init__(self) -> None:
        self._helper: subprocess.Popen[str] | None = None
        self._first = Keyless("gp", ratchet)

    def propose(self, context: Context) -> Proposal:
        """Return the sampler's next point, as changes to the parent's file.

        Raises:
            ProposerUnavailable: The helper process died twice.
        """
        scored = [attempt for attempt in context.history if attempt.score is not None]
        if len(scored) < WARM_UP:
            return self._first.propose(context)
        every = space(context)
        names = sorted(every, key=lambda name: not every[name].upper)[:MAX_KNOBS]
        knobs = {name: every[name] for name in names}
        request = self._request(context, knobs)
        known = tried(context)
        rng = random.Random(f"{context.seed}/{context.attempt}/gp")
        moved = {
            name: _typed(knobs[name], value)
            for name, value in self._ask(request).items()
            if name in knobs and _typed(knobs[name], value) != knobs[name].value
        }
        for _ in range(TRIES):
            few = rng.sample(sorted(moved), min(len(moved), rng.randint(1, AT_ONCE)))
            changes = {name: moved[name] for name in few}
            if changes and tuple(sorted(changes.items())) not in known:
                return proposal_of(context, knobs, changes, self.name)
        return self._first.propose(context)

    def _request(self, context: Context, knobs: Mapping[str, Knob]) -> dict[str, Any]:
        file = context.experiment.files[0]
        points: list[dict[str, Any]] = []
        level = 0.0
        for attempt in context.history:
            # Paired gains, chained from keep to keep: scores of unlike seeds differ by more luck.
            gain = 0.0 if attempt.verdict == "baseline" else attempt.gain
            total = None if gain is None else level + gain
            if attempt.verdict == "keep" and total is not None:
                level = total
            if attempt.verdict in ("invalid", "duplicate", "infra", "interrupted"):
                continue
            values = attempt.meta.get("params") or values_of(
                attempt.read_files().get(file, ""), knobs
            )
            points.append(
                {
                    "values": {name: values.get(name, knobs[name].value) for name in knobs},
                    "gain": total,
                    "running": attempt.verdict == "running",
                }
            )
        return {
            "seed": context.seed * 100_003 + context.attempt,
            "points": points,
            "knobs": {
                name: {
                    "choices": list(knob.choices),
                    "low": knob.low,
                    "high": knob.high,
                    "log": knob.log,
                    "int": knob.is_int,
                    "value": knob.value,
                }
                for name, knob in knobs.items()
            },
        }

    def _ask(self, request: Mapping[str, Any]) -> Mapping[str, Value]:
        for attempt in range(2):
            try:
                return self._exchange(request)
            except (OSError, ValueError) as error:
                self.close()
                if attempt:
                    raise ProposerUnavailable(f"the search helper died: {error}") from None
        raise AssertionError("unreachable")

    def _exchange(self, request: Mapping[str, Any]) -> Mapping[str, Value]:
        if self._helper is None or self._helper.poll() is not None:
            env = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "HOME", "TMPDIR")}
            env |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            self._helper = subprocess.Popen(
                [sys.executable, "-m", "pytest_autoresearch.proposers.search.gp_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=env,
                text=True,
            )
        helper = self._helper
        assert helper.stdin is not None
        assert helper.stdout is not None
        timer = threading.Timer(ANSWER_S, helper.kill)
        timer.start()
        try:
            helper.stdin.write(json.dumps(request) + "\n")
            helper.stdin.flush()
            answer = helper.stdout.readline()
        finally:
            timer.cancel()
        if not answer:
            raise OSError("no answer")
        point: Mapping[str, Value] = json.loads(answer)
        return point

    def close(self) -> None:
        """End the helper."""
        if self._helper is not None:
            for stream in (self._helper.stdin, self._helper.stdout):
                if stream is not None:
                    stream.close()
            self._helper.kill()
            self._helper.wait()
            self._helper = None


def _typed(knob: Knob, value: Value) -> Value:
    if knob.choices or isinstance(value, str | bool):
        return value
    return knob.clip(value)
