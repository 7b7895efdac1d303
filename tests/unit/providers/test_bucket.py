from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from components.providers import bucket, waiting
from components.providers.base import ResourceError, UnreachableError
from components.providers.bucket import BucketInputs, BucketProvider

DECLARED = BucketInputs.model_validate(
    {
        "version": "1",
        "bucket": "landing",
        "connection": {"endpoint": "http://127.0.0.1:1", "access_key_id": "k", "secret_access_key": "s3cret"},
    }
)


def refusal(code: str, operation: str = "HeadBucket") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": f"{code} it is"}}, operation)


class Store:
    """An S3 client that answers each call from a script, by operation."""

    def __init__(self, **script: list[Any]) -> None:
        self.script = script
        self.calls: list[str] = []

    def __getattr__(self, operation: str) -> Any:
        def call(**_: Any) -> Any:
            self.calls.append(operation)
            answers = self.script.get(operation) or [{}]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(waiting.time, "sleep", lambda _: None)

    def use(**script: list[Any]) -> Store:
        store = Store(**script)
        monkeypatch.setattr(bucket, "_client", lambda _: store)
        return store

    return use


NO_TAGS, NO_POLICY = refusal("NoSuchTagSet"), refusal("NoSuchBucketPolicy")


def test_creation_waits_for_a_store_that_starts(use: Any) -> None:
    down = EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
    store = use(head_bucket=[down, refusal("XMinioServerNotInitialized"), refusal("404")])
    BucketProvider().apply(DECLARED)
    assert store.calls == ["head_bucket"] * 3 + ["create_bucket"]


def test_a_bucket_that_appears_meanwhile_is_ours(use: Any) -> None:
    store = use(head_bucket=[refusal("404")], create_bucket=[refusal("BucketAlreadyOwnedByYou")])
    BucketProvider().apply(DECLARED)
    assert store.calls[-1] == "create_bucket"


def test_a_name_that_somebody_else_has_is_told(use: Any) -> None:
    use(head_bucket=[refusal("404")], create_bucket=[refusal("BucketAlreadyExists", "CreateBucket")])
    with pytest.raises(
        ResourceError, match=r"CreateBucket on the bucket 'landing' failed: .*BucketAlreadyExists"
    ):
        BucketProvider().apply(DECLARED)


def test_a_store_that_stays_away_is_told_with_its_address(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "REFRESH_TIMEOUT_S", 0.0)
    use(head_bucket=[EndpointConnectionError(endpoint_url="http://127.0.0.1:1")])
    with pytest.raises(UnreachableError, match=r"object store at http://127\.0\.0\.1:1 did not answer"):
        BucketProvider().observe(DECLARED)


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403"])
def test_a_refused_identity_is_told_without_it(use: Any, code: str) -> None:
    use(head_bucket=[refusal(code)])
    with pytest.raises(ResourceError, match=rf"refuses HeadBucket on 'landing' \({code}\)") as caught:
        BucketProvider().observe(DECLARED)
    assert "s3cret" not in str(caught.value)


def test_an_absent_bucket_is_observed_as_none_and_removed_without_error(use: Any) -> None:
    use(head_bucket=[refusal("404")], delete_bucket=[refusal("NoSuchBucket")])
    assert BucketProvider().observe(DECLARED) is None
    BucketProvider().remove(DECLARED)


def test_only_what_differs_is_set(use: Any) -> None:
    store = use(get_bucket_tagging=[NO_TAGS], get_bucket_policy=[NO_POLICY])
    BucketProvider().apply(DECLARED.model_copy(update={"versioning": True}))
    assert store.calls[-1] == "put_bucket_versioning"
    assert not {"create_bucket", "put_bucket_policy", "put_bucket_tagging"} & set(store.calls)


def test_objects_that_cannot_be_deleted_are_told(use: Any) -> None:
    use(
        list_object_versions=[{"Versions": [{"Key": "a", "VersionId": "1"}]}],
        delete_objects=[{"Errors": [{"Key": "a", "Message": "locked"}]}],
    )
    with pytest.raises(ResourceError, match=r"1 objects of the bucket 'landing' .* 'a': locked"):
        BucketProvider().remove(DECLARED.model_copy(update={"force_destroy": True}))


@pytest.mark.parametrize("name", ["UPPER", "a", "-a-", "a_b", "x" * 64])
def test_impossible_names_are_refused_before_anything_is_asked(name: str) -> None:
    result = BucketProvider().check({}, DECLARED.model_dump(mode="json") | {"bucket": name})
    assert [failure.property for failure in result.failures] == ["bucket"]


def test_the_client_speaks_to_the_endpoint_by_path() -> None:
    client = bucket._client(DECLARED.connection)
    assert client.meta.endpoint_url == "http://127.0.0.1:1"
    assert client.meta.config.s3["addressing_style"] == "path"
