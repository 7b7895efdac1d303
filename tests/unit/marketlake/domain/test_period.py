from datetime import UTC, date, datetime

import pytest
from marketlake.domain.period import Period, period_bounds, period_name


@pytest.mark.parametrize(
    ("period", "name", "start", "end"),
    [
        (Period.DAY, "2024-02-29", datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        (Period.MONTH, "2024-02", datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        (Period.YEAR, "2024", datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_period_has_a_name_and_bounds(period, name, start, end):
    assert period_name(date(2024, 2, 29), period) == name
    assert start.strftime(period) == name
    assert period_bounds(name) == (start, end)
