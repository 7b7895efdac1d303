import time
from datetime import UTC, date, datetime

import httpx
import pytest
from marketlake.archive.discovery import listing
from marketlake.archive.discovery.discover import absent_datasets, discover
from marketlake.archive.discovery.listing import PAGE, BucketListing, ListingError, parse_page
from marketlake.archive.venues.binance import Binance
from marketlake.domain.archive import Frequency, Selection
from marketlake.domain.venue import Integrity, Listing, SelectionError
from marketlake.retry import Backoff
from marketlake.settings import VenueEndpoint
from marketlake.sync.errors import (
    AccessDeniedError,
    NotPublishedError,
    OversizedAnswerError,
    RateLimitedError,
    RedirectRefusedError,
    RequestRefusedError,
    StalledError,
    VenueUnavailableError,
    VenueUnreachableError,
)
from marketlake.sync.transport import Timeouts, accept, connection_error

from tests.exchange import LISTING, Failure, FakeExchange

QUICK = Backoff(attempts=3, first_wait_s=0.01)
TIMEOUTS = Timeouts(connect_s=10, read_s=20)
STALLED = Timeouts(connect_s=10, read_s=0.3)
"""For a server that sends nothing."""
KLINES = "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-{day}.zip"
LATER = date(2026, 11, 1)


@pytest.fixture
def exchange():
    with FakeExchange() as running:
        yield running


def klines(**selected):
    return Selection(venue="binance", market="spot", data_type="klines", **selected)


def found(exchange, selection, *, today=LATER, backoff=QUICK, timeouts=TIMEOUTS):
    return list(
        discover(Binance(), exchange.endpoint, selection, backoff=backoff, timeouts=timeouts, today=today)
    )


def test_files_come_with_size_etag_time_and_sidecar(exchange):
    exchange.publish(KLINES.format(day="2020-01-01"), b"PK" * 50)
    (file,) = found(exchange, klines(interval="1m", symbols=("BTCUSDT",)))
    assert file.key == KLINES.format(day="2020-01-01")
    assert (file.start, file.end) == (date(2020, 1, 1), date(2020, 1, 1))
    assert file.size == 100
    assert file.etag == exchange.objects[file.key].etag
    assert file.last_modified == datetime(2026, 5, 9, 6, 13, 42, tzinfo=UTC)
    assert file.sidecar_key == f"{file.key}.CHECKSUM"


def test_a_file_whose_sidecar_is_missing_is_found_and_says_so(exchange):
    exchange.publish(KLINES.format(day="2020-01-01"), b"PK", sidecar=False)
    (file,) = found(exchange, klines(interval="1m", symbols=("BTCUSDT",)))
    assert file.sidecar_key is None


class Unlistable(Binance):
    """A venue whose files can only be asked for by their keys."""

    listing = Listing.KEYS
    integrity = Integrity.ETAG

    def sidecar_key(self, key):
        return None


def asked(exchange, selection):
    return list(
        discover(
            Unlistable(),
            exchange.endpoint,
            selection,
            backoff=QUICK,
            timeouts=TIMEOUTS,
            today=date(2020, 1, 4),
        )
    )


def test_a_venue_that_cannot_be_listed_is_asked_for_each_file(exchange):
    for day in ("2020-01-01", "2020-01-03"):
        exchange.publish(KLINES.format(day=day), b"PK" * 50, sidecar=False)
    monthly = "data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2019-12.zip"
    exchange.publish(monthly, b"PK", sidecar=False)
    wanted = klines(interval="1m", symbols=("BTCUSDT", "ETHUSDT"), start=date(2019, 12, 31))
    files = asked(exchange, wanted)
    assert [file.key for file in files] == [
        KLINES.format(day="2020-01-01"),
        KLINES.format(day="2020-01-03"),
        monthly,
    ]
    assert [(file.start, file.end) for file in files][-1] == (date(2019, 12, 1), date(2019, 12, 31))
    assert files[0].etag == exchange.objects[files[0].key].etag
    assert (files[0].size, files[0].sidecar_key) == (100, None)
    # four days and two months of two symbols; none of a day that has not ended
    assert len(exchange.requests) == 2 * (4 + 2)
    assert {method for method, _ in exchange.requests} == {"HEAD"}


@pytest.mark.parametrize("missing", [{"symbols": ()}, {"start": None}], ids=str)
def test_who_asks_for_all_of_a_venue_that_cannot_be_listed_is_told_what_to_name(exchange, missing):
    wanted = {"interval": "1m", "symbols": ("BTCUSDT",), "start": date(2020, 1, 1), **missing}
    with pytest.raises(SelectionError, match=r"binance cannot be listed: name the symbols and the first day"):
        asked(exchange, klines(**wanted))
    assert exchange.requests == []


def test_a_venue_that_denies_what_is_not_there_is_believed_but_not_one_that_denies_all(exchange):
    wanted = klines(
        interval="1m",
        symbols=("BTCUSDT",),
        frequency=Frequency.DAILY,
        start=date(2020, 1, 2),
        end=date(2020, 1, 3),
    )
    there, missing = (KLINES.format(day=day) for day in ("2020-01-02", "2020-01-03"))
    exchange.publish(there, b"PK", sidecar=False)
    exchange.fail(missing, Failure.FORBIDDEN)
    assert [file.key for file in asked(exchange, wanted)] == [there]
    exchange.fail(there, Failure.FORBIDDEN)
    with pytest.raises(AccessDeniedError):
        asked(exchange, wanted)


def test_a_bucket_without_checksum_files_is_listed_as_it_is(exchange):
    class Plain(Unlistable):
        listing = Listing.BUCKET

    days = [f"2020-01-0{day}" for day in (1, 2)]
    for day in days:
        exchange.publish(KLINES.format(day=day), b"PK", sidecar=False)
    exchange.publish(KLINES.format(day="2020-01-03"), b"PK", sidecar=False)
    exchange.hidden.add(KLINES.format(day="2020-01-03"))
    wanted = klines(interval="1m", symbols=("BTCUSDT",))
    files = list(
        discover(Plain(), exchange.endpoint, wanted, backoff=QUICK, timeouts=TIMEOUTS, today=date(2020, 1, 4))
    )
    assert [file.key for file in files] == [KLINES.format(day=day) for day in (*days, "2020-01-03")]
    assert not any(file.sidecar_key for file in files)


def test_symbols_and_intervals_are_asked_of_the_bucket_delisted_ones_too(exchange):
    for symbol in ("BTCUSDT", "VENBTC", "币安人生USDT"):
        for interval in ("1m", "1h"):
            exchange.publish(
                f"data/spot/daily/klines/{symbol}/{interval}/{symbol}-{interval}-2020-01-01.zip", b"PK"
            )
    series = {(file.symbol, file.interval) for file in found(exchange, klines(frequency=Frequency.DAILY))}
    assert series == {
        (symbol, interval) for symbol in ("BTCUSDT", "VENBTC", "币安人生USDT") for interval in ("1m", "1h")
    }


def test_a_neutral_id_finds_the_files_of_the_venues_data_types(exchange):
    exchange.publish(KLINES.format(day="2020-01-01"), b"PK")
    by_word = found(exchange, klines(interval="1m", symbols=("BTCUSDT",)))
    selection = Selection(
        venue="binance", market="spot", data_type="candles", interval="1m", symbols=("BTCUSDT",)
    )
    assert found(exchange, selection) == by_word != []


def test_a_data_type_that_nobody_knows_is_refused(exchange):
    with pytest.raises(SelectionError, match=r"binance has no data type 'books'; it has: .*klines"):
        found(exchange, Selection(venue="binance", data_type="books"))


def test_long_listings_are_read_page_by_page(exchange):
    exchange.page = 7
    for number in range(1, 29):
        exchange.publish(KLINES.format(day=f"2020-02-{number:02}"), b"PK")
        exchange.publish(f"data/spot/daily/klines/S{number:02}/1m/S{number:02}-1m-2020-02-01.zip", b"PK")
    files = found(exchange, klines(interval="1m", frequency=Frequency.DAILY))
    assert len(files) == 56
    assert len({file.key for file in files}) == 56
    assert all(file.sidecar_key for file in files)


def test_days_bound_what_is_listed_not_only_what_is_returned(exchange):
    exchange.page = 20
    for number in range(400):
        exchange.publish(KLINES.format(day=date.fromordinal(date(2020, 1, 1).toordinal() + number)), b"PK")
    selection = klines(
        interval="1m",
        symbols=("BTCUSDT",),
        start=date(2020, 12, 1),
        end=date(2020, 12, 3),
        frequency=Frequency.DAILY,
    )
    assert [file.start.day for file in found(exchange, selection)] == [1, 2, 3]
    assert len(exchange.requests) <= 2


def test_a_monthly_file_is_selected_by_any_of_its_days(exchange):
    for month in ("2020-07", "2020-8", "2020-09"):
        exchange.publish(f"data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-{month}.zip", b"PK")
    selection = klines(interval="1m", symbols=("BTCUSDT",), start=date(2020, 8, 20), end=date(2020, 8, 21))
    assert [file.key[-10:] for file in found(exchange, selection)] == ["2020-8.zip"]


def test_files_behind_a_leading_slash_are_found_too(exchange):
    key = "/data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2018-01.zip"
    exchange.publish(key, b"PK")
    (file,) = found(exchange, klines(interval="1m", symbols=("BTCUSDT",)))
    assert (file.key, file.sidecar_key) == (key, f"{key}.CHECKSUM")


def test_withdrawn_snapshots_are_filtered_by_symbol(exchange):
    for symbol in ("BTCUSDT", "ETHUSDT"):
        exchange.publish(
            f"data3/liquidationSnapshot/{symbol}/{symbol}-liquidationSnapshot-2024-03-31.zip", b"PK"
        )
    selection = Selection(venue="binance", market="um", data_type="liquidationSnapshot", symbols=("ETHUSDT",))
    assert [file.symbol for file in found(exchange, selection)] == ["ETHUSDT"]


def test_what_was_never_published_is_reported_absent_and_is_no_failure(exchange):
    selection = Selection(venue="binance", market="spot", data_type="bookTicker")
    assert found(exchange, selection) == []
    assert exchange.requests == []
    assert [dataset.data_type for dataset in absent_datasets(Binance(), selection)] == ["bookTicker"]
    assert absent_datasets(Binance(), klines()) == ()


def test_the_latest_days_are_probed_when_the_listing_is_stale(exchange):
    for day in range(1, 11):
        exchange.publish(KLINES.format(day=f"2026-05-{day:02}"), b"PK")
    exchange.hidden = {key for key in exchange.objects if "05-10" in key or "05-09" in key}
    series = found(exchange, klines(interval="1m", symbols=("BTCUSDT",)), today=date(2026, 5, 11))
    assert [file.start.day for file in series] == list(range(1, 11))
    assert series[-1].sidecar_key is not None
    assert series[-1].size == 2
    yesterday = klines(interval="1m", symbols=("BTCUSDT",), start=date(2026, 5, 10), end=date(2026, 5, 10))
    assert [file.start.day for file in found(exchange, yesterday, today=date(2026, 5, 11))] == [10]


def test_a_day_that_is_not_there_yet_is_not_made_up(exchange):
    exchange.publish(KLINES.format(day="2026-05-09"), b"PK")
    assert len(found(exchange, klines(interval="1m", symbols=("BTCUSDT",)), today=date(2026, 5, 11))) == 1


def test_days_beyond_the_selection_are_not_probed(exchange):
    exchange.publish(KLINES.format(day="2026-05-08"), b"PK")
    selection = klines(interval="1m", symbols=("BTCUSDT",), end=date(2026, 5, 8))
    assert len(found(exchange, selection, today=date(2026, 5, 11))) == 1
    assert not [method for method, _ in exchange.requests if method == "HEAD"]


def test_a_store_that_denies_what_it_does_not_have_ends_the_probing_only(exchange):
    exchange.publish(KLINES.format(day="2026-05-08"), b"PK")
    exchange.fail(f"{KLINES.format(day='2026-05-09')}.CHECKSUM", Failure.FORBIDDEN)
    selection = klines(interval="1m", symbols=("BTCUSDT",))
    assert len(found(exchange, selection, today=date(2026, 5, 11))) == 1


def test_an_ended_series_is_not_probed(exchange):
    exchange.publish(KLINES.format(day="2020-01-01"), b"PK")
    found(exchange, klines(interval="1m", symbols=("BTCUSDT",)))
    assert not [method for method, _ in exchange.requests if method == "HEAD"]


@pytest.mark.parametrize(
    "failure", [Failure.TOO_MANY_REQUESTS, Failure.INTERNAL, Failure.UNAVAILABLE,
                Failure.STALL, Failure.TRUNCATE,
                Failure.SHORTEN, Failure.RESET],
)  # fmt: skip
def test_what_passes_is_waited_out_and_told(exchange, failure, caplog):
    exchange.publish(KLINES.format(day="2020-01-01"), b"PK")
    exchange.fail(LISTING, failure, times=2)
    selection = klines(interval="1m", symbols=("BTCUSDT",), frequency=Frequency.DAILY)
    timeouts = STALLED if failure is Failure.STALL else TIMEOUTS
    assert len(found(exchange, selection, timeouts=timeouts)) == 1
    told = [record.getMessage() for record in caplog.records if "trying again" in record.getMessage()]
    assert len(told) == 2


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        (Failure.FORBIDDEN, AccessDeniedError, "HTTP 403, access denied.*check the venue's endpoint"),
        (Failure.NOT_FOUND, NotPublishedError, "HTTP 404.*discover again"),
        (Failure.TOO_MANY_REQUESTS, RateLimitedError, "HTTP 429, too many requests. Lower"),
        (Failure.INTERNAL, VenueUnavailableError, "HTTP 500, the venue failed"),
        (Failure.UNAVAILABLE, VenueUnavailableError, "HTTP 503"),
        (Failure.STALL, StalledError, "nothing came for 0.3 s"),
        (Failure.TRUNCATE, VenueUnreachableError, "the connection failed"),
        (Failure.SHORTEN, ListingError, "the listing is cut off"),
        (Failure.HTML, ListingError, "a <html> document came instead"),
        (Failure.RESET, VenueUnreachableError, "the connection failed"),
    ],
)
def test_what_does_not_pass_is_said_clearly(exchange, failure, error, message):
    exchange.publish(KLINES.format(day="2020-01-01"), b"PK")
    exchange.fail(LISTING, failure)
    timeouts = STALLED if failure is Failure.STALL else TIMEOUTS
    with pytest.raises(error, match=message):
        found(exchange, klines(interval="1m", symbols=("BTCUSDT",)), timeouts=timeouts)


def test_folders_are_listed_some_at_once_and_come_in_order(exchange):
    symbols = tuple(f"T{number:02}USDT" for number in range(30))
    for symbol in symbols:
        exchange.publish(KLINES.replace("BTCUSDT", symbol).format(day="2020-01-01"), b"PK")
    exchange.bandwidth = 40_000  # each answer takes a twentieth of a second
    began = time.monotonic()
    files = found(exchange, klines(interval="1m", symbols=symbols, frequency=Frequency.DAILY))
    assert [file.symbol for file in files] == list(symbols)
    assert time.monotonic() - began < 30 * 0.05


def test_refusals_are_not_repeated(exchange):
    exchange.fail(LISTING, Failure.FORBIDDEN)
    with pytest.raises(AccessDeniedError):
        found(exchange, klines(interval="1m", symbols=("BTCUSDT",), frequency=Frequency.DAILY))
    assert len(exchange.requests) == 1


def test_a_venue_that_is_not_there_is_named():
    nowhere = VenueEndpoint(endpoint="http://127.0.0.1:9", bucket="b")
    with pytest.raises(VenueUnreachableError, match=r"127\.0\.0\.1:9/b.*check the venue's endpoint"):
        list(discover(Binance(), nowhere, klines(interval="1m"), backoff=QUICK))


@pytest.mark.parametrize(
    ("text", "pause"),
    [("0.1", None), ("1", 1.0), ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0), ("soon", None), ("", None)],
)
def test_retry_after_is_seconds_or_a_date(exchange, text, pause):
    exchange.fail(LISTING, Failure.TOO_MANY_REQUESTS, retry_after=text)
    with pytest.raises(RateLimitedError) as raised:
        found(exchange, klines(interval="1m"), backoff=Backoff(attempts=1))
    assert raised.value.retry_after == pause


def test_a_wait_beyond_the_limit_that_the_venue_asks_for_is_not_sat_out(exchange):
    exchange.fail(LISTING, Failure.UNAVAILABLE, retry_after="3600")
    with pytest.raises(VenueUnavailableError) as raised:
        found(exchange, klines(interval="1m", frequency=Frequency.DAILY))
    assert raised.value.retry_after == 3600
    assert len(exchange.requests) == 1


def test_an_answer_that_is_no_listing_is_refused():
    with pytest.raises(ListingError, match="a <Error> document came instead of a <ListBucketResult>"):
        parse_page(b"<Error><Code>Oops</Code></Error>", "http://x/")


def test_a_listing_that_does_not_say_how_to_go_on_is_refused():
    with pytest.raises(ListingError, match="names no key to go on from"):
        parse_page(b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", "http://x/")


def test_a_listing_page_without_an_end_is_not_read_to_its_end(exchange, monkeypatch):
    monkeypatch.setattr(listing, "LONGEST_PAGE", 100_000)
    exchange.publish(KLINES.format(day="2020-01-01"), b"PK")
    exchange.fail(LISTING, Failure.ENDLESS)
    with pytest.raises(OversizedAnswerError, match=r"longer than 100000 bytes.*begins with b'<\?xml"):
        found(exchange, klines(interval="1m", symbols=("BTCUSDT",), frequency=Frequency.DAILY))
    assert len(exchange.requests) == 1
    assert exchange.sent < 32 * 1024 * 1024  # what lies in the sockets between


def test_a_listing_page_that_only_drips_is_given_up(exchange):
    exchange.publish(KLINES.format(day="2020-01-01"), b"PK")
    exchange.fail(LISTING, Failure.DRIP)
    timeouts = Timeouts(body_s=0.5)
    with pytest.raises(StalledError, match=r"after 0.5 s only [0-9]+ bytes had come"):
        found(
            exchange,
            klines(interval="1m", symbols=("BTCUSDT",)),
            backoff=Backoff(attempts=1),
            timeouts=timeouts,
        )


def test_a_full_page_of_the_longest_keys_is_read(exchange):
    prefix = "data/spot/daily/klines/BTCUSDT/1m/"
    for number in range(PAGE):
        exchange.publish(f"{prefix}{'&' * 980}{number:04}", b"PK", sidecar=False)
    with BucketListing(exchange.endpoint, QUICK, TIMEOUTS) as pages:
        assert len(list(pages.objects(prefix))) == PAGE


def test_pages_that_go_in_circles_are_given_up(exchange):
    exchange.page, exchange.in_circles = 1, True
    for day in ("2020-01-01", "2020-01-02"):
        exchange.publish(KLINES.format(day=day), b"PK", sidecar=False)
    with pytest.raises(
        ListingError, match=r"goes in circles: behind '.*01-01.zip' it goes on at '.*01-01.zip'"
    ):
        found(exchange, klines(interval="1m", symbols=("BTCUSDT",)))


@pytest.mark.parametrize("ask", [lambda pages: list(pages.folders("")), lambda pages: pages.find("k")])
def test_a_redirect_to_another_server_is_refused(exchange, ask):
    with FakeExchange() as other:
        for key in (LISTING, "k"):
            exchange.redirect(key, f"{other.endpoint.endpoint}/{other.bucket}/")
        with (
            BucketListing(exchange.endpoint, QUICK, TIMEOUTS) as pages,
            pytest.raises(
                RedirectRefusedError, match=rf"redirects to {other.endpoint.endpoint}/.*another server"
            ),
        ):
            ask(pages)
        assert other.requests == []


def test_entities_are_not_expanded():
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><ListBucketResult><Name>&a;</Name></ListBucketResult>'
    with pytest.raises(ListingError):
        parse_page(bomb, "http://x/")


def test_an_endpoint_that_is_no_s3_service_is_refused():
    with pytest.raises(RequestRefusedError, match="HTTP 418"):
        accept(418, {}, "http://x/")


def test_a_head_request_tells_what_a_listing_would(exchange):
    exchange.publish("a/b c.zip", b"PK12")
    with BucketListing(exchange.endpoint, QUICK, TIMEOUTS) as pages:
        listed = pages.find("a/b c.zip")
        (same, *_) = pages.objects("a/")
        assert listed == same
        assert pages.find("a/nothing.zip") is None
        exchange.fail("a/b c.zip", Failure.FORBIDDEN)
        with pytest.raises(AccessDeniedError):
            pages.find("a/b c.zip")


def test_a_connection_error_without_words_is_named_by_its_kind():
    assert "ConnectError" in str(connection_error(httpx.ConnectError(""), "http://x/", TIMEOUTS))
