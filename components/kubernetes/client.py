"""kr8s, the client that reads a cluster beside Pulumi."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def any_version() -> Iterator[None]:
    """Connect without kr8s' warning about newer versions of Kubernetes: the platform uses few of its APIs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Kubernetes version", category=UserWarning)
        yield
