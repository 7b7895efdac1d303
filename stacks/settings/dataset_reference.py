"""docs/datasets.md, written from the runtime's data contracts: `make reference`."""

from marketlake.domain.venue import installed_venues
from marketlake.pipeline.contracts.page import datasets_page
from marketlake.pipeline.contracts.tables import contracts

from stacks.settings.reference import REFERENCE

DATASETS = REFERENCE.parents[1] / "datasets.md"


def datasets_reference() -> str:
    """The page, as Markdown."""
    venues = [venue() for _, venue in sorted(installed_venues().items())]
    return datasets_page(contracts(), (dataset for venue in venues for dataset in venue.datasets()))
