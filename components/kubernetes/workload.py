"""The workload of one service in a cluster: its image, labels, rights, files and variables."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pulumi

from components.kubernetes.images import resolve
from components.kubernetes.labels import caller_of
from components.kubernetes.layout import SECRET_FILE, SECRET_VARIABLE
from components.kubernetes.pod import Texts
from components.rendering import PlaceholderValues, render_files, render_secret_environment
from components.service import PLACEHOLDER, Service
from toolchain.images import Image

_JOB_RULES = [
    {
        "apiGroups": ["batch"],
        "resources": ["jobs"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    },
    {"apiGroups": [""], "resources": ["pods", "pods/status"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["get", "list", "watch"]},
]
_LOG_RULES = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
]

_OF_OTHERS = frozenset({"address", "input"})
"""Kinds of placeholders whose values come from other resources."""
_NO_SECRETS: Mapping[str, str] = MappingProxyType({})

Known = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The workload of one service."""

    service: Service
    image: Image
    version: str
    labels: Mapping[str, str]
    opts: pulumi.ResourceOptions

    @property
    def reads_logs(self) -> bool:
        """Whether it reads the logs of all services."""
        return any(
            match[1] == "logs"
            for file in self.service.files.values()
            for match in PLACEHOLDER.finditer(file.text)
        )

    @property
    def rules(self) -> Sequence[Mapping[str, Any]]:
        """The rules of its service account's role."""
        if self.service.runs is not None:
            return _JOB_RULES
        return _LOG_RULES if self.reads_logs else ()

    def texts(self, known: pulumi.Output[Known]) -> Texts:
        """Return a renderer that fills in known values at once, so that previews and policies see them."""

        def render(make: Callable[[PlaceholderValues], Any], sources: Iterable[str]) -> Any:
            kinds = {match[2] for source in sources for match in PLACEHOLDER.finditer(source)}
            if kinds & _OF_OTHERS:
                return known.apply(lambda values: make(self.resolve(values)))
            return make(self.resolve({"addresses": {}, "inputs": {}}))

        return render

    @property
    def lasts(self) -> bool:
        """Whether it has a volume that outlives its pods."""
        return any(not volume.scratch for volume in self.service.volumes.values())

    @property
    def pod_labels(self) -> dict[str, str]:
        """Labels of its pods, which allow connections to the services that it calls."""
        return {**self.labels, **{caller_of(called): "true" for called in self.service.calls}}

    def resolve(self, known: Known, secrets: Mapping[str, str] = _NO_SECRETS) -> PlaceholderValues:
        """Return the values of its placeholders."""
        return resolve(
            self.service, self.image, addresses=known["addresses"], inputs=known["inputs"], secrets=secrets
        )

    def plain_texts(self, known: Known) -> dict[str, str]:
        """Return its files without secrets, by name."""
        return render_files(self.service, self.resolve(known), secret=False)

    def secret_texts(self, hidden: Known) -> dict[str, str]:
        """Return its files and variables with secrets, by their key in a Secret."""
        resolved = self.resolve(hidden["known"], hidden["secrets"])
        files = render_files(self.service, resolved, secret=True)
        variables = render_secret_environment(self.service, resolved)
        return {
            **{f"{SECRET_FILE}{name}": text for name, text in files.items()},
            **{f"{SECRET_VARIABLE}{name}": text for name, text in variables.items()},
        }

    def digest(self, hidden: pulumi.Output[Known]) -> pulumi.Output[str]:
        """Return a digest of its files and secrets; written into the pods, it restarts them after a change."""

        def of(values: Known) -> str:
            resolved = self.resolve(values["known"], values["secrets"])
            texts = [render_files(self.service, resolved, secret=False), self.secret_texts(values)]
            return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:32]

        return pulumi.Output.unsecret(hidden.apply(of))
