"""Ansible module: several text files and linked programs at once, for a task costs half a second.

Files are written whole or not at all, and only when they differ.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def write(path: Path, content: str, mode: int) -> bool:
    """Write a file with this content and mode, and return whether anything changed."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.is_file() and path.read_text() == content:
        if path.stat().st_mode & 0o777 == mode:
            return False
        path.chmod(mode)
        return True
    number, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    with os.fdopen(number, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(name).chmod(mode)
    Path(name).replace(path)
    return True


def place(program: Path, target: Path) -> bool:
    """Put a program at `target`, as a hard link on the same disk, and return whether anything changed.

    The node must not break when the cache is cleared that the program was installed into.
    """
    found, wanted = target.stat() if target.exists() else None, program.stat()
    if found and (found.st_size, found.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        part.hardlink_to(program)
    except OSError:
        shutil.copy2(program, part)
    part.replace(target)
    return True


def ensure(
    *, files: dict[str, str], kept: dict[str, str], programs: dict[str, str], folders: list[str], mode: int
) -> list[str]:
    """Bring all of it about.

    Returns:
        The paths that changed.
    """
    changed = []
    for folder in folders:
        if not Path(folder).is_dir():
            Path(folder).mkdir(parents=True, mode=0o700)
            changed.append(folder)
    files = files | {path: content for path, content in kept.items() if not Path(path).exists()}
    changed += [path for path, content in files.items() if write(Path(path), content, mode)]
    return changed + [target for target, program in programs.items() if place(Path(program), Path(target))]


def _below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {str(Path(folder) / name): content for name, content in files.items()}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        {
            "below": {"type": "path", "default": "/"},
            "files": {"type": "dict", "default": {}, "no_log": True},
            "kept": {"type": "dict", "default": {}, "no_log": True},
            "programs": {"type": "dict", "default": {}},
            "folders": {"type": "list", "elements": "str", "default": []},
            "mode": {"type": "str", "default": "0600"},
        }
    )
    asked: dict[str, Any] = module.params
    try:
        changed = ensure(
            files=_below(asked["below"], asked["files"]),
            kept=_below(asked["below"], asked["kept"]),
            programs=asked["programs"],
            folders=asked["folders"],
            mode=int(asked["mode"], 8),
        )
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(changed=bool(changed), paths=changed)


if __name__ == "__main__":
    main()
