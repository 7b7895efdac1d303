import io
import zipfile

import obstore
import pytest
from marketlake.pipeline.ingest import zip_member as member
from marketlake.pipeline.ingest.errors import CorruptZipError, MultipleMembersError
from marketlake.pipeline.ingest.zip_member import open_member
from marketlake.sync.errors import EmptyFileError, NotAZipError
from obstore.store import MemoryStore

from tests.exchange import zip_of
from tests.unit.marketlake.pipeline.files import zipped

TEXT = b"".join(b"%d,%d\n" % (number, number * 7919 % 1000) for number in range(200_000))


def opened(body: bytes):
    bucket = MemoryStore()
    obstore.put(bucket, "a.zip", body)
    return open_member(bucket, "a.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("text", [b"1", TEXT], ids=["small", "larger than the window"])
def test_the_member_comes_out_as_it_went_in(method, text):
    found = opened(zipped(text, "x.csv", method))
    assert (found.name, found.size) == ("x.csv", len(text))
    assert b"".join(found.pieces()) == text


def test_the_member_comes_in_pieces(monkeypatch):
    monkeypatch.setattr(member, "PIECE", 10_000)
    pieces = list(opened(zipped(TEXT, method=zipfile.ZIP_STORED)).pieces())
    assert b"".join(pieces) == TEXT
    assert max(map(len, pieces)) < len(TEXT) / 2


def test_a_zip64_archive_is_read():
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.csv", "w", force_zip64=True) as out,
    ):
        out.write(TEXT)
    assert b"".join(opened(buffer.getvalue()).pieces()) == TEXT


def test_a_long_comment_moves_the_directory_out_of_the_window(monkeypatch):
    monkeypatch.setattr(member, "TAIL", 64)
    buffer = io.BytesIO(zipped(b"1,2\n"))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"c" * 5_000
    assert b"".join(opened(buffer.getvalue()).pieces()) == b"1,2\n"


def test_two_members_are_an_error_that_names_them():
    with pytest.raises(
        MultipleMembersError, match=r"a.zip: the zip has 2 members \('a.csv', 'b.csv'\), but exactly one"
    ):
        opened(zip_of({"a.csv": "1", "b.csv": "2"}))


def test_no_member_is_an_error():
    with pytest.raises(MultipleMembersError, match="has 0 members"):
        opened(zip_of({}))


def test_an_empty_member_is_an_empty_file():
    with pytest.raises(EmptyFileError, match=r"the member 'x.csv' is empty"):
        opened(zipped("", "x.csv"))


@pytest.mark.parametrize("body", [b"PK", b"PK\x03\x04" + b"x" * 500, b"<html>", zipped(TEXT)[:-40], b"x"])
def test_what_is_no_zip_is_refused(body):
    with pytest.raises(NotAZipError, match="it cannot be read as a zip"):
        opened(body)


def test_another_compression_is_refused():
    with pytest.raises(NotAZipError, match="compressed by method 14"):
        opened(zipped("1,2", "x.csv", zipfile.ZIP_LZMA))


def test_a_directory_that_points_nowhere_is_refused():
    body = bytearray(zipped("1,2\n"))
    body[:4] = b"XXXX"
    with pytest.raises(NotAZipError, match="points to where no member begins"):
        opened(bytes(body))


@pytest.mark.parametrize("place", [0.05, 0.5, 0.9])
def test_a_flipped_byte_is_a_corrupt_zip(place):
    body = bytearray(zipped(TEXT))
    body[int(len(body) * place)] ^= 0x55
    with pytest.raises(CorruptZipError, match=r"the member 'file.csv' is corrupt, .* Nothing of it was kept"):
        list(opened(bytes(body)).pieces())


def test_a_wrong_checksum_of_right_bytes_is_a_corrupt_zip():
    body = bytearray(zipped("1,2\n", method=zipfile.ZIP_STORED))
    at = body.rindex(b"PK\x01\x02") + 16
    body[at : at + 4] = b"\0\0\0\0"
    with pytest.raises(
        CorruptZipError, match=r"4 bytes with CRC [0-9a-f]{8} came out, its directory says 4 and 00000000"
    ):
        list(opened(bytes(body)).pieces())


def test_a_deflate_stream_that_ends_too_early_is_a_corrupt_zip():
    found = opened(zipped(TEXT))
    cut = member.Member(
        bucket=found.bucket, key="a.zip", name="x", size=found.size, crc=found.crc, stored=False,
        start=found.start, end=found.start + 1000,
    )  # fmt: skip
    with pytest.raises(CorruptZipError, match="ends too early"):
        list(cut.pieces())


def test_a_member_without_bytes_is_noticed():
    found = opened(zipped("1,2\n", method=zipfile.ZIP_STORED))
    none = member.Member(
        bucket=found.bucket,
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
