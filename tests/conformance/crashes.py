"""kill -9 anywhere: the next collection completes, and no row, offset or object is lost or doubled."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from marketlake.infrastructure.bus.connection import client_configuration

from tests.conformance.chaos import Round
from tests.conformance.holdings import SERVICES, counts, publish_trades, rows_of, whole
from tests.conformance.platform import Platform
from tests.provisioning import s3

_CLIENTS_FIRST = ("collection-worker", "workflow-worker", "workflow-engine", "telemetry-collector")
KILLED = (*_CLIENTS_FIRST, *sorted(SERVICES - {*_CLIENTS_FIRST}))
"""Servers go after their clients: the collection that follows needs each client to have found its servers again."""


@dataclass(frozen=True)
class Committed:
    """What was acknowledged to somebody, and so has to be there ever after."""

    files: frozenset[tuple[str, int, str]]
    """Key, version and checksum of every file of the ledger."""
    objects: frozenset[tuple[str, str, str]]
    """Bucket, key and version of every object that the ledger speaks of."""
    events: Mapping[tuple[str, int], int]
    """One more than the last offset, by topic and partition."""
    positions: Mapping[tuple[str, int], int]
    """How far the collection workers have read, likewise."""

    @classmethod
    def of(cls, platform: Platform, *, within_s: float = 60) -> Self:
        """Ask the servers, which may need a while after they answer again until they can tell."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                return cls._now(platform)
            except (psycopg.OperationalError, KafkaException, BotoCoreError, ClientError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    @classmethod
    def _now(cls, platform: Platform) -> Self:
        settings = platform.settings
        with psycopg.connect(settings.database.dsn) as connection:
            files = connection.execute("select key, version, sha256 from ledger").fetchall()
        store = settings.object_store
        objects = {
            (store.landing_bucket, version["Key"], version["VersionId"])
            for page in s3(store).get_paginator("list_object_versions").paginate(Bucket=store.landing_bucket)
            for version in page.get("Versions", [])
        }
        return cls(
            frozenset((str(key), int(version), str(digest)) for key, version, digest in files),
            frozenset(objects),
            _ends(platform),
            _positions(platform),
        )

    def missing_in(self, later: "Committed") -> dict[str, object]:
        """What was there and is no more."""
        lost = {
            "files": self.files - later.files,
            "objects": self.objects - later.objects,
            "events": _set_back(self.events, later.events),
            "positions": _set_back(self.positions, later.positions),
        }
        return {kind: what for kind, what in lost.items() if what}


def _set_back(
    before: Mapping[tuple[str, int], int], after: Mapping[tuple[str, int], int]
) -> dict[tuple[str, int], tuple[int, int | None]]:
    return {place: (at, after.get(place)) for place, at in before.items() if after.get(place, 0) < at}


def _ends(platform: Platform) -> dict[tuple[str, int], int]:
    bus = platform.settings.event_bus
    consumer = Consumer(client_configuration(bus, client_id="ends") | {"group.id": "ends"})
    try:
        return {
            (topic, partition): consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=15)[
                1
            ]
            for topic in (bus.tasks_topic, bus.events_topic, bus.dead_letters_topic)
            for partition in consumer.list_topics(topic, timeout=15).topics[topic].partitions
        }
    finally:
        consumer.close()


def _positions(platform: Platform) -> dict[tuple[str, int], int]:
    bus = platform.settings.event_bus
    admin = AdminClient(client_configuration(bus, client_id="positions"))
    group = ConsumerGroupTopicPartitions(bus.workers_group)
    asked = admin.list_consumer_group_offsets([group], request_timeout=15)
    committed = asked[bus.workers_group].result(15).topic_partitions
    return {(at.topic, at.partition): at.offset for at in committed if at.offset >= 0}


class CrashPromises:
    """What survives the sudden end of a process."""

    @pytest.mark.parametrize("name", KILLED)
    def test_a_killed_service_comes_back_and_nothing_committed_is_lost(
        self, platform: Platform, name: str
    ) -> None:
        before = Committed.of(platform)
        platform.kill(name)
        platform.wait_until_healthy()
        assert before.missing_in(Committed.of(platform)) == {}

    def test_no_kill_in_the_middle_of_a_collection_loses_or_doubles_a_row(
        self, platform: Platform, chaos: Round, tmp_path: Path
    ) -> None:
        """The first round is also the collection after all the kills above."""
        before = Committed.of(platform)
        selection, rows = publish_trades(platform, chaos.symbol, tmp_path)
        with platform.start_marketlake("collect", *selection, "--json") as command:
            try:
                _wait_for_work(platform, chaos.symbol)
                for victim, pause in chaos.kills:
                    platform.kill(victim)
                    time.sleep(pause)
            finally:
                command.kill()
        platform.wait_until_healthy()
        summary = platform.asked("collect", *selection)
        assert summary["failed"] == 0
        assert rows_of(platform, chaos.symbol) == (rows, rows)
        assert before.missing_in(Committed.of(platform)) == {}


class AftermathPromises:
    """After everything that a platform went through."""

    def test_the_next_collection_completes_and_every_row_is_there_once(
        self, platform: Platform, tmp_path: Path
    ) -> None:
        _, rows = publish_trades(platform, "AFTERUSDT", tmp_path, days=2)
        summary = platform.asked("collect", "--venue", "binance", "--all")
        assert (summary["copied"], summary["failed"]) == (2, 0)
        assert rows_of(platform, "AFTERUSDT") == (rows, rows)
        assert counts(platform) == whole()


def _wait_for_work(platform: Platform, symbol: str) -> None:
    """Wait until a worker has files of the symbol in its hands."""
    deadline = time.monotonic() + 120
    with psycopg.connect(platform.settings.database.dsn, autocommit=True) as connection:
        while not _in_hand(connection, symbol):
            assert time.monotonic() < deadline, "no worker took a task"
            time.sleep(0.02)
        found = connection.execute("select count(*) from ledger where symbol = %s", [symbol]).fetchone()
    assert found == (0,), "files were in before anything could be killed"


def _in_hand(connection: "psycopg.Connection[Any]", symbol: str) -> bool:
    row = connection.execute(
        "select exists (select from task where state = 'running' and payload -> 'files' -> 0 ->> 'symbol' = %s)",
        [symbol],
    ).fetchone()
    return bool(row and row[0])
