"""Cut files into groups: each is a task, and becomes one data file of its bronze table."""

from collections.abc import Iterable, Iterator

from marketlake.domain.archive import ArchiveFile
from marketlake.sync.copy import HELD

MOST_BYTES = 16 * 1024 * 1024
"""Compressed bytes of one group, which are held in memory."""


def groups(files: Iterable[ArchiveFile], *, most: int) -> Iterator[tuple[ArchiveFile, ...]]:
    """Yield groups of files of one dataset, ordered by series and time, so that a group has few series.

    A file of more than :data:`marketlake.sync.copy.HELD` bytes is a group by itself: it is streamed.

    Args:
        files: in any order.
        most: how many of one group; its event has to fit through the event bus.
    """
    group: list[ArchiveFile] = []
    size = 0
    for file in sorted(files, key=_place):
        if file.size > HELD:
            yield (file,)
            continue
        full = len(group) == most or size + file.size > MOST_BYTES
        if group and (full or _dataset(file) != _dataset(group[0])):
            yield tuple(group)
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield tuple(group)


def _dataset(file: ArchiveFile) -> tuple[str, str, str]:
    return (file.venue, file.market, file.data_type)


def _place(file: ArchiveFile) -> tuple[str, ...]:
    series = (*_dataset(file), file.symbol, file.interval or "")
    return (*series, file.start.isoformat(), file.frequency, file.key)
