import copy
import pickle

import numpy as np
import pytest

from inception_rcnn.data import Detections, Picture, write_detections, write_voc_results
from inception_rcnn.data.errors import DetectionError, SettingError
from inception_rcnn.eval import evaluate_voc, merge_detections

BOXES = np.float32([[0, 0, 5, 5], [1, 1, 2, 2], [3, 3, 4, 4]])
SCORES = np.float32([0.9, 0.8, 0.7])
LABELS = np.array([0, 1, 1])
CLASSES = ("cat", "dog")


def detections(boxes=BOXES, scores=SCORES, labels=LABELS, classes=CLASSES):
    return Detections(boxes, scores, labels, classes)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": [0, 1, -1]}, "a label is -1, which is no index into its 2 classes"),
        ({"labels": [0, 1, 2]}, "a label is 2, which is no index into its 2 classes"),
        ({"labels": [0.0, 1.0, 1.0]}, "labels must be whole numbers, not float64"),
        ({"labels": [True, False, True]}, "labels must be whole numbers, not bool"),
        ({"labels": [0, 1]}, r"3 scores and labels \(2,\) do not fit"),
        ({"labels": ["cat", "dog", "dog"]}, "labels must be an array of numbers"),
        ({"labels": LABELS[:, None]}, r"3 scores and labels \(3, 1\) do not fit"),
        ({"classes": "cat"}, r"classes must be a list of names, not one name; write \['cat'\]"),
        ({"classes": {"cat", "dog"}}, "classes must be a list of names, not set"),
        ({"classes": (0, 1)}, "classes must be a list of names, not of int"),
        ({"classes": None}, "classes must be a list of names, not NoneType"),
        ({"boxes": BOXES * np.nan}, "not a finite number"),
        ({"boxes": BOXES + np.inf}, "not a finite number"),
        ({"scores": np.array([1, np.nan, 0])}, "not a finite number"),
        ({"boxes": BOXES[:, ::-1]}, "a box ends before it begins"),
        ({"boxes": BOXES[0]}, r"boxes \(4,\) and scores \(3,\) do not fit"),
        ({"scores": SCORES[:, None]}, r"scores \(3, 1\) do not fit"),
        ({"scores": "0.9"}, "scores must be an array of numbers"),
        ({"scores": 0.9}, r"scores \(\) do not fit"),
    ],
)
def test_what_no_detections_can_be_is_refused(change, told):
    with pytest.raises(SettingError, match=told):
        detections(**change)


def test_arrays_of_the_right_type_are_not_copied():
    found = detections()
    assert found.boxes is BOXES
    assert found.scores is SCORES
    assert found.labels is LABELS
    assert found.classes is CLASSES
    double = SCORES.astype(np.float64)
    assert detections(scores=double).scores is double


def test_lists_tensors_and_arrays_of_other_types_are_converted():
    torch = pytest.importorskip("torch")
    for boxes, scores, labels in (
        (BOXES.tolist(), SCORES.tolist(), LABELS.tolist()),
        (BOXES.astype(np.int32), SCORES.astype(np.float16).astype(np.float32), LABELS.astype(np.uint8)),
        (torch.from_numpy(BOXES).requires_grad_(), torch.from_numpy(SCORES), torch.from_numpy(LABELS)),
    ):
        found = detections(boxes, scores, labels, list(CLASSES))
        assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)
        assert found.boxes.tolist() == BOXES.tolist()
        assert found.classes == CLASSES
    assert detections(classes={"n01": "cat", "n02": "dog"}).classes == CLASSES
    for nothing in ([], np.zeros((0, 4))):
        assert len(detections(nothing, [], [], ())) == 0


def test_what_was_changed_in_place_is_neither_written_nor_evaluated(tmp_path):
    picture = Picture("a", tmp_path / "a.jpg", 9, 9, BOXES, LABELS, np.zeros(3, bool), np.zeros(3, bool))
    for change in (-1, 2):
        found = detections(labels=LABELS.copy())
        found.labels[0] = change
        with pytest.raises(DetectionError, match=rf"a\.jpg: a label is {change}"):
            write_detections(tmp_path / "d.json", [("a.jpg", 9, 9, found)], CLASSES)
        with pytest.raises(DetectionError, match=f"a: a label is {change}"):
            write_voc_results(tmp_path, {"a": found})
        with pytest.raises(ValueError, match=f"picture 'a': a label is {change}"):
            evaluate_voc([picture], {"a": found}, CLASSES)
        with pytest.raises(ValueError, match=f"picture 'a': a label is {change}"):
            merge_detections([{"a": found}, {"a": detections(classes=CLASSES[::-1])}])


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (..., [0, 1, 2]),
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        (1, [1]),
        (-1, [2]),
        (np.int64(1), [1]),
        ([2, 0], [2, 0]),
        ([], []),
        (np.where(SCORES > 0.75), [0, 1]),
        (SCORES > 0.75, [0, 1]),
        ([True, False, True], [0, 2]),
        (np.uint8([2]), [2]),
    ],
    ids=lambda value: None if callable(value) else str(value),
)
def test_an_index_means_what_it_means_in_numpy(index, rows):
    found = detections()[index]
    assert found.boxes.tolist() == BOXES[rows].reshape(-1, 4).tolist()
    assert found.scores.tolist() == SCORES[rows].tolist()
    assert found.labels.tolist() == LABELS[rows].tolist()
    assert found.classes is CLASSES


@pytest.mark.parametrize("index", [None, True, np.True_, 1.0, [0.5], "cat", (0, 1), ((0, 1), 0), [[0, 1]], (..., 0)])
def test_what_is_no_index_is_refused(index):
    with pytest.raises(SettingError, match="an index"):
        detections()[index]


def test_a_loop_gives_box_score_and_name():
    rows = [(box.tolist(), score, name) for box, score, name in detections()[1:]]
    assert rows == [([1, 1, 2, 2], SCORES[1], "dog"), ([3, 3, 4, 4], SCORES[2], "dog")]
    assert [name for _, _, name in Detections.empty(CLASSES)] == []


def test_positions_that_are_not_there_are_refused():
    for index in (3, [0, 3], np.ones(2, bool)):
        with pytest.raises(IndexError):
            detections()[index]


def test_a_tensor_is_an_index():
    torch = pytest.importorskip("torch")
    assert detections()[torch.tensor([2, 0])].labels.tolist() == [1, 0]
    assert len(detections()[torch.from_numpy(SCORES) > 0.75]) == 2


def test_choosing_checks_nothing_again():
    found = detections(boxes=BOXES.copy())
    found.boxes[0] = np.nan
    assert len(found[:2]) == 2


def test_copies_are_the_same():
    for found in (pickle.loads(pickle.dumps(detections())), copy.deepcopy(detections()[:])):
        assert found.names == ["cat", "dog", "dog"]
        assert repr(found) == repr(detections())


def test_a_class_that_is_not_written_is_named(tmp_path):
    found = Detections([[0, 0, 5, 5]], [0.5], [1], ("cat", "dog"))
    with pytest.raises(DetectionError, match="a detection's class, 'dog', is not among the classes to write"):
        write_detections(tmp_path / "d.json", [("a.jpg", 9, 9, found)], ("cat",))
