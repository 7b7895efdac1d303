"""Rules of workloads: images, resources, tokens and labels."""

import re
from collections.abc import Iterator
from typing import Any

from policies.rules.marks import API_ACCESS, is_declared
from policies.rules.pods import containers_of, pod_of
from policies.rules.reading import at, differs, items_at
from policies.rules.rule import Properties, Rule, Violation

_BY_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_MEASURED = ("cpu", "memory")
_LABELS = tuple(f"app.kubernetes.io/{name}" for name in ("name", "instance", "part-of", "managed-by"))


def resources(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """Every container says how much it needs, and how much it may take."""
    for container in containers_of(resource_type, properties):
        for kind in ("requests", "limits"):
            for measured in _MEASURED:
                if at(container.spec, "resources", kind, measured) is None:
                    yield container.violation("is missing", "resources", kind, measured)


def images(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """Every image is named by its digest."""
    for container in containers_of(resource_type, properties):
        image = at(container.spec, "image")
        if image is None or (isinstance(image, str) and not _BY_DIGEST.fullmatch(image)):
            yield container.violation(f"is {image!r}; it must end in @sha256:<64 hex digits>", "image")


def tokens(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """No token for the cluster's API without a declared purpose."""
    if resource_type == "kubernetes:core/v1:ServiceAccount":
        if differs(at(properties, "automountServiceAccountToken"), False):
            yield Violation("automountServiceAccountToken", "must be false")
        return
    pod = pod_of(resource_type, properties)
    if pod is None or is_declared(properties, API_ACCESS):
        return
    if differs(at(pod.spec, "automountServiceAccountToken"), False):
        yield pod.violation("must be false", "automountServiceAccountToken")
    for index, volume in items_at(pod.spec, "volumes"):
        for number, source in items_at(volume, "projected", "sources"):
            if at(source, "serviceAccountToken") is not None:
                yield pod.violation(
                    f"mounts a token and there is no annotation {API_ACCESS}",
                    "volumes", index, "projected", "sources", number,
                )  # fmt: skip


def labels(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """Everything in the cluster says what it is, what it belongs to and who made it; so do its pods."""
    if not resource_type.startswith("kubernetes:") or at(properties, "metadata") is None:
        return
    yield from _missing(properties, "metadata", "labels")
    if at(properties, "spec", "template", "spec", "containers") is not None:
        yield from _missing(properties, "spec", "template", "metadata", "labels")


def _missing(properties: Any, *path: str) -> Iterator[Violation]:
    absent = [label for label in _LABELS if at(properties, *path, label) in (None, "")]
    if absent:
        yield Violation(".".join(path), f"{', '.join(absent)}: missing")


RULES = (
    Rule(
        id="resources-set",
        title="Requests and limits are set",
        why="Without requests pods are put where there is no room; without limits one program takes what all need.",
        remedy="Give every container resources.requests and resources.limits for cpu and memory.",
        resource=resources,
    ),
    Rule(
        id="image-by-digest",
        title="Images are named by digest",
        why="A tag can be moved: what runs tomorrow would not be what was tested today.",
        remedy="Name the image as name@sha256:<digest>; `make images` prints the digests of ours.",
        resource=images,
    ),
    Rule(
        id="no-token",
        title="No token for the cluster's API, unless declared",
        why="With a token a program that is broken into can ask the cluster for whatever its account may do.",
        remedy="Set automountServiceAccountToken to false on pods and service accounts. Where a program needs the API, "
        f"project a short-lived token and say why in the annotation {API_ACCESS}.",
        resource=tokens,
    ),
    Rule(
        id="labelled",
        title="Everything carries the usual labels",
        why="What is not labelled is not found: by the network's rules, by who pays, by who cleans up.",
        remedy=f"Set {', '.join(_LABELS)}.",
        resource=labels,
    ),
)
