"""``python -m toolchain.images``."""

from toolchain.images.cli import app

app(prog_name="python -m toolchain.images")
