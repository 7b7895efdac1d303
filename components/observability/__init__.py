"""Metrics, logs and traces: what keeps them and what carries them there."""
