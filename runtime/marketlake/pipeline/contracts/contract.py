"""What a table promises: its schema, meaning, checks, service levels and owner."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from marketlake.domain.period import Period
from marketlake.errors import MarketlakeError
from marketlake.infrastructure.storage.delta import TableShape
from marketlake.pipeline.contracts.table_type import Column


class ContractError(MarketlakeError):
    """A contract, or a venue's mapping to it, cannot be put into practice; the message says where and why."""

    code = "contract"


class Layer(StrEnum):
    """What has become of the rows of a table."""

    BRONZE = "bronze"
    """As published, typed."""
    SILVER = "silver"
    """Harmonised over venues, each row once, checked."""


class Continuity(StrEnum):
    """How the rows of a series follow each other where none is missing."""

    BARS = "bars"
    """One for each interval."""
    NUMBERS = "numbers"
    """Numbered by the table's key."""
    FUNDINGS = "fundings"
    """Each after the hours that it says itself."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A promise about each row."""

    reason: str
    """What is wrong with a row that breaks it."""
    broken: str
    """SQL expression over the table's columns, true for such a row."""


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """A promise about the table as a whole."""

    name: str
    value: str
    """With its unit."""
    description: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where a fact is from."""

    description: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a table promises."""

    layer: Layer
    name: str
    """Of the table within its layer: ``candles``. In silver it is the neutral id of the dataset."""
    title: str
    version: str
    purpose: str
    usage: str | None
    limitations: str | None
    granularity: str
    """What a row is."""
    sources: tuple[Source, ...]
    owner: str
    columns: tuple[Column, ...]
    """All of the table's, in order."""
    primary_key: tuple[str, ...]
    series: tuple[str, ...]
    origin: tuple[str, ...]
    time: str
    unused: tuple[str, ...]
    rules: tuple[Rule, ...]
    assurances: tuple[str, ...]
    """What is held in other ways than by a rule, in words."""
    service_levels: tuple[ServiceLevel, ...]

    @property
    def table(self) -> str:
        """The table as it is queried: ``silver.candles``."""
        return f"{self.layer}.{self.name}"

    @property
    def path(self) -> str:
        """The table's folder below the lake's root."""
        return f"{self.layer}/{self.name}"

    @property
    def content(self) -> tuple[Column, ...]:
        """The columns beside the series and the rows' origin: what a row says."""
        around = (*self.series, *self.origin)
        return tuple(column for column in self.columns if column.name not in around)

    @property
    def row_key(self) -> tuple[str, ...]:
        """What identifies a row within its series."""
        return tuple(name for name in self.primary_key if name not in self.series)

    def shape(self, labels: Sequence[str], *, committed: bool = False) -> TableShape:
        """Return the Delta table, in which the columns `labels` are the same in many rows that follow each other."""
        return TableShape(
            path=self.path,
            columns=pa.schema([column.arrow for column in self.columns if column.name not in labels]),
            labels=tuple(labels),
            committed=committed,
            comments={column.name: column.comment for column in self.columns},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SilverContract(Contract):
    """What a harmonised table promises."""

    period: Period
    """How much is rewritten as a whole."""
    continuity: Continuity
