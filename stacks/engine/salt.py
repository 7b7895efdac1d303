"""Keeping one person's salt out of everybody's settings file.

Pulumi derives the key of a stack's secrets from a passphrase and a salt. It keeps the salt in the state,
and copies it into ``Pulumi.<stack>.yaml`` whenever it runs. That file is shared and the passphrase is not,
so the copy is taken out again: Pulumi is told to fall back to the state's own
(`PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER`).
"""

import json
import sys
from pathlib import Path

_KEY = "encryptionsalt:"


def take_out_salt(settings: Path, state: Path) -> bool:
    """Remove the salt's line from a settings file; True if there was one to remove.

    It stays where it could not be had back: if the state does not hold the same, or the file holds secrets
    that it encrypts.

    Args:
        settings: a ``Pulumi.<stack>.yaml``.
        state: the stack's state.
    """
    try:
        text = settings.read_text()
        latest = json.loads(state.read_text())["checkpoint"]["latest"] or {}
    except (OSError, ValueError, KeyError):
        return False
    lines = text.splitlines(keepends=True)
    salts = [line for line in lines if line.startswith(_KEY)]
    kept = (latest.get("secrets_providers") or {}).get("state", {}).get("salt")
    if not salts or any(line.removeprefix(_KEY).strip() != kept for line in salts) or "secure:" in text:
        return False
    settings.write_text("".join(line for line in lines if not line.startswith(_KEY)))
    return True


def clean_environments(settings_folder: Path, state_folder: Path) -> None:
    """Clean the settings of every environment that has a stack.

    Args:
        settings_folder: with ``Pulumi.<stack>.yaml`` files.
        state_folder: with a ``<stack>.json`` file for each stack.
    """
    for settings in settings_folder.glob("Pulumi.*.yaml"):
        stack = settings.name.removeprefix("Pulumi.").removesuffix(".yaml")
        take_out_salt(settings, state_folder / f"{stack}.json")


if __name__ == "__main__":
    clean_environments(*map(Path, sys.argv[1:3]))
