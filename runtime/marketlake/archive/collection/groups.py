"""Cut files into groups: each is a task, and becomes one data file of its bronze table."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from marketlake.domain.archive import ArchiveFile
from marketlake.sync.copy import HELD

MOST_BYTES = 16 * 1024 * 1024
"""Compressed bytes of one group, which are held in memory."""


def groups(files: Iterable[ArchiveFile], *, most: int) -> Iterator[tuple[ArchiveFile, ...]]:
    """Yield groups of files of one dataset, so that the rows of a data file are near each other.

    A backfill has files of few series over many months: its groups have few series, ordered by time. Daily life has
    those of many series: its groups have one month each, or a former file that comes anew would widen the data file
    of a whole day, which then could be passed over by no reader and be merged with no other one.

    A file of more than :data:`marketlake.sync.copy.HELD` bytes is a group by itself: it is streamed.

    Args:
        files: in any order.
        most: how many of one group; its event has to fit through the event bus.
    """
    for _, some in groupby(sorted(files, key=_dataset), key=_dataset):
        of_dataset = list(some)
        if len(set(map(_series, of_dataset))) > len(set(map(_month, of_dataset))):
            for _, of_month in groupby(sorted(of_dataset, key=_month), key=_month):
                yield from _cut(of_month, most)
        else:
            yield from _cut(of_dataset, most)


def _cut(files: Iterable[ArchiveFile], most: int) -> Iterator[tuple[ArchiveFile, ...]]:
    group: list[ArchiveFile] = []
    size = 0
    for file in sorted(files, key=_place):
        if file.size > HELD:
            yield (file,)
            continue
        if group and (len(group) == most or size + file.size > MOST_BYTES):
            yield tuple(group)
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield tuple(group)


def _dataset(file: ArchiveFile) -> tuple[str, str, str]:
    return (file.venue, file.market, file.data_type)


def _month(file: ArchiveFile) -> str:
    return file.start.isoformat()[:7]


def _series(file: ArchiveFile) -> tuple[str, str]:
    return (file.symbol, file.interval or "")


def _place(file: ArchiveFile) -> tuple[str, ...]:
    return (*_series(file), file.start.isoformat(), file.frequency, file.key)
