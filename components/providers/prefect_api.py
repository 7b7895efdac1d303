"""Prefect's REST API, as far as work pools and deployments need it."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from components.providers.base import ResourceError
from components.providers.connections import WorkflowEngineConnection
from components.providers.waiting import NotReady, wait_for

_STARTING = frozenset({500, 502, 503, 504})
"""Also 500: so Prefect answers while its database is away."""


class PrefectApi:
    """A session with a Prefect server that waits while it starts."""

    def __init__(self, connection: WorkflowEngineConnection, timeout_s: float) -> None:
        user, _, password = (connection.auth_string or "").partition(":")
        self._url = connection.api_url.rstrip("/")
        self._timeout_s = timeout_s
        self._client = httpx.Client(
            auth=httpx.BasicAuth(user, password) if connection.auth_string else None,
            timeout=httpx.Timeout(30.0, connect=3.0),
            trust_env=False,  # a proxy of the environment knows nothing of a server on loopback
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str) -> dict[str, Any] | None:
        """The object at `path`; None where there is none.

        Raises:
            UnreachableError: the server does not answer.
            ResourceError: it refuses.
        """
        answer = self._send("GET", path, None)
        return None if answer.status_code == httpx.codes.NOT_FOUND else _object(self._accepted(answer))

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Create or find an object; None if one of its name exists already (409). Raises as :meth:`get`."""
        answer = self._send("POST", path, body)
        return None if answer.status_code == httpx.codes.CONFLICT else _object(self._accepted(answer))

    def patch(self, path: str, body: Mapping[str, Any]) -> None:
        """Change an object. Raises as :meth:`get`."""
        self._accepted(self._send("PATCH", path, body))

    def delete(self, path: str) -> None:
        """Delete an object; it may be gone already. Raises as :meth:`get`."""
        answer = self._send("DELETE", path, None)
        if answer.status_code != httpx.codes.NOT_FOUND:
            self._accepted(answer)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        def attempt() -> httpx.Response:
            try:
                answer = self._client.request(method, f"{self._url}{path}", json=body)
            except httpx.TransportError as error:
                raise NotReady(type(error).__name__) from None
            if answer.status_code in _STARTING:
                raise NotReady(f"HTTP {answer.status_code}")
            return answer

        return wait_for(attempt, server=f"The workflow engine at {self._url}", timeout_s=self._timeout_s)

    def _accepted(self, answer: httpx.Response) -> httpx.Response:
        if answer.is_success:
            return answer
        request = f"{answer.request.method} {answer.request.url.path}"
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise ResourceError(
                f"The workflow engine at {self._url} refuses {request} (HTTP 401): its authentication string "
                "is not the recorded one. Run `pulumi up --refresh`."
            )
        raise ResourceError(
            f"The workflow engine at {self._url} answers {request} with HTTP {answer.status_code}: "
            f"{_detail(answer)[:500]}"
        )


def _detail(answer: httpx.Response) -> str:
    """What Prefect says in words, or whatever it says."""
    try:
        body = answer.json()
    except ValueError:
        return answer.text
    detail = body.get("detail") if isinstance(body, dict) else None
    return detail if isinstance(detail, str) else answer.text


def _object(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    if not isinstance(body, dict):
        raise ResourceError(
            f"{answer.request.url.path} answers with {type(body).__name__} where an object belongs."
        )
    return body
