"""An identity of the object store with rights on some buckets and no others."""

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypedDict, TypeVar
from urllib.parse import urlsplit

import pulumi
import urllib3
from minio import MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException
from pulumi.dynamic import Resource
from pydantic import Field

from components.providers.base import Inputs, Provider, Record, ResourceError
from components.providers.bucket import canonical
from components.providers.connections import ObjectStoreConnection, ObjectStoreConnectionArgs
from components.providers.waiting import REFRESH_TIMEOUT_S, START_TIMEOUT_S, NotReady, wait_for

Result = TypeVar("Result")

_STARTING = frozenset({"XMinioServerNotInitialized", "ServiceUnavailable", "SlowDown"})
_ABSENT = frozenset({"XMinioAdminNoSuchUser", "XMinioAdminNoSuchPolicy"})
_REFUSED = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"})
_ON_BUCKETS = [
    "s3:GetBucketLocation",
    "s3:GetBucketVersioning",
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:ListBucketVersions",
]
_ON_OBJECTS = [
    "s3:AbortMultipartUpload",
    "s3:DeleteObject",
    "s3:GetObject",
    "s3:GetObjectAttributes",
    "s3:GetObjectVersion",
    "s3:ListMultipartUploadParts",
    "s3:PutObject",
]
_NEVER = ["s3:DeleteObjectVersion"]
"""What was once written to a versioned bucket outlives a mistake of the runtime. MinIO counts this as a
part of DeleteObject unless it is denied."""


class StoreUserArgs(TypedDict):
    """Arguments of a user."""

    connection: pulumi.Input[ObjectStoreConnectionArgs]
    """Of the administrator."""
    user: pulumi.Input[str]
    """The access key's name."""
    secret_access_key: pulumi.Input[str]
    """A secret of at least 8 characters."""
    buckets: pulumi.Input[list[pulumi.Input[str]]]
    """Where the user may read, write and delete objects."""


class StoreUserRecord(Record):
    """What a user is found by, and the buckets that its rights are compared with."""

    connection: ObjectStoreConnection
    user: str
    buckets: list[str] = Field(default_factory=list)


class StoreUserInputs(StoreUserRecord, Inputs):
    """The resolved :class:`StoreUserArgs`."""

    user: str = Field(pattern=r"^[A-Za-z0-9._-]{3,64}$")
    secret_access_key: str = Field(min_length=8, repr=False)
    buckets: list[str] = Field(min_length=1)


class StoreUserProvider(Provider[StoreUserInputs, StoreUserRecord]):
    """Users, each with a policy of the same name, through MinIO's admin API."""

    VERSION: ClassVar[str] = "1"
    model = StoreUserInputs
    record = StoreUserRecord
    identity = frozenset({"user"})

    def resource_id(self, declared: StoreUserInputs) -> str:
        """The user's name."""
        return declared.user

    def apply(self, declared: StoreUserInputs) -> Mapping[str, Any]:
        """Create or adopt the user, set its key and its rights."""
        admin = _admin(declared.connection)

        def settle() -> None:
            admin.policy_add(declared.user, policy=_policy(declared.buckets))
            admin.user_add(declared.user, declared.secret_access_key)
            if _facts(admin, declared.user).get("policyName") != declared.user:
                admin.policy_set(declared.user, user=declared.user)

        _asking(declared, settle, START_TIMEOUT_S)
        return {}

    def observe(self, recorded: StoreUserRecord) -> Mapping[str, Any] | None:
        """The buckets that it may use; none of them unless its rights are exactly what is recorded.

        The key cannot be read back.
        """
        admin = _admin(recorded.connection)

        def look() -> Mapping[str, Any] | None:
            facts = _unless_absent(lambda: _facts(admin, recorded.user))
            if facts is None:
                return None
            text = _unless_absent(lambda: admin.policy_info(recorded.user))
            as_declared = (
                facts.get("policyName") == recorded.user
                and facts.get("status") == "enabled"
                and text is not None
                and canonical(json.loads(text)) == canonical(_policy(recorded.buckets))
            )
            return {"buckets": recorded.buckets if as_declared else []}

        return _asking(recorded, look, REFRESH_TIMEOUT_S)

    def remove(self, recorded: StoreUserRecord) -> None:
        """Remove the user and its policy."""
        admin = _admin(recorded.connection)

        def remove() -> None:
            _unless_absent(lambda: admin.user_remove(recorded.user))
            _unless_absent(lambda: admin.policy_remove(recorded.user))

        _asking(recorded, remove, START_TIMEOUT_S)


class StoreUser(Resource, module="marketlake", name="StoreUser"):
    """A user of the object store."""

    user: pulumi.Output[str]
    secret_access_key: pulumi.Output[str]
    """A secret."""

    def __init__(self, name: str, args: StoreUserArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the user `args["user"]` under the resource name `name`."""
        super().__init__(
            StoreUserProvider(),
            name,
            {**args, "version": StoreUserProvider.VERSION},
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["secret_access_key"])
            ),
        )


def _admin(connection: ObjectStoreConnection) -> MinioAdmin:
    url = urlsplit(connection.endpoint)
    return MinioAdmin(
        endpoint=url.netloc,
        credentials=StaticProvider(connection.access_key_id, connection.secret_access_key),
        region=connection.region,
        secure=url.scheme == "https",
        http_client=urllib3.PoolManager(timeout=urllib3.Timeout(connect=3, read=30), retries=False),
    )


def _policy(buckets: list[str]) -> dict[str, Any]:
    objects = [f"arn:aws:s3:::{bucket}/*" for bucket in buckets]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": _ON_BUCKETS,
                "Resource": [f"arn:aws:s3:::{bucket}" for bucket in buckets],
            },
            {
                "Effect": "Allow",
                "Action": _ON_OBJECTS,
                "Resource": objects,
            },
            {"Effect": "Deny", "Action": _NEVER, "Resource": objects},
        ],
    }


def _facts(admin: MinioAdmin, user: str) -> dict[str, Any]:
    return dict(json.loads(admin.user_info(user)))


def _unless_absent(action: Callable[[], Result]) -> Result | None:
    try:
        return action()
    except MinioAdminException as error:
        if _code(error) in _ABSENT:
            return None
        raise


def _asking(recorded: StoreUserRecord, action: Callable[[], Result], timeout_s: float) -> Result:
    endpoint = recorded.connection.endpoint

    def attempt() -> Result:
        try:
            return action()
        except urllib3.exceptions.HTTPError as error:
            raise NotReady(type(error).__name__) from None
        except MinioAdminException as error:
            code = _code(error)
            if code in _STARTING:
                raise NotReady(code) from None
            if code in _REFUSED:
                raise ResourceError(
                    f"The object store at {endpoint} refuses its administrator's key ({code}): it is not the "
                    "recorded one. Run `pulumi up --refresh`."
                ) from None
            raise ResourceError(
                f"The object store at {endpoint} refuses the user {recorded.user!r}: {error}"
            ) from None

    return wait_for(attempt, server=f"The object store at {endpoint}", timeout_s=timeout_s)


def _code(error: MinioAdminException) -> str:
    """The code in the answer's body, which the exception keeps in its text alone; else that text."""
    _, _, body = str(error).partition(", Body: ")
    try:
        return str(json.loads(body)["Code"])
    except (ValueError, KeyError, TypeError):
        return str(error)
