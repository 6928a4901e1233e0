"""`inception-rcnn classes`: what a detector was taught, what it reached, and what is drawn."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from builders import make_picture

pytest.importorskip("torch")

from random_model import CLASSES, random_model

from inception_rcnn.backbone.weights.model_file import write_model
from inception_rcnn.data import Detections
from inception_rcnn.data.class_measures import ClassMeasure, hidden_classes
from inception_rcnn.detect.cli.app import main
from inception_rcnn.detect.train.class_measures import learned_from, measure_classes
from inception_rcnn.eval import match_voc

MEASURES = (ClassMeasure(120, False, 0.5, 9), ClassMeasure(0, True, 0.125, 8), ClassMeasure(0, True, None, 0))


def run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert not caught.value.code


def test_what_each_class_was_learned_from_and_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.safetensors"
    write_model(path, dataclasses.replace(random_model(), measures=MEASURES))
    run("classes", path)
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["cat", "120", "boxes", "0.500", "9", "yes"] in lines
    assert ["dog", "a", "teacher", "0.125", "8", "no"] in lines
    assert ["person", "a", "teacher", "-", "0", "no"] in lines
    assert lines[-1] == ["1", "of", "3", "classes", "are", "drawn", "by", "`detect`"]
    run("classes", path, "--json", "-")
    told = json.loads(capsys.readouterr().out)
    assert told["dog"] == {"boxes": 0, "taught": True, "value": 0.125, "number": 8, "drawn": False}
    assert list(told) == [*CLASSES]


def test_a_detector_that_was_not_measured_draws_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.safetensors"
    write_model(path, random_model())
    run("classes", path)
    assert capsys.readouterr().out.split()[:3] == [*CLASSES]
    run("classes", path, "--json", "-")
    assert json.loads(capsys.readouterr().out) == {name: {"drawn": True} for name in CLASSES}


def test_a_weak_class_is_hidden_only_where_a_teacher_taught() -> None:
    weak, few, unmeasured, absent = (
        ClassMeasure(boxes, False, value, number)
        for boxes, value, number in ((90, 0.1, 30), (90, 0.1, 3), (90, None, 0), (0, None, 0))
    )
    assert hidden_classes("abcd", (weak, few, unmeasured, absent)) == ()
    strong, poor, unseen = (ClassMeasure(0, True, value, 5) for value in (0.2, 0.19, None))
    assert hidden_classes("abcdefg", (weak, few, unmeasured, absent, strong, poor, unseen)) == ("a", "f", "g")
    assert hidden_classes(CLASSES, None) == ()


def test_measures_of_a_training() -> None:
    box = np.float32([[0, 0, 20, 10]])
    pictures = [make_picture(box, [0], image_id=name) for name in "ab"]
    found = {"a": Detections(box, np.float32([0.9]), np.array([0]), CLASSES)}
    matches = match_voc(pictures, found, CLASSES)
    localised, shown = np.array([0, 1, 0]), np.array([0, 4, 0])
    # Cats have boxes and were seen; dogs have none; persons have boxes that no picture set aside has.
    sources = [ClassMeasure(7, False, None, 0), ClassMeasure(0, True, None, 0), ClassMeasure(3, False, 0.7, 2)]
    cat, dog, person = measure_classes(sources, matches, localised, shown)
    assert (cat, dog) == (ClassMeasure(7, False, 6 / 11, 2), ClassMeasure(0, True, 0.25, 4))
    assert person == sources[2]
    assert measure_classes(sources, None, localised, shown)[0] == sources[0]


def test_what_the_detector_before_was_learned_from_stays() -> None:
    names, boxed = ("dog", "zebra", "domestic cat"), np.array([5, 0, 0])
    before = dataclasses.replace(random_model(), measures=(ClassMeasure(9, False, 0.6, 12), *MEASURES[1:]))
    # Dogs are learned again, zebras never were, and cats keep what they had.
    assert learned_from(names, boxed, before, taught=False, new=True) == [
        ClassMeasure(5, False, None, 0),
        ClassMeasure(0, False, None, 0),
        ClassMeasure(9, False, 0.6, 12),
    ]
    assert learned_from(names, boxed, before, taught=False, new=False)[0] == MEASURES[1]
    assert learned_from(names, boxed, taught=False, new=False)[2] == ClassMeasure(0, False, None, 0)
