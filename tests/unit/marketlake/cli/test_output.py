import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from marketlake.cli.output import plain, print_json, print_table, size, text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (1.5, 1.5),
        (float("nan"), None),
        (float("inf"), None),
        (Decimal("0.10000000"), "0.10000000"),
        (datetime(2020, 1, 1, 12, tzinfo=UTC), "2020-01-01T12:00:00.000000Z"),
        (datetime(2020, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))), "2020-01-01T10:00:00.000000Z"),
        (datetime(2020, 1, 1, 0, 0, 0, 5, tzinfo=None), "2020-01-01T00:00:00.000005"),  # noqa: DTZ001 - of a column without zone
        (date(2020, 1, 1), "2020-01-01"),
        (time(1, 2), "01:02:00"),
        (timedelta(minutes=1), 60.0),
        (b"\x00\x01", "AAE="),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({1: [Decimal(1)]}, {"1": ["1"]}),
        ((1, 2), [1, 2]),
        (range(2), "range(0, 2)"),
    ],
)
def test_every_value_has_its_json(value: object, expected: object) -> None:
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)


def test_json_is_printed_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"a": Decimal("1.0"), "ü": None}])
    assert json.loads(capsys.readouterr().out) == [{"a": "1.0", "ü": None}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, ""), (0.1, "0.1"), (True, "yes"), (False, "no"), ([1], "[1]"), ("x", "x"), (5, "5")],
)
def test_cells_are_short(value: object, expected: str) -> None:
    assert text(value) == expected


def test_a_table_into_a_pipe_keeps_its_values_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("key", "n"), [("k" * 180, 5), ("[not markup]", 6)], right=("n",), title="title")
    out = capsys.readouterr().out
    assert "k" * 180 in out
    assert "[not markup]" in out


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**40, "5.0 TiB")]
)
def test_sizes_are_told_in_the_unit_that_people_read(count: int, expected: str) -> None:
    assert size(count) == expected
