"""A loopback server with the Messages API that follows a script, faults included."""
