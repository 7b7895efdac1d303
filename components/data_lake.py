"""The data lake: buckets for files and tables, topics for their events, and the flow that fills it."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import pulumi

from components.component import Component, known_after
from components.providers.bucket import Access, Bucket, BucketArgs
from components.providers.connections import (
    EventBusConnectionArgs,
    ObjectStoreConnectionArgs,
    WorkflowEngineConnectionArgs,
)
from components.providers.flow_deployment import FlowDeployment
from components.providers.secret import GeneratedSecret
from components.providers.store_user import StoreUser
from components.providers.topic import Topic
from components.providers.work_pool import WorkPool
from policies.rules import require
from policies.rules.buckets import OURS as BUCKET_TYPE
from policies.rules.marks import EXPOSED, VERSIONS

_HOUR_MS = 3_600_000
_RUNS_AT_ONCE = 4
"""Runs that request collections; further ones wait. Each is a process for some seconds."""
_RUNTIME_USER = "marketlake-runtime"
_STAND_IN_MARKS = {
    EXPOSED: "stands in for the public archive of a venue",
    VERSIONS: "none: a copy of files that are published elsewhere",
}


class BucketsArgs(TypedDict):
    """Names of the lake's buckets."""

    landing: str
    """Archive files as their venue published them; every version is kept."""
    lake: str
    """Delta tables."""
    stand_in: NotRequired[str]
    """Optional: a bucket that stands in for a venue's public archive; everybody on this machine may read it."""
    external: NotRequired[bool]
    """Optional: they lie in an external store, and stay there when the stack is destroyed; False when omitted."""


class TopicsArgs(TypedDict):
    """Names of the lake's topics."""

    tasks: str
    """Files to collect, one event each."""
    events: str
    """What happened."""
    dead_letters: str
    """What nobody could read."""
    partitions: NotRequired[int]
    """Optional: of the tasks; 8 when omitted. At most as many workers get tasks at the same time."""
    retention_hours: NotRequired[int]
    """Optional: 168 when omitted."""
    replication_factor: NotRequired[int | None]
    """Optional: 1 when omitted; None: the cluster's own default."""
    external: NotRequired[bool]
    """Optional: they lie in an external cluster, and stay there when the stack is destroyed; False when
    omitted."""


class RuntimeIdentityArgs(TypedDict):
    """The identity of the runtime at an object store."""

    access_key_id: pulumi.Input[str]
    """Of an identity that may read and write objects in the buckets."""
    secret_access_key: pulumi.Input[str]
    """A secret."""


class CollectionFlowArgs(TypedDict):
    """The flow that requests collections."""

    work_pool: str
    """Name of Prefect's work pool that its runs wait in."""
    deployment: str
    """``flow/deployment``."""
    entrypoint: str
    """Where the worker imports it: ``package.module.function``."""
    release: pulumi.Input[str]
    """Version of the runtime that holds it."""
    worker_type: NotRequired[str]
    """Optional: kind of worker that starts its runs; ``process`` when omitted."""
    base_job_template: NotRequired[pulumi.Input[dict[str, Any]]]
    """Optional: what that worker makes a run's job from; the worker's own when omitted."""


class DataLakeArgs(TypedDict):
    """Arguments of the data lake."""

    object_store: ObjectStoreConnectionArgs
    """Where the buckets lie."""
    runtime_identity: NotRequired[RuntimeIdentityArgs]
    """Optional: of a store that is no MinIO of ours; when omitted, one is made in the store, which is MinIO then."""
    event_bus: EventBusConnectionArgs
    """Where the topics lie."""
    workflow_engine: WorkflowEngineConnectionArgs
    """Where the flow is deployed."""
    buckets: BucketsArgs
    """Of files and tables."""
    topics: TopicsArgs
    """Of what happens to them."""
    flow: CollectionFlowArgs
    """That fills them."""


class DataLake(Component):
    """Buckets, topics, a work pool and a deployment; each output is known once what it names exists.

    Declare it with `deleted_with` what all the servers go with: then destroying them does not first empty them.
    """

    landing_bucket: pulumi.Output[str]
    """Archive files as their venue published them."""
    lake_bucket: pulumi.Output[str]
    """Delta tables."""
    stand_in_bucket: pulumi.Output[str | None]
    """What stands in for a venue's public archive, if anything does."""
    access_key_id: pulumi.Output[str]
    """Of an identity that may read and write objects in these buckets and, if it was made here, nothing else."""
    secret_access_key: pulumi.Output[str]
    """A secret."""
    tasks_topic: pulumi.Output[str]
    """Files to collect, one event each."""
    events_topic: pulumi.Output[str]
    """What happened."""
    dead_letters_topic: pulumi.Output[str]
    """What nobody could read."""
    work_pool: pulumi.Output[str]
    """What a worker of flows takes runs from."""
    deployment: pulumi.Output[str]
    """``flow/deployment`` that collects."""

    def __init__(self, name: str, args: DataLakeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare all of it."""
        super().__init__(name, opts)
        self._inside = opts.deleted_with if opts else None
        buckets, topics, flow = args["buckets"], args["topics"], args["flow"]
        self.landing_bucket = self._bucket(f"{name}-landing", args, buckets["landing"], versioning=True)
        self.lake_bucket = self._bucket(
            f"{name}-lake",
            args,
            buckets["lake"],
            marks={VERSIONS: "none: the log of a Delta table keeps them"},
        )
        stand_in = buckets.get("stand_in")
        self.stand_in_bucket = (
            self._bucket(f"{name}-stand-in", args, stand_in, stand_in=True, marks=_STAND_IN_MARKS)
            if stand_in
            else pulumi.Output.from_input(None)
        )
        if "runtime_identity" in args:
            given = args["runtime_identity"]
            self.access_key_id = pulumi.Output.from_input(given["access_key_id"])
            self.secret_access_key = pulumi.Output.secret(given["secret_access_key"])
        else:
            self.access_key_id, self.secret_access_key = self._runtime_user(name, args)
        self.tasks_topic = self._topic(f"{name}-tasks", args, topics["tasks"], topics.get("partitions", 8))
        self.events_topic = self._topic(f"{name}-events", args, topics["events"], 1)
        self.dead_letters_topic = self._topic(f"{name}-dead-letters", args, topics["dead_letters"], 1)
        pool = WorkPool(
            f"{name}-work-pool",
            {
                "connection": args["workflow_engine"],
                "work_pool": flow["work_pool"],
                "concurrency_limit": _RUNS_AT_ONCE,
                "worker_type": flow.get("worker_type", "process"),
                "base_job_template": flow.get("base_job_template"),
            },
            self._child(inside=self._inside),
        )
        self.work_pool = known_after(pulumi.Output.from_input(flow["work_pool"]), pool)
        flow_name, _, deployment_name = flow["deployment"].partition("/")
        deployment = FlowDeployment(
            f"{name}-deployment",
            {
                "connection": args["workflow_engine"],
                "flow": flow_name,
                "deployment": deployment_name,
                "entrypoint": flow["entrypoint"],
                "work_pool": self.work_pool,
                "release": flow["release"],
            },
            self._child(pool, inside=self._inside),
        )
        self.deployment = known_after(pulumi.Output.from_input(flow["deployment"]), deployment)
        self.register_outputs(
            {
                "landing_bucket": self.landing_bucket,
                "lake_bucket": self.lake_bucket,
                "stand_in_bucket": self.stand_in_bucket,
                "access_key_id": self.access_key_id,
                "secret_access_key": self.secret_access_key,
                "tasks_topic": self.tasks_topic,
                "events_topic": self.events_topic,
                "dead_letters_topic": self.dead_letters_topic,
                "work_pool": self.work_pool,
                "deployment": self.deployment,
            }
        )

    def _bucket(
        self,
        name: str,
        args: DataLakeArgs,
        bucket: str,
        *,
        versioning: bool = False,
        stand_in: bool = False,
        marks: Mapping[str, str] | None = None,
    ) -> pulumi.Output[str]:
        inputs: BucketArgs = {
            "connection": args["object_store"],
            "bucket": bucket,
            "versioning": versioning,
            "access": (Access.PUBLIC_READ if stand_in else Access.PRIVATE).value,
            "tags": marks or {},
            "force_destroy": stand_in,
        }
        require(BUCKET_TYPE, inputs, name=name)
        declared = Bucket(
            name, inputs, self._child(inside=self._inside, retained=args["buckets"].get("external", False))
        )
        return known_after(pulumi.Output.from_input(bucket), declared)

    def _runtime_user(self, name: str, args: DataLakeArgs) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
        key = GeneratedSecret(f"{name}-runtime-key", opts=self._child())
        user = StoreUser(
            f"{name}-runtime-user",
            {
                "connection": args["object_store"],
                "user": _RUNTIME_USER,
                "secret_access_key": key.value,
                "buckets": [bucket for bucket in args["buckets"].values() if isinstance(bucket, str)],
            },
            self._child(inside=self._inside),
        )
        return known_after(pulumi.Output.from_input(_RUNTIME_USER), user), known_after(key.value, user)

    def _topic(self, name: str, args: DataLakeArgs, topic: str, partitions: int) -> pulumi.Output[str]:
        retention = args["topics"].get("retention_hours", 168) * _HOUR_MS
        declared = Topic(
            name,
            {
                "connection": args["event_bus"],
                "topic": topic,
                "partitions": partitions,
                "replication_factor": args["topics"].get("replication_factor", 1),
                "config": {"retention.ms": str(retention)},
            },
            self._child(inside=self._inside, retained=args["topics"].get("external", False)),
        )
        return known_after(pulumi.Output.from_input(topic), declared)
