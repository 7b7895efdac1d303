"""A row is judged alone: whether it is read with others at once, or looked at by itself, must not matter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marketlake.pipeline.contracts.tables import table_type
from marketlake.pipeline.ingest.csv_parser import CsvParser, sniff_header

AGG_TRADES = table_type("binance", "spot", "aggTrades")
COLUMNS = AGG_TRADES.file_columns
GOOD = "1,1.5,2,3,4,1778198400000,true,true"
TOKENS = [
    " 2", "2 ", "\t2", "+2", "-2", "2.", "2.0", ".5", "1e5", "1E-5", "1e400", "-0", "007", "0x10", "1_0", "TRUE",
    "tRuE", "t", "1", "yes", "NaN", "nan", "inf", "-inf", "Infinity", "", '""', '"2"', "\uff12", "1\r",
    "1778198400000", "1778198400000000", "99999999999999999999", "#2", "null", "None", "4.9e-324", "1e", "--1",
    "1778198400", "true", "False",
]  # fmt: skip


def parser():
    prepared = CsvParser(AGG_TRADES, COLUMNS, "file")
    prepared.header = False
    return prepared


fields = st.one_of(
    st.sampled_from(TOKENS),
    st.integers(-(2**64), 2**64).map(str),
    st.floats(allow_nan=True).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, places=8).map(str),
    st.text(st.characters(exclude_characters=',\n"', exclude_categories=["Cs"]), max_size=6),
)


@pytest.mark.parametrize("place", range(8), ids=COLUMNS)
@given(token=fields)
def test_what_is_read_at_once_is_what_is_read_with_care(place, token):
    row = GOOD.split(",")
    row[place] = token
    text = f"{GOOD}\n{','.join(row)}\n".encode()
    prepared = parser()
    at_once = prepared._read_at_once(text)
    if at_once is None:
        return
    with_care = prepared._one_by_one(text)
    assert with_care.bad.is_empty()
    assert with_care.rows.equals(prepared._typed(at_once))


@given(fields=st.lists(st.sampled_from(["", "1", "2.5", "true", "1778198400000"]), max_size=9))
def test_a_row_of_any_width_is_read_at_once_as_with_care(fields):
    text = f"{GOOD}\n{','.join(fields)}\n{GOOD}\n".encode()
    prepared = parser()
    at_once = prepared._read_at_once(text)
    with_care = prepared._one_by_one(text)
    assert at_once is None or with_care.bad.is_empty()
    assert at_once is None or with_care.rows.equals(prepared._typed(at_once))


@pytest.mark.parametrize("width", range(1, 8))
def test_a_row_with_fewer_fields_is_bad_wherever_it_ends(width):
    short = ",".join(GOOD.split(",")[:width])
    batch = parser().parse(f"{GOOD}\n{short}\n{GOOD}\n".encode())
    assert batch.rows["row_number"].to_list() == [1, 3]
    assert batch.bad.rows() == [(2, short, f"{width} columns where 8 belong")]


def test_an_empty_last_field_is_no_missing_one():
    batch = parser().parse(f"{GOOD}\n{GOOD.removesuffix('true')}\n".encode())
    assert batch.rows["is_best_match"].to_list() == [True, None]


@given(rows=st.lists(st.lists(fields, min_size=6, max_size=9).map(",".join), max_size=5))
def test_every_row_is_either_typed_or_told_with_a_reason(rows):
    text = "".join(f"{row}\n" for row in [GOOD, *rows])
    batch = parser().parse(text.encode())
    lines = text[:-1].split("\n")
    assert sorted([*batch.rows["row_number"], *batch.bad["row_number"]]) == list(range(1, len(lines) + 1))
    assert batch.bad["reason"].null_count() == 0
    for number, raw in batch.bad.select("row_number", "raw").rows():
        assert raw.rstrip("\r") == lines[number - 1].rstrip("\r")


@pytest.mark.parametrize(
    ("start", "header"),
    [
        (b"open_time", True),
        (b'"open', True),
        (b"\xef\xbb\xbfopen", True),
        (b"15778", False),
        (b"-0.1", False),
    ],
)
def test_a_header_begins_with_a_letter(start, header):
    assert sniff_header(start) is header
