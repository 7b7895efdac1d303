"""Quantities are read as Kubernetes writes them."""

from fractions import Fraction

import pytest
from marketlake.infrastructure.kubernetes import quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2", 2),
        ("0", 0),
        ("2.", 2),
        (".5", Fraction(1, 2)),
        ("+1.5", Fraction(3, 2)),
        ("-3", -3),
        ("123456789n", Fraction(123456789, 10**9)),
        ("250u", Fraction(250, 10**6)),
        ("500m", Fraction(1, 2)),
        ("1k", 1000),
        ("2M", 2 * 10**6),
        ("2G", 2 * 10**9),
        ("2T", 2 * 10**12),
        ("2P", 2 * 10**15),
        ("2E", 2 * 10**18),
        ("3Ki", 3 * 1024),
        ("1.5Mi", 1536 * 1024),
        ("3Gi", 3 * 1024**3),
        ("3Ti", 3 * 1024**4),
        ("3Pi", 3 * 1024**5),
        ("7Ei", 7 * 1024**6),
        ("1e3", 1000),
        ("1E3", 1000),
        ("12.5e+2", 1250),
        ("5e-1", Fraction(1, 2)),
    ],
)
def test_a_number_and_its_suffix_give_an_exact_number(text: str, number: Fraction) -> None:
    assert quantity(text) == number


def test_tenths_add_up() -> None:
    assert sum(quantity("0.1") for _ in range(10)) == 1
    assert quantity("9007199254740993") == 2**53 + 1


NO_QUANTITIES = (
    *("", "Mi", ".", "1 Gi", "1gi", "1ki", "1K", "1mi", "1e", "1e3k", "1e1000"),
    *("1\n", "1/2", "1_000", "0x10", "nan", "inf", "٣"),
)


@pytest.mark.parametrize("text", NO_QUANTITIES)
def test_any_other_text_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(
        ValueError, match="is not a Kubernetes quantity: a number with one of the suffixes n, u"
    ) as caught:
        quantity(text)
    assert str(caught.value).startswith(repr(text))
