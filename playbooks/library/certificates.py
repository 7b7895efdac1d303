"""Ansible module: certificate authorities, certificates and kubeconfigs below one folder.

What is there and will hold for another month is kept; what is missing, wrong or about to lapse is made anew.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=3650)
LIFE = timedelta(days=365)
RENEWED_BEFORE = timedelta(days=30)
_BACKDATED = timedelta(minutes=5)
_USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


class Folder:
    """Keys (0600) and certificates in one folder of root's, and what was written into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written: list[str] = []

    def write(self, path: Path, content: bytes) -> None:
        """Replace a file's content, whole or not at all, unless it is that already."""
        if path.exists() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        number, name = tempfile.mkstemp(prefix=".", dir=path.parent)
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
        self.written.append(str(path))

    def key(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Return the key called `name`, or a new one where none can be read."""
        path = self.path / f"{name}.key"
        try:
            loaded = serialization.load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError):
            loaded = None
        if isinstance(loaded, ec.EllipticCurvePrivateKey):
            return loaded
        made = ec.generate_private_key(ec.SECP256R1())
        self.write(path, _pem(made))
        return made

    def certificate(self, name: str) -> x509.Certificate | None:
        """The certificate called `name`, if there is one that can be read."""
        try:
            return x509.load_pem_x509_certificate((self.path / f"{name}.crt").read_bytes())
        except (OSError, ValueError):
            return None

    def authority(self, name: str, common_name: str) -> x509.Certificate:
        """Return the authority called `name`, created if it is missing."""
        key, found = self.key(name), self.certificate(name)
        if found and _fresh(found) and found.public_key() == key.public_key():
            return found
        subject = _subject(common_name, [])
        made = (
            _builder(subject, subject, key, AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        self.write(self.path / f"{name}.crt", made.public_bytes(serialization.Encoding.PEM))
        return made

    def issue(self, wanted: dict[str, Any]) -> None:
        """A certificate as the module's option ``certificates`` describes it."""
        issuer = self.certificate(wanted["authority"])
        if issuer is None:
            raise ValueError(
                f"{wanted['name']} is to be signed by {wanted['authority']}, which is no authority here"
            )
        key, found = self.key(wanted["name"]), self.certificate(wanted["name"])
        subject = _subject(wanted["common_name"], wanted.get("organizations", []))
        alternatives = _alternatives(wanted)
        if found and _fresh(found) and _signed_by(found, issuer) and found.public_key() == key.public_key():
            same_names = _alternatives_of(found) == alternatives
            if found.subject == subject and same_names and _usages_of(found) == set(wanted["usages"]):
                return
        builder = (
            _builder(subject, issuer.subject, key, LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([_USAGES[usage] for usage in wanted["usages"]]), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        made = builder.sign(self.key(wanted["authority"]), hashes.SHA256())
        self.write(self.path / f"{wanted['name']}.crt", made.public_bytes(serialization.Encoding.PEM))

    def signing_key(self, name: str) -> None:
        """A key pair that signs tokens: ``NAME.key`` and ``NAME.pub``."""
        public = self.key(name).public_key()
        self.write(
            self.path / f"{name}.pub",
            public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        )

    def kubeconfig(self, name: str, path: Path, wanted: dict[str, Any]) -> None:
        """Write a kubeconfig that embeds authority, certificate and key."""

        def data(file: str) -> str:
            return base64.b64encode((self.path / file).read_bytes()).decode()

        cluster = {
            "server": wanted["server"],
            "certificate-authority-data": data(f"{wanted['authority']}.crt"),
        }
        user = {"client-certificate-data": data(f"{name}.crt"), "client-key-data": data(f"{name}.key")}
        context = {"cluster": wanted["cluster"], "user": name}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": wanted["cluster"], "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": f"{name}@{wanted['cluster']}", "context": context}],
            "current-context": f"{name}@{wanted['cluster']}",
        }
        self.write(path, json.dumps(document, indent=1).encode())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
    )


def _subject(common_name: str, organizations: list[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _alternatives(wanted: dict[str, Any]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in wanted.get("names", [])]
    return names + [x509.IPAddress(ipaddress.ip_address(address)) for address in wanted.get("addresses", [])]


def _alternatives_of(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _usages_of(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return {name for name, identifier in _USAGES.items() if identifier in found}


def _fresh(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_after_utc - datetime.now(UTC) > RENEWED_BEFORE


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - ValueError, TypeError or InvalidSignature: whatever it is, it is not signed
        return False
    return True


def ensure(
    folder: Path,
    *,
    authorities: list[dict[str, Any]],
    certificates: list[dict[str, Any]],
    signing_keys: list[str],
    kubeconfigs: dict[str, Any],
) -> list[str]:
    """Bring all of it about.

    Returns:
        The files that were written.
    """
    pki = Folder(folder)
    for authority in authorities:
        pki.authority(authority["name"], authority["common_name"])
    for certificate in certificates:
        pki.issue(certificate)
    for name in signing_keys:
        pki.signing_key(name)
    for name, path in kubeconfigs.get("paths", {}).items():
        pki.kubeconfig(name, Path(path), kubeconfigs)
    return pki.written


def main() -> None:
    """Run as an Ansible module."""
    rows = {"type": "list", "elements": "dict", "default": []}
    module = AnsibleModule(
        {
            "folder": {"type": "path", "required": True},
            "authorities": rows,
            "certificates": rows,
            "signing_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "kubeconfigs": {"type": "dict", "default": {}},
        }
    )
    asked = module.params
    try:
        written = ensure(
            Path(asked["folder"]),
            authorities=asked["authorities"],
            certificates=asked["certificates"],
            signing_keys=asked["signing_keys"],
            kubeconfigs=asked["kubeconfigs"],
        )
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"the certificates below {asked['folder']} could not be made: {error}")
    module.exit_json(changed=bool(written), written=written)


if __name__ == "__main__":
    main()
