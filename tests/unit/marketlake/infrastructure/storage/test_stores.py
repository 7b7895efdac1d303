import obstore
import pytest
from marketlake.infrastructure.storage.errors import StorageError, StorageFullError
from marketlake.infrastructure.storage.stores import PART, Lake, landing_store, storage_error
from marketlake.settings import ObjectStore
from obstore.exceptions import GenericError
from obstore.store import LocalStore, MemoryStore

SETTINGS = ObjectStore(endpoint="http://127.0.0.1:9000", access_key_id="who", secret_access_key="s3cret-word")


def test_the_secret_key_is_never_shown():
    lake = Lake.of(SETTINGS)
    assert lake.options["secret_access_key"] == "s3cret-word"
    assert "s3cret-word" not in f"{lake!r} {lake} {landing_store(SETTINGS)!r}"


def test_tables_lie_in_the_lake_bucket():
    assert Lake.of(SETTINGS).uri("silver/candles") == "s3://lake/silver/candles"


@pytest.mark.parametrize(
    "text",
    [
        "<Code>XMinioStorageFull</Code> reached its minimum free drive threshold",
        "<Code>XMinioAdminBucketQuotaExceeded</Code>",
        "Generic LocalFileSystem error: No space left on device",
        "Server returned non-2xx status code: 507 Insufficient Storage",
    ],
)
def test_a_full_store_is_told_apart(text):
    error = storage_error(GenericError(text), "writing x")
    assert isinstance(error, StorageFullError)
    assert error.transient
    assert str(error).startswith("writing x: the object store has no room left. Free disk space")


def test_any_other_failure_is_told_in_one_plain_line():
    error = storage_error(GenericError("\n failed\n \x1b[31m↳\x1b[0m connection refused"), "reading x")
    assert isinstance(error, StorageError)
    assert "reading x: the object store failed (failed connection refused)" in str(error)
    assert "no reason given" in str(storage_error(GenericError(""), "reading x"))


@pytest.fixture
def lake():
    return Lake("memory", MemoryStore())


@pytest.mark.parametrize("size", [0, 10, PART, 3 * PART + 5])
def test_a_stream_arrives_whole_whatever_its_size(lake, size):
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    pieces = [body[start : start + 1_000_000] for start in range(0, size, 1_000_000)]
    assert lake.put("a/b", iter(pieces), wanted=lambda: True) == size
    assert bytes(obstore.get(lake.bucket, "a/b").bytes()) == body


def test_what_is_not_wanted_is_not_put(lake):
    assert lake.put("a/b", iter([b"x"]), wanted=lambda: False) == 0
    assert obstore.list(lake.bucket).collect() == []


@pytest.mark.parametrize("before", [1, 3 * PART // 1_000_000])
def test_a_stream_that_breaks_leaves_nothing_and_its_error_passes(lake, before):
    def pieces():
        for _ in range(before):
            yield bytes(1_000_000)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        lake.put("a/b", pieces(), wanted=lambda: True)
    assert obstore.list(lake.bucket).collect() == []


@pytest.mark.parametrize("size", [10, 3 * PART])
def test_a_store_that_fails_is_said_to_fail(tmp_path, size):
    folder = tmp_path / "gone"
    folder.mkdir()
    lake = Lake(str(folder), LocalStore(folder))
    (folder / "a").write_text("a file where a folder is needed")
    with pytest.raises(StorageError, match="writing a/b to the lake"):
        lake.put("a/b", (bytes(1_000_000) for _ in range(max(1, size // 1_000_000))), wanted=lambda: True)
