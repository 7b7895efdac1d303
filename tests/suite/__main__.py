"""``python -m tests.suite``: run parts of the tests beside each other, and end with what came of them."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.suite.parts import BESIDE, PARTS, Part, parts_of
from tests.suite.report import Outcome, cases_of, summary
from tests.suite.shared import VARIABLE

PROJECT = Path(__file__).resolve().parents[2]
POLL_S, TOLD_S = 0.2, 60.0
LEAST_COVERED = 95


@dataclass(frozen=True, slots=True)
class Running:
    """A part that runs, and where it writes."""

    part: Part
    process: "subprocess.Popen[bytes]"
    began: float
    log: Path
    report: Path

    def doing(self) -> str:
        """The last line that it wrote."""
        lines = self.log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "starting")

    def outcome(self) -> Outcome:
        """What came of it, once it has ended; its output is written out."""
        took = time.monotonic() - self.began
        say(f"\n===== {self.part.name}: {took:.0f} s =====", self.log.read_text(errors="replace"))
        return Outcome(
            name=self.part.name,
            seconds=took,
            budget_s=self.part.budget_min * 60,
            code=self.process.wait(),
            cases=cases_of(self.report),
        )


def run(parts: Iterable[Part], *, folder: Path, seed: int, coverage: bool) -> list[Outcome]:
    """Run the parts, some beside each other, until all have ended."""
    waiting = list(parts)
    running: list[Running] = []
    outcomes: list[Outcome] = []
    told = time.monotonic()
    with interruptible(running):
        while running or waiting:
            for each in [each for each in running if each.process.poll() is not None]:
                running.remove(each)
                outcomes.append(each.outcome())
            while waiting and len(running) < BESIDE:
                running.append(start(waiting.pop(0), folder=folder, seed=seed, coverage=coverage))
            if time.monotonic() - told > TOLD_S:
                told = time.monotonic()
                say(*(f"{each.part.name}, {told - each.began:.0f} s: {each.doing()}" for each in running))
            time.sleep(POLL_S)
    return outcomes + [each.outcome() for each in running]


@contextmanager
def interruptible(running: Iterable[Running]) -> Iterator[None]:
    """Let the parts take down what they made when the run is interrupted, and wait for them."""

    def pass_on(_number: int, _frame: object) -> None:
        for each in running:
            each.process.send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    except KeyboardInterrupt:  # Ctrl-C reaches the parts, too
        for each in running:
            each.process.wait()


def start(part: Part, *, folder: Path, seed: int, coverage: bool) -> Running:
    """Start pytest for a part."""
    log, report = folder / f"{part.name}.log", folder / f"{part.name}.xml"
    command = part.command(report=str(report), seed=seed, coverage=coverage)
    say(f"{part.name}: python {' '.join(command)}")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=PROJECT,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Running(part, process, time.monotonic(), log, report)


def environment(folder: Path) -> dict[str, str]:
    """The variables of a part.

    Tests start some hundred Pythons, each of which would compile what it imports where none may keep it.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, VARIABLE: str(folder)}


def covered() -> bool:
    """Whether the tests covered enough; what they did not is written out."""
    cover = (sys.executable, "-m", "coverage")
    subprocess.run([*cover, "combine", "--quiet"], cwd=PROJECT, check=True)
    report = subprocess.run([*cover, "report", f"--fail-under={LEAST_COVERED}"], cwd=PROJECT, check=False)
    return report.returncode == 0


def say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def step(text: str) -> tuple[str, float]:
    """A step that was taken before, as ``NAME=SECONDS``."""
    name, _, seconds = text.partition("=")
    return name, float(seconds)


def arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m tests.suite", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; all if omitted")
    parser.add_argument(
        "--coverage", action="store_true", help=f"fail if less than {LEAST_COVERED} %% is covered"
    )
    drawn = random.randrange(1_000_000)  # noqa: S311 - to be repeated, not to be secret
    parser.add_argument("--seed", type=int, default=drawn, help="of the shuffled order and the chaos")
    parser.add_argument(
        "--slowest", type=int, default=30, metavar="N", help="list so many of the slowest tests"
    )
    parser.add_argument(
        "--before",
        type=step,
        action="append",
        default=[],
        metavar="NAME=SECONDS",
        help="a step to list as well",
    )
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    return given


def main() -> int:
    given = arguments()
    if given.coverage:
        subprocess.run([sys.executable, "-m", "coverage", "erase"], cwd=PROJECT, check=True)
    psutil.cpu_percent()  # from here on
    with tempfile.TemporaryDirectory(prefix="marketlake-tests-") as folder:
        parts = parts_of(frozenset(given.parts or PARTS))
        outcomes = run(parts, folder=Path(folder), seed=given.seed, coverage=given.coverage)
    busy = psutil.cpu_percent() / 100
    enough = covered() if given.coverage else True
    say(*summary(outcomes, before=given.before, seed=given.seed, slowest=given.slowest, busy=busy))
    return 0 if enough and all(outcome.code == 0 for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
