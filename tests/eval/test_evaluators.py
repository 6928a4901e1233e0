"""Evaluators for loops: the same as the evaluators of files, whatever the batches, processes and types of arrays."""

import pickle
import subprocess
import sys
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import CLASSES, random_scene

from inception_rcnn.data import read_detections, write_detections
from inception_rcnn.data.errors import EvaluationError, SettingError
from inception_rcnn.eval import (
    COCOEvaluator,
    ILSVRCEvaluator,
    VOCEvaluator,
    evaluate_coco,
    evaluate_ilsvrc,
    evaluate_voc,
)

Entries = list[dict[str, Any]]
BLACKLIST = [("001", "cat")]
EVALUATORS = {
    "voc07": (lambda classes: VOCEvaluator(classes), lambda *scene: evaluate_voc(*scene, CLASSES)),
    "voc12": (lambda classes: VOCEvaluator(classes, "voc12", 0.6), lambda *s: evaluate_voc(*s, CLASSES, "voc12", 0.6)),
    "ilsvrc": (
        lambda classes: ILSVRCEvaluator(classes, BLACKLIST),
        lambda *scene: evaluate_ilsvrc(*scene, CLASSES, BLACKLIST),
    ),
    "coco": (lambda classes: COCOEvaluator(classes), lambda *scene: evaluate_coco(*scene, classes=CLASSES)),
}


def entries(scene: Any) -> tuple[Entries, Entries]:
    pictures, found = scene
    targets = [
        {
            "boxes": one.boxes,
            "labels": one.labels,
            "difficult": one.difficult,
            "iscrowd": one.crowd.astype(np.int64),
            "image_id": one.image_id,
        }
        for one in pictures
    ]
    outputs = [found[one.image_id] for one in pictures]
    return targets, [{"boxes": one.boxes, "scores": one.scores, "labels": one.labels} for one in outputs]


def same(result: Any, expected: Any) -> bool:
    """Equal to the last digit, nan included."""
    if isinstance(expected, dict):
        return all(same(result[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(result) == len(expected) and all(map(same, result, expected))
    return result == expected or (isnan(result) and isnan(expected))


@pytest.mark.parametrize("rules", EVALUATORS)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_batches_are_as_files_are(rules: str, size: int, tmp_path: Path) -> None:
    pictures, found = random_scene(7, 12)
    rows = [(f"{name}.jpg", 200, 160, one) for name, one in found.items()]
    write_detections(tmp_path / "detections.json", rows, CLASSES)
    make, evaluate = EVALUATORS[rules]
    evaluator = make(CLASSES)
    targets, predictions = entries((pictures, found))
    for i in range(0, len(targets), size):
        evaluator.update(targets[i : i + size], predictions[i : i + size])
    assert len(evaluator) == 12
    result, of_files = evaluator.compute(), evaluate(pictures, read_detections(tmp_path / "detections.json"))
    # In the file scores are decimal numbers, whose means differ in the ninth digit.
    of_files.pop("calibration", None)
    assert same(result, of_files)
    # What was given may change afterwards, and computing changes nothing.
    for one in (*targets, *predictions):
        one["boxes"] += 5
    assert same(evaluator.compute(), evaluate(*random_scene(7, 12)))
    evaluator.reset()
    assert len(evaluator) == 0


@pytest.mark.parametrize("rules", EVALUATORS)
def test_processes_are_merged(rules: str) -> None:
    make, evaluate = EVALUATORS[rules]
    scene = random_scene(8, 9)
    targets, predictions = entries(scene)
    parts = []
    # The last process has a picture again, as samplers do it.
    for chosen in (range(3), range(3, 6), [6, 7, 8, 0]):
        part = make(CLASSES)
        part.update([targets[i] for i in chosen], [predictions[i] for i in chosen])
        parts.append(pickle.loads(pickle.dumps(part)))
    first, *others = parts
    first.merge(*others)
    assert len(first) == 9
    assert same(first.compute(), evaluate(*scene))


def test_pictures_without_ids_are_merged_in_order() -> None:
    scene = random_scene(8, 9)
    targets, predictions = entries(scene)
    for one in targets:
        del one["image_id"]
    first, second = VOCEvaluator(CLASSES), VOCEvaluator(CLASSES)
    first.update(targets[:4], predictions[:4])
    second.update(targets[4:], predictions[4:])
    first.merge(pickle.loads(pickle.dumps(second)))
    assert (len(first), len(second)) == (9, 5)
    assert same(first.compute(), evaluate_voc(*scene, CLASSES))


def test_labels_of_any_numbers() -> None:
    pictures, found = random_scene(9, 9)
    targets, predictions = entries((pictures, found))
    numbers = np.array([3, 17, 90])
    for one in (*targets, *predictions):
        one["labels"] = numbers[one["labels"]]
    expected = evaluate_voc(pictures, found, CLASSES)
    named, unnamed = VOCEvaluator(dict(zip([3, 17, 90], CLASSES, strict=True))), VOCEvaluator()
    for evaluator in (named, unnamed):
        evaluator.update(targets, predictions)
    assert same(named.compute(), expected)
    result = unnamed.compute()
    assert [*result["per_class"]] == ["3", "17", "90"]
    assert same([*result["per_class"].values()], [*expected["per_class"].values()])
    with pytest.raises(SettingError, match="is none of the 3 classes"):
        VOCEvaluator(CLASSES).update(targets, predictions)


def test_tensors_and_the_order_of_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    scene = random_scene(5, 9)
    targets, predictions = entries(scene)
    for one in (*targets, *predictions):
        one.update({name: torch.as_tensor(values) for name, values in one.items() if name != "image_id"})
    for one in predictions:
        one["scores"].requires_grad_()
    evaluator = COCOEvaluator(CLASSES)
    evaluator.update(predictions, targets)
    result = evaluator.compute()
    assert same(result, evaluate_coco(*scene, classes=CLASSES))
    assert (result["map"], result["mar_10"]) == (result["AP"], result["AR_10"])


def test_equal_to_torchmetrics() -> None:
    pytest.importorskip("torchmetrics")
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    targets, predictions = (
        [
            {name: torch.as_tensor(values) for name, values in one.items() if name in ("boxes", "scores", "labels")}
            for one in part
        ]
        for part in entries(random_scene(11, 15))
    )
    results = []
    # By default its recall levels are rounded to float32, which moves the mAP by 1e-4 where there are few objects.
    for metric in (MeanAveragePrecision(rec_thresholds=np.linspace(0, 1, 101).tolist()), COCOEvaluator()):
        metric.update(predictions, targets)
        results.append(metric.compute())
    theirs, ours = results
    for name in ("map", "map_50", "map_75", "map_medium", "map_large", "mar_1", "mar_10", "mar_100"):
        assert float(theirs[name]) == pytest.approx(ours[name], abs=1e-6), name
    assert float(theirs["map_small"]) == (-1 if isnan(ours["map_small"]) else pytest.approx(ours["map_small"]))


def test_intervals() -> None:
    scene = random_scene(7, 12)
    evaluator = VOCEvaluator(CLASSES)
    evaluator.update(*entries(scene))
    assert same(evaluator.compute(bootstrap=100, seed=3), evaluate_voc(*scene, CLASSES, bootstrap=100, seed=3))


GOOD = {"boxes": [[0, 0, 9, 9]], "labels": [0]}
FOUND = {"boxes": [[0, 0, 9, 9]], "scores": [0.5], "labels": [0]}


@pytest.mark.parametrize(
    ("target", "prediction"),
    [
        (GOOD, {"boxes": [[0, 0, 9, 9]], "scores": [0.5]}),
        ({"boxes": [[0, 0, 9, 9]]}, FOUND),
        ({**GOOD, "labels": [0, 1]}, FOUND),
        ({**GOOD, "labels": [0.5]}, FOUND),
        ({**GOOD, "labels": [3]}, FOUND),
        ({**GOOD, "difficult": [True, False]}, FOUND),
        (GOOD, {**FOUND, "scores": [float("nan")]}),
        (GOOD, {**FOUND, "boxes": [[9, 9, 0, 0]]}),
        (GOOD, {**FOUND, "labels": [-1]}),
        (GOOD, "cat"),
    ],
)
def test_what_is_refused_leaves_nothing(target: Any, prediction: Any) -> None:
    evaluator = VOCEvaluator(CLASSES)
    with pytest.raises(SettingError):
        evaluator.update([GOOD, target], [FOUND, prediction])
    assert len(evaluator) == 0


def test_the_same_picture_again() -> None:
    evaluator = VOCEvaluator(CLASSES)
    target = {**GOOD, "image_id": np.array([5])}
    evaluator.update([target], [FOUND])
    with pytest.raises(EvaluationError, match="'5' has been added before"):
        evaluator.update([target], [FOUND])
    with pytest.raises(SettingError, match="2 pictures, but predictions of 1"):
        evaluator.update([GOOD, GOOD], [FOUND])
    with pytest.raises(SettingError, match="same classes"):
        evaluator.merge(VOCEvaluator(["cat"]))
    with pytest.raises(SettingError, match="one kind"):
        evaluator.merge(ILSVRCEvaluator(CLASSES))


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; from inception_rcnn.eval import COCOEvaluator; e = COCOEvaluator();"
        "e.update([{'boxes': [[0, 0, 9, 9]], 'labels': [1]}], [{'boxes': [], 'scores': [], 'labels': []}]);"
        "assert e.compute()['AP'] == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
