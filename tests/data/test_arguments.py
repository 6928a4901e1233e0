"""Public functions refuse what no number and no list of names can be: all doors of one kind are walked."""

import inspect
import json
import math
from importlib import import_module

import numpy as np
import pytest

from inception_rcnn.data import Detections, clip_boxes, read_voc, read_voc_results
from inception_rcnn.data.arguments import as_array, check_names, check_number, check_numbers
from inception_rcnn.data.errors import SettingError
from inception_rcnn.eval import (
    evaluate_ilsvrc,
    evaluate_proposals,
    evaluate_voc,
    match_ilsvrc,
    match_voc,
    merge_detections,
    weighted_box_fusion,
)
from inception_rcnn.proposals import (
    FileProposals,
    MergedProposals,
    SelectiveSearch,
    Strategy,
    load_proposer,
    merge_proposals,
    selective_search,
)
from inception_rcnn.proposals.calibration import RankingCalibration

BOX, ONE = np.float32([[0, 0, 9, 9]]), np.float32([1])
IMAGE = np.zeros((30, 40, 3), np.uint8)
FOUND = Detections(BOX, ONE, np.array([0]), ("cat", "dog"))

# What no number is, then what is out of the range of a kind.
NONE = [math.nan, math.inf, -math.inf, "3", True, [3], 10**400]
SHARE = [*NONE, -0.1, 1.1, None]
LIMIT = [math.nan, math.inf, "3", True, [3], 2**63, -1, 0, 1.5, 3.0]
WHOLE = [*LIMIT, None]
SEED = [math.nan, math.inf, "3", True, [3], -1, 1.5, None]
ABOVE_0 = [*NONE, 0, -1, None]
MINIMUM = [math.nan, math.inf, "3", True, [3], None]


def detector(**setting):
    pytest.importorskip("onnxruntime")
    from inception_rcnn.detect import Detector

    return Detector.load(device="cpu", **setting)


def draw(**setting):
    from inception_rcnn.detect import draw_detections

    return draw_detections(IMAGE, FOUND, **setting)


def multibox(**setting):
    pytest.importorskip("onnxruntime")
    from inception_rcnn.proposals import MultiBox

    return MultiBox(None, None, None, **setting)


def classifier(**setting):
    pytest.importorskip("torch")
    from inception_rcnn.backbone import Classifier

    return Classifier([], **{"classes": ("cat",)} | setting)


def recipe(name):
    return lambda **setting: getattr(import_module("inception_rcnn.detect.train.recipes"), name)(**setting)


SEARCH = {"superpixel_scale": [*ABOVE_0, 1001], "seed": SEED, "limit": LIMIT, "min_side": [*NONE, -1, None],
          "threads": WHOLE}  # fmt: skip
CALIBRATED = (BOX, ONE), (BOX, ONE), RankingCalibration()
NUMBERS = {
    "clip_boxes": (
        lambda **size: clip_boxes(BOX, **{"width": 9, "height": 9} | size),
        {"width": [*NONE, -1, None], "height": [*NONE, -1, None]},
    ),
    "weighted_box_fusion": (
        lambda **setting: weighted_box_fusion([BOX], [ONE], [[0]], **setting),
        {"iou_threshold": SHARE, "min_score": MINIMUM, "weights": [[math.nan], [math.inf], [0], [-1], ["1"], 1, []]},
    ),
    "merge_detections": (
        lambda **setting: merge_detections([{"a": FOUND}], **setting),
        {"iou_threshold": [*NONE, -0.1, 1.1], "weights": [[math.nan], [-1], ["1"], 1]},
    ),
    "match_voc": (lambda **setting: match_voc([], {}, ("cat",), **setting), {"iou_threshold": SHARE}),
    "SelectiveSearch": (SelectiveSearch, SEARCH),
    "selective_search": (lambda **setting: selective_search(IMAGE, **setting), SEARCH),
    "Strategy": (
        lambda k: SelectiveSearch(strategies=[Strategy(("HSV",), (k,), ("CTSF",))]),
        {"k": [*ABOVE_0, 2e6]},
    ),
    "merge_proposals": (
        lambda **setting: merge_proposals(*CALIBRATED, **setting),
        {"limit": LIMIT, "iou_threshold": SHARE},
    ),
    "MergedProposals": (
        lambda **setting: MergedProposals(None, None, **setting),
        {"limit": LIMIT, "iou_threshold": SHARE},
    ),
    "MultiBox": (multibox, {"limit": LIMIT, "iou_threshold": SHARE, "tiles": [math.nan, "3", True, -1, 17, 1.5, None]}),
    "FileProposals": (lambda **setting: FileProposals("a.npz", "", **setting), {"limit": LIMIT}),
    "load_proposer": (
        lambda **setting: load_proposer("multibox", **setting),
        {"limit": LIMIT, "seed": SEED, "superpixel_scale": [*NONE, 0]},
    ),
    "Detector.load": (
        detector,
        {"proposals": LIMIT, "first_pass_regions": [*LIMIT[:-3], 1.5], "min_score": SHARE, "threads": LIMIT,
         "scales": [(), [math.nan], [True], ["1"], [0], [5], None, "1", math.nan, True]},
    ),
    "draw_detections": (draw, {"min_score": MINIMUM}),
    "Classifier": (classifier, {"crops": [math.nan, "1", True, None, 2, [1]]}),
    "DetectorRecipe": (
        recipe("DetectorRecipe"),
        {"epochs": SHARE[:-2], "batch": WHOLE, "seed": [*SEED, 2**63], "foreground": SHARE, "scales": [(), [], 1.0, "1",
         [math.nan], ["1"], [True], None], "learning_rate": [*NONE, -1], "weight": []},
    ),
    "MultiBoxRecipe": (recipe("MultiBoxRecipe"), {"batch": WHOLE, "trunk_rate": [*NONE, -1, None]}),
    "ClassifierRecipe": (recipe("ClassifierRecipe"), {"size": WHOLE, "momentum": SHARE}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("door", "name", "value"),
    [(door, name, value) for door, (_, names) in NUMBERS.items() for name, values in names.items() for value in values],
)
def test_what_is_no_number_or_out_of_range_is_refused(door, name, value):
    with pytest.raises(SettingError, match=rf"\b{name} must be ") as error:
        NUMBERS[door][0](**{name: value})
    assert "\n" not in str(error.value)


NAMES = {
    "Detections": lambda names: Detections(BOX, ONE, np.array([0]), names),
    "Detections.empty": Detections.empty,
    "match_voc": lambda names: match_voc([], {}, names),
    "match_ilsvrc": lambda names: match_ilsvrc([], {}, names),
    "evaluate_voc": lambda names: evaluate_voc([], {}, names),
    "evaluate_ilsvrc": lambda names: evaluate_ilsvrc([], {}, names),
    "evaluate_proposals": lambda names: evaluate_proposals([], [], classes=names),
    "read_voc": lambda names: read_voc("set", "test", names),
    "read_voc_results": lambda names: read_voc_results("results", names),
    "Classifier": lambda names: classifier(classes=names),
    "MultiBox.has_objectness": lambda names: multibox().has_objectness(names),
}


@pytest.mark.parametrize("names", ["cat", b"cat", {"cat"}, (1,), [None], None, 3], ids=repr)
@pytest.mark.parametrize("door", NAMES)
def test_one_name_is_no_list_of_names(door, names):
    if names is None and door.startswith(("match", "evaluate")):
        pytest.skip("None stands for the classes that the pictures were read with")
    with pytest.raises(SettingError, match="classes must be a list of names"):
        NAMES[door](names)


def test_no_door_of_these_rooms_is_left_out():
    """Every public function that takes classes as names, and lives in a room that promises to check them."""
    pytest.importorskip("torch", reason="the classifier needs it")
    found = set()
    for room in ("backbone", "proposals", "eval"):
        face = import_module(f"inception_rcnn.{room}")
        for name in face.__all__:
            home = getattr(getattr(face, name), "__module__", "")
            if home.endswith(("eval.matching", "eval.ensemble", "backbone.classifier", "proposals.merge")):
                found |= {name} if "classes" in inspect.signature(getattr(face, name)).parameters else set()
    assert found <= set(NAMES)
    assert len(found) == 3


@pytest.mark.parametrize("number", [np.int64(3), np.uint8(3), 3])
def test_numbers_of_numpy_are_numbers_of_python(number):
    assert type(check_number("n", number, 0, 9, whole=True)) is int
    search = SelectiveSearch("single", limit=number, seed=number, min_side=np.float32(number))
    assert json.loads(json.dumps(search.settings))["limit"] == 3
    assert check_numbers("n", np.float32([1, 0.5])) == (1, 0.5)
    assert type(check_numbers("n", np.float32([1]))[0]) is float


def test_the_range_is_told():
    for call, told in (
        (lambda: check_number("n", 2, 0, 1), "n must be a number, 0 to 1, not 2"),
        (lambda: check_number("n", 0, 0, above=True), "n must be a number, above 0, not 0"),
        (lambda: check_number("n", 0, 0, 5, above=True), "n must be a number, above 0, at most 5, not 0"),
        (lambda: check_number("n", 2, high=1), "n must be a number, at most 1, not 2"),
        (lambda: check_number("n", math.inf), "n must be a number, not inf"),
        (
            lambda: check_number("n", 0, 1, whole=True, optional=True),
            "n must be a whole number, 1 or more, or None, not 0",
        ),
        (lambda: check_numbers("n", [], 0, 1), "n must be one or more numbers, 0 to 1, not []"),
    ):
        with pytest.raises(SettingError) as error:
            call()
        assert str(error.value) == told
    assert check_number("n", None, optional=True) is None
    assert check_number("n", -math.inf, -math.inf) == -math.inf
    assert check_number("seed", 2**100, 0, math.inf, whole=True) == 2**100


def test_names_stay_what_they_are():
    names = ("cat", "dog")
    assert check_names("classes", names) is names
    assert check_names("classes", (name for name in names)) == names
    assert check_names("classes", np.array(names)) == names
    assert check_names("classes", []) == ()


def test_an_array_of_the_right_type_is_not_copied():
    assert as_array("boxes", BOX, np.float32) is BOX
    assert as_array("boxes", BOX) is BOX
