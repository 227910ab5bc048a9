"""pytest hooks of the plugin.

Without ``--autoresearch``, only this module, ``options`` and ``hookspecs`` are imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .options import add_options

if TYPE_CHECKING:
    from .session.session import Session

pytest.register_assert_rewrite("pytest_autoresearch.session.items")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks that other plugins may implement."""
    from . import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    add_options(parser)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Start or join the campaign; trylast because the terminal reporter must exist."""
    config.addinivalue_line("markers", "autoresearch: an attempt of a research campaign")
    if not config.getoption("autoresearch"):
        return
    from .session import fixtures
    from .session.session import SESSION
    from .session.start import start

    session = config.stash[SESSION] = start(config)
    plugins = config.pluginmanager
    plugins.register(fixtures, "autoresearch-fixtures")
    plugins.register(session, "autoresearch-session")
    plugins.register(session.attempts, "autoresearch-attempts")
    if session.is_driver:
        plugins.register(DriverHooks(session), "autoresearch-driver")
    if session.is_driver and plugins.hasplugin("xdist"):
        plugins.register(XdistHooks(session), "autoresearch-xdist")
    if session.is_driver and plugins.hasplugin("html"):
        plugins.register(HtmlHooks(), "autoresearch-html")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``--autoresearch``, collect the program and nothing else."""
    if not config.getoption("autoresearch") or collection_path.is_dir():
        return None
    return collection_path.name != _program(config)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the program as a file of attempts."""
    if not parent.config.getoption("autoresearch") or file_path.name != _program(parent.config):
        return None
    from .session.items import ProgramFile

    program: pytest.Collector = ProgramFile.from_parent(parent, path=file_path)
    return program


def _program(config: pytest.Config) -> str:
    from .session.items import PLAN

    return Path(config.stash[PLAN].program).name


class XdistHooks:
    """Hooks of the xdist controller; registered only where xdist declares them."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def pytest_configure_node(self, node: Any) -> None:
        """Send the plan to a worker; a replacement gets the same, so numbers never shift."""
        node.workerinput["autoresearch"] = self.session.plan.to_json()


class HtmlHooks:
    """Columns of pytest-html; registered only where pytest-html declares the hooks."""

    def pytest_html_results_table_header(self, cells: list[str]) -> None:
        """Add the headers of our columns."""
        from .report import columns

        cells[columns.AT : columns.AT] = columns.header()

    def pytest_html_results_table_row(self, report: pytest.TestReport, cells: list[str]) -> None:
        """Add the cells of our columns."""
        from .report import columns

        facts = {name: str(value) for name, value in report.user_properties}
        cells[columns.AT : columns.AT] = columns.row(facts)


class DriverHooks:
    """Hooks of the process that the user started."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Requeue and confirm: after xdist's workers have ended, before the summary."""
        self.session.requeue()
        self.session.confirm()
