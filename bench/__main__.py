"""The figures of the README, on this machine: ``python -m bench [NAME…]``, all if none is named."""

import sys

from bench import cluster, collection, daily, history, plans, platform, zip_to_bronze

BENCHES = {
    "collection": collection.run,
    "many-files": collection.run_many,
    "daily": daily.run,
    "history": history.run,
    "plans": plans.run,
    "zip-to-bronze": zip_to_bronze.run,
    "platform": platform.run,
    "cluster": cluster.run,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"there is no bench {', '.join(unknown)}; there are: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    print(f"machine: {platform.machine()}")
    for name in names or BENCHES:
        print()
        BENCHES[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
