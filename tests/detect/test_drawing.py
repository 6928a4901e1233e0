"""Drawn detections: what is drawn, where, and that labels can be read."""

from __future__ import annotations

import numpy as np
import pytest
from builders import make_detections, noise_image

from inception_rcnn.data import Detections
from inception_rcnn.detect.drawing import class_colour, draw_detections

CLASSES = ("cat", "dog")


def detections(*rows: tuple[float, float, float, float], scores: list[float] | None = None) -> Detections:
    count = len(rows)
    return make_detections(rows, [0.9] * count if scores is None else scores, np.arange(count) % 2, CLASSES)


def drawn(image: np.ndarray, found: Detections, min_score: float = 0.5) -> np.ndarray:
    picture = draw_detections(image, found, min_score)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def ink(image: np.ndarray) -> int:
    """Brightness of the text: of all that is drawn only white has all three channels."""
    return int(np.maximum(image.min(-1).astype(int) - 30, 0).sum())


def test_nothing_below_the_score_and_the_original_untouched() -> None:
    image = noise_image(0, 150, 100)
    before = image.copy()
    found = detections((10, 10, 60, 60), (20, 20, 90, 90), scores=[0.49, 0.2])
    np.testing.assert_array_equal(drawn(image, found), image)
    changed = drawn(image, found, min_score=0.49)
    assert (changed != image).any()
    np.testing.assert_array_equal(image, before)


def test_box_has_the_colour_of_its_class() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    result = drawn(image, detections((50, 60, 250, 150)))
    assert tuple(result[100, 50]) == class_colour(0)
    assert tuple(result[149, 150]) == class_colour(0)
    assert not result[150, 150].any()
    assert not result[80:140, 60:240].any()


@pytest.mark.parametrize(
    "box",
    [(0, 0, 40, 40), (260, 0, 300, 40), (0, 160, 40, 200), (260, 160, 300, 200), (0, 0, 300, 200), (299, 0, 300, 1)],
)
def test_labels_at_the_border_are_whole(box: tuple[int, int, int, int]) -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    middle = ink(drawn(image, detections((120, 80, 160, 120))))
    assert middle > 1000
    assert ink(drawn(image, detections(box))) == middle


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    alone = ink(drawn(image, detections((50, 60, 250, 150))))
    pair = detections((50, 60, 250, 150), (52, 62, 250, 150), scores=[0.9, 0.9])
    assert ink(drawn(image, pair)) > 1.7 * alone


@pytest.mark.parametrize("size", [(1, 1), (8, 10), (3, 500)])
def test_tiny_pictures_keep_their_size(size: tuple[int, int]) -> None:
    height, width = size
    result = drawn(np.zeros((height, width, 3), np.uint8), detections((0, 0, width, height)))
    assert result.shape == (height, width, 3)


def test_boxes_without_area_are_drawn_too() -> None:
    assert drawn(np.zeros((60, 90, 3), np.uint8), detections((30, 30, 30, 30), (90, 60, 90, 60))).any()


def test_colours_differ_and_carry_white_text() -> None:
    colours = [class_colour(label) for label in range(20)]
    assert len(set(colours)) == 20
    for colour in colours:
        linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        luminance = np.dot(linear, [0.2126, 0.7152, 0.0722])
        assert 1.05 / (luminance + 0.05) >= 3, colour  # WCAG's contrast for large text
