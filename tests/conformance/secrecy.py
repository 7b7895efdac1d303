"""No secret is stored where another user could read it."""

import json

import psutil

from tests.conformance.platform import Platform


class SecrecyPromises:
    """Where the passwords of a platform are not."""

    def test_no_secret_is_in_the_process_list(self, platform: Platform) -> None:
        secrets = platform.secrets()
        assert len(secrets) >= 5
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            assert not any(secret in line for secret in secrets), process.name()

    def test_no_secret_is_in_a_log(self, platform: Platform) -> None:
        secrets = [secret.encode() for secret in platform.secrets()]
        read = 0
        for place, content in platform.logs():
            read += len(content)
            assert not any(secret in content for secret in secrets), place
        assert read > 10_000, "there was nothing to look through"

    def test_no_secret_is_in_clear_in_the_state_or_in_what_is_recorded_of_the_stack(
        self, platform: Platform
    ) -> None:
        secrets = [secret.encode() for secret in platform.secrets()]
        state = [
            (str(path), path.read_bytes()) for path in platform.workspace.backend.rglob("*") if path.is_file()
        ]
        looked_at = [*state, *platform.kept_elsewhere()]
        for place, content in looked_at:
            assert not any(secret in content for secret in secrets), place
        assert sum(len(content) for _, content in looked_at) > 10_000, "there was nothing to look through"

    def test_outputs_name_the_addresses_and_no_secret(self, platform: Platform) -> None:
        text = platform.pulumi("stack", "output", "--json").stdout
        outputs = json.loads(text)
        addresses = {
            service.name: service.address for service in platform.settings.services if service.address
        }
        assert outputs["endpoints"] == addresses
        assert not any(secret in text for secret in platform.secrets())
