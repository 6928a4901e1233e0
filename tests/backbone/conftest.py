"""What the backbone's tests share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from inception_rcnn.backbone.weights.model_file import RegionModel


@pytest.fixture(scope="session")
def region_model(model_file: Path) -> RegionModel:
    """The same, read back."""
    from inception_rcnn.backbone.weights.model_file import read_model

    return read_model(model_file)
