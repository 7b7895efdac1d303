"""What a node's containerd is given; containerd itself is played by a program that keeps what it gets."""

import json
import os
import socket
import tarfile
from pathlib import Path

import pytest

from tests.unit.images.conftest import Shelf
from toolchain.images.containerd import Containerd, names_of
from toolchain.images.errors import ImageError

CTR = """#!/usr/bin/env python3
import json, pathlib, sys, tarfile
world = pathlib.Path(__file__).with_name("world.json")
images = json.loads(world.read_text()) if world.exists() else {}
assert sys.argv[1:5] == ["--address", sys.argv[2], "--namespace", "k8s.io"], sys.argv
if sys.argv[5:] == ["images", "list"]:
    print("REF TYPE DIGEST SIZE PLATFORMS LABELS")
    for name, digest in images.items():
        print(name, "application/vnd.oci.image.manifest.v1+json", digest, "1 KiB", "linux/amd64", "-")
elif sys.argv[5:7] == ["images", "import"] and sys.argv[-1] == "-":
    if pathlib.Path(__file__).with_name("refuse").exists():
        print("ctr: no space left on device")
        sys.exit(1)
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as tar:
        for member in tar:
            if member.name == "index.json":
                for entry in json.load(tar.extractfile(member))["manifests"]:
                    images[entry["annotations"]["io.containerd.image.name"]] = entry["digest"]
    world.write_text(json.dumps(images))
    print("unpacking", *sys.argv[7:-1])
else:
    sys.exit("ctr has no command " + " ".join(sys.argv[5:]))
"""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Containerd:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "ctr").write_text(CTR)
    (programs / "ctr").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return Containerd(tmp_path / "containerd.sock")


@pytest.fixture
def two(shelf: Shelf) -> Shelf:
    base = shelf.layer({"etc/passwd": b"root"})
    for name in ("minio", "jaeger"):
        shelf.put(name, {"base": base, name: shelf.layer({f"opt/{name}": name.encode()})})
    return shelf


def test_an_image_lies_there_by_version_and_by_digest(two: Shelf, node: Containerd) -> None:
    images = two.store.read().images
    told: list[str] = []
    assert node.load(two.store, images, told.append) == ["jaeger", "minio"]
    assert told == ["jaeger", "minio"]
    minio = images["minio"]
    assert node.known()["marketlake.local/minio:1.0"] == minio.digest
    assert node.known()[f"marketlake.local/minio@{minio.digest}"] == minio.digest


def test_what_is_there_is_not_imported_again(two: Shelf, node: Containerd) -> None:
    images = two.store.read().images
    node.load(two.store, images)
    assert node.load(two.store, images) == []


def test_a_version_that_means_another_image_is_moved_and_the_old_one_stays(
    two: Shelf, node: Containerd
) -> None:
    before = two.store.read().images["minio"]
    node.load(two.store, {"minio": before})
    after = two.put("minio", {"other": two.layer({"opt/minio": b"another"})})
    assert node.load(two.store, {"minio": after}) == ["minio"]
    known = node.known()
    assert known["marketlake.local/minio:1.0"] == after.digest
    assert known[f"marketlake.local/minio@{before.digest}"] == before.digest, "pods may still run from it"


def test_the_reason_of_a_refusal_is_told(two: Shelf, node: Containerd, tmp_path: Path) -> None:
    (tmp_path / "programs" / "refuse").touch()
    with pytest.raises(
        ImageError, match=r"does not take the image jaeger 1\.0: ctr: no space left on device"
    ):
        node.load(two.store, two.store.read().images)


def test_a_containerd_that_does_not_answer_is_named(
    node: Containerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ImageError, match=r"the images of .*containerd\.sock cannot be listed"):
        node.known()


def test_a_machine_is_a_node_if_its_socket_is_there(node: Containerd) -> None:
    assert not node.is_there
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(node.socket))
        assert node.is_there


def test_the_archive_holds_each_blob_once_and_nothing_else(
    two: Shelf, node: Containerd, tmp_path: Path
) -> None:
    from toolchain.images.containerd import archive
    from toolchain.images.layer import add

    built = two.store.read().images["minio"]
    with tarfile.open(tmp_path / "minio.tar", "w") as tar:
        for path, member in archive(two.store, "minio", built):
            add(tar, path, member)
    with tarfile.open(tmp_path / "minio.tar") as tar:
        names = tar.getnames()
        index = json.load(tar.extractfile("index.json") or pytest.fail("no index"))
    blobs = {name.replace("blobs/sha256/", "sha256:") for name in names if name.startswith("blobs/")}
    manifest = two.store.manifest(built)
    assert blobs == {
        built.digest,
        manifest["config"]["digest"],
        *(each["digest"] for each in manifest["layers"]),
    }
    assert len(names) == len(set(names))
    assert [each["annotations"]["io.containerd.image.name"] for each in index["manifests"]] == names_of(
        "minio", built
    )


def test_a_ctr_that_dies_while_it_is_fed_is_told(two: Shelf, node: Containerd, tmp_path: Path) -> None:
    two.put("kafka", {"k": two.layer({"opt/kafka": b"x" * 2_000_000})})
    (tmp_path / "programs" / "ctr").write_text(
        '#!/bin/sh\n[ "$6" = list ] && exit 0\nexec <&-\necho ctr: the connection was refused\nexit 1\n'
    )
    with pytest.raises(
        ImageError, match=r"does not take the image kafka 1\.0: ctr: the connection was refused"
    ):
        node.load(two.store, {"kafka": two.store.read().images["kafka"]})


def test_a_machine_without_ctr_is_told_so(
    two: Shelf, node: Containerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Containerd, "known", lambda _node: {})
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ImageError, match="cannot start ctr"):
        node.load(two.store, two.store.read().images)


def test_an_interrupted_import_ends_ctr(
    two: Shelf, node: Containerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("toolchain.images.containerd.add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        node.load(two.store, two.store.read().images)
    assert not any(name.startswith("marketlake") for name in node.known())
