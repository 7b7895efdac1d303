"""Object storage: nobody reads it without an identity, it keeps former versions, and it is encrypted.

Our own buckets say all of that themselves. On AWS most of it is said by resources beside the bucket, so that only
the whole stack shows it.
"""

from collections.abc import Iterator, Sequence

from policies.rules.marks import EXPOSED, VERSIONS, is_declared
from policies.rules.reading import UNKNOWN, at, differs, text_at
from policies.rules.rule import Declared, Properties, Rule, Violation

OURS = "pulumi-python:dynamic/marketlake:Bucket"
_AWS = frozenset({"aws:s3/bucket:Bucket", "aws:s3/bucketV2:BucketV2"})
_ACLS = _AWS | {"aws:s3/bucketAcl:BucketAcl", "aws:s3/bucketAclV2:BucketAclV2"}
_BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
_BLOCKED = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
_VERSIONING = ("aws:s3/bucketVersioning:BucketVersioning", "aws:s3/bucketVersioningV2:BucketVersioningV2")
_ENCRYPTION = tuple(
    f"aws:s3/bucketServerSideEncryptionConfiguration{version}:BucketServerSideEncryptionConfiguration{version}"
    for version in ("", "V2")
)

Found = Iterator[tuple[Declared, Violation]]


def public_access(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """Nobody reads a bucket without an identity, unless declared."""
    if is_declared(properties, EXPOSED):
        return
    if resource_type == OURS and at(properties, "access") not in (None, UNKNOWN, "private"):
        yield Violation("access", f"is {at(properties, 'access')} and there is no tag {EXPOSED}")
    if resource_type in _ACLS and (acl := text_at(properties, "acl")).startswith("public-"):
        yield Violation("acl", f"is {acl} and there is no tag {EXPOSED}")
    if resource_type == _BLOCK:
        for setting in _BLOCKED:
            if differs(at(properties, setting), True):
                yield Violation(setting, "must be true")


def unblocked_buckets(resources: Sequence[Declared]) -> Found:
    """Every AWS bucket has a block on public access beside it, unless declared."""
    for bucket in _aws_buckets(resources):
        if not is_declared(bucket.properties, EXPOSED) and not _beside(resources, bucket, (_BLOCK,)):
            yield bucket, Violation("", "no BucketPublicAccessBlock names it")


def versioning(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """Our buckets keep former versions, unless declared."""
    if resource_type != OURS or is_declared(properties, VERSIONS):
        return
    if differs(at(properties, "versioning"), True):
        yield Violation("versioning", f"must be true, or a tag {VERSIONS} has to say `none: <why>`")


def unversioned_buckets(resources: Sequence[Declared]) -> Found:
    """AWS buckets keep former versions, unless declared."""
    for bucket in _aws_buckets(resources):
        if is_declared(bucket.properties, VERSIONS) or at(bucket.properties, "versioning", "enabled") is True:
            continue
        beside = _beside(resources, bucket, _VERSIONING)
        states = [at(one.properties, "versioningConfiguration", "status") for one in beside]
        if not any(state in ("Enabled", UNKNOWN) for state in states):
            yield bucket, Violation("", "no BucketVersioning enables its versions")


def unencrypted_buckets(resources: Sequence[Declared]) -> Found:
    """AWS buckets say how they are encrypted."""
    for bucket in _aws_buckets(resources):
        own = at(bucket.properties, "serverSideEncryptionConfiguration")
        if own is None and not _beside(resources, bucket, _ENCRYPTION):
            yield bucket, Violation("", "no BucketServerSideEncryptionConfiguration names it")


def _aws_buckets(resources: Sequence[Declared]) -> Iterator[Declared]:
    return (resource for resource in resources if resource.type in _AWS)


def _beside(resources: Sequence[Declared], bucket: Declared, kinds: Sequence[str]) -> list[Declared]:
    """The resources of these kinds that configure `bucket`: by its name or, before that is known, by reference."""
    names = {
        name
        for name in (at(bucket.properties, "bucket"), at(bucket.properties, "id"))
        if isinstance(name, str)
    }
    return [
        resource
        for resource in resources
        if resource.type in kinds
        and (
            bucket.urn in resource.dependencies.get("bucket", ())
            or at(resource.properties, "bucket") in names
        )
    ]


RULES = (
    Rule(
        id="no-public-bucket",
        title="Nobody reads a bucket without an identity, unless declared",
        why="A public bucket is found within hours, and is the usual way in which data is lost to others.",
        remedy=f"Leave `access` private. Where everybody is meant to read it, say why in the tag {EXPOSED}.",
        resource=public_access,
    ),
    Rule(
        id="bucket-access-blocked",
        title="AWS buckets block public access",
        why="The block holds even where a policy or an object's own list would let everybody in.",
        remedy="Declare a BucketPublicAccessBlock for the bucket, with all four settings true; or say why everybody "
        f"may read it in the tag {EXPOSED}.",
        stack=unblocked_buckets,
    ),
    Rule(
        id="bucket-versioned",
        title="Buckets keep former versions, unless declared",
        why="What was overwritten or deleted by mistake can be had again.",
        remedy=f"Set `versioning` to true. Where something else keeps them, say `none: <what>` in the tag {VERSIONS}.",
        resource=versioning,
    ),
    Rule(
        id="aws-bucket-versioned",
        title="AWS buckets keep former versions, unless declared",
        why="What was overwritten or deleted by mistake can be had again.",
        remedy="Declare a BucketVersioning for the bucket with the status Enabled; or say `none: <why>` in the tag "
        f"{VERSIONS}.",
        stack=unversioned_buckets,
    ),
    Rule(
        id="aws-bucket-encrypted",
        title="AWS buckets say how they are encrypted",
        why="Who gets hold of the disks, or of a copy of them, reads nothing; and whose key it is does not change "
        "with a provider's defaults.",
        remedy="Declare a BucketServerSideEncryptionConfiguration for the bucket.",
        stack=unencrypted_buckets,
    ),
)
