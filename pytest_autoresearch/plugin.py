"""Hooks of the plugin, and nothing else.

Without ``--autoresearch`` this module, ``options`` and ``hookspecs`` are all that is ever imported.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .options import add_options

if TYPE_CHECKING:
    from .session.session import Session

pytest.register_assert_rewrite("pytest_autoresearch.session.items")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks that others may implement."""
    from . import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    add_options(parser)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Join or start the campaign; trylast because the terminal reporter must exist."""
    config.addinivalue_line("markers", "autoresearch: an attempt of a research campaign")
    if not config.getoption("autoresearch"):
        return
    from .session import fixtures
    from .session.session import SESSION, start

    session = start(config)
    config.stash[SESSION] = session
    config.pluginmanager.register(fixtures, "autoresearch-fixtures")
    config.pluginmanager.register(Hooks(session), "autoresearch-hooks")
    if session.is_driver:
        config.pluginmanager.register(DriverHooks(session), "autoresearch-driver")
    if session.is_driver and config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(XdistHooks(session), "autoresearch-xdist")
    if session.is_driver and config.pluginmanager.hasplugin("html"):
        config.pluginmanager.register(HtmlHooks(), "autoresearch-html")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``--autoresearch``, collect the program and nothing else."""
    if not config.getoption("autoresearch") or collection_path.is_dir():
        return None
    return collection_path.name != _program(config)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Turn the program into attempts."""
    config = parent.config
    if not config.getoption("autoresearch") or file_path.name != _program(config):
        return None
    from .session.items import ProgramFile

    program: pytest.Collector = ProgramFile.from_parent(parent, path=file_path)
    return program


def _program(config: pytest.Config) -> str:
    from .session.session import SESSION

    return Path(config.stash[SESSION].plan.program).name


class XdistHooks:
    """Registered by the controller only, and only where xdist declares these hooks."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def pytest_configure_node(self, node: Any) -> None:
        """Hand the plan to a worker; a replacement gets the same, so attempt numbers never shift."""
        node.workerinput["autoresearch"] = self.session.for_worker()


class HtmlHooks:
    """Registered only where pytest-html declares these hooks."""

    def pytest_html_results_table_header(self, cells: list[str]) -> None:
        """Name our columns."""
        from .report import columns

        cells[columns.AT : columns.AT] = columns.header()

    def pytest_html_results_table_row(self, report: pytest.TestReport, cells: list[str]) -> None:
        """Fill them."""
        from .report import columns

        facts = {name: str(value) for name, value in report.user_properties}
        cells[columns.AT : columns.AT] = columns.row(facts)


class DriverHooks:
    """Registered by the process that a person started."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Give back and confirm: after xdist's workers are gone, before the summary is printed."""
        self.session.requeue()
        self.session.confirm()


class Hooks:
    """Registered in every process of a session that runs a campaign."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def pytest_report_header(self) -> list[str]:
        """Say what is in force, and why."""
        return self.session.header()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Start the live view."""
        self.session.started()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """After each item, stop where a stop condition holds (in workers, not the controller)."""
        self.session.more = nextitem is not None
        result = yield
        self.session.idle()
        if reason := self.session.stop_reason():
            item.session.shouldstop = reason
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Let the assertion decide, and record what it decided within the call phase."""
        from .session.items import AttemptItem

        if not isinstance(pyfuncitem, AttemptItem):
            return (yield)
        return (yield from self.session.judge_call(pyfuncitem))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn a verdict into its outcome: not to be kept is expected, infrastructure an error."""
        report = yield
        from .session.items import AttemptItem

        if isinstance(item, AttemptItem):
            self.session.shape_report(item, call, report)
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> Any:
        """Letters and words of the verdicts."""
        return self.session.teststatus(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count verdicts, print result lines and rewrite the logs (driver only)."""
        self.session.logged(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Pass Ctrl-C on to trials at once; every other stop arrives here too, and is none."""
        self.session.interrupted(excinfo.value)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Settle the exit code first; project the ledger last, after pytest's own junit writer."""
        session.exitstatus = self.session.exit_status(session.exitstatus)
        try:
            return (yield)
        finally:
            self.session.finished(int(session.exitstatus))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the summary block."""
        self.session.summarise(terminalreporter)

    def pytest_unconfigure(self) -> None:
        """Release locks and children whatever happened."""
        self.session.close()
