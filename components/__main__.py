"""What Pulumi starts when a program uses the package ``marketlake``: PulumiPlugin.yaml leads here."""

import sys

from pulumi.provider import main

from components.package import Package
from components.providers.orphan import end_with_engine

if __name__ == "__main__":
    end_with_engine()
    main(Package(), sys.argv[1:])
