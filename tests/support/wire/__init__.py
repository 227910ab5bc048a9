"""A loopback server that speaks the Messages API, as scripted, faults included."""
