"""TODO judge."""
