"""What the backbone's tests share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from inception_rcnn.backbone.model_file import RegionModel


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written region model with random weights."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from random_model import random_model

    from inception_rcnn.backbone.model_file import write_model

    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    write_model(path, random_model())
    return path


@pytest.fixture(scope="session")
def region_model(model_file: Path) -> RegionModel:
    """The same, read back."""
    from inception_rcnn.backbone.model_file import read_model

    return read_model(model_file)
