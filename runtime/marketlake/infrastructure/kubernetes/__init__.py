"""Kubernetes: its notation of quantities, and how its API fails.

Whoever asks the API imports :mod:`marketlake.infrastructure.kubernetes.client`, and with it a client that takes a
second to import.
"""

from marketlake.infrastructure.kubernetes.errors import ClusterApiError
from marketlake.infrastructure.kubernetes.quantities import quantity

__all__ = ["ClusterApiError", "quantity"]
