"""What no single setting can know, and what becomes of secrets in a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from stacks.settings.section import Secret
from stacks.settings.validation import InvalidSettingsError, read_environment, require_secrets, settings_from
from tests.authority import Authority

DATABASE = {"host": "db.example.com"}
STORE = {"endpoint": "https://s3.example.com", "accessKeyId": "AKIA"}
BUS = {"bootstrapServers": "a.example.com:9092,b.example.com:9092", "username": "marketlake"}
CLUSTER = {"target": "kubernetes"}
IMAGE = {"reference": f"m@sha256:{'0' * 64}"}
ROOT = Authority().certificate
NO_STAND_IN = {"venue": {"standIn": False}}


def problems(config: dict[str, Any], **more: Any) -> list[str]:
    with pytest.raises(InvalidSettingsError) as caught:
        settings_from(config, source="test", **more)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("config", "place", "remedy"),
    [
        ({**CLUSTER, "ports": {"database": 5432}}, "marketlake:ports", "remove it, or set the other target"),
        ({**CLUSTER, "dataFolder": "/srv/lake/x"}, "marketlake:dataFolder", "is of the target host"),
        ({"kubernetes": {}}, "marketlake:kubernetes", "is of the target kubernetes"),
        ({"images": {"registry": "r.example.com"}}, "marketlake:images", "is of the target kubernetes"),
        ({"database": {"cpu": 100}}, "marketlake:database.cpu", "is of the target kubernetes"),
        ({"telemetry": {"storageClass": "fast"}}, "marketlake:telemetry.storageClass", "is of the target kubernetes"),
        ({"collection": {"maxWorkers": 4}}, "marketlake:collection.maxWorkers", "is of the target kubernetes"),
        (
            {**CLUSTER, "collection": {"workers": 4, "maxWorkers": 3}},
            "marketlake:collection.maxWorkers",
            "3 is less than collection.workers, 4: give at least as many",
        ),
        (
            {**CLUSTER, "collection": {"maxWorkers": 9}},
            "marketlake:collection.maxWorkers",
            "9 is more than eventBus.partitions, 8",
        ),
        ({"database": {"external": DATABASE, "disk": 2048}}, "marketlake:database.disk", "remove one of the two"),
        (
            {"eventBus": {"external": BUS}, "ports": {"eventBusController": 9093}},
            "marketlake:ports.eventBusController",
            "eventBus.external names an external one",
        ),
        ({"objectStore": {"external": STORE}}, "marketlake:venue.standIn", "set it to false"),
        (
            {"eventBus": {"external": {"bootstrapServers": "a:9092"}}},
            "marketlake:eventBus.external.username",
            "is missing, and securityProtocol is SASL_SSL",
        ),
        (
            {"eventBus": {"external": {**BUS, "securityProtocol": "SSL"}}},
            "marketlake:eventBus.external.username",
            "is of a protocol with SASL",
        ),
        (
            {"objectStore": {"external": {**STORE, "endpoint": "http://s3.example.com"}}, **NO_STAND_IN},
            "marketlake:objectStore.external.endpoint",
            "Give one with https://, or set objectStore.external.allowHttp to true",
        ),
        (
            {"objectStore": {"external": {**STORE, "allowHttp": True}}, **NO_STAND_IN},
            "marketlake:objectStore.external.allowHttp",
            "remove it",
        ),
        (
            {"database": {"external": {**DATABASE, "sslmode": "require", "rootCertificate": ROOT}}},
            "marketlake:database.external.rootCertificate",
            "is not looked at where database.external.sslmode is require: remove it, or choose verify-full",
        ),
        (
            {"database": {"external": {**DATABASE, "sslmode": "verify-ca"}}},
            "marketlake:database.external.rootCertificate",
            "is missing, and sslmode is verify-ca",
        ),
        (
            {"eventBus": {"external": {**BUS, "securityProtocol": "SASL_PLAINTEXT", "rootCertificate": ROOT}}},
            "marketlake:eventBus.external.rootCertificate",
            "is of a protocol with TLS, and securityProtocol is SASL_PLAINTEXT",
        ),
    ],
)  # fmt: skip
def test_contradictions_name_their_place_and_the_remedy(
    config: dict[str, Any], place: str, remedy: str
) -> None:
    (problem,) = problems(config)
    assert problem.startswith(f"{place}: ")
    assert remedy in problem


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kubernetes": {"namespace": "Lake"}}, "marketlake:kubernetes.namespace: 'Lake' is no name of a namespace"),
        ({"kubernetes": {"storageClass": "a b"}}, "marketlake:kubernetes.storageClass: 'a b' is no name of a Kubern"),
        ({"database": {"disk": 1}}, "marketlake:database.disk: 1 should be greater than or equal to 256"),
        ({"database": {"disk": 2**40}}, "should be less than or equal to 1073741824"),
        ({"database": {"cpu": 1}}, "marketlake:database.cpu: 1 should be greater than or equal to 10"),
        ({"images": {"registry": "https://x"}}, "marketlake:images.registry: 'https://x' is no registry"),
        ({"images": {"vendor": {"mysql": IMAGE}}}, "marketlake:images.vendor.mysql: 'mysql' should be 'marketlake'"),
        (
            {"images": {"vendor": {"minio": {"reference": "minio/minio:latest"}}}},
            "marketlake:images.vendor.minio.reference: 'minio/minio:latest' is no image pinned by its digest",
        ),
        (
            {"images": {"vendor": {"minio": {**IMAGE, "roots": {"minio": "opt"}}}}},
            "marketlake:images.vendor.minio.roots.minio: 'opt' is no absolute path",
        ),
        (
            {"images": {"vendor": {"minio": {**IMAGE, "root": {}}}}},
            "marketlake:images.vendor.minio.root: unknown key. Did you mean roots?",
        ),
        ({"database": {"external": {}}}, "marketlake:database.external.host: Field required"),
        ({"database": {"external": {"hots": "x", "host": "y"}}}, "marketlake:database.external.hots: unknown key. Did"),
        ({"database": {"external": {"host": "a b"}}}, "marketlake:database.external.host: 'a b' is no host name"),
        ({"eventBus": {"external": {"bootstrapServers": "a"}}}, "'a' is no list of brokers: HOST:PORT"),
        (
            {"database": {"external": {**DATABASE, "rootCertificate": "/etc/ssl/root.crt"}}},
            "holds no certificate: give PEM text, which begins with -----BEGIN CERTIFICATE-----",
        ),
        ({"database": {"external": {**DATABASE, "sslmode": "full"}}}, "marketlake:database.external.sslmode: 'full'"),
        (
            {"database": {"external": {**DATABASE, "password": ""}}},
            "marketlake:database.external.password: should be a secret text that is not empty",
        ),
    ],
)  # fmt: skip
def test_impossible_values_of_a_cluster_and_of_external_servers_are_named(
    config: dict[str, Any], message: str
) -> None:
    (problem,) = problems({**CLUSTER, **config})
    assert problem.startswith("marketlake:")
    assert message in problem


def test_external_servers_are_verified_unless_something_else_is_asked_for() -> None:
    plain = {**STORE, "endpoint": "http://s3.example.com", "allowHttp": True}
    settings = settings_from(
        {
            "database": {"external": DATABASE},
            "objectStore": {"external": plain},
            "eventBus": {"external": BUS},
            **NO_STAND_IN,
        },
        source="test",
    )
    assert settings.database.external is not None
    assert settings.database.external.sslmode == "verify-full"
    assert settings.event_bus.external is not None
    assert settings.event_bus.external.has_tls
    assert settings.object_store.external is not None
    assert settings.object_store.external.endpoint == "http://s3.example.com"


def write(tmp_path: Path, settings: dict[str, Any]) -> Path:
    path = tmp_path / "Pulumi.x.yaml"
    path.write_text(json.dumps({"config": {f"marketlake:{key}": value for key, value in settings.items()}}))
    return path


def test_a_file_with_encrypted_secrets_is_valid_without_the_passphrase(tmp_path: Path) -> None:
    path = write(tmp_path, {"database": {"external": {**DATABASE, "password": {"secure": "v1:abc"}}}})
    external = read_environment(path).database.external
    assert external is not None
    assert external.password is not None
    assert external.password.is_encrypted
    with pytest.raises(ValueError, match="can be read by the Pulumi program alone"):
        _ = external.password.text
    require_secrets(read_environment(path), "x", source="x")


def test_a_file_with_a_secret_in_plain_text_is_refused_with_the_command_that_encrypts_it(
    tmp_path: Path,
) -> None:
    runtime = {"accessKeyId": "R", "secretAccessKey": "hunter2"}
    path = write(tmp_path, {"objectStore": {"external": {**STORE, "runtime": runtime}}, **NO_STAND_IN})
    with pytest.raises(InvalidSettingsError) as caught:
        read_environment(path)
    (problem,) = caught.value.problems
    place = "marketlake:objectStore.external.runtime.secretAccessKey"
    assert problem == (
        f"{place}: is a secret in plain text: `pulumi config set --secret --path {place}` encrypts it"
    )


def test_the_program_takes_the_text_of_what_the_file_encrypts_and_of_nothing_else() -> None:
    config = {"marketlake:database": json.dumps({"external": {**DATABASE, "password": "hunter2"}})}
    external = settings_from(config, source="x", encrypted=["marketlake:database"]).database.external
    assert external is not None
    assert external.password == Secret("hunter2")
    assert "hunter2" not in repr(external)
    (problem,) = problems(config, encrypted=["marketlake:eventBus"])
    assert problem.startswith("marketlake:database.external.password: is a secret in plain text")


@pytest.mark.parametrize(
    "external",
    [{**DATABASE, "password": ["hunter2"]}, "hunter2", {**DATABASE, "password": {"secret": "hunter2"}}],
)
def test_what_stands_in_the_place_of_a_secret_is_shown_to_nobody(external: Any) -> None:
    assert "hunter2" not in "".join(problems({"database": {"external": external}}))
    assert "hunter2" not in "".join(problems({"database": "hunter2"}))


def test_missing_secrets_are_asked_for_with_the_command_that_sets_each() -> None:
    settings = settings_from(
        {
            "database": {"external": DATABASE},
            "objectStore": {"external": {**STORE, "runtime": {"accessKeyId": "R"}}},
            "eventBus": {"external": BUS},
            **NO_STAND_IN,
        },
        source="test",
    )
    with pytest.raises(InvalidSettingsError) as caught:
        require_secrets(settings, "production", source="Pulumi.production.yaml")
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        "marketlake:database.external.password",
        "marketlake:objectStore.external.secretAccessKey",
        "marketlake:objectStore.external.runtime.secretAccessKey",
        "marketlake:eventBus.external.password",
    ]
    assert (
        "`pulumi config set --secret --path marketlake:database.external.password --stack production` asks for it"
        in str(caught.value)
    )


def test_a_cluster_without_sasl_needs_no_password() -> None:
    bus = {"bootstrapServers": "a:9092", "securityProtocol": "PLAINTEXT"}
    require_secrets(settings_from({"eventBus": {"external": bus}}, source="t"), "x", source="t")


def test_secrets_are_compared_by_their_text() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a"), Secret(None)}) == 2
    settings = settings_from({"database": {"external": {**DATABASE, "password": Secret("a")}}}, source="t")
    assert settings.database.external
    assert settings.database.external.password == Secret("a")
