"""Start of a session: checks, campaign and plan, before anything is spent."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from ..campaign.project import check
from ..core.experiment import Experiment
from ..options import Options
from ..proposers.registry import check as check_proposer
from ..proposers.registry import default
from ..sandbox.limits import die_with_parent
from . import preflight
from .plan import Plan, make
from .session import Session


def start(config: pytest.Config) -> Session:
    """Check the project, open or resume the campaign and plan the session.

    Raises:
        pytest.UsageError: Something is not in order; raised before anything is spent.
    """
    options = Options.from_pytest(config)
    root = config.rootpath
    experiment = preflight.find_experiment(config)
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        # In xdist workers as well, because they read the project's testpaths again. Relative,
        # because pytest takes brackets in a path for parameters.
        here = config.invocation_params.dir
        config.args[:] = [os.path.relpath(root / experiment.program, here)]
    given = getattr(config, "workerinput", {}).get("autoresearch")
    if given is not None:
        with contextlib.suppress(OSError):  # not Linux
            die_with_parent()
        plan = Plan.from_json(given)
        return Session(config, options, experiment, plan, is_driver=False)
    preflight.check_installed(experiment)
    preflight.check_sandbox(options)
    with preflight.usage_errors():
        repository = check(root, experiment)
        _check_proposer(options, experiment, root)
        if not (config.option.collectonly or config.option.setupplan):
            preflight.check_outputs(config, options)
        plan = make(config, options, experiment, repository)
        preflight.replace_junit_writer(config)
    if getattr(config.option, "maxschedchunk", 0) is None:
        config.option.maxschedchunk = 1
    return Session(config, options, experiment, plan, is_driver=True)


def _check_proposer(options: Options, experiment: Experiment, root: Path) -> None:
    try:
        check_proposer(options.proposer or default(experiment), root)
    except ValueError as error:
        raise pytest.UsageError(f"--autoresearch-proposer: {error}") from None
