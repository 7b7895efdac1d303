import hashlib
from pathlib import Path

import pytest
from marketlake.archive.venues.binance import Binance
from marketlake.cli import publish
from marketlake.cli.exit_codes import UsageError
from marketlake.cli.publish import etag_of, read_tree

SAMPLES = Path(__file__).parents[4] / "samples"


def test_the_samples_are_an_archive_tree() -> None:
    tree = read_tree(SAMPLES, Binance())
    assert len(tree.files) == 10
    assert tree.ignored == 1
    keys = list(tree.files)
    assert all(key.startswith("data/") for key in keys)
    assert all(key.endswith(".CHECKSUM") for key in keys[:5]), "a file is visible after its sidecar"


def test_a_file_is_no_archive_tree(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        read_tree(SAMPLES / "MANIFEST.md", Binance())


def test_a_folder_without_archive_files_is_told_what_they_look_like(tmp_path: Path) -> None:
    (tmp_path / "x.zip").touch()
    with pytest.raises(
        UsageError, match=r"holds no archive file of binance\. Keys look like data/spot.*1 files"
    ):
        read_tree(tmp_path, Binance())


def test_a_folder_above_the_tree_is_told_where_the_tree_is(tmp_path: Path) -> None:
    key = "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-01.zip"
    copied = tmp_path / "archive" / key
    copied.parent.mkdir(parents=True)
    copied.touch()
    with pytest.raises(UsageError, match=f"There is one below it, at archive/{key}: name a folder"):
        read_tree(tmp_path, Binance())


def test_the_etag_of_a_file_is_that_of_its_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def md5(data: bytes) -> bytes:
        return hashlib.md5(data, usedforsecurity=False).digest()

    file = tmp_path / "f"
    file.write_bytes(b"abc")
    assert etag_of(file) == md5(b"abc").hex()
    file.write_bytes(b"")
    assert etag_of(file) == md5(b"").hex()
    monkeypatch.setattr(publish, "PART", 2)
    file.write_bytes(b"abc")
    assert etag_of(file) == f"{md5(md5(b'ab') + md5(b'c')).hex()}-2"


class Shelf:
    """Stands for obstore.put; some keys fail."""

    def __init__(self, *broken: str) -> None:
        self.kept: list[str] = []
        self._broken = broken

    def put(self, _: object, key: str, *__: object, **___: object) -> None:
        if key in self._broken:
            raise OSError(f"no room for {key}\nwith details")
        self.kept.append(key)


def test_a_file_that_cannot_be_uploaded_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f"
    file.touch()
    shelf, advances = Shelf("b", "a"), []
    monkeypatch.setattr(publish.obstore, "put", shelf.put)
    store: object = None
    failures = publish._upload(store, dict.fromkeys("cabd", file), lambda: advances.append(1))  # type: ignore[arg-type]
    assert failures == ["a: no room for a", "b: no room for b"]
    assert sorted(shelf.kept) == ["c", "d"]
    assert len(advances) == 4


def test_ctrl_c_drops_what_is_not_being_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "f"
    file.touch()
    shelf = Shelf()
    monkeypatch.setattr(publish.obstore, "put", shelf.put)
    monkeypatch.setattr(publish, "UPLOADS_AT_ONCE", 1)

    def interrupt() -> None:
        raise KeyboardInterrupt

    store: object = None
    with pytest.raises(KeyboardInterrupt):
        publish._upload(store, {str(number): file for number in range(5000)}, interrupt)  # type: ignore[arg-type]
    assert len(shelf.kept) < 5000
