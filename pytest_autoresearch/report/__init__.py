"""Projections of the ledger for people and machines; each can be rebuilt at any time."""
