"""A name that is unknown is answered with the one that may be meant."""

import pytest

from inception_rcnn.data.arguments import check_choice
from inception_rcnn.data.classes.reading import read_class_list
from inception_rcnn.data.errors import AnnotationError, SettingError, did_you_mean


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("vok", "voc"),
        ("VOC", "voc"),
        ("cta", "cat"),
        ("Traffic-Light", "traffic light"),
        ("zebra", None),
        ("", None),
    ],
)
def test_the_most_similar_name_is_meant(wrong: str, meant: str | None) -> None:
    names = ["cat", "voc", "coco", "traffic light"]
    assert did_you_mean(wrong, names) == (f" (did you mean {meant!r}?)" if meant else "")
    assert did_you_mean(wrong, []) == ""


def test_of_names_that_differ_in_case_the_first_is_meant() -> None:
    assert did_you_mean("cats", ["Cat", "cat"]) == " (did you mean 'Cat'?)"


def test_a_choice_that_is_unknown_is_told_with_all_choices() -> None:
    assert check_choice("nms", "soft", ("soft", "greedy")) == "soft"
    for value, text in {
        "softt": "nms 'softt' is unknown (did you mean 'soft'?); use soft or greedy",
        "hard": "nms 'hard' is unknown; use soft or greedy",
        None: "nms None is unknown; use soft or greedy",
    }.items():
        with pytest.raises(SettingError) as caught:
            check_choice("nms", value, ("soft", "greedy"))
        assert str(caught.value) == text
    with pytest.raises(SettingError, match=r"^n 'x' is unknown; use a1, b2 or c3$"):
        check_choice("n", "x", ("a1", "b2", "c3"))


def test_a_list_of_classes_that_is_not_there() -> None:
    with pytest.raises(AnnotationError, match=r"classes cocoa: neither .*\(did you mean 'coco'\?\); give one"):
        read_class_list("cocoa")
