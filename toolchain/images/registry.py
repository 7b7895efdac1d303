"""Pushes images to a registry by the OCI distribution API, without a container engine."""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin

import httpx

from toolchain.images.credentials import Credentials, credentials_for
from toolchain.images.errors import ImageError
from toolchain.images.store import Built, Store

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONNECT_SECONDS = 10.0
TRANSFER_SECONDS = 120.0
"""Without a byte taken or given."""
_CHUNK = 1 << 20
_HERE = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
_PLACE = re.compile(
    r"(?P<host>[a-zA-Z0-9.-]+(?::\d+)?|\[[0-9a-fA-F:]+\](?::\d+)?)(?P<prefix>(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where images go: a registry, and the first part of their names in it."""

    host: str
    prefix: str
    """Without slashes around it; may be empty."""

    @classmethod
    def parse(cls, text: str) -> "Place":
        """From ``HOST[:PORT][/PREFIX]``.

        Raises:
            ImageError: it is something else.
        """
        found = _PLACE.fullmatch(text)
        if found is None:
            raise ImageError(
                f"{text!r} names no place in a registry: write HOST[:PORT][/PREFIX], without https:// and in lower "
                "case, e.g. registry.example.com/platform"
            )
        return cls(found["host"], found["prefix"].strip("/"))

    @property
    def url(self) -> str:
        """Address of the API; only a registry on this machine is spoken to without TLS, as docker does it."""
        return f"{'http' if _HERE.fullmatch(self.host) else 'https'}://{self.host}/v2/"

    def repository(self, name: str) -> str:
        """The repository of an image."""
        return f"{self.prefix}/{name}" if self.prefix else name


def push(
    store: Store,
    images: Mapping[str, Built],
    registry: str,
    *,
    tell: Tell = lambda _text: None,
    transport: httpx.BaseTransport | None = None,
    credentials: Callable[[str], Credentials | None] = credentials_for,
) -> list[str]:
    """Push images; what the registry has already is not sent again.

    Args:
        store: holds them.
        images: name → image.
        registry: ``HOST[:PORT][/PREFIX]``.
        tell: told how far it is.
        transport: how to speak HTTP.
        credentials: who we are to a host.

    Returns:
        The names of those that were not there before.

    Raises:
        ImageError: the registry is away, refuses us, or breaks off.
    """
    place = Place.parse(registry)
    with Registry(place, credentials(place.host), transport) as client:
        return [name for name, built in images.items() if client.push(store, name, built, tell)]


class Registry:
    """A registry's API."""

    def __init__(
        self,
        place: Place,
        credentials: Credentials | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._place = place
        self._credentials = credentials
        self._tokens: dict[str, str] = {}
        self._homes: dict[str, str] = {}
        """Digest of a blob → a repository that has it, from where the registry may link it."""
        self._client = httpx.Client(
            transport=transport,
            verify=ssl.create_default_context(),
            timeout=httpx.Timeout(TRANSFER_SECONDS, connect=CONNECT_SECONDS),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.close()

    def push(self, store: Store, name: str, built: Built, tell: Tell) -> bool:
        """Push one image under its digest and its version; False: it was there."""
        repository = self._place.repository(name)
        if (
            self._has(repository, f"manifests/{built.digest}")
            and self._tag(repository, built.version) == built.digest
        ):
            return False
        manifest = store.manifest(built)
        for part in [*manifest["layers"], manifest["config"]]:
            self._blob(repository, part["digest"], store.blob(part["digest"]), tell)
        body = store.blob(built.digest).read_bytes()
        for reference in (built.digest, built.version):
            self._expect(
                self._send(
                    "PUT",
                    repository,
                    f"manifests/{reference}",
                    content=body,
                    headers={"Content-Type": MANIFEST},
                ),
                {201},
                f"the manifest of {repository}:{built.version}",
            )
        return True

    def _has(self, repository: str, what: str) -> bool:
        answer = self._send("HEAD", repository, what, headers={"Accept": MANIFEST})
        self._expect(answer, {200, 404}, f"{repository}/{what}")
        return answer.status_code == httpx.codes.OK

    def _tag(self, repository: str, version: str) -> str | None:
        answer = self._send("HEAD", repository, f"manifests/{version}", headers={"Accept": MANIFEST})
        return answer.headers.get("Docker-Content-Digest") if answer.is_success else None

    def _blob(self, repository: str, digest: str, path: Path, tell: Tell) -> None:
        if self._has(repository, f"blobs/{digest}"):
            self._homes[digest] = repository
            return
        query = {"mount": digest, "from": self._homes[digest]} if digest in self._homes else {}
        started = self._send("POST", repository, "blobs/uploads/", params=query)
        self._expect(started, {201, 202}, f"an upload to {repository}")
        if started.status_code == httpx.codes.ACCEPTED:
            self._upload(repository, digest, path, str(started.headers.get("Location", "")), tell)
        self._homes[digest] = repository

    def _upload(self, repository: str, digest: str, path: Path, location: str, tell: Tell) -> None:
        if not location:
            raise ImageError(
                f"{self._place.host} began an upload to {repository} and does not say where to send it"
            )
        size = path.stat().st_size
        url = httpx.URL(urljoin(f"{self._place.url}{repository}/", location)).copy_add_param("digest", digest)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        answer = self._request(
            "PUT", str(url), repository, content=lambda: _chunks(path, size, tell), headers=headers
        )
        self._expect(answer, {201}, f"{size / 1e6:.1f} MB ({digest}) for {repository}")

    def _send(self, method: str, repository: str, what: str, **more: Any) -> httpx.Response:
        return self._request(method, f"{self._place.url}{repository}/{what}", repository, **more)

    def _request(
        self, method: str, url: str, repository: str, *, content: Any = None, headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> httpx.Response:  # fmt: skip
        """Send a request; asked who we are, answer and send it again."""

        def send() -> httpx.Response:
            own = {**(headers or {}), **self._authorization(repository)}
            body = content() if callable(content) else content
            return self._client.request(method, url, content=body, headers=own, params=params or None)

        try:
            answer = send()
            if answer.status_code == httpx.codes.UNAUTHORIZED and self._authenticate(repository, answer):
                answer = send()
        except httpx.HTTPError as error:
            raise ImageError(
                f"the registry {self._place.host} cannot be reached: {error or type(error).__name__}"
            ) from error
        return answer

    def _authorization(self, repository: str) -> dict[str, str]:
        token = self._tokens.get(repository)
        return {"Authorization": token} if token else {}

    def _authenticate(self, repository: str, refused: httpx.Response) -> bool:
        """Do what the challenge asks for; False: we did so already."""
        challenge = refused.headers.get("WWW-Authenticate", "")
        scheme, _, rest = challenge.partition(" ")
        former = self._tokens.get(repository)
        if scheme.lower() == "basic":
            if self._credentials is None:
                raise ImageError(
                    f"the registry {self._place.host} wants to know who we are: `docker login {self._place.host}` first"
                )
            self._tokens[repository] = _basic(self._credentials)
        elif scheme.lower() == "bearer":
            self._tokens[repository] = f"Bearer {self._token(repository, dict(_CHALLENGE.findall(rest)))}"
        else:
            return False
        return self._tokens[repository] != former

    def _token(self, repository: str, asked: Mapping[str, str]) -> str:
        """A token for pushing, as the distribution project's token specification says."""
        realm = asked.get("realm", "")
        if not realm.startswith(("https://", self._place.url.partition("//")[0] + "//")):
            raise ImageError(
                f"{self._place.host} sends us to {realm!r} for a token: that is no address to give a password to"
            )
        scopes = [f"repository:{repository}:pull,push"]
        scopes += [f"repository:{home}:pull" for home in sorted({*self._homes.values()} - {repository})]
        known = self._credentials
        if known and known.is_token:
            form = {"grant_type": "refresh_token", "refresh_token": known.password, "client_id": "marketlake",
                    "service": asked.get("service", ""), "scope": " ".join(scopes)}  # fmt: skip
            answer = self._client.post(realm, data=form)
        else:
            query = {"service": asked.get("service", ""), "scope": scopes}
            headers = {"Authorization": _basic(known)} if known else {}
            answer = self._client.get(realm, params=query, headers=headers)
        if not answer.is_success:
            who = f"as {known.user!r} " if known else "without a name "
            raise ImageError(
                f"{httpx.URL(realm).host} gives us {who}no token to push to {repository} (HTTP {answer.status_code}): "
                f"`docker login {self._place.host}` with a user who may"
            )
        told = answer.json()
        return str(told.get("token") or told.get("access_token") or "")

    def _expect(self, answer: httpx.Response, wanted: set[int], what: str) -> None:
        if answer.status_code in wanted:
            return
        if answer.status_code in {401, 403}:
            raise ImageError(
                f"the registry {self._place.host} refuses {what} (HTTP {answer.status_code}{_reason(answer)}): "
                f"`docker login {self._place.host}` with a user who may push there"
            )
        raise ImageError(
            f"the registry {self._place.host} does not take {what}: HTTP {answer.status_code}{_reason(answer)}"
        )


def _chunks(path: Path, size: int, tell: Tell) -> Iterator[bytes]:
    sent = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
            sent += len(chunk)
            tell(f"{sent / 1e6:.0f} of {size / 1e6:.0f} MB")


def _basic(credentials: Credentials) -> str:
    told = httpx.BasicAuth(credentials.user, credentials.password)
    return next(told.auth_flow(httpx.Request("GET", "http://registry"))).headers["Authorization"]


def _reason(answer: httpx.Response) -> str:
    """What the registry's error document says, e.g. ``, NAME_UNKNOWN: repository not known``."""
    try:
        errors: Sequence[Mapping[str, Any]] = answer.json()["errors"]
        return "".join(f", {each.get('code')}: {each.get('message')}" for each in errors)
    except (ValueError, KeyError, TypeError, AttributeError, httpx.ResponseNotRead):
        return ""
