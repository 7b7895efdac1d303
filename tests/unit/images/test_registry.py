"""What reaches a registry, and what is said when something does not."""

import httpx
import pytest

from tests.unit.images.conftest import Shelf
from tests.unit.images.registry import FakeRegistry
from toolchain.images.credentials import Credentials
from toolchain.images.errors import ImageError
from toolchain.images.registry import Place, push

PLACE = "registry.example.com/team"
ROBOT = Credentials("robot", "s3cret")


def pushed(
    shelf: Shelf, registry: FakeRegistry, credentials: Credentials | None = None, place: str = PLACE
) -> list[str]:
    return push(
        shelf.store,
        shelf.store.read().images,
        place,
        transport=registry.transport,
        credentials=lambda _host: credentials,
    )


@pytest.fixture
def two(shelf: Shelf) -> Shelf:
    """Two images that share their base."""
    base = shelf.layer({"etc/passwd": b"root"})
    for name in ("minio", "jaeger"):
        shelf.put(name, {"base": base, name: shelf.layer({f"opt/{name}": name.encode()})})
    return shelf


def test_an_image_is_there_under_its_digest_and_its_version(two: Shelf) -> None:
    registry = FakeRegistry()
    assert pushed(two, registry) == ["jaeger", "minio"]
    for name, built in two.store.read().images.items():
        held = registry.manifests[f"team/{name}"]
        assert held[built.digest] == held["1.0"] == two.store.blob(built.digest).read_bytes()


def test_what_is_there_is_not_sent_again(two: Shelf) -> None:
    registry = FakeRegistry()
    pushed(two, registry)
    registry.requests.clear()
    assert pushed(two, registry) == []
    assert not registry.sent("PUT")
    assert not registry.sent("POST")


def test_a_version_that_means_another_image_is_moved(two: Shelf) -> None:
    registry = FakeRegistry()
    pushed(two, registry)
    before = registry.manifests["team/minio"]["1.0"]
    two.put("minio", {"other": two.layer({"opt/minio": b"another"})})
    assert pushed(two, registry) == ["minio"]
    assert registry.manifests["team/minio"]["1.0"] != before


def test_a_base_is_sent_once_and_linked_into_the_other_repositories(two: Shelf) -> None:
    registry = FakeRegistry()
    pushed(two, registry)
    base = two.store.read().layers["base"].digest
    assert base in registry.blobs["team/minio"]
    assert base in registry.blobs["team/jaeger"]
    uploads = [path for path in registry.sent("PUT") if "/blobs/uploads/" in path]
    assert len(uploads) == 5, "two programs, two configurations, one base"


def test_a_registry_that_links_nothing_is_sent_the_base_again(two: Shelf) -> None:
    registry = FakeRegistry()
    registry.mounts = False
    assert pushed(two, registry) == ["jaeger", "minio"]


def test_a_broken_off_push_is_completed_by_the_next(two: Shelf) -> None:
    registry = FakeRegistry()
    registry.failures["PUT", "manifests/1.0"] = httpx.Response(500)
    with pytest.raises(ImageError, match=r"does not take the manifest of team/jaeger:1\.0: HTTP 500"):
        pushed(two, registry)
    registry.failures.clear()
    assert pushed(two, registry) == ["jaeger", "minio"]


@pytest.mark.parametrize("bearer", [False, True])
def test_a_user_with_a_password_may_push(two: Shelf, bearer: bool) -> None:
    registry = FakeRegistry(password="s3cret", bearer=bearer)
    assert pushed(two, registry, ROBOT) == ["jaeger", "minio"]


def test_tokens_are_asked_for_each_repository_and_for_those_that_are_linked_from(two: Shelf) -> None:
    registry = FakeRegistry(password="s3cret", bearer=True)
    pushed(two, registry, ROBOT)
    assert registry.scopes == [
        ["repository:team/jaeger:pull,push"],
        ["repository:team/minio:pull,push", "repository:team/jaeger:pull"],
    ]


def test_an_identity_token_is_exchanged(two: Shelf) -> None:
    registry = FakeRegistry(password="refresh", bearer=True)
    assert pushed(two, registry, Credentials("<token>", "refresh")) == ["jaeger", "minio"]
    assert set(registry.forms) == {"refresh_token"}


def test_a_stranger_is_told_to_log_in(two: Shelf) -> None:
    with pytest.raises(
        ImageError, match=r"wants to know who we are: `docker login registry\.example\.com` first"
    ):
        pushed(two, FakeRegistry(password="s3cret"))
    with pytest.raises(
        ImageError, match=r"gives us without a name no token to push to team/jaeger \(HTTP 401\)"
    ):
        pushed(two, FakeRegistry(password="s3cret", bearer=True))


def test_a_wrong_password_is_no_endless_loop_and_is_not_told(two: Shelf) -> None:
    for bearer in (False, True):
        registry = FakeRegistry(password="another", bearer=bearer)
        with pytest.raises(ImageError, match="docker login") as caught:
            pushed(two, registry, ROBOT)
        assert ROBOT.password not in str(caught.value)
        assert len(registry.requests) <= 2
    assert ROBOT.password not in repr(ROBOT)


def test_a_registry_that_asks_for_something_unknown_is_refused(two: Shelf) -> None:
    registry = FakeRegistry()
    registry.failures["HEAD", ""] = httpx.Response(401, headers={"WWW-Authenticate": "Negotiate"})
    with pytest.raises(ImageError, match=r"refuses team/jaeger/manifests/.* \(HTTP 401\)"):
        pushed(two, registry, ROBOT)


def test_no_password_is_sent_to_a_token_server_without_tls(two: Shelf) -> None:
    registry = FakeRegistry()
    challenge = 'Bearer realm="http://elsewhere.example.com/token",service="x"'
    registry.failures["HEAD", ""] = httpx.Response(401, headers={"WWW-Authenticate": challenge})
    with pytest.raises(ImageError, match="no address to give a password to"):
        pushed(two, registry, ROBOT)


def test_the_registrys_own_words_are_told(two: Shelf) -> None:
    registry = FakeRegistry()
    body = {"errors": [{"code": "DENIED", "message": "the quota is used up"}]}
    registry.failures["POST", "uploads/"] = httpx.Response(403, json=body)
    with pytest.raises(ImageError, match="HTTP 403, DENIED: the quota is used up"):
        pushed(two, registry)


def test_an_upload_without_an_address_is_an_error(two: Shelf) -> None:
    registry = FakeRegistry()
    registry.failures["POST", "uploads/"] = httpx.Response(202)
    with pytest.raises(ImageError, match="does not say where to send it"):
        pushed(two, registry)


def test_a_registry_that_is_away_is_named(two: Shelf) -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route to host", request=request)

    with pytest.raises(ImageError, match=r"registry\.example\.com cannot be reached: no route to host"):
        push(
            two.store,
            two.store.read().images,
            PLACE,
            transport=httpx.MockTransport(away),
            credentials=lambda _: None,
        )


def test_how_far_an_upload_is_can_be_followed(two: Shelf) -> None:
    told: list[str] = []
    push(
        two.store,
        two.store.read().images,
        "registry.example.com",
        tell=told.append,
        transport=FakeRegistry().transport,
        credentials=lambda _host: None,
    )
    assert told
    assert all(text.endswith(" MB") for text in told)


@pytest.mark.parametrize(
    ("text", "url", "repository"),
    [
        ("registry.example.com/team/lake", "https://registry.example.com/v2/", "team/lake/minio"),
        ("registry.example.com:5000", "https://registry.example.com:5000/v2/", "minio"),
        ("127.0.0.1:5000/x", "http://127.0.0.1:5000/v2/", "x/minio"),
        ("localhost:5000", "http://localhost:5000/v2/", "minio"),
        ("[::1]:5000", "http://[::1]:5000/v2/", "minio"),
    ],
)
def test_only_a_registry_on_this_machine_is_spoken_to_in_clear(text: str, url: str, repository: str) -> None:
    place = Place.parse(text)
    assert place.url == url
    assert place.repository("minio") == repository


@pytest.mark.parametrize(
    "text", ["https://registry.example.com", "registry.example.com/Team", "a b", "", "host/"]
)
def test_a_wrong_place_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ImageError, match=r"e\.g\. registry\.example\.com/platform"):
        Place.parse(text)
