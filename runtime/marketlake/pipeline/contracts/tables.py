"""The installed contracts, and the data types that venues map to them.

Contracts lie in packages under the entry point group ``marketlake.contracts``, in folders ``bronze`` and
``silver``; the runtime's own are beside this module. A column that is added to a contract is parsed, stored,
checked and documented without any other change: :func:`compile_table_type` is where all of that comes from.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TypeVar

import polars as pl
from polars.exceptions import PolarsError

from marketlake.domain.archive import ArchiveFile
from marketlake.domain.venue import ContractMapping, Dataset, load_venue
from marketlake.pipeline.contracts.contract import (
    Continuity,
    Contract,
    ContractError,
    Layer,
    SilverContract,
)
from marketlake.pipeline.contracts.reading import read_contract
from marketlake.pipeline.contracts.table_type import (
    Check,
    Column,
    MissingRows,
    TableType,
    UnsupportedDatasetError,
)
from marketlake.pipeline.quality.gaps import missing_bars, missing_fundings, missing_ids

C = TypeVar("C", bound=Contract)

ENTRY_POINT_GROUP = "marketlake.contracts"
_SUFFIX = ".odcs.yaml"
_SERIES = ("venue", "market", "symbol", "interval")
"""Series columns whose values an archive file says; all others are fixed by the venue's mapping."""


@dataclass(frozen=True, slots=True)
class Contracts:
    """Contracts by name."""

    silver: Mapping[str, SilverContract]
    bronze: Mapping[str, Contract]

    def __iter__(self) -> Iterator[Contract]:
        yield from self.silver.values()
        yield from self.bronze.values()


@cache
def contracts() -> Contracts:
    """Return all installed contracts."""
    packages = sorted(point.value for point in entry_points(group=ENTRY_POINT_GROUP))
    return read_contracts(files(package) for package in packages)


def read_contracts(folders: Iterable[Traversable]) -> Contracts:
    """Return the contracts in the folders `silver` and `bronze` of these.

    Raises:
        ContractError: one is wrong, or two describe one table.
    """
    silver: dict[str, SilverContract] = {}
    bronze: dict[str, Contract] = {}
    for file in _files(list(folders)):
        contract = read_contract(file.read_text("utf-8"), file.name)
        if contract.name in (silver if contract.layer is Layer.SILVER else bronze):
            raise ContractError(f"{file.name}: another contract describes {contract.table}, too.")
        if isinstance(contract, SilverContract):
            silver[contract.name] = contract
        else:
            bronze[contract.name] = contract
    return Contracts(silver, bronze)


@cache
def table_type(venue: str, market: str, data_type: str) -> TableType:
    """Return how files of a data type are parsed and refined.

    Args:
        venue: its name.
        market: as in the venue's datasets.
        data_type: as the venue writes it.

    Raises:
        UnsupportedDatasetError: the venue has no such dataset, or maps no contract to it.
        ContractError: the mapping and its contracts do not fit each other.
    """
    datasets = load_venue(venue).datasets()
    for dataset in datasets:
        if (dataset.market, dataset.data_type) == (market, data_type) and dataset.mapping:
            return compile_table_type(dataset, dataset.mapping, contracts())
    if any((dataset.market, dataset.data_type) == (market, data_type) for dataset in datasets):
        parsed = dict.fromkeys(dataset.data_type for dataset in datasets if dataset.mapping)
        raise UnsupportedDatasetError(
            f"no contract is mapped to {data_type!r} of {venue}; mapped are: {', '.join(parsed)}. Its files can be "
            "listed, and a contract with a mapping in the venue's plug-in makes them parsed (docs/venues.md)."
        )
    raise UnsupportedDatasetError(
        f"{venue} has no dataset {market} {data_type}; its plug-in would have to name it and map a contract to it."
    )


def file_columns(file: ArchiveFile) -> tuple[str, ...]:
    """Return the names of the columns in an archive file, in order, from the contract of its rows as published."""
    return table_type(file.venue, file.market, file.data_type).file_columns


def compile_table_type(dataset: Dataset, mapping: ContractMapping, known: Contracts) -> TableType:
    """Return a dataset's contracts as the engine reads them.

    Args:
        dataset: whose plug-in maps it.
        mapping: to which contracts.
        known: the contracts that there are.

    Raises:
        ContractError: the mapping and its contracts do not fit each other.
    """
    where = f"{dataset.venue} {dataset.market} {dataset.data_type}"
    bronze = _contract(known.bronze, mapping.published, where)
    silver = _contract(known.silver, mapping.dataset, where)
    _prove(mapping, silver, where)
    published = [
        column.name for column in bronze.content if dataset.market in (column.markets or (dataset.market,))
    ]
    sources = {column.name for column in bronze.columns}
    return TableType(
        data_type=dataset.data_type,
        bronze=bronze,
        silver=silver,
        file_columns=(*published, *bronze.unused),
        values={column.name: _value(column, mapping, sources, where) for column in silver.content},
        fixed=mapping.fixed,
        checks=tuple(_checks(silver)),
        missing=_missing(silver),
    )


def _files(folders: Iterable[Traversable]) -> Iterator[Traversable]:
    for layer in (Layer.SILVER, Layer.BRONZE):
        for folder in (folder / layer for folder in folders):
            if folder.is_dir():
                found = (file for file in folder.iterdir() if file.name.endswith(_SUFFIX))
                yield from sorted(found, key=lambda file: file.name)


def _contract(known: Mapping[str, C], name: str, where: str) -> C:
    if name not in known:
        raise ContractError(
            f"{where} is mapped to {name!r}, of which there is no contract; there are: {', '.join(known)}."
        )
    return known[name]


def _prove(mapping: ContractMapping, silver: Contract, where: str) -> None:
    names = {column.name for column in silver.content}
    if strangers := sorted(set(mapping.columns) - names):
        raise ContractError(f"{where} maps {strangers[0]!r}, which is no column of {silver.table}.")
    around = [column for column in silver.columns if column.name in silver.series]
    wanted = {column.name: column.values for column in around if column.name not in _SERIES}
    wrong = [name for name, value in mapping.fixed.items() if value not in wanted.get(name, ())]
    if wrong or set(mapping.fixed) != set(wanted):
        told = "; ".join(f"{name}: {', '.join(values)}" for name, values in wanted.items())
        raise ContractError(
            f"{where} fixes {dict(mapping.fixed)}; {silver.table} wants one value of each of these: {told or 'none'}."
        )


def _value(column: Column, mapping: ContractMapping, sources: set[str], where: str) -> pl.Expr:
    """A silver column's value: what the mapping says, else the bronze column of its name, else null."""
    if text := mapping.columns.get(column.name):
        value = _expression(text, sources, f"{where}, {column.name}")
    elif column.name in sources:
        value = pl.col(column.name)
    elif column.optional:
        value = pl.lit(None)
    else:
        raise ContractError(
            f"{where}: {mapping.dataset} requires {column.name!r}, which {mapping.published} does not have: map it."
        )
    return value.cast(column.polars).alias(column.name)


def _checks(silver: Contract) -> Iterator[Check]:
    names = {column.name for column in silver.content}
    for column in silver.content:
        if not column.optional:
            yield Check(f"{column.name} is empty", pl.col(column.name).is_null())
    for rule in silver.rules:
        yield Check(rule.reason, _expression(rule.broken, names, silver.table))


def _expression(text: str, names: set[str], where: str) -> pl.Expr:
    try:
        expression = pl.sql_expr(text)
    except PolarsError as error:
        raise ContractError(f"{where}: {text!r} is no SQL expression that Polars reads: {error}.") from error
    strangers = sorted(set(expression.meta.root_names()) - names)
    if strangers:
        raise ContractError(f"{where}: {text!r} speaks of {strangers[0]!r}, which is no column there.")
    return expression


def _missing(silver: SilverContract) -> MissingRows:
    match silver.continuity:
        case Continuity.BARS:
            return missing_bars
        case Continuity.FUNDINGS:
            return missing_fundings
        case _:
            return missing_ids(silver.row_key[0], silver.time)
