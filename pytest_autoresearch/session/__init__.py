"""One pytest process: items, plan, live view, exit code."""
