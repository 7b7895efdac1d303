"""Queries over the lake's tables."""
