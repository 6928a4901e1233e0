"""What the tests of pages share."""

from pathlib import Path

import pytest
from finished_run import make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of five pictures, with names that are hard to link to."""
    return make_run(tmp_path / "run")
