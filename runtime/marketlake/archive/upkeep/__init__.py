"""Upkeep: compare a lake with the ledger, make it anew from landing, and forget what has ended."""

from marketlake.archive.upkeep.prune import Pruned, Pruner, prune
from marketlake.archive.upkeep.rebuild import LakeInUseError, forget
from marketlake.archive.upkeep.verify import Difference, Verification, verify

__all__ = ["Difference", "LakeInUseError", "Pruned", "Pruner", "Verification", "forget", "prune", "verify"]
