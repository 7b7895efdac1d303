"""kr8s, the client with which the platform looks at a cluster beside Pulumi."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def any_version() -> Iterator[None]:
    """Connect without a warning of each Kubernetes that is younger than kr8s; the platform asks for little."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Kubernetes version", category=UserWarning)
        yield
