"""Upkeep: keep tables in good order, compare them with the ledger, make them anew, and forget what has ended."""

from marketlake.archive.upkeep.maintain import Maintainer, Maintenance, TableUpkeep
from marketlake.archive.upkeep.prune import Pruned, prune
from marketlake.archive.upkeep.rebuild import LakeInUseError, forget
from marketlake.archive.upkeep.routine import Routine
from marketlake.archive.upkeep.verify import Difference, Verification, verify

__all__ = [
    "Difference",
    "LakeInUseError",
    "Maintainer",
    "Maintenance",
    "Pruned",
    "Routine",
    "TableUpkeep",
    "Verification",
    "forget",
    "prune",
    "verify",
]
