"""The helper process of `gp`: one JSON request a line, one JSON point a line."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any


def distributions(knobs: dict[str, Any]) -> dict[str, Any]:
    """Return Optuna distributions of the request's knobs."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    found: dict[str, Any] = {}
    for name, knob in knobs.items():
        if knob["choices"]:
            found[name] = CategoricalDistribution(knob["choices"])
        elif knob["int"]:
            found[name] = IntDistribution(int(knob["low"]), int(knob["high"]), log=knob["log"])
        else:
            found[name] = FloatDistribution(knob["low"], knob["high"], log=knob["log"])
    return found


def inside(value: Any, distribution: Any) -> Any:
    """Bring a recorded value into a distribution whose range has moved since."""
    if hasattr(distribution, "choices"):
        return value if value in distribution.choices else distribution.choices[0]
    value = min(distribution.high, max(distribution.low, value))
    return int(value) if type(distribution).__name__ == "IntDistribution" else float(value)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Rebuild the study and ask it for a point.

    A crash is a broken constraint, not a loss: it says where not to go, not how bad it is there.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = distributions(request["knobs"])
    sampler = optuna.samplers.GPSampler(
        seed=request["seed"] % 2**31,
        n_startup_trials=1,
        deterministic_objective=False,
        constraints_func=lambda trial: trial.user_attrs.get("constraints", (-1.0,)),
    )
    study = optuna.create_study(sampler=sampler, direction="maximize")
    worst = min((p["gain"] for p in request["points"] if p["gain"] is not None), default=0.0)
    for point in request["points"]:
        failed = point["gain"] is None and not point["running"]
        constraints = (1.0,) if failed else (-1.0,)
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                params={name: inside(point["values"][name], d) for name, d in space.items()},
                distributions=space,
                value=worst if point["gain"] is None else point["gain"],
                user_attrs={"constraints": constraints},
                system_attrs={"constraints": constraints},
            )
        )
    return dict(study.ask(space).params)


def main() -> None:
    """Serve until the pipe closes."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
