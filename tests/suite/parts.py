"""The parts that the tests consist of: what each runs, how, beside which others, and what it may cost."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Tests that one run of pytest collects."""

    name: str
    folders: tuple[str, ...]
    budget_min: float
    """Minutes that it may take on two cores with warm caches, beside another part."""
    options: tuple[str, ...] = ()
    measured: bool = True
    """Whether `--coverage` measures what it covers."""

    def command(self, *, report: str, seed: int, coverage: bool) -> tuple[str, ...]:
        """Arguments of Python.

        Args:
            report: file that gets the outcome and the time of each test (JUnit's format).
            seed: of the order in which the tests run, where that is shuffled, and of the chaos.
            coverage: measure what the tests cover.
        """
        shuffled = (f"--random-order-seed={seed}",) if "--random-order" in self.options else ()
        return (
            *(("-m", "coverage", "run") if coverage and self.measured else ()),
            *("-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}"),
            *self.options,
            *shuffled,
            f"--chaos-seed={seed}",
            *(f"tests/{folder}" for folder in self.folders),
        )


UNIT = Part(
    name="unit",
    folders=("unit", "policies", "golden"),
    options=("-q", "-n", "logical", "--dist", "worksteal", "--random-order"),
    budget_min=6,
)
INTEGRATION = Part(
    name="integration",
    folders=("airgap", "integration"),
    # Most of it is waiting for servers. Each worker starts servers of its own.
    options=("-v", "-n", "3", "--dist", "loadfile"),
    budget_min=13,
)
STACK = Part(name="stack", folders=("stack",), options=("-v",), budget_min=9, measured=False)
KUBERNETES = Part(name="kubernetes", folders=("kubernetes",), options=("-v",), budget_min=22, measured=False)

ORDER = (STACK, KUBERNETES, INTEGRATION, UNIT)
"""The order in which parts begin; :data:`BESIDE` run beside each other, and the next begins when one has ended.

The stack goes first, since the goal of the cluster's first collection is a multiple of the host's time; beside it the
cluster, which waits the most. Integration tests follow while the node still has its packet filter, which some need.
"""
BESIDE = 2
PARTS = {part.name: part for part in ORDER}


def parts_of(names: frozenset[str]) -> list[Part]:
    """The named parts, in their order."""
    return [part for part in ORDER if part.name in names]
