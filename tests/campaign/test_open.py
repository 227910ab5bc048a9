"""Commands measure under the settings of the campaign's last session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.project import Project
from support.runs import write_dataset

from pytest_autoresearch.campaign.open import open_campaign
from pytest_autoresearch.core.errors import UsageError
from pytest_autoresearch.core.run import Run
from pytest_autoresearch.training.devices import Device, Lease

TRAINED = """\
from pathlib import Path
import pytest
from pytest_autoresearch import Experiment

@pytest.fixture(scope="session")
def experiment():
    return Experiment(context=(), data=Path("ideas/data"))
"""


@pytest.fixture
def campaign_project(project: Project) -> Project:
    project.propose(0.5)
    project.run("--iterations=1", "--autoresearch-confirm=0", "--autoresearch-threads=2")
    return project


def test_command_uses_the_settings_of_the_last_session(campaign_project: Project) -> None:
    with open_campaign(campaign_project.path, None, "verify") as campaign:
        assert campaign.settings.threads == 2
        assert campaign.settings.sandbox == "auto"


def test_command_exports_the_leased_gpu(
    campaign_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(Lease, "take", lambda self: Device("cuda", "1", "cuda:1"))
    with open_campaign(campaign_project.path, None, "verify"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_command_refuses_changed_data(campaign_project: Project) -> None:
    campaign_project.write("conftest.py", TRAINED)
    write_dataset(campaign_project.path / "ideas/data")
    ledger = campaign_project.ledger()
    ledger.set_meta("data_sha256", "0" * 64)
    ledger.close()
    with (
        pytest.raises(UsageError, match="is other data than campaign 'main'"),
        open_campaign(campaign_project.path, None, "verify"),
    ):
        pass


def test_checkpoint_is_found_after_the_project_moved(
    campaign_project: Project, tmp_path: Path
) -> None:
    name = Path("runs/00004-first-1/checkpoint.safetensors")
    run = Run("ok", checkpoint=Path("/elsewhere") / name)
    with open_campaign(campaign_project.path, None, "verify") as campaign:
        assert campaign.runner.checkpoint(run) is None
        here = campaign_project.path / ".autoresearch/main" / name
        here.parent.mkdir(parents=True, exist_ok=True)
        here.touch()
        assert campaign.runner.checkpoint(run) == here


def test_missing_commit_is_a_one_line_error(campaign_project: Project) -> None:
    ledger = campaign_project.ledger()
    with ledger._write() as db:
        db.execute('UPDATE champions SET "commit" = ? WHERE version = 2', ("d" * 40,))
    ledger.close()
    done = campaign_project.command("verify")
    assert done.returncode == 4
    assert "commit dddddddddd cannot be read; run: python -m pytest_autoresearch doctor" in done.stderr
    assert "Traceback" not in done.stderr
