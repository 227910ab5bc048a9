"""Gaussian-process search over the literals of the parent's file (Optuna's GPSampler).

The study is rebuilt from the ledger's history for every proposal, so there is one truth. The
sampler imports torch and therefore runs in a helper process with one thread.
"""

from __future__ import annotations

import heapq
import importlib.util
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ...core.proposal import Context, PastAttempt, Proposal, Proposer, ProposerUnavailable
from ...source.search_space import Hyperparameter, Value, values_of
from .literals import LiteralSearch, Space, proposal_of, ratchet, space, tried

MAX_PARAMETERS = 16

WARM_UP = 9

AT_ONCE = 3
"""Parameters changed in one step. With a few dozen runs in so many dimensions, a whole point of the
sampler is mostly extrapolation, so a few of its coordinates are drawn and the others stay as the
parent has them (the coordinate perturbation of DYCORS: Regis and Shoemaker, 2013)."""

MAX_POINTS = 128
"""Attempts that the model is fitted to, half of them the newest and half the best of the others.
The fit is cubic in their number."""

TRIES = 20

ANSWER_S = 120.0


class GaussianProcess(Proposer):
    """Proposes points of expected improvement, after a few attempts of `ratchet`."""

    name = "gp"

    def __init__(self) -> None:
        self._helper: subprocess.Popen[str] | None = None
        self._warm_up = LiteralSearch("gp", ratchet)
        self._values: dict[int, Mapping[str, Value]] = {}

    def check(self) -> str:
        """Check that Optuna is installed.

        Raises:
            ProposerUnavailable: It is not.
        """
        if importlib.util.find_spec("optuna") is None:
            raise ProposerUnavailable(
                "the package optuna is missing; pip install 'pytest-autoresearch[search]', or "
                "choose --autoresearch-proposer ratchet"
            )
        return ""

    def propose(self, context: Context) -> Proposal:
        """Return the sampler's next point, as changes to the parent's file.

        Raises:
            ProposerUnavailable: The helper process died twice.
        """
        if sum(attempt.score is not None for attempt in context.history) < WARM_UP:
            return self._warm_up.propose(context)
        every = space(context)
        names = sorted(every, key=lambda name: not every[name].upper)[:MAX_PARAMETERS]
        parameters = {name: every[name] for name in names}
        known = tried(context)
        rng = random.Random(f"{context.seed}/{context.attempt}/gp")
        changed = {
            name: new
            for name, value in self._ask(self._request(context, parameters)).items()
            if name in parameters
            and (new := _typed(parameters[name], value)) != parameters[name].value
        }
        for _ in range(TRIES):
            few = rng.sample(sorted(changed), min(len(changed), rng.randint(1, AT_ONCE)))
            changes = {name: changed[name] for name in few}
            if changes and tuple(sorted(changes.items())) not in known:
                return proposal_of(context, parameters, changes, self.name)
        return self._warm_up.propose(context)

    def _request(self, context: Context, parameters: Space) -> dict[str, Any]:
        """Return the helper's request: the search space, and attempts as points in it."""
        file = context.experiment.files[0]
        points = []
        for attempt, gain in _points(context.history):
            values = attempt.meta.get("params") or self._values.get(attempt.attempt_id)
            if values is None:
                values = values_of(attempt.read_files().get(file, ""))
                self._values[attempt.attempt_id] = values
            points.append(
                {
                    "values": {name: values.get(name, p.value) for name, p in parameters.items()},
                    "gain": gain,
                    "running": attempt.verdict == "running",
                }
            )
        return {
            "seed": context.seed * 100_003 + context.attempt,
            "points": points,
            "parameters": {n: asdict(p) | {"int": p.is_int} for n, p in parameters.items()},
        }

    def _ask(self, request: Mapping[str, Any]) -> Mapping[str, Value]:
        try:
            return self._exchange(request)
        except (OSError, ValueError):
            self.close()
        try:
            return self._exchange(request)
        except (OSError, ValueError) as error:
            self.close()
            raise ProposerUnavailable(f"the search helper died: {error}") from None

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


Point = tuple[PastAttempt, float | None]
"""An attempt, and its gain over the baseline."""


def _points(history: Sequence[PastAttempt]) -> list[Point]:
    """Return the attempts that the model is fitted to, at most `MAX_POINTS`, oldest first."""
    points: list[Point] = []
    level = 0.0
    for attempt in history:
        # paired gains, chained from keep to keep: scores of different seeds differ by more noise
        gain = 0.0 if attempt.verdict == "baseline" else attempt.gain
        total = None if gain is None else level + gain
        if attempt.verdict == "keep" and total is not None:
            level = total
        if attempt.verdict not in ("invalid", "duplicate", "infra", "interrupted"):
            points.append((attempt, total))
    older, newest = points[: -MAX_POINTS // 2], points[-MAX_POINTS // 2 :]
    ranked = [(gain, i) for i, (_, gain) in enumerate(older) if gain is not None]
    best = sorted(i for _, i in heapq.nlargest(MAX_POINTS - len(newest), ranked))
    return [older[i] for i in best] + newest


def _typed(parameter: Hyperparameter, value: Value) -> Value:
    if parameter.choices or isinstance(value, str | bool):
        return value
    return parameter.clip(value)
