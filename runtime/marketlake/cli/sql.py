"""`marketlake sql`."""

from marketlake.cli.exit_codes import ExitCode, UsageError, say
from marketlake.cli.output import print_json, print_table
from marketlake.pipeline.serving.query import SqlError, query
from marketlake.settings import Settings


def run(environment: str | None, statement: str, *, most_rows: int, as_json: bool) -> ExitCode:
    """Print the answer: as JSON an array of rows, else a table of the first `most_rows`."""
    settings = Settings.load(environment)
    try:
        answer = query(settings, statement)
    except SqlError as error:
        raise UsageError(str(error)) from error
    if as_json:
        print_json(answer.to_pylist())
        return ExitCode.COMPLETE
    columns = answer.column_names
    shown = answer.slice(0, most_rows)
    numbers = [field.name for field in answer.schema if _is_number(str(field.type))]
    # by position: two columns may have the same name
    rows = zip(*(column.to_pylist() for column in shown.columns), strict=True)
    print_table(columns, rows, right=numbers)
    if answer.num_rows > most_rows:
        say(f"{most_rows} of {answer.num_rows:,} rows; --rows shows more, --json all")
    else:
        say(f"{answer.num_rows} row{'' if answer.num_rows == 1 else 's'}")
    return ExitCode.COMPLETE


def _is_number(kind: str) -> bool:
    return kind.startswith(("int", "uint", "float", "double", "halffloat", "decimal"))
