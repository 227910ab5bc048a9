"""A program as text: edits, fingerprint, static checks and search space."""
