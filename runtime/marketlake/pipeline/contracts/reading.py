"""Read data contracts, one YAML file for each table.

The files follow the Open Data Contract Standard 3 (https://bitol-io.github.io/open-data-contract-standard/).
What the standard has no word for is a custom property:

====================  ===============  ========================================================================
property              of               what it says
====================  ===============  ========================================================================
`series`              the table        columns that tell series apart: each has one value in a series
`origin`              the table        columns that say where a row comes from
`time`                the table        the column that says when
`period`              a silver table   how much is rewritten as a whole: day, month or year, by `time`
`continuity`          a silver table   how rows follow each other by which gaps are found: bars, numbers or fundings
`unusedFileColumns`   a bronze table   columns that end each line of a file and are left out
`unit`                a column         of its values
`markets`             a bronze column  markets whose files have it; all where it is missing
====================  ===============  ========================================================================

The order of a bronze table's columns is that of the files. Checks are quality entries of type `custom` and
engine `polars`: `implementation` is an expression in Polars' SQL that is true for a row that breaks the
promise, and `description` is the reason that stands in quarantine. A required column is a check by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from marketlake.domain.period import Period
from marketlake.pipeline.contracts.contract import (
    Continuity,
    Contract,
    ContractError,
    Layer,
    Rule,
    ServiceLevel,
    SilverContract,
    Source,
)
from marketlake.pipeline.contracts.table_type import Column, Kind

if TYPE_CHECKING:
    from open_data_contract_standard.model import (
        CustomProperty,
        DataQuality,
        OpenDataContractStandard,
        SchemaObject,
        SchemaProperty,
    )

ENGINE = "polars"
_KINDS = {
    ("string", "string"): Kind.TEXT,
    ("integer", "long"): Kind.INTEGER,
    ("number", "double"): Kind.DOUBLE,
    ("boolean", "boolean"): Kind.BOOLEAN,
    ("timestamp", "timestamp"): Kind.TIME,
}
"""By logical and physical type; physical types are Delta's."""


def read_contract(text: str, origin: str) -> Contract:
    """Return the contract that a YAML document declares; of a silver table it is a :class:`SilverContract`.

    Args:
        text: the document.
        origin: its file's name, for messages.

    Raises:
        ContractError: it is no contract of the standard, or says what the lake has no table for.
    """
    import yaml
    from open_data_contract_standard.model import OpenDataContractStandard
    from pydantic import ValidationError

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a wheel may come without the fast one
    try:
        document = OpenDataContractStandard.model_validate(yaml.load(text, Loader=loader))  # noqa: S506 - it is safe
    except (yaml.YAMLError, ValidationError) as error:
        raise ContractError(f"{origin} is no data contract: {error}") from error
    if len(document.schema_ or ()) != 1:
        raise ContractError(
            f"{origin}: a contract describes one table, this one {len(document.schema_ or ())}: give each "
            "table a file of its own."
        )
    return _Reading(document, origin).contract()


class _Reading:
    """A document on its way to a contract."""

    def __init__(self, document: "OpenDataContractStandard", origin: str) -> None:
        self._document = document
        self._origin = origin
        self._table: SchemaObject = (document.schema_ or [])[0]
        self._properties: list[SchemaProperty] = self._table.properties or []

    def contract(self) -> Contract:
        document, table = self._document, self._table
        described = document.description
        layer, _, name = (table.physicalName or "").partition(".")
        if layer not in list(Layer) or name != table.name:
            raise self._wrong(
                f"physicalName is {table.physicalName!r}: it has to be bronze.{table.name} or silver.{table.name}"
            )
        own = self._custom(table.customProperties)
        columns = tuple(self._column(column) for column in self._properties)
        contract = Contract(
            layer=Layer(layer),
            name=name,
            title=document.name or name,
            version=document.version or "",
            purpose=(described and described.purpose) or "",
            usage=described.usage if described else None,
            limitations=described.limitations if described else None,
            granularity=table.dataGranularityDescription or "",
            sources=tuple(
                Source(source.description or "", source.url or "")
                for source in (described and described.authoritativeDefinitions) or ()
            ),
            owner=getattr(document.team, "name", None) or "",
            columns=columns,
            primary_key=self._primary_key(),
            series=tuple(own.get("series", ())),
            origin=tuple(own.get("origin", ())),
            time=str(own.get("time", "")),
            unused=tuple(own.get("unusedFileColumns", ())),
            rules=tuple(self._rules()),
            assurances=tuple(entry.description or "" for entry in self._quality() if entry.type == "text"),
            service_levels=tuple(self._service_levels()),
        )
        self._prove(contract)
        if contract.layer is Layer.BRONZE:
            return contract
        return SilverContract(
            **{field.name: getattr(contract, field.name) for field in fields(contract)},
            period=self._period(own.get("period")),
            continuity=self._continuity(own.get("continuity")),
        )

    def _column(self, column: "SchemaProperty") -> Column:
        kind = _KINDS.get((column.logicalType or "", column.physicalType or ""))
        if kind is None:
            known = ", ".join(f"{logical} as {physical}" for logical, physical in _KINDS)
            raise self._wrong(
                f"{column.name} is {column.logicalType} as {column.physicalType}: known are {known}"
            )
        own = self._custom(column.customProperties)
        return Column(
            name=column.name or "",
            kind=kind,
            optional=not column.required,
            description=column.description or "",
            unit=own.get("unit"),
            markets=tuple(own.get("markets", ())),
            values=tuple(str(value.value) for value in column.enum or ()),
        )

    def _primary_key(self) -> tuple[str, ...]:
        keys = [column for column in self._properties if column.primaryKey]
        return tuple(
            column.name or "" for column in sorted(keys, key=lambda key: key.primaryKeyPosition or 0)
        )

    def _period(self, name: Any) -> Period:
        known = {period.name.lower(): period for period in Period}
        if name not in known:
            raise self._wrong(f"period is {name!r}: it has to be one of {', '.join(known)}")
        return known[name]

    def _continuity(self, name: Any) -> Continuity:
        if name not in list(Continuity):
            raise self._wrong(f"continuity is {name!r}: it has to be one of {', '.join(Continuity)}")
        return Continuity(name)

    def _quality(self) -> Iterator["DataQuality"]:
        yield from self._table.quality or ()
        for column in self._properties:
            yield from column.quality or ()

    def _rules(self) -> Iterator[Rule]:
        for entry in self._quality():
            if entry.type == "text":
                continue
            if entry.type != "custom" or entry.engine != ENGINE or not isinstance(entry.implementation, str):
                raise self._wrong(
                    f"the check {entry.id or entry.description!r} is of type {entry.type} and engine {entry.engine}: "
                    f"checks are run as type custom, engine {ENGINE}, with an SQL expression as implementation"
                )
            yield Rule(entry.description or entry.implementation, entry.implementation)

    def _service_levels(self) -> Iterator[ServiceLevel]:
        for level in self._document.slaProperties or ():
            value = " ".join(str(part) for part in (level.value, level.unit) if part is not None)
            yield ServiceLevel(level.property or "", value, level.description or "")

    def _prove(self, contract: Contract) -> None:
        """Raise unless the columns that the contract speaks of are its own, each once, and it says what it must."""
        names = [column.name for column in contract.columns]
        if len(set(names)) != len(names):
            raise self._wrong("a column is declared twice")
        spoken = (*contract.series, *contract.origin, contract.time)
        strangers = [name for name in spoken if name not in names]
        if strangers:
            raise self._wrong(f"series, origin or time name {strangers[0]!r}, which is no column")
        if partial := next(
            (column for column in contract.columns if column.markets and not column.optional), None
        ):
            raise self._wrong(f"{partial.name} is required, but only some markets have it")
        if not contract.primary_key or not contract.series or not contract.origin or not contract.owner:
            raise self._wrong("a primary key, a series, an origin and an owner (team) have to be declared")

    def _wrong(self, what: str) -> ContractError:
        return ContractError(f"{self._origin}: {what}.")

    @staticmethod
    def _custom(properties: "Sequence[CustomProperty] | None") -> dict[str, Any]:
        return {own.property or "": own.value for own in properties or ()}
