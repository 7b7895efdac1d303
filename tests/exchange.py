"""A faithful stand-in for an exchange's public bucket, at the edge of the tests' world.

It answers as S3 does to anonymous, path-style requests: ListObjects version 1 with markers, delimiter and at
most 1000 keys a page (`NextMarker` only with a delimiter), GET and HEAD with ETag, Last-Modified, Length and
Range, 404 as an XML document. What exchanges do wrong is switched on per key: :meth:`FakeExchange.fail`.
"""

import contextlib
import hashlib
import io
import threading
import time
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from marketlake.settings import VenueEndpoint

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
LISTING = ""
"""The key to pass to :meth:`FakeExchange.fail` for the listing itself."""
PUBLISHED = datetime(2026, 5, 9, 6, 13, 42, tzinfo=UTC)


class Failure(Enum):
    """What an exchange, or something before it, does wrong."""

    FORBIDDEN = 403
    NOT_FOUND = 404
    TOO_MANY_REQUESTS = 429
    INTERNAL = 500
    UNAVAILABLE = 503
    STALL = auto()
    """Sends the head and half of the body, then nothing more."""
    TRUNCATE = auto()
    """Announces the whole length, closes after half of the body."""
    SHORTEN = auto()
    """Serves half of the object as if it were all."""
    CORRUPT = auto()
    """Flips a byte in the middle."""
    HTML = auto()
    """A web page with status 200."""
    EMPTY = auto()
    """No byte, with status 200."""
    RESET = auto()
    """Closes the connection without an answer."""
    ENDLESS = auto()
    """Begins as it should, and never ends: further bytes come for as long as they are taken."""
    DRIP = auto()
    """Begins as it should, then a byte comes now and then, and the last one never."""


@dataclass
class StoredObject:
    """What lies under a key."""

    body: bytes
    last_modified: datetime

    @property
    def etag(self) -> str:
        return hashlib.md5(self.body, usedforsecurity=False).hexdigest()


@dataclass
class _Plan:
    failure: Failure
    left: int | None
    retry_after: str | None


@dataclass
class FakeExchange:
    """Serves a bucket on loopback while it is entered."""

    bucket: str = "data.exchange.example"
    page: int = 1000
    """The most keys of one listing page."""
    objects: dict[str, StoredObject] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    """Keys that exist but that the listing does not show: a stale listing."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """(method, key or listing prefix) of every request, in order."""
    bandwidth: float | None = None
    """Bytes per second of object bodies; None: as fast as it goes."""
    in_circles: bool = False
    """Each page of a listing is the first one again, whatever the marker."""
    sent: int = 0
    """Bytes of bodies without an end that were taken."""
    _redirects: dict[str, str] = field(default_factory=dict)
    _plans: dict[str, _Plan] = field(default_factory=dict)
    _server: ThreadingHTTPServer | None = None
    _released: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        exchange = self

        class Answer(_Answer):
            pass

        Answer.exchange = exchange
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._server.daemon_threads = True
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> VenueEndpoint:
        assert self._server is not None
        return VenueEndpoint(endpoint=f"http://127.0.0.1:{self._server.server_port}", bucket=self.bucket)

    def publish(self, key: str, body: bytes, *, sidecar: bool | str = True, at: datetime = PUBLISHED) -> str:
        """Put an object and its checksum file; a text as `sidecar` is published instead of the right one.

        Returns:
            the body's sha256.
        """
        sha256 = hashlib.sha256(body).hexdigest()
        self.objects[key] = StoredObject(body, at)
        if sidecar:
            text = sidecar if isinstance(sidecar, str) else f"{sha256}  {key.rpartition('/')[2]}\n"
            self.objects[f"{key}.CHECKSUM"] = StoredObject(text.encode(), at + timedelta(seconds=1))
        return sha256

    def publish_csv(self, key: str, text: str | bytes, *, sidecar: bool | str = True) -> str:
        """Publish a zip with one member, named as the archive does."""
        name = key.rpartition("/")[2].replace(".zip", ".csv")
        return self.publish(key, zip_of({name: text}), sidecar=sidecar)

    def publish_tree(self, folder: Path) -> list[str]:
        """Put all files below a folder under their relative paths.

        Returns:
            the keys.
        """
        keys = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"):
            key = path.relative_to(folder).as_posix()
            self.objects[key] = StoredObject(path.read_bytes(), PUBLISHED)
            keys.append(key)
        return keys

    def fail(
        self, key: str, failure: Failure, *, times: int | None = None, retry_after: str | None = None
    ) -> None:
        """Let requests for a key (or LISTING) fail; after `times` of them it works again."""
        self._plans[key] = _Plan(failure, times, retry_after)

    def redirect(self, key: str, location: str) -> None:
        """Answer requests for a key (or LISTING) with a redirect to another place."""
        self._redirects[key] = location

    def gets(self, key: str) -> int:
        """How often an object was asked for with GET."""
        return self.requests.count(("GET", key))

    def _failure(self, key: str) -> _Plan | None:
        plan = self._plans.get(key)
        if plan is None or plan.left == 0:
            return None
        if plan.left is not None:
            plan.left -= 1
        return plan


def zip_of(members: dict[str, str | bytes]) -> bytes:
    """A deflated zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return buffer.getvalue()


class _Answer(BaseHTTPRequestHandler):
    exchange: FakeExchange
    protocol_version = "HTTP/1.1"
    server_version = "AmazonS3"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path[1:]).partition("/")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if bucket != self.exchange.bucket:
            self._error(404, "NoSuchBucket")
            return
        self.exchange.requests.append((self.command, key or query.get("prefix", "")))
        plan = self.exchange._failure(key)
        status = plan.failure.value if plan and plan.failure.value in (403, 404, 429, 500, 503) else None
        if plan and status:
            self._error(status, "Failure", {"Retry-After": plan.retry_after} if plan.retry_after else {})
            return
        if location := self.exchange._redirects.get(key):
            self._error(307, "TemporaryRedirect", {"Location": location})
        elif key:
            self._object(key, plan)
        else:
            body = listing(self.exchange, query).encode()
            self._body(body, {"Content-Type": "application/xml"}, plan)

    def _object(self, key: str, plan: _Plan | None) -> None:
        stored = self.exchange.objects.get(key)
        if stored is None:
            self._error(404, "NoSuchKey")
            return
        headers = {
            "ETag": f'"{stored.etag}"',
            "Last-Modified": format_datetime(stored.last_modified, usegmt=True),
            "Content-Type": "application/zip",
            "Accept-Ranges": "bytes",
        }
        self._body(stored.body, headers, plan)

    def _body(self, body: bytes, headers: dict[str, str], plan: _Plan | None) -> None:
        failure = plan.failure if plan else None
        if failure is Failure.RESET:
            self.close_connection = True
            return
        if failure is Failure.HTML:
            headers["Content-Type"] = "text/html"
        if failure in (Failure.ENDLESS, Failure.DRIP):
            self._endless(body, headers, pause_s=0.05 if failure is Failure.DRIP else 0)
            return
        body = _spoilt(body, failure)
        status, total = 200, len(body)
        if (wanted := self.headers.get("Range")) and not failure:
            first, last = _range(wanted, total)
            body, status = body[first : last + 1], 206
            headers["Content-Range"] = f"bytes {first}-{last}/{total}"
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if failure in (Failure.STALL, Failure.TRUNCATE):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            if failure is Failure.STALL:
                self.exchange._released.wait(60)
            return
        self._send(body)

    def _endless(self, body: bytes, headers: dict[str, str], *, pause_s: float) -> None:
        self.send_response(200)
        for name, value in {**headers, "Transfer-Encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        piece = body
        with contextlib.suppress(ConnectionError):
            while not self.exchange._released.wait(pause_s):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.exchange.sent += len(piece)
                piece = b" " if pause_s else b" " * 65_536

    def _send(self, body: bytes) -> None:
        rate = self.exchange.bandwidth
        if rate is None:
            self.wfile.write(body)
            return
        step = max(1, int(rate / 20))
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            self.wfile.flush()
            time.sleep(1 / 20)

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'.encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Type": "application/xml"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _spoilt(body: bytes, failure: Failure | None) -> bytes:
    middle = len(body) // 2
    match failure:
        case Failure.HTML:
            return b"<!DOCTYPE html><html><body>Just a moment...</body></html>"
        case Failure.EMPTY:
            return b""
        case Failure.SHORTEN:
            return body[:middle]
        case Failure.CORRUPT:
            return body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
        case _:
            return body


def listing(exchange: FakeExchange, query: dict[str, str]) -> str:
    """A ListBucketResult document (version 1)."""
    prefix, marker, delimiter = query.get("prefix", ""), query.get("marker", ""), query.get("delimiter", "")
    limit = min(int(query.get("max-keys", 1000)), exchange.page)
    entries: list[tuple[str, str]] = []
    last, truncated = "", False
    for key in sorted(exchange.objects, key=lambda text: text.encode()):
        if not key.startswith(prefix) or key in exchange.hidden:
            continue
        head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
        folder = prefix + head + delimiter if found else ""
        name = folder or key
        if (name <= marker and not exchange.in_circles) or (folder and ("folder", folder) in entries):
            continue
        if len(entries) == limit:
            truncated = True
            break
        entries.append(("folder" if folder else "object", name))
        last = name
    lines = [f"<Name>{exchange.bucket}</Name>", f"<Prefix>{escape(prefix)}</Prefix>"]
    lines += [f"<Marker>{escape(marker)}</Marker>", f"<MaxKeys>{limit}</MaxKeys>"]
    if delimiter:
        lines.append(f"<Delimiter>{escape(delimiter)}</Delimiter>")
    lines.append(f"<IsTruncated>{str(truncated).lower()}</IsTruncated>")
    if truncated and delimiter:
        lines.append(f"<NextMarker>{escape(last)}</NextMarker>")
    for kind, name in entries:
        if kind == "folder":
            lines.append(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>")
            continue
        stored = exchange.objects[name]
        modified = stored.last_modified.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        lines.append(
            f"<Contents><Key>{escape(name)}</Key><LastModified>{modified}</LastModified>"
            f'<ETag>"{stored.etag}"</ETag><Size>{len(stored.body)}</Size>'
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )
    document = f'<ListBucketResult xmlns="{NAMESPACE}">{"".join(lines)}</ListBucketResult>'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{document}'


def _range(header: str, total: int) -> tuple[int, int]:
    first, _, last = header.removeprefix("bytes=").partition("-")
    if not first:
        return max(0, total - int(last)), total - 1
    return int(first), min(int(last), total - 1) if last else total - 1
