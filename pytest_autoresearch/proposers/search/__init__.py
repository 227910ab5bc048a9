"""Proposers that search over the literals of the parent's entry file, without a language model."""
