"""Collecting archive files: the plan, the batch and its orchestrator, and the collector that works on its tasks."""
