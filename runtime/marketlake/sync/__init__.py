"""S3 → S3: copies whose checksum is proven while they stream."""

from marketlake.sync.copy import CopiedObject, copy_file, landing_key
from marketlake.sync.errors import SyncError, VenueError
from marketlake.sync.limits import HostLimiter
from marketlake.sync.transport import Timeouts

__all__ = [
    "CopiedObject",
    "HostLimiter",
    "SyncError",
    "Timeouts",
    "VenueError",
    "copy_file",
    "landing_key",
]
