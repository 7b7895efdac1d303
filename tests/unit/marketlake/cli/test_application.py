import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from marketlake.cli import application, collect, main, sql
from marketlake.cli.application import app
from marketlake.cli.exit_codes import ExitCode
from typer.testing import CliRunner

RUNNER = CliRunner()
HEAVY = (
    "rich.markdown",
    "yaml",
    "open_data_contract_standard",
    "polars",
    "pyarrow",
    "psycopg",
    "httpx",
    "prefect",
    "pydantic",
    "confluent_kafka",
)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from marketlake.cli import main\n"
        "sys.argv = ['marketlake', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for command in ("status", "collect", "sql", "worker", "venue", "archive", "lake"):
        assert f"\n  {command} " in done.stdout


def test_commands_of_other_distributions_are_found_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("extra", "tests.unit.marketlake.cli.plug_in:app", application.PLUG_INS)
    monkeypatch.setattr(application, "entry_points", lambda group: [point])
    assert "extra" in RUNNER.invoke(app, ["--help"]).output
    assert RUNNER.invoke(app, ["extra", "hello"]).output == "hello from a plug-in\n"
    assert RUNNER.invoke(app, ["nonsense"]).exit_code == ExitCode.USAGE


def test_a_plug_in_cannot_replace_an_own_command(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("sql", "tests.unit.marketlake.cli.plug_in:app", application.PLUG_INS)
    monkeypatch.setattr(application, "entry_points", lambda group: [point])
    assert "Query the lake" in RUNNER.invoke(app, ["sql", "--help"]).output


def test_the_environment_reaches_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def run(environment: str | None, statement: str, *, most_rows: int, as_json: bool) -> ExitCode:
        asked.append((environment, statement, most_rows, as_json))
        return ExitCode.INCOMPLETE

    monkeypatch.setattr(sql, "run", run)
    assert RUNNER.invoke(app, ["--env", "staging", "sql", "select 1", "--json"]).exit_code == 1
    assert RUNNER.invoke(app, ["sql", "select 2", "--rows", "5"]).exit_code == 1
    assert asked == [("staging", "select 1", 200, True), (None, "select 2", 5, False)]


def test_the_options_reach_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def run(environment: str | None, options: object, **others: object) -> ExitCode:
        seen.update(others, options=options)
        return ExitCode.COMPLETE

    monkeypatch.setattr(collect, "run", run)
    arguments = "collect --venue v --market m --type t --interval 1m --symbol A --symbol B --from 2020-01-01"
    done = RUNNER.invoke(app, [*arguments.split(), "--frequency", "daily", "--all"])
    assert done.exit_code == 0, done.output
    options = seen.pop("options")
    assert isinstance(options, collect.SelectionOptions)
    assert (options.venue, options.market, options.data_type, options.interval) == ("v", "m", "t", "1m")
    assert (list(options.symbols), options.frequency, options.end) == (["A", "B"], "daily", None)
    assert options.start is not None
    assert options.start.year == 2020
    assert seen == {"everything": True, "venue_endpoint": None, "as_json": False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("collect --venue binance", "narrow it down with --market or --type, or say --all"),
        ("collect --venue binance --market spot --type klines --interval 2m", "has no interval '2m'"),
        (
            "collect --venue binance --type metrics",
            "metrics of binance cannot be collected: it is catalogued",
        ),
        ("collect --venue binance --market spot --venue-endpoint nonsense", "is no address of an S3 service"),
        ("collect --venue binance --from 2020-02-31", "does not match"),
        ("archive list --venue nobody", "there is no venue 'nobody'"),
        ("venue publish nowhere", "is no folder"),
        ("status", "no platform file at"),
        ("sql select", "no platform file at"),
    ],
)
def test_a_persons_mistake_is_told_without_a_stack_trace(
    arguments: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("MARKETLAKE_HOME", str(tmp_path))
    done = RUNNER.invoke(app, arguments.split())
    assert done.exit_code == ExitCode.USAGE, done.output
    assert message in " ".join(done.output.split())
    assert not done.exception or isinstance(done.exception, SystemExit)


def test_the_script_runs_the_application(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["marketlake"])
    with pytest.raises(SystemExit):
        main()
    assert "Usage: marketlake [OPTIONS] COMMAND" in capsys.readouterr().err
