import numpy as np
import pytest
from builders import CLASSES, make_detections
from hypothesis import given
from hypothesis import strategies as st

from inception_rcnn.data import Detections
from inception_rcnn.data.nms import soft_nms
from inception_rcnn.eval import EvaluationError, nms
from inception_rcnn.eval.ensemble import merge_detections, weighted_box_fusion


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if inter > 0 else 0.0


def naive(boxes_list, scores_list, labels_list, iou, weights):
    """Section 3 of the paper, step by step, a cluster being the list of all that is in it."""
    rows = [
        (label, float(score) * weight, [float(side) for side in box])
        for boxes, scores, labels, weight in zip(boxes_list, scores_list, labels_list, weights, strict=True)
        for box, score, label in zip(boxes, scores, labels, strict=True)
    ]
    clusters = []  # label, members, fused box
    for label, score, box in sorted(rows, key=lambda row: -row[1]):
        fitting = [(overlap(fused, box), -k) for k, (own, _, fused) in enumerate(clusters) if own == label]
        best, k = max(fitting, default=(0, 0))
        if best > iou:
            members = clusters[-k][1]
            members.append((score, box))
        else:
            members, k = [(score, box)], -len(clusters)
            clusters.append(None)
        total = sum(score for score, _ in members)
        fused = [sum(score * box[side] for score, box in members) / total for side in range(4)] if total else box
        clusters[-k] = (label, members, fused)
    result = []
    for label, members, fused in clusters:
        mean = sum(score for score, _ in members) / len(members)
        result.append((mean * min(len(members), len(weights)) / sum(weights), label, fused))
    return sorted(result, key=lambda row: (-row[0], row[1]))


def random_members(rng, count, label_count=3):
    lists = [], [], []
    for _ in range(count):
        found = int(rng.integers(0, 15))
        start = rng.uniform(0, 20, (found, 2))
        lists[0].append(np.concatenate([start, start + rng.uniform(5, 30, (found, 2))], axis=1).astype(np.float32))
        lists[1].append(rng.uniform(0.05, 1, found).astype(np.float32))
        lists[2].append(rng.integers(0, label_count, found))
    return lists


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([0.3, 0.55, 0.8]), st.booleans())
def test_fusion_equals_naive(seed, count, iou, weighted):
    rng = np.random.default_rng(seed)
    lists = random_members(rng, count)
    weights = rng.uniform(0.5, 3, count).tolist() if weighted else [1.0] * count
    boxes, scores, labels = weighted_box_fusion(*lists, iou_threshold=iou, weights=weights if weighted else None)
    expected = naive(*lists, iou, weights)
    np.testing.assert_allclose(scores, [row[0] for row in expected], rtol=1e-6)
    assert labels.tolist() == [row[1] for row in expected]
    np.testing.assert_allclose(boxes, np.reshape([row[2] for row in expected], (-1, 4)), rtol=1e-5)
    assert (boxes.dtype, scores.dtype, labels.dtype) == (np.float32, np.float32, np.int64)


def test_fusion_by_hand():
    # What the authors' own example has, in pixels of a picture of 100 x 100: weights 2 and 1, IoU 0.5.
    boxes_list = [
        [[10, 10, 50, 50], [11, 11, 51, 51], [60, 60, 80, 80]],
        [[59, 59, 79, 79], [61, 61, 81, 81], [80, 80, 90, 90]],
    ]
    scores_list, labels_list = [[0.9, 0.8, 0.7], [0.85, 0.75, 0.65]], [[1, 1, 1], [1, 1, 0]]
    boxes, scores, labels = weighted_box_fusion(boxes_list, scores_list, labels_list, iou_threshold=0.5, weights=[2, 1])
    first = (10 * 1.8 + 11 * 1.6) / 3.4
    second = (60 * 1.4 + 59 * 0.85 + 61 * 0.75) / 3
    expected = [[first, first, first + 40, first + 40], [second, second, second + 20, second + 20], [80, 80, 90, 90]]
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)
    # Mean of the weighted scores, times min(boxes, members) over the sum of the weights.
    np.testing.assert_allclose(scores, [3.4 / 2 * 2 / 3, 3 / 3 * 2 / 3, 0.65 / 3], rtol=1e-6)
    assert labels.tolist() == [1, 1, 0]


def test_what_fewer_members_found_sinks_and_more_boxes_than_members_do_not_rise():
    box, elsewhere = [0, 0, 10, 10], [50, 50, 60, 60]
    _, scores, _ = weighted_box_fusion([[box], [box], [elsewhere]], [[0.9], [0.6], [0.9]], [[0]] * 3)
    np.testing.assert_allclose(scores, [0.75 * 2 / 3, 0.9 / 3], rtol=1e-6)
    _, scores, _ = weighted_box_fusion([[box] * 3, []], [[0.9, 0.6, 0.3], []], [[0] * 3, []])
    np.testing.assert_allclose(scores, [0.6], rtol=1e-6)


def test_an_overlap_equal_to_the_threshold_does_not_join():
    lists = [[[0, 0, 20, 1]], [[0, 0, 11, 1]]], [[0.9], [0.8]], [[0], [0]]
    assert len(weighted_box_fusion(*lists, iou_threshold=0.55)[0]) == 2
    assert len(weighted_box_fusion(*lists, iou_threshold=np.nextafter(0.55, 0))[0]) == 1


def test_only_the_proportions_of_weights_matter():
    lists = random_members(np.random.default_rng(0), 3)
    for part, other in zip(
        weighted_box_fusion(*lists, weights=[1, 2, 4]), weighted_box_fusion(*lists, weights=[0.5, 1, 2]), strict=True
    ):
        np.testing.assert_array_equal(part, other)


def test_weak_boxes_are_left_out_first_and_zeros_are_no_trouble():
    box, near = [0, 0, 10, 10], [0, 0, 10, 9]
    boxes, scores, _ = weighted_box_fusion([[box, near]], [[0.7, 0.2]], [[0, 0]], min_score=0.7)
    assert (boxes.tolist(), scores.tolist()) == ([box], [np.float32(0.7)])
    boxes, scores, _ = weighted_box_fusion([[box, near]], [[0, 0]], [[0, 0]])
    assert (boxes.tolist(), scores.tolist()) == ([box], [0])
    assert [len(part) for part in weighted_box_fusion([], [], [])] == [0, 0, 0]
    assert [len(part) for part in weighted_box_fusion([[], []], [[], []], [[], []])] == [0, 0, 0]


@pytest.mark.parametrize(
    ("lists", "options", "problem"),
    [
        (([[[0, 0, 1, 1]]], [[1]], [[0], [0]]), {}, "1, 1 and 2 members"),
        (([[[0, 0, 1, 1]]], [[1, 1]], [[0, 0]]), {}, r"member 1: .* do not fit"),
        (([[[0, 0, 1, 1]]], [[np.nan]], [[0]]), {}, r"member 1: .* finite"),
        (([[[0, 0, 1, 1]]], [[-1]], [[0]]), {}, "member 1: a score is -1; only scores of 0"),
        (([[[0, 0, 1, 1]]], [[1]], [[0]]), {"weights": [1, 1]}, "weights must be 1 finite numbers"),
        (([[[0, 0, 1, 1]]], [[1]], [[0]]), {"weights": [0]}, "above 0"),
        (([[[0, 0, 1, 1]]], [[1]], [[0]]), {"weights": [np.inf]}, r"finite numbers above 0, .* they are \[inf\]"),
        (
            ([[[0, 0, 1, 1]]], [[1]], [[0]]),
            {"iou_threshold": np.nan},
            "iou_threshold must be a number, 0 to 1, not nan",
        ),
        (([[[0, 0, 1, 1]]], [[1]], [[0]]), {"iou_threshold": 1.5}, "iou_threshold must be a number, 0 to 1"),
        (([[[1, 0, 0, 1]]], [[1]], [[0]]), {}, "member 1: a box ends before it begins"),
        (([[[0, 0, 1, np.nan]]], [[1]], [[0]]), {}, "member 1: a coordinate or a score is not a finite number"),
        (([[[0, 0, 1, 1]]], [[1]], [[0.5]]), {}, "labels must be whole numbers"),
        (([[[0, 0, 1, 1]]], [[1]], [[0]]), {"min_score": np.nan}, "min_score must be a number, not nan"),
        (([[[0, 0, 1, 1]]], [[1]], [[0]]), {"weights": ["1"]}, "weights must be an array of numbers"),
    ],
)
def test_what_does_not_fit_is_refused(lists, options, problem):
    with pytest.raises(ValueError, match=problem):
        weighted_box_fusion(*lists, **options)


A, B = (0, 0, 10, 10), (50, 50, 60, 60)


def as_rows(detections):
    rows = zip(detections.labels.tolist(), detections.scores.tolist(), detections.boxes.tolist(), strict=True)
    return [(detections.classes[label], round(score, 5), tuple(box)) for label, score, box in rows]


def test_members_are_matched_by_picture_and_by_class():
    turned = CLASSES[::-1]
    one = {"a": make_detections([A], [0.8], [0]), "b": make_detections([B], [0.6], [1])}
    other = {"c": make_detections([A], [0.4], [0], turned), "a": make_detections([A, B], [0.6, 0.2], [2, 0], turned)}
    merged = merge_detections([one, other])
    assert list(merged) == ["a", "b", "c"]
    assert as_rows(merged["a"]) == [("cat", 0.7, A), ("car", 0.1, B)]
    assert as_rows(merged["b"]) == [("dog", 0.3, B)]
    assert as_rows(merged["c"]) == [("car", 0.2, A)]
    assert all(one.classes == CLASSES for one in merged.values())


def test_suppressing_all_members_together():
    near = (0, 0, 10, 9)
    others = make_detections([near, near, B], [0.9, 0.7, 0.5], [0, 1, 2])
    members = [{"a": make_detections([A], [0.8], [0])}, {"a": others}]
    assert as_rows(merge_detections(members, "nms", iou_threshold=0.5)["a"]) == [
        ("cat", 0.9, near),
        ("dog", 0.7, near),
        ("car", 0.5, B),
    ]
    assert as_rows(merge_detections(members, "nms", iou_threshold=0.5, weights=[4, 2])["a"])[0] == ("cat", 0.8, A)
    assert len(merge_detections(members, "nms", iou_threshold=0.9)["a"]) == 4
    soft = merge_detections(members, "soft-nms")["a"]
    assert len(soft) == 4
    assert as_rows(soft)[-1] == ("cat", round(0.8 * np.exp(-(0.9**2) / 0.5), 5), A)


@pytest.mark.parametrize(("method", "iou"), [("nms", None), ("nms", 0.5), ("soft-nms", None), ("soft-nms", 0.5)])
def test_one_member_is_suppressed_class_by_class(method, iou):
    rng = np.random.default_rng(0)
    boxes, scores, labels = (one[0] for one in random_members(rng, 1))
    merged = merge_detections([{"a": make_detections(boxes, scores, labels)}], method, iou_threshold=iou)["a"]
    for label in range(3):
        own = labels == label
        if method == "nms":
            kept = nms(boxes[own], scores[own], iou or 0.3)
            lowered = scores[own][kept]
        elif iou:
            kept, lowered = soft_nms(boxes[own], scores[own], "linear", iou_threshold=iou)
        else:
            kept, lowered = soft_nms(boxes[own], scores[own])
        np.testing.assert_array_equal(merged.boxes[merged.labels == label], boxes[own][kept])
        np.testing.assert_array_equal(merged.scores[merged.labels == label], lowered)
    assert (np.diff(merged.scores) <= 0).all()


def test_members_with_other_classes_are_refused():
    one, other = {"a": make_detections([A], [1], [0])}, {"a": make_detections([A], [1], [0], ("cat", "dog", "mule"))}
    with pytest.raises(EvaluationError, match="member 2 have other classes than the first: car, mule; all must"):
        merge_detections([one, other])
    with pytest.raises(EvaluationError, match="nothing to merge"):
        merge_detections([])
    with pytest.raises(ValueError, match="method 'mean' is unknown"):
        merge_detections([one], "mean")
    with pytest.raises(ValueError, match="weights must be 2 finite numbers"):
        merge_detections([one, one], "nms", weights=[1])


@pytest.mark.parametrize("method", ["wbf", "nms", "soft-nms"])
def test_scores_that_only_double_precision_tells_apart(method):
    rng = np.random.default_rng(0)
    whole = [{"a": make_detections(*(one[0] for one in random_members(rng, 1)))} for _ in range(2)]
    one = whole[0]["a"]
    close = [
        {"a": Detections(d.boxes, 1 - (1 - d.scores.astype(np.float64)) * 1e-9, d.labels, d.classes)}
        for d in (one, whole[1]["a"])
    ]
    merged = merge_detections(close, method)["a"]
    assert merged.scores.dtype == np.float64
    assert len(np.unique(merged.scores)) > 5
    if method == "nms":
        # The scores are the boxes' own: the same boxes stay, in the same order.
        assert merged.boxes.tolist() == merge_detections(whole, method)["a"].boxes.tolist()
    assert merge_detections(whole, method)["a"].scores.dtype == np.float32


def test_what_cannot_be_merged_is_named():
    one = {"a": make_detections([A], [0.5], [0])}
    with pytest.raises(EvaluationError, match=r"picture 'a': member 2: a score is -0.5; only scores of 0 or more"):
        merge_detections([one, {"a": make_detections([A, A], [0.5, -0.5], [0, 0])}])
    with pytest.raises(EvaluationError, match=r"picture is in two of the members: they have 'a' and 'b.jpg'"):
        merge_detections([one, {"b.jpg": make_detections([A], [0.5], [0])}])
    for iou in (np.nan, -0.1):
        with pytest.raises(ValueError, match="iou_threshold must be"):
            merge_detections([one], "nms", iou_threshold=iou)


def test_a_member_that_found_nothing():
    one = {"a": make_detections([A], [0.8], [0])}
    assert as_rows(merge_detections([one, {}])["a"]) == [("cat", 0.4, A)]
    assert as_rows(merge_detections([{}, one], "nms")["a"]) == [("cat", 0.8, A)]
    assert merge_detections([{}, {}]) == {}
    assert len(merge_detections([{"a": make_detections([], [], [])}])["a"]) == 0
