from datetime import date, datetime

import pytest
from marketlake.cli.exit_codes import UsageError
from marketlake.cli.selection import SelectionOptions, endpoint_from, select
from marketlake.domain.archive import Frequency
from marketlake.domain.venue import UnknownVenueError
from marketlake.settings import VenueEndpoint

DAY, NEXT_DAY = (datetime(2020, 1, day) for day in (1, 2))  # noqa: DTZ001 - as typer parses an option
USUAL = VenueEndpoint(endpoint="https://s3.example", bucket="data.example")


def options(**changes: object) -> SelectionOptions:
    values: dict[str, object] = {
        "venue": "binance",
        "market": None,
        "data_type": None,
        "interval": None,
        "symbols": [],
        "frequency": None,
        "start": None,
        "end": None,
    }
    return SelectionOptions(**(values | changes))  # type: ignore[arg-type]


def test_a_full_wish_becomes_a_selection() -> None:
    venue, selection = select(
        options(
            market="spot",
            data_type="klines",
            interval="1m",
            symbols=["BTCUSDT", "ETHUSDT", "BTCUSDT"],
            frequency="daily",
            start=DAY,
            end=DAY,
        )
    )
    assert venue.name == "binance"
    assert (selection.market, selection.data_type, selection.interval) == ("spot", "klines", "1m")
    assert selection.symbols == ("BTCUSDT", "ETHUSDT")
    assert selection.frequency is Frequency.DAILY
    assert (selection.start, selection.end) == (date(2020, 1, 1), date(2020, 1, 1))


def test_a_data_type_may_be_named_by_its_neutral_id() -> None:
    _, selection = select(options(market="spot", data_type="candles", interval="1m"))
    assert selection.data_type == "candles"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"market": "spott"}, r"no market 'spott'; did you mean 'spot'\? It has: cm, option, spot, um\."),
        ({"market": "xyz"}, r"no market 'xyz'\. It has: cm"),
        (
            {"market": "spot", "data_type": "Klines"},
            r"binance spot has no type 'Klines'; did you mean 'klines'",
        ),
        ({"market": "spot", "data_type": "fundingRate"}, r"binance spot has no type 'fundingRate'"),
        ({"market": "spot", "data_type": "candle"}, r"no type 'candle'; did you mean 'candles'"),
        ({"market": "spot", "data_type": "funding_rates"}, r"binance spot has no type 'funding_rates'"),
        ({"data_type": "candles", "interval": "7m"}, r"candles has no interval '7m'.* It has: .*1m"),
        ({"data_type": "klines", "interval": "7m"}, r"klines has no interval '7m'.* It has: .*1m"),
        (
            {"data_type": "aggTrades", "interval": "1m"},
            r"binance aggTrades has no intervals: leave --interval 1m out",
        ),
        (
            {"start": NEXT_DAY, "end": DAY},
            r"--from 2020-01-02 is after --to 2020-01-01",
        ),
        ({"symbols": ["BTC/USDT"]}, r"'BTC/USDT' is no symbol"),
        ({"symbols": [""]}, r"'' is no symbol"),
        ({"symbols": [" BTCUSDT"]}, r"is no symbol"),
    ],
)
def test_what_does_not_exist_is_told_with_what_does(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        select(options(**changes))


def test_an_unknown_venue_is_told_with_those_that_are_installed() -> None:
    with pytest.raises(UnknownVenueError, match=r"installed are: .*binance"):
        select(options(venue="binanse"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:9000", ("http://127.0.0.1:9000", "data.example")),
        ("http://127.0.0.1:9000/", ("http://127.0.0.1:9000", "data.example")),
        ("https://s3.x.com/other.bucket", ("https://s3.x.com", "other.bucket")),
    ],
)
def test_an_endpoint_names_a_service_and_perhaps_a_bucket(url: str, expected: tuple[str, str]) -> None:
    endpoint = endpoint_from(url, USUAL)
    assert (endpoint.endpoint, endpoint.bucket) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:9000",
        "ftp://h",
        "http://",
        "http://h/a/b",
        "http://h?x=1",
        "http://u:p@h",
        "http://h:port",
    ],
)
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"is no address of an S3 service: write http\(s\)://HOST"):
        endpoint_from(url, USUAL)
