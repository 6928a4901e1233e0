"""Folders as labelling tools write them: each layout gives the same pictures with the same objects."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from builders import random_image, voc_xml, write_image, write_voc
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inception_rcnn.data import (
    VOC_CLASSES,
    AnnotationError,
    Detections,
    Picture,
    Proposals,
    write_detections,
    write_proposals,
)
from inception_rcnn.data.classes.reading import read_class_list
from inception_rcnn.data.errors import DataWarning
from inception_rcnn.data.formats.yolo import read_yolo, read_yolo_names
from inception_rcnn.detect.train.data import (
    annotated_classes,
    classes_to_learn,
    read_labelled_folder,
    read_test,
    read_training_pictures,
    read_validation,
)

yaml = pytest.importorskip("yaml")

CLASSES = ("mug", "lamp")
SIZE = (60, 40)
# Name -> objects: class, x1 y1 x2 y2 in pixels.
OBJECTS = {
    "one": [("mug", 6, 4, 30, 20), ("lamp", 0, 0, 60, 40)],
    "two": [("lamp", 12, 10, 18, 30)],
    "three": [],
}
ASIDE = {"four": [("mug", 3, 2, 33, 22)]}
TEST = {"five": [("lamp", 9, 8, 39, 28)]}


def pictures_in(folder: Path, names: dict[str, list]) -> None:
    for seed, name in enumerate(names):
        write_image(folder / f"{name}.jpg", random_image(seed, *SIZE))


def xml(objects: list, name: str) -> str:
    """As LabelImg writes it: corners counted from 1."""
    text = voc_xml(*((what, x1 + 1, y1 + 1, x2, y2) for what, x1, y1, x2, y2 in objects), size=SIZE)
    return text.replace("<annotation>", f"<annotation><folder>mine</folder><filename>{name}.jpg</filename>", 1)


def coco(names: dict[str, list], prefix: str = "", supercategory: bool = False) -> str:
    first = int(not supercategory)
    categories = [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(CLASSES, 1)]
    if supercategory:  # Roboflow's first category is the name of the project, and has no objects.
        categories = [category | {"supercategory": "kitchen"} for category in categories]
        categories.insert(0, {"id": 0, "name": "kitchen", "supercategory": "none"})
    images, annotations = [], []
    for number, (name, objects) in enumerate(names.items(), start=first):
        images.append({"id": number, "file_name": f"{prefix}{name}.jpg", "width": SIZE[0], "height": SIZE[1]})
        for what, x1, y1, x2, y2 in objects:
            box = [x1, y1, x2 - x1, y2 - y1]
            record = {"image_id": number, "category_id": CLASSES.index(what) + 1, "bbox": box, "segmentation": []}
            annotations.append(record | {"id": len(annotations) + first, "area": box[2] * box[3], "iscrowd": 0})
    document = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
    return json.dumps(document)


def yolo_lines(objects: list) -> str:
    lines = []
    for what, x1, y1, x2, y2 in objects:
        shares = ((x1 + x2) / 2 / SIZE[0], (y1 + y2) / 2 / SIZE[1], (x2 - x1) / SIZE[0], (y2 - y1) / SIZE[1])
        lines.append(" ".join([str(CLASSES.index(what)), *(f"{share:.6f}" for share in shares)]))
    return "\n".join(lines)


def labelimg(folder: Path) -> None:
    """XML beside the pictures."""
    pictures_in(folder, OBJECTS)
    for name, objects in OBJECTS.items():
        (folder / f"{name}.xml").write_text(xml(objects, name))


def labelimg_apart(folder: Path) -> None:
    """XML in a folder of its own, as its "Change Save Dir" makes it."""
    pictures_in(folder / "pictures", OBJECTS)
    (folder / "labels").mkdir()
    for name, objects in OBJECTS.items():
        (folder / "labels" / f"{name}.xml").write_text(xml(objects, name))


def labelimg_with_classes(folder: Path) -> None:
    """XML beside the pictures, and the list of classes that `--classes` takes: the README's folder."""
    labelimg(folder)
    (folder / "classes.txt").write_text("mug\nlamp\n")


def labelimg_yolo(folder: Path) -> None:
    pictures_in(folder, OBJECTS)
    (folder / "classes.txt").write_text("mug\nlamp\n")
    for name, objects in OBJECTS.items():
        (folder / f"{name}.txt").write_text(yolo_lines(objects))


def cvat_coco(folder: Path) -> None:
    pictures_in(folder / "images", OBJECTS)
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_default.json").write_text(coco(OBJECTS))


def cvat_coco_subsets(folder: Path) -> None:
    for subset, names in (("Train", OBJECTS), ("Validation", ASIDE), ("Test", TEST)):
        pictures_in(folder / "images" / subset, names)
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{subset}.json").write_text(coco(names))


def roboflow_coco(folder: Path) -> None:
    for part, names in (("train", OBJECTS), ("valid", ASIDE), ("test", TEST)):
        pictures_in(folder / part, names)
        (folder / part / "_annotations.coco.json").write_text(coco(names, supercategory=True))
    (folder / "README.roboflow.txt").write_text("kitchen\n")


def roboflow_voc(folder: Path) -> None:
    for part, names in (("train", OBJECTS), ("valid", ASIDE)):
        pictures_in(folder / part, names)
        for name, objects in names.items():
            (folder / part / f"{name}.xml").write_text(xml(objects, name))


def roboflow_yolo(folder: Path) -> None:
    for part, names in (("train", OBJECTS), ("valid", ASIDE), ("test", TEST)):
        pictures_in(folder / part / "images", names)
        (folder / part / "labels").mkdir()
        for name, objects in names.items():
            (folder / part / "labels" / f"{name}.txt").write_text(yolo_lines(objects))
    settings = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['mug', 'lamp']\n"
    (folder / "data.yaml").write_text(settings)


def ultralytics(folder: Path) -> None:
    """Lists of pictures, names by number, and no file of labels for a picture without objects."""
    for part, names in (("train", OBJECTS), ("val", ASIDE)):
        pictures_in(folder / "images" / part, names)
        (folder / "labels" / part).mkdir(parents=True)
        for name, objects in names.items():
            if objects:
                (folder / "labels" / part / f"{name}.txt").write_text(yolo_lines(objects))
        (folder / f"{part}.txt").write_text("".join(f"./images/{part}/{name}.jpg\n" for name in names))
    names = {number: name for number, name in enumerate(CLASSES)}
    settings = {"path": ".", "train": "train.txt", "val": ["images/val"], "names": names}
    (folder / "kitchen.yaml").write_text(yaml.safe_dump(settings))


def label_studio_coco(folder: Path) -> None:
    pictures_in(folder / "images", OBJECTS)
    (folder / "result.json").write_text(coco(OBJECTS, prefix="images\\"))


def label_studio_yolo(folder: Path) -> None:
    pictures_in(folder / "images", OBJECTS)
    (folder / "labels").mkdir()
    for name, objects in OBJECTS.items():
        (folder / "labels" / f"{name}.txt").write_text(yolo_lines(objects))
    (folder / "classes.txt").write_text("mug\nlamp\n")
    (folder / "notes.json").write_text('{"categories": [{"id": 0, "name": "mug"}, {"id": 1, "name": "lamp"}]}')


# Those that have pictures for validation, and those that have some for a test.
LAYOUTS: dict[Callable[[Path], None], tuple[bool, bool]] = {
    labelimg: (False, False), labelimg_apart: (False, False), labelimg_with_classes: (False, False),
    labelimg_yolo: (False, False), cvat_coco: (False, False), cvat_coco_subsets: (True, True),
    roboflow_coco: (True, True), roboflow_voc: (True, False), roboflow_yolo: (True, True), ultralytics: (True, False),
    label_studio_coco: (False, False), label_studio_yolo: (False, False),
}  # fmt: skip


def as_objects(pictures: list[Picture]) -> dict[str, list]:
    """What the layouts were made from."""
    found = {}
    for picture in pictures:
        assert picture.path.is_file()
        assert (picture.width, picture.height) == SIZE
        assert picture.labelled is None
        boxes = np.round(picture.boxes).astype(int).tolist()
        assert np.abs(picture.boxes - np.round(picture.boxes)).max(initial=0) < 1e-3
        found[picture.path.stem] = [(CLASSES[label], *box) for label, box in zip(picture.labels, boxes, strict=True)]
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_the_layouts_of_labelling_tools(tmp_path: Path, layout: Callable[[Path], None]) -> None:
    layout(tmp_path)
    training, validation = read_labelled_folder(tmp_path, CLASSES), read_validation(tmp_path, CLASSES)
    test = read_test(tmp_path, CLASSES)
    assert as_objects(training) == OBJECTS
    assert as_objects(validation) == (ASIDE if LAYOUTS[layout][0] else {})
    assert as_objects(test) == (TEST if LAYOUTS[layout][1] else {})
    names = [picture.image_id for picture in (*training, *validation, *test)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("layout", [labelimg, label_studio_yolo, cvat_coco], ids=lambda layout: layout.__name__)
def test_objects_of_other_classes_are_left_out_with_a_warning(tmp_path: Path, layout: Callable[[Path], None]) -> None:
    layout(tmp_path)
    with pytest.warns(DataWarning, match="left out 2 objects of classes that are not asked for: 2 of 'lamp'"):
        training = read_labelled_folder(tmp_path, ("mug",))
    assert [len(picture.labels) for picture in sorted(training, key=lambda one: one.path.name)] == [1, 0, 0]
    with pytest.raises(AnnotationError, match="did you mean 'Lamp'"):
        read_labelled_folder(tmp_path, ("mug", "Lamp"))


@pytest.mark.parametrize("layout", [labelimg, label_studio_yolo], ids=lambda layout: layout.__name__)
def test_pictures_without_labels_are_left_out_with_a_warning(tmp_path: Path, layout: Callable[[Path], None]) -> None:
    layout(tmp_path)
    for file in [*tmp_path.rglob("two.xml"), *tmp_path.rglob("two.txt")]:
        file.unlink()
    with pytest.warns(DataWarning, match=r"1 pictures have no file of labels and are left out \((images/)?two"):
        assert len(read_labelled_folder(tmp_path, CLASSES)) == 2


def test_a_name_for_two_files_is_told(tmp_path: Path) -> None:
    labelimg_apart(tmp_path)
    shutil.copytree(tmp_path / "pictures", tmp_path / "copies")
    with pytest.raises(
        AnnotationError, match=r"3 faults: .*one.xml: may belong to copies/one, pictures/one in .*beside"
    ):
        read_labelled_folder(tmp_path, CLASSES)
    for folder in ("copies", "pictures"):
        shutil.rmtree(tmp_path / folder)
    with pytest.raises(AnnotationError, match=r"one.xml: there is no picture of that name in "):
        read_labelled_folder(tmp_path, CLASSES)


@pytest.mark.parametrize(("name", "told"), [("nowhere", "does not exist"), ("one.jpg", "is a file; name the folder")])
def test_what_is_no_folder_is_told(tmp_path: Path, name: str, told: str) -> None:
    labelimg(tmp_path)
    with pytest.raises(AnnotationError, match=f"{name}: {told}"):
        read_labelled_folder(tmp_path / name, CLASSES)


def test_classes_that_are_not_labelled_are_told_with_those_that_are(tmp_path: Path) -> None:
    labelimg(tmp_path)
    silent = {
        "tell": lambda text: None,
        "warn": lambda text: None,
        "progress": lambda *_: nullcontext(lambda done: None),
    }
    told = r"none of 3 pictures has an object of cup; --classes FILE names the classes as the labels do \(lamp, mug\)"
    with pytest.warns(DataWarning), pytest.raises(AnnotationError, match=told):
        read_training_pictures([tmp_path], ("cup",), "trainval", **silent)


def test_an_unknown_layout_is_told_those_that_are_known(tmp_path: Path) -> None:
    pictures_in(tmp_path, OBJECTS)
    with pytest.raises(AnnotationError, match=r"nor that of a labelling tool: LabelImg .*CVAT .*Roboflow .*YOLO"):
        read_labelled_folder(tmp_path, CLASSES)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0 0.5 0.5 0.5", "is not 'class x y width height'"),
        ("0 0.5 0.5 0.5 0.5 0.9", "is not 'class x y width height'"),
        ("mug 0.5 0.5 0.5 0.5", "is not 'class x y width height'"),
        ("0 30 20 10 10", "in shares of the picture's size"),
        ("0 nan 0.5 0.1 0.1", "in shares of the picture's size"),
        ("2 0.5 0.5 0.1 0.1", "there are 2 classes, numbered from 0, and none 2"),
        ("0.5 0.5 0.5 0.1 0.1", "none 0.5"),
    ],
)
def test_malformed_labels_are_told_with_file_and_line(tmp_path: Path, line: str, told: str) -> None:
    labelimg_yolo(tmp_path)
    (tmp_path / "two.txt").write_text(f"1 0.5 0.5 0.1 0.1\n\n{line}\n")
    with pytest.raises(AnnotationError, match=r"two.txt, line 3: ") as caught:
        read_labelled_folder(tmp_path, CLASSES)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("names: [mug, lamp\n", "cannot be read"),
        ("\x07", "cannot be read (unacceptable character"),
        ("names: 3\ntrain: .\n", "names is no list"),
        ("names: {1: mug, 2: lamp}\ntrain: .\n", "names is no list"),
        ("names: [mug, lamp]\ntrain: nowhere\n", "train: there is no 'nowhere' below"),
        (f"names: [mug, lamp]\ntrain: {300 * 'a'}\n", "train: there is no 'aaa"),
        ("names: [mug, lamp]\ntrain: .\nval: [7]\n", "val: there is no '7' below"),
        ("names: [mug, lamp]\ntrain: 7\n", "train: there is no '7' below"),
        ("names: [mug, lamp]\nval: .\n", "train: names no pictures"),
    ],
)
def test_a_malformed_data_yaml_is_told(tmp_path: Path, text: str, told: str) -> None:
    pictures_in(tmp_path, OBJECTS)
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(AnnotationError, match=r"data\.yaml: ") as caught:
        read_labelled_folder(tmp_path, CLASSES)
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_outlines_become_their_boxes_and_a_turned_picture_is_upright(tmp_path: Path) -> None:
    image = random_image(0, *SIZE)
    camera = Image.Exif()
    camera[0x0112] = 6  # to be turned by 90 degrees
    write_image(tmp_path / "one.jpg", image, exif=camera)
    (tmp_path / "one.txt").write_text("1 0.1 0.2 0.5 0.1 0.4 0.9\n")
    (tmp_path / "classes.txt").write_text("mug\nlamp\n")
    ((picture,), _, _) = read_yolo(tmp_path / "classes.txt", CLASSES)
    assert (picture.width, picture.height) == SIZE[::-1]
    assert picture.boxes == pytest.approx(np.array([[4, 6, 20, 54]]), abs=1e-4)


names = st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=1, max_size=5, unique=True)


@given(names)
def test_names_come_back_from_every_file_of_names(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    folder = tmp_path_factory.mktemp("names")
    (folder / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    (folder / "data.yaml").write_text(yaml.safe_dump({"names": names, "train": "."}), encoding="utf-8")
    assert read_yolo_names(folder / "classes.txt") == read_yolo_names(folder / "data.yaml") == tuple(names)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_detections_in_such_a_folder_are_evaluated(
    tmp_path: Path, layout: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    from inception_rcnn.detect.cli.app import main

    def run(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return int(stop.value.code or 0), capsys.readouterr().err

    mine = tmp_path / "mine"
    mine.mkdir()
    layout(mine)
    own = sorted(annotated_classes(mine))
    assert own == sorted(CLASSES)
    found, proposed = [], []
    for path in sorted(mine.rglob("*.jpg")):
        objects = {**OBJECTS, **ASIDE, **TEST}[path.stem]
        boxes = np.float32([one[1:] for one in objects]).reshape(-1, 4)
        scores = np.ones(len(objects), np.float32)
        labels = np.array([CLASSES.index(one[0]) for one in objects], np.int64)
        name = path.relative_to(mine).as_posix()
        found.append((name, *SIZE, Detections(boxes, scores, labels, CLASSES)))
        proposed.append(Proposals(name, *SIZE, boxes, scores))
    write_detections(tmp_path / "found.json", found, CLASSES)
    write_proposals(tmp_path / "boxes.npz", proposed)
    options = ["--devkit", mine, "--json", tmp_path / "n.json", "--split"]
    evaluate = ["evaluate", "voc", *options, "trainval", "--detections", tmp_path / "found.json"]
    status, told = run(*evaluate)
    assert status == 0
    result = json.loads((tmp_path / "n.json").read_text())
    assert {name: result["per_class"][name] for name in CLASSES} == {"mug": 1, "lamp": 1}
    status, told = run("evaluate", "proposals", *options, "trainval", "--proposals", tmp_path / "boxes.npz")
    assert status == 0
    assert json.loads((tmp_path / "n.json").read_text())["recall"]["0.5"] == 1
    evaluate[evaluate.index("trainval")] = "val"
    status, told = run(*evaluate)
    if LAYOUTS[layout][0]:
        assert json.loads((tmp_path / "n.json").read_text())["per_class"]["mug"] == 1
        assert "left out" in told
    else:
        assert status == 2
        assert "of its 3 pictures, none is in --split val; use --split trainval" in told
    evaluate[evaluate.index("val")] = "test"
    status, told = run(*evaluate)
    if LAYOUTS[layout][1]:
        assert json.loads((tmp_path / "n.json").read_text())["per_class"] == {**dict.fromkeys(own), "lamp": 1}
    else:
        assert (status, told.count("\n")) == (2, 1)
        assert "--split 'test' is unknown; use train, val or trainval" in told
    # Without a split it is the test's pictures, else those of a val of its own, else all.
    del evaluate[evaluate.index("--split") : evaluate.index("--split") + 2]
    status, told = run(*evaluate)
    val = "the 1 picture of val in" if LAYOUTS[layout][0] else "all 3 pictures"
    chosen = "the 1 picture of test in" if LAYOUTS[layout][1] else val
    assert f"on {chosen}" in told.replace("\n", " ")


def test_pictures_under_train_and_val_are_trained_on(tmp_path: Path) -> None:
    """As people with few pictures write data.yaml."""
    roboflow_yolo(tmp_path)
    settings = tmp_path / "data.yaml"
    settings.write_text(settings.read_text().replace("../valid/images", "../train/images"))
    with pytest.warns(DataWarning, match=r"data\.yaml: 3 pictures are under train and under val .*they are trained on"):
        assert as_objects(read_labelled_folder(tmp_path, CLASSES)) == OBJECTS
    with pytest.warns(DataWarning):
        assert read_validation(tmp_path, CLASSES) == []
    settings.write_text(settings.read_text().replace("val: ../train/images", "val: [train/images, valid/images]"))
    with pytest.raises(AnnotationError, match=r"3 pictures are under train and under val .*name each under one"):
        read_labelled_folder(tmp_path, CLASSES)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_the_classes_of_a_tools_folder_are_learned_unless_others_are_named(
    tmp_path: Path, layout: Callable[[Path], None]
) -> None:
    layout(tmp_path)
    own = classes_to_learn([tmp_path])
    assert sorted(own) == sorted(annotated_classes(tmp_path))
    if (tmp_path / "classes.txt").is_file():
        assert own == CLASSES


def test_vocs_classes_are_learned_from_sets_that_have_some(tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc", {"a": voc_xml(("mug", 1, 1, 20, 10))}, "trainval")
    assert classes_to_learn([voc]) == ("mug",)
    cats = write_voc(tmp_path / "cats", {"b": voc_xml(("cat", 1, 1, 20, 10), ("mug", 1, 1, 20, 10))}, "trainval")
    assert classes_to_learn([voc, cats]) == VOC_CLASSES
    own = tmp_path / "own"
    own.mkdir()
    labelimg(own)
    (own / "one.xml").write_text((own / "one.xml").read_text().replace("mug", "cat"))
    assert set(classes_to_learn([own])) == {"cat", "lamp"}
    assert classes_to_learn([own, cats]) == VOC_CLASSES
    assert classes_to_learn([tmp_path / "missing"]) == VOC_CLASSES


def test_a_coco_file_names_classes(tmp_path: Path) -> None:
    file = tmp_path / "classes.json"
    file.write_text(coco(OBJECTS))
    assert read_class_list(str(file)) == CLASSES
    file.with_suffix(".txt").write_text(coco(OBJECTS))
    with pytest.raises(AnnotationError, match=r"is no name of a class") as told:
        read_class_list(str(file.with_suffix(".txt")))
    assert len(str(told.value)) < 250


def test_the_pictures_that_a_training_sets_aside_are_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set in VOC's layout without a list of them, and with a list of its classes."""
    from inception_rcnn.detect.cli.app import main
    from inception_rcnn.detect.train import data

    mine = write_voc(
        tmp_path / "mine", {"a": voc_xml(("mug", 1, 1, 20, 10)), "b": voc_xml(("cat", 1, 1, 20, 10))}, "trainval"
    )
    (mine / "classes.txt").write_text("mug\ncat\n")
    monkeypatch.setattr(data, "split_validation", lambda pictures: (pictures[:1], pictures[1:]))
    boxes, label = np.float32([[0, 0, 20, 10]]), np.array([1])
    found = Detections(boxes, np.float32([0.5]), label, ("mug", "cat"))
    write_detections(tmp_path / "found.json", [("a.jpg", *SIZE, found), ("b.jpg", *SIZE, found)], ("mug", "cat"))
    options = ["--devkit", str(mine), "--detections", str(tmp_path / "found.json"), "--json", "-"]
    for split, expected in (("val", {"mug": None, "cat": 1}), ("trainval", {"mug": 0, "cat": 0.5})):
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", "voc", "--split", split, *options])
        assert not stop.value.code
        assert json.loads(capsys.readouterr().out)["per_class"] == expected
