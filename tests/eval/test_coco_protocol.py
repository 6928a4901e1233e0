import contextlib
import io
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from inception_rcnn.data import Detections, read_coco, read_coco_results, write_detections
from inception_rcnn.data.errors import DataWarning
from inception_rcnn.eval import EvaluationError
from inception_rcnn.eval.coco import evaluate_coco

SUMMARY = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)


@pytest.fixture
def save(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def truth(annotations, images=("a.jpg", "b.jpg"), categories=("airplane", "cat"), **more):
    return {
        "images": [{"id": 10 * (i + 1), "file_name": name} for i, name in enumerate(images)],
        "categories": [{"id": 3 * (i + 1), "name": name} for i, name in enumerate(categories)],
        "annotations": [{"image_id": i, "category_id": c, "bbox": box, **more} for i, c, box in annotations],
    }


def results(rows):
    return [{"image_id": i, "category_id": c, "bbox": box, "score": score} for i, c, box, score in rows]


def test_by_hand(save):
    annotations = save("truth.json", truth([(10, 3, [5, 5, 50, 50]), (20, 3, [0, 0, 100, 100])]))
    found = save("found.json", results([(10, 3, [5, 5, 50, 50], 0.9), (20, 3, [0, 0, 100, 72], 0.8)]))
    result = evaluate_coco(annotations, found)
    # The second is good enough for IoU 0.5 to 0.7; from 0.75 on precision is 1 up to recall 0.5: 51 of 101 points.
    expected = {
        "AP": (1 + 51 / 101) / 2,
        "AP50": 1,
        "AP75": 51 / 101,
        "AP_small": np.nan,
        "AP_medium": 1,
        "AP_large": 0.5,
        "AR_1": 0.75,
        "AR_10": 0.75,
        "AR_100": 0.75,
        "AR_small": np.nan,
        "AR_medium": 1,
        "AR_large": 0.5,
    }
    assert {key: result[key] for key in SUMMARY} == pytest.approx(expected, nan_ok=True)
    assert result["mAP"] == result["AP"]
    assert list(result) == [*SUMMARY, "mAP", "per_class"]
    assert result["per_class"] == pytest.approx({"airplane": expected["AP"], "cat": np.nan}, nan_ok=True)
    assert all(type(value) is float for value in (*result["per_class"].values(), result["AP"]))


@pytest.mark.parametrize("crowd", [0, 1])
def test_a_crowd_is_neither_found_nor_missed(save, crowd):
    document = truth([(10, 3, [0, 0, 50, 50]), (10, 3, [100, 0, 90, 90])])
    document["annotations"][1]["iscrowd"] = crowd
    found = [(10, 3, [100, 0, 30, 30], 0.9), (10, 3, [150, 50, 40, 40], 0.8), (10, 3, [0, 0, 50, 50], 0.7)]
    result = evaluate_coco(save("truth.json", document), save("found.json", results(found)))
    assert result["AP50"] == pytest.approx(1 if crowd else 51 / 101 / 3)


def random_case(seed):
    """Annotations of 30 pictures with crowds, and detections, half of them near an object."""
    rng = np.random.default_rng(seed)
    names = tuple(f"{i:03d}.jpg" for i in range(30))
    annotations, rows = [], []
    for image in range(10, 310, 10):
        for _ in range(rng.integers(0, 6)):
            box = np.concatenate([rng.uniform(0, 300, 2), np.exp(rng.uniform(2, 5.5, 2))])
            category = int(rng.integers(1, 4)) * 3
            annotations.append((image, category, box.tolist()))
            for _ in range(rng.integers(0, 4)):
                near = box + rng.normal(0, 0.1, 4) * box[[2, 3, 2, 3]]
                near[2:] = np.abs(near[2:]) + 1
                rows.append((image, category, near.astype(np.float32).tolist(), float(np.float32(rng.random()))))
        for _ in range(rng.integers(0, 4)):
            box = np.concatenate([rng.uniform(0, 300, 2), rng.uniform(5, 200, 2)]).astype(np.float32)
            rows.append((image, int(rng.integers(1, 4)) * 3, box.tolist(), float(np.float32(rng.random() / 2))))
    document = truth(annotations, names, ("airplane", "cat", "zebra"))
    for i, record in enumerate(document["annotations"], start=1):
        width, height = record["bbox"][2:]
        # An area that is not the box's, as a mask's.
        record |= {"id": i, "iscrowd": int(rng.random() < 0.1), "area": width * height * 0.7}
    return document, results(rows)


def by_pycocotools(annotations, found, categories):
    with contextlib.redirect_stdout(io.StringIO()):
        side = COCO(str(annotations))
        evaluation = COCOeval(side, side.loadRes(str(found)), "bbox")
        evaluation.params.catIds = categories
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.where(evaluation.stats < 0, np.nan, evaluation.stats)


@pytest.mark.parametrize("seed", range(3))
def test_same_as_pycocotools(save, capsys, seed):
    document, found = random_case(seed)
    annotations, path = save("truth.json", document), save("found.json", found)
    result = evaluate_coco(annotations, path)
    assert capsys.readouterr().out == ""
    expected = by_pycocotools(annotations, path, [3, 6, 9])
    np.testing.assert_array_equal([result[key] for key in SUMMARY], expected)
    assert 0.1 < result["AP"] < 0.9
    for category, (name, ap) in zip((3, 6, 9), result["per_class"].items(), strict=True):
        assert ap == pytest.approx(by_pycocotools(annotations, path, [category])[0], nan_ok=True), name
    some = evaluate_coco(annotations, path, classes=("zebra", "aeroplane"))
    np.testing.assert_array_equal([some[key] for key in SUMMARY], by_pycocotools(annotations, path, [3, 9]))
    assert list(some["per_class"]) == ["airplane", "zebra"]


def test_detections_of_unknown_categories_are_left_out_and_counted(save):
    document, found = random_case(0)
    more = [row | {"category_id": category} for row, category in zip(found[:5], (4, 4, 99, 4, -1), strict=True)]
    annotations, path = save("truth.json", document), save("found.json", more + found)
    with pytest.warns(DataWarning, match=rf"5 of {len(found) + 5} detections are of categories that .* 4, 99, -1$"):
        result = evaluate_coco(annotations, path)
    np.testing.assert_array_equal([result[key] for key in SUMMARY], by_pycocotools(annotations, path, [3, 6, 9]))


def test_categories_of_a_document_that_are_unknown_are_left_out(save, tmp_path):
    box, names = np.float32([[0, 0, 50, 50]] * 2), ("airplane", "dragon")
    write_detections(
        tmp_path / "d.json", [("a.jpg", 60, 60, Detections(box, np.float32([1, 1]), np.array([0, 1]), names))], names
    )
    with pytest.warns(DataWarning, match=r"1 of 2 detections are of categories .* 'dragon'$"):
        assert evaluate_coco(save("truth.json", GOOD), tmp_path / "d.json")["AP"] == pytest.approx(1)


def test_more_objects_than_detections_that_count_are_told(save):
    boxes = [[10 * (i % 11), 10 * (i // 11), 10, 10] for i in range(110)]
    path = save("found.json", results([(10, 3, box, 1) for box in boxes]))
    annotations = save("truth.json", truth([(10, 3, box) for box in boxes]))
    with pytest.warns(DataWarning, match="1 times a picture has more than 100 objects of a category, up to 110"):
        assert evaluate_coco(annotations, path)["AR_100"] == pytest.approx(100 / 110)
    annotations = save("truth.json", truth([(10, 3 * (1 + i % 2), box) for i, box in enumerate(boxes)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_coco(annotations, path)


def test_the_faster_engine_gives_the_same_numbers(save):
    pytest.importorskip("faster_coco_eval")
    document, found = random_case(0)
    annotations, path = save("truth.json", document), save("found.json", found)
    result = evaluate_coco(annotations, path, engine="faster-coco-eval")
    expected = evaluate_coco(annotations, path)
    assert result.pop("per_class") == pytest.approx(expected.pop("per_class"), nan_ok=True)
    assert result == pytest.approx(expected, nan_ok=True)


def as_document(tmp_path, document, found, prefix="", rename=("aeroplane", "zebra", "cat")):
    """Write a list of results as our own document: other ids, another order, VOC's names."""
    label_of = {3: 0, 9: 1, 6: 2}
    entries = []
    for image in reversed(document["images"]):
        rows = [row for row in found if row["image_id"] == image["id"]]
        boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([row["score"] for row in rows], np.float32)
        labels = np.array([label_of[row["category_id"]] for row in rows], np.int64)
        name = prefix + image["file_name"]
        entries.append((name, 400, 400, Detections(boxes.astype(np.float32), scores, labels, rename)))
    write_detections(tmp_path / "detections.json", entries, rename)
    return tmp_path


@pytest.mark.parametrize("prefix", ["", "photos/", "photos\\"])
def test_a_document_is_matched_by_file_and_class_name(save, tmp_path, prefix):
    document, found = random_case(0)
    annotations, path = save("truth.json", document), save("found.json", found)
    result = evaluate_coco(annotations, as_document(tmp_path, document, found, prefix))
    expected = evaluate_coco(annotations, path)
    assert result.pop("per_class") == pytest.approx(expected.pop("per_class"))
    assert result == pytest.approx(expected)


def in_memory(tmp_path, annotations, found):
    """Read both sides of a case, as `evaluate_coco` takes them."""
    classes = ("airplane", "cat", "zebra")
    return read_coco(annotations, tmp_path, classes, None), read_coco_results(found, annotations), classes


def test_pictures_and_detections_in_memory_have_the_numbers_of_their_files(save, tmp_path):
    document, found = random_case(0)
    for record in document["images"]:
        record.update(width=1000, height=1000)
    for record in document["annotations"]:
        # What a picture keeps: the box's area, in single precision.
        x, y, width, height = (float(side) for side in np.float32(record["bbox"]))
        record.update(bbox=[x, y, width, height], area=width * height)
    annotations, path = save("truth.json", document), save("found.json", found)
    pictures, detections, classes = in_memory(tmp_path, annotations, path)
    expected = evaluate_coco(annotations, path)
    for one, other in ((pictures, detections), (annotations, detections), (pictures, tmp_path)):
        if other is tmp_path:
            entries = [(f"{name}.jpg", 1000, 1000, one) for name, one in detections.items()]
            write_detections(tmp_path / "detections.json", entries, classes)
        result = evaluate_coco(one, other, classes=classes)
        assert result.pop("per_class") == pytest.approx(expected["per_class"])
        assert result == pytest.approx({name: value for name, value in expected.items() if name != "per_class"})


def test_detections_in_pictures_that_are_not_annotated_are_left_out(save):
    annotations = save("truth.json", truth([(10, 3, [0, 0, 9, 9])]))
    rows = [(10, 3, [0, 0, 9, 9], 0.5), (11, 3, [0, 0, 9, 9], 0.9), (12, 3, [0, 0, 9, 9], 0.9)]
    with pytest.warns(DataWarning, match=r"^2 of 3 detections are in pictures that .*truth.json does not have, "):
        result = evaluate_coco(annotations, save("found.json", results(rows)))
    assert result["per_class"]["airplane"] == pytest.approx(1)


def test_what_is_wrong_in_memory_is_said(save, tmp_path):
    document = GOOD | {"images": [one | {"width": 60, "height": 60} for one in GOOD["images"]]}
    annotations, path = save("truth.json", document), save("found.json", results([(10, 3, [0, 0, 50, 50], 1)]))
    pictures, detections, classes = in_memory(tmp_path, annotations, path)
    assert evaluate_coco(pictures, detections, classes=classes)["AP"] == pytest.approx(1)
    assert evaluate_coco(pictures, detections)["AP"] == pytest.approx(1)
    nameless = [replace(picture, classes=None) for picture in pictures]
    with pytest.raises(ValueError, match="classes must be the names of the pictures' labels"):
        evaluate_coco(nameless, detections)
    with pytest.raises(EvaluationError, match=r"the detections: no picture 'c' in the annotations, and all 1 det"):
        evaluate_coco(pictures, {"c": detections["a"]}, classes=classes)
    with pytest.raises(EvaluationError, match=r"the detections: no category 'airplane' in the annotations"):
        evaluate_coco(nameless, detections, classes=("zebra", "cat"))
    with pytest.raises(EvaluationError, match=r"read with 3 classes \(airplane, cat, zebra\), .* 2 \(zebra, cat\)"):
        evaluate_coco(pictures, detections, classes=("zebra", "cat"))
    with pytest.raises(EvaluationError, match="picture 'a' is among the annotations twice"):
        evaluate_coco(pictures * 2, detections, classes=classes)
    bad = Detections(detections["a"].boxes, detections["a"].scores.copy(), detections["a"].labels, classes)
    bad.scores[:] = np.nan
    with pytest.raises(EvaluationError, match="picture 'a': a coordinate or a score is not a finite number"):
        evaluate_coco(pictures, {"a": bad}, classes=classes)
    with pytest.raises(EvaluationError, match=r"found.json: has no list of objects 'annotations'"):
        evaluate_coco(pictures, path, classes=classes)


def test_equal_names_in_several_folders_are_told_apart(save):
    document = truth([(10, 3, [0, 0, 50, 50])], ("one/a.jpg", "two/a.jpg"))
    box = np.array([[0, 0, 50, 50]], np.float32)
    here = Detections(box, np.ones(1, np.float32), np.array([0]), ("airplane",))
    path = save("detections.json", "")
    annotations = save("truth.json", document)
    for name, ap in (("one/a.jpg", 1), ("two/a.jpg", 0)):
        write_detections(path, [(name, 60, 60, here)], ("airplane",))
        assert evaluate_coco(annotations, path)["AP"] == pytest.approx(ap)
    write_detections(path, [("a.jpg", 60, 60, here)], ("airplane",))
    with pytest.raises(EvaluationError, match=r"no picture 'a.jpg' in .*truth.json"):
        evaluate_coco(annotations, path)


def test_no_detections_and_no_objects(save):
    annotations = save("truth.json", truth([(10, 3, [0, 0, 50, 50])]))
    result = evaluate_coco(annotations, save("found.json", []))
    assert result["AP"] == result["AR_100"] == 0
    result = evaluate_coco(save("truth.json", truth([])), save("found.json", results([(10, 3, [0, 0, 5, 5], 1)])))
    assert np.isnan([result["AP"], result["per_class"]["cat"]]).all()


GOOD = truth([(10, 3, [0, 0, 50, 50])])


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (results([(11, 3, [0, 0, 5, 5], 1)]), r"found.json: no picture 11 in .*truth.json, and all 1 detections are"),
        (results([(10, 4, [0, 0, 5, 5], 1)]), r"no category 4 in .*truth.json"),
        (
            results([(10, 3, [0, 0, 5], 1)]),
            r"bbox must be .*, four numbers: \[0, 0, 5\], in the detection",
        ),
        (results([(10, 3, [0, 0, -5, 5], 1)]), r"bbox has a negative width or height"),
        (results([(10, 3, "1234", 1)]), r"bbox must be"),
        (results([(10, 3, [0, 0, 10**400, 5], 1)]), r"bbox has a number that is not finite, or too large"),
        (results([(10, 3, [0, 0, 5, 5], 10**400)]), r"score is not finite, or too large"),
        (results([(10, 3, [0, 0, 5, 5], "1")]), r"score is not a number"),
        (results([(10, 3, [0, 0, 5, 5], float("nan"))]), r"not finite"),
        (results([(10, 3, [0, 0, 5, 5], None)]), r"in the detection"),
        ([{"image_id": 10, "category_id": 3, "bbox": [0, 0, 5, 5]}], r"'score' is missing"),
        ([[1, 2]], r"in the detection \[1, 2\]"),
        ([{"image_id": [10], "category_id": 3}], r"image_id is neither a number nor a text: \[10\], in the detection"),
        ("[", r"not well-formed JSON"),
        ({}, r"has no list of objects 'annotations'"),
        ({"annotations": [], "images": [{"id": 1}], "categories": []}, r"has no 'file_name'"),
        (GOOD | {"images": [{"id": 10, "file_name": "c.jpg"}], "annotations": GOOD["annotations"]}, r"picture 'c.jpg'"),
        (GOOD | {"categories": [{"id": 3, "name": "dragon"}]}, r"no category 'dragon' in"),
        (GOOD, r"'score' is missing"),
        (GOOD | {"images": []}, r"no picture 10 in"),
        (GOOD | {"images": GOOD["images"][1:]}, r"found.json: image_id 10 is not defined, in the detection"),
        (
            GOOD | {"images": [{"id": i, "file_name": f"{i}/a.jpg"} for i in (1, 2)]},
            r"found.json: its images '1/a.jpg' and '2/a.jpg' are the same one of .*truth.json",
        ),
        (
            GOOD | {"categories": [{"id": i, "name": name} for i, name in enumerate(("airplane", "aeroplane"))]},
            r"found.json: its categories 'airplane' and 'aeroplane' are the same one of .*truth.json",
        ),
        (GOOD | {"images": GOOD["images"] * 2}, r"found.json: two of its images have the id 10"),
    ],
)
def test_what_is_wrong_with_detections_is_said_in_a_line(save, found, problem):
    with pytest.raises(EvaluationError, match=problem) as error:
        evaluate_coco(save("truth.json", GOOD), save("found.json", found))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], r"truth.json: has no list of objects 'images'"),
        (
            GOOD | {"categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "cat"}]},
            r"two of its categories are called 'cat'",
        ),
        (GOOD | {"annotations": [{"image_id": 10, "category_id": 3}]}, r"'bbox' is missing, in the annotation"),
        (GOOD | {"images": []}, r"no picture 10 in"),
        (GOOD | {"images": [{"file_name": "a.jpg"}]}, r"has no 'id'"),
        (GOOD | {"images": GOOD["images"] * 2}, r"two of its images have the id 10"),
        (GOOD | {"categories": GOOD["categories"] * 2}, r"two of its categories have the id 3"),
        (
            GOOD | {"categories": [{"id": 3, "name": "cat"}, {"id": "4", "name": "dog"}]},
            r"the ids of its categories are numbers as well as texts",
        ),
        (
            GOOD | {"images": [{"id": "10", "file_name": "a.jpg"}, {"id": 20, "file_name": "b.jpg"}]},
            r"the ids of its images are numbers as well as texts",
        ),
        (truth([(10, 3, [0, 0, 50, 50])], iscrowd=float("inf")), r"iscrowd is neither 0 nor 1: .*, in the annotation"),
        (truth([(10, 3, [0, 0, 50, 50])], iscrowd=[]), r"iscrowd is neither 0 nor 1: .*, in the annotation"),
        (truth([(10, 3, [0, 0, 50, 50])], area=10**400), r"area is not a finite number"),
        (truth([(10, 3, [0, 0, 50, 50])], area="9"), r"area is not a finite number"),
        (
            truth([(10, 3, [0, 0, 50, 50])], area=-1),
            r"area is not a finite number, 0 or above: -1 \(without an area",
        ),
        (truth([(10, 3, [0, 0, 50, 50])], area=float("nan")), r"area is not a finite number, 0 or above: nan"),
        (truth([(10, 3, [0, 0, 50, 50])], area=True), r"area is not a finite number, 0 or above: True"),
        (truth([(10, 3, [0, 0, 50, 50])], iscrowd="0"), r"iscrowd is neither 0 nor 1: '0', in the annotation"),
        (
            truth([(10, 3, [0, 0, 50, 50])] * 3, id=7),
            r"2 of its annotations have the id of another, such as 7",
        ),
        (truth([(10, 3, [0, 0, 10**400, 50])]), r"bbox has a number that is not finite, or too large"),
        (truth([(10, 3, [0, 0, -1, 50])]), r"bbox has a negative width or height"),
    ],
)
def test_what_is_wrong_with_annotations_is_said_in_a_line(save, document, problem):
    with pytest.raises(EvaluationError, match=problem):
        evaluate_coco(save("truth.json", document), save("found.json", []))


def test_pictures_of_one_name_cannot_be_told_apart(save):
    document = truth([(10, 3, [0, 0, 50, 50])], ("a.jpg", "a.jpg"))
    found = GOOD | {"annotations": []}
    with pytest.raises(EvaluationError, match=r"truth.json: two of its images are called 'a.jpg'"):
        evaluate_coco(save("truth.json", document), save("found.json", found))
    # A list has the same ids, and needs no names.
    assert evaluate_coco(save("truth.json", document), save("found.json", []))["AP"] == 0


def test_scores_rank_in_double_precision(save, tmp_path):
    document, found = random_case(0)
    annotations = save("truth.json", document)
    close = [row | {"score": 1 - (1 - row["score"]) * 1e-9} for row in found]
    expected = evaluate_coco(annotations, save("found.json", found))
    assert evaluate_coco(annotations, save("close.json", close)) == expected
    # Also after reading and writing.
    names = {image["id"]: image["file_name"].removesuffix(".jpg") for image in document["images"]}
    read = read_coco_results(tmp_path / "close.json", annotations)
    assert read["000"].scores.dtype == np.float64
    write_detections(
        tmp_path / "again.json", [(f"{name}.jpg", 400, 400, read[name]) for name in names.values()], read["000"].classes
    )
    assert evaluate_coco(annotations, tmp_path / "again.json")["AP"] == pytest.approx(expected["AP"])


def test_missing_files_and_unknown_names(save, tmp_path):
    annotations, found = save("truth.json", GOOD), save("found.json", [])
    with pytest.raises(EvaluationError, match=r"nothing.json: cannot be read"):
        evaluate_coco(annotations, tmp_path / "nothing.json")
    with pytest.raises(EvaluationError, match=r"has no category 'dragon'; it has airplane, cat"):
        evaluate_coco(annotations, found, classes=["dragon"])
    with pytest.raises(ValueError, match="engine 'slow' is unknown"):
        evaluate_coco(annotations, found, engine="slow")
