"""The orchestrator and the workers that bring archive files in."""
