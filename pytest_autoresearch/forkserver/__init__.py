"""Warm, confined child processes: start them, exchange frames, measure their use, end them."""
