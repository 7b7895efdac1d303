import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import aiohttp
import pytest
from marketlake.archive.collection.transfers import FailedTransfer, Transfers
from marketlake.domain.archive import ArchiveFile
from marketlake.domain.venue import Integrity
from marketlake.retry import FailedAttempt, RetryStoppedError
from marketlake.settings import Collection, VenueEndpoint
from marketlake.sync.copy import HELD, CopiedObject
from marketlake.sync.errors import NotAZipError, RateLimitedError, TruncatedError
from obstore.store import MemoryStore, ObjectStore

from tests.unit.marketlake.archive.samples import archive_file

VENUE = VenueEndpoint(endpoint="http://venue.test:1", bucket="b")
OTHER = VenueEndpoint(endpoint="http://other.test:1", bucket="b")
FILES = [archive_file(day) for day in range(1, 32)]
FAST = Collection(requests_per_second=10_000, concurrency=8, attempts=3)
PASSING = TruncatedError("cut off")


@dataclass
class Copies:
    """Copies files without a venue, and notes what is asked of it."""

    errors: dict[str, list[Exception]] = field(default_factory=dict)
    """By key: what the attempts fail with, one after the other."""
    takes_s: float = 0.0
    on_ask: Callable[[], None] = lambda: None
    asked: list[tuple[str, bool]] = field(default_factory=list)
    """Key, and whether landing is looked into."""
    began: list[float] = field(default_factory=list)
    clients: set[int] = field(default_factory=set)
    loops: set[int] = field(default_factory=set)
    in_flight: int = 0
    most_in_flight: int = 0

    async def __call__(
        self,
        file: ArchiveFile,
        endpoint: VenueEndpoint,
        landing: ObjectStore,
        /,
        *,
        integrity: Integrity,
        look: bool,
        client: aiohttp.ClientSession,
    ) -> CopiedObject:
        assert integrity is Integrity.ETAG
        self.asked.append((file.key, look))
        self.began.append(time.monotonic())
        self.on_ask()
        self.clients.add(id(client))
        self.loops.add(id(asyncio.get_running_loop()))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.in_flight -= 1
        if errors := self.errors.get(file.key):
            raise errors.pop(0)
        return copied(file)


def copied(file: ArchiveFile) -> CopiedObject:
    return CopiedObject(
        key=f"{file.venue}/{file.key}",
        size=file.size,
        sha256="0" * 64,
        etag="e",
        version_id="v",
        already_there=False,
    )


Opening = Callable[..., AbstractContextManager[Transfers]]


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def transfers(stop: threading.Event) -> Opening:
    def opening(copies: Copies, settings: Collection = FAST) -> Transfers:
        return Transfers(MemoryStore(), settings, copy=copies, stop=stop)

    return opening


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of a back-off are as short as the venue allows."""
    monkeypatch.setattr("marketlake.retry.random.uniform", lambda *_: 0.0)


def untold(file: ArchiveFile, failed: FailedAttempt) -> None:
    raise AssertionError(f"{file.key} failed: {failed.error}")


def test_many_files_come_in_and_each_result_has_its_files_key(transfers: Opening) -> None:
    copies = Copies()
    with transfers(copies) as bringing:
        brought = bringing.bring(FILES, VENUE, integrity=Integrity.ETAG, known=frozenset(), tell=untold)
    assert brought == {file.key: copied(file) for file in FILES}


def test_landing_is_looked_into_for_what_it_may_have_and_for_what_costs_more_to_copy(
    transfers: Opening,
) -> None:
    known, large, other = FILES[0], replace(FILES[1], size=HELD + 1), replace(FILES[2], size=HELD)
    copies = Copies()
    with transfers(copies) as bringing:
        bringing.bring(
            [known, large, other], VENUE, integrity=Integrity.ETAG, known=frozenset({known.key}), tell=untold
        )
    assert sorted(copies.asked) == sorted([(known.key, True), (large.key, True), (other.key, False)])


def test_no_more_files_are_in_flight_than_are_allowed_whoever_brings_them(transfers: Opening) -> None:
    copies = Copies(takes_s=0.02)
    with transfers(copies, FAST.model_copy(update={"concurrency": 3})) as bringing:

        def bring(files: list[ArchiveFile]) -> None:
            bringing.bring(files, VENUE, integrity=Integrity.ETAG, known=frozenset(), tell=untold)

        threads = [threading.Thread(target=bring, args=(FILES[start::2],)) for start in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert copies.most_in_flight == 3
    assert len(copies.asked) == len(FILES)


def test_all_files_share_one_client_on_one_loop(transfers: Opening) -> None:
    copies = Copies()
    with transfers(copies) as bringing:
        for _ in range(3):
            bringing.bring(FILES[:3], VENUE, integrity=Integrity.ETAG, known=frozenset(), tell=untold)
    assert (len(copies.clients), len(copies.loops)) == (1, 1)


@pytest.mark.usefixtures("short_waits")
def test_what_may_pass_is_tried_again_and_told(transfers: Opening) -> None:
    told: list[tuple[str, int]] = []
    bad = FILES[1]
    copies = Copies({bad.key: [PASSING, OSError("unforeseen")]})
    with transfers(copies) as bringing:
        brought = bringing.bring(
            FILES[:3],
            VENUE,
            integrity=Integrity.ETAG,
            known=frozenset(),
            tell=lambda file, failed: told.append((file.key, failed.number)),
        )
    assert brought[bad.key] == copied(bad)
    assert told == [(bad.key, 1), (bad.key, 2)]


@pytest.mark.usefixtures("short_waits")
def test_a_file_that_keeps_failing_is_given_up_after_its_attempts_and_the_others_come_in(
    transfers: Opening,
) -> None:
    bad = FILES[1]
    copies = Copies({bad.key: [PASSING] * 9})
    with transfers(copies) as bringing:
        brought = bringing.bring(
            FILES[:3], VENUE, integrity=Integrity.ETAG, known=frozenset(), tell=lambda *_: None
        )
    assert brought[bad.key] == FailedTransfer(PASSING, 3)
    assert [brought[file.key] for file in (FILES[0], FILES[2])] == [copied(FILES[0]), copied(FILES[2])]


def test_what_does_not_pass_is_tried_once(transfers: Opening) -> None:
    lasting = NotAZipError("no zip")
    copies = Copies({FILES[0].key: [lasting]})
    with transfers(copies) as bringing:
        brought = bringing.bring(FILES[:1], VENUE, integrity=Integrity.ETAG, known=frozenset(), tell=untold)
    assert brought == {FILES[0].key: FailedTransfer(lasting, 1)}
    assert len(copies.asked) == 1


def test_a_file_that_waits_for_its_next_attempt_keeps_no_other_from_coming_in(transfers: Opening) -> None:
    copies = Copies({FILES[0].key: [PASSING]})
    with transfers(copies, FAST.model_copy(update={"concurrency": 1})) as bringing:
        bringing.bring(FILES[:5], VENUE, integrity=Integrity.ETAG, known=frozenset(), tell=lambda *_: None)
    order = [key for key, _ in copies.asked]
    assert order == [*(file.key for file in FILES[:5]), FILES[0].key]


@pytest.mark.usefixtures("short_waits")
def test_a_venue_that_asks_for_a_pause_is_left_alone_by_all_files_and_others_are_not(
    transfers: Opening,
) -> None:
    asked_s = 1.0
    copies = Copies({FILES[0].key: [RateLimitedError("slow down", retry_after=asked_s)]})
    paused = threading.Event()
    with transfers(copies) as bringing:
        first = threading.Thread(
            target=bringing.bring,
            args=(FILES[:1], VENUE),
            kwargs={"integrity": Integrity.ETAG, "known": frozenset(), "tell": lambda *_: paused.set()},
        )
        first.start()
        assert paused.wait(5)
        bringing.bring(FILES[1:2], OTHER, integrity=Integrity.ETAG, known=frozenset(), tell=untold)
        bringing.bring(FILES[2:4], VENUE, integrity=Integrity.ETAG, known=frozenset(), tell=untold)
        first.join()
    since = {key: began - copies.began[0] for (key, _), began in zip(copies.asked, copies.began, strict=True)}
    assert since.pop(FILES[1].key) < asked_s
    assert min(since.values()) >= asked_s


def test_files_of_a_host_follow_each_other_no_faster_than_is_allowed(transfers: Opening) -> None:
    copies = Copies()
    with transfers(copies, FAST.model_copy(update={"requests_per_second": 20.0})) as bringing:
        bringing.bring(FILES[:6], VENUE, integrity=Integrity.ETAG, known=frozenset(), tell=untold)
    assert copies.began[5] - copies.began[0] > 5 / 20 * 0.9


def test_a_process_that_ends_waits_for_no_further_attempt(transfers: Opening, stop: threading.Event) -> None:
    copies = Copies({FILES[0].key: [RateLimitedError("slow down", retry_after=3600)]})
    with (
        transfers(copies) as bringing,
        pytest.raises(RetryStoppedError, match="not tried again: slow down"),
    ):
        bringing.bring(
            FILES[:1], VENUE, integrity=Integrity.ETAG, known=frozenset(), tell=lambda *_: stop.set()
        )
    assert len(copies.asked) == 1


def test_a_process_that_ends_begins_no_further_file(transfers: Opening, stop: threading.Event) -> None:
    copies = Copies(on_ask=stop.set)
    with transfers(copies, FAST.model_copy(update={"requests_per_second": 0.01})) as bringing:
        for _ in range(2):
            with pytest.raises(RetryStoppedError, match="this worker ends"):
                bringing.bring(FILES, VENUE, integrity=Integrity.ETAG, known=frozenset(), tell=untold)
    assert len(copies.asked) == 1


def test_a_file_in_flight_is_brought_to_its_end(transfers: Opening, stop: threading.Event) -> None:
    copies = Copies(takes_s=0.1, on_ask=stop.set)
    with transfers(copies) as bringing:
        brought = bringing.bring(FILES[:1], VENUE, integrity=Integrity.ETAG, known=frozenset(), tell=untold)
    assert brought == {FILES[0].key: copied(FILES[0])}
