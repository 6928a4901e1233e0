import json

import numpy as np
import pytest
from builders import coco_document, make_detections
from pycocotools.coco import COCO

from inception_rcnn.data import (
    AnnotationError,
    DetectionError,
    read_coco,
    read_coco_results,
    read_detection_entries,
    read_detections,
    write_voc_results,
)
from inception_rcnn.eval import evaluate_voc


def annotations():
    return coco_document(
        {42: "sub/b.jpg", 7: "a.jpg"}, {18: "dog", 17: "cat"}, [(7, 17, [1, 2, 3, 4])], size=(20, 10), area=12
    )


def results():
    return [
        {"image_id": 7, "category_id": 17, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 42, "category_id": 18, "bbox": [1.5, 2, 3, 4.25], "score": 1e-3, "segmentation": []},
        {"image_id": 7, "category_id": 18, "bbox": [0, 0, 20, 10], "score": 1},
    ]


@pytest.fixture
def files(tmp_path):
    def write(results, annotations):
        for name, document in (("results.json", results), ("instances.json", annotations)):
            (tmp_path / name).write_text(document if isinstance(document, str) else json.dumps(document))
        return tmp_path / "results.json", tmp_path / "instances.json"

    return write


def test_results_have_the_names_of_the_annotations(files, tmp_path):
    found = read_coco_results(*files(results(), annotations()))
    pictures = read_coco(tmp_path / "instances.json", tmp_path, ("cat", "dog"))
    assert list(found) == [picture.image_id for picture in pictures] == ["sub/b", "a"]
    assert found["a"].classes == ("cat", "dog")
    assert found["a"].boxes.tolist() == [[1, 2, 4, 6], [0, 0, 20, 10]]
    assert (found["a"].scores.tolist(), found["a"].labels.tolist()) == ([0.5, 1], [0, 1])
    assert found["sub/b"].boxes.tolist() == [[1.5, 2, 4.5, 6.25]]
    assert (found["a"].boxes.dtype, found["a"].scores.dtype) == (np.float32, np.float64)


def test_cocos_own_tools_take_the_same_list(files, capsys):
    path, annotation_file = files(results(), annotations())
    boxes = [one["bbox"] for one in COCO(annotation_file).loadRes(str(path)).loadAnns([1, 2, 3])]
    assert boxes == [one["bbox"] for one in results()]


def test_all_bad_results_are_counted(files):
    path, annotation_file = files([results()[0] | {"score": "1"}] * 30, annotations())
    with pytest.raises(DetectionError, match=r"results.json: 30 faults: .*score is not a number: '1'.*and 20 more;"):
        read_coco_results(path, annotation_file)


@pytest.mark.parametrize("slash", ["/", "\\"])
def test_folders_are_parted_by_slashes_of_both_kinds(tmp_path, slash):
    document = annotations()
    document["images"][0]["file_name"] = f"sub{slash}b.jpg"
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(document))
    pictures = read_coco(path, tmp_path, ("cat", "dog"))
    (tmp_path / "results.json").write_text(json.dumps(results()))
    names = [picture.image_id for picture in pictures]
    assert names == ["sub/b", "a"] == list(read_coco_results(tmp_path / "results.json", path))
    path.write_text(json.dumps(document | {"annotations": results()}))
    found = {key: read_detections(path, key) for key in ("stem", "image_id", "file_name")}
    assert list(map(list, found.values())) == [["b", "a"], names, ["sub/b.jpg", "a.jpg"]]
    assert [name for name, *_ in read_detection_entries(path)] == ["sub/b.jpg", "a.jpg"]
    assert evaluate_voc(pictures, found["image_id"], ("cat", "dog"))["per_class"]["cat"] == 1


def test_pictures_without_results_are_there(files):
    assert [len(one) for one in read_coco_results(*files([], annotations())).values()] == [0, 0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"image_id": 8}, "image_id 8 is not defined"),
        ({"category_id": 1}, "category_id 1 is not defined"),
        ({"image_id": [7]}, "image_id is neither a number nor a text"),
        ({"bbox": [1, 2, 3]}, r"bbox must be \[x, y, width, height\], four numbers"),
        ({"bbox": "1234"}, "bbox must be"),
        ({"bbox": 5}, "bbox must be"),
        ({"bbox": [1, 2, "3", 4]}, "bbox must be"),
        ({"bbox": ["1", "2", "3", "4"]}, "bbox must be"),
        ({"bbox": [1, 2, float("nan"), 4]}, "bbox has a number that is not finite"),
        ({"bbox": [1, 2, 1e39, 4]}, "bbox has a number that is not finite, or too large"),
        ({"bbox": [1, 2, 10**400, 4]}, "bbox has a number that is not finite, or too large"),
        ({"bbox": [1.5, 2, 10**400, 4]}, "bbox has a number that is not finite, or too large"),
        ({"bbox": [3e38, 2, 3e38, 4]}, "bbox has a number that is not finite, or too large"),
        ({"bbox": [1, 2, -1, 4]}, "bbox has a negative width or height"),
        ({"bbox": [1, 2, 3, -0.5]}, "bbox has a negative width or height"),
        ({"score": float("inf")}, "score is not finite"),
        ({"score": 1e39}, "score is not finite, or too large"),
        ({"score": None}, "score is not a number: None"),
        ({"score": "0.5"}, "score is not a number: '0.5'"),
        ({"score": True}, "score is not a number: True"),
        ({"bbox": [1, 2, True, 4]}, r"bbox must be .*: \[1, 2, True, 4\]"),
        ({"category_id": True}, "category_id is neither a number nor a text: True"),
    ],
)
def test_bad_results_are_shown(files, change, problem):
    path, annotation_file = files([results()[0], results()[1] | change, results()[2]], annotations())
    with pytest.raises(DetectionError, match=problem) as caught:
        read_coco_results(path, annotation_file)
    message = str(caught.value)
    assert message.startswith(f"{path}: bad detection {{'bbox': ")
    assert "segmentation" in message  # the record that is bad
    assert len(message.splitlines()) == 1
    # A document of our own is checked in the same way.
    document = annotations() | {"annotations": json.loads(path.read_text())}
    path.write_text(json.dumps(document))
    with pytest.raises(DetectionError, match=problem):
        read_detections(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not well-formed JSON"),
        ("null", "not a list of COCO results"),
        ("[1]", "bad detection 1"),
        ("{}", "not a list"),
    ],
)
def test_other_documents_are_no_results(files, text, problem):
    path, annotation_file = files(text, annotations())
    with pytest.raises(DetectionError, match=problem) as caught:
        read_coco_results(path, annotation_file)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"images": None}, "no list of objects 'images'"),
        ({"categories": [{"id": 17}]}, "'categories' has no 'name'"),
        (
            {"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 7, "file_name": "b.jpg"}]},
            "two of its images have the id 7",
        ),
        (
            {"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "a.png"}]},
            "two of its images are called 'a'",
        ),
        (
            {"categories": [{"id": 17, "name": "cat"}, {"id": 17, "name": "dog"}]},
            "two of its categories have the id 17",
        ),
        (
            {"categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "cat"}]},
            "two of its categories are called 'cat'",
        ),
        ({"categories": [{"id": 17, "name": "cat"}, {"id": "18", "name": "dog"}]}, "numbers as well as texts"),
    ],
)
def test_bad_annotation_files_are_named(files, change, problem):
    path, annotation_file = files(results(), annotations() | change)
    with pytest.raises(AnnotationError, match=problem) as caught:
        read_coco_results(path, annotation_file)
    assert str(caught.value).startswith(f"{annotation_file}: ")


def test_a_list_read_alone_says_what_is_missing(files):
    path, _ = files(results(), annotations())
    with pytest.raises(DetectionError, match=r"results\.json: is a list of results.*together with the annotation file"):
        read_detections(path)


def test_categories_with_one_id_are_refused(tmp_path):
    document = annotations() | {"annotations": [], "categories": [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]}
    (tmp_path / "detections.json").write_text(json.dumps(document))
    with pytest.raises(DetectionError, match="two of its categories have the id 1"):
        read_detections(tmp_path)


@pytest.mark.parametrize("change", [{"id": 7}, {"file_name": "a.png"}])
def test_annotations_of_two_pictures_are_not_mixed_up(tmp_path, change):
    document = annotations()
    document["images"][0].update(change)
    (tmp_path / "instances.json").write_text(json.dumps(document))
    with pytest.raises(AnnotationError, match=r"instances\.json: two of its images (have the id 7|are called 'a')"):
        read_coco(tmp_path / "instances.json", tmp_path, ("cat", "dog"))


def test_numbers_that_no_reader_takes_are_not_written(tmp_path):
    found = make_detections([[0, 0, 1, 1]], classes=("cat",))
    found.boxes[0, 2] = np.inf
    with pytest.raises(DetectionError, match=r"000001: .*not a finite number"):
        write_voc_results(tmp_path, {"000001": found})
