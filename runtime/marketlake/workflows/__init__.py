"""Orchestration: the Prefect flow that requests a collection, and the mirror that shows collections in Prefect."""
