"""Joining selective search and MultiBox: what a box is worth, near-duplicates, better than one behind the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import random_boxes
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from inception_rcnn.data import box_iou
from inception_rcnn.proposals import MergedProposals, SelectiveSearch, load_proposer, merge_proposals
from inception_rcnn.proposals.calibration import THRESHOLDS, RankingCalibration, expected_gain, fit_calibration
from inception_rcnn.proposals.merge import NEAR_DUPLICATE

WORTH = RankingCalibration((-0.5, 0.8), (-1.0, -0.7))


def ranked(rng: np.random.Generator, count: int, extent: float = 200) -> tuple[np.ndarray, np.ndarray]:
    """Random boxes and falling scores in (0, 1)."""
    boxes = random_boxes(count, extent, extent, rng)
    return boxes, np.sort(rng.uniform(0, 1, count).astype(np.float32))[::-1]


def naive(
    search_boxes: tuple, multibox_boxes: tuple, calibration: RankingCalibration, iou: float
) -> list[tuple[float, list[float]]]:
    """Say the same as a loop over pairs."""
    rows = [
        (expit(calibration.rank[0] + calibration.rank[1] * np.log(i + 1)), box) for i, box in enumerate(search_boxes[0])
    ]
    odds = logit(np.clip(multibox_boxes[1].astype(np.float64), 1e-6, 1 - 1e-6))
    rows += [
        (expit(calibration.confidence[0] + calibration.confidence[1] * x), box)
        for x, box in zip(odds, multibox_boxes[0], strict=True)
    ]
    kept: list[tuple[float, np.ndarray]] = []
    for score, box in sorted(rows, key=lambda row: -row[0]):
        if all(box_iou(box[None], other[None])[0, 0] <= iou for _, other in kept):
            kept.append((score, box))
    return [(float(score), box.tolist()) for score, box in kept]


@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.integers(0, 30), st.sampled_from([0.3, 0.7, 0.9]))
def test_merged_is_what_the_definition_says(seed: int, search_boxes: int, multibox_boxes: int, iou: float) -> None:
    rng = np.random.default_rng(seed)
    one, two = ranked(rng, search_boxes), ranked(rng, multibox_boxes)
    boxes, scores = merge_proposals(one, two, WORTH, iou_threshold=iou)
    expected = naive(one, two, WORTH, iou)
    assert boxes.dtype == scores.dtype == np.float32
    assert boxes.shape == (len(expected), 4)
    assert boxes.tolist() == [box for _, box in expected]
    np.testing.assert_allclose(scores, [score for score, _ in expected], rtol=1e-5)


@given(st.integers(0, 2**32 - 1))
def test_what_both_methods_ranked_first_stays_before_what_they_ranked_behind(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, two = ranked(rng, 20), ranked(rng, 15)
    boxes, scores = merge_proposals(one, two, WORTH, iou_threshold=1.0)
    assert len(boxes) == 35
    assert (np.diff(scores) <= 0).all()
    for own in (one[0], two[0]):
        places = [int(np.flatnonzero((boxes == box).all(1))[0]) for box in own]
        assert places == sorted(places)
    np.testing.assert_array_equal(merge_proposals(one, two, WORTH, limit=9, iou_threshold=1.0)[0], boxes[:9])


def test_near_duplicates_go_and_the_better_stays() -> None:
    search_boxes = np.array([[0, 0, 100, 100], [0, 0, 50, 50]], np.float32), np.array([1, 0.5], np.float32)
    multibox_boxes = np.array([[0, 0, 100, 99], [0, 0, 50, 44]], np.float32), np.array([0.99, 0.01], np.float32)
    boxes, _ = merge_proposals(search_boxes, multibox_boxes, WORTH)
    assert boxes.tolist() == [[0, 0, 100, 99], [0, 0, 50, 50], [0, 0, 50, 44]]
    assert 44 / 50 < NEAR_DUPLICATE < 99 / 100


def scenes(seed: int, pictures: int) -> tuple[list[np.ndarray], list[tuple], list[tuple]]:
    """Objects; a search that finds them late but all; a network that finds half of them at once and says how sure."""
    rng = np.random.default_rng(seed)
    objects, search_boxes, multibox_boxes = [], [], []
    for _ in range(pictures):
        truth = ranked(rng, 4)[0]
        noise, _ = ranked(rng, 60)
        places = rng.integers(0, 60, 4)
        noise[places] = truth + rng.normal(0, 2, truth.shape)
        search_boxes.append((noise, np.linspace(1, 0.1, 60, dtype=np.float32)))
        boxes, scores = ranked(rng, 20)
        hit = rng.random(20) < scores * 0.6
        boxes[hit] = truth[rng.integers(0, 2, hit.sum())] + rng.normal(0, 3, (hit.sum(), 4))
        for moved in (noise, boxes):
            moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
        objects.append(truth.astype(np.float32))
        multibox_boxes.append((boxes.astype(np.float32), scores))
    return objects, search_boxes, multibox_boxes


def average_recall(objects: list[np.ndarray], proposals: list[np.ndarray], limit: int) -> float:
    best = np.concatenate([box_iou(b[:limit], o).max(0) for o, b in zip(objects, proposals, strict=True)])
    return float((best[:, None] >= np.array(THRESHOLDS)).mean())


def test_fitted_on_some_pictures_it_is_better_than_one_behind_the_other_on_others() -> None:
    calibration = fit_calibration(*scenes(0, 200))
    objects, search_boxes, multibox_boxes = scenes(1, 200)
    merged = [
        merge_proposals(a, b, calibration, iou_threshold=1.0)[0]
        for a, b in zip(search_boxes, multibox_boxes, strict=True)
    ]
    chained = [[np.concatenate([a[0], b[0]]) for a, b in zip(*pair, strict=True)] for pair in
               ((search_boxes, multibox_boxes), (multibox_boxes, search_boxes))]  # fmt: skip
    limits = (5, 10, 20, 40)
    ours = np.array([average_recall(objects, merged, limit) for limit in limits])
    others = np.array([[average_recall(objects, other, limit) for limit in limits] for other in chained])
    assert (ours > others - 0.01).all()
    assert (ours.mean() > others.mean(1)).all()
    assert ours[2] > others[:, 2].max()


def test_worth_is_what_boxes_add() -> None:
    """Where boxes hit objects of their own by a known chance, whatever came before, that chance is what is found."""
    rng = np.random.default_rng(0)
    objects, search_boxes, multibox_boxes = [], [], []
    for _ in range(400):
        cells = np.arange(40, dtype=np.float32)[:, None] * [10, 0, 10, 0] + np.array([0, 0, 9, 9], np.float32)
        cells = cells[rng.permutation(40)].astype(np.float32)
        confidence = np.sort(rng.uniform(0.05, 0.95, 20))[::-1].astype(np.float32)
        real = rng.random(40) < np.concatenate([expit(-0.5 - 0.8 * np.log(np.arange(1, 21))), confidence])
        search_boxes.append((cells[:20], np.linspace(1, 0.1, 20, dtype=np.float32)))
        multibox_boxes.append((cells[20:], confidence))
        objects.append(cells[real])
    calibration = fit_calibration(objects, search_boxes, multibox_boxes)
    np.testing.assert_allclose(calibration.confidence, (0, 1), atol=0.1)
    np.testing.assert_allclose(calibration.rank, (-0.5, -0.8), atol=0.1)


def test_a_method_that_adds_nothing_comes_last() -> None:
    objects, search_boxes, multibox_boxes = scenes(0, 20)
    nowhere = [(boxes + 1000, scores) for boxes, scores in search_boxes]
    calibration = fit_calibration(objects, nowhere, multibox_boxes)
    late, early = expected_gain(nowhere[0], multibox_boxes[0], calibration)
    assert late.max() < early.max()


def test_nothing_to_fit_is_said() -> None:
    objects, search_boxes, multibox_boxes = scenes(0, 3)
    with pytest.raises(ValueError, match="no box covers an object; give more pictures"):
        fit_calibration([truth + 1000 for truth in objects], search_boxes, multibox_boxes)
    with pytest.raises(ValueError, match="no box covers an object"):
        fit_calibration([np.zeros((0, 4), np.float32)] * 3, search_boxes, multibox_boxes)
    with pytest.raises(ValueError, match="no pictures to fit the calibration on"):
        fit_calibration([], [], [])
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    fit_calibration([*objects, objects[0]], [*search_boxes, nothing], [*multibox_boxes, nothing])


def test_the_gain_of_extreme_confidences_is_finite() -> None:
    one = np.zeros((3, 4), np.float32), np.array([1.0, 0.5, 0.0], np.float32)
    for values in expected_gain(one, one, WORTH):
        assert np.isfinite(values).all()
        assert (np.diff(values) < 0).all()


@pytest.mark.parametrize("numbers", [None, [], [[1, 2]], [[0, -1], [0, -1]], [[0, 1], [0, 1]], [[0, np.nan], [0, -1]]])
def test_numbers_that_are_no_worth(numbers: object) -> None:
    with pytest.raises(ValueError, match="the calibration is"):
        RankingCalibration.checked(numbers)


def test_proposers_by_name() -> None:
    assert load_proposer("selective-search", limit=5, seed=3) == SelectiveSearch("fast", limit=5, seed=3)
    assert load_proposer("selective-search", superpixel_scale=3.0).superpixel_scale == 3
    with pytest.raises(ValueError, match="method 'edge-boxes' is unknown; use merged, "):
        load_proposer("edge-boxes")
    with pytest.raises(ValueError, match="mode 'slow' is unknown"):
        load_proposer("merged", mode="slow")


def test_the_bundled_pair() -> None:
    pytest.importorskip("onnxruntime")
    data = pytest.importorskip("skimage.data")
    merged = load_proposer("merged", limit=400, threads=1)
    assert isinstance(merged, MergedProposals)
    assert merged.selective_search == MergedProposals.SEARCH
    image = data.chelsea()
    boxes, scores = merged(image)
    assert boxes.shape == (400, 4)
    assert (np.diff(scores) <= 0).all()
    np.testing.assert_array_equal(merged(image)[0], boxes)
    assert box_iou(boxes, boxes)[np.triu_indices(400, 1)].max() <= NEAR_DUPLICATE + 1e-6
    # The cat, as seen by eye, is among the first ten.
    assert box_iou(boxes[:10], np.array([[5, 0, 390, 300]], np.float32)).max() > 0.7
    different = [
        merged,
        replace(merged, limit=30),
        replace(merged, iou_threshold=0.5),
        replace(merged, selective_search=replace(merged.selective_search, limit=30)),
        replace(merged, multibox=replace(merged.multibox, limit=30)),
    ]
    assert len({repr(one.settings) for one in different}) == len(different)
    with pytest.raises(ValueError, match="limit must be a whole number, 1 or more"):
        replace(merged, limit=-5)
