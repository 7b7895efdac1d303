"""The data types that are parsed. The engine reads these declarations and knows no data type itself.

To parse a further one, add its :class:`TableType` to :data:`TABLE_TYPES`. The order of the columns in a file
comes from the venue's catalogue (`Dataset.columns`), so one declaration serves all markets and venues that
have it.
"""

from collections.abc import Mapping

import polars as pl

from marketlake.domain.archive import ArchiveFile
from marketlake.domain.period import Period
from marketlake.domain.venue import load_venue
from marketlake.pipeline.contracts.table_type import (
    Check,
    Column,
    Kind,
    TableType,
    UnsupportedDatasetError,
)
from marketlake.pipeline.quality.gaps import missing_bars, missing_fundings, missing_ids

_NONE = pl.lit(None, pl.Float64)

_BAR = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count")
_TAKER = ("taker_buy_volume", "taker_buy_quote_volume")

KLINES = TableType(
    data_type="klines",
    name="klines",
    columns=(
        Column("open_time", Kind.TIME),
        *(Column(name, Kind.DOUBLE) for name in ("open", "high", "low", "close", "volume")),
        Column("close_time", Kind.TIME),
        Column("quote_volume", Kind.DOUBLE),
        Column("count", Kind.INTEGER),
        Column("taker_buy_volume", Kind.DOUBLE),
        Column("taker_buy_quote_volume", Kind.DOUBLE),
    ),
    by_interval=True,
    time="open_time",
    silver={
        **{name: pl.col(name) for name in (*_BAR, *_TAKER)},
        "contracts": _NONE,
        "taker_buy_contracts": _NONE,
    },
    silver_by_market={
        # Whatever the header says, COIN-M volumes are contracts and "quote" volumes are base asset.
        ("binance", "cm"): {
            "volume": pl.col("quote_volume"),
            "quote_volume": _NONE,
            "taker_buy_volume": pl.col("taker_buy_quote_volume"),
            "taker_buy_quote_volume": _NONE,
            "contracts": pl.col("volume"),
            "taker_buy_contracts": pl.col("taker_buy_volume"),
        }
    },
    period_time="open_time",
    period=Period.MONTH,
    key=("open_time",),
    checks=(
        Check("a price is not positive", pl.min_horizontal("open", "high", "low", "close") <= 0),
        Check("high is below open, close or low", pl.col("high") < pl.max_horizontal("open", "close", "low")),
        Check("low is above open or close", pl.col("low") > pl.min_horizontal("open", "close")),
        Check("a volume or count is negative", pl.min_horizontal("volume", "count", "taker_buy_volume") < 0),
        Check("close_time is not after open_time", pl.col("close_time") <= pl.col("open_time")),
    ),
    missing=missing_bars,
)

AGG_TRADES = TableType(
    data_type="aggTrades",
    name="agg_trades",
    columns=(
        Column("agg_trade_id", Kind.INTEGER),
        Column("price", Kind.DOUBLE),
        Column("quantity", Kind.DOUBLE),
        Column("first_trade_id", Kind.INTEGER),
        Column("last_trade_id", Kind.INTEGER),
        Column("transact_time", Kind.TIME),
        Column("is_buyer_maker", Kind.BOOLEAN),
        Column("is_best_match", Kind.BOOLEAN, optional=True),
    ),
    time="transact_time",
    silver={
        name: pl.col(name)
        for name in (
            "agg_trade_id",
            "price",
            "quantity",
            "first_trade_id",
            "last_trade_id",
            "transact_time",
            "is_buyer_maker",
            "is_best_match",
        )
    },
    period_time="transact_time",
    period=Period.DAY,
    key=("agg_trade_id",),
    checks=(
        Check("the price is not positive", pl.col("price") <= 0),
        Check("the quantity is not positive", pl.col("quantity") <= 0),
        Check("last_trade_id is before first_trade_id", pl.col("last_trade_id") < pl.col("first_trade_id")),
    ),
    missing=missing_ids("agg_trade_id", "transact_time"),
)

FUNDING_RATE = TableType(
    data_type="fundingRate",
    name="funding_rate",
    columns=(
        Column("calc_time", Kind.TIME),
        Column("funding_interval_hours", Kind.INTEGER),
        Column("last_funding_rate", Kind.DOUBLE),
    ),
    time="calc_time",
    silver={
        # Published times jitter by milliseconds around the full minute at which the funding is due.
        "funding_time": pl.col("calc_time").dt.round("1m"),
        "calc_time": pl.col("calc_time"),
        "funding_interval_hours": pl.col("funding_interval_hours"),
        "last_funding_rate": pl.col("last_funding_rate"),
    },
    period_time="funding_time",
    period=Period.YEAR,
    key=("funding_time",),
    checks=(
        Check(
            "funding_interval_hours is not within 1..24", ~pl.col("funding_interval_hours").is_between(1, 24)
        ),
        Check("the rate is beyond ±100 %", pl.col("last_funding_rate").abs() > 1),
    ),
    missing=missing_fundings,
)

TABLE_TYPES: Mapping[str, TableType] = {
    declared.data_type: declared for declared in (KLINES, AGG_TRADES, FUNDING_RATE)
}


def table_type(data_type: str) -> TableType:
    """Return the declaration of a data type.

    Raises:
        UnsupportedDatasetError: there is none yet.
    """
    declared = TABLE_TYPES.get(data_type)
    if declared is None:
        raise UnsupportedDatasetError(
            f"no parsing is declared for {data_type!r}; declared are: {', '.join(TABLE_TYPES)}. Its files "
            "can be listed, and a declaration in marketlake/pipeline/contracts/tables.py makes them parsed."
        )
    return declared


def is_supported(data_type: str) -> bool:
    """Return whether files of a data type can be parsed."""
    return data_type in TABLE_TYPES


def file_columns(file: ArchiveFile) -> tuple[str, ...]:
    """Return the names of the columns in an archive file, in order, from its venue's datasets."""
    for dataset in load_venue(file.venue).datasets():
        if (dataset.market, dataset.data_type) == (file.market, file.data_type):
            return dataset.columns
    raise UnsupportedDatasetError(
        f"{file.venue} has no dataset {file.market} {file.data_type}; its catalogue would have to name the "
        "columns."
    )
