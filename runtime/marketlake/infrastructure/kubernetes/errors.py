"""What the Kubernetes API is reported with when it fails."""

from marketlake.errors import MarketlakeError


class ClusterApiError(MarketlakeError):
    """The Kubernetes API does not answer, or refuses."""

    code = "cluster-api"
    transient = True
