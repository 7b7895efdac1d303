"""Which of the files that a venue shows have to be brought in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from marketlake.archive.ledger import LedgerEntry
from marketlake.domain.archive import ArchiveFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Files by what is to be done with them, each in the order of the listing."""

    missing: tuple[ArchiveFile, ...]
    """Never collected."""
    changed: tuple[ArchiveFile, ...]
    """Collected, but the venue shows another size or ETag now."""
    present: tuple[ArchiveFile, ...]
    """In already, as the venue shows them."""

    @property
    def wanted(self) -> tuple[ArchiveFile, ...]:
        """What has to be brought in."""
        return self.missing + self.changed


def plan(files: Iterable[ArchiveFile], ledger: Mapping[str, LedgerEntry]) -> Plan:
    """Compare what is shown with what is in.

    Args:
        files: as discovered, of one venue; a key that is listed twice counts once, as it was shown last.
        ledger: the newest entry per key.
    """
    missing: list[ArchiveFile] = []
    changed: list[ArchiveFile] = []
    present: list[ArchiveFile] = []
    for file in {file.key: file for file in files}.values():
        entry = ledger.get(file.key)
        if entry is None:
            missing.append(file)
        elif entry.is_of(file):
            present.append(file)
        else:
            changed.append(file)
    return Plan(missing=tuple(missing), changed=tuple(changed), present=tuple(present))
