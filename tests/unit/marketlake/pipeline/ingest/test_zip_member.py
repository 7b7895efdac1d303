import io
import zipfile
from collections.abc import Iterator

import obstore
import pytest
from marketlake.pipeline.ingest import zip_member as member
from marketlake.pipeline.ingest.errors import CorruptZipError, InflatedTooLargeError, MultipleMembersError
from marketlake.pipeline.ingest.zip_member import HeldZip, InflationLimits, Member, StoredZip, open_member
from marketlake.sync.errors import EmptyFileError, NotAZipError
from obstore.store import MemoryStore

from tests.exchange import zip_of
from tests.unit.marketlake.pipeline.files import LIMITS, zipped

TEXT = b"".join(b"%d,%d\n" % (number, number * 7919 % 1000) for number in range(200_000))


MIB = 1024 * 1024


def stored(body: bytes) -> StoredZip:
    bucket = MemoryStore()
    obstore.put(bucket, "a.zip", body)
    return StoredZip(bucket, "a.zip")


class Counted:
    """A zip that notes what is read of it."""

    def __init__(self, source: StoredZip) -> None:
        self._source = source
        self.asked: list[str] = []

    @property
    def size(self) -> int:
        return self._source.size

    def range(self, start: int, end: int) -> bytes:
        self.asked.append("range")
        return self._source.range(start, end)

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        self.asked.append("stream")
        return self._source.stream(start, end)


@pytest.fixture(params=[stored, HeldZip], ids=["in the bucket", "in memory"])
def opened(request: pytest.FixtureRequest):
    """Opens a zip, wherever it lies."""

    def opening(body: bytes, limits: InflationLimits = LIMITS) -> Member:
        return open_member(request.param(body), "a.zip", limits)

    return opening


def saying(body: bytes, *, size: int | None = None, compressed: int | None = None) -> bytes:
    """The same zip with another inflated or compressed size in its directory."""
    changed = bytearray(body)
    at = changed.rindex(b"PK\x01\x02")
    for place, value in ((at + 20, compressed), (at + 24, size)):
        if value is not None:
            changed[place : place + 4] = value.to_bytes(4, "little")
    return bytes(changed)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("text", [b"1", TEXT], ids=["small", "larger than the window"])
def test_the_member_comes_out_as_it_went_in(opened, method, text):
    found = opened(zipped(text, "x.csv", method))
    assert (found.name, found.size) == ("x.csv", len(text))
    assert b"".join(found.pieces()) == text


def test_the_member_comes_in_pieces(opened, monkeypatch):
    monkeypatch.setattr(member, "PIECE", 10_000)
    pieces = list(opened(zipped(TEXT, method=zipfile.ZIP_STORED)).pieces())
    assert b"".join(pieces) == TEXT
    assert max(map(len, pieces)) < len(TEXT) / 2


def test_a_zip64_archive_is_read(opened):
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.csv", "w", force_zip64=True) as out,
    ):
        out.write(TEXT)
    assert b"".join(opened(buffer.getvalue()).pieces()) == TEXT


def test_a_long_comment_moves_the_directory_out_of_the_window(opened, monkeypatch):
    monkeypatch.setattr(member, "TAIL", 64)
    buffer = io.BytesIO(zipped(b"1,2\n"))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"c" * 5_000
    assert b"".join(opened(buffer.getvalue()).pieces()) == b"1,2\n"


def test_two_members_are_an_error_that_names_them(opened):
    with pytest.raises(
        MultipleMembersError, match=r"a.zip: the zip has 2 members \('a.csv', 'b.csv'\), but exactly one"
    ):
        opened(zip_of({"a.csv": "1", "b.csv": "2"}))


def test_no_member_is_an_error(opened):
    with pytest.raises(MultipleMembersError, match="has 0 members"):
        opened(zip_of({}))


def test_an_empty_member_is_an_empty_file(opened):
    with pytest.raises(EmptyFileError, match=r"the member 'x.csv' is empty"):
        opened(zipped("", "x.csv"))


@pytest.mark.parametrize("body", [b"PK", b"PK\x03\x04" + b"x" * 500, b"<html>", zipped(TEXT)[:-40], b"x"])
def test_what_is_no_zip_is_refused(opened, body):
    with pytest.raises(NotAZipError, match="it cannot be read as a zip"):
        opened(body)


def test_another_compression_is_refused(opened):
    with pytest.raises(NotAZipError, match="compressed by method 14"):
        opened(zipped("1,2", "x.csv", zipfile.ZIP_LZMA))


def test_a_directory_that_points_nowhere_is_refused(opened):
    body = bytearray(zipped("1,2\n"))
    body[:4] = b"XXXX"
    with pytest.raises(NotAZipError, match="points to where no member begins"):
        opened(bytes(body))


@pytest.mark.parametrize("place", [0.05, 0.5, 0.9])
def test_a_flipped_byte_is_a_corrupt_zip(opened, place):
    body = bytearray(zipped(TEXT))
    body[int(len(body) * place)] ^= 0x55
    with pytest.raises(CorruptZipError, match=r"the member 'file.csv' is corrupt, .* Nothing of it was kept"):
        list(opened(bytes(body)).pieces())


def test_a_wrong_checksum_of_right_bytes_is_a_corrupt_zip(opened):
    body = bytearray(zipped("1,2\n", method=zipfile.ZIP_STORED))
    at = body.rindex(b"PK\x01\x02") + 16
    body[at : at + 4] = b"\0\0\0\0"
    with pytest.raises(
        CorruptZipError, match=r"4 bytes with CRC [0-9a-f]{8} came out, its directory says 4 and 00000000"
    ):
        list(opened(bytes(body)).pieces())


def test_a_deflate_stream_that_ends_too_early_is_a_corrupt_zip(opened):
    found = opened(zipped(TEXT))
    cut = Member(
        source=found.source, key="a.zip", name="x", size=found.size, crc=found.crc, stored=False,
        start=found.start, end=found.start + 1000,
    )  # fmt: skip
    with pytest.raises(CorruptZipError, match="ends too early"):
        list(cut.pieces())


def test_a_member_without_bytes_is_noticed(opened):
    found = opened(zipped("1,2\n", method=zipfile.ZIP_STORED))
    none = Member(
        source=found.source,
        key="a.zip",
        name="x",
        size=4,
        crc=1,
        stored=True,
        start=found.start,
        end=found.start,
    )
    with pytest.raises(CorruptZipError, match="0 bytes"):
        list(none.pieces())


def test_a_member_beyond_the_size_that_is_taken_is_refused_before_it_is_inflated(opened):
    body = zipped(TEXT)
    assert opened(body, InflationLimits(size=len(TEXT), ratio=200)).size == len(TEXT)
    with pytest.raises(
        InflatedTooLargeError, match=rf"inflates to {len(TEXT)} bytes; at most 1000 are taken"
    ):
        opened(body, InflationLimits(size=1000, ratio=200))


def test_a_zip_bomb_is_refused_before_it_is_inflated(opened):
    body = zipped(bytes(64 * MIB))
    with pytest.raises(InflatedTooLargeError, match=r"more than 200 times as many, as in a zip bomb"):
        opened(body)
    assert opened(body, InflationLimits(size=LIMITS.size, ratio=1032)).size == 64 * MIB


def test_a_small_file_may_be_compressed_as_well_as_it_can_be(opened):
    assert opened(zipped(bytes(16 * MIB))).size == 16 * MIB


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_bomb_whose_directory_says_less_is_inflated_no_further_than_it_says(opened, method):
    bomb = opened(saying(zipped(bytes(64 * MIB), method=method), size=1000))
    came = []
    with pytest.raises(CorruptZipError, match=r"more than the 1000 bytes came out that its directory says"):
        came.extend(bomb.pieces())
    assert came == []


def test_a_directory_that_says_more_compressed_bytes_than_the_zip_has_is_refused(opened):
    with pytest.raises(NotAZipError, match=r"says that the member ends at byte 4000000\d+, but the zip has"):
        opened(saying(zipped(TEXT), compressed=4_000_000_000))


def test_a_directory_that_is_larger_than_any_is_not_read(opened, monkeypatch):
    monkeypatch.setattr(member, "LONGEST_DIRECTORY", 70_000)
    body = zip_of({f"{number}.csv": "1" for number in range(2_000)})
    with pytest.raises(NotAZipError, match=r"its directory has more than 70000 bytes"):
        opened(body)


def test_a_zip_that_was_taken_away_is_missing():
    with pytest.raises(FileNotFoundError):
        open_member(StoredZip(MemoryStore(), "a.zip"), "a.zip", LIMITS)


def test_directory_head_and_bytes_of_a_member_are_read_once_each():
    source = Counted(stored(zipped(TEXT)))
    assert b"".join(open_member(source, "a.zip", LIMITS).pieces()) == TEXT
    assert source.asked == ["range", "range", "stream"]
