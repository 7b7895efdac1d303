"""Write the logs of a namespace's pods to files, one for each service, for a collector that reads files.

A node's own log files belong to root and lie outside of every volume that an unprivileged pod may have. The
Kubernetes API gives the same lines to whoever may read the logs of a namespace's pods.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from kr8s.asyncio import Api

from marketlake.infrastructure.kubernetes import ClusterApiError
from marketlake.infrastructure.kubernetes.client import listed, reported, within_pod

SERVICE_LABEL = "marketlake/service"
"""Whose pod it is; pods without it are not looked at."""
OWN_CONTAINER = "pod-logs"
"""What this runs in; its lines would bring forth lines."""
_LOOK_EVERY_S = 2.0
_TIMEOUT_S = 30.0
_SILENCE_S = 300.0
"""A stream that brings nothing for so long is opened anew: it may be dead."""
_ROTATE_BYTES = 8 * 2**20
_POSITIONS = ".positions.json"
_LONGEST_LINE = 2**20
"""Bytes; the end of a longer one is lost."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Container:
    """One start of one container of one pod: each start has a log of its own."""

    service: str
    pod: str
    uid: str
    name: str
    start: str
    """The runtime's id of this start."""
    previous: bool
    """It was started anew since; the API keeps one earlier log."""
    over: bool
    """Nothing will be added to its log."""

    @property
    def key(self) -> str:
        """Names the container among all, whichever start it is."""
        return f"{self.uid}/{self.name}"


class PodLogs:
    """What the Kubernetes API shows of the logs of a namespace's pods."""

    def __init__(self, api: Api) -> None:
        self._api = api

    @classmethod
    def within(cls, namespace: str) -> Self:
        """The logs of a namespace in the cluster that this process runs in.

        Raises:
            ClusterApiError: it runs in none.
        """
        try:
            return cls(within_pod(namespace, timeout_s=_TIMEOUT_S))
        except ClusterApiError as error:
            raise ClusterApiError(
                f"{error}: `marketlake pod-logs` runs beside the telemetry collector of a stack on Kubernetes"
            ) from None

    async def containers(self) -> list[Container]:
        """Every start of a container of a service's pods that has a log, the earlier ones first.

        Raises:
            ClusterApiError: the API does not answer, or refuses.
        """
        pods = await listed(self._api, "v1", "pods", labels=SERVICE_LABEL)
        return [container for pod in pods for container in _containers(pod)]

    async def lines(self, container: Container, since: str | None) -> AsyncGenerator[tuple[str, str], None]:
        """Time (RFC 3339, UTC) and text of each line of a container, until it ends or the connection does.

        Args:
            container: whose log.
            since: the time of a line; the second that it lies in comes again.

        Raises:
            ClusterApiError: the connection broke, or the API refuses.
        """
        query = {"container": container.name, "follow": "true", "timestamps": "true"}
        if container.previous:
            query["previous"] = "true"
        if since is not None:
            query["sinceTime"] = since
        # `Pod.logs` of kr8s would hold a line of any length, and knows no limit for its silence
        with reported(f"the log of {container.pod} broke off"):
            async with self._api.call_api(
                "GET",
                version="v1",
                namespace=self._api.namespace,
                url=f"pods/{container.pod}/log",
                params=query,
                timeout=httpx.Timeout(_TIMEOUT_S, read=_SILENCE_S),
                stream=True,
            ) as answer:
                async for line in _lines(answer.aiter_bytes()):
                    moment, _, text = line.partition(" ")
                    yield moment, text


class LogFolder:
    """A file for each service, and how far each container was read."""

    def __init__(self, folder: Path, *, rotate_bytes: int = _ROTATE_BYTES) -> None:
        self._folder = folder
        self._rotate_bytes = rotate_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._positions: dict[str, str] = {}
        with suppress(OSError, ValueError):
            self._positions = dict(json.loads((folder / _POSITIONS).read_text()))

    def position(self, container: Container) -> str | None:
        """Time of the last line of a container that is here."""
        return self._positions.get(container.key)

    def append(self, container: Container, moment: str, text: str) -> None:
        """Append a line, unless it was written already."""
        if moment <= self._positions.get(container.key, ""):
            return
        path = self._folder / f"{container.service}.log"
        with path.open("a") as file:
            file.write(f"{text}\n")
            large = file.tell() > self._rotate_bytes
        if large:
            path.replace(path.with_name(f"{path.name}.1"))
        self._positions[container.key] = moment

    def save(self, known: set[str]) -> None:
        """Write down how far the containers of these keys were read; the others are gone."""
        self._positions = {key: moment for key, moment in self._positions.items() if key in known}
        draft = self._folder / f"{_POSITIONS}.part"
        draft.write_text(json.dumps(self._positions))
        draft.replace(self._folder / _POSITIONS)


async def follow(logs: PodLogs, folder: LogFolder, *, every_s: float = _LOOK_EVERY_S) -> None:
    """Keep the files up to date until cancelled. An API that is away is asked again."""
    readers: dict[str, asyncio.Task[None]] = {}
    read: set[str] = set()
    """Starts of containers that were read to their end."""
    away = False
    async with asyncio.TaskGroup() as group:
        while True:
            try:
                containers = await logs.containers()
            except ClusterApiError as error:
                if not away:
                    log.warning("%s", error)
                away = True
            else:
                away = False
                read &= {container.start for container in containers}
                for container in containers:
                    reader = readers.get(container.key)
                    if container.start in read or (reader is not None and not reader.done()):
                        continue
                    readers[container.key] = group.create_task(_read(logs, folder, container, read))
                known = {container.key for container in containers}
                readers = {key: reader for key, reader in readers.items() if key in known}
                folder.save(known)
            await asyncio.sleep(every_s)


async def _read(logs: PodLogs, folder: LogFolder, container: Container, read: set[str]) -> None:
    """Append what a start of a container logs, and add it to `read` once nothing more can follow."""
    try:
        async with aclosing(logs.lines(container, folder.position(container))) as lines:
            async for moment, text in lines:
                folder.append(container, moment, text)
    except ClusterApiError as error:
        log.debug("%s", error)  # the next look opens it anew
    else:
        if container.over:  # a restart of the API or the node ends the others' streams just the same
            read.add(container.start)


def _containers(pod: Mapping[str, Any]) -> Iterator[Container]:
    metadata, status = pod["metadata"], pod.get("status", {})
    for one in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        if one["name"] == OWN_CONTAINER:
            continue
        for start, previous, over in _starts(one):
            yield Container(
                service=metadata["labels"][SERVICE_LABEL],
                pod=metadata["name"],
                uid=metadata["uid"],
                name=one["name"],
                start=start,
                previous=previous,
                over=over,
            )


def _starts(status: Mapping[str, Any]) -> Iterator[tuple[str, bool, bool]]:
    """Of each start of a container that has a log: its id, whether another followed, whether it is over."""
    state = status.get("state", {})
    earlier = status.get("lastState", {}).get("terminated", {}).get("containerID")
    if "terminated" in state:
        current = state["terminated"].get("containerID")
    else:
        current = status.get("containerID") if "running" in state else None
    if earlier and earlier != current:
        # while a container waits for its next start, the API gives the last one's log as the current one
        yield earlier, current is not None, True
    if current:
        yield current, False, "terminated" in state


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """The lines of a stream, each cut at :data:`_LONGEST_LINE`; no more than that is held."""
    rest, cut = b"", False
    async for chunk in chunks:
        first, *others = chunk.split(b"\n")
        rest += b"" if cut else first
        for following in others:
            yield rest.decode(errors="replace")
            rest, cut = following, False
        if len(rest) > _LONGEST_LINE:
            rest, cut = rest[:_LONGEST_LINE], True
    if rest:
        yield rest.decode(errors="replace")
