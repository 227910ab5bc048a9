"""TODO proposers."""
