"""What the benchmarks of scoring work on, and how much work it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inception_rcnn.data import ImageError, find_images

if TYPE_CHECKING:
    import torch

__all__ = ["count_work", "find_pictures", "sample_boxes", "sample_files", "sample_image"]

WIDTH, HEIGHT = 500, 375


def sample_image() -> NDArray[np.uint8]:
    """Return a picture of 500x375 pixels; what is in it does not matter to the speed."""
    patches = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(patches, (WIDTH, HEIGHT)), np.uint8)


def sample_boxes(number: int) -> NDArray[np.float32]:
    """Return regions (number, 4) of that picture."""
    corners = np.random.default_rng(0).uniform(0, [WIDTH, HEIGHT], (number, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1) + 20], axis=1)
    return boxes.astype(np.float32).clip(0, [WIDTH, HEIGHT] * 2).astype(np.float32)


def sample_files() -> list[str]:
    """Return the photographs that come with scikit-image."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [str(folder / f"{name}.png") for name in ("chelsea", "astronaut", "motorcycle_left")]


def find_pictures(names: list[str]) -> list[Path]:
    """Find the files to run on, the sample photographs if none are named; what is wrong ends the program."""
    try:
        return find_images(names or sample_files())
    except ImageError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def count_work(network: torch.nn.Module, call: Callable[[], Any]) -> tuple[float, float]:
    """Count what the convolutions and matrix products of a call do.

    Returns
    -------
    operations, numbers : float
        Multiplications and additions; numbers read and written, weights not counted.
    """
    import torch

    operations = numbers = 0.0

    def count(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal operations, numbers
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            operations += 2.0 * output.numel() * module.weight[0].numel()
            numbers += inputs[0].numel() + output.numel()

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    with torch.inference_mode():
        call()
    for hook in hooks:
        hook.remove()
    return operations, numbers
