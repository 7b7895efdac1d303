"""Downloads over HTTP: resumed where they stopped, verified, and without waiting for unreachable hosts."""

import os
import threading
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from toolchain.checksums import Digest, file_digest
from toolchain.errors import ChecksumMismatchError, SourceUnavailableError

CONNECT_SECONDS = 5.0
"""For the name look-up and the connection: what does not answer by then is taken to be away."""
READ_SECONDS = 30.0
"""Without a single byte; then the download continues on a new connection."""
TRIES = 4
_REACH_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)

Tell = Callable[[str], None]


class Fetcher:
    """An HTTP client for one run of the installer; it remembers which hosts cannot be reached."""

    def __init__(
        self, transport: httpx.BaseTransport | None = None, connect_seconds: float = CONNECT_SECONDS
    ) -> None:
        self._away: dict[str, str] = {}
        self._reached: set[str] = set()
        self._deadline = connect_seconds * 2
        self._client = httpx.Client(
            transport=transport,
            follow_redirects=True,
            timeout=httpx.Timeout(READ_SECONDS, connect=connect_seconds),
        )

    def is_away(self, url: str) -> bool:
        """Return whether the host of a URL was unreachable in this run."""
        return urlsplit(url).netloc in self._away

    def text(self, url: str) -> str:
        """A small text, e.g. a list of checksums.

        Raises:
            SourceUnavailableError: the host is away, or it answers with an error.
        """
        with self._open(url, {}) as response:
            return response.read().decode("utf-8", "replace")

    def file(self, url: str, folder: Path, expected: Digest, tell: Tell = lambda _text: None) -> Path:
        """Download a file into `folder`, under a name that its digest is part of.

        A file that is there already with that digest is not downloaded again; a part left by a killed run is
        continued by a Range request if the server allows it.

        Args:
            url: of the file.
            folder: is created.
            expected: digest that the whole file must have.
            tell: called with how far it is.

        Raises:
            SourceUnavailableError: the host is away, answers with an error, or broke off several times.
            ChecksumMismatchError: what came has another digest; it is deleted.
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = Path(unquote(urlsplit(url).path)).name
        whole = folder / f"{expected.value[:16]}-{name}"
        if whole.exists() and file_digest(whole, expected.algorithm) == expected:
            return whole
        part = whole.with_name(f"{whole.name}.part")
        continued = part.exists()
        self._complete(url, part, tell)
        found = file_digest(part, expected.algorithm)
        if found != expected and continued:
            part.unlink()
            self._complete(url, part, tell)
            found = file_digest(part, expected.algorithm)
        if found != expected:
            part.unlink()
            raise ChecksumMismatchError(
                f"{url} has {found}, expected {expected}; it was deleted. Either it was changed on the way "
                "or the digest is wrong"
            )
        part.replace(whole)
        return whole

    def _complete(self, url: str, part: Path, tell: Tell) -> None:
        for attempt in range(1, TRIES + 1):
            try:
                self._append(url, part, tell)
                return
            except httpx.TransportError as error:
                if attempt == TRIES:
                    raise SourceUnavailableError(
                        f"{url} broke off {TRIES} times, last with {error!r}"
                    ) from error
                tell("broken off, continuing")

    def _append(self, url: str, part: Path, tell: Tell) -> None:
        have = part.stat().st_size if part.exists() else 0
        with self._open(url, {"Range": f"bytes={have}-"} if have else {}, accept={416}) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                have = 0
            total = have + int(response.headers.get("Content-Length") or 0)
            with part.open("ab" if have else "wb") as file:
                for chunk in response.iter_raw():
                    have += file.write(chunk)
                    tell(f"{have / 1e6:.1f} of {total / 1e6:.1f} MB")
                file.flush()
                os.fsync(file.fileno())
            if have < total:
                raise httpx.ReadError(f"{have} of {total} bytes came")

    def _open(
        self, url: str, headers: dict[str, str], accept: AbstractSet[int] = frozenset()
    ) -> AbstractContextManager[httpx.Response]:
        host = urlsplit(url).netloc
        if host in self._away:
            raise SourceUnavailableError(f"{host} cannot be reached ({self._away[host]})")
        try:
            response = self._first_answer(url, headers)
        except _REACH_ERRORS as error:
            self._away[host] = str(error) or type(error).__name__
            raise SourceUnavailableError(f"{host} cannot be reached ({self._away[host]})") from error
        if response.is_success or response.status_code in accept:
            return closing(response)
        response.close()
        raise SourceUnavailableError(f"{url} answers with HTTP status {response.status_code}")

    def _first_answer(self, url: str, headers: dict[str, str]) -> httpx.Response:
        """Send a request and wait for its status; a name look-up that hangs counts as a host that is away.

        The look-up is the system's own and knows no time-out, hence the thread.
        """
        outcome: list[httpx.Response | Exception] = []

        def send() -> None:
            try:
                outcome.append(
                    self._client.send(self._client.build_request("GET", url, headers=headers), stream=True)
                )
            except Exception as error:  # noqa: BLE001 - raised again below, in the thread that asked
                outcome.append(error)

        thread = threading.Thread(target=send, name="fetch", daemon=True)
        thread.start()
        thread.join(
            self._deadline + READ_SECONDS if urlsplit(url).netloc in self._reached else self._deadline
        )
        if not outcome:
            raise httpx.ConnectTimeout(f"no answer within {self._deadline:g} s")
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        self._reached.add(urlsplit(url).netloc)
        return outcome[0]
