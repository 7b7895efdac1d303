"""Discovery from a real object store: the stack's stand-in venue is a bucket that anybody may list and
read."""

import json
from datetime import date
from pathlib import Path

import pytest
from marketlake.archive.discovery.catalogue import Catalogue
from marketlake.archive.discovery.discover import discover
from marketlake.archive.venues.binance import Binance
from marketlake.domain.archive import Frequency, Selection
from marketlake.infrastructure.storage.stores import Lake
from marketlake.retry import Backoff
from marketlake.settings import VenueEndpoint
from marketlake.sync.errors import AccessDeniedError, NotPublishedError

from tests.provisioning import own_buckets, s3

SAMPLES = Path(__file__).parents[2] / "samples"
QUICK = Backoff(attempts=2, first_wait_s=0.01)


@pytest.fixture(scope="module")
def store(minio):
    return own_buckets(minio)


@pytest.fixture(scope="module")
def stand_in(store):
    """A public bucket with the real samples and many synthetic keys."""
    client, bucket = s3(store), f"venue-{store.lake_bucket}"
    client.create_bucket(Bucket=bucket)
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:ListBucket", "s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    client.put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
    for path in SAMPLES.rglob("*.zip*"):
        client.put_object(Bucket=bucket, Key=path.relative_to(SAMPLES).as_posix(), Body=path.read_bytes())
    for number in range(1100):
        year, day = divmod(number, 336)
        key = (
            "data/futures/um/daily/trades/币安人生USDT/币安人生USDT-trades-"
            f"{2020 + year}-{day // 28 + 1:02}-{day % 28 + 1:02}.zip"
        )
        client.put_object(Bucket=bucket, Key=key, Body=b"PK")
    return VenueEndpoint(endpoint=store.endpoint, bucket=bucket)


def found(endpoint, **selected):
    return list(discover(Binance(), endpoint, Selection(venue="binance", **selected), backoff=QUICK))


def test_the_whole_archive_is_found_with_its_sidecars(stand_in):
    files = found(stand_in)
    real = [file for file in files if file.sidecar_key]
    assert len(real) == 5
    assert len(files) == 1105
    for file in real:
        body = (SAMPLES / file.key).read_bytes()
        assert file.size == len(body)
        assert file.last_modified.tzinfo is not None


def test_days_bound_a_long_listing(stand_in):
    files = found(
        stand_in,
        market="um",
        data_type="trades",
        frequency=Frequency.DAILY,
        start=date(2022, 5, 3),
        end=date(2022, 5, 6),
    )
    assert [file.start.day for file in files] == [3, 4, 5, 6]


def test_what_was_found_is_catalogued_once(stand_in, store):
    catalogue = Catalogue(Lake.of(store))
    files = found(stand_in, market="spot")
    assert catalogue.record(files).new == 3
    assert catalogue.record(files).unchanged == 3
    holdings = catalogue.holdings(Selection(venue="binance", data_type="klines"))
    assert [(holding.interval, holding.files, holding.missing_days) for holding in holdings] == [
        ("1h", 1, 0), ("1m", 2, 0),
    ]  # fmt: skip


def test_a_bucket_that_is_not_public_says_denied(store):
    closed = VenueEndpoint(endpoint=store.endpoint, bucket=store.landing_bucket)
    with pytest.raises(AccessDeniedError, match="HTTP 403, access denied"):
        found(closed)


def test_a_bucket_that_is_not_there_says_so(store):
    # MinIO answers 403 to the anonymous for what it does not have, S3 answers 404.
    nowhere = VenueEndpoint(endpoint=store.endpoint, bucket="no-such-bucket")
    with pytest.raises((NotPublishedError, AccessDeniedError), match="no-such-bucket"):
        found(nowhere)
