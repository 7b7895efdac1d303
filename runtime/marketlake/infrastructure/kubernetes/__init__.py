"""Kubernetes: its notation of quantities."""

from marketlake.infrastructure.kubernetes.quantities import quantity

__all__ = ["quantity"]
