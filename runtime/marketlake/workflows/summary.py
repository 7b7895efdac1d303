"""The summary on the run's page in Prefect."""

from collections.abc import Sequence
from uuid import UUID

from marketlake.archive.collection.batches import Failure, Progress

_SHOWN = 100


def markdown(batch_id: UUID, progress: Progress, failures: Sequence[Failure]) -> str:
    """Return the counts as a table, and the files that failed with what to do about each."""
    counts = (
        ("files found", progress.found),
        ("copied", progress.copied),
        ("verified", progress.verified),
        ("skipped, in already", progress.skipped),
        ("failed", progress.failed),
        ("bytes copied", progress.size),
        ("rows written to bronze", progress.rows),
        ("rows quarantined", progress.quarantined),
        ("rows of rewritten silver days", progress.refined_rows),
    )
    lines = [f"## Collection {batch_id}", "", "| | |", "|---|---:|"]
    lines += [f"| {name} | {count:,} |" for name, count in counts]
    if failures:
        lines += [
            "",
            "### Failed files",
            "",
            "| file | error | what happened, and what to do |",
            "|---|---|---|",
        ]
        lines += [
            f"| `{failure.key}` | {failure.code} | {_cell(failure.message)} |"
            for failure in failures[:_SHOWN]
        ]
    if len(failures) > _SHOWN:
        lines.append(f"\n… and {len(failures) - _SHOWN} more.")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
