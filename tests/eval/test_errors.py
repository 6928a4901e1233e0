import numpy as np
import pytest
from builders import CLASSES, make_detections, make_picture
from hypothesis import given
from hypothesis import strategies as st

from inception_rcnn.data import VOC_CLASSES
from inception_rcnn.eval import average_precision, errors, match_ilsvrc, match_voc
from inception_rcnn.eval.errors import (
    ERROR_TYPES,
    SIZES,
    false_positive_shares,
    false_positives,
    normalised_average_precision,
    size_sensitivity,
)
from inception_rcnn.eval.matching import FALSE, HIT, IGNORED, Matches

PETS = [("cat", "dog")]
CAT, DOG, CAR = [0, 0, 100, 100], [200, 0, 300, 100], [400, 0, 500, 100]


def picture(boxes=(CAT, DOG, CAR), labels=(0, 1, 2), image_id="a", **flags):
    return make_picture(boxes, labels, image_id, **flags)


def kinds_of_cats(boxes, pictures=None, similar=PETS):
    pictures = pictures or [picture()]
    found = {"a": make_detections(boxes)}
    result = false_positives(pictures, found, match_voc(pictures, found, CLASSES), similar)["cat"]
    return [None if kind < 0 else ERROR_TYPES[kind] for kind in result.kind], result


@pytest.mark.parametrize(
    ("box", "kind", "position", "overlap"),
    [
        ([0, 0, 100, 90], None, -1, 0),
        ([0, 0, 100, 40], "localisation", 0, 0.4),
        ([0, 0, 100, 10], "localisation", 0, 0.1),
        ([0, 0, 100, 9], "background", -1, 0),
        ([200, 0, 300, 100], "similar", 1, 1),
        ([200, 0, 300, 10], "similar", 1, 0.1),
        ([400, 0, 500, 100], "other", 2, 1),
        ([400, 0, 500, 9.5], "background", -1, 0),
        ([120, 0, 180, 100], "background", -1, 0),
    ],
)
def test_each_kind_by_itself(box, kind, position, overlap):
    kinds, result = kinds_of_cats([box])
    assert kinds == [kind]
    assert result.object.tolist() == [position]
    assert result.overlap == pytest.approx([overlap])


def test_a_second_detection_of_an_object_is_badly_localised():
    assert kinds_of_cats([CAT, CAT])[0] == [None, "localisation"]


def test_the_first_kind_that_applies():
    dog, car, cat = [0, 0, 100, 50], [0, 0, 100, 60], [0, 0, 100, 40]
    everything = [picture([car, dog, cat], [2, 1, 0])]
    assert kinds_of_cats([[0, 0, 100, 100]], everything)[0] == ["localisation"]
    # Although it overlaps the car more.
    assert kinds_of_cats([[0, 0, 100, 100]], [picture([car, dog], [2, 1])])[0] == ["similar"]
    assert kinds_of_cats([[0, 0, 100, 100]], [picture([car, dog], [2, 1])], similar=[])[0] == ["other"]


def test_difficult_objects_are_objects():
    pictures = [picture(difficult=[True, True, True])]
    assert kinds_of_cats([CAT, [0, 0, 100, 40], DOG, CAR], pictures)[0] == [None, "localisation", "similar", "other"]


def test_groups_of_similar_classes():
    def kind(of, on, classes=VOC_CLASSES, similar=None):
        pictures = [picture([CAT], [classes.index(on)])]
        found = {"a": make_detections([CAT], labels=[classes.index(of)], classes=classes)}
        result = false_positives(pictures, found, match_voc(pictures, found, classes), similar)
        return ERROR_TYPES[result[of].kind[0]]

    assert kind("cat", "person") == kind("bird", "aeroplane") == kind("aeroplane", "car") == "similar"
    assert kind("bird", "car") == kind("bottle", "pottedplant") == "other"
    assert kind("cat", "dog", classes=CLASSES) == "other"
    assert kind("cat", "dog", classes=CLASSES, similar=PETS) == "similar"
    with pytest.raises(ValueError, match="'horse', which is not among the classes"):
        kind("cat", "dog", classes=CLASSES, similar=[("cat", "horse")])


def test_classes_that_are_not_evaluated_and_pictures_without_detections():
    pictures = [picture(), picture(image_id="b"), picture([], [], "c")]
    found = {
        "b": make_detections([CAT, DOG, CAR], labels=[3, 1, 0], classes=("dog", "car", "zebra", "cat")),
        "c": make_detections([CAT]),
    }
    result = false_positives(pictures, found, match_voc(pictures, found, CLASSES), PETS)
    assert {name: one.kind.tolist() for name, one in result.items()} == {"cat": [-1, 3], "dog": [2], "car": [1 + 1]}


def matches_of(outcomes, positives):
    none = np.zeros(len(outcomes), np.int64)
    scores = np.linspace(1, 0, len(outcomes))
    return Matches(none, none, scores, np.array(outcomes, np.int8), none, np.zeros(len(outcomes)), positives)


def test_shares_are_of_as_many_false_positives_as_there_are_objects():
    def share(outcomes, kinds, positives):
        kinds = np.array(kinds, np.int8)
        false = errors.FalsePositives(kinds, np.zeros(len(kinds), np.int64), np.zeros(len(kinds), np.float32))
        return list(
            false_positive_shares({"cat": matches_of(outcomes, positives)}, {"cat": false})["per_class"]["cat"].values()
        )

    outcomes, kinds = [FALSE, HIT, IGNORED, FALSE, FALSE, FALSE], [0, -1, -1, 1, 0, 3]
    assert share(outcomes, kinds, 1) == [1, 0, 0, 0]
    assert share(outcomes, kinds, 2) == [0.5, 0.5, 0, 0]
    assert share(outcomes, kinds, 9) == [0.5, 0.25, 0, 0.25]
    assert np.isnan(share(outcomes, kinds, 0)).all()
    assert np.isnan(share([HIT], [-1], 2)).all()


@st.composite
def scenes(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pictures, found = [], {}
    for i in range(draw(st.integers(0, 4))):
        count, claims = int(rng.integers(0, 7)), int(rng.integers(0, 15))
        start = rng.integers(0, 60, (count, 2))
        boxes = np.concatenate([start, start + rng.integers(5, 60, (count, 2))], axis=1)
        pictures.append(picture(boxes, rng.integers(0, 3, count), f"p{i}", difficult=rng.random(count) < 0.2))
        if count:
            moved = boxes[rng.integers(0, count, claims)] + rng.integers(-12, 13, (claims, 4))
            moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
            labels = rng.integers(0, 3, claims)
            found[f"p{i}"] = make_detections(moved, rng.integers(0, 5, claims) / 4, labels)
    return pictures, found


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (area - width * height)


@given(
    scenes(), st.sampled_from([match_voc, match_ilsvrc]), st.sampled_from([[], PETS, [("cat", "dog"), ("dog", "car")]])
)
def test_kinds_equal_a_naive_search(scene, match, similar):
    pictures, found = scene
    matches = match(pictures, found, CLASSES)
    result = false_positives(pictures, found, matches, similar)
    for name, one in matches.items():
        for row, outcome in enumerate(one.outcome):
            where = pictures[one.picture[row]]
            box = found[where.image_id].boxes[one.detection[row]].tolist()
            touched = {
                CLASSES[label]
                for b, label in zip(where.boxes.tolist(), where.labels, strict=True)
                if iou(box, b) >= 0.1
            }
            alike = {other for group in similar if name in group for other in group} - {name}
            if outcome != FALSE:
                expected = -1
            elif name in touched:
                expected = 0
            elif touched & alike:
                expected = 1
            else:
                expected = 2 if touched else 3
            assert result[name].kind[row] == expected
            position = result[name].object[row]
            assert (position >= 0) == (expected in (0, 1, 2))
            if position >= 0:
                assert result[name].overlap[row] == pytest.approx(iou(box, where.boxes[position].tolist()), abs=1e-6)
    for name, row in false_positive_shares(matches, result)["per_class"].items():
        if matches[name].positives and (matches[name].outcome == FALSE).any():
            assert sum(row.values()) == pytest.approx(1)


@given(st.lists(st.sampled_from([HIT, FALSE, IGNORED]), max_size=40), st.integers(0, 9), st.floats(0.1, 1e4))
def test_normalised_average_precision(outcomes, missed, positives):
    found = outcomes.count(HIT)
    matches = matches_of(outcomes, found + missed)
    if not found + missed:
        assert np.isnan(normalised_average_precision(matches, positives))
        return
    precision, recall = matches.precision_recall()
    own = normalised_average_precision(matches, found + missed)
    assert own == pytest.approx(average_precision(recall, precision, "voc12"))

    # The paper's own code: the mean, over the hits, of the best normalised precision from there on, times the recall.
    normalised, hits, false = [], 0, 0
    for outcome in outcomes:
        hits, false = hits + (outcome == HIT), false + (outcome == FALSE)
        weighted = hits / (found + missed) * positives
        normalised.append(weighted / (weighted + false) if weighted + false else 0)
    best = [max(normalised[i:]) for i, outcome in enumerate(outcomes) if outcome == HIT]
    expected = sum(best) / (found + missed)
    assert normalised_average_precision(matches, positives) == pytest.approx(expected)


def test_sizes():
    # Ten cats, each larger than the one before; found are the smallest and one of middle size. One dog, found.
    cats = [[20 * i, 0, 20 * i + 2 + i, 10] for i in range(10)]
    pictures = [picture([*cats, [300, 0, 400, 90]], [0] * 10 + [1])]
    found = {"a": make_detections([cats[0], [500, 50, 510, 60], cats[4], [300, 0, 400, 90]], labels=[0, 0, 0, 1])}
    result = size_sensitivity(pictures, match_voc(pictures, found, CLASSES))
    row = result["per_class"]["cat"]
    assert list(row) == [*SIZES, "all"]
    # N is 5.5, the mean of 10 and 1. In the middle: one of 4 found, after one false positive.
    normalised = 5.5 / 4 / (5.5 / 4 + 1)
    assert list(row.values())[:5] == pytest.approx([1, 0, normalised / 4, 0, 0])
    assert row["all"] == pytest.approx(0.1 + 0.1 * (1.1 / (1.1 + 1)))
    dog = result["per_class"]["dog"]
    assert dog["medium"] == dog["all"] == 1
    assert np.isnan([dog[size] for size in SIZES if size != "medium"]).all()
    assert np.isnan(list(result["per_class"]["car"].values())).all()
    assert result["mean"]["extra small"] == 1
    assert result["mean"]["medium"] == pytest.approx((normalised / 4 + 1) / 2)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 10, 17, 100])
def test_parts_by_size(count):
    area = np.random.default_rng(0).permutation(count).astype(np.float32) + 1
    size = errors._size(area)
    share = np.cumsum(np.bincount(size, minlength=5))[:4]
    assert np.abs(share - np.array([0.1, 0.3, 0.7, 0.9]) * count).max() <= 0.5
    assert (np.diff(size[np.argsort(area)]) >= 0).all()


def test_equal_sizes_stay_together():
    assert len(set(errors._size(np.full(20, 7, np.float32)))) == 1


def test_sizes_only_of_the_objects_that_were_matched():
    pictures = [picture(difficult=[True, False, False])]
    assert np.isnan(size_sensitivity(pictures, match_voc(pictures, {}, CLASSES))["per_class"]["cat"]["all"])
    with pytest.raises(ValueError, match="cat: the pictures' flags leave 0 objects to be found, the matches have 1"):
        size_sensitivity(pictures, match_ilsvrc(pictures, {}, CLASSES))


def test_nothing():
    matches = match_voc([], {}, CLASSES)
    assert all(len(one.kind) == 0 for one in false_positives([], {}, matches).values())
    assert np.isnan(false_positive_shares(matches, false_positives([], {}, matches))["mean"]["other"])
    assert np.isnan(size_sensitivity([], matches)["mean"]["all"])
