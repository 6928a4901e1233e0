"""From scores to detections: suppression by hand, ensembles, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("platformdirs")

from inception_rcnn.backbone.model_file import ModelError, RegionModel
from inception_rcnn.detect import Detector
from inception_rcnn.detect.detector import MOST_PER_PICTURE, suppress

CLASSES = ("cat", "dog")
A, A_MOVED, B = [0, 0, 40, 40], [4, 0, 44, 40], [50, 50, 90, 90]


def boxes(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.float32)


def probabilities(*rows: list[float]) -> np.ndarray:
    """Rows of class probabilities, background being the rest."""
    table = np.array(rows, np.float32)
    return np.concatenate([1 - table.sum(1, keepdims=True), table], axis=1).astype(np.float32)


def test_a_weaker_overlapping_box_of_the_class_goes() -> None:
    found = suppress(boxes(A, A_MOVED, B), probabilities([0.6, 0.1], [0.7, 0.2], [0.5, 0.01]), None, 100, 100, CLASSES)
    assert found.classes == CLASSES
    assert found.labels.tolist() == [0, 0, 1]
    np.testing.assert_allclose(found.scores, [0.7, 0.5, 0.2])
    np.testing.assert_array_equal(found.boxes, boxes(A_MOVED, B, A_MOVED))


def test_classes_do_not_suppress_each_other() -> None:
    found = suppress(boxes(A, A_MOVED), probabilities([0.9, 0.0], [0.0, 0.8]), None, 100, 100, CLASSES)
    assert found.labels.tolist() == [0, 1]


def test_threshold_is_the_overlap_allowed() -> None:
    scores = probabilities([0.6, 0], [0.7, 0])
    iou = 36 / 44
    assert len(suppress(boxes(A, A_MOVED), scores, None, 100, 100, CLASSES, threshold=iou + 0.01)) == 2
    assert len(suppress(boxes(A, A_MOVED), scores, None, 100, 100, CLASSES, threshold=iou - 0.01)) == 1


def test_background_and_weak_scores_are_no_detections() -> None:
    found = suppress(boxes(A, B), probabilities([0.04, 0.0], [0.049, 0.051]), None, 100, 100, CLASSES)
    assert found.labels.tolist() == [1]
    assert len(suppress(boxes(A), probabilities([0.4, 0.4]), None, 100, 100, CLASSES, min_score=0.5)) == 0


def test_deltas_move_the_box_of_each_class_and_stay_inside() -> None:
    deltas = np.zeros((1, 2, 4), np.float32)
    deltas[0, 0] = [1, 0, 0, 0]  # a tenth of the width
    deltas[0, 1] = [50, 50, 0, 0]
    found = suppress(boxes(A), probabilities([0.5, 0.4]), deltas, 60, 50, CLASSES)
    np.testing.assert_allclose(found.boxes[0], [4, 0, 44, 40], rtol=1e-6)
    assert (found.boxes[:, [0, 2]] <= 60).all()
    assert (found.boxes[:, [1, 3]] <= 50).all()
    assert (found.boxes >= 0).all()


def test_a_hundred_at_most_and_best_first() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 1000, (400, 2)).astype(np.float32)
    scores = rng.uniform(0.1, 0.4, (400, 2)).astype(np.float32)
    found = suppress(
        np.concatenate([corner, corner + 5], axis=1), probabilities(*scores.tolist()), None, 2000, 2000, CLASSES
    )
    assert len(found) == MOST_PER_PICTURE
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores[0] == scores.max()


def test_no_proposals() -> None:
    for deltas in (None, np.zeros((0, 2, 4), np.float32)):
        found = suppress(np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32), deltas, 9, 9, CLASSES)
        assert len(found) == 0
        assert found.boxes.shape == (0, 4)


class Scorer:
    """Says the same of every picture."""

    device = "cpu"

    def __init__(
        self, scores: np.ndarray, deltas: np.ndarray, regressing: bool = True, classes: tuple[str, ...] = CLASSES
    ) -> None:
        self.model = RegionModel(classes, 64, regressing, {}, b"", b"", "", {})
        self.outputs = scores, deltas

    def __call__(self, image: np.ndarray, proposals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.outputs


def test_an_ensemble_averages_probabilities_and_deltas() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    one = Scorer(probabilities([0.8, 0.0]), np.full((1, 2, 4), 0.0, np.float32))
    two = Scorer(probabilities([0.2, 0.6]), np.tile(np.float32([2, 0, 0, 0]), (1, 2, 1)))
    found = Detector([one, two]).score(image, boxes(A))
    assert found.labels.tolist() == [0, 1]
    np.testing.assert_allclose(found.scores, [0.5, 0.3], rtol=1e-6)
    np.testing.assert_allclose(found.boxes, [A_MOVED, A_MOVED], rtol=1e-6)


def test_models_without_box_regression_do_not_dilute_the_others() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    moving = Scorer(probabilities([0.8, 0.0]), np.tile(np.float32([1, 0, 0, 0]), (1, 2, 1)))
    still = Scorer(probabilities([0.8, 0.0]), np.full((1, 2, 4), 9.0, np.float32), regressing=False)
    np.testing.assert_allclose(Detector([moving, still]).score(image, boxes(A)).boxes, [A_MOVED], rtol=1e-6)
    np.testing.assert_allclose(Detector([still]).score(image, boxes(A)).boxes, [A])


def test_ensembles_must_agree_on_classes() -> None:
    outputs = probabilities([0.8, 0.0]), np.zeros((1, 2, 4), np.float32)
    with pytest.raises(ModelError, match="same classes in the same order"):
        Detector([Scorer(*outputs), Scorer(*outputs, classes=CLASSES[::-1])])
    with pytest.raises(ModelError, match="at least one model"):
        Detector([])


def test_two_files_of_one_model_are_that_model(
    model_file: Path, detector: Detector, picture: Callable[..., np.ndarray]
) -> None:
    pair = Detector.load(model_file, str(model_file), device="cpu", threads=1)
    pair.search = detector.search
    image = picture(1)
    alone, both = detector(image), pair(image)
    assert len(alone) > 0
    np.testing.assert_array_equal(alone.labels, both.labels)
    np.testing.assert_allclose(alone.scores, both.scores, rtol=1e-6)
    np.testing.assert_allclose(alone.boxes, both.boxes, rtol=1e-5, atol=1e-4)


def test_detections_repeat_and_lie_in_the_picture(detector: Detector, picture: Callable[..., np.ndarray]) -> None:
    image = picture(2, 75, 140)
    found, again = detector(image), detector(image)
    np.testing.assert_array_equal(found.boxes, again.boxes)
    np.testing.assert_array_equal(found.scores, again.scores)
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert (found.scores >= detector.min_score).all()
    assert (found.boxes.min(0) >= 0).all()
    assert (found.boxes.max(0) <= [75, 140, 75, 140]).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (20, 20)])
def test_tiny_pictures_do_not_break_it(detector: Detector, size: tuple[int, int]) -> None:
    found = detector(np.full((*size, 3), 90, np.uint8))
    assert np.isfinite(found.boxes).all()
    assert (found.boxes <= [size[1], size[0]] * 2).all()


def test_settings_reach_the_search(model_file: Path) -> None:
    made = Detector.load(model_file, device="cpu", threads=1, proposals=7, min_score=0.3, seed=5)
    assert (made.search.limit, made.search.seed, made.search.mode, made.min_score) == (7, 5, "fast", 0.3)
    scaled = Detector(made.scorers, superpixel_scale=2.0)
    assert scaled.search.superpixel_scale == 2.0
    assert dataclasses.replace(scaled.search, superpixel_scale=1.0, limit=7, seed=5) == made.search
