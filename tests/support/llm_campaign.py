"""Campaigns with an LLM proposer on a loopback server."""

from __future__ import annotations

from support.project import Project

ANSWER = 0.0143
"""Dollars of one answer of the wire server at the model's list price."""


def idea(score: float) -> str:
    return (
        f"Title: score {score}\nHypothesis: it is lower\n\ntrain.py\n<<<<<<< SEARCH\n"
        f"# ideas go here\n=======\nSCORE = {score}\n# ideas go here\n>>>>>>> REPLACE\n"
    )


def run_session(project: Project, *args: str):
    return project.pytester.runpytest_subprocess(
        "--autoresearch", "--autoresearch-model=claude-sonnet-5-5", "--autoresearch-control=0",
        "--autoresearch-confirm=0", "-p", "no:cacheprovider", *args, timeout=300,
    )  # fmt: skip
