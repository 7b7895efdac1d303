import asyncio
import hashlib
from datetime import UTC, date, datetime

import httpx
import obstore
import pytest
from marketlake.domain.archive import ArchiveFile, Frequency
from marketlake.domain.venue import Integrity
from marketlake.sync.copy import HELD, copy_file, landing_key, recall_file
from marketlake.sync.errors import (
    AccessDeniedError,
    ChecksumMismatchError,
    EmptyFileError,
    HtmlInsteadOfZipError,
    NotAZipError,
    NotPublishedError,
    OversizedAnswerError,
    RateLimitedError,
    RedirectRefusedError,
    SidecarInvalidError,
    SidecarMissingError,
    StalledError,
    TruncatedError,
    VenueUnavailableError,
    VenueUnreachableError,
)
from marketlake.sync.transport import Timeouts, _same_server, object_url, venue_client
from obstore.store import MemoryStore

from tests.exchange import Failure, FakeExchange

KEY = "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-01.zip"
SMALL = b"PK" + bytes(range(256)) * 100
LARGE = b"PK" + bytes(range(256)) * 4 * 10_000
"""More than one part of an upload."""
TIMEOUTS = Timeouts(connect_s=10, read_s=20)
STALLED = Timeouts(connect_s=10, read_s=0.3)
"""For a server that sends nothing."""


@pytest.fixture
def exchange():
    with FakeExchange() as running:
        yield running


@pytest.fixture
def landing():
    return MemoryStore()


def listed(exchange, key=KEY, *, sidecar=True, **changed):
    stored = exchange.objects[key]
    fields = {
        "venue": "binance", "market": "spot", "data_type": "klines", "symbol": "BTCUSDT", "interval": "1m",
        "frequency": Frequency.DAILY, "start": date(2020, 1, 1), "end": date(2020, 1, 1), "key": key,
        "size": len(stored.body), "etag": stored.etag, "last_modified": datetime(2026, 1, 1, tzinfo=UTC),
        "sidecar_key": f"{key}.CHECKSUM" if sidecar else None,
    }  # fmt: skip
    return ArchiveFile(**{**fields, **changed})


def copy(exchange, landing, file=None, **options):
    options = {"timeouts": TIMEOUTS, **options}
    return asyncio.run(copy_file(file or listed(exchange), exchange.endpoint, landing, **options))


def timeouts_for(failure):
    return STALLED if failure is Failure.STALL else TIMEOUTS


def landed(landing):
    return [item["path"] for item in obstore.list(landing).collect()]


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["one request", "several parts"])
def test_a_file_is_in_landing_byte_for_byte_with_its_proven_checksum(exchange, landing, body):
    sha256 = exchange.publish(KEY, body)
    passed = []
    copied = copy(exchange, landing, progress=passed.append)
    assert copied.key == f"binance/{KEY}"
    assert (copied.size, copied.sha256, copied.already_there) == (len(body), sha256, False)
    got = obstore.get(landing, copied.key)
    assert got.attributes["sha256"] == sha256
    assert got.meta["e_tag"].strip('"') == copied.etag
    assert hashlib.sha256(bytes(got.bytes())).hexdigest() == sha256
    assert sum(passed) == len(body)


def test_what_is_there_is_not_copied_again(exchange, landing):
    exchange.publish(KEY, SMALL)
    first = copy(exchange, landing)
    second = copy(exchange, landing)
    assert second.already_there
    assert (second.key, second.sha256, second.size, second.etag) == (
        first.key, first.sha256, first.size, first.etag,
    )  # fmt: skip
    assert exchange.gets(KEY) == 1


WITHOUT_SIDECARS = [Integrity.ETAG, Integrity.FIRST_SIGHT]


@pytest.mark.parametrize("integrity", WITHOUT_SIDECARS)
@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["one request", "several parts"])
def test_a_file_of_a_venue_without_checksum_files_comes_in(exchange, landing, integrity, body):
    sha256 = exchange.publish(KEY, body, sidecar=False)
    copied = copy(exchange, landing, listed(exchange, sidecar=False), integrity=integrity)
    assert (copied.sha256, copied.size, copied.already_there) == (sha256, len(body), False)
    assert exchange.requests == [("GET", KEY)], "nothing else is asked of the venue"
    if body is SMALL:
        recalled = asyncio.run(recall_file(copied.key, landing, sha256=sha256, version_id=None))
        assert recalled.data == body
        again = copy(exchange, landing, listed(exchange, sidecar=False), integrity=integrity)
        assert (again.already_there, again.sha256, exchange.gets(KEY)) == (True, sha256, 1)


@pytest.mark.parametrize("integrity", WITHOUT_SIDECARS)
def test_another_listing_is_copied_anew_whatever_landing_has(exchange, landing, integrity):
    exchange.publish(KEY, SMALL, sidecar=False)
    copy(exchange, landing, listed(exchange, sidecar=False), integrity=integrity)
    sha256 = exchange.publish(KEY, SMALL + b"more", sidecar=False)
    copied = copy(exchange, landing, listed(exchange, sidecar=False), integrity=integrity)
    assert (copied.already_there, copied.sha256) == (False, sha256)


def test_bytes_that_the_etag_does_not_name_are_refused(exchange, landing):
    exchange.publish(KEY, SMALL, sidecar=False)
    file = listed(exchange, sidecar=False)
    exchange.publish(KEY, SMALL[:-1] + b"!", sidecar=False)
    with pytest.raises(
        ChecksumMismatchError, match=r"the bytes' md5 is .* the ETag of the venue's listing says"
    ):
        copy(exchange, landing, file, integrity=Integrity.ETAG)
    assert landed(landing) == []
    assert exchange.gets(KEY) == 1, "the listing is as old as it was: asking again proves nothing"


def test_an_etag_of_parts_proves_nothing_but_the_length_does(exchange, landing):
    sha256 = exchange.publish(KEY, SMALL, sidecar=False)
    in_parts = listed(exchange, sidecar=False, etag="0123456789abcdef0123456789abcdef-2")
    assert copy(exchange, landing, in_parts, integrity=Integrity.ETAG).sha256 == sha256


def test_bytes_of_another_length_than_was_listed_are_tried_again(exchange, landing):
    exchange.publish(KEY, SMALL, sidecar=False)
    file = listed(exchange, sidecar=False)
    exchange.publish(KEY, SMALL + b"more", sidecar=False)
    with pytest.raises(TruncatedError, match="25606 bytes came, 25602 were listed"):
        copy(exchange, landing, file, integrity=Integrity.FIRST_SIGHT)
    assert landed(landing) == []


def test_who_knows_that_landing_does_not_have_a_file_need_not_look(exchange, landing):
    exchange.publish(KEY, SMALL)
    copy(exchange, landing)
    again = copy(exchange, landing, look=False)
    assert (again.already_there, exchange.gets(KEY)) == (False, 2)


def test_the_bytes_of_a_small_file_that_was_copied_are_handed_over(exchange, landing):
    exchange.publish(KEY, SMALL)
    assert copy(exchange, landing).data == SMALL
    assert copy(exchange, landing).data is None  # it was there: whoever needs it reads it from landing


@pytest.mark.parametrize(("size", "held"), [(HELD, True), (HELD + 1, False)])
def test_a_large_file_is_not_kept_in_memory(exchange, landing, size, held):
    exchange.publish(KEY, LARGE[:size])
    copied = copy(exchange, landing)
    assert copied.size == size
    assert (copied.data is not None) is held


def test_a_file_that_was_replaced_in_place_is_copied_anew(exchange, landing):
    exchange.publish(KEY, SMALL)
    copy(exchange, landing)
    sha256 = exchange.publish(KEY, SMALL + b"corrected")
    copied = copy(exchange, landing)
    assert (copied.already_there, copied.sha256) == (False, sha256)
    assert obstore.get(landing, copied.key).attributes["sha256"] == sha256


def test_a_listing_that_knows_an_older_size_does_not_hinder_proven_bytes(exchange, landing):
    exchange.publish(KEY, SMALL)
    assert copy(exchange, landing, listed(exchange, size=7)).size == len(SMALL)


def test_a_sidecar_that_was_not_listed_is_looked_for_beside_the_file(exchange, landing):
    exchange.publish(KEY, SMALL)
    assert copy(exchange, landing, listed(exchange, sidecar=False)).size == len(SMALL)


def test_names_beyond_ascii_and_leading_slashes_arrive(exchange, landing):
    for key in ("data/spot/daily/trades/币安人生USDT/币安人生USDT-trades-2026-01-01.zip", f"/{KEY}"):
        exchange.publish(key, SMALL)
        assert copy(exchange, landing, listed(exchange, key)).key in landed(landing)
    assert landing_key("binance", f"/{KEY}") != landing_key("binance", KEY)


def test_copies_can_share_connections(exchange, landing):
    exchange.publish(KEY, SMALL)

    async def twice():
        async with venue_client(TIMEOUTS) as client:
            for _ in range(2):
                await copy_file(
                    listed(exchange), exchange.endpoint, landing, timeouts=TIMEOUTS, client=client
                )
            assert not client.closed

    asyncio.run(twice())


FAILURES = [
    (Failure.FORBIDDEN, AccessDeniedError, "HTTP 403, access denied"),
    (Failure.NOT_FOUND, NotPublishedError, "HTTP 404, there is no such object"),
    (Failure.TOO_MANY_REQUESTS, RateLimitedError, "HTTP 429, too many requests"),
    (Failure.INTERNAL, VenueUnavailableError, "HTTP 500"),
    (Failure.UNAVAILABLE, VenueUnavailableError, "HTTP 503"),
    (Failure.STALL, StalledError, "nothing came for 0.3 s, the connection is stalled"),
    (
        Failure.TRUNCATE,
        TruncatedError,
        "the connection ended before all of the [0-9]+ announced bytes had come",
    ),
    (Failure.SHORTEN, TruncatedError, "only [0-9]+ of the [0-9]+ listed bytes came"),
    (Failure.CORRUPT, ChecksumMismatchError, "sha256 is [0-9a-f]{64}, the venue's checksum file says"),
    (Failure.HTML, HtmlInsteadOfZipError, "a web page came instead of a zip .*<!DOCTYPE html>"),
    (Failure.EMPTY, EmptyFileError, "the object is empty"),
    (Failure.RESET, VenueUnreachableError, "the connection failed"),
]


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["one request", "several parts"])
@pytest.mark.parametrize(("failure", "error", "message"), FAILURES)
def test_what_goes_wrong_is_said_and_nothing_becomes_visible(
    exchange, landing, failure, error, message, body
):
    exchange.publish(KEY, body)
    exchange.fail(KEY, failure)
    passed = []
    with pytest.raises(error, match=message) as raised:
        copy(exchange, landing, progress=passed.append, timeouts=timeouts_for(failure))
    assert KEY in str(raised.value)
    assert landed(landing) == []
    assert sum(passed) == 0


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [row for row in FAILURES if row[1].transient and row[0] is not Failure.RESET],
)
def test_a_file_is_read_once_so_that_whoever_called_decides_on_another_attempt(
    exchange, landing, failure, error, message
):
    exchange.publish(KEY, LARGE)
    exchange.fail(KEY, failure, times=1)
    with pytest.raises(error):
        copy(exchange, landing, timeouts=timeouts_for(failure))
    assert exchange.gets(KEY) == 1
    assert copy(exchange, landing).size == len(LARGE)


def test_a_kept_connection_that_is_reset_without_an_answer_is_opened_anew(exchange, landing):
    """As a server closes one that was idle: the client asks once more, on a new connection (RFC 9110, 9.2.2)."""
    exchange.publish(KEY, LARGE)
    exchange.fail(KEY, Failure.RESET, times=1)
    assert copy(exchange, landing).size == len(LARGE)
    exchange.fail(KEY, Failure.RESET, times=2)
    with pytest.raises(VenueUnreachableError, match="the connection failed"):
        copy(exchange, landing, look=False)


def test_a_refusal_is_not_asked_twice(exchange, landing):
    exchange.publish(KEY, SMALL)
    exchange.fail(KEY, Failure.FORBIDDEN)
    with pytest.raises(AccessDeniedError):
        copy(exchange, landing)
    assert exchange.gets(KEY) == 1


def test_a_mismatch_is_looked_at_once_more_because_the_venue_may_be_replacing_the_file(exchange, landing):
    exchange.publish(KEY, SMALL)
    exchange.fail(KEY, Failure.CORRUPT, times=1)
    assert copy(exchange, landing).size == len(SMALL)
    assert exchange.gets(f"{KEY}.CHECKSUM") == 2


def test_a_mismatch_tells_both_checksums(exchange, landing):
    wrong = "0" * 64
    sha256 = exchange.publish(KEY, SMALL, sidecar=f"{wrong}  BTCUSDT-1m-2020-01-01.zip")
    with pytest.raises(ChecksumMismatchError) as raised:
        copy(exchange, landing)
    assert (raised.value.expected, raised.value.got) == (wrong, sha256)


def test_a_file_without_sidecar_is_not_copied(exchange, landing):
    exchange.publish(KEY, SMALL, sidecar=False)
    with pytest.raises(
        SidecarMissingError, match=r"has no checksum file .* cannot be proven and it was not copied"
    ):
        copy(exchange, landing, listed(exchange, sidecar=False))
    assert exchange.gets(KEY) == 0


def test_a_sidecar_that_is_no_sidecar_is_refused(exchange, landing):
    exchange.publish(KEY, SMALL, sidecar="<html>oops</html>")
    with pytest.raises(SidecarInvalidError, match="should read '<sha256>"):
        copy(exchange, landing)


@pytest.mark.parametrize(
    ("failure", "error"), [(Failure.FORBIDDEN, AccessDeniedError), (Failure.STALL, StalledError)]
)
def test_a_sidecar_that_cannot_be_read_is_no_missing_one(exchange, landing, failure, error):
    exchange.publish(KEY, SMALL)
    exchange.fail(f"{KEY}.CHECKSUM", failure)
    with pytest.raises(error):
        copy(exchange, landing, timeouts=timeouts_for(failure))


def test_bytes_that_are_no_zip_are_refused_before_they_are_all_there(exchange, landing):
    exchange.publish(KEY, b"\x1f\x8b" + LARGE)
    passed = []
    with pytest.raises(NotAZipError, match=r"begin with .*not with b'PK'"):
        copy(exchange, landing, progress=passed.append)
    assert passed == [0]


def test_a_checksum_file_without_an_end_is_not_read_to_its_end(exchange, landing):
    exchange.publish(KEY, SMALL)
    exchange.fail(f"{KEY}.CHECKSUM", Failure.ENDLESS)
    with pytest.raises(
        OversizedAnswerError,
        match=r"CHECKSUM: the answer is longer than 4096 bytes, .* begins with b'[0-9a-f]{60}'",
    ):
        copy(exchange, landing)
    assert exchange.gets(KEY) == 0
    assert exchange.sent < 32 * 1024 * 1024  # what lies in the sockets between


def test_a_checksum_file_that_only_drips_is_given_up(exchange, landing):
    exchange.publish(KEY, SMALL)
    exchange.fail(f"{KEY}.CHECKSUM", Failure.DRIP)
    with pytest.raises(StalledError, match=r"after 0.5 s only [0-9]+ bytes had come, and not the last"):
        copy(exchange, landing, timeouts=Timeouts(body_s=0.5))


def test_a_file_without_an_end_is_given_up_when_more_came_than_was_listed(exchange, landing):
    exchange.publish(KEY, LARGE)
    exchange.fail(KEY, Failure.ENDLESS)
    with pytest.raises(TruncatedError, match=rf"more than the {len(LARGE)} announced bytes came"):
        copy(exchange, landing)
    assert landed(landing) == []


@pytest.mark.parametrize("what", [KEY, f"{KEY}.CHECKSUM"], ids=["file", "checksum file"])
def test_a_redirect_to_another_server_is_refused_before_anything_is_asked_there(exchange, landing, what):
    exchange.publish(KEY, SMALL)
    with FakeExchange() as other:
        other.publish(KEY, SMALL)
        target = object_url(other.endpoint, what)
        exchange.redirect(what, target)
        with pytest.raises(RedirectRefusedError) as raised:
            copy(exchange, landing)
        assert other.requests == []
    assert f"{object_url(exchange.endpoint, what)}: the venue redirects to {target}" in str(raised.value)
    assert landed(landing) == []


@pytest.mark.parametrize(
    "location", ["http://localhost/x", "https://127.0.0.1/x", "ftp://127.0.0.1/x", "//169.254.169.254/latest"]
)
def test_another_name_port_or_scheme_is_another_server(exchange, landing, location):
    exchange.publish(KEY, SMALL)
    exchange.redirect(KEY, location)
    with pytest.raises(RedirectRefusedError, match="is another server"):
        copy(exchange, landing)


def test_the_change_to_https_on_the_same_host_is_the_same_server():
    def same(one, other):
        return _same_server(httpx.URL(one), httpx.URL(other))

    assert same("http://venue.example/a", "https://venue.example/b")
    assert not same("https://venue.example/a", "http://venue.example/a")
    assert not same("http://venue.example:9000/a", "https://venue.example/a")
    assert not same("http://venue.example/a", "https://venue.example:8443/a")
    assert not same("https://venue.example/a", "https://venue.example.org/a")


def test_a_redirect_within_the_server_is_followed(exchange, landing):
    moved = f"moved/{KEY}"
    exchange.publish(KEY, SMALL)
    exchange.publish(moved, SMALL)
    exchange.redirect(KEY, f"/{exchange.bucket}/{moved}")
    assert copy(exchange, landing).size == len(SMALL)
    assert exchange.gets(moved) == 1


def test_redirects_in_a_circle_are_given_up(exchange, landing):
    exchange.publish(KEY, SMALL)
    exchange.redirect(KEY, object_url(exchange.endpoint, KEY))
    with pytest.raises(RedirectRefusedError, match="redirects more than 3 times, at last to"):
        copy(exchange, landing)
    assert exchange.gets(KEY) == 4


def test_one_bad_file_leaves_the_others_unharmed(exchange, landing):
    good = [KEY.replace("2020-01-01", f"2020-01-{day:02}") for day in range(2, 6)]
    for key in good:
        exchange.publish(key, SMALL)
    exchange.publish(KEY, SMALL)
    exchange.fail(KEY, Failure.CORRUPT)

    async def all_at_once():
        files = [listed(exchange, key) for key in [KEY, *good]]
        copies = (copy_file(file, exchange.endpoint, landing, timeouts=TIMEOUTS) for file in files)
        return await asyncio.gather(*copies, return_exceptions=True)

    bad, *rest = asyncio.run(all_at_once())
    assert isinstance(bad, ChecksumMismatchError)
    assert sorted(landed(landing)) == [f"binance/{key}" for key in good]
    assert [copied.key for copied in rest] == [f"binance/{key}" for key in good]


def test_a_cancelled_copy_leaves_nothing(exchange, landing):
    exchange.publish(KEY, LARGE)
    exchange.bandwidth = 2_000_000

    async def cancelled():
        task = asyncio.create_task(copy_file(listed(exchange), exchange.endpoint, landing, timeouts=TIMEOUTS))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert landed(landing) == []
