"""The helper process of `gp`: one JSON request per line, one JSON point per line."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any


def distributions(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the Optuna distributions of the request's parameters."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    result: dict[str, Any] = {}
    for name, p in parameters.items():
        if p["choices"]:
            result[name] = CategoricalDistribution(p["choices"])
        elif p["int"]:
            result[name] = IntDistribution(int(p["low"]), int(p["high"]), log=p["log"])
        else:
            result[name] = FloatDistribution(p["low"], p["high"], log=p["log"])
    return result


def inside(value: Any, distribution: Any) -> Any:
    """Clip a recorded value to a distribution whose range has moved since."""
    if hasattr(distribution, "choices"):
        return value if value in distribution.choices else distribution.choices[0]
    value = min(distribution.high, max(distribution.low, value))
    return int(value) if type(distribution).__name__ == "IntDistribution" else float(value)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Rebuild the study and ask it for a point.

    A failed run is a violated constraint, not a loss: it says where not to go, not how bad it is.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = distributions(request["parameters"])
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
