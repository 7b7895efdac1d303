"""A bucket of an S3 object store: versioning, anonymous access, tags."""

import json
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any, ClassVar, NotRequired, TypedDict, TypeVar

import boto3
import pulumi
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError
from pulumi.dynamic import Resource
from pydantic import Field

from components.providers.base import Inputs, Provider, Record, ResourceError
from components.providers.connections import ObjectStoreConnection, ObjectStoreConnectionArgs
from components.providers.waiting import REFRESH_TIMEOUT_S, START_TIMEOUT_S, NotReady, wait_for

BUCKET_NAME = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
"""What S3 allows: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html."""

Result = TypeVar("Result")

_STARTING = frozenset({"XMinioServerNotInitialized", "ServiceUnavailable", "SlowDown", "503"})
_ABSENT = frozenset({"NoSuchBucket", "NoSuchBucketPolicy", "NoSuchTagSet", "NoSuchTagSetError", "404"})
_REFUSED = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403"})


class Access(StrEnum):
    """Anonymous access to a bucket."""

    PRIVATE = "private"
    """Nobody."""
    PUBLIC_READ = "public-read"
    """Everybody who reaches the endpoint may list it and read its objects, as an exchange's archive."""


class BucketArgs(TypedDict):
    """Arguments of a bucket."""

    connection: pulumi.Input[ObjectStoreConnectionArgs]
    bucket: pulumi.Input[str]
    """The bucket's name."""
    versioning: NotRequired[pulumi.Input[bool]]
    """Optional: keep former versions of objects; False when omitted."""
    access: NotRequired[pulumi.Input[str]]
    """Optional: an :class:`Access`; private when omitted."""
    tags: NotRequired[pulumi.Input[Mapping[str, pulumi.Input[str]]]]
    force_destroy: NotRequired[pulumi.Input[bool]]
    """Optional: deletion empties it, all versions; when omitted, a bucket with objects is not deleted."""


class BucketRecord(Record):
    """What a bucket is found, and deleted, by."""

    connection: ObjectStoreConnection
    bucket: str
    force_destroy: bool = False


class BucketInputs(BucketRecord, Inputs):
    """The resolved :class:`BucketArgs`."""

    bucket: str = Field(pattern=BUCKET_NAME)
    versioning: bool = False
    access: Access = Access.PRIVATE
    tags: dict[str, str] = Field(default_factory=dict)


class BucketProvider(Provider[BucketInputs, BucketRecord]):
    """Buckets, through the S3 API."""

    VERSION: ClassVar[str] = "1"
    model = BucketInputs
    record = BucketRecord
    identity = frozenset({"bucket"})

    def resource_id(self, declared: BucketInputs) -> str:
        """The bucket's name."""
        return declared.bucket

    def apply(self, declared: BucketInputs) -> Mapping[str, Any]:
        """Create or adopt the bucket, then set whatever differs."""
        client = _client(declared.connection)
        name = declared.bucket
        live = _asking(declared, lambda: _live(client, name), START_TIMEOUT_S)
        if live is None:
            _asking(declared, lambda: _create(client, name), START_TIMEOUT_S)
            live = {"versioning": False, "access": Access.PRIVATE.value, "tags": {}}

        def settle() -> None:
            if live["versioning"] != declared.versioning:
                status = "Enabled" if declared.versioning else "Suspended"
                client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": status})
            if live["access"] != declared.access:
                if declared.access is Access.PUBLIC_READ:
                    client.put_bucket_policy(Bucket=name, Policy=json.dumps(_public_read(name)))
                else:
                    client.delete_bucket_policy(Bucket=name)
            if live["tags"] != declared.tags:
                if declared.tags:
                    tags = [{"Key": key, "Value": value} for key, value in sorted(declared.tags.items())]
                    client.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
                else:
                    client.delete_bucket_tagging(Bucket=name)

        _asking(declared, settle, START_TIMEOUT_S)
        return {}

    def observe(self, recorded: BucketRecord) -> Mapping[str, Any] | None:
        """Versioning, access and tags as they are; an access that no declaration gives is ``custom``."""
        client = _client(recorded.connection)
        return _asking(recorded, lambda: _live(client, recorded.bucket), REFRESH_TIMEOUT_S)

    def remove(self, recorded: BucketRecord) -> None:
        """Delete the bucket, after emptying it if `force_destroy`."""
        client = _client(recorded.connection)

        def delete() -> None:
            if recorded.force_destroy:
                _empty(client, recorded.bucket)
            client.delete_bucket(Bucket=recorded.bucket)

        try:
            _asking(recorded, delete, START_TIMEOUT_S)
        except _BucketAbsentError:
            return


class _BucketAbsentError(ResourceError):
    """The bucket does not exist."""


class Bucket(Resource, module="marketlake", name="Bucket"):
    """A bucket; deletion empties it only with `force_destroy`."""

    bucket: pulumi.Output[str]

    def __init__(self, name: str, args: BucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the bucket `args["bucket"]` under the resource name `name`."""
        super().__init__(BucketProvider(), name, {**args, "version": BucketProvider.VERSION}, opts)


def _client(connection: ObjectStoreConnection) -> Any:
    return boto3.session.Session().client(
        "s3",
        endpoint_url=connection.endpoint,
        region_name=connection.region,
        aws_access_key_id=connection.access_key_id,
        aws_secret_access_key=connection.secret_access_key,
        config=Config(
            connect_timeout=3,
            read_timeout=30,
            retries={"max_attempts": 1, "mode": "standard"},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
        ),
    )


def _asking(recorded: BucketRecord, action: Callable[[], Result], timeout_s: float) -> Result:
    """Run `action`; wait while the store starts, and put what S3 refuses into words."""
    endpoint = recorded.connection.endpoint

    def attempt() -> Result:
        try:
            return action()
        except (NoConnectionError, HTTPClientError) as error:
            raise NotReady(type(error).__name__) from None
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _STARTING:
                raise NotReady(code) from None
            raise _in_words(recorded, code, error) from None

    return wait_for(attempt, server=f"The object store at {endpoint}", timeout_s=timeout_s)


def _in_words(recorded: BucketRecord, code: str, error: ClientError) -> ResourceError:
    name = recorded.bucket
    if code in _ABSENT:
        return _BucketAbsentError(f"There is no bucket {name!r} at {recorded.connection.endpoint}.")
    if code == "BucketNotEmpty":
        return ResourceError(
            f"The bucket {name!r} still holds objects and is not deleted. Empty it yourself, or allow it by "
            "`force_destroy` and `pulumi up` before you destroy."
        )
    if code in _REFUSED:
        return ResourceError(
            f"The object store at {recorded.connection.endpoint} refuses {error.operation_name} on {name!r} "
            f"({code}): its administrator's key is not the recorded one. Run `pulumi up --refresh`."
        )
    return ResourceError(f"{error.operation_name} on the bucket {name!r} failed: {error}")


def _create(client: Any, name: str) -> None:
    try:
        client.create_bucket(Bucket=name)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "BucketAlreadyOwnedByYou":
            raise


def _live(client: Any, name: str) -> dict[str, Any] | None:
    if _unless_absent(lambda: client.head_bucket(Bucket=name)) is None:
        return None
    versioning = client.get_bucket_versioning(Bucket=name).get("Status") == "Enabled"
    tags = _unless_absent(lambda: client.get_bucket_tagging(Bucket=name)) or {"TagSet": []}
    policy = _unless_absent(lambda: client.get_bucket_policy(Bucket=name))
    return {
        "versioning": versioning,
        "access": _access(name, policy["Policy"] if policy else None),
        "tags": {tag["Key"]: tag["Value"] for tag in tags["TagSet"]},
    }


def _unless_absent(action: Callable[[], Result]) -> Result | None:
    try:
        return action()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _ABSENT:
            return None
        raise


def _public_read(name: str) -> dict[str, Any]:
    everybody = {"AWS": ["*"]}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": everybody,
                "Action": ["s3:GetBucketLocation", "s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{name}"],
            },
            {
                "Effect": "Allow",
                "Principal": everybody,
                "Action": ["s3:GetObject"],
                "Resource": [f"arn:aws:s3:::{name}/*"],
            },
        ],
    }


def _access(name: str, policy: str | None) -> str:
    """The access that a policy document grants; ``custom`` for one that this provider would not write."""
    if policy is None:
        return Access.PRIVATE.value
    same = canonical(json.loads(policy)) == canonical(_public_read(name))
    return Access.PUBLIC_READ.value if same else "custom"


def canonical(document: Any) -> Any:
    """A policy document with the order of its lists taken out: servers return them as they please."""
    match document:
        case dict():
            return {key: canonical(value) for key, value in document.items()}
        case list():
            return sorted(
                (canonical(item) for item in document), key=lambda item: json.dumps(item, sort_keys=True)
            )
        case _:
            return document


def _empty(client: Any, name: str) -> None:
    for batch in _versions(client, name):
        answer = client.delete_objects(Bucket=name, Delete={"Objects": batch, "Quiet": True})
        if failed := answer.get("Errors"):
            first = failed[0]
            raise ResourceError(
                f"{len(failed)} objects of the bucket {name!r} could not be deleted, the first "
                f"{first.get('Key')!r}: {first.get('Message')}. Look for object locks, then destroy again."
            )


def _versions(client: Any, name: str) -> Iterator[list[dict[str, str]]]:
    """All versions and deletion marks of a bucket, up to 1000 at a time."""
    while True:
        page = client.list_object_versions(Bucket=name, MaxKeys=1000)
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        if not found:
            return
        yield [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]
