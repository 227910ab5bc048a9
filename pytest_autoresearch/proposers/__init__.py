"""Proposers: language models, agent CLIs and search over literals, which suggest mutations."""
