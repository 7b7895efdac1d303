"""How crane is asked to push, and what is said when a push fails; tests/integration/test_registry.py pushes."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.images.conftest import Shelf
from toolchain.errors import ToolMissingError
from toolchain.images import registry
from toolchain.images.errors import ImageError
from toolchain.images.registry import Place, push

PLACE = "registry.example.com/team"
CRANE = """#!/bin/sh
cd {folder} && echo "$@" >> asked
for last; do :; done
held=held-$(echo "$last" | tr /: --)
case $1 in
digest)
    cat "$held" && exit
    echo "Error: MANIFEST_UNKNOWN" >&2
    exit 1;;
push)
    cp "$2/index.json" "$2/oci-layout" . && ls "$2/blobs/sha256" > blobs
    if [ -f fails ]; then cat fails >&2; exit 1; fi
    echo "2026/11/27 18:00:00 pushed blob: sha256:abc" >&2
    sed -n 's/.*"digest": "\\(.*\\)",/\\1/p' "$2/index.json" > "$held"
    [ -f changed ] && echo sha256:changed > "$held"
    echo "${{last%:*}}@$(cat "$held")";;
esac
"""


@pytest.fixture
def crane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a crane that keeps what it is called with, and what it holds for a registry."""
    folder = tmp_path / "crane"
    folder.mkdir()
    program = folder / "crane"
    program.write_text(CRANE.format(folder=folder))
    program.chmod(0o755)
    monkeypatch.setattr(registry, "locate", lambda _name: SimpleNamespace(executables={"crane": program}))
    return folder


@pytest.fixture
def two(shelf: Shelf) -> Shelf:
    """Two images that share their base."""
    base = shelf.layer({"etc/passwd": b"root"})
    for name in ("minio", "jaeger"):
        shelf.put(name, {"base": base, name: shelf.layer({f"opt/{name}": name.encode()})})
    return shelf


def pushed(shelf: Shelf) -> list[str]:
    return push(shelf.store, shelf.store.read().images, PLACE)


def test_each_image_is_pushed_alone_under_its_version(two: Shelf, crane: Path) -> None:
    assert pushed(two) == ["jaeger", "minio"]
    asked = [line.split() for line in (crane / "asked").read_text().splitlines()]
    assert [(words[0], words[-1]) for words in asked] == [
        ("digest", f"{PLACE}/jaeger:1.0"),
        ("push", f"{PLACE}/jaeger:1.0"),
        ("digest", f"{PLACE}/minio:1.0"),
        ("push", f"{PLACE}/minio:1.0"),
    ]
    (only,) = json.loads((crane / "index.json").read_text())["manifests"]
    minio = two.store.read().images["minio"]
    assert only["digest"] == minio.digest
    assert only["annotations"] == {"org.opencontainers.image.ref.name": "minio:1.0"}
    assert minio.digest.removeprefix("sha256:") in (crane / "blobs").read_text()
    assert not Path(asked[-1][1]).exists(), "the layout was for crane only"


def test_what_is_there_is_not_pushed_again(two: Shelf, crane: Path) -> None:
    pushed(two)
    assert pushed(two) == []


def test_a_version_that_means_another_image_is_moved(two: Shelf, crane: Path) -> None:
    pushed(two)
    two.put("minio", {"other": two.layer({"opt/minio": b"another"})})
    assert pushed(two) == ["minio"]


def test_a_digest_that_is_not_the_images_is_an_error(two: Shelf, crane: Path) -> None:
    (crane / "changed").touch()
    with pytest.raises(ImageError, match=r"reports .*@sha256:changed for .*, but sha256:.* was pushed"):
        pushed(two)


def test_a_user_who_may_not_push_is_told_to_log_in(two: Shelf, crane: Path) -> None:
    (crane / "fails").write_text("2026/11/27 18:00:00 existing blob: sha256:a\nError: POST: DENIED: quota\n")
    with pytest.raises(ImageError) as caught:
        pushed(two)
    assert str(caught.value) == (
        f"the registry registry.example.com does not take {PLACE}/jaeger:1.0: POST: DENIED: quota: "
        "`docker login registry.example.com` with a user who may push there"
    )


def test_another_failure_is_told_in_cranes_words(two: Shelf, crane: Path) -> None:
    (crane / "fails").write_text("Error: dial tcp: lookup registry.example.com: no such host\n")
    with pytest.raises(ImageError, match=r"jaeger:1\.0: dial tcp: lookup .* no such host$"):
        pushed(two)
    (crane / "fails").write_text("panic: out of memory\n")
    with pytest.raises(ImageError, match="panic: out of memory"):
        pushed(two)


def test_how_far_a_push_is_can_be_followed(two: Shelf, crane: Path) -> None:
    told: list[str] = []
    push(two.store, two.store.read().images, PLACE, tell=told.append)
    assert "pushed blob: sha256:abc" in told


def test_without_crane_it_is_said_how_to_get_it(
    two: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKETLAKE_CACHE", str(tmp_path))
    with pytest.raises(ToolMissingError, match="marketlake tools install crane"):
        pushed(two)


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("registry.example.com/team/lake", "registry.example.com/team/lake/minio"),
        ("registry:5000", "registry:5000/minio"),
        ("localhost/x", "localhost/x/minio"),
        ("[::1]:5000", "[::1]:5000/minio"),
    ],
)
def test_a_place_is_a_host_and_the_first_part_of_names(text: str, repository: str) -> None:
    assert Place.parse(text).repository("minio") == repository


@pytest.mark.parametrize(
    "text", ["https://registry.example.com", "registry.example.com/Team", "a b", "", "host/", "registry/team"]
)
def test_a_wrong_place_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ImageError, match=r"e\.g\. registry\.example\.com/platform"):
        Place.parse(text)
