"""A Service that contradicts itself is refused where it is written, not where it is deployed."""

from typing import Any

import pytest
from marketlake.settings import HealthKind

from components.service import (
    Command,
    Distribution,
    File,
    Health,
    Port,
    Resources,
    Service,
    ServiceDefinitionError,
    Tool,
    Volume,
)


def service(**changes: Any) -> Service:
    fields: dict[str, Any] = {
        "name": "store",
        "program": Tool(name="minio", needs=("java",)),
        "argv": ("{bin:minio}", "--listen={bind}:{port:api}", "{volume:data}"),
        "ports": {"api": Port(preferred=9000)},
        "volumes": {"data": Volume(size_mib=1)},
        "health": Health(kind=HealthKind.TCP, port="api"),
        "resources": Resources(memory_mib=100),
    }
    return Service(**(fields | changes))


def test_it_names_the_inputs_and_secrets_that_it_needs() -> None:
    needy = service(
        environment={"URL": "{input:url}"},
        secret_environment={"KEY": "{secret:key}"},
        files={"conf": File(text="{secret:password} {input:host}", secret=True)},
    )
    assert needy.inputs == {"url", "host"}
    assert needy.secrets == {"key", "password"}


def test_the_tools_of_a_program_are_the_tool_and_what_it_needs() -> None:
    assert Tool(name="kafka", needs=("java",)).tools == ("kafka", "java")


@pytest.mark.parametrize(
    "changes",
    [
        {"argv": ("{bin:minio}", "--password={secret:key}")},
        {"environment": {"KEY": "{secret:key}"}},
        {"files": {"conf": File(text="{secret:key}")}},
        {"setup": (Command(name="set up", argv=("{bin:minio}", "{secret:key}")),)},
    ],
    ids=["argv", "environment", "plain file", "set-up"],
)
def test_a_secret_where_others_could_read_it_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ServiceDefinitionError, match=r"\{secret:key\} stands in .*move it to"):
        service(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"argv": ("{port:apo}",)}, "argv refers to port 'apo'; there is api"),
        ({"argv": ("{address:apo}",)}, "address 'apo'; there is api"),
        ({"argv": ("{file:conf}",)}, "file 'conf'; there is none"),
        ({"argv": ("{volume:date}",)}, "volume 'date'; there is data"),
        ({"argv": ("{root:kafka}",)}, "root 'kafka'; there is minio, java"),
        (
            {"program": Distribution(name="prefect"), "argv": ("{root:prefect}",)},
            "root 'prefect'; there is none",
        ),
        ({"argv": ("{memory:half}",)}, "give a whole percentage"),
        ({"health": Health(kind=HealthKind.HTTP, port="web")}, "port 'web'; there is api"),
        ({"console": ("web", "/")}, "port 'web'; there is api"),
        ({"setup": (Command(name="set up", argv=("x",), stdin="script"),)}, "file 'script'; there is none"),
        ({"health": Health(kind=HealthKind.HTTP)}, "needs the port to ask"),
        ({"health": Health(kind=HealthKind.PROCESS, port="api")}, "asks no port"),
        ({"name": "Object Store"}, "lower-case letters, digits and hyphens"),
        ({"replicas": 2}, "only a service without ports and volumes can be repeated"),
        ({"replicas": -1}, "never less than 0"),
    ],
)
def test_contradictions_are_refused_with_the_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ServiceDefinitionError, match=message):
        service(**changes)


def test_braces_that_are_no_placeholder_are_nobodys_business() -> None:
    assert service(files={"conf": File(text="cpu: {}\nx: ${env:HOME} {port}")}).inputs == frozenset()
