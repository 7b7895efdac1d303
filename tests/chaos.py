"""What no crash may break, tried for longer than CI does. Usage: ``make chaos``."""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.breakages.patches import CHECKOUT


@dataclass(frozen=True, slots=True)
class Target:
    """What is tried."""

    tests: tuple[str, ...]
    """Arguments of pytest."""
    option: str
    """Says how often."""
    rounds: int
    """How often, unless told otherwise."""


TARGETS = {
    "commits": Target(
        ("-q", "-n", "2", "tests/integration/test_commit_schedules.py"), "--chaos-schedules", 10_000
    ),
    "kills": Target(("-s", "tests/integration/test_kills.py"), "--chaos-kills", 200),
    "stack": Target(("-v", "tests/stack", "-k", "kill_in_the_middle"), "--chaos-rounds", 10),
    "kubernetes": Target(("-v", "tests/kubernetes", "-k", "kill_in_the_middle"), "--chaos-rounds", 10),
}
BY_DEFAULT = ("commits", "kills", "stack")


def main(arguments: Sequence[str] | None = None) -> int:
    """Try one target after another; return 0 if all is well."""
    asked = _parser().parse_args(arguments)
    print(f"seed {asked.seed}", flush=True)
    failed = False
    for name in [asked.target] if asked.target else BY_DEFAULT:
        began = time.monotonic()
        code = subprocess.call(command(TARGETS[name], seed=asked.seed, rounds=asked.rounds), cwd=CHECKOUT)
        failed = failed or code != 0
        print(f"{name}: {'failed' if code else 'passed'} in {time.monotonic() - began:.0f} s", flush=True)
    return int(failed)


def command(target: Target, *, seed: int, rounds: int | None) -> list[str]:
    """The command that tries a target."""
    times = target.rounds if rounds is None else rounds
    return [
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *target.tests),
        *(f"{target.option}={times}", f"--chaos-seed={seed}"),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("target", nargs="?", choices=TARGETS, help=f"by default {', '.join(BY_DEFAULT)}")
    parser.add_argument("--rounds", type=int, help="schedules, kills, or collections that are killed into")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="repeats what was drawn")
    return parser


if __name__ == "__main__":
    sys.exit(main())
