"""The loop of a campaign, in order; independent of pytest."""
