"""The software bill of materials: tools, and what each is made of, as CycloneDX 1.6 JSON."""

import re
import uuid
from typing import Any

from toolchain.bom import RECIPES, Bom, GoBuild, GoFiles, MavenJars, PythonProgram, Tool, Wheel
from toolchain.cache import Cache
from toolchain.platforms import Platform
from toolchain.sources.maven import locked_jars

_REQUIRED = re.compile(r"^\s*(?:require\s+)?(?P<path>[\w.~/-]+\.[\w.~/-]+) (?P<version>v\S+)", re.MULTILINE)
_WHEELS = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?P<hashes>(?:\s+\\?\s*--hash=\S+)+)", re.MULTILINE
)
_WHEEL_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_NAMESPACE = uuid.UUID("6f0f6a3e-6b0c-5e0e-9d39-0d5f8a6a2b11")


def software_bill(bom: Bom, cache: Cache, platform: Platform) -> dict[str, Any]:
    """A CycloneDX document; the same for the same bill of materials and the same installed tools."""
    components = [tool_component(tool, cache, platform) for tool in bom.tools.values()]
    serial = uuid.uuid5(_NAMESPACE, repr(components))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": {"type": "platform", "name": "marketlake", "bom-ref": "marketlake"}},
        "components": components,
        "dependencies": [{"ref": "marketlake", "dependsOn": [entry["bom-ref"] for entry in components]}],
    }


def tool_component(tool: Tool, cache: Cache, platform: Platform) -> dict[str, Any]:
    """One tool as a CycloneDX component, with what it is made of inside."""
    installed = cache.find(tool, platform)
    properties = {"marketlake:purpose": tool.purpose}
    if installed:
        properties |= {
            "marketlake:source": installed.receipt.source,
            "marketlake:location": installed.receipt.location,
            "marketlake:checksum": installed.receipt.checksum,
        }
    references = [{"type": "website", "url": tool.homepage}]
    if tool.vendor and str(platform) in tool.vendor.platforms:
        url = tool.vendor.url.format(
            version=tool.vendor.version or tool.version, platform=tool.vendor.platforms[str(platform)]
        )
        references.append({"type": "distribution", "url": url})
    return {
        "type": "application",
        "bom-ref": f"tool:{tool.name}",
        "name": tool.name,
        "version": installed.version if installed else tool.version,
        "licenses": [{"expression": tool.licence}],
        "externalReferences": references,
        "properties": [{"name": name, "value": value} for name, value in properties.items()],
        "components": _parts(tool),
    }


def _parts(tool: Tool) -> list[dict[str, Any]]:
    match tool.registry:
        case Wheel(requirements=requirements) | PythonProgram(requirements=requirements):
            text = (RECIPES / "wheels" / requirements).read_text()
            return [
                _part(
                    tool,
                    f"pkg:pypi/{wheel['name']}@{wheel['version']}",
                    wheel["name"],
                    wheel["version"],
                    _WHEEL_HASH.findall(wheel["hashes"]),
                )
                for wheel in _WHEELS.finditer(text)
            ]
        case MavenJars(recipe=recipe):
            return [
                _part(
                    tool,
                    f"pkg:maven/{jar.group}/{jar.artifact}@{jar.version}",
                    f"{jar.group}:{jar.artifact}",
                    jar.version,
                    [jar.digest.value],
                )
                for jar in locked_jars(RECIPES / recipe)
            ]
        case GoBuild(recipe=recipe) | GoFiles(recipe=recipe):
            text = (RECIPES / recipe / "go.mod").read_text()
            required = {match["path"]: match["version"] for match in _REQUIRED.finditer(text)}
            return [
                _part(tool, f"pkg:golang/{path}@{version}", path, version, [])
                for path, version in sorted(required.items())
            ]


def _part(tool: Tool, purl: str, name: str, version: str, sha256: list[str]) -> dict[str, Any]:
    part = {
        "type": "library",
        "bom-ref": f"{tool.name}:{purl}",
        "name": name,
        "version": version,
        "purl": purl,
    }
    if len(sha256) == 1:
        return {**part, "hashes": [{"alg": "SHA-256", "content": sha256[0]}]}
    return part
