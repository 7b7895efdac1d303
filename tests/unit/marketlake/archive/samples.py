"""Files and ledger entries as tests need them."""

from datetime import UTC, date, datetime
from uuid import UUID

from marketlake.archive.ledger import LedgerEntry
from marketlake.domain.archive import ArchiveFile, Frequency


def archive_file(day: int, *, symbol: str = "BTCUSDT", data_type: str = "klines") -> ArchiveFile:
    """The daily 1m klines of a day in January 2020."""
    name = f"{symbol}-1m-2020-01-{day:02}.zip"
    key = f"data/spot/daily/{data_type}/{symbol}/1m/{name}"
    return ArchiveFile(
        venue="binance",
        market="spot",
        data_type=data_type,
        symbol=symbol,
        interval="1m",
        frequency=Frequency.DAILY,
        start=date(2020, 1, day),
        end=date(2020, 1, day),
        key=key,
        size=1000 + day,
        etag=f"etag-{day}",
        last_modified=datetime(2020, 2, 1, tzinfo=UTC),
        sidecar_key=f"{key}.CHECKSUM",
    )


def ledger_entry(file: ArchiveFile) -> LedgerEntry:
    """The entry of a file that is in."""
    return LedgerEntry(
        venue=file.venue,
        key=file.key,
        version=1,
        market=file.market,
        data_type=file.data_type,
        symbol=file.symbol,
        interval=file.interval,
        frequency=file.frequency,
        file_start=file.start,
        file_end=file.end,
        sha256="0" * 64,
        etag=file.etag,
        size=file.size,
        last_modified=file.last_modified,
        header=False,
        rows=1440,
        quarantined=0,
        first_day=file.start,
        last_day=file.end,
        landing_key=f"binance/{file.key}",
        landing_version_id="v1",
        data_file_id=1,
        batch_id=UUID(int=1),
        collected_at=datetime(2020, 2, 2, tzinfo=UTC),
        refined_at=None,
    )
