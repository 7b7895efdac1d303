"""What is in an image is listed, with the licences that lie in the image itself."""

import json

import pytest

from tests.unit.images.conftest import Shelf
from toolchain.images.errors import ImageMissingError
from toolchain.images.sbom import bill_of, write_bill

COPYRIGHT = b"""Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: BSD-3-clause

License: GPL-2+
 This text goes on.
"""


def python(name: str, *headers: str) -> bytes:
    return "\n".join(
        ["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *headers, "", "text"]
    ).encode()


def part(kind: str, name: str) -> dict[str, str]:
    return {"type": "library", "name": name, "version": "1.0", "purl": f"pkg:{kind}/{name}@1.0"}


@pytest.fixture
def runtime(shelf: Shelf) -> Shelf:
    base = shelf.layer(
        {
            "usr/share/doc/zlib1g/copyright": COPYRIGHT,
            "usr/share/doc/free-form/copyright": b"Do what you like.",
        },
        "libraries",
        (part("deb/debian", "zlib1g"), part("deb/debian", "free-form")),
    )
    site = "opt/marketlake/lib/python3.11/site-packages"
    libraries = shelf.layer(
        {
            f"{site}/A_Lib-1.0.dist-info/METADATA": python("A_Lib", "License-Expression: MIT OR Apache-2.0"),
            f"{site}/b-1.0.dist-info/METADATA": python(
                "b", "License: something", "Classifier: License :: OSI Approved :: MIT License"
            ),
            f"{site}/c-1.0.dist-info/METADATA": python("c", "License: BSD"),
            f"{site}/d-1.0.dist-info/METADATA": python("d"),
        },
        "libraries of Python",
        tuple(part("pypi", name) for name in ("a-lib", "b", "c", "d")),
    )
    shelf.put("marketlake", {"base": base, "libraries": libraries})
    return shelf


def licences(entry: dict[str, object]) -> list[str]:
    told = entry.get("licenses", [])
    assert isinstance(told, list)
    return [each.get("expression") or each["license"]["name"] for each in told]


def test_every_part_has_the_licences_that_its_files_name(runtime: Shelf) -> None:
    bill = bill_of("marketlake", store=runtime.store)
    assert {entry["name"]: licences(entry) for entry in bill["components"]} == {
        "zlib1g": ["BSD-3-clause", "GPL-2+"],
        "free-form": [],
        "a-lib": ["MIT OR Apache-2.0"],
        "b": ["MIT License"],
        "c": ["BSD"],
        "d": [],
    }


def test_it_says_which_image_it_is_of_and_in_which_layer_a_part_lies(runtime: Shelf) -> None:
    bill = bill_of("marketlake", store=runtime.store)
    index = runtime.store.read()
    subject = bill["metadata"]["component"]
    assert subject["hashes"] == [{"alg": "SHA-256", "content": index.images["marketlake"].digest[7:]}]
    layers = {entry["name"]: entry["properties"][0]["value"] for entry in bill["components"]}
    assert layers["zlib1g"] == index.layers["base"].digest
    assert layers["a-lib"] == index.layers["libraries"].digest


def test_references_are_unique_and_complete(runtime: Shelf) -> None:
    bill = bill_of("marketlake", store=runtime.store)
    references = [entry["bom-ref"] for entry in bill["components"]]
    assert len(set(references)) == len(references)
    assert bill["dependencies"] == [{"ref": "image:marketlake", "dependsOn": references}]


def test_the_tool_of_an_image_is_told_with_its_modules(shelf: Shelf) -> None:
    shelf.put("minio", {"m": shelf.layer({"opt/minio/bin/minio": b"x"})})
    (tool,) = bill_of("minio", store=shelf.store)["components"]
    assert tool["licenses"] == [{"expression": "AGPL-3.0-or-later"}]
    assert any(each["purl"].startswith("pkg:golang/github.com/minio/minio@") for each in tool["components"])


def test_the_same_image_has_the_same_bill(runtime: Shelf) -> None:
    assert bill_of("marketlake", store=runtime.store) == bill_of("marketlake", store=runtime.store)


def test_it_lies_beside_the_image_and_the_former_is_gone(runtime: Shelf) -> None:
    former = write_bill("marketlake", store=runtime.store)
    assert json.loads(former.read_text()) == bill_of("marketlake", store=runtime.store)
    before = former.stat().st_mtime_ns
    assert write_bill("marketlake", store=runtime.store) == former
    assert former.stat().st_mtime_ns == before, "it was not written again"
    runtime.put("marketlake", {"other": runtime.layer({"x": b"x"})})
    latest = write_bill("marketlake", store=runtime.store)
    assert list(latest.parent.iterdir()) == [latest]


def test_there_is_no_bill_of_what_was_not_built(shelf: Shelf) -> None:
    with pytest.raises(ImageMissingError, match="run `make images`"):
        bill_of("minio", store=shelf.store)
