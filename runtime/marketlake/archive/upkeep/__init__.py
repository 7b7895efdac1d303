"""Upkeep of a lake: compare it with what the ledger says, and make it anew from landing."""

from marketlake.archive.upkeep.rebuild import LakeInUseError, forget
from marketlake.archive.upkeep.verify import Difference, Verification, verify

__all__ = ["Difference", "LakeInUseError", "Verification", "forget", "verify"]
