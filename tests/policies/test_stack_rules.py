"""Rules that only the whole stack shows."""

from typing import Any

import pytest

from policies.rules import RULES, Declared, marks
from policies.rules.reading import UNKNOWN
from tests.policies.samples import TAGS, closing_policy, deployment, resource

DEPLOYMENT = "kubernetes:apps/v1:Deployment"
POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
BUCKET = "aws:s3/bucket:Bucket"
BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
VERSIONING = "aws:s3/bucketVersioning:BucketVersioning"
ENCRYPTION = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
ENABLED = {"bucket": "lake", "versioningConfiguration": {"status": "Enabled"}}


def broken(rule_id: str, *resources: Declared) -> list[str]:
    (rule,) = (rule for rule in RULES if rule.id == rule_id)
    assert rule.stack
    return [f"{found.name}: {violation}" for found, violation in rule.stack(resources)]


def test_every_stack_rule_is_tried_here() -> None:
    assert {rule.id for rule in RULES if rule.stack} == {
        "namespace-closed", "bucket-access-blocked", "aws-bucket-versioned", "aws-bucket-encrypted",
    }  # fmt: skip


def test_a_namespace_with_pods_and_no_closing_policy_is_told_once() -> None:
    told = broken("namespace-closed", resource(DEPLOYMENT), resource(DEPLOYMENT, name="two"))
    assert told == ["one: metadata.namespace: the namespace lake has no NetworkPolicy that closes it"]


def test_a_closed_namespace_passes() -> None:
    assert broken("namespace-closed", resource(POLICY, closing_policy()), resource(DEPLOYMENT)) == []


def test_a_namespace_without_pods_need_not_be_closed() -> None:
    assert broken("namespace-closed", resource("kubernetes:core/v1:ConfigMap")) == []


@pytest.mark.parametrize(
    "change",
    [
        {"podSelector": {"matchLabels": {"a": "b"}}},
        {"policyTypes": ["Ingress"]},
        {"ingress": [{}]},
        {"egress": [{"to": []}]},
    ],
    ids=["some pods", "one direction", "a way in", "a way out"],
)
def test_a_policy_that_leaves_something_open_closes_nothing(change: dict[str, Any]) -> None:
    policy = closing_policy()
    policy["spec"] |= change
    assert broken("namespace-closed", resource(POLICY, policy), resource(DEPLOYMENT))


def test_a_policy_of_another_namespace_closes_nothing_here() -> None:
    policy = closing_policy()
    del policy["metadata"]["namespace"]
    assert broken("namespace-closed", resource(POLICY, policy), resource(DEPLOYMENT))


def test_namespaces_that_only_the_update_will_know_are_not_judged() -> None:
    policy, later = closing_policy(), deployment()
    policy["metadata"]["namespace"] = later["metadata"]["namespace"] = UNKNOWN
    assert broken("namespace-closed", resource(POLICY, policy), resource(DEPLOYMENT)) == []
    assert broken("namespace-closed", resource(DEPLOYMENT, later)) == []


def test_a_namespace_that_a_preview_filled_in_is_not_judged_but_one_that_is_meant_is() -> None:
    pods = deployment()
    pods["metadata"]["namespace"] = "default"
    later = resource(DEPLOYMENT, pods, dependencies={"metadata": ["urn:space"]})
    assert broken("namespace-closed", later) == []
    assert len(broken("namespace-closed", resource(DEPLOYMENT, pods))) == 1


AWS = [
    ("bucket-access-blocked", BLOCK, {"bucket": "lake"}, marks.EXPOSED),
    ("aws-bucket-versioned", VERSIONING, ENABLED, marks.VERSIONS),
    ("aws-bucket-encrypted", ENCRYPTION, {"bucket": "lake"}, None),
]


@pytest.mark.parametrize(("rule", "beside", "properties", "mark"), AWS)
def test_an_aws_bucket_needs_it_beside_itself(
    rule: str, beside: str, properties: dict[str, Any], mark: str | None
) -> None:
    other = resource(beside, {**properties, "bucket": "other"})
    assert len(broken(rule, resource(BUCKET), other)) == 1, "another bucket's does not count"
    assert broken(rule, resource(BUCKET), resource(beside, properties)) == []


@pytest.mark.parametrize(("rule", "beside", "properties", "mark"), AWS)
def test_before_its_name_is_known_an_aws_bucket_is_found_by_reference(
    rule: str, beside: str, properties: dict[str, Any], mark: str | None
) -> None:
    bucket = resource(BUCKET, {"tags": TAGS})
    pointing = resource(beside, {**properties, "bucket": UNKNOWN}, dependencies={"bucket": [bucket.urn]})
    assert broken(rule, bucket, pointing) == []
    assert broken(rule, bucket, resource(beside, {**properties, "bucket": UNKNOWN}))


@pytest.mark.parametrize(("rule", "beside", "properties", "mark"), AWS[:2])
def test_an_aws_bucket_may_do_without_where_that_is_declared(
    rule: str, beside: str, properties: dict[str, Any], mark: str
) -> None:
    assert broken(rule, resource(BUCKET, {"bucket": "lake", "tags": {mark: "none: a mirror"}})) == []


def test_suspended_versions_are_none() -> None:
    suspended = {"bucket": "lake", "versioningConfiguration": {"status": "Suspended"}}
    assert broken("aws-bucket-versioned", resource(BUCKET), resource(VERSIONING, suspended))


def test_what_a_bucket_says_itself_counts() -> None:
    own = {
        "bucket": "lake",
        "versioning": {"enabled": True},
        "serverSideEncryptionConfiguration": {"rule": {}},
    }
    assert broken("aws-bucket-versioned", resource(BUCKET, own)) == []
    assert broken("aws-bucket-encrypted", resource(BUCKET, own)) == []
