"""TODO forkserver."""
