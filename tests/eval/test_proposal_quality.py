import numpy as np
import pytest
from builders import make_picture
from hypothesis import given
from hypothesis import strategies as st

from inception_rcnn.data.errors import DataWarning, SettingError
from inception_rcnn.eval import EvaluationError, evaluate_proposals

A, B = (0, 0, 10, 10), (50, 50, 60, 60)


def test_recall_and_overlap():
    pictures = [make_picture([A, B], labels=[0, 1]), make_picture([A], image_id="b")]
    result = evaluate_proposals(pictures, {"a": [(0, 0, 10, 6), B], "b": [(0, 0, 10, 4)]}, limits=(1, 5))
    third = pytest.approx(1 / 3)
    assert result["recall"] == {
        "0.5": pytest.approx(2 / 3),
        "0.6": pytest.approx(2 / 3),
        "0.7": third,
        "0.8": third,
        "0.9": third,
    }
    assert result["mabo"] == pytest.approx(((0.6 + 0.4) / 2 + 1) / 2)
    assert result["boxes_per_image"] == 1.5
    assert result["recall_at"] == {"1": third, "5": pytest.approx(2 / 3)}
    assert result["mabo_at"] == {"1": pytest.approx(0.25), "5": pytest.approx(result["mabo"])}


def test_overlaps_equal_to_a_threshold_count():
    for height, threshold in ((5, "0.5"), (6, "0.6"), (7, "0.7"), (8, "0.8"), (9, "0.9")):
        assert evaluate_proposals([make_picture([A])], {"a": [(0, 0, 10, height)]})["recall"][threshold] == 1


def test_difficult_objects_are_left_out():
    assert evaluate_proposals([make_picture([A, B], difficult=[1])], {"a": [A]})["recall"]["0.5"] == 1


def test_pictures_without_proposals_count_as_missed():
    result = evaluate_proposals([make_picture([A]), make_picture([A], image_id="b")], {"a": [A]})
    assert (result["recall"]["0.5"], result["mabo"], result["boxes_per_image"]) == (0.5, 0.5, 0.5)


def test_nothing_to_cover_gives_nan():
    result = evaluate_proposals([make_picture([])], {"a": [A]})
    assert np.isnan([result["recall"]["0.5"], result["mabo"], result["recall_at"]["100"]]).all()


def test_proposals_for_an_unknown_picture_are_refused():
    with pytest.raises(EvaluationError, match="'b' has proposals but no annotations"):
        evaluate_proposals([make_picture([A])], {"b": [A]})
    with pytest.warns(DataWarning, match="^2 pictures are in the proposals and not annotated, and left out: b, c$"):
        result = evaluate_proposals([make_picture([A])], {"c": [B], "a": [A], "b": [A]})
    assert (result["recall"]["0.5"], result["boxes_per_image"]) == (1, 1)
    with pytest.raises(EvaluationError, match="twice"):
        evaluate_proposals([make_picture([A]), make_picture([A])], {})
    with pytest.raises(EvaluationError, match="'a' is among the proposals twice"):
        evaluate_proposals([make_picture([A])], iter([("a", [A]), ("a", [B])]))


def test_proposals_far_outside_are_told():
    with pytest.warns(DataWarning, match="1 of 3 proposals, the first 100 of each picture, end far outside"):
        evaluate_proposals([make_picture([A], size=(100, 100))], {"a": [A, A, [0, 0, 150, 50]]})


@pytest.mark.parametrize("limit", [-1, 2.5, np.nan, "100"])
def test_limits_are_whole_numbers(limit):
    with pytest.raises(SettingError, match="a limit must be a whole number, 0 or more"):
        evaluate_proposals([make_picture([A])], {"a": [A]}, limits=[100, limit])


def test_a_box_may_cover_several_objects():
    """Average recall as Hosang et al. have it; COCO's matches a box with one object."""
    result = evaluate_proposals([make_picture([[0, 0, 10, 10], [0, 0, 10, 9]])], {"a": [[0, 0, 10, 10]]})
    assert result["recall"]["0.9"] == 1


@pytest.mark.parametrize(
    ("boxes", "problem"),
    [
        (np.zeros((2, 5)), r"shape \(N, 4\), not \(2, 5\)"),
        (np.zeros(4), r"not \(4,\)"),
        ([[0, 0, np.nan, 1]], "is not a finite number"),
    ],
)
def test_boxes_of_another_shape_are_refused(boxes, problem):
    with pytest.raises(ValueError, match=problem):
        evaluate_proposals([make_picture([A])], {"a": boxes})


def test_recall_in_steps_of_a_twentieth():
    for height in range(1, 21):
        result = evaluate_proposals([make_picture([(0, 0, 10, 20)])], {"a": [(0, 0, 10, height)]}, limits=(1,))
        # An overlap of height / 20, which counts at every threshold up to that very number.
        expected = {f"{t / 20:.2f}": float(height >= t) for t in range(10, 20)}
        assert result["recall_curve"] == expected
        assert result["recall"] == {f"{t / 20:.1f}": expected[f"{t / 20:.2f}"] for t in range(10, 20, 2)}
        assert result["ar_at"]["1"] == pytest.approx(np.mean(list(expected.values())))


def test_average_best_overlap_of_each_class():
    pictures = [make_picture([A, B], labels=[0, 1]), make_picture([A], image_id="b")]
    found = {"a": [(0, 0, 10, 6), B], "b": [(0, 0, 10, 4)]}
    result = evaluate_proposals(pictures, found, classes=("cat", "dog", "horse"))
    assert result["abo"] == pytest.approx({"cat": 0.5, "dog": 1, "horse": np.nan}, nan_ok=True)
    assert result["mabo"] == pytest.approx(0.75)
    assert "abo" not in evaluate_proposals(pictures, found)
    with pytest.raises(ValueError, match="label 1, but there are 1 names"):
        evaluate_proposals(pictures, found, classes=("cat",))


def test_a_file_of_proposals_can_be_streamed():
    pictures = [make_picture([A, B]), make_picture([A], image_id="b"), make_picture([B], image_id="c")]
    found = {"b": [A], "a": [A, (50, 50, 60, 57)], "c": []}
    streamed = evaluate_proposals(pictures, ((image_id, boxes) for image_id, boxes in found.items()))
    np.testing.assert_equal(streamed, evaluate_proposals(pictures, found))
    assert streamed["recall"]["0.7"] == 0.75


def naive_best(own, boxes, limit):
    """Best overlap of each of a picture's objects with the first so many boxes, a pair at a time."""
    best = []
    for x1, y1, x2, y2 in own.tolist():
        overlaps = [0.0]
        for a, b, c, d in boxes[:limit].tolist():
            inter = max(min(x2, c) - max(x1, a), 0) * max(min(y2, d) - max(y1, b), 0)
            if inter:
                overlaps.append(inter / ((x2 - x1) * (y2 - y1) + (c - a) * (d - b) - inter))
        best.append(max(overlaps))
    return best


@given(st.integers(0, 2**32 - 1))
def test_fast_equals_naive(seed):
    rng = np.random.default_rng(seed)
    pictures, found = [], {}
    for image_id in "abcd":
        corners = np.sort(rng.integers(0, 20, (2, 30, 2)), axis=0)
        boxes = np.concatenate([*corners], axis=1).astype(np.float32)
        count = int(rng.integers(0, 6))
        pictures.append(make_picture(boxes[:count], rng.integers(0, 3, count), image_id))
        found[image_id] = boxes[6 : 6 + rng.integers(0, 25)]
    # Neither sorted nor distinct.
    limits = (10, 3, 100, 3)
    result = evaluate_proposals(pictures, found, limits, classes=("x", "y", "z"))
    labels = np.concatenate([one.labels for one in pictures])
    for limit in (*limits, None):
        best = np.concatenate([naive_best(one.boxes, found[one.image_id], limit) for one in pictures])
        recalls = [np.mean(best >= t / 20) if len(best) else np.nan for t in range(10, 20)]
        abo = [np.mean(best[labels == label]) if label in labels else np.nan for label in range(3)]
        mabo = np.nanmean(abo) if len(best) else np.nan
        if limit is None:
            assert list(result["recall_curve"].values()) == pytest.approx(recalls, nan_ok=True)
            assert list(result["abo"].values()) == pytest.approx(abo, nan_ok=True)
            assert result["mabo"] == pytest.approx(mabo, nan_ok=True)
        else:
            assert result["recall_at"][str(limit)] == pytest.approx(recalls[0], nan_ok=True)
            assert result["ar_at"][str(limit)] == pytest.approx(np.mean(recalls), nan_ok=True)
            assert result["mabo_at"][str(limit)] == pytest.approx(mabo, nan_ok=True)
    assert list(result["recall_at"]) == ["10", "3", "100"]


@given(st.integers(0, 2**32 - 1))
def test_more_proposals_never_cover_less(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 90, (2, 30, 2))
    boxes = np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1)
    result = evaluate_proposals([make_picture(boxes[:5], labels=rng.integers(0, 3, 5))], {"a": boxes[5:]}, (1, 5, 25))
    for at in (result["recall_at"], result["mabo_at"]):
        assert list(at.values()) == sorted(at.values())
    assert list(result["recall"].values()) == sorted(result["recall"].values(), reverse=True)
    assert result["mabo_at"]["25"] == result["mabo"]
    assert evaluate_proposals([make_picture(boxes[:5])], {"a": boxes[:5]})["mabo"] == 1


def coco_average_recall(pictures, proposals, limit):
    """Average recall by pycocotools without categories: of all, small, medium and large objects."""
    coco = pytest.importorskip("pycocotools.coco").COCO()
    from pycocotools.cocoeval import COCOeval

    def as_coco(box):
        x1, y1, x2, y2 = map(float, box)
        return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0, "category_id": 1}

    ids = {picture.image_id: i for i, picture in enumerate(pictures, 1)}
    boxes = [as_coco(box) | {"image_id": ids[p.image_id]} for p in pictures for box in p.boxes]
    coco.dataset = {
        "images": [{"id": i} for i in ids.values()],
        "categories": [{"id": 1}],
        "annotations": [box | {"id": i} for i, box in enumerate(boxes, 1)],
    }
    coco.createIndex()
    found = [
        as_coco(box) | {"image_id": ids[name], "score": 1 / (1 + rank)}
        for name, own in proposals.items()
        for rank, box in enumerate(own)
    ]
    evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
    evaluation.params.useCats, evaluation.params.maxDets = 0, [limit]
    evaluation.evaluate()
    evaluation.accumulate()
    recall = evaluation.eval["recall"][:, 0, :, 0]
    return [float(column.mean()) if column.min() > -1 else np.nan for column in recall.T]


@pytest.mark.parametrize("seed", range(4))
def test_cocos_average_recall_is_that_of_pycocotools(seed, capsys):
    rng = np.random.default_rng(seed)

    def near(boxes, count):
        """Boxes near some others, so that several of them want the same object."""
        chosen = boxes[rng.integers(len(boxes), size=count)]
        return np.float32(chosen + rng.normal(0, 6, chosen.shape))

    pictures, proposals = [], {}
    for name in "abcde":
        corners = rng.uniform(0, 300, (7, 2))
        objects = np.float32(np.concatenate([corners, corners + rng.uniform(8, 160, (7, 2))], axis=1))
        crowded = np.concatenate([objects, near(objects, 5)])
        crowded = crowded[(crowded[:, 2:] - crowded[:, :2] > 4).all(1)]
        boxes = near(crowded, 60)
        pictures.append(make_picture(crowded, image_id=name, size=(500, 500)))
        proposals[name] = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    result = evaluate_proposals(pictures, proposals, limits=(3, 20, 100), bootstrap=100)
    for limit in (3, 20, 100):
        expected = coco_average_recall(pictures, proposals, limit)
        own = result["coco_ar_at"][str(limit)]
        assert [own[size] for size in ("all", "small", "medium", "large")] == pytest.approx(expected, nan_ok=True)
        low, high = result["intervals"]["coco_ar_at"][str(limit)]["all"]
        assert low <= own["all"] <= high
        assert own["all"] <= result["ar_at"][str(limit)] + 1e-9
    assert result["recall_at_by_size"]["100"]["all"] == result["recall_at"]["100"]
    capsys.readouterr()


def test_a_box_counts_for_one_object_of_coco():
    result = evaluate_proposals([make_picture([[0, 0, 10, 10], [0, 0, 10, 9]])], {"a": [[0, 0, 10, 10]]})
    assert result["coco_ar_at"]["100"]["all"] == 0.5
    assert result["ar_at"]["100"] > 0.9
    assert np.isnan(result["coco_ar_at"]["100"]["large"])
