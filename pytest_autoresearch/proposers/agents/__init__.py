"""TODO proposers.agents."""
