"""Where a cluster is found, and what it is called there."""

from pathlib import Path

import pytest

from stacks.settings import targets
from stacks.settings.targets import KubeconfigMissingError, KubernetesSettings
from stacks.settings.validation import InvalidSettingsError, settings_from


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(targets, "ADMIN_KUBECONFIG", tmp_path / "admin.conf")
    return tmp_path


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_kubeconfig_is_looked_for_where_kubectl_would_and_then_where_a_control_plane_leaves_it(
    home: Path,
) -> None:
    settings = KubernetesSettings()
    admin = made(home / "admin.conf")
    assert settings.kubeconfig_file({}) == admin
    own = made(home / ".kube" / "config")
    assert settings.kubeconfig_file({}) == own
    named = made(home / "b")
    assert settings.kubeconfig_file({"KUBECONFIG": f"{home / 'a'}:{named}"}) == named


def test_a_kubeconfig_that_is_named_is_the_only_one(home: Path) -> None:
    made(home / "admin.conf")
    settings = settings_from(
        {"target": "kubernetes", "kubernetes": {"kubeconfig": "~/lake.yaml"}}, source="t"
    ).kubernetes
    with pytest.raises(KubeconfigMissingError, match=r"can be read at \S+/lake.yaml\. Name one with `pulumi"):
        settings.kubeconfig_file({"KUBECONFIG": str(home / "admin.conf")})
    there = made(home / "lake.yaml")
    assert settings.kubeconfig_file() == there


def test_a_missing_kubeconfig_names_every_place_that_was_looked_at(home: Path) -> None:
    with pytest.raises(KubeconfigMissingError) as caught:
        KubernetesSettings().kubeconfig_file({"KUBECONFIG": ""})
    assert f"{home}/.kube/config, {home}/admin.conf" in str(caught.value)


def test_the_namespace_is_named_after_the_environment_unless_it_is_named() -> None:
    assert KubernetesSettings().namespace_of("onprem") == "marketlake-onprem"
    assert KubernetesSettings(namespace="lake").namespace_of("onprem") == "lake"


def test_a_vendors_image_is_handed_on_as_a_component_wants_it() -> None:
    reference = f"docker.io/minio/minio@sha256:{'a' * 64}"
    settings = settings_from(
        {
            "target": "kubernetes",
            "images": {"vendor": {"minio": {"reference": reference, "executables": {"minio": "/usr/bin/minio"}}}},
        },
        source="t",
    )  # fmt: skip
    ((program, image),) = settings.images.vendor.items()
    assert program == "minio"
    assert image.args() == {"reference": reference, "executables": {"minio": "/usr/bin/minio"}, "roots": {}}


def test_closed_networks_are_those_of_ipv4() -> None:
    def closed(*networks: str) -> list[str]:
        return settings_from(
            {"target": "kubernetes", "kubernetes": {"closedNetworks": list(networks)}}, source="t"
        ).kubernetes.closed_networks

    assert closed("8.8.0.0/16") == ["8.8.0.0/16"]
    with pytest.raises(InvalidSettingsError, match=r"closedNetworks.*is everybody"):
        closed("0.0.0.0/0")
    with pytest.raises(InvalidSettingsError, match=r"closedNetworks.*is no IPv4 network"):
        closed("2001:db8::/48")


def test_operators_come_from_networks_and_not_from_everywhere() -> None:
    def operators(*networks: str) -> list[str]:
        return settings_from(
            {"target": "kubernetes", "kubernetes": {"operators": list(networks)}}, source="t"
        ).kubernetes.operators

    assert operators("10.20.0.0/16", "2001:db8::/48") == ["10.20.0.0/16", "2001:db8::/48"]
    with pytest.raises(InvalidSettingsError, match=r"kubernetes\.operators.*is everybody"):
        operators("0.0.0.0/0")
    with pytest.raises(InvalidSettingsError, match=r"kubernetes\.operators"):
        operators("10.20.0.1/16")
