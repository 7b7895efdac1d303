"""A registry in this process that keeps to the OCI distribution specification where pushing depends on it."""

import base64
import hashlib
import json
import uuid
from collections.abc import Iterable

import httpx

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class FakeRegistry:
    """Answers as a registry does; `transport` is how to reach it.

    Args:
        password: for the user "robot"; None: everybody may push.
        bearer: whether the password is given to a token server instead of to the registry itself.
    """

    def __init__(self, *, password: str | None = None, bearer: bool = False) -> None:
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, bytes]] = {}
        self.requests: list[tuple[str, str]] = []
        self.scopes: list[list[str]] = []
        self.forms: list[str] = []
        self.failures: dict[tuple[str, str], httpx.Response] = {}
        """(Method, end of the path) → what to answer instead."""
        self.mounts = True
        self._uploads: dict[str, str] = {}
        self._password = password
        self._bearer = bearer
        self.transport = httpx.MockTransport(self._answer)

    def sent(self, method: str) -> list[str]:
        """Paths of the requests with that method."""
        return [path for each, path in self.requests if each == method]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/token":
            return self._token(request)
        self.requests.append((request.method, path))
        if refused := self._refusal(request):
            return refused
        for (method, end), response in self.failures.items():
            if request.method == method and path.endswith(end):
                return response
        repository, kind, reference = _parsed(path)
        if kind == "uploads":
            return self._upload(request, repository, reference)
        if kind == "manifests":
            return self._manifest(request, repository, reference)
        there = self.blobs.get(repository, {}).get(reference)
        if there is None:
            return _error(404, "BLOB_UNKNOWN")
        return httpx.Response(
            200, headers={"Content-Length": str(len(there)), "Docker-Content-Digest": reference}
        )

    def _upload(self, request: httpx.Request, repository: str, session: str) -> httpx.Response:
        query = dict(request.url.params)
        if request.method == "POST":
            source = self.blobs.get(query.get("from", ""), {})
            if self.mounts and query.get("mount") in source:
                self.blobs.setdefault(repository, {})[query["mount"]] = source[query["mount"]]
                return httpx.Response(201, headers={"Docker-Content-Digest": query["mount"]})
            session = uuid.uuid4().hex
            self._uploads[session] = repository
            # Relative, and with a query of its own: both are allowed.
            return httpx.Response(
                202, headers={"Location": f"/v2/{repository}/blobs/uploads/{session}?state=begun"}
            )
        if self._uploads.get(session) != repository or query.get("state") != "begun":
            return _error(404, "BLOB_UPLOAD_UNKNOWN")
        body = request.read()
        if int(request.headers["Content-Length"]) != len(body):
            return _error(400, "SIZE_INVALID")
        if _digest(body) != query["digest"]:
            return _error(400, "DIGEST_INVALID")
        del self._uploads[session]
        self.blobs.setdefault(repository, {})[query["digest"]] = body
        return httpx.Response(201, headers={"Location": f"/v2/{repository}/blobs/{query['digest']}"})

    def _manifest(self, request: httpx.Request, repository: str, reference: str) -> httpx.Response:
        held = self.manifests.setdefault(repository, {})
        if request.method == "HEAD":
            if reference not in held:
                return _error(404, "MANIFEST_UNKNOWN")
            return httpx.Response(200, headers={"Docker-Content-Digest": _digest(held[reference])})
        body = request.read()
        told = json.loads(body)
        if request.headers["Content-Type"] != MANIFEST or told["mediaType"] != MANIFEST:
            return _error(400, "MANIFEST_INVALID")
        if reference.startswith("sha256:") and _digest(body) != reference:
            return _error(400, "DIGEST_INVALID")
        for part in [told["config"], *told["layers"]]:
            if len(self.blobs.get(repository, {}).get(part["digest"], b"")) != part["size"]:
                return _error(400, "MANIFEST_BLOB_UNKNOWN")
        held[reference] = held[_digest(body)] = body
        return httpx.Response(201, headers={"Docker-Content-Digest": _digest(body)})

    def _refusal(self, request: httpx.Request) -> httpx.Response | None:
        if self._password is None:
            return None
        given = request.headers.get("Authorization", "")
        if not self._bearer:
            if given == _basic(self._password):
                return None
            return _error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="registry"'})
        repository = _parsed(request.url.path)[0]
        if given == f"Bearer token-for-{repository}":
            return None
        challenge = f'Bearer realm="https://{request.url.host}/token",service="fake",scope="repository:{repository}:pull"'
        return _error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})

    def _token(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            form = dict(httpx.QueryParams(request.read().decode()))
            self.forms.append(form["grant_type"])
            self.scopes.append(form["scope"].split())
            fine = form["refresh_token"] == self._password
            answer = {"access_token": f"token-for-{_pushed_to(self.scopes[-1])}"}
        else:
            self.scopes.append(request.url.params.get_list("scope"))
            fine = request.headers.get("Authorization") == _basic(self._password or "")
            answer = {"token": f"token-for-{_pushed_to(self.scopes[-1])}"}
        return httpx.Response(200, json=answer) if fine else httpx.Response(401)


def _parsed(path: str) -> tuple[str, str, str]:
    for kind, mark in (("uploads", "/blobs/uploads/"), ("blobs", "/blobs/"), ("manifests", "/manifests/")):
        if mark in path:
            repository, _, reference = path.removeprefix("/v2/").partition(mark)
            return repository, kind, reference
    raise AssertionError(f"no client of a registry asks for {path}")


def _pushed_to(scopes: Iterable[str]) -> str:
    return next(scope.split(":")[1] for scope in scopes if scope.endswith(":pull,push"))


def _basic(password: str) -> str:
    return f"Basic {base64.b64encode(f'robot:{password}'.encode()).decode()}"


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _error(status: int, code: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(
        status, headers=headers, json={"errors": [{"code": code, "message": "as the test wants"}]}
    )
