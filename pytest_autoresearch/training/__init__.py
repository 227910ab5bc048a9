"""One training run: from a candidate's files to a scored result."""
