"""The copy into a real, versioned landing bucket."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from marketlake.archive.discovery.discover import discover
from marketlake.archive.venues.binance import Binance
from marketlake.domain.archive import Selection
from marketlake.infrastructure.storage.errors import StorageError, StorageFullError
from marketlake.infrastructure.storage.stores import landing_store
from marketlake.sync.copy import copy_file
from marketlake.sync.errors import ChecksumMismatchError
from marketlake.sync.transport import Timeouts

from tests.exchange import Failure, FakeExchange
from tests.provisioning import own_buckets, s3

SAMPLES = Path(__file__).parents[2] / "samples"
KEY = "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-01.zip"
LARGE = b"PK" + os.urandom(20_000_000)
QUICK = Timeouts(read_s=1)


@pytest.fixture(scope="module")
def store(minio):
    return own_buckets(minio)


@pytest.fixture
def exchange():
    with FakeExchange() as running:
        yield running


class _Full(BaseHTTPRequestHandler):
    """What MinIO answers once its disk has no room left; whatever is only read is not there."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer(404, "")

    def do_GET(self):
        self._answer(404, "<Error><Code>NoSuchKey</Code></Error>")

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(507, "<Error><Code>XMinioStorageFull</Code></Error>")

    def do_POST(self):
        self._answer(507, "<Error><Code>XMinioStorageFull</Code></Error>")

    def log_message(self, *_):
        pass

    def _answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


@contextmanager
def full_store(store):
    """A disk cannot be filled for a test: a stand-in refuses as MinIO does then."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Full)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield store.model_copy(update={"endpoint": f"http://127.0.0.1:{server.server_port}"})
    finally:
        server.shutdown()
        server.server_close()


def files(exchange):
    return list(discover(Binance(), exchange.endpoint, Selection(venue="binance")))


def copy(exchange, store, file=None, **options):
    return asyncio.run(
        copy_file(
            file or files(exchange)[0], exchange.endpoint, landing_store(store), timeouts=QUICK, **options
        )
    )


def unfinished(store, key):
    """Uploads of one object: MinIO lists them for whole keys only."""
    found = s3(store).list_multipart_uploads(Bucket=store.landing_bucket, Prefix=f"binance/{key}")
    return found.get("Uploads", [])


def versions(store, key):
    found = s3(store).list_object_versions(Bucket=store.landing_bucket, Prefix=key)
    return [(version["VersionId"], version["IsLatest"]) for version in found.get("Versions", [])]


def test_the_real_files_land_byte_for_byte(exchange, store):
    exchange.publish_tree(SAMPLES)
    copies = [copy(exchange, store, file) for file in files(exchange)]
    assert len(copies) == 5
    for copied in copies:
        got = s3(store).get_object(Bucket=store.landing_bucket, Key=copied.key, VersionId=copied.version_id)
        body = got["Body"].read()
        assert body == (SAMPLES / copied.key.removeprefix("binance/")).read_bytes()
        assert got["Metadata"]["sha256"] == copied.sha256 == hashlib.sha256(body).hexdigest()
        assert got["ETag"].strip('"') == copied.etag
        assert got["ContentType"] == "application/zip"
    again = [copy(exchange, store, file) for file in files(exchange)]
    assert all(copied.already_there for copied in again)
    assert [copied.version_id for copied in again] == [copied.version_id for copied in copies]


def test_a_replaced_file_becomes_a_new_version_and_the_old_one_stays(exchange, store):
    key = KEY.replace("2020-01-01", "2021-01-01")
    exchange.publish(key, b"PK first")
    first = copy(exchange, store)
    exchange.publish(key, b"PK second")
    second = copy(exchange, store)
    assert versions(store, second.key) == [(second.version_id, True), (first.version_id, False)]


def test_names_beyond_ascii_and_leading_slashes_land(exchange, store):
    exchange.publish("data/spot/daily/trades/币安人生USDT/币安人生USDT-trades-2026-01-01.zip", b"PK")
    exchange.publish("/data/spot/monthly/trades/BTCUSDT/BTCUSDT-trades-2018-01.zip", b"PK")
    for file in files(exchange):
        copied = copy(exchange, store, file)
        assert versions(store, copied.key) == [(copied.version_id, True)]


@pytest.mark.parametrize("failure", [Failure.CORRUPT, Failure.TRUNCATE, Failure.SHORTEN, Failure.STALL])
def test_a_large_file_that_fails_leaves_neither_object_nor_unfinished_upload(exchange, store, failure):
    key = KEY.replace("2020-01-01", f"2022-01-{failure.value - 500:02}")
    exchange.publish(key, LARGE)
    exchange.fail(key, failure)
    with pytest.raises(Exception, match=key):
        copy(exchange, store)
    assert versions(store, f"binance/{key}") == []
    assert unfinished(store, key) == []


def test_a_bad_replacement_leaves_the_good_version_in_place(exchange, store):
    key = KEY.replace("2020-01-01", "2021-03-01")
    exchange.publish(key, b"PK good")
    good = copy(exchange, store)
    exchange.publish(key, b"PK bad", sidecar=f"{'1' * 64}  {key.rpartition('/')[2]}")
    with pytest.raises(ChecksumMismatchError):
        copy(exchange, store)
    assert versions(store, good.key) == [(good.version_id, True)]


def test_a_cancelled_copy_leaves_no_unfinished_upload(exchange, store):
    exchange.publish(KEY.replace("2020-01-01", "2021-02-01"), LARGE)
    (file,) = files(exchange)
    exchange.bandwidth = 20_000_000

    async def cancelled():
        task = asyncio.create_task(copy_file(file, exchange.endpoint, landing_store(store), timeouts=QUICK))
        for _ in range(500):
            await asyncio.sleep(0.02)
            if unfinished(store, file.key):
                break
        assert unfinished(store, file.key)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(cancelled(), 30))
    assert unfinished(store, file.key) == []
    assert versions(store, f"binance/{file.key}") == []


COPY_IN_A_PROCESS = """
import asyncio, json, sys
from marketlake.archive.venues.binance import Binance
from marketlake.archive.discovery.discover import discover
from marketlake.domain.archive import Selection
from marketlake.infrastructure.storage.stores import landing_store
from marketlake.settings import ObjectStore, VenueEndpoint
from marketlake.sync.copy import copy_file
endpoint = VenueEndpoint.model_validate_json(sys.argv[1])
secret = sys.stdin.read()
store = ObjectStore(**{**json.loads(sys.argv[2]), "secret_access_key": secret})
(file,) = discover(Binance(), endpoint, Selection(venue="binance"))
asyncio.run(copy_file(file, endpoint, landing_store(store)))
"""


def test_a_killed_copy_shows_nothing_and_the_next_one_succeeds(exchange, store):
    exchange.publish(KEY.replace("2020-01-01", "2021-04-01"), LARGE)
    (file,) = files(exchange)
    exchange.bandwidth = 10_000_000
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            COPY_IN_A_PROCESS,
            exchange.endpoint.model_dump_json(),
            store.model_dump_json(),
        ],
        stdin=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(store.secret_access_key.get_secret_value().encode())
    process.stdin.close()
    deadline = time.monotonic() + 60
    while exchange.gets(file.key) == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert versions(store, f"binance/{file.key}") == []
    exchange.bandwidth = None
    copied = copy(exchange, store, file)
    assert versions(store, copied.key) == [(copied.version_id, True)]
    assert copied.size == len(LARGE)


def test_a_store_that_is_away_is_said_to_be(exchange, store):
    exchange.publish(KEY, b"PK")
    away = store.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    with pytest.raises(
        StorageError, match=r"looking for binance/.* in landing: the object store failed"
    ) as raised:
        copy(exchange, away)
    assert store.secret_access_key.get_secret_value() not in str(raised.value)


@pytest.mark.parametrize("body", [b"PK", LARGE], ids=["one request", "several parts"])
def test_a_full_store_is_said_to_be_full(exchange, store, body):
    exchange.publish(KEY.replace("2020-01-01", "2021-05-01"), body)
    with (
        full_store(store) as full,
        pytest.raises(StorageFullError, match=r"the object store has no room left\. Free disk space"),
    ):
        copy(exchange, full)
