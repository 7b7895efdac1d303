"""kill -9 anywhere: the next run completes, and no row, offset or object is lost or doubled."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import psycopg
import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from marketlake.infrastructure.bus.connection import client_configuration

from tests.conformance.holdings import SERVICES, counts, publish_trades, whole
from tests.conformance.platform import Platform
from tests.furnishing import s3


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
    def of(cls, platform: Platform) -> Self:
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

    @pytest.mark.parametrize("name", sorted(SERVICES))
    def test_a_killed_service_comes_back_and_the_next_collection_completes(
        self, platform: Platform, name: str
    ) -> None:
        before = Committed.of(platform)
        platform.kill(name)
        platform.wait_until_healthy()
        platform.marketlake("collect", "--venue", "binance", "--all")
        assert counts(platform) == whole()
        assert before.missing_in(Committed.of(platform)) == {}

    @pytest.mark.parametrize("victim", ["collection-worker", "workflow-worker", "command"])
    def test_killed_in_the_middle_of_a_collection(self, platform: Platform, victim: str, tmp_path) -> None:
        symbol = f"{victim.replace('-', '').upper()}USDT"
        selection, rows = publish_trades(platform, symbol, tmp_path)
        with platform.start_marketlake("collect", *selection, "--json") as command:
            try:
                _wait_for_first_rows(platform, selection)
                if victim != "command":
                    platform.kill(victim)
                    command.communicate(timeout=240)
            finally:
                command.kill()
        platform.wait_until_healthy()
        summary = platform.asked("collect", *selection)
        assert summary["failed"] == 0
        of_symbol = f"from silver.agg_trades where symbol = '{symbol}'"
        found = platform.sql(f"select count(*) as n, count(distinct agg_trade_id) as k {of_symbol}")
        assert found == [{"n": rows, "k": rows}]


def _wait_for_first_rows(platform: Platform, selection: list[str]) -> None:
    deadline = time.monotonic() + 120
    while True:
        listed = platform.marketlake("archive", "list", *selection, "--json", check=False)
        if listed.returncode == 0 and any(series["collected"] for series in json.loads(listed.stdout)):
            return
        assert time.monotonic() < deadline, f"nothing was collected: {listed.stdout} {listed.stderr}"
        time.sleep(0.2)
