"""Crops: what R-CNN's warp does, by hand; and a model that scores them, the same in both engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from builders import noise_image, random_boxes

from inception_rcnn.backbone.preprocessing import CROP_SIDE, MEAN_BGR, crop_regions
from inception_rcnn.backbone.regions.placement import choose_placement

if TYPE_CHECKING:
    from inception_rcnn.backbone.weights.model_file import RegionModel

SCALE = 224 / 192


def naive_crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Bilinear samples at the centres of the crop's pixels, the mean colour outside, one pixel at a time."""
    height, width = image.shape[:2]
    crop = np.zeros((3, CROP_SIDE, CROP_SIDE))
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * SCALE
    normalised = image[:, :, ::-1] - MEAN_BGR
    for i in range(CROP_SIDE):
        for j in range(CROP_SIDE):
            x = centre[0] - half[0] + (j + 0.5) / CROP_SIDE * 2 * half[0] - 0.5
            y = centre[1] - half[1] + (i + 0.5) / CROP_SIDE * 2 * half[1] - 0.5
            for u in (int(np.floor(x)), int(np.floor(x)) + 1):
                for v in (int(np.floor(y)), int(np.floor(y)) + 1):
                    if 0 <= u < width and 0 <= v < height:
                        crop[:, i, j] += normalised[v, u] * (1 - abs(x - u)) * (1 - abs(y - v))
    return crop


@pytest.mark.parametrize("box", [[10, 20, 60, 50], [0, 0, 80, 60], [70.3, -5, 95.5, 30.25]])
def test_crops_are_bilinear_samples_with_context(box: list[float]) -> None:
    rng = np.random.default_rng(0)
    # Smooth: OpenCV places its samples to a 32nd of a pixel.
    coarse = rng.integers(0, 256, (6, 8, 3))
    image = np.repeat(np.repeat(coarse, 10, 0), 10, 1).astype(np.float32)
    for axis in (0, 1):
        image = np.mean([np.roll(image, shift, axis) for shift in range(-6, 7)], axis=0)
    image = image.astype(np.uint8)
    crop = crop_regions(image, np.float32([box]))[0]
    assert crop.dtype == np.float32
    difference = np.abs(crop - naive_crop(image, np.float32(box)))
    assert difference.mean() < 0.5  # of bytes
    # Where the picture ends a 32nd of a pixel is a 32nd of the way to the mean colour.
    assert difference.max() < 130 / 32 * 2 + 2


def test_the_box_fills_the_middle_192_pixels() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    image[40:120, 100:220] = [255, 128, 0]
    crop = crop_regions(image, np.float32([[100, 40, 220, 120]]))[0] + MEAN_BGR[:, None, None]
    inside = crop[:, 17:207, 17:207]
    np.testing.assert_allclose(inside, np.broadcast_to(np.float32([0, 128, 255])[:, None, None], inside.shape), atol=1)
    np.testing.assert_allclose(crop[:, :15], 0, atol=1e-3)
    np.testing.assert_allclose(crop[:, :, 209:], 0, atol=1e-3)


def test_outside_the_picture_is_the_mean_colour() -> None:
    crop = crop_regions(np.full((50, 50, 3), 255, np.uint8), np.float32([[0, 0, 50, 50]]))[0]
    assert not crop[:, :13].any()
    assert not crop[:, :, :13].any()
    np.testing.assert_allclose(crop[:, 112, 112], 255 - MEAN_BGR)


@pytest.fixture(scope="module")
def model() -> RegionModel:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from random_model import CLASSES, random_network

    from inception_rcnn.backbone.export.graphs import to_model

    return to_model(random_network(parts=False), CLASSES, long_side=128, scoring="crops")


@pytest.mark.slow
def test_both_engines_score_crops_alike_and_as_the_network_does(model: RegionModel) -> None:
    import torch
    from random_model import random_network

    from inception_rcnn.backbone.regions.onnx_engine import CROPS
    from inception_rcnn.backbone.regions.placement import choose_placement
    from inception_rcnn.backbone.regions.scorer import RegionScorer

    image, boxes = noise_image(3, 120, 90), random_boxes(CROPS + 3, 120, 90, seed=3)
    found = RegionScorer(model, choose_placement("cpu", threads=1))(image, boxes)
    others = RegionScorer(model, choose_placement("cpu", engine="torch"))(image, boxes)
    network = random_network(parts=False)
    with torch.inference_mode():
        logits, deltas, _ = network.score_crops(network.trunk(torch.from_numpy(crop_regions(image, boxes))))
    assert found[0].std(axis=0).min() > 1e-3
    # float16 weights in the model.
    np.testing.assert_allclose(found[0], logits.softmax(1).numpy(), atol=2e-3)
    np.testing.assert_allclose(found[1], deltas.numpy(), atol=2e-3)
    for ours, theirs in zip(found, others, strict=True):
        assert ours.dtype == np.float32
        # Where OpenCV rounds a half up and torch down, a pixel is one grey level off.
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_no_boxes(model: RegionModel) -> None:
    from inception_rcnn.backbone.regions.scorer import RegionScorer

    probabilities, deltas = RegionScorer(model, choose_placement("cpu", threads=1))(
        np.zeros((20, 30, 3), np.uint8), np.zeros((0, 4), np.float32)
    )
    assert (probabilities.shape, deltas.shape) == ((0, 4), (0, 3, 4))
