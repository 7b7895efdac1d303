import subprocess
import sys

import pytest
import typer
from marketlake.archive.discovery.listing import ListingError
from marketlake.cli.exit_codes import (
    ExitCode,
    PlatformUnreachableError,
    TaskFailedError,
    UsageError,
    reporting,
)
from marketlake.infrastructure.bus.connection import EventBusUnavailableError
from marketlake.infrastructure.postgres import DatabaseUnavailableError
from marketlake.infrastructure.storage.errors import StorageError
from marketlake.settings import SettingsError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("told"), ExitCode.USAGE),
        (SettingsError("told"), ExitCode.USAGE),
        (PlatformUnreachableError("told"), ExitCode.UNREACHABLE),
        (DatabaseUnavailableError("told"), ExitCode.UNREACHABLE),
        (EventBusUnavailableError("told"), ExitCode.UNREACHABLE),
        (StorageError("told"), ExitCode.UNREACHABLE),
        (ListingError("told"), ExitCode.INCOMPLETE),
        (TaskFailedError("told"), ExitCode.INCOMPLETE),
    ],
)
def test_an_expected_error_is_a_message_and_an_exit_code(
    error: Exception, code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    @reporting
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == code
    assert capsys.readouterr().err == "error: told\n"


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    @reporting
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_that_went_away_is_no_failure() -> None:
    program = (
        "import typer, sys\n"
        "from marketlake.cli.exit_codes import reporting\n"
        "@reporting\n"
        "def command():\n"
        "    for _ in range(100000): sys.stdout.write('a line of the answer\\n')\n"
        "typer.run(command)\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    assert running.stderr.read() == b""
    assert running.wait(30) == 0


def test_a_defect_keeps_its_stack_trace() -> None:
    @reporting
    def command() -> None:
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError):
        command()


def test_an_exit_passes_as_it_is() -> None:
    @reporting
    def command() -> None:
        raise typer.Exit(5)

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 5
