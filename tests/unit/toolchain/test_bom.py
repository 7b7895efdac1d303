"""The bill of materials is checked when it is read, and the project's own is sound."""

import importlib.metadata
import re
from dataclasses import replace

import pytest
from packaging.version import Version

from tests.unit.toolchain.conftest import sample_bom
from toolchain import language_host
from toolchain.bom import (
    RECIPES,
    GoBuild,
    GoFiles,
    MavenJars,
    PythonProgram,
    Wheel,
    load_bom,
    parse_bom,
    recipe_files,
)
from toolchain.errors import BomError, UnknownToolError

BOM = load_bom()
HEAD = """
[sample]
version = "1"
licence = "MIT"
homepage = "https://sample.test"
purpose = "is brought by tests"
disk_mb = 1
"""


def test_every_tool_of_the_platform_is_listed() -> None:
    pulumi = ("pulumi", "pulumi-language-python", "pulumi-python-scripts")
    servers = (
        "minio",
        "victoria-metrics",
        "victoria-logs",
        "jaeger",
        "otel-collector",
        "kafka",
        "postgresql",
    )
    assert _names() == {"java", *pulumi, *servers}
    assert _names("kubernetes") - _names() == {"kubectl", "crane", "pulumi-resource-kubernetes"}
    assert _names("packages") - _names() == {"pulumi-language-yaml"}
    node = ("kubernetes", "etcd", "kube-network-policies")
    inside = ("coredns", "metrics-server", "local-path-provisioner", "pause")
    assert _names("cluster") - _names() == {*node, *inside}


def test_an_unknown_group_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(
        UnknownToolError, match="no group of tools is called 'moon'; there are cluster, kubernetes"
    ):
        BOM.of_groups(["moon"])


def _names(*groups: str) -> set[str]:
    return {tool.name for tool in BOM.of_groups(groups)}


@pytest.mark.parametrize("tool", BOM.tools.values(), ids=lambda tool: tool.name)
def test_every_tool_can_be_brought_from_a_committed_recipe(tool) -> None:
    files = recipe_files(tool.registry)
    match tool.registry:
        case Wheel():
            assert re.search(r"^\S+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", files[0].read_text())
        case PythonProgram():
            assert files[0].name == f"{tool.name}.txt"
            assert "__main__.py" in {path.name for path in files}
        case GoBuild() | GoFiles():
            assert {"go.mod", "go.sum"} <= {path.name for path in files}
        case MavenJars():
            assert all(
                re.fullmatch(r"\S+:\S+:\S+ [0-9a-f]{64}", line) for line in files[0].read_text().splitlines()
            )


@pytest.mark.parametrize("tool", [t for t in BOM.tools.values() if t.vendor], ids=lambda tool: tool.name)
def test_vendors_releases_are_pinned_by_version_and_cover_linux_and_macos(tool) -> None:
    assert "{version}" in tool.vendor.url
    assert tool.vendor.url.startswith("https://")
    systems = ["linux"] if tool.group == "cluster" else ["linux", "darwin"]  # a node is a Linux machine
    assert set(tool.vendor.platforms) == {
        f"{system}-{cpu}" for system in systems for cpu in ("amd64", "arm64")
    }


def test_pulumis_command_line_is_the_version_of_the_python_package() -> None:

    installed = importlib.metadata.version("pulumi")
    names = ("pulumi", "pulumi-language-python", "pulumi-python-scripts")
    assert {BOM.tool(name).version for name in names} == {installed}
    assert f"version.Version=v{installed}" in BOM.tool("pulumi").registry.ldflags
    assert installed == language_host.VERSION


def test_the_language_host_speaks_by_the_wheels_that_its_tests_ran_with() -> None:
    requirements = recipe_files(BOM.tool("pulumi-language-python").registry)[0].read_text()
    pinned = dict(word.split("==") for word in requirements.split() if "==" in word)
    assert pinned == {name: importlib.metadata.version(name) for name in pinned}
    assert {"grpcio", "protobuf", "pulumi"} <= set(pinned)


def test_pulumis_kubernetes_provider_is_the_version_of_the_python_package() -> None:
    tool = BOM.tool("pulumi-resource-kubernetes")
    assert Version(tool.version) == Version(importlib.metadata.version("pulumi-kubernetes"))
    assert f"version.Version=v{tool.version}" in tool.registry.ldflags


def test_an_unknown_tool_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(
        UnknownToolError, match="no tool is called 'minoi'; the bill of materials lists pulumi, "
    ):
        BOM.tool("minoi")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + 'no_vendor = "x"', "exactly one of wheel, python, go-build, go-files, maven"),
        (
            HEAD + 'no_vendor = "x"\ncolour = "red"\n[sample.maven]\nrecipe = "r"',
            "unexpected keyword argument 'colour'",
        ),
        (
            HEAD + "[sample.maven]\nrecipe = 'r'",
            "say either how the vendor's release is taken, or in no_vendor why not",
        ),
        ('[sample]\nno_vendor = "x"\n[sample.maven]\nrecipe = "r"', "missing .* 'version'"),
    ],
)
def test_a_contradiction_is_an_error(text: str, message: str) -> None:
    with pytest.raises(BomError, match=f"sample: .*{message}|{message}"):
        parse_bom(text)


VENDOR = """
[sample.vendor]
url = "https://sample.test/{version}"
platforms = { linux-amd64 = "linux" }
strip = 1
"""


@pytest.mark.parametrize(
    ("proof", "message"),
    [
        ('verification = "pinned"', "sha256 must name each of its platforms"),
        ('verification = "published"', "checksums must say where the list is"),
        ('verification = "hope"', "verification is 'hope'; allowed are 'pinned' and 'published'"),
    ],
)
def test_a_release_that_cannot_be_proven_is_an_error(proof: str, message: str) -> None:
    with pytest.raises(BomError, match=message):
        sample_bom(VENDOR + proof)


def test_a_changed_recipe_changes_the_digest_of_its_source(recipes) -> None:
    tool = sample_bom(recipes=recipes).tool("sample")
    before = tool.source_digest("registry"), tool.source_digest("vendor")
    (recipes / "sample/jars.lock").write_text("other")
    assert tool.source_digest("registry") != before[0]
    assert tool.source_digest("vendor") == before[1]
    assert replace(tool, version="2").source_digest("vendor") != before[1]


def test_the_folder_of_links_is_keyed_by_the_versions() -> None:
    tools = dict(BOM.tools)
    tools["minio"] = replace(tools["minio"], version="other")
    assert replace(BOM, tools=tools).digest != BOM.digest


def test_no_recipe_names_a_registrys_host() -> None:
    hosts = re.compile(r"(pypi|pythonhosted|proxy\.golang|sum\.golang|repo1?\.maven|registry\.npmjs)")
    files = [RECIPES.parent / "bom.toml", *(path for path in RECIPES.rglob("*") if path.is_file())]
    assert not [path for path in files if hosts.search(path.read_text())]
