"""Gaps in a series, and the quarantine of rows that are not data."""
