"""Certificates: a chain that holds, kept while it holds, made anew in time."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from playbooks.library import certificates
from playbooks.library.certificates import ensure

AUTHORITIES = [{"name": "ca", "common_name": "kubernetes"}]
CERTIFICATES = [
    {
        "name": "server",
        "authority": "ca",
        "common_name": "server",
        "usages": ["server"],
        "names": ["kubernetes"],
        "addresses": ["198.51.100.10"],
    },
    {
        "name": "admin",
        "authority": "ca",
        "common_name": "admin",
        "organizations": ["system:masters"],
        "usages": ["client"],
    },
]


@pytest.fixture
def pki(tmp_path):
    return tmp_path / "pki"


@pytest.fixture
def asked(pki):
    return {
        "authorities": AUTHORITIES,
        "certificates": CERTIFICATES,
        "signing_keys": ["tokens"],
        "kubeconfigs": {
            "server": "https://198.51.100.10:6443",
            "cluster": "marketlake",
            "authority": "ca",
            "paths": {"admin": str(pki.parent / "admin.conf")},
        },
    }


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(paths: list[str]) -> set[str]:
    return {Path(path).name for path in paths}


def test_each_certificate_is_signed_by_its_authority_for_its_names_and_its_use(pki, asked) -> None:
    ensure(pki, **asked)
    authority, server, admin = (read(pki / f"{name}.crt") for name in ("ca", "server", "admin"))
    server.verify_directly_issued_by(authority)
    admin.verify_directly_issued_by(authority)
    alternatives = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternatives.get_values_for_type(x509.DNSName) == ["kubernetes"]
    assert [str(each) for each in alternatives.get_values_for_type(x509.IPAddress)] == ["198.51.100.10"]
    usage = admin.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    (group,) = admin.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert group.value == "system:masters"
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_only_root_reads_keys(pki, asked) -> None:
    written = ensure(pki, **asked)
    assert {Path(path).stat().st_mode & 0o777 for path in written} == {0o600}
    assert pki.stat().st_mode & 0o777 == 0o700
    assert names(written) == {
        *("ca.key", "ca.crt", "server.key", "server.crt", "admin.key", "admin.crt"),
        *("tokens.key", "tokens.pub", "admin.conf"),
    }


def test_a_second_run_writes_nothing(pki, asked) -> None:
    ensure(pki, **asked)
    assert ensure(pki, **asked) == []


def test_a_kubeconfig_can_be_carried_away(pki, asked) -> None:
    ensure(pki, **asked)
    document = yaml.safe_load((pki.parent / "admin.conf").read_text())
    assert document["current-context"] == "admin@marketlake"
    (cluster,), (user,) = document["clusters"], document["users"]
    assert cluster["cluster"]["server"] == "https://198.51.100.10:6443"
    held = base64.b64decode(user["user"]["client-key-data"])
    assert held == (pki / "admin.key").read_bytes()
    assert "insecure-skip-tls-verify" not in json.dumps(document)


def test_another_address_makes_that_certificate_anew_and_no_other(pki, asked) -> None:
    ensure(pki, **asked)
    moved = [{**CERTIFICATES[0], "addresses": ["192.0.2.7"]}, CERTIFICATES[1]]
    assert names(ensure(pki, **{**asked, "certificates": moved})) == {"server.crt"}


def test_another_group_makes_the_certificate_and_what_holds_it_anew(pki, asked) -> None:
    ensure(pki, **asked)
    demoted = [CERTIFICATES[0], {**CERTIFICATES[1], "organizations": ["readers"]}]
    assert names(ensure(pki, **{**asked, "certificates": demoted})) == {"admin.crt", "admin.conf"}


def test_another_use_makes_it_anew(pki, asked) -> None:
    ensure(pki, **asked)
    both = [{**CERTIFICATES[0], "usages": ["server", "client"]}, CERTIFICATES[1]]
    assert names(ensure(pki, **{**asked, "certificates": both})) == {"server.crt"}


def test_what_lapses_within_a_month_is_made_anew(pki, asked, monkeypatch) -> None:
    monkeypatch.setattr(certificates, "LIFE", timedelta(days=29))
    ensure(pki, **asked)
    monkeypatch.undo()
    assert names(ensure(pki, **asked)) == {"server.crt", "admin.crt", "admin.conf"}
    assert read(pki / "server.crt").not_valid_after_utc > datetime.now(UTC) + timedelta(days=360)


def test_a_new_authority_signs_all_anew(pki, asked) -> None:
    ensure(pki, **asked)
    (pki / "ca.key").unlink()
    assert {"ca.key", "ca.crt", "server.crt", "admin.crt", "admin.conf"} <= names(ensure(pki, **asked))
    read(pki / "server.crt").verify_directly_issued_by(read(pki / "ca.crt"))


def test_a_damaged_key_is_replaced_with_all_that_hangs_on_it(pki, asked) -> None:
    ensure(pki, **asked)
    (pki / "admin.key").write_text("half a ke")
    assert names(ensure(pki, **asked)) == {"admin.key", "admin.crt", "admin.conf"}
    assert ensure(pki, **asked) == []


def test_ansible_is_told_what_was_written(pki, asked, ask) -> None:
    arguments = {"folder": str(pki), **asked}
    first = ask(certificates, **arguments)
    assert first["changed"] is True
    assert "admin.conf" in names(first["written"])
    second = ask(certificates, **arguments)
    assert (second["changed"], second["written"]) == (False, [])


def test_a_signature_of_nobody_is_refused_by_name(pki, asked, ask) -> None:
    orphan = {**CERTIFICATES[1], "authority": "nobody"}
    told = ask(certificates, folder=str(pki), **{**asked, "certificates": [orphan]})
    assert told["failed"] is True
    assert "admin is to be signed by nobody, which is no authority here" in told["msg"]
