"""Copies of files into landing, many at once, on one event loop for as long as the process lives."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self
from urllib.parse import urlsplit

import aiohttp
from obstore.store import ObjectStore as Bucket

from marketlake.archive.ledger import LedgerEntry
from marketlake.domain.archive import ArchiveFile
from marketlake.domain.venue import Integrity
from marketlake.errors import MarketlakeError
from marketlake.infrastructure.telemetry import metrics
from marketlake.retry import Backoff, FailedAttempt, RetryStoppedError, retry_async
from marketlake.settings import Collection, VenueEndpoint
from marketlake.sync.copy import HELD, CopiedObject, recall_file
from marketlake.sync.errors import VenueError
from marketlake.sync.limits import HostLimiter
from marketlake.sync.transport import Timeouts, venue_client

log = logging.getLogger(__name__)


class Copy(Protocol):
    """Streams a file into landing (:func:`marketlake.sync.copy.copy_file`)."""

    async def __call__(
        self,
        file: ArchiveFile,
        endpoint: VenueEndpoint,
        landing: Bucket,
        /,
        *,
        integrity: Integrity,
        look: bool,
        client: aiohttp.ClientSession,
    ) -> CopiedObject:
        """Return the object in landing, copied now or before."""
        ...


@dataclass(frozen=True, slots=True)
class FailedTransfer:
    """A file that did not come in."""

    error: Exception
    attempts: int


Transfer = Callable[[], Awaitable[CopiedObject]]


class Transfers:
    """Brings files into landing; threads may share one. Use it as a context manager.

    Args:
        landing: the landing bucket.
        settings: how many files are in flight at once, how fast they follow each other, how often each is tried.
        copy: streams one file.
        stop: set when the process is to end: waiting ends then.
    """

    def __init__(self, landing: Bucket, settings: Collection, *, copy: Copy, stop: threading.Event) -> None:
        self._landing = landing
        self._settings = settings
        self._copy = copy
        self._stop = stop
        self._limiter = HostLimiter(settings.requests_per_second)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="transfers", daemon=True)
        self._stack = contextlib.AsyncExitStack()
        self._client: aiohttp.ClientSession
        self._in_flight: asyncio.Semaphore

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def bring(
        self,
        files: Sequence[ArchiveFile],
        endpoint: VenueEndpoint,
        *,
        integrity: Integrity,
        known: frozenset[str],
        tell: Callable[[ArchiveFile, FailedAttempt], None],
    ) -> Mapping[str, CopiedObject | FailedTransfer]:
        """Copy files, and return what became of each, by key.

        Args:
            files: as discovered.
            endpoint: where the venue is read.
            integrity: how the venue lets bytes be proven.
            known: keys of those that landing may have already.
            tell: called with each attempt that will be repeated.

        Raises:
            RetryStoppedError: the process ends; what is in landing stays there.
        """
        actions = {
            file: partial(self._copied, file, endpoint, integrity, known=file.key in known) for file in files
        }
        bringing = self._gathered(actions, tell)
        return asyncio.run_coroutine_threadsafe(bringing, self._loop).result()

    def recall(
        self, entries: Sequence[LedgerEntry], *, tell: Callable[[ArchiveFile, FailedAttempt], None]
    ) -> Mapping[str, CopiedObject | FailedTransfer]:
        """Look up files that landing has had since they were collected, and return what became of each, by key.

        Raises:
            RetryStoppedError: the process ends.
        """
        recalling = self._gathered({entry.file: partial(self._recalled, entry) for entry in entries}, tell)
        return asyncio.run_coroutine_threadsafe(recalling, self._loop).result()

    async def _open(self) -> None:
        self._client = await self._stack.enter_async_context(venue_client(Timeouts()))
        self._in_flight = asyncio.Semaphore(self._settings.concurrency)

    async def _gathered(
        self, actions: Mapping[ArchiveFile, Transfer], tell: Callable[[ArchiveFile, FailedAttempt], None]
    ) -> Mapping[str, CopiedObject | FailedTransfer]:
        ended = await asyncio.gather(
            *(self._attempted(file, action, tell) for file, action in actions.items()), return_exceptions=True
        )
        for error in _raised(ended):
            raise error
        return {
            file.key: result
            for file, result in zip(actions, ended, strict=True)
            if not isinstance(result, BaseException)
        }

    async def _attempted(
        self, file: ArchiveFile, action: Transfer, tell: Callable[[ArchiveFile, FailedAttempt], None]
    ) -> CopiedObject | FailedTransfer:
        attempts = 1

        def failed(attempt: FailedAttempt) -> None:
            nonlocal attempts
            attempts = attempt.number + 1
            tell(file, attempt)

        async def turn() -> CopiedObject:
            async with self._in_flight:
                return await action()

        try:
            return await retry_async(
                turn,
                backoff=Backoff(attempts=self._settings.attempts, longest_asked_s=float("inf")),
                on=_may_pass,
                wait=self._wait,
                tell=failed,
            )
        except RetryStoppedError:
            raise
        except Exception as error:  # noqa: BLE001 - one bad file must not stop the others
            return FailedTransfer(error, attempts)

    async def _copied(
        self, file: ArchiveFile, endpoint: VenueEndpoint, integrity: Integrity, *, known: bool
    ) -> CopiedObject:
        host = urlsplit(endpoint.endpoint).netloc
        if await self._wait(self._limiter.reserve(host)):
            raise RetryStoppedError("handed back: this worker ends")
        try:
            found = await self._copy(
                file,
                endpoint,
                self._landing,
                integrity=integrity,
                look=known or file.size > HELD,
                client=self._client,
            )
        except VenueError as error:
            if error.retry_after:
                self._limiter.hold_off(host, error.retry_after)
            raise
        if not found.already_there:
            labels = {"venue": file.venue, "market": file.market, "data_type": file.data_type}
            metrics.read_bytes().add(found.size, labels)
        return found

    async def _recalled(self, entry: LedgerEntry) -> CopiedObject:
        return await recall_file(
            entry.landing_key, self._landing, sha256=entry.sha256, version_id=entry.landing_version_id
        )

    async def _wait(self, seconds: float) -> bool:
        """Wait, and return whether the process is to end."""
        until = self._loop.time() + seconds
        while not self._stop.is_set():
            left = until - self._loop.time()
            if left <= 0:
                return False
            await asyncio.sleep(min(left, 0.2))
        return True


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may help; an unforeseen error may be an outage."""
    if isinstance(error, RetryStoppedError):
        return False
    return error.transient if isinstance(error, MarketlakeError) else True


def _raised(results: Sequence[object]) -> Iterator[BaseException]:
    return (result for result in results if isinstance(result, BaseException))
