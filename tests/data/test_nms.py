import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_rcnn.data import box_iou
from inception_rcnn.data.errors import SettingError
from inception_rcnn.eval import nms, nms_per_class, soft_nms, soft_nms_per_class


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


def naive_soft(boxes, scores, method, sigma=0.5, threshold=0.3, min_score=0.001):
    """Follow the paper's figure 2, in Python's numbers."""
    scores, boxes = [float(score) for score in scores], boxes.tolist()
    left, taken = list(range(len(scores))), []
    while left:
        best = max(left, key=lambda i: scores[i])
        left.remove(best)
        taken.append((best, scores[best]))
        for i in left:
            iou = overlap(boxes[best], boxes[i])
            if method == "gaussian":
                scores[i] *= math.exp(-(iou**2) / sigma)
            elif iou > threshold:
                scores[i] *= 1 - iou
    return [(i, score) for i, score in taken if score >= min_score]


def grid_case(rng, count, classes, shared):
    """Boxes on a coarse grid and few score levels, so that ties of every kind come up."""
    shape = (count, 2) if shared else (count, classes, 2)
    start = rng.integers(0, 12, shape)
    boxes = np.concatenate([start, start + rng.integers(0, 12, shape)], axis=-1).astype(np.float32)
    return boxes, (rng.integers(0, 8, (count, classes)) / 8).astype(np.float32)


THRESHOLDS = (0.0, 0.25, 0.3, 0.5, 0.7, 1.0)


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, classes = draw(st.integers(0, 80)), draw(st.integers(1, 4))
    return *grid_case(rng, count, classes, draw(st.booleans())), draw(st.sampled_from(THRESHOLDS))


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


def test_fast_equals_naive_in_ten_thousand_cases():
    rng = np.random.default_rng(0)
    for case in range(10_000):
        boxes, scores = grid_case(rng, int(rng.integers(0, 13)), 1 + case % 3, shared=case % 2 == 0)
        threshold, min_score = THRESHOLDS[case % 6], (0.0, 0.3)[case % 5 == 0]
        found = nms_per_class(boxes, scores, threshold, min_score)
        expected = naive_per_class(boxes, scores, threshold, min_score, None)
        assert list(zip(found[0].tolist(), found[1], found[2].tolist(), strict=True)) == expected


@given(cases())
def test_what_is_left_stays(case):
    boxes, scores, threshold = case
    found_boxes, found_scores, labels = nms_per_class(boxes, scores, threshold)
    # Every survivor once more, with a score in its own class only.
    again = np.full((len(labels), scores.shape[1]), -1, np.float32)
    again[np.arange(len(labels)), labels] = found_scores
    for part, other in zip(
        nms_per_class(found_boxes, again, threshold), (found_boxes, found_scores, labels), strict=True
    ):
        np.testing.assert_array_equal(part, other)


@pytest.mark.parametrize("twentieths", range(1, 20))
def test_an_overlap_of_any_twentieth_equal_to_the_threshold_is_kept(twentieths):
    boxes, scores = np.float32([[0, 0, 20, 1], [0, 0, twentieths, 1]]), np.float32([[0.9, 0.1], [0.8, 0.2]])
    threshold = twentieths / 20
    for own in (boxes, np.repeat(boxes[:, None], 2, axis=1)):
        assert len(nms_per_class(own, scores, threshold)[0]) == 4
        assert len(nms_per_class(own, scores, np.nextafter(threshold, 0))[0]) == 2


def test_an_overlap_equal_to_the_threshold_is_kept():
    # 3 of 10 pixels in common: exactly the double 0.3.
    boxes, scores = [[0, 0, 10, 1], [0, 0, 3, 1]], [0.9, 0.8]
    assert nms(boxes, scores, 0.3).tolist() == [0, 1]
    assert nms(boxes, scores, np.nextafter(0.3, 0)).tolist() == [0]
    assert len(nms_per_class(boxes, [[0.9], [0.8]], 0.3)[0]) == 2


def test_equal_scores_keep_their_order():
    assert nms([[0, 0, 4, 4]] * 3 + [[9, 9, 10, 10]], [0.5] * 4, 0.5).tolist() == [0, 3]
    assert nms([[0, 0, 4, 4]] * 2, [-0.0, 0.0], 0.5).tolist() == [0]


def test_scores_of_any_size_and_sign_are_ranked():
    scores = np.float32([-1, 3e38, -0.0, 1e-45, -3e38, 0.5, 0, -1e-45])
    boxes = np.arange(8)[:, None] * 10 + np.float32([0, 0, 5, 5])
    assert nms(boxes, scores, 0.5).tolist() == np.argsort(-scores, kind="stable").tolist()
    assert nms_per_class(boxes, scores[:, None], min_score=-2)[1].tolist() == sorted(scores[scores > -2])[::-1]


def test_a_limit_takes_the_best_of_all_classes():
    boxes = np.arange(6)[:, None] * 10 + np.float32([0, 0, 5, 5])
    scores = np.linspace(0, 1, 18).astype(np.float32).reshape(6, 3)
    for own in (boxes, np.repeat(boxes[:, None], 3, axis=1)):
        assert nms_per_class(own, scores, limit=4)[1].tolist() == sorted(scores.ravel())[:-5:-1]


@given(st.integers(0, 2**32 - 1), st.sampled_from(["gaussian", "linear"]), st.sampled_from([0.001, 0.2]))
def test_soft_equals_naive(seed, method, min_score):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 50, (rng.integers(0, 40), 2))
    boxes = np.concatenate([start, start + rng.uniform(0, 40, start.shape)], axis=1).astype(np.float32)
    scores = rng.random(len(boxes)).astype(np.float32)
    indices, lowered = soft_nms(boxes, scores, method, sigma=0.4, iou_threshold=0.2, min_score=min_score)
    expected = naive_soft(boxes, scores, method, 0.4, 0.2, float(np.float32(min_score)))
    assert indices.tolist() == [i for i, _ in expected]
    np.testing.assert_allclose(lowered, [score for _, score in expected], rtol=1e-6)
    assert (indices.dtype, lowered.dtype) == (np.int64, np.float32)
    assert (np.diff(lowered) <= 0).all()


def test_soft_lowers_what_overlaps():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10], [0, 0, 10, 10]]
    indices, scores = soft_nms(boxes, [0.9, 0.8, 0.7, 0.6], sigma=0.5)
    assert indices.tolist() == [0, 2, 1, 3]
    expected = [0.9, 0.7, 0.8 * math.exp(-0.5), 0.6 * math.exp(-2) * math.exp(-0.5)]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    # An overlap equal to the threshold lowers nothing; one with itself everything.
    indices, scores = soft_nms(boxes, [0.9, 0.8, 0.7, 0.6], "linear", iou_threshold=0.5)
    assert indices.tolist() == [0, 1, 2]
    np.testing.assert_allclose(scores, [0.9, 0.8, 0.7], rtol=1e-6)


def test_soft_keeps_double_precision():
    scores = np.array([1 - 2e-12, 1 - 1e-12])
    indices, lowered = soft_nms([[0, 0, 10, 10], [20, 0, 30, 10]], scores)
    assert (indices.tolist(), lowered.tolist()) == ([1, 0], scores[::-1].tolist())


def test_soft_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="'hard' is unknown; use gaussian or linear"):
        soft_nms([[0, 0, 1, 1]], [1], "hard")
    with pytest.raises(ValueError, match="sigma must be"):
        soft_nms([[0, 0, 1, 1]], [1], sigma=0)
    with pytest.raises(ValueError, match="sigma must be"):
        soft_nms([[0, 0, 1, 1]], [1], sigma=np.inf)
    for threshold in (np.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match="iou_threshold must be"):
            soft_nms([[0, 0, 1, 1]], [1], "linear", iou_threshold=threshold)
    with pytest.raises(ValueError, match="finite"):
        soft_nms([[0, 0, 1, 1]], np.array([np.nan]))
    with pytest.raises(ValueError, match="do not fit"):
        soft_nms([[0, 0, 1, 1]], [1, 2])
    assert [len(part) for part in soft_nms([], [])] == [0, 0]


@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([0.001, 0.3]), st.sampled_from([None, 7]))
def test_soft_of_many_classes_is_soft_of_each(seed, shared, min_score, limit):
    rng = np.random.default_rng(seed)
    count, classes = rng.integers(0, 30), rng.integers(1, 5)
    start = rng.uniform(0, 50, (count, 1 if shared else classes, 2))
    each = np.concatenate([start, start + rng.uniform(0, 40, start.shape)], axis=2).astype(np.float32)
    # Few different scores, so that many are equal.
    scores = (rng.integers(0, 8, (count, classes)) / 8).astype(np.float32)
    boxes = each[:, 0] if shared else each
    found = soft_nms_per_class(boxes, scores, sigma=0.4, min_score=min_score, limit=limit)
    rows = []
    for label in range(classes):
        own = each[:, 0 if shared else label]
        indices, lowered = soft_nms(own, scores[:, label].astype(np.float64), sigma=0.4, min_score=min_score)
        rows += [(-score, label, i, own[i]) for i, score in zip(indices.tolist(), lowered.tolist(), strict=True)]
    rows = sorted(rows, key=lambda row: row[:3])[:limit]
    np.testing.assert_array_equal(found[0], np.array([row[3] for row in rows], np.float32).reshape(-1, 4))
    np.testing.assert_allclose(found[1], [-row[0] for row in rows], rtol=1e-6)
    assert found[2].tolist() == [row[1] for row in rows]
    assert [part.dtype for part in found] == [np.float32, np.float32, np.int64]


def test_soft_of_many_classes_refuses():
    with pytest.raises(ValueError, match="sigma must be"):
        soft_nms_per_class([[0, 0, 1, 1]], [[1]], sigma=0)
    with pytest.raises(ValueError, match="do not fit"):
        soft_nms_per_class([[0, 0, 1, 1]], [1])
    with pytest.raises(ValueError, match="finite"):
        soft_nms_per_class([[0, 0, 1, np.nan]], [[1]])


def suppressions(boxes, scores, convert):
    """What all functions on boxes say of a case, given in another form."""
    own = np.ascontiguousarray(boxes if boxes.ndim == 2 else boxes[:, 0])
    both, one, single = (convert(boxes), convert(scores)), convert(own), convert(np.ascontiguousarray(scores[:, 0]))
    parts = [nms(one, single, 0.5), *soft_nms(one, single), *soft_nms(one, single, "linear"), box_iou(one, one)]
    return [*parts, *nms_per_class(*both, limit=40), *soft_nms_per_class(*both, limit=40)]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    return np.frombuffer(b"x" + array.tobytes(), np.uint8)[1:].view(array.dtype).reshape(array.shape)


class OnGPU:
    """An array as CuPy's is: no implicit copy, and `get`."""

    def __init__(self, array):
        self.array, self.__cuda_array_interface__ = array, {}

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def get(self):
        return self.array


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a.tolist(), lambda a: tuple(map(list, a)) if a.ndim == 2 else a, read_only, np.asfortranarray,
        lambda a: np.ascontiguousarray(a[::-1])[::-1], lambda a: np.repeat(a, 2, axis=-1)[..., ::2], unaligned,
        lambda a: a.astype(">f4"), lambda a: a.astype(object), lambda a: a.astype(np.float16), OnGPU, memoryview,
    ],
)  # fmt: skip
def test_any_array_is_suppressed_as_a_plain_one(convert, shared):
    boxes, scores = grid_case(np.random.default_rng(0), 60, 5, shared)
    for part, other in zip(suppressions(boxes, scores, convert), suppressions(boxes, scores, np.copy), strict=True):
        np.testing.assert_array_equal(part, other)
        assert (type(part), part.dtype) == (np.ndarray, other.dtype)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    "convert",
    [
        lambda t: t, lambda t: t.requires_grad_(), lambda t: t.bfloat16(), lambda t: t.half().requires_grad_(),
        lambda t: t.clone().requires_grad_() * 1,
    ],
)  # fmt: skip
def test_tensors_are_suppressed_as_arrays_are(convert, shared):
    torch = pytest.importorskip("torch")
    # Small whole numbers, and eighths: exact in every type.
    boxes, scores = grid_case(np.random.default_rng(0), 60, 5, shared)
    tensors = suppressions(boxes, scores, lambda array: convert(torch.from_numpy(array)))
    for part, other in zip(tensors, suppressions(boxes, scores, np.copy), strict=True):
        np.testing.assert_array_equal(part, other)
        assert (type(part), part.dtype) == (np.ndarray, other.dtype)


def test_double_precision_is_kept_of_tensors_too():
    torch = pytest.importorskip("torch")
    scores = np.array([1 - 2e-12, 1 - 1e-12])
    boxes = [[0, 0, 10, 10], [20, 0, 30, 10]]
    assert soft_nms(boxes, torch.from_numpy(scores))[1].tolist() == soft_nms(boxes, scores)[1].tolist()


PAIR, ONES = [[0, 0, 10, 10], [0, 0, 10, 9]], [[0.9], [0.8]]
NO_THRESHOLD = [math.nan, math.inf, -math.inf, -0.1, 1.1, 50, "0.5", True, None, [0.5], np.array(0.5), 10**400]
NO_LIMIT = [math.nan, math.inf, -1, 1.5, 2.0, "3", True, [3], 2**63]
NO_MINIMUM = [math.nan, math.inf, "0.5", True, None, [0.5]]
NO_SIGMA = [math.nan, math.inf, 0, -1, "0.5", True, None]


@pytest.mark.parametrize(
    ("suppress", "name", "value"),
    [
        *(
            (suppress, name, value)
            for suppress, names in {
                lambda **setting: nms(PAIR, [0.9, 0.8], **setting): {"iou_threshold": NO_THRESHOLD},
                lambda **setting: nms_per_class(PAIR, ONES, **setting): {
                    "iou_threshold": NO_THRESHOLD, "min_score": NO_MINIMUM, "limit": NO_LIMIT,
                },
                lambda **setting: soft_nms(PAIR, [0.9, 0.8], "linear", **setting): {
                    "iou_threshold": NO_THRESHOLD, "min_score": NO_MINIMUM, "sigma": NO_SIGMA,
                },
                lambda **setting: soft_nms_per_class(PAIR, ONES, **setting): {
                    "min_score": NO_MINIMUM, "limit": NO_LIMIT, "sigma": NO_SIGMA,
                },
            }.items()
            for name, values in names.items()
            for value in values
        )
    ],
    ids=lambda value: None if callable(value) else str(value),
)  # fmt: skip
def test_a_setting_that_none_can_be_is_refused(suppress, name, value):
    with pytest.raises(SettingError, match=f"^{name} must be a"):
        suppress(**{name: value})


def test_settings_at_the_ends_of_their_range():
    for number in (0, 1, np.float32(0.5), np.int64(1)):
        assert nms_per_class(PAIR, ONES, number, limit=np.int64(1))[2].tolist() == [0]
    assert len(nms_per_class(PAIR, np.negative(ONES), 1, min_score=-math.inf)[0]) == 2
    assert len(soft_nms_per_class(PAIR, ONES, limit=0)[0]) == 0


@pytest.mark.parametrize(
    ("boxes", "told"),
    [
        ([[0, 0, 10, 10], [0, 5, 10, 4]], "a box ends before it begins"),
        ([[0, 0, 10, 10], [7, 0, 6, 4]], "a box ends before it begins"),
        ([[0, 0, 10, 10], [0, 0, math.nan, 4]], "not a finite number"),
        ([[0, 0, 10, 10], [0, 0, math.inf, 4]], "not a finite number"),
        ([[0, 0, 10, 10], [0, 0, None, 4]], "not a finite number"),
        ([[0, 0, 10, 10], [0, 0, 4]], "boxes must be an array of numbers"),
        ([["0", "0", "1", "1"], ["0", "0", "1", "1"]], "boxes must be an array of numbers"),
        ([0, 0, 10, 10], "do not fit"),
        (np.zeros((2, 4), complex), "boxes must be an array of numbers"),
        (None, "do not fit|not a finite number"),
    ],
)
def test_boxes_that_none_can_be_are_refused(boxes, told):
    for call in (
        lambda: nms(boxes, [0.9, 0.8], 0.5),
        lambda: soft_nms(boxes, [0.9, 0.8]),
        lambda: nms_per_class(boxes, ONES),
        lambda: soft_nms_per_class(boxes, ONES),
    ):
        with pytest.raises(SettingError, match=told):
            call()


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
