"""Proposers that let an agent CLI edit a copy of the project."""
