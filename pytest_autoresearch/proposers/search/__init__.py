"""TODO proposers.search."""
