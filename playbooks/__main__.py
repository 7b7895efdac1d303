"""Entry point of ``python -m playbooks``."""

from playbooks.cli import app

app()
