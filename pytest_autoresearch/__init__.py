"""Autonomous research as a pytest plugin: every mutation a test, every keep a commit."""

from __future__ import annotations

__version__ = "0.1.0"
