"""What the tests of the pipeline share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from builders import random_image, write_image

if TYPE_CHECKING:
    from inception_rcnn.detect import Detector


@pytest.fixture
def detector(model_file: Path) -> Detector:
    """A detector that finds something, nothing sensible, everywhere, and does so fast."""
    from inception_rcnn.detect import Detector

    made = Detector.load(model_file, device="cpu", threads=1, method="selective-search", proposals=12)
    made.proposer = dataclasses.replace(made.proposer, mode="single")
    return made


@pytest.fixture
def picture() -> Callable[..., np.ndarray]:
    """Function that makes the picture of a seed."""
    return random_image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Folder of five pictures in several formats and folders, two of them with the same stem."""
    folder = tmp_path / "photos"
    for seed, name in enumerate(["a.jpg", "b.png", "c.JPG", "sub/a.jpg", "sub/d.jpeg"]):
        write_image(folder / name, random_image(seed, 100 + 10 * seed, 90), quality=95)
    return folder
