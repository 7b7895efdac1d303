import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from marketlake.archive.collection import groups as cutting
from marketlake.archive.collection.groups import MOST_BYTES
from marketlake.domain.archive import ArchiveFile, Frequency
from marketlake.settings import Collection
from marketlake.sync.copy import HELD

from tests.unit.marketlake.archive.samples import archive_file

KIB = 1024
MOST_FILES = Collection().group_files


def groups(wanted: list[ArchiveFile]) -> Iterator[tuple[ArchiveFile, ...]]:
    return cutting.groups(wanted, most=MOST_FILES)


def files(days: range, *, symbol: str = "BTCUSDT", size: int = 40 * KIB, **changed: Any) -> list[ArchiveFile]:
    """Files of a series, a day each; days beyond January are told apart by their keys."""
    return [
        replace(archive_file(1 + day % 31, symbol=symbol), key=f"{symbol}/{day:06}", size=size, **changed)
        for day in days
    ]


def test_small_files_are_grouped_up_to_a_number() -> None:
    wanted = files(range(2 * MOST_FILES + 1), size=KIB)
    assert [len(group) for group in groups(wanted)] == [MOST_FILES, MOST_FILES, 1]


def test_larger_files_are_grouped_up_to_a_size() -> None:
    wanted = files(range(20), size=MOST_BYTES // 10)
    assert [len(group) for group in groups(wanted)] == [10, 10]


def test_a_file_that_is_streamed_is_a_group_by_itself() -> None:
    small, large, held = (
        files(range(6), size=KIB),
        files(range(6, 8), size=HELD + 1),
        files(range(8, 9), size=HELD),
    )
    cut = [tuple(file.size for file in group) for group in groups([*large, *small, *held])]
    assert sorted(cut) == [(KIB,) * 6 + (HELD,), (HELD + 1,), (HELD + 1,)]


def test_a_large_file_between_small_ones_does_not_cut_their_group() -> None:
    days = files(range(9), size=KIB)
    days[4] = replace(days[4], size=100 * HELD)
    assert sorted(len(group) for group in groups(days)) == [1, 8]


def test_a_group_has_files_of_one_dataset_only() -> None:
    wanted = [
        *files(range(3)),
        *files(range(3, 6), market="um"),
        *files(range(6, 9), data_type="aggTrades"),
        *files(range(9, 12), venue="another"),
    ]
    cut = list(groups([*wanted[::2], *wanted[1::2]]))
    assert [len(group) for group in cut] == [3, 3, 3, 3]
    for group in cut:
        assert len({(file.venue, file.market, file.data_type) for file in group}) == 1


def test_files_of_a_series_follow_each_other_in_time_however_they_are_listed() -> None:
    wanted = [archive_file(day, symbol=symbol) for day in (3, 1, 2) for symbol in ("ETHUSDT", "BTCUSDT")]
    (group,) = groups(wanted)
    assert [(file.symbol, file.start.day) for file in group] == [
        ("BTCUSDT", 1), ("BTCUSDT", 2), ("BTCUSDT", 3), ("ETHUSDT", 1), ("ETHUSDT", 2), ("ETHUSDT", 3),
    ]  # fmt: skip


def at(symbol: str, start: date, frequency: Frequency = Frequency.DAILY) -> ArchiveFile:
    key = f"{frequency}/{symbol}/{start.isoformat()}"
    return replace(archive_file(1, symbol=symbol), key=key, start=start, end=start, frequency=frequency)


def test_a_day_of_many_series_is_not_mixed_with_former_files_that_come_anew() -> None:
    """A data file with rows of two months is merged with no other, and readers of either month open it."""
    day = [at(f"S{number:03}USDT", date(2024, 12, 30)) for number in range(MOST_FILES + 4)]
    anew = [
        at("S007USDT", date(2024, 3, 5)),
        at("S004USDT", date(2024, 3, 9)),
        at("S001USDT", date(2023, 6, 1)),
    ]
    cut = list(groups([*day, *anew]))
    assert sorted(len(group) for group in cut) == [1, 2, 4, MOST_FILES]
    assert all(len({(file.start.year, file.start.month) for file in group}) == 1 for group in cut)


def test_a_backfill_of_few_series_is_not_cut_by_months() -> None:
    months = [date(2019 + number // 12, 1 + number % 12, 1) for number in range(60)]
    wanted = [at(symbol, month, Frequency.MONTHLY) for symbol in ("BTCUSDT", "ETHUSDT") for month in months]
    (group,) = groups(wanted)
    assert [file.symbol for file in group] == ["BTCUSDT"] * 60 + ["ETHUSDT"] * 60


def test_nothing_wanted_is_no_group() -> None:
    assert list(groups([])) == []


sizes = st.one_of(st.integers(1, 64 * KIB), st.integers(HELD - 1, HELD + 1), st.just(2 * MOST_BYTES))
listed = st.builds(
    lambda number, size, symbol, market: replace(
        archive_file(1 + number % 31, symbol=symbol), key=f"{symbol}/{number}", size=size, market=market
    ),
    st.integers(0, 10_000),
    sizes,
    st.sampled_from(["BTCUSDT", "ETHUSDT"]),
    st.sampled_from(["spot", "um"]),
)


@given(wanted=st.lists(listed, max_size=40, unique_by=lambda file: file.key), seed=st.randoms())
def test_every_file_is_in_one_group_and_the_order_of_the_listing_does_not_matter(
    wanted: list[ArchiveFile], seed: random.Random
) -> None:
    cut = list(groups(wanted))
    assert sorted(file.key for group in cut for file in group) == sorted(file.key for file in wanted)
    for group in cut:
        assert len(group) <= MOST_FILES
        assert len(group) == 1 or sum(file.size for file in group) <= MOST_BYTES
        assert len(group) == 1 or max(file.size for file in group) <= HELD
    shuffled = list(wanted)
    seed.shuffle(shuffled)
    assert list(groups(shuffled)) == cut
