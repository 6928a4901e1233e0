import functools
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from builders import make_detections, random_detections, voc_xml

from inception_rcnn.data import (
    ILSVRC_DET_CLASSES,
    AnnotationError,
    DetectionError,
    Detections,
    read_ilsvrc,
    read_ilsvrc_blacklist,
    read_ilsvrc_list,
    read_ilsvrc_results,
    read_meta_det,
    write_ilsvrc_results,
)
from inception_rcnn.data.errors import DataWarning

pytestmark = pytest.mark.filterwarnings("ignore::inception_rcnn.data.errors.DataWarning")
NAMES = tuple(ILSVRC_DET_CLASSES.values())
VAL = "ILSVRC2012_val_0000000"
detections = functools.partial(random_detections, classes=NAMES)


@pytest.fixture
def det(tmp_path):
    """Annotations as the kit lays them out."""
    root = tmp_path / "ILSVRC"
    folder = root / "Annotations/DET"
    for name, text in {
        f"val/{VAL}1": voc_xml(("n02219486", 0, 0, 49, 39), ("n99999999", 1, 1, 2, 2), ("n02391049", 5, 6, 5, 7)),
        f"val/{VAL}2": voc_xml(),
        "train/ILSVRC2014_train_0006/ILSVRC2014_train_00060036": voc_xml(("n00007846", 1, 498, 0, 498)),
        "train/ILSVRC2013_train/n02672831/n02672831_11478": voc_xml(("n02672831", 1, 1, 9, 9)),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.xml").write_text(text)
    return root


def test_the_classes():
    assert len(ILSVRC_DET_CLASSES) == len(set(NAMES)) == 200
    assert all(len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdigit() for wnid in ILSVRC_DET_CLASSES)
    assert (NAMES[0], NAMES[27], NAMES[28], NAMES[199]) == ("accordion", "bow tie", "bow", "zebra")
    assert ILSVRC_DET_CLASSES["n02883205"] == "bow tie"


def test_the_classes_are_those_of_other_programs(shared):
    file = shared / "reference/ilsvrc_det_classes.txt"
    if not file.is_file():
        pytest.skip("no list of classes in the folder of reference data")
    rows = [line.split("\t") for line in file.read_text().splitlines()]
    assert rows == [[str(i), wnid, name] for i, (wnid, name) in enumerate(ILSVRC_DET_CLASSES.items(), 1)]


def test_annotations_in_the_order_of_the_list(det, tmp_path):
    (tmp_path / "val.txt").write_text(f"{VAL}2 2\n\n{VAL}1 1\n")
    second, first = read_ilsvrc(det / "Annotations/DET/val", tmp_path / "val.txt")
    assert (first.image_id, first.width, first.height) == (f"{VAL}1", 60, 40)
    assert first.path == det / f"Data/DET/val/{VAL}1.JPEG"
    # As VOC's, whatever the file counts from; every width is xmax - xmin + 1.
    assert first.boxes.tolist() == [[-1, -1, 49, 39], [4, 5, 5, 7]]
    assert [NAMES[label] for label in first.labels] == ["ant", "zebra"]
    assert not first.difficult.any()
    assert (second.image_id, second.boxes.shape) == (f"{VAL}2", (0, 4))


def test_annotations_of_the_training_set(det, tmp_path):
    (tmp_path / "train_1.txt").write_text(
        "ILSVRC2013_train/n02672831/n02672831_11478 1\nILSVRC2014_train_0006/ILSVRC2014_train_00060036 1\n"
    )
    first, second = read_ilsvrc(det / "Annotations/DET/train", tmp_path / "train_1.txt", image_root=tmp_path)
    assert first.image_id == "ILSVRC2013_train/n02672831/n02672831_11478"
    assert first.path == tmp_path / "ILSVRC2013_train/n02672831/n02672831_11478.JPEG"
    # One of the boxes without a pixel that the challenge has.
    assert second.boxes.tolist() == [[0, 497, 0, 498]]
    with pytest.raises(AnnotationError, match=r"train_1\.txt, line 2: .* has the number 1 of .*training images"):
        read_ilsvrc_list(tmp_path / "train_1.txt")


def test_annotations_without_a_list_are_sorted(det):
    folder = det / "Annotations/DET"
    names = [picture.image_id for picture in read_ilsvrc(folder)]
    assert names == [
        "train/ILSVRC2013_train/n02672831/n02672831_11478",
        "train/ILSVRC2014_train_0006/ILSVRC2014_train_00060036",
        f"val/{VAL}1",
        f"val/{VAL}2",
    ]
    assert read_ilsvrc_list(folder) == {name: i for i, name in enumerate(names, 1)}


def test_classes_of_ones_own(det):
    pictures = read_ilsvrc(det / "Annotations/DET/val", classes={"n02391049": "stripes"})
    assert [picture.labels.tolist() for picture in pictures] == [[0], []]


def test_pictures_of_any_suffix_and_names_with_spaces(tmp_path):
    annotations, images = tmp_path / "Annotations/val", tmp_path / "Data/val"
    for folder in (annotations, images / "more"):
        folder.mkdir(parents=True)
    (annotations / "more").mkdir()
    for name, file in {"IMG 001": "IMG 001.png", "more/b": "more/b.JPG", "c": None}.items():
        (annotations / f"{name}.xml").write_text(voc_xml(size=None))
        if file:
            (images / file).touch()
    (tmp_path / "val.txt").write_text("IMG 001\nmore/b 7\nc")
    pictures = read_ilsvrc(annotations, tmp_path / "val.txt")
    assert [picture.image_id for picture in pictures] == ["IMG 001", "more/b", "c"]
    assert [picture.path for picture in pictures] == [images / name for name in ("IMG 001.png", "more/b.JPG", "c.JPEG")]
    assert [(picture.width, picture.height) for picture in pictures] == [(0, 0)] * 3
    (tmp_path / "val.txt").write_text("IMG 001 2\nmy cat 1\n")
    assert read_ilsvrc_list(tmp_path / "val.txt") == {"IMG 001": 2, "my cat": 1}


def test_faults_of_lists_are_one_error(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("".join(f"a{i} {i}.5\n" for i in range(12)))
    with pytest.raises(AnnotationError, match=r"12 faults: .*line 1: '0.5' after 'a0' .*line 10: .*; and 2 more$"):
        read_ilsvrc_list(path)
    path.write_text("a 1\na 2\nb 3\nb 4\n")
    with pytest.raises(AnnotationError, match=r"2 faults: .*'a' is in the list twice; .*'b' is in the list twice$"):
        read_ilsvrc_list(path)
    path.write_text("1 n0\n2 n02219486 3\n")
    with pytest.raises(AnnotationError, match=r"2 faults: .*'n0' is not among the 200 classes; .*line 2: "):
        read_ilsvrc_blacklist(path, {})


def test_objects_that_are_left_out_are_told(det):
    with pytest.warns(DataWarning, match=r"DET.val: left out 1 object of .*: 1 of 'n99999999'$"):
        read_ilsvrc(det / "Annotations/DET/val")


def test_bad_annotations_are_named(det, tmp_path):
    folder = det / "Annotations/DET/val"
    file = folder / f"{VAL}2.xml"
    for text, problem in [
        (voc_xml(("n02219486", 9, 1, 7, 2)), "of a n02219486 ends before it begins: 9 1 7 2"),
        (voc_xml(("n02219486", 1, 1, "1e39", 2)), "<xmax> is '1e39', not a number that a picture can have"),
        ("", "not well-formed"),
    ]:
        file.write_text(text)
        with pytest.raises(AnnotationError, match=problem) as caught:
            read_ilsvrc(folder)
        assert str(caught.value).startswith(f"{file}: ")
    (tmp_path / "val.txt").write_text(f"{VAL}3 3\n")
    with pytest.raises(AnnotationError, match=rf"{VAL}3\.xml: cannot be read .*val\.txt names it"):
        read_ilsvrc(folder, tmp_path / "val.txt")
    with pytest.raises(AnnotationError, match=r"Data: cannot be read \(No such file"):
        read_ilsvrc(det / "Data")
    (det / "Data").mkdir()
    with pytest.raises(AnnotationError, match="Data: there is no XML file"):
        read_ilsvrc(det / "Data")


def test_numbers_of_the_images(tmp_path):
    path = tmp_path / "val.txt"
    path.write_text("\ufeffb 7\n a\t3 \r\n\n")
    assert list(read_ilsvrc_list(path).items()) == [("b", 7), ("a", 3)]
    path.write_text("b\na\n")
    assert list(read_ilsvrc_list(path).items()) == [("b", 1), ("a", 2)]
    path.write_text("")
    assert read_ilsvrc_list(path) == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a 1\nb 1\n", "line 2: 'b' has the number 1 of 'a'"),
        ("a 1\na 2\n", "line 2: 'a' is in the list twice"),
        ("a 1\n\nb\n", "line 3: '' after 'b' is not an image number"),
        ("a\nb 2\n", "line 1: '' after 'a' is not an image number"),
        ("a -1\n", "line 1: '-1' after 'a'"),
        ("a 1.5\n", "line 1: '1.5' after 'a'"),
        ("a nan\n", "line 1: 'nan' after 'a'"),
        ("a 1\nb one\n", "line 2: '' after 'b one' is not an image number"),
        (b"\xff\xfe", "not a text file in UTF-8"),
    ],
)
def test_bad_lists_are_named(tmp_path, text, problem):
    path = tmp_path / "val.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(AnnotationError, match=problem) as caught:
        read_ilsvrc_list(path)
    assert str(caught.value).startswith(str(path))


def test_results_give_back_what_was_written(tmp_path):
    numbers = {"a": 7, "b": 3, "c": 20121}
    written = {"c": detections(50), "a": detections(9, 1), "b": detections(0)}
    write_ilsvrc_results(tmp_path / "r.txt", written, numbers)
    found = read_ilsvrc_results(tmp_path / "r.txt", numbers)
    assert list(found) == ["c", "a"]
    for name, one in found.items():
        assert one.classes == NAMES
        assert (one.boxes.dtype, one.scores.dtype, one.labels.dtype) == (np.float32, np.float64, np.int64)
        np.testing.assert_allclose(one.boxes, written[name].boxes, atol=1e-4)
        np.testing.assert_array_equal(one.scores.astype(np.float32), written[name].scores)
        np.testing.assert_array_equal(one.labels, written[name].labels)


def test_double_scores_are_written_whole(tmp_path):
    one = detections(50)
    scores = 1 - one.scores.astype(np.float64) * 1e-9
    write_ilsvrc_results(tmp_path / "r.txt", {"a": Detections(one.boxes, scores, one.labels, NAMES)}, {"a": 7})
    assert read_ilsvrc_results(tmp_path / "r.txt", {"a": 7})["a"].scores.tolist() == scores.tolist()


def test_results_are_as_the_kit_takes_them(tmp_path):
    # Classes are matched by name.
    found = make_detections([[0, 1, 20.5, 10]], [0.25], [1], ("x", "ant"))
    write_ilsvrc_results(tmp_path / "r.txt", {"a": found}, {"a": 18})
    assert (tmp_path / "r.txt").read_text() == "18 3 0.25 1.000000 2.000000 20.500000 10.000000\n"


def test_results_of_other_programs(tmp_path):
    # In any order, empty lines, and everything a floating point number, as numpy's savetxt writes it.
    (tmp_path / "r.txt").write_text("7 1 .5 1 1 2 2\r\n\n3.00e+00 2e0 -1e-3 1 1 2 2\n  007\t200 1 0 0 0 0")
    found = read_ilsvrc_results(tmp_path / "r.txt", {"a": 7, "b": 3})
    assert {name: one.labels.tolist() for name, one in found.items()} == {"a": [0, 199], "b": [1]}
    np.savetxt(tmp_path / "r.txt", np.array([[7, 1, 0.5, 1, 1, 2, 2]]))
    assert read_ilsvrc_results(tmp_path / "r.txt", {"a": 7})["a"].boxes.tolist() == [[0, 0, 2, 2]]


def test_no_results(tmp_path):
    (tmp_path / "r.txt").write_text("\n")
    assert read_ilsvrc_results(tmp_path / "r.txt", {"a": 7}) == {}
    write_ilsvrc_results(tmp_path / "r.txt", {}, {})
    assert read_ilsvrc_results(tmp_path / "r.txt", {"a": 7}) == {}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("7 1 0.5 1 1 2", "'7 1 0.5 1 1 2' is not 'image_number class_number score xmin ymin xmax ymax'"),
        ("7 1 0.5 1 1 2 2 2", "is not 'image_number"),
        ("7 1 high 1 1 2 2", "is not 'image_number"),
        ("7 1 nan 1 1 2 2", "not a finite number"),
        ("7 1 0.5 1 1 inf 2", "not a finite number"),
        ("7 1 0.5 1 1 1e39 2", "not a finite number, or too large a one"),
        ("7 1 0.5 3 1 1 2", "a box that ends before it begins in [1.0, 0.5, 3.0, 1.0, 1.0, 2.0]"),
        ("7 0 0.5 1 1 2 2", "there is no class 0; they are numbered 1 to 200"),
        ("7 201 0.5 1 1 2 2", "there is no class 201"),
        ("7 1.5 0.5 1 1 2 2", "there is no class 1.5"),
        ("8 1 0.5 1 1 2 2", "there is no image with the number '8' among the 1 of the list"),
        ("7.5 1 0.5 1 1 2 2", "there is no image with the number '7.5'"),
        ("a 1 0.5 1 1 2 2", "there is no image with the number 'a'"),
    ],
)
def test_bad_results_are_named_with_their_line(tmp_path, line, problem):
    path = tmp_path / "r.txt"
    path.write_text(f"7 1 0.5 1 1 2 2\n\n{line}\n7 1 0.5 1 1 2 2\n")
    with pytest.raises(DetectionError) as caught:
        read_ilsvrc_results(path, {"a": 7})
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert problem in str(caught.value)


def test_missing_and_binary_results_are_named(tmp_path):
    path = tmp_path / "r.txt"
    with pytest.raises(DetectionError, match=r"r\.txt: cannot be read \(No such file"):
        read_ilsvrc_results(path, {})
    path.write_bytes(b"\x80\x02}")
    with pytest.raises(DetectionError, match=r"r\.txt: is not a text file in UTF-8"):
        read_ilsvrc_results(path, {})


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "r.txt"
    path.write_text("old")
    bad = detections(3)
    bad.scores[1] = np.nan
    for found, problem in [
        ({"a": detections(1), "b": detections(1)}, "b: this picture has no number"),
        ({"a": bad}, "a: .*not a finite number"),
        ({"a": detections(1, classes=("unicorn",))}, "not among the classes"),
    ]:
        with pytest.raises(DetectionError, match=problem):
            write_ilsvrc_results(path, found, {"a": 1})
    assert path.read_text() == "old"


def test_the_blacklist(tmp_path):
    path = tmp_path / "blacklist.txt"
    path.write_text("18 n02219486\n18 n00007846\n7 n02219486\n999 n02219486\n18 n02219486\n")
    pairs = read_ilsvrc_blacklist(path, {"a": 18, "b": 7})
    assert pairs == {("a", "ant"), ("a", "person"), ("b", "ant")}
    for line, problem in [
        ("18", "'18' is not 'image_number WordNet_id'"),
        ("n02219486 18", "is not 'image_number WordNet_id'"),
        ("18 n02219486 1", "is not 'image_number WordNet_id'"),
        ("18 ant", "'ant' is not among the 200 classes"),
    ]:
        path.write_text(f"18 n02219486\n{line}\n")
        with pytest.raises(AnnotationError, match=problem) as caught:
            read_ilsvrc_blacklist(path, {"a": 18})
        assert str(caught.value).startswith(f"{path}, line 2: ")
    path.write_text("")
    assert read_ilsvrc_blacklist(path, {"a": 18}) == set()


def synsets(*rows, year=2014):
    kinds = {f"ILSVRC{year}_DET_ID": float, "WNID": object, "name": object, "description": object, "children": object}
    return np.array([(*row, "a thing", np.array([1.0, 2.0])) for row in rows], list(kinds.items()))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("year", [2013, 2014, 2015])
def test_the_classes_of_the_kit(tmp_path, year, compressed):
    rows = [(i, wnid, name) for i, (wnid, name) in enumerate(ILSVRC_DET_CLASSES.items(), 1)]
    more = [(201, "n00001740", "entity"), (0, "n00001930", "physical entity")]
    document = {"synsets": synsets(*more, *reversed(rows), year=year).reshape(1, -1)}
    scipy.io.savemat(tmp_path / "meta_det.mat", document, do_compression=compressed)
    classes = read_meta_det(tmp_path / "meta_det.mat")
    assert list(classes.items()) == list(ILSVRC_DET_CLASSES.items())


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({}, "has no variable 'synsets'"),
        ({"synsets": "text"}, "has no variable 'synsets'"),
        ({"synsets": ["text", "more"]}, "an entry of 'synsets' has no number"),
        ({"synsets": {"WNID": "n1", "name": "a"}}, "an entry of 'synsets' has no number"),
        ({"synsets": synsets((1, "n1", 5))}, "an entry of 'synsets' has no number"),
        ({"synsets": synsets((1.5, "n1", "a"))}, "an entry of 'synsets' has no number"),
        ({"synsets": synsets((float("nan"), "n1", "a"))}, "an entry of 'synsets' has no number"),
        ({"synsets": synsets((1, "n1", "a"), (1, "n2", "b"))}, "the id 1 twice"),
        ({"synsets": synsets((1, "n1", "a"), (3, "n2", "b"))}, "with the ids 1, 2, 3"),
        ({"synsets": synsets((1, "n1", "a"), (2, "n1", "b"))}, "each of its own class"),
        ({"synsets": synsets((1, "n1", "a"), (2, "n2", "a"))}, "each of its own class"),
    ],
)
def test_other_files_are_not_the_kits(tmp_path, variables, problem):
    path = tmp_path / "meta_det.mat"
    scipy.io.savemat(path, variables)
    with pytest.raises(AnnotationError, match=problem) as caught:
        read_meta_det(path)
    assert str(caught.value).startswith(f"{path}: ")
    Path(path).write_bytes(b"not MATLAB's")
    with pytest.raises(AnnotationError, match=r"meta_det\.mat: is not a file of MATLAB 5"):
        read_meta_det(path)
