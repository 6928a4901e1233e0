"""Two detectors compared: against figures computed one by one, and p-values of equal detectors."""

from dataclasses import replace
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest
from builders import CLASSES, draw_pictures, make_detections, make_picture, random_scene
from scipy.stats import kstest

from inception_rcnn.data import Detections, Picture
from inception_rcnn.data.errors import SettingError
from inception_rcnn.eval import compare_detectors, evaluate_coco, evaluate_ilsvrc, evaluate_voc, tide_errors
from inception_rcnn.eval.bootstrap import Bootstrap
from inception_rcnn.eval.compare import describe_comparison, holm

BOX, FAR = [10, 10, 60, 60], [100, 100, 140, 140]


def worse(found: dict[str, Detections], seed: int) -> dict[str, Detections]:
    """Some detections left out, and other scores."""
    rng = np.random.default_rng(seed)
    return {
        name: replace(one, scores=rng.permutation(one.scores))[rng.random(len(one)) < 0.7]
        for name, one in found.items()
    }


@pytest.mark.parametrize("metric", ["voc07", "voc12", "ilsvrc", "coco"])
def test_figures_are_those_of_the_evaluators(metric: str) -> None:
    pictures, first = random_scene(2)
    second = worse(first, 0)

    def evaluate(pictures: list, found: dict) -> dict:
        if metric == "coco":
            return evaluate_coco(pictures, found, classes=CLASSES)
        if metric == "ilsvrc":
            return evaluate_ilsvrc(pictures, found, CLASSES)
        return evaluate_voc(pictures, found, CLASSES, metric)

    result = compare_detectors(pictures, first, second, CLASSES, metric=metric, bootstrap=100, seed=3)
    one, other = evaluate(pictures, first), evaluate(pictures, second)
    for key, expected in (("first", one), ("second", other)):
        assert result[key]["mAP"] == pytest.approx(expected["mAP"])
        assert result[key]["per_class"] == pytest.approx(expected["per_class"], nan_ok=True)
    # The pictures that decide most, by leaving them out; instead of 11 points by areas.
    metric = "voc12" if metric == "voc07" else metric
    one, other = evaluate(pictures, first), evaluate(pictures, second)
    for picture in result["pictures"][:3]:
        rest = [one for one in pictures if one.image_id != picture["image_id"]]
        without = [
            {name: boxes for name, boxes in found.items() if name != picture["image_id"]} for found in (first, second)
        ]
        difference = evaluate(rest, without[1])["mAP"] - evaluate(rest, without[0])["mAP"]
        assert picture["effect"] == pytest.approx(other["mAP"] - one["mAP"] - difference)
    assert [abs(picture["effect"]) for picture in result["pictures"]] == sorted(
        (abs(picture["effect"]) for picture in result["pictures"]), reverse=True
    )
    if result["metric"] == "voc07":
        metric = "voc07"
        bootstrap = Bootstrap(len(pictures), 100, 3)
        slow = [
            evaluate(*draw_pictures((pictures, second), counts))["mAP"]
            - evaluate(*draw_pictures((pictures, first), counts))["mAP"]
            for counts in bootstrap.weights
        ]
        low, high, p_value = bootstrap.difference(np.array(slow))
        assert result["difference"]["mAP"] == {
            "difference": pytest.approx(slow[0]),
            "interval": pytest.approx([low, high]),
            "p_value": pytest.approx(p_value),
        }
        assert result["second"]["errors"] == tide_errors(pictures, second, CLASSES)
        assert result["first"]["total"] == sum(len(one.scores) for one in first.values())
        assert result["first"]["most_per_picture"] == max(len(one.scores) for one in first.values())
        assert result["first"]["lowest_score"] == min(one.scores.min() for one in first.values() if len(one.scores))


def test_objects_and_boxes_by_hand() -> None:
    pictures = [make_picture([BOX, FAR], [0, 1], name) for name in "abc"]
    first = {name: make_detections([BOX, FAR], [0.9, 0.8], [0, 1]) for name in "ab"}
    # A cat a little off, no dog; a dog only; what is below its best threshold.
    second = {
        "a": make_detections([[10, 10, 60, 50]], [0.3], [0]),
        "c": make_detections([FAR, [0, 0, 9, 9]], [0.2, 0.1], [1, 1]),
    }
    result = compare_detectors(pictures, first, second, CLASSES, bootstrap=100)
    assert (result["first"]["threshold"], result["second"]["threshold"]) == pytest.approx((0.8, 0.2))
    assert result["objects"] == {"both": 1, "first": 3, "second": 1, "neither": 1}
    assert [(result[key]["detections"], result[key]["agreeing"]) for key in ("first", "second")] == [(4, 1), (2, 1)]
    assert result["first"]["agreeing_iou"] == pytest.approx(0.8)


def test_a_detector_with_itself() -> None:
    pictures, found = random_scene(1)
    result = compare_detectors(pictures, found, found, CLASSES, bootstrap=100)
    assert result["difference"]["mAP"] == {"difference": 0, "interval": [0, 0], "p_value": 1}
    assert {one["p_value"] for one in result["difference"]["per_class"].values()} == {1}
    assert result["pictures"] == []
    assert (result["objects"]["first"], result["objects"]["second"]) == (0, 0)
    assert result["first"]["agreeing"] == result["first"]["detections"] > 0


@pytest.mark.slow
def test_p_values_of_equal_detectors_are_uniform() -> None:
    """Detectors that find each object with the same probability, and are wrong as often."""
    rng = np.random.default_rng(6)
    names = [str(i) for i in range(40)]
    pictures = [make_picture([BOX, FAR], [0, 1], name) for name in names]

    def detector() -> dict[str, Detections]:
        found = {}
        for name in names:
            there = rng.random(2) < 0.7
            boxes, labels = np.array([BOX, FAR])[there], np.array([0, 1])[there]
            false = np.array([[0, 0, 5, 5], [2, 2, 8, 8]])
            scores = np.concatenate([rng.beta(3, 2, there.sum()), rng.beta(2, 3, 2)])
            found[name] = make_detections([*boxes, *false], scores, [*labels, 0, 1])
        return found

    p_values = [
        compare_detectors(pictures, detector(), detector(), ("cat", "dog"), metric="voc12", bootstrap=200, seed=seed)[
            "difference"
        ]["mAP"]["p_value"]
        for seed in range(120)
    ]
    assert kstest(p_values, "uniform").pvalue > 0.05


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    corrected = holm([nan, 0.02])
    assert isnan(corrected[0])
    assert corrected[1] == 0.02
    assert holm([]) == []


@pytest.mark.parametrize("options", [{"metric": "voc"}, {"blacklist": [("a", "cat")]}, {"bootstrap": 10}])
def test_settings_that_are_refused(options: dict) -> None:
    with pytest.raises(SettingError):
        compare_detectors([make_picture([BOX])], {}, {}, CLASSES, **options)


def test_longer_lists_are_compared_with_lists_as_short_too() -> None:
    boxes = np.array([[0, 0, 20, 20], [30, 0, 50, 20]], np.float32)
    labels, no = np.zeros(2, np.int64), np.zeros(2, bool)
    pictures = [Picture(str(i), Path(f"{i}.jpg"), 60, 30, boxes, labels, no, no) for i in range(4)]
    both = {one.image_id: Detections(boxes, np.float32([0.2, 0.9]), labels, ("cat",)) for one in pictures}
    # The better of the two, whatever its place.
    one = {name: found[[1]] for name, found in both.items()}
    result = compare_detectors(pictures, one, both, ("cat",), metric="voc12", bootstrap=100)
    assert (result["first"]["mAP"], result["second"]["mAP"]) == (0.5, 1)
    assert result["same_length"] == {"boxes": 1, "first": 0.5, "second": 0.5}
    assert "With at most 1 boxes a picture of both: A 50.00, B 50.00." in describe_comparison(result, 4)
    assert compare_detectors(pictures, both, both, ("cat",), bootstrap=100)["same_length"] is None


def test_boxes_on_difficult_objects_are_told() -> None:
    boxes = np.array([[0, 0, 20, 20], [30, 0, 50, 20]], np.float32)
    labels, no = np.zeros(2, np.int64), np.zeros(2, bool)
    pictures = [Picture("a", Path("a.jpg"), 60, 30, boxes, labels, np.array([False, True]), no)]
    found = {"a": Detections(boxes, np.float32([0.9, 0.9]), labels, ("cat",))}
    result = compare_detectors(pictures, found, found, ("cat",), bootstrap=100)["first"]
    assert (result["detections"], result["not_counted"], result["precision"], result["recall"]) == (2, 1, 1, 1)
