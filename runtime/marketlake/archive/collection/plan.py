"""What a collection has to do: which datasets a selection means, and which of their files are missing or changed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from marketlake.archive.ledger import LedgerEntry
from marketlake.domain.archive import ArchiveFile, Selection
from marketlake.domain.venue import SelectionError, Venue, matching_datasets


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Files by what has to be done with them, each in the order of the listing."""

    missing: tuple[ArchiveFile, ...]
    """Never collected."""
    changed: tuple[ArchiveFile, ...]
    """Collected, but the venue shows another size or ETag now, or bronze lost the rows."""
    present: tuple[ArchiveFile, ...]
    """In already, as the venue shows them."""

    @property
    def wanted(self) -> tuple[ArchiveFile, ...]:
        """The files to collect."""
        return self.missing + self.changed


def plan(files: Iterable[ArchiveFile], ledger: Mapping[str, LedgerEntry]) -> Plan:
    """Compare the listed files with the ledger.

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
        elif entry.is_of(file) and entry.in_bronze:
            present.append(file)
        else:
            changed.append(file)
    return Plan(missing=tuple(missing), changed=tuple(changed), present=tuple(present))


def selected_datasets(venue: Venue, selection: Selection) -> tuple[Selection, ...]:
    """Return one selection per dataset that can be parsed and fits, in the order of the venue's catalogue.

    Raises:
        SelectionError: nothing fits, or the wanted data type is one whose files cannot be parsed.
    """
    published = [dataset for dataset in venue.datasets() if dataset.frequencies]
    fitting = [
        dataset
        for dataset in matching_datasets(venue, selection)
        if dataset.frequencies
        and (selection.interval is None or selection.interval in dataset.intervals)
        and (selection.frequency is None or selection.frequency in dataset.frequencies)
    ]
    parsed = [dataset for dataset in fitting if dataset.mapping]
    if not parsed:
        catalogued = ", ".join(sorted({dataset.data_type for dataset in fitting}))
        possible = sorted({dataset.data_type for dataset in published if dataset.mapping})
        raise SelectionError(
            f"{catalogued or 'what was selected'} of {venue.name} cannot be collected: "
            f"{'it is catalogued, but not parsed yet' if catalogued else 'there is no such dataset'}. "
            f"Types that can be: {', '.join(possible)}."
        )
    return tuple(replace(selection, market=dataset.market, data_type=dataset.data_type) for dataset in parsed)
