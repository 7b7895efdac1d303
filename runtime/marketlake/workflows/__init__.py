"""Orchestration: the Prefect flow of a collection, and the client that starts and follows it."""
