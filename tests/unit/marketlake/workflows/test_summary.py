from dataclasses import replace
from uuid import UUID

from marketlake.archive.collection.batches import Failure
from marketlake.workflows.summary import markdown

from tests.unit.marketlake.cli.test_follower import DONE


def test_the_page_shows_counts() -> None:
    page = markdown(UUID(int=1), replace(DONE, rows=1234567), [])
    assert "| rows written to bronze | 1,234,567 |" in page
    assert "Failed files" not in page


def test_the_page_shows_what_failed_and_why_in_one_row_each() -> None:
    failures = [Failure(key=f"k{number}", code="c", message="a|b\nc", attempts=1) for number in range(101)]
    page = markdown(UUID(int=1), DONE, failures)
    assert "| `k0` | c | a\\|b c |" in page
    assert "k100" not in page
    assert "… and 1 more." in page
