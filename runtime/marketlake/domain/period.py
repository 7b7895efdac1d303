"""Periods: the calendar units that silver is written in."""

import calendar
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum


class Period(StrEnum):
    """How much time one partition of a silver table covers: the length of its name, an ISO date cut short."""

    DAY = "%Y-%m-%d"
    MONTH = "%Y-%m"
    YEAR = "%Y"


_NAME_LENGTH = {Period.DAY: 10, Period.MONTH: 7, Period.YEAR: 4}


def period_name(day: date, period: Period) -> str:
    """Return the period that a UTC day lies in, e.g. ``2026-05`` for a month."""
    return day.isoformat()[: _NAME_LENGTH[period]]


def period_bounds(name: str) -> tuple[datetime, datetime]:
    """Return the first moment of a period, and of the one after it (UTC)."""
    year, *rest = (int(part) for part in name.split("-"))
    start = datetime(year, rest[0] if rest else 1, rest[1] if len(rest) > 1 else 1, tzinfo=UTC)
    if len(rest) == 2:
        return start, start + timedelta(days=1)
    if len(rest) == 1:
        return start, start + timedelta(days=calendar.monthrange(start.year, start.month)[1])
    return start, start.replace(year=start.year + 1)
