"""`marketlake venue publish DIR`: an archive tree on disk becomes the stand-in venue's content."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from marketlake.cli.exit_codes import ExitCode, TaskFailedError, UsageError, say
from marketlake.cli.output import print_json, size
from marketlake.domain.venue import Venue, load_venue
from marketlake.infrastructure.storage.stores import bucket_store, storage_error
from marketlake.settings import Settings

UPLOADS_AT_ONCE = 8
PART = 16 * 1024 * 1024
"""Bytes per part of a large file; the ETag of what was uploaded follows from it."""


@dataclass(frozen=True, slots=True)
class Tree:
    """An archive tree on disk."""

    files: dict[str, Path]
    """Archive files and their sidecars by object key."""
    ignored: int
    """Other files that lie there."""


def run(environment: str | None, folder: Path, venue_name: str, *, as_json: bool) -> ExitCode:
    """Upload what is missing or different."""
    venue = load_venue(venue_name)
    tree = read_tree(folder, venue)
    settings = Settings.load(environment)
    standin = settings.venues.get(venue.name)
    if standin is None or standin.endpoint != settings.object_store.endpoint:
        raise UsageError(
            f"environment {settings.environment!r} has no stand-in for {venue.name}: its archive is read at "
            f"{(standin or venue.default_endpoint).endpoint}, where nothing can be published."
        )
    store = bucket_store(settings.object_store, standin.bucket)
    there = _listed(store, standin.bucket)
    wanted = {
        key: path
        for key, path in tree.files.items()
        if key not in there or there[key] != (path.stat().st_size, etag_of(path))
    }
    total = sum(path.stat().st_size for path in wanted.values())
    with _progress(len(wanted), quiet=as_json) as advance:
        failures = _upload(store, wanted, advance)
    if failures:
        shown = "\n".join(f"  {failure}" for failure in failures[:20])
        raise TaskFailedError(
            f"{len(failures)} of {len(wanted)} files were not published:\n{shown}\n"
            "Run the command again: what is there is not uploaded again."
        )
    summary = {
        "venue": venue.name,
        "bucket": standin.bucket,
        "published": len(wanted),
        "unchanged": len(tree.files) - len(wanted),
        "ignored": tree.ignored,
        "bytes": total,
    }
    if as_json:
        print_json(summary)
    else:
        say(
            f"{summary['published']} files ({size(total)}) published to {standin.bucket}, "
            f"{summary['unchanged']} were there, {tree.ignored} that are no archive files ignored"
        )
    return ExitCode.COMPLETE


def read_tree(folder: Path, venue: Venue) -> Tree:
    """Return the archive files below a folder; a key is the path relative to the folder.

    Raises:
        UsageError: it is no folder, or holds no file that the venue could have published.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: name the one that holds the archive tree (DIR/data/…).")
    paths = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    archive = {key for key in paths if venue.parse_key(key)}
    sidecars = {sidecar for key in archive if (sidecar := venue.sidecar_key(key)) in paths}
    if not archive:
        below = next((key for key in paths if any(venue.parse_key(rest) for rest in _shortened(key))), None)
        hint = (
            f"There is one below it, at {below}: name a folder further down."
            if below
            else f"Keys look like data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-01.zip ({len(paths)} "
            "files were looked at); name the folder in which data/ lies."
        )
        raise UsageError(f"{folder} holds no archive file of {venue.name}. {hint}")
    # A file becomes visible after its sidecar: whoever lists in between can prove it.
    keys = sorted(sidecars) + sorted(archive)
    return Tree({key: paths[key] for key in keys}, ignored=len(paths) - len(keys))


def etag_of(path: Path) -> str:
    """Return the ETag that S3 gives the file when it is uploaded as :func:`_put` does."""
    whole, parts = hashlib.md5(usedforsecurity=False), []
    with path.open("rb") as file:
        while chunk := file.read(PART):
            parts.append(hashlib.md5(chunk, usedforsecurity=False).digest())
            whole.update(chunk)
    if len(parts) <= 1:
        return whole.hexdigest()
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


def _shortened(key: str) -> Iterator[str]:
    parts = key.split("/")
    return ("/".join(parts[first:]) for first in range(1, len(parts)))


def _listed(store: S3Store, bucket: str) -> dict[str, tuple[int, str]]:
    try:
        return {
            entry["path"]: (entry["size"], (entry["e_tag"] or "").strip('"'))
            for page in obstore.list(store)
            for entry in page
        }
    except (BaseError, FileNotFoundError) as error:
        raise storage_error(error, f"listing the bucket {bucket}") from error


def _upload(store: S3Store, wanted: dict[str, Path], advance: Callable[[], None]) -> list[str]:
    failures: list[str] = []
    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        running: dict[Future[None], str] = {
            pool.submit(_put, store, key, path): key for key, path in wanted.items()
        }
        try:
            for done in as_completed(running):
                error = done.exception()
                if error is not None:
                    failures.append(f"{running[done]}: {_first_line(error)}")
                advance()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return sorted(failures)


def _put(store: S3Store, key: str, path: Path) -> None:
    obstore.put(
        store, key, path, use_multipart=path.stat().st_size > PART, chunk_size=PART, max_concurrency=2
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from marketlake.cli.output import console

    terminal = console(stderr=True)
    columns = (TextColumn("publishing"), BarColumn(), MofNCompleteColumn(), TextColumn("files"))
    with Progress(*columns, console=terminal, disable=quiet or not terminal.is_terminal) as bars:
        task = bars.add_task("publishing", total=total)
        yield lambda: bars.advance(task)
