"""Private files and folders, replaced atomically."""

import os
import shutil
import tempfile
from pathlib import Path

from components.supervision.accounts import Account

OWN = 0o700
PASSABLE = 0o711
"""Others may go through to a folder whose name they know, and cannot list it."""


def private_folder(path: Path, *, owner: Account | None = None, mode: int = OWN) -> None:
    """Create `path` (its parents exist or are created with the same mode), or correct its mode and owner."""
    for missing in reversed([folder for folder in (path, *path.parents) if not folder.exists()]):
        missing.mkdir(mode=mode, exist_ok=True)
        missing.chmod(mode)
    path.chmod(mode)
    if owner:
        os.chown(path, owner.uid, owner.gid)


def write_private(path: Path, text: str, *, owner: Account | None = None) -> bool:
    """Write `text` with mode 0600, atomically and durably.

    Returns:
        Whether the file's content differed before.
    """
    try:
        unchanged = path.read_text() == text
    except (OSError, UnicodeDecodeError):
        unchanged = False
    if unchanged:
        path.chmod(0o600)
        return False
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if owner:
            os.chown(temporary, owner.uid, owner.gid)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


def readable_copy(source: Path, destination: Path) -> None:
    """Copy a tool's tree to where every account can read it, atomically."""
    if destination.exists():
        return
    staging = destination.with_name(destination.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(source, staging, symlinks=True)
    for folder, _, names in os.walk(staging):
        Path(folder).chmod(0o755)
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    staging.replace(destination)


def remove(path: Path) -> None:
    """Remove a file or a folder with its content; it is no error if it does not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
