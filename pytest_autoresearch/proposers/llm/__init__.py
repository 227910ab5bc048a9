"""TODO proposers.llm."""
