"""The venue plug-in for Binance's public archive.

Facts: the exchange's archive documentation and what the bucket was seen to hold; `datasets.json` is the
catalogue (27 pairs that were ever published and 2 that never were), `mapping.yaml` the way to the contracts.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from marketlake.archive.venues.binance import keys
from marketlake.domain.archive import Frequency, Selection
from marketlake.domain.venue import (
    Availability,
    ContractMapping,
    Dataset,
    Integrity,
    KeyFields,
    KeyRange,
    Listing,
    PrefixPattern,
    SelectionError,
)
from marketlake.settings import VenueEndpoint


class Binance:
    """Spot, USD-M and COIN-M futures, and options, as published in the bucket ``data.binance.vision``."""

    name = "binance"
    default_endpoint = VenueEndpoint(
        endpoint="https://s3.ap-northeast-1.amazonaws.com",  # path-style: the bucket's name has dots
        bucket="data.binance.vision",
    )
    listing = Listing.BUCKET
    integrity = Integrity.SIDECAR

    def datasets(self) -> tuple[Dataset, ...]:
        """Return the 29 pairs of `datasets.json`."""
        return _datasets()

    def patterns(self, selection: Selection) -> tuple[PrefixPattern, ...]:
        """See :meth:`marketlake.domain.venue.Venue.patterns`."""
        patterns: list[PrefixPattern] = []
        for dataset in self._selected(selection):
            frequencies = [f for f in dataset.frequencies if selection.frequency in (None, f)]
            for frequency in frequencies:
                if selection.interval and selection.interval not in _intervals_at(dataset, frequency):
                    continue
                patterns += _patterns(dataset, frequency, selection)
        return tuple(patterns)

    def key_range(self, prefix: str, selection: Selection) -> KeyRange:
        """See :meth:`marketlake.domain.venue.Venue.key_range`.

        The unpadded month ``2020-8`` sorts behind ``2020-12``, so monthly folders are read to the year's end.
        """
        if prefix.startswith(keys.MOVED_SNAPSHOTS):
            return KeyRange(marker=None, last=None)
        frequency, data_type, symbol, *interval = prefix.strip("/").split("/")[_depth(prefix) :]
        start = prefix + keys.stem(symbol, interval[0] if interval else None, data_type)
        daily = frequency == Frequency.DAILY
        marker = last = None
        if selection.start:
            marker = start + selection.start.isoformat()[: None if daily else 7]
        if selection.end:
            last = start + selection.end.isoformat()[: None if daily else 5] + "~"
        return KeyRange(marker=marker, last=last)

    def parse_key(self, key: str) -> KeyFields | None:
        """See :meth:`marketlake.domain.venue.Venue.parse_key`; pairs outside the catalogue are unknown."""
        fields = keys.parse(key)
        return fields if fields and (fields.market, fields.data_type) in _published() else None

    def build_key(self, fields: KeyFields) -> str:
        """Return the key under which the venue publishes such a file today."""
        return keys.build(fields)

    def sidecar_key(self, key: str) -> str:
        """Return the zip's key with ``.CHECKSUM`` appended."""
        return key + keys.SIDECAR_SUFFIX

    def _selected(self, selection: Selection) -> list[Dataset]:
        datasets = self.datasets()
        markets = {dataset.market for dataset in datasets}
        if selection.market is not None and selection.market not in markets:
            raise SelectionError(
                f"{self.name} has no market {selection.market!r}; it has: {', '.join(sorted(markets))}."
            )
        chosen = [dataset for dataset in datasets if selection.market in (None, dataset.market)]
        where = f"{self.name} {selection.market}" if selection.market else self.name
        types = {dataset.data_type for dataset in chosen}
        if selection.data_type is not None and selection.data_type not in types:
            raise SelectionError(
                f"{where} has no data type {selection.data_type!r}; it has: {', '.join(sorted(types))}."
            )
        chosen = [dataset for dataset in chosen if selection.data_type in (None, dataset.data_type)]
        published = [dataset for dataset in chosen if dataset.frequencies]
        if selection.interval is not None and published:
            offered = dict.fromkeys(interval for dataset in published for interval in dataset.intervals)
            if selection.interval not in offered:
                raise SelectionError(
                    f"{where} {selection.data_type or ''} has no interval {selection.interval!r}; "
                    f"it has: {', '.join(offered) or 'no intervals at all: leave it out'}."
                )
            published = [dataset for dataset in published if selection.interval in dataset.intervals]
        return published


def _patterns(dataset: Dataset, frequency: Frequency, selection: Selection) -> list[PrefixPattern]:
    base = f"data/{keys.MARKET_PATHS[dataset.market]}/{frequency}/{dataset.data_type}/"
    bases = [base]
    if dataset.market == "spot" and frequency is Frequency.MONTHLY:
        bases.append(f"/{base}")  # older monthly files lie under keys that begin with a slash
    ends: tuple[str | None, ...] = ()
    if dataset.intervals:
        ends = (f"{selection.interval}/",) if selection.interval else (None,)
    symbols: list[str | None] = [f"{symbol}/" for symbol in selection.symbols] or [None]
    patterns = [PrefixPattern(segments=(head, symbol, *ends)) for head in bases for symbol in symbols]
    if dataset.availability is Availability.WITHDRAWN:
        patterns.append(PrefixPattern(segments=(keys.MOVED_SNAPSHOTS,)))
    return patterns


def _depth(prefix: str) -> int:
    """Index of the frequency among the parts of a folder's prefix: behind ``data`` and the market's path."""
    return 3 if "/futures/" in prefix else 2


@cache
def _published() -> frozenset[tuple[str, str]]:
    return frozenset((dataset.market, dataset.data_type) for dataset in _datasets() if dataset.frequencies)


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(files(__package__).joinpath("datasets.json").read_text("utf-8"))
    return document


@cache
def _mappings() -> dict[tuple[str, str], ContractMapping]:
    import yaml

    rows = yaml.safe_load(files(__package__).joinpath("mapping.yaml").read_text("utf-8"))
    return {
        (market, row["data_type"]): ContractMapping(
            published=row["published"],
            dataset=row["dataset"],
            fixed=row.get("fixed", {}),
            columns=row.get("columns", {}),
        )
        for row in rows
        for market in row["markets"]
    }


@cache
def _datasets() -> tuple[Dataset, ...]:
    document = _document()
    daily = tuple(document["daily_intervals_spot"])
    monthly = tuple(document["monthly_extra_intervals"])
    return tuple(_dataset(row, daily, monthly) for row in document["datasets"])


def _dataset(row: dict[str, Any], daily: tuple[str, ...], monthly: tuple[str, ...]) -> Dataset:
    intervals: tuple[str, ...] = ()
    if row["interval_dir"]:
        intervals = tuple(i for i in daily if i != "1s" or row["market"] == "spot") + monthly
    return Dataset(
        venue=Binance.name,
        market=row["market"],
        data_type=row["data_type"],
        frequencies=tuple(Frequency(name) for name in row["frequencies"]),
        intervals=intervals,
        mapping=_mappings().get((row["market"], row["data_type"])),
        availability=next(status for status in Availability if row["status"].startswith(status)),
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
        note=row["note"],
    )


def _intervals_at(dataset: Dataset, frequency: Frequency) -> tuple[str, ...]:
    if frequency is Frequency.MONTHLY:
        return dataset.intervals
    monthly_only = _document()["monthly_extra_intervals"]
    return tuple(interval for interval in dataset.intervals if interval not in monthly_only)
