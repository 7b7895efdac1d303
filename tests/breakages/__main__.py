"""Show that no promise is lost: each seeded breakage turns its test red. Usage: ``make breakages``."""

import argparse
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent

from tests.breakages.patches import CHECKOUT, FOLDER, Breakage, PatchError, read_all
from tests.breakages.trial import Trial, Verdict, try_breakage

HELD, NOT_HELD, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
_NO_FAILURE = (Verdict.RED, Verdict.NOT_RUN)
"""Verdicts that are no failure: the promise is held, or this machine cannot tell."""


def main(arguments: Sequence[str] | None = None, *, checkout: Path = CHECKOUT, folder: Path = FOLDER) -> int:
    """Try breakages and return the exit code.

    Args:
        arguments: of the command line.
        checkout: where the code and the tests are; it is only read.
        folder: where the patches are.
    """
    asked = _parser().parse_args(arguments)
    try:
        chosen = _chosen(read_all(folder), asked.only)
    except PatchError as error:
        sys.stderr.write(f"error: {error}\n")
        return WRONG_USE
    if asked.list:
        for breakage in chosen:
            print(f"{breakage.number}  {breakage.promise}\n    {breakage.red}")
        return HELD
    with _interruptible(), tempfile.TemporaryDirectory(prefix="brk-", ignore_cleanup_errors=True) as trees:
        Path(trees).chmod(0o711)
        try:
            trials = list(_tried(chosen, checkout, Path(trees), jobs=asked.jobs))
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; the copies of the checkout are removed\n")
            return INTERRUPTED
    counts = Counter(trial.verdict for trial in trials)
    print(", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]))
    return HELD if all(trial.verdict in _NO_FAILURE for trial in trials) else NOT_HELD


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make breakages",
        description="Break one promise at a time, in a copy of the checkout, and see whether its test turns red.",
        epilog="Exit codes: 0 each test that can run here turned red; 1 one did not, or a patch no longer "
        "applies; 2 wrong use; 130 interrupted.",
    )
    parser.add_argument("only", nargs="*", metavar="NN", help="numbers of breakages; all if none is given")
    parser.add_argument(
        "--jobs", type=_positive, default=1, metavar="N", help="how many at a time (default: 1)"
    )
    parser.add_argument("--list", action="store_true", help="show promises and tests, try nothing")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _chosen(known: Sequence[Breakage], only: Sequence[str]) -> list[Breakage]:
    wanted = {number.zfill(2) for number in only}
    if unknown := wanted - {breakage.number for breakage in known}:
        numbers = " ".join(breakage.number for breakage in known)
        raise PatchError(f"there is no breakage {', '.join(sorted(unknown))}; there are: {numbers}")
    return [breakage for breakage in known if not wanted or breakage.number in wanted]


def _tried(breakages: Sequence[Breakage], checkout: Path, trees: Path, *, jobs: int) -> Iterator[Trial]:
    """Try breakages and print a line for each; a KeyboardInterrupt passes once everything is cleared away."""
    stop = threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(try_breakage, one, checkout, trees / one.number, stop) for one in breakages]
        try:
            for count, future in enumerate(as_completed(futures), 1):
                trial = future.result()
                _print(trial, f"[{count:2}/{len(futures)}]")
                yield trial
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _print(trial: Trial, position: str) -> None:
    breakage = trial.breakage
    print(
        f"{position} {breakage.number} {trial.verdict:<14} {trial.seconds:4.0f} s  {breakage.promise}",
        flush=True,
    )
    if trial.detail:
        print(indent(f"{breakage.red}\n{trial.detail}", "        "), flush=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, and both as such even in a shell's background job, which ignores SIGINT."""
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in former:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
