"""What Pulumi starts when a program uses the package ``marketlake``: PulumiPlugin.yaml leads here."""

import sys

from pulumi.provider import main

from components.package import Package

if __name__ == "__main__":
    main(Package(), sys.argv[1:])
