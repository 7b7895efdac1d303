"""Writes mirrors: folders from which everything can be installed where no registry answers."""

from toolchain.mirroring.writing import MirrorReport, write_mirror

__all__ = ["MirrorReport", "write_mirror"]
