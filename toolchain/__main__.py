"""``python -m toolchain …`` is ``marketlake tools …``."""

from toolchain.cli import app

app(prog_name="python -m toolchain")
