"""Paths in a pod, and keys in its Secret."""

from pathlib import PurePosixPath

FILES = PurePosixPath("/etc/marketlake")
VOLUMES = PurePosixPath("/var/lib/marketlake")
LOGS = PurePosixPath("/var/log/marketlake")
TEMPORARY = PurePosixPath("/tmp")  # noqa: S108 - a pod's /tmp is its own
SECRET_FILE, SECRET_VARIABLE = "file.", "env."
"""Prefixes of the keys in a service's Secret: by a file's name, by an environment variable's."""
NAMESPACE_VARIABLE = "NAMESPACE"
"""Tells its own namespace to whatever works with the API; later variables may take it up as ``$(NAMESPACE)``."""
