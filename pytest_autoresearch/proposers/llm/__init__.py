"""Proposers that ask a language model through a provider's API."""
