"""Names of classes in another spelling."""

import warnings

import pytest

from inception_rcnn.data import COCO_CLASSES, COCO_TO_VOC, ILSVRC_DET_CLASSES, VOC_CLASSES
from inception_rcnn.data.classes.spelling import (
    MisspeltClassWarning,
    dropped_classes_text,
    similar_classes,
    warn_of_dropped_classes,
)
from inception_rcnn.data.errors import DataWarning


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Cat", "cat"),
        ("CATS", "cat"),
        ("cat_", "cat"),
        ("traffic_light", "traffic light"),
        ("traffic-light", "traffic light"),
        ("TrafficLights", "traffic light"),
        ("bus", "buses"),
        ("box", "Boxes"),
        ("puppies", "puppy"),
        ("puppy", "puppy"),
        ("horses", "horse"),
        ("hu\u0308ndin", "H\u00fcndin"),  # ü as a letter and a mark, and as one letter
        ("glasses", "glass"),
    ],
)
def test_near_misses(name: str, meant: str) -> None:
    assert similar_classes([name], ["zebra", meant]) == ({name: meant} if name != meant else {})


@pytest.mark.parametrize(
    ("name", "other"),
    [("dog", "cat"), ("class1", "class2"), ("bus", "buy"), ("s", "es"), ("-", "_"), ("bunnies", "bunnes"), ("a", "as")],
)
def test_other_names_are_no_near_misses(name: str, other: str) -> None:
    assert similar_classes([name], [other]) == {}  # of one letter there is no plural


def test_lists_that_are_mixed_on_purpose_have_no_near_misses() -> None:
    spellings = [*VOC_CLASSES, *COCO_TO_VOC]
    assert similar_classes(COCO_CLASSES, spellings) == {}
    assert similar_classes(ILSVRC_DET_CLASSES, spellings) == {}
    assert similar_classes(COCO_CLASSES, VOC_CLASSES) == {
        "dining table": "diningtable",
        "potted plant": "pottedplant",
    }


def test_the_text_has_counts_near_misses_first_and_ten_names() -> None:
    counts = {f"c{i:02}": i for i in range(1, 15)} | {"Dog": 1, "dog": 100}
    text = dropped_classes_text(counts, ["dog"])
    assert text.startswith("left out 106 objects of classes that are not asked for: 1 of 'Dog' (did you mean 'dog'?), ")
    assert text.endswith("14 of 'c14', 13 of 'c13', 12 of 'c12', 11 of 'c11', 10 of 'c10', 9 of 'c09', 8 of 'c08', "
                         "7 of 'c07', 6 of 'c06' and 5 more classes")  # fmt: skip
    assert dropped_classes_text({"dog": 3}, ["dog"]) == ""
    assert "left out 1 object of" in dropped_classes_text({"a\nb": 1}, ["dog"])
    assert "\n" not in dropped_classes_text({"a\nb": 1}, ["dog"])


def test_a_misspelt_class_is_a_warning_of_its_own() -> None:
    with pytest.warns(MisspeltClassWarning, match=r"^set: left out 1 object .*mean 'dog'"):
        warn_of_dropped_classes("set", {"Dog": 1}, ["dog"])
    with pytest.warns(DataWarning) as caught:
        warn_of_dropped_classes("set", {"zebra": 1}, ["dog"])
    assert [one.category for one in caught] == [DataWarning]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_dropped_classes("set", {"dog": 1}, ["dog"])
