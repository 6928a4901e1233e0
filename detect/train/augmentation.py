"""Augmentation of the pictures that detectors and MultiBox learn from: cuts, mirroring, exposure, size."""

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ...data import Picture


def augment(
    image: NDArray[np.uint8],
    picture: Picture,
    proposals: NDArray[np.float32],
    rng: np.random.Generator,
    long_sides: Sequence[int] | None = None,
) -> tuple[NDArray[np.uint8], Picture, NDArray[np.float32]]:
    """Cut a part out of half of the pictures, mirror half, change exposure, contrast and size of all.

    Each side of a part is half to all of the picture's. If there are objects, the centre of one is in the part. An
    object of which less than 0.6 is left becomes difficult: it is neither learned as an object nor as background.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
    picture : Picture
        Its objects.
    proposals : ndarray, shape (N, 4) or more columns, float32
        In pixels of the picture; those of which less than half is left are dropped. Further columns stay as they are.
    rng : numpy.random.Generator
    long_sides : sequence of int, optional
        The new picture's longer side is one of these, in pixels; default: no change of size.

    Returns
    -------
    image : ndarray, shape (h, w, 3), uint8
    picture : Picture
    proposals : ndarray, shape (M, 4) or more columns, float32
        All three of the new picture.

    Examples
    --------
    >>> from pathlib import Path
    >>> box, no = np.array([[10, 10, 50, 40]], np.float32), np.array([False])
    >>> picture = Picture("a", Path("a.jpg"), 80, 60, box, np.array([7]), no, no)
    >>> image, picture, _ = augment(np.zeros((60, 80, 3), np.uint8), picture, box, np.random.default_rng(0), [160])
    >>> image.shape[1] == picture.width, len(picture.boxes)
    (True, 1)
    """
    proposals, more = proposals[:, :4], proposals[:, 4:]
    if rng.random() < 0.5:
        image, picture, proposals, kept = _cut(image, picture, proposals, rng)
        more = more[kept]
    if rng.random() < 0.5:
        image = image[:, ::-1]
        picture = replace(picture, boxes=_mirror(picture.boxes, picture.width))
        proposals = _mirror(proposals, picture.width)
    # Exposure and contrast vary more between cameras than between 7,000 pictures.
    gain, offset = rng.uniform(0.8, 1.2), rng.uniform(-16, 16)
    image = np.clip(image.astype(np.float32) * gain + offset, 0, 255).astype(np.uint8)
    if long_sides is None:
        return image, picture, np.concatenate([proposals, more], axis=1)
    # Sides in whole multiples of 32: a few dozen shapes, for which convolution kernels are made once, instead of
    # thousands; and proportions off by up to 5 % are one more augmentation.
    factor = int(rng.choice(long_sides)) / max(picture.width, picture.height)
    width, height = (max(64, 32 * round(side * factor / 32)) for side in (picture.width, picture.height))
    stretch = np.array([width / picture.width, height / picture.height] * 2, np.float32)
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    picture = replace(picture, width=width, height=height, boxes=picture.boxes * stretch)
    return resized.astype(np.uint8, copy=False), picture, np.concatenate([proposals * stretch, more], axis=1)


def _mirror(boxes: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    return boxes[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32) + np.array([width, 0, width, 0], np.float32)


def _cut(
    image: NDArray[np.uint8], picture: Picture, proposals: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Picture, NDArray[np.float32], NDArray[np.bool_]]:
    width, height = (max(1, round(side * rng.uniform(0.5, 1))) for side in (picture.width, picture.height))
    x, y = int(rng.integers(picture.width - width + 1)), int(rng.integers(picture.height - height + 1))
    if len(picture.boxes):
        box = picture.boxes[rng.integers(len(picture.boxes))]
        middle = (box[:2] + box[2:]) / 2
        # Moved as little as brings the middle inside.
        x = int(np.clip(x, max(0, math.ceil(middle[0]) - width), min(middle[0], picture.width - width)))
        y = int(np.clip(y, max(0, math.ceil(middle[1]) - height), min(middle[1], picture.height - height)))
    window, corner = np.array([x, y, x + width, y + height], np.float32), np.array([x, y, x, y], np.float32)

    def inside(boxes: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        cut = np.clip(boxes, window[[0, 1, 0, 1]], window[[2, 3, 2, 3]])
        area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1e-6)
        return cut - corner, (cut[:, 2:] - cut[:, :2]).prod(1) / area

    boxes, share = inside(picture.boxes)
    left = share > 0
    part = replace(
        picture, width=width, height=height, boxes=boxes[left], labels=picture.labels[left], crowd=picture.crowd[left],
        difficult=picture.difficult[left] | (share[left] < 0.6),
    )  # fmt: skip
    regions, share = inside(proposals)
    kept = share >= 0.5
    return image[y : y + height, x : x + width], part, regions[kept], kept
