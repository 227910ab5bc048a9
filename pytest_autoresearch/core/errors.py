"""TODO core.errors."""

from __future__ import annotations


class InfrastructureFailure(Exception):
    """Not the mutation's doing (no device, disk full, API down): never a verdict."""


class Interrupted(Exception):
    """The session was asked to stop while a trial ran; the proposal is given back."""
