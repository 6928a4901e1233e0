"""What the tests of the pipeline share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from inception_rcnn.detect import Detector


@pytest.fixture
def detector(model_file: Path) -> Detector:
    """A detector that finds something, nothing sensible, everywhere, and does so fast."""
    from inception_rcnn.detect import Detector

    made = Detector.load(model_file, device="cpu", threads=1, method="selective-search", proposals=12)
    made.proposer = dataclasses.replace(made.proposer, mode="single")
    return made


def random_picture(seed: int, width: int = 120, height: int = 90) -> np.ndarray:
    """Rectangles on a ramp, with a little noise."""
    rng = np.random.default_rng(seed)
    image = np.linspace(60, 160, width)[None, :, None] + np.zeros((height, width, 3))
    for _ in range(4):
        x, y = rng.integers(0, [width - 30, height - 30])
        w, h = rng.integers(20, 60, 2)
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def picture() -> Callable[..., np.ndarray]:
    """Function that makes the picture of a seed."""
    return random_picture


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Folder of five pictures in several formats and folders, two of them with the same stem."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for seed, name in enumerate(["a.jpg", "b.png", "c.JPG", "sub/a.jpg", "sub/d.jpeg"]):
        Image.fromarray(random_picture(seed, 100 + 10 * seed, 90)).save(folder / name, quality=95)
    return folder
