"""A program's files on this machine: written before it starts, removed after it ended."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from components.supervision.accounts import Account, as_account, require_passage, unprivileged
from components.supervision.files import PASSABLE, private_folder, readable_copy, remove, write_private
from components.supervision.layout import SERVICE_MARK, STACK_MARK, StackFolder
from components.supervision.program import HostProgram, SetupCommand
from components.supervision.readiness import quoted

RUN_FILE = "run"
_SETUP_TIMEOUT_S = 180
_INHERITED = (
    "PATH", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
)  # fmt: skip


class InstallationError(Exception):
    """A service's files cannot be written; the message says what to do."""


def inherited_environment() -> dict[str, str]:
    """Return the environment variables that a service inherits from `pulumi up`: none that could be a secret."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


def prepare_stack_folder(stack: StackFolder) -> None:
    """Create the folders that all services share; only their owner can list them."""
    mode = PASSABLE if unprivileged() else 0o700
    for folder in (stack.root, stack.services, stack.data, stack.tools):
        private_folder(folder, mode=mode)
    for folder in (stack.supervisor, stack.programs, stack.logs):
        private_folder(folder)


def install(program: HostProgram) -> bool:
    """Write everything that `program` needs to start; repeated, it changes nothing.

    Returns:
        Whether a running process has to be restarted to see a change.

    Raises:
        InstallationError: no room on the disk, or a folder cannot be written.
        AccountError: the service's account cannot get to its folders.
    """
    stack = program.stack
    account = account_of(program)
    try:
        prepare_stack_folder(stack)
        if account:
            require_passage(stack.service(program.name), account)
        for target, source in program.tool_copies.items():
            readable_copy(Path(source), Path(target))
        _make_volumes(program, account)
        private_folder(stack.service(program.name), owner=account)
        private_folder(stack.temporary(program.name), owner=account)
        changed = [
            write_private(stack.file(program.name, name), text, owner=account)
            for name, text in texts_of(program).items()
        ]
    except OSError as error:
        raise InstallationError(
            f"{program.name}: cannot write below {stack.root}: {error.strerror or error}. "
            "Free some room, correct the folder's permissions, or name another place with MARKETLAKE_HOME."
        ) from error
    return any(changed)


def installed_differs(program: HostProgram) -> bool:
    """Whether a file of `program` is missing or is not as declared."""
    stack = program.stack
    for name, text in texts_of(program).items():
        try:
            if stack.file(program.name, name).read_text() != text:
                return True
        except (OSError, UnicodeDecodeError):
            return True
    return False


def run_setup(program: HostProgram) -> None:
    """Run the commands that come before the program.

    Raises:
        InstallationError: one failed; the message quotes what it wrote last.
    """
    account = account_of(program)
    for command in program.setup:
        created = Path(command.creates) if command.creates else None
        if created and created.exists():
            continue
        staging = created.with_name(created.name + ".part") if created and command.staged else None
        if staging:
            remove(staging)
        _run(program, command, account)
        if staging and created:
            staging.rename(created)


def uninstall(stack: StackFolder, name: str, *, tool_copies: Iterable[str], keep_data: bool) -> None:
    """Remove a program's files, its copied tools, its log, and its volumes unless they are to be kept."""
    remove(stack.service(name))
    for copy in tool_copies:
        remove(Path(copy))
    own_log = re.compile(rf"{re.escape(name)}(-\d+)?\.log(\.\d+)?")
    for log in stack.logs.glob("*"):
        if own_log.fullmatch(log.name):
            remove(log)
    if not keep_data:
        remove(stack.data / name)


def account_of(program: HostProgram) -> Account | None:
    """Return the account that the program runs as; None: this user."""
    return unprivileged() if program.unprivileged else None


def environment_of(program: HostProgram) -> dict[str, str]:
    """The program's own environment, with secrets and with the marks by which its processes are recognised."""
    return {
        "HOME": str(program.stack.service(program.name)),
        "TMPDIR": str(program.stack.temporary(program.name)),
        **program.environment,
        **program.secret_environment,
        STACK_MARK: program.folder,
        SERVICE_MARK: program.name,
    }


def texts_of(program: HostProgram) -> Mapping[str, str]:
    """Every file of the program, by name, the one that starts it included."""
    variables = sorted(environment_of(program).items())  # Pulumi keeps no order, and a new one is no change
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables)
    run = (
        "# Starts the service by hand, too:  sh ./run\n"
        "umask 077\n"
        f"cd {shlex.quote(str(program.stack.service(program.name)))} || exit 1\n"
        f"{exports}exec {shlex.join(program.argv)}\n"
    )
    return {**program.files, **program.secret_files, RUN_FILE: run}


def _make_volumes(program: HostProgram, account: Account | None) -> None:
    stack = program.stack
    missing = {
        name: room for name, room in program.volumes.items() if not stack.volume(program.name, name).exists()
    }
    needed = sum(missing.values())
    free = shutil.disk_usage(stack.data).free // 2**20
    if missing and free < needed:
        raise InstallationError(
            f"{program.name} needs {needed} MiB for its data, and {stack.data} has {free} MiB free. "
            "Free some room, or name another place with MARKETLAKE_HOME."
        )
    if program.volumes:
        private_folder(stack.data / program.name, owner=account)
    for name in program.volumes:
        private_folder(stack.volume(program.name, name), owner=account)


def _run(program: HostProgram, command: SetupCommand, account: Account | None) -> None:
    try:
        with Path(command.stdin or os.devnull).open() as stdin:
            result = subprocess.run(
                [*as_account(account), *command.argv],
                env=inherited_environment() | environment_of(program),
                cwd=program.stack.service(program.name),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                timeout=_SETUP_TIMEOUT_S,
                umask=0o077,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallationError(f"{program.name}: could not {command.name}: {error}") from error
    if result.returncode:
        raise InstallationError(
            f"{program.name}: could not {command.name}: {Path(command.argv[0]).name} ended with status "
            f"{result.returncode}. It wrote last:\n{quoted(result.stdout, hiding=program.hidden)}"
        )
