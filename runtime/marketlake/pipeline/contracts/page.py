"""The page of documentation that says what each table holds and promises, written from the contracts."""

from collections.abc import Iterable, Iterator

from marketlake.domain.venue import Dataset
from marketlake.pipeline.contracts.contract import Contract, Layer, SilverContract
from marketlake.pipeline.contracts.table_type import Column, Kind
from marketlake.pipeline.contracts.tables import Contracts

_HEAD = """\
<!-- Written by `make reference` from the data contracts (marketlake/pipeline/contracts): change it there. -->
# Datasets

What each table holds and promises. Bronze tables hold rows as a venue publishes them; silver tables hold them
harmonised over venues: in order, each once, checked. Rows that break a check are in `quarantine` with the reason that
stands here, and rows that are missing in `gaps`. `marketlake sql` queries all of them, and the tables' metadata have
the columns' descriptions, too.

`--type` takes the venue's word or the dataset.

| dataset | venue | its word | markets | rows as published |
|---|---|---|---|---|
"""
_TYPES = {
    Kind.INTEGER: "whole number",
    Kind.DOUBLE: "double",
    Kind.BOOLEAN: "truth value",
    Kind.TIME: "UTC timestamp",
    Kind.TEXT: "text",
}


def datasets_page(contracts: Contracts, datasets: Iterable[Dataset]) -> str:
    """Return the page as Markdown.

    Args:
        contracts: what is described.
        datasets: of all venues; those with a mapping are listed.
    """
    sections = (line for contract in contracts for line in _section(contract))
    return _HEAD + "\n".join([*_words(datasets), *sections]) + "\n"


def _words(datasets: Iterable[Dataset]) -> list[str]:
    markets: dict[tuple[str, ...], list[str]] = {}
    for dataset in datasets:
        if mapping := dataset.mapping:
            fixed = ", ".join(mapping.fixed.values())
            row = (
                f"`{mapping.dataset}`{f' ({fixed})' if fixed else ''}",
                dataset.venue,
                f"`{dataset.data_type}`",
                f"`bronze.{mapping.published}`",
            )
            markets.setdefault(row, []).append(dataset.market)
    return sorted(
        _row(name, venue, word, ", ".join(found), table)
        for (name, venue, word, table), found in markets.items()
    )


def _section(contract: Contract) -> Iterator[str]:
    yield from (
        "",
        f"## {contract.table}",
        "",
        f"**{contract.title}**, version {contract.version}. {contract.purpose}",
    )
    for text in (contract.usage, contract.limitations):
        if text:
            yield from ("", text)
    yield from ("", f"{contract.granularity} Key: {_names(contract.primary_key)}.")
    if isinstance(contract, SilverContract):
        yield f"A {contract.period.name.lower()} of a series is written as a whole, by `{contract.time}`."
    yield from ("", "| column | type | unit | what |", "|---|---|---|---|")
    yield from (_column(column) for column in contract.columns)
    if contract.layer is Layer.SILVER:
        yield from (
            "",
            "A row without a value that has to be there is rejected, and one of which one of these is true:",
        )
        yield from ("", "| reason | expression |", "|---|---|")
        yield from (_row(rule.reason, f"`{rule.broken}`") for rule in contract.rules)
    yield from (line for text in contract.assurances for line in ("", text))
    yield ""
    yield from (f"- {level.name}: {level.value}. {level.description}" for level in contract.service_levels)
    yield f"- owner: {contract.owner}"
    yield from (f"- source: [{source.description}]({source.url})" for source in contract.sources)


def _column(column: Column) -> str:
    kind = f"{_TYPES[column.kind]}{', may be null' if column.optional else ''}"
    return _row(f"`{column.name}`", kind, column.unit or "", column.description)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
