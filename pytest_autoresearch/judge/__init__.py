"""Verdicts, constraints, parent selection and confirmation: pure functions of records."""
