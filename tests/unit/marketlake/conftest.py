import pytest
from marketlake.infrastructure.storage.stores import Lake
from obstore.store import LocalStore


@pytest.fixture
def lake(tmp_path):
    """A lake in a folder: the same tables, without a server."""
    folder = tmp_path / "lake"
    folder.mkdir()
    return Lake(str(folder), LocalStore(folder))
