"""Where a deployment finds the image of a program, and the error if there is none."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.images.conftest import Shelf
from toolchain.bom import load_bom
from toolchain.images import (
    ImageMissingError,
    ImageReferenceError,
    UnknownImageError,
    VendorImage,
    locate,
)
from toolchain.images.store import Index

DIGEST = "sha256:" + "0123456789abcdef" * 4
MINIO = load_bom().tool("minio").version


@pytest.fixture
def minio(shelf: Shelf) -> Shelf:
    shelf.put(
        "minio", {"m": shelf.layer({"opt/minio/bin/minio": b"x"})}, version=MINIO, pinned={"minio": MINIO}
    )
    return shelf


def test_an_image_on_the_node_is_named_by_its_digest(minio: Shelf) -> None:
    image = locate("minio", store=minio.store)
    assert image.reference == f"marketlake.local/minio@{image.digest}"
    assert image.version == MINIO
    assert image.executables == {"minio": "/opt/minio/bin/minio"}


def test_an_image_that_was_not_built_is_asked_for(shelf: Shelf) -> None:
    with pytest.raises(ImageMissingError, match=r"minio was not built yet.*run `make images`"):
        locate("minio", store=shelf.store)


def test_an_image_whose_blobs_were_deleted_was_not_built(minio: Shelf) -> None:
    minio.store.blob(locate("minio", store=minio.store).digest).unlink()
    with pytest.raises(ImageMissingError, match="run `make images`"):
        locate("minio", store=minio.store)


def test_an_image_of_another_version_than_is_pinned_now_is_stale(minio: Shelf) -> None:
    minio.put("minio", {"m": minio.layer({"x": b""})}, pinned={"minio": "2020.1.1"})
    with pytest.raises(ImageMissingError, match=rf"asked for minio 2020\.1\.1.*asks for minio {MINIO}"):
        locate("minio", store=minio.store)


def test_an_image_in_a_registry_must_have_been_pushed_there(minio: Shelf) -> None:
    with pytest.raises(ImageMissingError, match=r"run `make images REGISTRY=registry\.example\.com/x`"):
        locate("minio", store=minio.store, registry="registry.example.com/x")
    index = minio.store.read()
    pushed = replace(index.images["minio"], pushed=("registry.example.com/x",))
    minio.store.write(Index({"minio": pushed}, index.layers))
    image = locate("minio", store=minio.store, registry="registry.example.com/x")
    assert image.reference == f"registry.example.com/x/minio@{image.digest}"


def test_there_is_no_image_of_an_unknown_name(shelf: Shelf) -> None:
    with pytest.raises(UnknownImageError, match="no image is called 'mysql'; there are minio, "):
        locate("mysql", store=shelf.store)


def test_a_vendors_image_is_taken_instead_of_ours(shelf: Shelf) -> None:
    vendor = VendorImage(
        reference=f"registry.example.com:5000/kafka:4.1@{DIGEST}",
        executables={"java": "/usr/bin/java"},
        roots={"kafka": "/opt/kafka"},
    )
    image = locate("kafka", store=shelf.store, vendor={"kafka": vendor})
    assert image.reference == vendor.reference
    assert image.digest == DIGEST
    assert image.version == "4.1"
    assert image.executables == {"java": "/usr/bin/java"}
    assert image.roots == {"kafka": "/opt/kafka"}


def test_programs_that_a_vendors_image_does_not_place_are_found_by_its_path(shelf: Shelf) -> None:
    vendor = {"postgresql": VendorImage(reference=f"registry.example.com:5000/postgres@{DIGEST}")}
    image = locate("postgresql", store=shelf.store, vendor=vendor)
    assert image.executables["initdb"] == "initdb"
    assert image.version == DIGEST[:19]
    runtime = locate(
        "marketlake", store=shelf.store, vendor={"marketlake": VendorImage(reference=f"x@{DIGEST}")}
    )
    assert runtime.executables == {"marketlake": "marketlake", "prefect": "prefect"}


@pytest.mark.parametrize("reference", ["minio:latest", "minio", "minio@sha256:123", f"mi nio@{DIGEST}"])
def test_a_vendors_image_without_a_digest_is_refused(shelf: Shelf, reference: str) -> None:
    with pytest.raises(ImageReferenceError, match=r"is not pinned.*NAME@sha256:"):
        locate("minio", store=shelf.store, vendor={"minio": VendorImage(reference=reference)})


@pytest.mark.parametrize(
    "text", ["", "{", '{"format": 0}', '{"format": 1, "images": {"minio": {}}, "layers": {}}']
)
def test_an_index_that_cannot_be_read_is_an_empty_one(tmp_path: Path, text: str) -> None:
    shelf = Shelf(tmp_path)
    (tmp_path / "index.json").write_text(text)
    assert shelf.store.read() == Index()


def test_the_layout_can_be_read_by_any_tool(minio: Shelf) -> None:
    told = json.loads((minio.store.layout / "index.json").read_text())
    (entry,) = told["manifests"]
    built = minio.store.read().images["minio"]
    assert entry["digest"] == built.digest
    assert entry["size"] == minio.store.blob(built.digest).stat().st_size
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == f"minio:{MINIO}"
    assert json.loads((minio.store.layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_what_no_image_leads_to_is_swept(minio: Shelf) -> None:
    stray = minio.layer({"stray": b""})
    index = minio.store.read()
    minio.store.sweep(index)
    assert not minio.store.blob(stray.digest).exists()
    assert minio.store.read() == index
    built = index.images["minio"]
    assert locate("minio", store=minio.store).digest == built.digest
    assert all(minio.store.blob(index.layers[key].digest).exists() for key in built.layers)


def test_a_layer_of_no_image_is_forgotten(minio: Shelf) -> None:
    stray = minio.layer({"stray": b""})
    index = minio.store.read()
    minio.store.write(replace(index, layers={**index.layers, "stray": stray}))
    minio.store.sweep(minio.store.read())
    assert minio.store.read() == index
    assert not minio.store.blob(stray.digest).exists()


def test_an_index_that_cannot_be_written_leaves_the_old_one(minio: Shelf) -> None:
    index = minio.store.read()
    broken = replace(index.images["minio"], version=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        minio.store.write(Index({"minio": broken}, index.layers))
    assert minio.store.read() == index
    assert not [path for path in minio.store.folder.iterdir() if path.name.startswith(".index")]
