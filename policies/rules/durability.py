"""Lasting data: backed up, and encrypted at rest."""

from collections.abc import Iterator, Mapping

from policies.rules.marks import BACKUP, EXPOSED, is_declared
from policies.rules.reading import UNKNOWN, at, differs, items_at
from policies.rules.rule import Enforcement, Properties, Rule, Violation

_CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
_STATEFUL_SET = "kubernetes:apps/v1:StatefulSet"
_DATABASES = frozenset({"aws:rds/instance:Instance", "aws:rds/cluster:Cluster"})
_ENCRYPTED: Mapping[str, str] = {
    "aws:rds/instance:Instance": "storageEncrypted",
    "aws:rds/cluster:Cluster": "storageEncrypted",
    "aws:ebs/volume:Volume": "encrypted",
    "aws:efs/fileSystem:FileSystem": "encrypted",
}
_STORAGE_CLASS = "kubernetes:storage.k8s.io/v1:StorageClass"
_EBS = "ebs.csi.aws.com"
_TAGS = ("name", "instance", "part-of", "managed-by")
_TAGGED = frozenset({*_ENCRYPTED, "aws:s3/bucket:Bucket", "aws:s3/bucketV2:BucketV2"})


def backups(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """Lasting data declares its backup, or why it needs none."""
    if is_declared(properties, BACKUP):
        return
    if resource_type == _CLAIM:
        yield Violation("metadata.annotations", f"{BACKUP} is missing")
    elif resource_type == _STATEFUL_SET:
        for index, claim in items_at(properties, "spec", "volumeClaimTemplates"):
            if isinstance(claim, Mapping) and not is_declared(claim, BACKUP):
                yield Violation(
                    f"spec.volumeClaimTemplates[{index}].metadata.annotations", f"{BACKUP} is missing"
                )
    elif resource_type in _DATABASES and at(properties, "backupRetentionPeriod") in (None, 0):
        yield Violation("backupRetentionPeriod", "must be at least 1 day")


def encryption(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """Disks and databases are encrypted."""
    setting = _ENCRYPTED.get(resource_type)
    if setting and differs(at(properties, setting), True):
        yield Violation(setting, "must be true")
    of_ebs = resource_type == _STORAGE_CLASS and at(properties, "provisioner") == _EBS
    if of_ebs and differs(at(properties, "parameters", "encrypted"), "true"):
        yield Violation("parameters.encrypted", 'must be "true"')


def public_databases(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """No database has an address on the internet, unless declared."""
    public = resource_type in _DATABASES and at(properties, "publiclyAccessible") is True
    if public and not is_declared(properties, EXPOSED):
        yield Violation("publiclyAccessible", f"is true and there is no tag {EXPOSED}")


def tags(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """Resources on AWS carry tags that say what they are for."""
    if resource_type not in _TAGGED:
        return
    given = at(properties, "tags")
    absent = [name for name in _TAGS if given is not UNKNOWN and at(given, name) in (None, "")]
    if absent:
        yield Violation("tags", f"{', '.join(absent)}: missing")


RULES = (
    Rule(
        id="backup-declared",
        title="Whatever lasts says what saves it",
        why="A volume without a copy elsewhere is lost with its disk; who decides that this is fine writes down why.",
        remedy=f"Set the annotation {BACKUP} on the claim, the volumeClaimTemplate or the StatefulSet: what saves it, "
        "or `none: <why>`. On an AWS database, set backupRetentionPeriod.",
        resource=backups,
    ),
    Rule(
        id="encrypted-at-rest",
        title="Disks and databases on AWS are encrypted",
        why="Who gets hold of a disk, a snapshot or a copy of them reads nothing.",
        remedy="Set storageEncrypted on databases, encrypted on volumes and file systems, and the parameter encrypted "
        f'of storage classes of {_EBS} to "true".',
        resource=encryption,
    ),
    Rule(
        id="no-public-database",
        title="No database has an address on the internet, unless declared",
        why="A database trusts every client with a password; the internet tries them all.",
        remedy=f"Set publiclyAccessible to false; where it is meant, say why in the tag {EXPOSED}.",
        resource=public_databases,
    ),
    Rule(
        id="tagged",
        title="What costs money on AWS carries tags",
        why="Without them nobody knows whose it is, what it is for, and whether it may go.",
        remedy=f"Set the tags {', '.join(_TAGS)}.",
        enforcement=Enforcement.ADVISORY,
        resource=tags,
    ),
)
