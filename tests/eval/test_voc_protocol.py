import json
import tarfile
import warnings
from dataclasses import replace

import numpy as np
import pytest
from builders import inclusive_boxes, make_detections, make_picture, voc_xml, write_voc
from hypothesis import given
from hypothesis import strategies as st

from inception_rcnn.data import VOC_CLASSES, Detections, Picture, read_voc, read_voc_results
from inception_rcnn.data.errors import DataWarning, SettingError
from inception_rcnn.eval import (
    EvaluationError,
    average_precision,
    evaluate_coco,
    evaluate_ilsvrc,
    evaluate_proposals,
    evaluate_voc,
    false_positives,
    match_ilsvrc,
    match_voc,
    merge_detections,
    write_report,
)

CLASSES = ("cat", "dog")


def picture(corners, image_id="a", labels=None, **flags):
    return make_picture(inclusive_boxes(corners), labels, image_id, **flags)


def detected(corners, scores, labels=None, classes=CLASSES):
    return make_detections(inclusive_boxes(corners), scores, labels, classes)


def cat(pictures, found, metric="voc12", **options):
    """Average precision of cats, by area, which shows every hit and every false detection."""
    return evaluate_voc(pictures, found, CLASSES, metric, **options)["per_class"]["cat"]


A, B, FAR = (1, 1, 10, 10), (31, 31, 40, 40), (71, 71, 80, 80)


def test_a_hit_and_a_miss():
    assert cat([picture([A, B])], {"a": detected([A], [0.5])}) == 0.5
    assert cat([picture([A])], {"a": detected([A], [0.5])}, metric="voc07") == 1
    assert cat([picture([A])], {"a": detected([FAR, A], [0.9, 0.5])}) == 0.5


def test_a_second_hit_is_false():
    found = {"a": detected([A, A, B], [0.9, 0.8, 0.7])}
    assert cat([picture([A, B])], found) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_a_difficult_object_missed_is_no_miss():
    assert cat([picture([A, B], difficult=[False, True])], {"a": detected([A], [0.5])}) == 1


def test_a_difficult_object_hit_is_left_out():
    found = {"a": detected([B, A], [0.9, 0.5])}
    assert cat([picture([A, B], difficult=[False, True])], found) == 1


def test_a_difficult_object_hit_twice_is_left_out_twice():
    found = {"a": detected([B, B, A], [0.9, 0.8, 0.5])}
    assert cat([picture([A, B], difficult=[False, True])], found) == 1


def test_a_crowd_is_left_out_like_a_difficult_object():
    found = {"a": detected([B, B, A], [0.9, 0.8, 0.5])}
    assert cat([picture([A, B], crowd=[False, True])], found) == 1


def test_the_overlap_counts_inclusive_pixels():
    # 10 x 10 pixels against the 10 x 5 among them: half, with the last row and column counted.
    assert cat([picture([A])], {"a": detected([(1, 1, 10, 5)], [0.5])}) == 1
    # Without counting them it would be 9 x 4 of 9 x 9, and 9 x 5 of 9 x 9 would do.
    assert cat([picture([A])], {"a": detected([(1, 1, 9, 5)], [0.5])}) == 0


def test_the_threshold_can_be_set():
    found = {"a": detected([(1, 1, 10, 7)], [0.5])}
    assert cat([picture([A])], found, iou_threshold=0.7) == 1
    assert cat([picture([A])], found, iou_threshold=0.71) == 0


def test_only_the_best_overlapping_object_counts():
    first, second = (1, 1, 10, 10), (1, 1, 10, 9)
    # The second detection would fit the second object well enough, but overlaps the first, taken, better.
    found = {"a": detected([first, first], [0.9, 0.8])}
    assert cat([picture([first, second])], found) == 0.5
    found = {"a": detected([first, second], [0.9, 0.8])}
    assert cat([picture([first, second])], found) == 1


def test_a_difficult_object_that_fits_best_hides_an_ordinary_one():
    first, second = (1, 1, 10, 10), (1, 1, 10, 9)
    found = {"a": detected([second], [0.9])}
    assert cat([picture([first, second], difficult=[False, True])], found) == 0
    assert cat([picture([first, second], difficult=[True, False])], found) == 1


def test_of_equal_overlaps_the_first_object_is_taken():
    assert cat([picture([A, A], difficult=[True, False])], {"a": detected([A], [0.9])}) == 0


def test_objects_of_other_classes_do_not_count():
    result = evaluate_voc([picture([A, B], labels=[1, 0])], {"a": detected([A, B], [0.9, 0.8])}, CLASSES, "voc12")
    assert result["per_class"] == {"cat": 0.5, "dog": 0}
    assert result["mAP"] == 0.25


def test_equal_scores_keep_the_order_of_the_pictures():
    pictures = [picture([A], "a"), picture([A], "b")]
    hit, false = detected([A], [0.5]), detected([FAR], [0.5])
    for found in ({"a": hit, "b": false}, {"b": false, "a": hit}):
        assert cat(pictures, found) == 0.5
        assert cat(pictures[::-1], found) == 0.25
    assert cat(pictures, {"a": detected([A, FAR], [0.5, 0.5])}) == 0.5
    assert cat(pictures, {"a": detected([FAR, A], [0.5, 0.5])}) == 0.25


def test_a_class_without_objects_is_not_in_the_mean():
    result = evaluate_voc([picture([A])], {"a": detected([A, A], [0.9, 0.8], [0, 1])}, CLASSES)
    assert result["mAP"] == 1
    assert np.isnan(result["per_class"]["dog"])
    only_difficult = evaluate_voc([picture([A], difficult=[True])], {}, CLASSES)
    assert np.isnan(only_difficult["per_class"]["cat"])
    assert np.isnan(only_difficult["mAP"])


def test_a_class_without_detections_has_0():
    for found in ({}, {"a": detected([], [])}, {"a": detected([A], [0.5], [1])}):
        assert evaluate_voc([picture([A])], found, CLASSES)["per_class"]["cat"] == 0
    assert evaluate_voc([], {}, CLASSES)["per_class"].keys() == set(CLASSES)


def test_detections_in_unknown_pictures_are_left_out_or_refused_altogether():
    with pytest.raises(EvaluationError, match=r"picture 'b' has detections but no annotations \(1 such"):
        evaluate_voc([picture([A])], {"b": detected([A], [0.5])}, CLASSES)
    with pytest.warns(DataWarning, match="^1 picture is in the detections and not annotated, and left out: b$"):
        assert cat([picture([A])], {"a": detected([A], [0.5]), "b": detected([A], [0.9])}) == 1
    assert cat([picture([A])], {"a": detected([A], [0.5]), "b": detected([], [])}) == 1
    with pytest.raises(EvaluationError, match="'a' is among the annotations twice"):
        evaluate_voc([picture([A]), picture([B])], {}, CLASSES)


def test_classes_are_matched_by_name():
    found = {"a": detected([A, B, FAR], [0.9, 0.8, 0.7], [2, 1, 0], classes=("zebra", "dog", "cat"))}
    result = evaluate_voc([picture([A, B], labels=[0, 1])], found, CLASSES)
    assert result["per_class"] == {"cat": 1, "dog": 1}


def test_classes_are_those_that_the_pictures_were_read_with(tmp_path):
    root = write_voc(tmp_path, {"a": voc_xml(("pet", *A))})
    pictures, found = read_voc(root, "test", ("pet",)), {"a": detected([A], [0.5], classes=("pet",))}
    result = evaluate_voc(pictures, found)
    assert (result["mAP"], result["per_class"]) == (1, {"pet": 1})
    assert list(match_voc(pictures, found)) == ["pet"]
    assert evaluate_ilsvrc(pictures, found)["per_class"] == {"pet": 1}
    assert evaluate_coco(pictures, found)["per_class"] == {"pet": pytest.approx(1)}
    assert evaluate_proposals(pictures, {"a": inclusive_boxes([A])})["abo"] == {"pet": 1}
    assert '"pet"' in write_report(tmp_path / "report", pictures, found).read_text("utf-8")
    # The same label is another class in another list.
    for classes in (VOC_CLASSES, ("cat",), ("robot", "pet")):
        for evaluate in (evaluate_voc, match_voc, evaluate_ilsvrc, match_ilsvrc, evaluate_coco):
            with pytest.raises(EvaluationError, match=r"pictures were read with 1 classes \(pet\)"):
                evaluate(pictures, found, classes=classes)
        with pytest.raises(EvaluationError, match="pictures were read with 1 classes"):
            evaluate_proposals(pictures, {}, classes=classes)
        with pytest.raises(EvaluationError, match="pictures were read with 1 classes"):
            write_report(tmp_path / "report", pictures, found, classes)
    others = [replace(pictures[0], image_id="b", classes=("robot", "pet"))]
    with pytest.raises(EvaluationError, match=r"\(pet\), which their labels number, others with 2 \(robot, pet\)"):
        evaluate_voc(pictures + others, found)


def test_classes_that_detections_do_not_know_are_told():
    pictures = [picture([A, B], labels=[0, 1])]
    with pytest.warns(DataWarning, match="1 of 2 evaluated classes with objects are not among those of .* 0: dog$"):
        evaluate_voc(pictures, {"a": detected([A], [0.5], classes=("cat",))}, CLASSES)
    with pytest.warns(DataWarning, match=r"0: dog \(is that Dogs\?\)$"):
        evaluate_voc(pictures, {"a": detected([A], [0.5], classes=("cat", "Dogs"))}, CLASSES)
    with pytest.warns(DataWarning, match=r"2 of 2 .*: cat, dog; the detections have pet$"):
        assert evaluate_ilsvrc(pictures, {"a": detected([A], [0.5], classes=("pet",))}, CLASSES)["mAP"] == 0


@pytest.mark.parametrize("evaluate", [evaluate_voc, evaluate_ilsvrc, evaluate_coco])
def test_detections_far_outside_are_told(evaluate):
    """Of a picture of 100 x 100 pixels: one box in 20 may be far outside, and boxes by less than a tenth."""
    near = [(1, 1, 109, 50), (-8, 1, 50, 50)]
    far = [(1, 1, 120, 50), (1, 1, 50, 120), (-15, 1, 50, 50), (1, -15, 50, 50)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(
            [make_picture(inclusive_boxes([A]), size=(100, 100))],
            {"a": detected([A] * 17 + near + far[:1], [0.5] * 20)},
            classes=CLASSES,
        )
    with pytest.warns(DataWarning, match="4 of 6 detections end far outside their annotated picture"):
        evaluate(
            [make_picture(inclusive_boxes([A]), size=(100, 100))],
            {"a": detected(near + far, [0.5] * 6)},
            classes=CLASSES,
        )
    unknown = replace(make_picture(inclusive_boxes([A]), size=(100, 100)), width=0, height=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate([unknown], {"a": detected(far[:2], [0.5] * 2)}, classes=CLASSES)


def test_11_points():
    # One of two objects is found: precision 1 at the recalls 0, 0.1, ..., 0.5.
    assert average_precision([0.5], [1.0]) == pytest.approx(6 / 11)
    # 3/10 is less than 3 * 0.1 in floating point, where Octave's 0:0.1:1 puts its fourth point.
    assert average_precision([0.1, 0.2, 0.3], [1.0, 1.0, 1.0]) == pytest.approx(3 / 11)


def test_area():
    assert average_precision([0.25, 0.25, 0.5], [1, 0.5, 2 / 3], "voc12") == pytest.approx(0.25 + 0.25 * 2 / 3)
    assert average_precision([], [], "voc12") == average_precision([], []) == 0


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="'voc13'"):
        average_precision([1], [1], "voc13")
    with pytest.raises(ValueError, match="one shape"):
        average_precision([1], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        average_precision([np.nan], [1])
    for threshold in (np.nan, 50, -0.1, "0.5"):
        with pytest.raises(SettingError, match="iou_threshold must be a number, 0 to 1"):
            evaluate_voc([], {}, CLASSES, iou_threshold=threshold)
    for evaluate in (evaluate_voc, match_voc, evaluate_ilsvrc, match_ilsvrc, evaluate_coco, evaluate_proposals):
        with pytest.raises(SettingError, match="classes must be a list of names, not one name"):
            evaluate([], {}, classes="cat")
    with pytest.raises(SettingError, match="a group of similar classes must be a list of names"):
        false_positives([], {}, match_voc([], {}, CLASSES), similar=["cat"])


def official(recall, precision, metric):
    """Compute average precision as the development kit is written: loops, and infinite guards at the ends."""
    if metric == "voc07":
        return (
            sum(max([p for r, p in zip(recall, precision, strict=True) if r >= i * 0.1], default=0) for i in range(11))
            / 11
        )
    r, p = [0, *recall, 1], [0, *precision, 0]
    for i in range(len(p) - 2, -1, -1):
        p[i] = max(p[i], p[i + 1])
    return sum((r[i] - r[i - 1]) * p[i] for i in range(1, len(r)) if r[i] != r[i - 1])


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 20), st.sampled_from(["voc07", "voc12"]))
def test_average_precision_equals_the_official_loops(hits, missed, metric):
    found = np.cumsum(hits)
    positives = sum(hits) + missed
    recall, precision = found / max(positives, 1), found / np.arange(1, len(hits) + 1)
    value = average_precision(recall, precision, metric)
    assert value == pytest.approx(official(recall.tolist(), precision.tolist(), metric), abs=1e-12)
    assert 0 <= value <= 1


@st.composite
def scenes(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pictures = []
    for i in range(draw(st.integers(1, 4))):
        count = int(rng.integers(1, 6))
        # One object to a cell of 20 pixels: none overlaps another.
        cell = rng.permutation(25)[:count]
        start = np.stack([cell % 5 * 20 + 1, cell // 5 * 20 + 1], axis=1)
        corners = np.concatenate([start, start + rng.integers(3, 19, (count, 2))], axis=1)
        pictures.append(picture(corners, f"p{i}", labels=rng.integers(0, 2, count), difficult=rng.random(count) < 0.2))
    return pictures, rng


@given(scenes(), st.sampled_from(["voc07", "voc12"]))
def test_perfect_detections_have_1(scene, metric):
    pictures, rng = scene
    found = {
        p.image_id: make_detections(p.boxes, rng.random(len(p.labels), np.float32), p.labels, CLASSES) for p in pictures
    }
    values = [v for v in evaluate_voc(pictures, found, CLASSES, metric)["per_class"].values() if not np.isnan(v)]
    assert values == pytest.approx([1] * len(values))


@given(scenes(), st.sampled_from(["voc07", "voc12"]))
def test_average_precision_is_at_most_what_the_recall_allows(scene, metric):
    pictures, rng = scene
    found = {}
    for p in pictures:
        boxes = p.boxes[rng.integers(0, len(p.boxes), 12)] + rng.integers(-4, 5, (12, 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        found[p.image_id] = make_detections(boxes, rng.random(12, np.float32), rng.integers(0, 2, 12), CLASSES)
    result = evaluate_voc(pictures, found, CLASSES, metric)
    for name, one in match_voc(pictures, found, CLASSES).items():
        # As if all hits came first, with every other detection behind them.
        recall = max(one.precision_recall()[1], default=0)
        most = recall if metric == "voc12" else (recall > 0) * (np.floor(10 * recall + 1e-9) + 1) / 11
        value = result["per_class"][name]
        assert np.isnan(value) or 0 <= value <= most + 1e-9


@pytest.fixture(scope="module")
def reference(shared, tmp_path_factory):
    folder = shared / "reference" / "voc07_detections"
    if not folder.is_dir():
        pytest.skip("no VOC 2007 detections in the folder of reference data")
    root = tmp_path_factory.mktemp("devkit")
    with tarfile.open(folder / "devkit_test_annotations.tar.gz") as archive:
        archive.extractall(root, filter="data")
    return (
        read_voc(root / "VOC2007", "test"),
        read_voc_results(folder),
        json.loads((folder / "expected_ap.json").read_text()),
    )


@pytest.mark.parametrize("metric", ["voc07", "voc12"])
def test_the_official_code_gives_the_same(reference, metric):
    pictures, found, expected = reference
    assert len(pictures) == 4952
    result = evaluate_voc(pictures, found, VOC_CLASSES, metric)
    for name, values in expected.items():
        assert result["per_class"][name] == pytest.approx(values[metric], abs=1e-8)
    assert result["mAP"] == pytest.approx(sum(values[metric] for values in expected.values()) / 20, abs=1e-8)


@pytest.mark.parametrize("evaluate", [evaluate_voc, evaluate_ilsvrc])
@pytest.mark.parametrize("detections", ["detections.json", [], {"a": [[0, 0, 1, 1]]}])
def test_what_are_no_pictures_or_no_detections_is_refused(evaluate, detections):
    with pytest.raises(SettingError, match="Detections"):
        evaluate([], detections)
    with pytest.raises(SettingError, match="pictures must be a list of Picture"):
        evaluate("VOC2007", {})
    with pytest.raises(SettingError, match="members must be a list of dicts"):
        merge_detections(["one.json", "other.json"])
    with pytest.raises(SettingError, match="proposals must be a dict"):
        evaluate_proposals([], "boxes.npz")
    with pytest.raises(SettingError, match="limits must be a list"):
        evaluate_proposals([], {}, limits=100)


def test_the_classes_of_pictures_may_be_a_list():
    box, label, no = np.float32([[0, 0, 9, 9]]), np.array([0]), np.array([False])
    pictures = [Picture("a", "a.jpg", 20, 10, box, label, no, no, classes=["pet"])]
    found = {"a": Detections(box, np.float32([0.5]), label, ("pet",))}
    assert evaluate_voc(pictures, found)["mAP"] == 1
