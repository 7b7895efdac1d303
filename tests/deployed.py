"""The platform's own worker on servers, as `pulumi up` deploys it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marketlake.settings import PLATFORM_FILE_VARIABLE, Settings, VenueEndpoint

from components import worker_pool
from components.providers.bucket import Access, BucketInputs, BucketProvider
from components.providers.connections import ObjectStoreConnection
from tests import servers
from tests.provisioning import own_buckets, own_topics


@dataclass(frozen=True)
class Deployed:
    """A provisioned platform with a worker, and the command line that talks to it."""

    settings: Settings
    platform_file: Path
    worker: servers.Server

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The command in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", "from marketlake.cli import main; main()", *arguments],
            env=os.environ | {PLATFORM_FILE_VARIABLE: str(self.platform_file)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, expect: int = 0) -> str:
        """The command's output; fails unless it exits with `expect`."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=240)
        assert process.returncode == expect, f"exit code {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err
        return out + err if expect else out

    def json(self, *arguments: str, expect: int = 0) -> Any:
        """The command's JSON output."""
        process = self.start(*arguments, "--json")
        out, err = process.communicate(timeout=240)
        assert process.returncode == expect, f"exit code {process.returncode}\n{out}\n{err}"
        return json.loads(out)


@contextmanager
def deployed(settings: Settings, folder: Path, name: str) -> Iterator[Deployed]:
    """Buckets, topics and a worker on servers that run already.

    Args:
        settings: the servers; its database is used as it is.
        folder: for the worker's data.
        name: of the platform, unique in the folder.
    """
    store = own_buckets(settings.object_store)
    stand_in = store.lake_bucket.replace("lake", "venue")
    BucketProvider().apply(
        BucketInputs(
            version="test",
            connection=ObjectStoreConnection(
                endpoint=store.endpoint,
                region=store.region,
                access_key_id=store.access_key_id,
                secret_access_key=store.secret_access_key.get_secret_value(),
            ),
            bucket=stand_in,
            access=Access.PUBLIC_READ,
        )
    )
    own = settings.model_copy(
        update={
            "object_store": store,
            "event_bus": own_topics(settings.event_bus),
            "venues": {"binance": VenueEndpoint(endpoint=store.endpoint, bucket=stand_in)},
        }
    )
    platform_file = folder / f"{name}.json"
    platform_file.write_text(own.to_json())
    platform_file.chmod(0o600)
    with servers.run(
        worker_pool.collection_worker_service(replicas=1),
        folder,
        inputs={"environment": own.environment},
        secrets={"settings": own.to_json()},
    ) as worker:
        yield Deployed(own, platform_file, worker)
