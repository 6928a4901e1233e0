import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_rcnn.eval import nms, nms_per_class


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if inter > 0 else 0.0


def naive(boxes, scores, threshold):
    """Do what the textbook says, with no thought of speed."""
    left = sorted(range(len(scores)), key=lambda i: -scores[i])
    kept = []
    while left:
        best, *left = left
        kept.append(best)
        left = [i for i in left if overlap(boxes[best].tolist(), boxes[i].tolist()) <= threshold]
    return kept


def naive_per_class(boxes, scores, threshold, min_score, limit):
    rows = []
    for label in range(scores.shape[1]):
        own = boxes if boxes.ndim == 2 else boxes[:, label]
        index = np.flatnonzero(scores[:, label] >= min_score)
        for i in sorted(index[naive(own[index], scores[index, label], threshold)]):
            rows.append((own[i].tolist(), scores[i, label], label))
    return sorted(rows, key=lambda row: -row[1])[:limit]


@st.composite
def cases(draw):
    """Boxes on a coarse grid and few score levels, so that ties of every kind come up."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, classes = draw(st.integers(0, 80)), draw(st.integers(1, 4))
    shape = (count, 2) if draw(st.booleans()) else (count, classes, 2)
    start = rng.integers(0, 12, shape)
    boxes = np.concatenate([start, start + rng.integers(0, 12, shape)], axis=-1).astype(np.float32)
    scores = (rng.integers(0, 8, (count, classes)) / 8).astype(np.float32)
    return boxes, scores, draw(st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.7, 1.0]))


@given(cases())
def test_fast_equals_naive(case):
    boxes, scores, threshold = case
    own = boxes if boxes.ndim == 2 else boxes[:, 0]
    kept = nms(own, scores[:, 0], threshold)
    assert kept.tolist() == naive(own, scores[:, 0], threshold)
    assert kept.dtype == np.int64
    again = nms(own[kept], scores[kept, 0], threshold)
    assert again.tolist() == list(range(len(kept)))


@given(cases(), st.sampled_from([0.0, 0.25, 0.3]), st.sampled_from([None, 0, 1, 10]))
def test_fast_equals_naive_per_class(case, min_score, limit):
    boxes, scores, threshold = case
    found_boxes, found_scores, labels = nms_per_class(boxes, scores, threshold, min_score, limit)
    expected = naive_per_class(boxes, scores, threshold, min_score, limit)
    assert list(zip(found_boxes.tolist(), found_scores, labels.tolist(), strict=True)) == expected
    assert (found_boxes.dtype, found_scores.dtype, labels.dtype) == (np.float32, np.float32, np.int64)
    assert found_boxes.shape == (len(labels), 4)


def test_an_overlap_equal_to_the_threshold_is_kept():
    # 3 of 10 pixels in common: exactly the double 0.3.
    boxes, scores = [[0, 0, 10, 1], [0, 0, 3, 1]], [0.9, 0.8]
    assert nms(boxes, scores, 0.3).tolist() == [0, 1]
    assert nms(boxes, scores, np.nextafter(0.3, 0)).tolist() == [0]
    assert len(nms_per_class(boxes, [[0.9], [0.8]], 0.3)[0]) == 2


def test_equal_scores_keep_their_order():
    assert nms([[0, 0, 4, 4]] * 3 + [[9, 9, 10, 10]], [0.5] * 4, 0.5).tolist() == [0, 3]


def test_more_boxes_than_bits_in_a_word():
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 100, (300, 2))
    boxes = np.concatenate([start, start + rng.uniform(5, 60, (300, 2))], axis=1).astype(np.float32)
    scores = rng.random((300, 3), np.float32)
    shared = nms_per_class(boxes, scores, 0.3, 0.1)
    separate = nms_per_class(np.repeat(boxes[:, None], 3, axis=1), scores, 0.3, 0.1)
    for a, b in zip(shared, separate, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(shared[0]) > 64


def test_no_boxes():
    assert nms([], [], 0.5).tolist() == []
    assert [len(part) for part in nms_per_class(np.zeros((0, 4)), np.zeros((0, 20)))] == [0, 0, 0]


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [
        (np.zeros((2, 4)), np.zeros((3, 2))),
        (np.zeros((2, 3, 4)), np.zeros((2, 2))),
        (np.zeros((2, 5)), np.zeros((2, 2))),
        (np.zeros((2, 4)), np.full((2, 2), np.nan)),
    ],
)
def test_what_does_not_fit_is_refused(boxes, scores):
    with pytest.raises(ValueError, match=r"do not fit|finite"):
        nms_per_class(boxes, scores)
    with pytest.raises(ValueError, match=r"do not fit|finite"):
        nms(np.zeros((2, 4)), np.zeros(3), 0.5)


def test_a_score_equal_to_the_minimum_is_kept():
    score = np.full((1, 1), 0.7, np.float32)  # a little below the double 0.7
    assert len(nms_per_class([[0, 0, 4, 4]], score, min_score=0.7)[0]) == 1
