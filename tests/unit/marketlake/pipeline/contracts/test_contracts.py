"""Contracts are the one place where a table is declared: what is in them is everywhere, and what is wrong is told."""

import copy
import json
from datetime import date
from importlib.metadata import EntryPoint
from importlib.resources import files
from pathlib import Path

import jsonschema
import polars as pl
import pytest
import yaml
from deltalake import DeltaTable
from marketlake.archive.venues.binance import Binance
from marketlake.domain.archive import Series
from marketlake.domain.venue import ContractMapping, load_venue
from marketlake.pipeline.batch.silver import refine_series
from marketlake.pipeline.contracts import tables
from marketlake.pipeline.contracts.contract import ContractError
from marketlake.pipeline.contracts.page import datasets_page
from marketlake.pipeline.contracts.reading import read_contract
from marketlake.pipeline.contracts.table_type import Kind, UnsupportedDatasetError
from marketlake.pipeline.contracts.tables import (
    compile_table_type,
    contracts,
    file_columns,
    read_contracts,
    table_type,
)
from marketlake.pipeline.ingest.bronze import Bronze
from obstore.store import MemoryStore

from tests.unit.marketlake.pipeline.files import (
    KLINES,
    LIMITS,
    TRADES,
    archive_file,
    bring_in,
    kline,
    lines,
    zipped,
)
from tests.unit.marketlake.pipeline.files import written as written_to

STANDARD = json.loads(files("open_data_contract_standard").joinpath("schema.json").read_text())
FOLDER = Path(tables.__file__).parent
DOCUMENTS = {
    f"{file.parent.name}.{file.name.removesuffix('.odcs.yaml')}": yaml.safe_load(file.read_text())
    for file in sorted(FOLDER.glob("*/*.odcs.yaml"))
}
BARS = Series(venue="binance", market="spot", data_type="klines", symbol="BTCUSDT", interval="1m")


def written(folder, documents):
    """A folder of contracts, which is a package."""
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    for name, document in documents.items():
        file = folder / name.split(".")[0] / f"{name.split('.')[1]}.odcs.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False))
    return folder


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Returns a function that makes these packages the ones with contracts."""

    def install(*packages):
        points = [EntryPoint(name, name, tables.ENTRY_POINT_GROUP) for name in packages]
        monkeypatch.setattr(tables, "entry_points", lambda group: points)
        monkeypatch.syspath_prepend(tmp_path)
        contracts.cache_clear()
        table_type.cache_clear()
        return contracts()

    yield install
    contracts.cache_clear()
    table_type.cache_clear()


def dataset(market, data_type):
    return next(d for d in Binance().datasets() if (d.market, d.data_type) == (market, data_type))


@pytest.fixture
def documents():
    return copy.deepcopy(DOCUMENTS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_contract_follows_the_standard(name):
    jsonschema.validate(DOCUMENTS[name], STANDARD)


@pytest.mark.parametrize("contract", list(contracts()), ids=lambda contract: contract.table)
def test_every_contract_says_what_users_ask(contract):
    assert contract.purpose
    assert contract.owner
    assert {"freshness", "retention"} <= {level.name for level in contract.service_levels}
    assert all(column.description for column in contract.columns)


def test_every_file_of_a_contract_is_installed_under_the_name_of_its_table():
    assert {contract.table for contract in contracts()} == set(DOCUMENTS)


def test_every_data_type_with_a_mapping_is_parsed_and_refined_by_contracts():
    for found in (d for d in Binance().datasets() if d.mapping):
        declared = table_type("binance", found.market, found.data_type)
        assert declared.bronze.name == found.mapping.published
        assert list(declared.values) == [column.name for column in declared.silver.content]


VWAP = {"name": "vwap", "logicalType": "number", "physicalType": "double", "description": "Mean price."}
NOTE = {
    "name": "note",
    "logicalType": "string",
    "physicalType": "string",
    "required": True,
    "description": "Remark of the venue.",
}
CHECK = {
    "type": "custom",
    "engine": "polars",
    "description": "the mean price is not positive",
    "implementation": "vwap <= 0",
}


@pytest.fixture
def widened(documents, tmp_path, install):
    """Contracts with two columns more; nothing else is changed."""
    for name, position in (("bronze.binance_klines", None), ("silver.candles", -2)):
        properties = documents[name]["schema"][0]["properties"]
        quality = [CHECK] if name == "silver.candles" else []
        properties[position or len(properties) : position or len(properties)] = [
            {**VWAP, "required": True, "quality": quality, "customProperties": [{"property": "unit", "value": "USD"}]},
            NOTE,
        ]  # fmt: skip
    written(tmp_path / "marketlake_wide", documents)
    return install("marketlake_wide")


def wide(minute, vwap, note="fine"):
    return kline(minute).removesuffix(",0") + f",{vwap},{note},0"


def test_a_column_added_to_a_contract_alone_appears_everywhere(widened, lake):
    assert file_columns(archive_file(KLINES))[-3:] == ("vwap", "note", "ignore")

    rows = (wide(0, 2.5), wide(1, "n/a"), wide(2, -1), wide(3, 2.5, " x "), wide(4, 2.5, '""'))
    done = bring_in(lake, KLINES, lines(*rows))
    assert (done.rows, done.quarantined) == (3, 2), "the parser reads it by the type that the contract says"
    bronze = pl.read_delta(lake.uri("bronze/binance_klines"))
    assert bronze.select("vwap", "note").rows() == [(2.5, "fine"), (-1.0, "fine"), (2.5, "x")]

    refined = refine_series(lake, BARS, [date(2020, 1, 1)])
    silver = pl.read_delta(lake.uri("silver/candles"))
    assert silver.select("vwap", "note").rows() == [(2.5, "fine"), (2.5, "x")]
    assert refined.rejected == 1
    reasons = pl.read_delta(lake.uri("quarantine"))["reason"].to_list()
    assert sorted(reasons) == ["note is empty", "the mean price is not positive", "vwap: 'n/a' is no number"]

    for path in ("bronze/binance_klines", "silver/candles"):
        fields = {field.name: field for field in DeltaTable(lake.uri(path)).schema().fields}
        assert str(fields["vwap"].type.type) == "double"
        assert fields["vwap"].metadata == {"comment": "Mean price. Unit: USD."}
        assert fields["note"].metadata == {"comment": "Remark of the venue."}

    page = datasets_page(widened, Binance().datasets())
    assert page.count("| `vwap` | double | USD | Mean price. |") == 2
    assert "| the mean price is not positive | `vwap <= 0` |" in page


def test_a_new_column_comes_to_a_lake_that_is_there(documents, tmp_path, install, lake):
    narrow = written_to(lake, {KLINES: zipped(lines(kline(0)))}).data_file
    bring_in(lake, KLINES, lines(kline(0)))
    refine_series(lake, BARS, [date(2020, 1, 1)])
    for name, position in (("bronze.binance_klines", None), ("silver.candles", -2)):
        properties = documents[name]["schema"][0]["properties"]
        properties[position or len(properties) : position or len(properties)] = [VWAP]
    written(tmp_path / "marketlake_wider", documents)
    install("marketlake_wider")

    later = KLINES.replace("01-01", "01-02")
    bring_in(lake, later, lines(kline(0, day=1_577_923_200_000).removesuffix(",0") + ",2.5,0"))
    bronze = pl.read_delta(lake.uri("bronze/binance_klines"))
    assert dict(bronze.select("source_key", "vwap").rows()) == {KLINES: None, later: 2.5}
    refine_series(lake, BARS, [date(2020, 1, 2)])
    silver = pl.read_delta(lake.uri("silver/candles"))
    assert silver.sort("open_time")["vwap"].to_list() == [None, 2.5]

    rewritten = Bronze(lake, MemoryStore(), LIMITS).without(
        "bronze/binance_klines", narrow, {"other"}, "rewritten"
    )
    assert pl.read_parquet(lake.uri(f"bronze/binance_klines/{rewritten.key}"))["vwap"].to_list() == [None]


def test_what_was_read_at_once_is_put_as_what_was_read_with_care(widened, lake):
    bring_in(lake, KLINES, lines(wide(0, 2.5, " at once\t"), wide(1, 2.5, "other")))
    assert pl.read_delta(lake.uri("bronze/binance_klines"))["note"].to_list() == ["at once", "other"]


def test_all_columns_of_a_table_have_a_comment(lake):
    bring_in(lake, TRADES)
    fields = DeltaTable(lake.uri("bronze/binance_agg_trades")).schema().fields
    assert all(field.metadata["comment"] for field in fields)


def test_a_silver_column_that_a_venue_does_not_have_is_null(documents, tmp_path):
    documents["silver.candles"]["schema"][0]["properties"].insert(-2, VWAP)
    found = read_contracts([written(tmp_path, documents)])
    spot = dataset("spot", "klines")
    declared = compile_table_type(spot, spot.mapping, found)
    row = pl.DataFrame({"open": [1.0]}).select(declared.values["vwap"])
    assert row["vwap"].to_list() == [None]
    assert row.schema["vwap"] == pl.Float64()


def test_a_column_of_one_market_is_expected_in_its_files_only():
    assert "is_best_match" in table_type("binance", "spot", "aggTrades").file_columns
    for market in ("um", "cm"):
        declared = table_type("binance", market, "aggTrades")
        assert "is_best_match" not in declared.file_columns
        assert "is_best_match" in [column.name for column in declared.columns]


def test_contracts_of_another_package_are_found(documents, tmp_path, install):
    table = documents["bronze.binance_klines"]["schema"][0]
    table["name"], table["physicalName"] = "other_candles", "bronze.other_candles"
    written(tmp_path / "marketlake_other", {"bronze.other_candles": documents["bronze.binance_klines"]})
    found = install("marketlake_other", tables.__package__)
    assert {contract.table for contract in found} == {*DOCUMENTS, "bronze.other_candles"}


def test_two_contracts_of_one_table_are_refused(documents, tmp_path):
    with pytest.raises(ContractError, match=r"another contract describes silver\.agg_trades, too"):
        read_contracts([FOLDER, written(tmp_path, documents)])


def wrong(**changes):
    """A contract of candles with some of its table's fields changed."""
    document = copy.deepcopy(DOCUMENTS["silver.candles"])
    document["schema"][0].update(changes)
    return yaml.safe_dump(document)


def own(**changes):
    """Custom properties of candles, some changed."""
    former = DOCUMENTS["silver.candles"]["schema"][0]["customProperties"]
    values = {entry["property"]: entry["value"] for entry in former} | changes
    return {"customProperties": [{"property": name, "value": value} for name, value in values.items()]}


COLUMNS = DOCUMENTS["silver.candles"]["schema"][0]["properties"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "candles is no data contract"),
        ("schema: 5", "candles is no data contract"),
        ("nonsense: 5", "candles is no data contract"),
        ("id: a", "a contract describes one table, this one 0"),
        (wrong(physicalName="gold.candles"), "physicalName is 'gold.candles': it has to be bronze.candles or silver"),
        (wrong(name="bars"), "it has to be bronze.bars or silver.bars"),
        (wrong(properties=[*COLUMNS, {**VWAP, "physicalType": "decimal"}]), "vwap is number as decimal: known are str"),
        (wrong(properties=[*COLUMNS, COLUMNS[-1]]), "a column is declared twice"),
        (wrong(properties=[*COLUMNS, {**NOTE, "customProperties": [{"property": "markets", "value": ["spot"]}]}]),
         "note is required, but only some markets have it"),
        (wrong(**own(period="week")), "period is 'week': it has to be one of day, month, year"),
        (wrong(**own(continuity="ticks")), "continuity is 'ticks': it has to be one of bars, numbers, fundings"),
        (wrong(**own(series=["venue", "exchange"])), "series, origin or time name 'exchange', which is no column"),
        (wrong(**own(time="when")), "series, origin or time name 'when', which is no column"),
        (wrong(**own(origin=[])), "an origin and an owner .* have to be declared"),
        (wrong(quality=[{"type": "sql", "query": "select 1", "id": "q"}]), "the check 'q' is of type sql and engine"),
    ],
)  # fmt: skip
def test_a_contract_that_cannot_be_held_is_refused_with_what_can(text, message):
    with pytest.raises(ContractError, match=message):
        read_contract(text, "candles")


MAPPING = load_venue("binance").datasets()[0].mapping


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"published": "binance_books"},
            "binance spot klines is mapped to 'binance_books', of which there is no",
        ),
        (
            {"dataset": "books"},
            "is mapped to 'books', of which there is no contract; there are: agg_trades, candles",
        ),
        ({"columns": {"spread": "high - low"}}, r"maps 'spread', which is no column of silver\.candles"),
        ({"columns": {"open": "first(open"}}, r"open: 'first\(open' is no SQL expression"),
        ({"columns": {"open": "mid"}}, "open: 'mid' speaks of 'mid', which is no column there"),
        ({"fixed": {}}, "wants one value of each of these: price_kind: trade, mark, index, premium"),
        ({"fixed": {"price_kind": "ask"}}, "fixes {'price_kind': 'ask'}"),
        (
            {"dataset": "agg_trades", "fixed": {}},
            "agg_trades requires 'agg_trade_id', which binance_klines does not",
        ),
    ],
)
def test_a_mapping_that_fits_no_contract_is_refused(changes, message):
    values = {"published": MAPPING.published, "dataset": MAPPING.dataset, "fixed": MAPPING.fixed} | changes
    with pytest.raises(ContractError, match=message):
        compile_table_type(dataset("spot", "klines"), ContractMapping(**values), contracts())


def test_a_check_of_a_column_that_is_not_there_is_refused(documents, tmp_path):
    documents["silver.candles"]["schema"][0]["quality"].append(CHECK)
    found = read_contracts([written(tmp_path, documents)])
    spot = dataset("spot", "klines")
    with pytest.raises(
        ContractError, match=r"silver\.candles: 'vwap <= 0' speaks of 'vwap', which is no column"
    ):
        compile_table_type(spot, spot.mapping, found)


def test_a_dataset_without_a_contract_is_refused_with_those_that_have_one():
    with pytest.raises(UnsupportedDatasetError, match="mapped are: klines, aggTrades, fundingRate"):
        table_type("binance", "um", "metrics")
    with pytest.raises(UnsupportedDatasetError, match="binance has no dataset margin klines"):
        table_type("binance", "margin", "klines")


def test_a_columns_comment_has_its_unit():
    price = next(column for column in contracts().silver["candles"].columns if column.name == "open")
    assert (price.kind, price.comment) == (Kind.DOUBLE, "First price. Unit: quote asset.")
