"""kr8s, the client of the Kubernetes API: how the platform connects, and what it reports where that fails."""

import asyncio
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import kr8s
from kr8s.asyncio import Api

from marketlake.infrastructure.kubernetes.errors import ClusterApiError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts a pod's token and the certificate of the API server's authority."""


async def connect(
    *,
    kubeconfig: str | None = None,
    context: str | None = None,
    namespace: str | None = None,
    connect_timeout_s: float,
    timeout_s: float,
) -> Api:
    """Return the API of the cluster that a kubeconfig file names.

    Args:
        kubeconfig: the file; the one that kubectl would read where it is None.
        context: of the file; its current one where it is None.
        namespace: that requests without a namespace of their own are about; the context's where it is None.
        connect_timeout_s: seconds to connect within.
        timeout_s: seconds that a request may wait for each part of its answer.

    Raises:
        ClusterApiError: the file names no such cluster, or the cluster does not answer.
    """
    try:
        async with asyncio.timeout(connect_timeout_s):
            with warnings.catch_warnings():
                # of a version that is younger than kr8s; the platform uses few of its APIs, all of them stable
                warnings.filterwarnings("ignore", message=".*Kubernetes version", category=UserWarning)
                api = await kr8s.asyncio.api(kubeconfig=kubeconfig, context=context, namespace=namespace)
    except TimeoutError as error:
        raise ClusterApiError(f"no answer within {connect_timeout_s:g} s") from error
    except Exception as error:  # kr8s lets its parser's, its HTTP client's and the system's errors through
        raise ClusterApiError(_reason(error)) from error
    api.timeout = timeout_s
    return api


def within_pod(namespace: str, *, timeout_s: float, account: Path = SERVICE_ACCOUNT) -> Api:
    """Return the API of the cluster that this process runs in, for the pod's service account.

    Nothing is asked of the API yet. It takes any number of requests at a time, and no proxy from the environment.

    Args:
        namespace: that requests without a namespace of their own are about.
        timeout_s: seconds that a request may wait for each part of its answer.
        account: folder of the account's token and of the authority's certificate.

    Raises:
        ClusterApiError: the process runs in no pod, or in one without a service account.
    """
    if "KUBERNETES_SERVICE_HOST" not in os.environ or not (account / "ca.crt").exists():
        raise ClusterApiError("this is no pod with a service account")
    return _PodApi(namespace, timeout_s, account)


async def listed(api: Api, version: str, kind: str, *, labels: str) -> list[Mapping[str, Any]]:
    """Return the objects of a kind in the API's namespace.

    Args:
        api: of the cluster.
        version: with its group: ``v1``, ``apps/v1``.
        kind: in lower case and plural, as in the API's paths.
        labels: selector of the objects.

    Raises:
        ClusterApiError: the API does not answer, or refuses.
    """
    with reported(f"{kind} of {api.namespace} cannot be listed"):
        async with api.call_api(
            "GET", version=version, namespace=api.namespace, url=kind, params={"labelSelector": labels}
        ) as answer:
            return list(answer.json()["items"])


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Raise what a request fails with as a :class:`ClusterApiError` that begins with `what`."""
    try:
        yield
    except (
        kr8s.ServerError,
        kr8s.APITimeoutError,
        kr8s.ConnectionClosedError,
        httpx.HTTPError,
        OSError,
        ValueError,
        LookupError,
    ) as error:
        raise ClusterApiError(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


class _PodApi(Api):
    """kr8s' API with one session for as long as the pod lives.

    kr8s would open a session with the token as it is then and for 100 requests at a time, and would close it, with
    every stream on it, whenever the API server refuses one request.
    """

    def __init__(self, namespace: str, timeout_s: float, account: Path) -> None:
        super().__init__(
            bypass_factory=True,
            namespace=namespace,
            serviceaccount=str(account),
            kubeconfig=str(account / "kubeconfig"),  # which is missing: else kr8s prefers one of HOME's
        )
        self.timeout = timeout_s
        self._token = account / "token"

    async def _create_session(self) -> None:
        if self._session is not None:
            return  # kr8s asks for another after a 401 or 403: the token is read for each request anyway
        await self.auth
        verified = await self.auth.ssl_context()  # type: ignore[no-untyped-call]
        if self._session is None:  # of requests that begin at once, one opens it
            self._session = httpx.AsyncClient(
                base_url=self.auth.server,
                verify=verified,
                auth=self._authorized,
                timeout=self.timeout,
                limits=httpx.Limits(max_connections=None),
                trust_env=False,
            )

    def _authorized(self, request: httpx.Request) -> httpx.Request:
        """Sign a request with the token as it is now: the kubelet renews it."""
        request.headers["Authorization"] = f"Bearer {self._token.read_text().strip()}"
        return request
