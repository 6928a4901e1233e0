import json
import os
import re
import warnings

import numpy as np
import pytest
from builders import voc_xml, write_voc

from inception_rcnn.data import (
    VOC_CLASSES,
    AnnotationError,
    read_coco,
    read_coco_ids,
    read_ilsvrc,
    read_ilsvrc_list,
    read_voc,
    read_voc_results,
)
from inception_rcnn.data.classes.spelling import MisspeltClassWarning
from inception_rcnn.data.errors import DataWarning, SettingError

pytestmark = pytest.mark.filterwarnings("ignore::inception_rcnn.data.errors.DataWarning")


def test_voc_boxes_flags_and_order(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    root = write_voc(
        tmp_path,
        {
            "b": voc_xml(
                ("cat", 1, 1, 50, 40, "<difficult>0</difficult>"),
                ("unicorn", 1, 1, 2, 2),
                ("dog", 3.5, 4, 3.5, 9, "<difficult>1</difficult>"),
                ("person", 2, 2, 3, 3, part),
            ),
            "a": voc_xml(),
        },
        names="b  1\na -1\n\nb\n",
    )
    first, second = read_voc(root, "test")
    assert (first.image_id, first.width, first.height) == ("b", 60, 40)
    assert first.path == root / "JPEGImages" / "b.jpg"
    assert first.boxes.tolist() == [[0, 0, 50, 40], [2.5, 3, 3.5, 9], [1, 1, 3, 3]]
    assert [VOC_CLASSES[label] for label in first.labels] == ["cat", "dog", "person"]
    assert first.difficult.tolist() == [False, True, False]
    assert first.crowd.tolist() == [False] * 3
    assert first.labelled is None
    assert second.image_id == "a"
    # One tuple for all of them: it must stay cheap.
    assert first.classes == VOC_CLASSES
    assert first.classes is second.classes
    assert second.boxes.shape == (0, 4)
    assert (second.boxes.dtype, second.labels.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<annotation><size>", "not well-formed XML"),
        ('<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>', "document type"),
        (voc_xml(size=(-3, 9)), "-3 x 9"),
        (voc_xml(size=(3.5, 9)), "3.5 x 9, not two whole numbers"),
        (voc_xml(size=("wide", 9)), "<size><width> is 'wide'"),
        (voc_xml(("cat", "one", 1, 2, 2)), "<bndbox><xmin> is 'one', not a number"),
        (voc_xml(("cat", 1, "nan", 2, 2)), "<bndbox><ymin> is 'nan'"),
        (voc_xml(("cat", 9, 1, 8, 2)), "ends before it begins"),
        (voc_xml(("cat", 1, 1, 2, 2, "<difficult>no</difficult>")), "<difficult> is 'no'"),
        (voc_xml(("cat", 1, 1, 2, 2, "<difficult>2</difficult>")), "<difficult> is '2', not 0, 1, false or true"),
        (voc_xml(("cat", "1_0", 1, 20, 2)), "<xmin> is '1_0'"),
        (voc_xml(("cat", "1,5", 1, 20, 2)), "<xmin> is '1,5'"),
        (voc_xml("<object/>"), "no <name>"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "not well-formed XML"),
    ],
)
def test_bad_voc_annotations_are_named(tmp_path, text, problem):
    root = write_voc(tmp_path, {"000001": text})
    with pytest.raises(AnnotationError) as caught:
        read_voc(root, "test")
    assert problem in str(caught.value)
    assert str(root / "Annotations" / "000001.xml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_faults_of_a_set_are_one_error(tmp_path):
    bad = {f"{i:06}": voc_xml(("cat", 9, 1, 8, 2), ("dog", 1, 1, "x", 2)) for i in range(30)}
    root = write_voc(tmp_path, bad | {"good": voc_xml()})
    with pytest.raises(AnnotationError) as caught:
        read_voc(root, "test")
    text = str(caught.value)
    assert text.startswith(f"{root / 'ImageSets/Main/test.txt'}: 60 faults: {root / 'Annotations/000000.xml'}: the box")
    assert text.count("ends before it begins") == text.count("<xmax> is 'x'") == 5
    assert text.endswith("; and 50 more; correct it, or take the picture out of the list")
    assert "\n" not in text


def test_an_object_has_one_box(tmp_path):
    root = write_voc(tmp_path, {"1": voc_xml(("cat", 1, 1, 9, 9))})
    path = root / "Annotations/1.xml"
    box = re.search(r"<bndbox>.*?</bndbox>", path.read_text(), re.DOTALL)[0]
    path.write_text(path.read_text().replace(box, 2 * box))
    with pytest.raises(AnnotationError, match=r"1\.xml: a cat has 2 boxes; give each box an <object> of its own"):
        read_voc(root, "test")


@pytest.mark.parametrize("size", [None, (0, 0), (0, 9), ("", "")])
def test_a_size_is_not_demanded(tmp_path, size):
    (picture,) = read_voc(write_voc(tmp_path, {"a": voc_xml(("cat", 1, 1, 2, 2), size=size)}), "test")
    assert (picture.width, picture.height, picture.boxes.tolist()) == (0, 0, [[0, 0, 2, 2]])


def test_numbers_and_flags_in_other_forms(tmp_path):
    texts = {"true": True, "True": True, "1": True, "1.0": True, "false": False, "0": False, "": False}
    objects = [("cat", "1.0", 1, "1e1", 2, f"<difficult>{text}</difficult>") for text in texts]
    (picture,) = read_voc(write_voc(tmp_path, {"a": voc_xml(*objects, size=("60.0", 40))}), "test")
    assert picture.difficult.tolist() == list(texts.values())
    assert picture.boxes[0].tolist() == [0, 0, 10, 2]
    assert (picture.width, picture.height) == (60, 40)


def with_file_name(name):
    return voc_xml(f"<filename>{name}</filename>")


def test_voc_pictures_of_any_suffix(tmp_path):
    names = {"a": "a.png", "b": "b.JPG", "c": "c.jpeg", "d": "d.WebP", "e": "sub/e.avif", "g": "g.tif", "h": "absent"}
    xml = {name: voc_xml() for name in names} | {"g": with_file_name("old name.tif")}
    xml["sub/e"] = xml.pop("e")
    (tmp_path / "Annotations/sub").mkdir(parents=True)
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "JPEGImages/sub").mkdir(parents=True)
    for name, text in xml.items():
        (tmp_path / f"Annotations/{name}.xml").write_text(text)
    # Neither a mask of another suffix, which the labels do not mean, nor notes are in the way.
    for file in [*names.values(), "g.png", "g.txt", "h.txt"]:
        (tmp_path / "JPEGImages" / file).touch()
    (tmp_path / "ImageSets/Main/test.txt").write_text("\n".join(xml))
    pictures = read_voc(tmp_path, "test")
    found = {picture.image_id.removeprefix("sub/"): str(picture.path) for picture in pictures}
    assert found == {name: str(tmp_path / "JPEGImages" / file) for name, file in names.items()} | {
        "h": str(tmp_path / "JPEGImages/h.jpg")
    }


def test_a_name_that_may_mean_several_pictures(tmp_path):
    root = write_voc(tmp_path, {"a": voc_xml(), "b": with_file_name("b.jpg")})
    (root / "JPEGImages").mkdir()
    for name in ("a.jpg", "a.PNG", "b.jpg", "b.png"):
        (root / "JPEGImages" / name).touch()
    with pytest.raises(AnnotationError, match=r"JPEGImages.a: may be a\.PNG or a\.jpg; remove all but one") as caught:
        read_voc(root, "test")
    assert "\n" not in str(caught.value)


def test_folders_are_listed_once(tmp_path, monkeypatch):
    root = write_voc(tmp_path, {f"{i}": voc_xml() for i in range(50)})
    (root / "JPEGImages").mkdir()
    listed = []
    monkeypatch.setattr(os, "listdir", lambda folder, real=os.listdir: listed.append(folder) or real(folder))
    assert len(read_voc(root, "test")) == 50
    assert listed == [os.path.join(root, "JPEGImages", "")]


def test_names_in_lists_have_spaces(tmp_path):
    names = ["IMG 001", "IMG 002", "my cat", "one", "two", "shot 1"]
    listed = "IMG 001\nIMG 002  1\r\nmy cat -1\none  0\ntwo\nshot 1\n"
    root = write_voc(tmp_path, {name: voc_xml() for name in names}, names=listed)
    assert [picture.image_id for picture in read_voc(root, "test")] == names


@pytest.mark.parametrize("bad", ["\0", "\x0b", "\x85", "\u2028", "\x1b[2J"])
def test_a_name_with_a_control_character_is_refused_in_one_line(tmp_path, bad):
    root = write_voc(tmp_path, {"1": voc_xml()}, names=f"1\na{bad}b")
    for read in (lambda: read_voc(root, "test"), lambda: read_ilsvrc_list(root / "ImageSets/Main/test.txt")):
        with pytest.raises(AnnotationError, match=r"test\.txt, line 2: has the control character '\\") as caught:
            read()
        assert len(str(caught.value).splitlines()) == 1


def test_a_fault_is_told_in_short_however_long_a_name_is(tmp_path):
    root = write_voc(tmp_path, {"1": voc_xml()}, names="\n".join(letter * 50_000 for letter in "abc"))
    with pytest.raises(AnnotationError, match=r"3 faults.*/aaa.* \.\.\. .*aaa\.xml.*ccc\.xml") as caught:
        read_voc(root, "test")
    assert len(str(caught.value)) < 4000


def test_objects_that_are_left_out_are_told_once(tmp_path):
    root = write_voc(tmp_path, {"1": voc_xml(("cat", 1, 1, 9, 9)), "2": voc_xml(*[("Dog", 1, 1, 9, 9)] * 3)})
    with pytest.warns(MisspeltClassWarning) as caught:
        read_voc(root, "test")
    (warning,) = caught
    assert str(warning.message).endswith(
        "test.txt: left out 3 objects of classes that are not asked for: 3 of 'Dog' (did you mean 'dog'?)"
    )
    assert warning.filename == __file__


def test_voc_for_its_own_classes_leaves_nothing_out(tmp_path):
    # Of a person's parts none is an object.
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    root = write_voc(tmp_path, {"1": voc_xml(*((name, 1, 1, 9, 9, part) for name in VOC_CLASSES))})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_voc(root, "test")[0].labels) == 20


def test_one_name_is_no_list_of_classes(tmp_path):
    root = write_voc(tmp_path, {"1": voc_xml(("cat", 1, 1, 9, 9))})
    with pytest.raises(SettingError, match=r"classes must be a list of names, not one name; write \['cat'\]"):
        read_voc(root, "test", "cat")
    with pytest.raises(SettingError, match="classes must be a list of names"):
        read_voc_results(root, "cat")
    with pytest.raises(SettingError, match="classes must map WordNet ids to names"):
        read_ilsvrc(root / "Annotations", classes=["cat"])


def test_an_entity_bomb_in_another_encoding_is_refused(tmp_path):
    root = write_voc(tmp_path, {"000001": ""})
    text = '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>'
    (root / "Annotations/000001.xml").write_bytes(text.encode("utf-16"))
    with pytest.raises(AnnotationError, match="document type"):
        read_voc(root, "test")


def test_missing_voc_files_are_named(tmp_path):
    root = write_voc(tmp_path, {"a": voc_xml()}, names="a\nmissing")
    with pytest.raises(AnnotationError, match=r"missing\.xml"):
        read_voc(root, "test")
    with pytest.raises(AnnotationError, match=r"val\.txt.*splits there: test"):
        read_voc(root, "val")
    with pytest.raises(AnnotationError, match="root of a VOC set"):
        read_voc(root / "Annotations", "val")


def coco_document():
    return {
        "images": [
            {"id": 9, "file_name": "sub/b.jpg", "width": 20, "height": 10},
            {"id": 4, "file_name": "a.jpg", "width": 20, "height": 10},
        ],
        "categories": [{"id": 3, "name": "tv"}, {"id": 1, "name": "zebra"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 2, "bbox": [1, 2, 3, 4], "iscrowd": 1},
            {"id": 2, "image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            {"id": 3, "image_id": 4, "category_id": 3, "bbox": [15.5, 2, 4.6, 8.1]},
            {"id": 4, "image_id": 4, "category_id": 3, "bbox": [5, 5, 0, 3]},
        ],
    }


@pytest.fixture
def coco(tmp_path):
    def write(document):
        path = tmp_path / "instances.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return write


def test_coco_boxes_names_and_order(coco, tmp_path):
    first, second = read_coco(coco(coco_document()), tmp_path)
    assert (first.image_id, first.path, len(first.boxes)) == ("sub/b", tmp_path / "sub/b.jpg", 0)
    assert second.boxes.tolist() == [[1, 2, 4, 6], [15.5, 2, 20, 10]]
    assert [VOC_CLASSES[label] for label in second.labels] == ["cat", "tvmonitor"]
    assert second.crowd.tolist() == [True, False]
    assert not second.difficult.any()
    assert second.labelled is None
    (_, unrenamed) = read_coco(tmp_path / "instances.json", tmp_path, rename=None)
    assert [VOC_CLASSES[label] for label in unrenamed.labels] == ["cat"]
    (zebra, _) = read_coco(tmp_path / "instances.json", tmp_path, classes=("zebra", "tv"), rename=None)
    assert zebra.labels.tolist() == [0]
    assert (first.classes, zebra.classes) == (VOC_CLASSES, ("zebra", "tv"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"exhaustive": True, "labelled_classes": list(VOC_CLASSES)}, None),
        ({"exhaustive": False, "labelled_classes": list(VOC_CLASSES)}, tuple(range(20))),
        ({"exhaustive": False, "labelled_classes": ["tv", "cat", "zebra"]}, (7, 19)),
        ({"exhaustive": True, "labelled_classes": ["cat"]}, (7,)),
        ({"exhaustive": False}, (7, 19)),
    ],
)
def test_coco_labelled_classes(coco, tmp_path, fields, expected):
    document = coco_document()
    document["images"][1].update(fields)
    picture = read_coco(coco(document), tmp_path)[1]
    assert (picture.labelled, picture.exhaustive) == (expected, fields.get("exhaustive", True))


def test_coco_without_images_or_objects(coco, tmp_path):
    document = coco_document() | {"annotations": []}
    assert [len(picture.boxes) for picture in read_coco(coco(document), tmp_path)] == [0, 0]
    assert read_coco(coco(document | {"images": []}), tmp_path) == []


def change(key, index, **fields):
    document = coco_document()
    document[key][index].update(fields)
    return document


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("{", "not well-formed JSON"),
        ("[" * 100_000, "not well-formed JSON"),
        ([], "no list of objects 'images'"),
        ({"images": [1]}, "no list of objects 'images'"),
        (change("annotations", 0, category_id=77), "_id 77 is not defined"),
        (change("annotations", 0, image_id=77), "_id 77 is not defined"),
        (change("annotations", 0, bbox=[1, 2, 3]), "bad annotation"),
        (change("annotations", 0, bbox=None), "bad annotation"),
        (change("annotations", 0, bbox=[1, 2, "3", 4]), "bad annotation"),
        (change("annotations", 0, bbox=[1, 2, float("nan"), 4]), "not finite"),
        (change("annotations", 0, bbox=[1.5, 2, 10**400, 4]), "not finite, or too large"),
        (change("annotations", 0, bbox=[1, 2, True, 4]), "four numbers: [1, 2, True, 4]"),
        (change("annotations", 0, bbox=[1, 2, -3, 4]), "bbox has a negative width or height: [1, 2, -3, 4]"),
        (change("annotations", 0, category_id=True), "category_id is neither a number nor a text: True"),
        (change("annotations", 0, iscrowd="0"), "iscrowd is neither 0 nor 1: '0'"),
        (change("annotations", 0, iscrowd=2), "iscrowd is neither 0 nor 1: 2"),
        (change("annotations", 0, iscrowd=None), "iscrowd is neither 0 nor 1: None"),
        (change("annotations", 0, area=-1), "area is not a finite number, 0 or above: -1 (without an area, the box's"),
        (change("annotations", 0, area=float("nan")), "area is not a finite number, 0 or above: nan"),
        (change("annotations", 0, area="12"), "area is not a finite number, 0 or above: '12'"),
        (change("annotations", 1, id=1), "1 of its annotations have the id of another, such as 1;"),
        (change("images", 0, width=None), "width is not a whole number above 0: None"),
        (change("images", 0, height=0), "height is not a whole number above 0: 0"),
        (change("images", 0, height=-3), "height is not a whole number above 0: -3"),
        (change("images", 0, width="20"), "width is not a whole number above 0: '20'"),
        (change("images", 0, width=20.5), "width is not a whole number above 0: 20.5"),
        (change("images", 0, width=True), "width is not a whole number above 0: True"),
        (change("images", 0, file_name=""), "file_name is not a name: ''"),
        (change("images", 0, exhaustive="false"), "exhaustive is not true or false: 'false'"),
        (change("images", 0, labelled_classes=[2]), "not a list of names: [2]"),
        (change("images", 0, id=1.5), "'id' of an entry of 'images' is 1.5, neither a whole number nor a text"),
        (change("images", 0, id=True), "'id' of an entry of 'images' is True, neither a whole number nor a text"),
        (change("images", 0, labelled_classes="cat"), "not a list of names"),
        (change("categories", 0, id=None), "'categories' has no 'id'"),
        (coco_document() | {"categories": [{"id": 1, "name": "zebra"}]}, "; it has 'zebra'"),
        (coco_document() | {"categories": [{"id": 1, "name": "Cats "}]}, "it has 'Cats ' (did you mean 'cat'?)"),
    ],
)
def test_bad_coco_files_are_named(coco, tmp_path, document, problem):
    path = coco(document)
    with pytest.raises(AnnotationError) as caught:
        read_coco(path, tmp_path)
    assert problem in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_ids_and_sizes_written_with_a_fraction_of_zero_are_whole(coco, tmp_path):
    document = coco_document()
    for record in document["images"]:
        record.update(id=float(record["id"]), width=20.0)
    for record in document["annotations"]:
        record.update(image_id=float(record["image_id"]), category_id=float(record["category_id"]), iscrowd=False)
    assert [len(one.boxes) for one in read_coco(coco(document), tmp_path)] == [0, 2]
    assert read_coco_ids(tmp_path / "instances.json") == {"b.jpg": 9, "a.jpg": 4}


@pytest.mark.parametrize(("key", "field", "value"), [("annotations", "area", -1), ("images", "height", 0)])
def test_all_bad_records_are_counted_and_ten_of_them_named(coco, tmp_path, key, field, value):
    document = coco_document()
    record = document[key][0] | {field: value}
    document[key] += [record | {"id": i, "file_name": f"{i}.jpg"} for i in range(100, 130)]
    with pytest.raises(AnnotationError, match=r"instances.json: 30 faults: ") as caught:
        read_coco(coco(document), tmp_path)
    kind = key.removesuffix("s")
    text = str(caught.value)
    assert [f"{kind} {i}: {field} is not" in text for i in (100, 109, 110)] == [True, True, False]
    assert text.endswith(f"and 20 more; correct each {kind}, or leave it out")


def test_what_is_not_asked_for_need_not_be_right(coco, tmp_path):
    document = change("annotations", 1, bbox=[1, 2, -3, 4], area="none")  # a zebra
    assert [len(one.boxes) for one in read_coco(coco(document), tmp_path)] == [0, 2]
    document["annotations"][0]["bbox"] = [1]
    with pytest.raises(AnnotationError, match=r"bad annotation .*'id': 1,.*four numbers"):
        read_coco(coco(document), tmp_path)


def test_objects_of_other_classes_are_told(coco, tmp_path):
    with pytest.warns(DataWarning, match=r"instances.json: left out 1 object of .*: 1 of 'zebra'$"):
        read_coco(coco(coco_document()), tmp_path)
    with pytest.warns(DataWarning, match=r"left out 3 objects .*: 1 of 'cat' \(did you mean 'Cat'\?\), 2 of 'tv'$"):
        read_coco(tmp_path / "instances.json", tmp_path, ("Cat", "zebra"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_coco(tmp_path / "instances.json", tmp_path, ("cat", "zebra", "tv"))


def test_one_name_is_no_list_of_coco_classes(coco, tmp_path):
    with pytest.raises(SettingError, match=r"classes must be a list of names, not one name; write \['cat'\]"):
        read_coco(coco(coco_document()), tmp_path, "cat")


@pytest.mark.parametrize(
    "name", ["images/x/1.png", "images\\x\\1.png", "x/1.png", "x\\1.png", "C:\\set\\images\\x\\1.png"]
)
def test_a_name_with_folders_finds_its_picture(coco, tmp_path, name):
    root = tmp_path / "images"
    (root / "x").mkdir(parents=True)
    (root / "x/1.png").touch()
    (picture, _) = read_coco(coco(change("images", 0, file_name=name)), root)
    assert picture.path == root / "x/1.png"
    assert picture.image_id == name.replace("\\", "/").removesuffix(".png")


def test_a_picture_in_a_folder_of_the_same_name_is_meant_first(coco, tmp_path):
    for folder in ("images", "images/images"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").touch()
    (picture, _) = read_coco(coco(change("images", 0, file_name="images/1.png")), tmp_path / "images")
    assert picture.path == tmp_path / "images/images/1.png"
    (missing, _) = read_coco(coco(change("images", 0, file_name="images/2.png")), tmp_path / "images")
    assert missing.path == tmp_path / "images/images/2.png"


def test_a_missing_coco_file_is_named(tmp_path):
    with pytest.raises(AnnotationError, match=r"missing\.json"):
        read_coco(tmp_path / "missing.json", tmp_path)


def test_reference_sets(shared):
    data = shared / "data"
    if not (data / "benchmark").is_dir():
        pytest.skip("no pictures in the folder of reference data")
    benchmark = read_voc(data / "benchmark", "test")
    coco = read_coco(data / "coco/annotations/instances_train.json", data / "coco/images")
    extra = read_coco(data / "extra/annotations.json", data / "extra/images")
    assert (len(benchmark), len(coco), len(extra)) == (796, 2737, 1857)
    persons = sum((p.labels[~p.difficult] == VOC_CLASSES.index("person")).sum() for p in benchmark)
    assert persons == 918
    assert sum(picture.labelled is None for picture in extra) == 593
    assert all(picture.path.is_file() for picture in benchmark[:20] + coco[:20] + extra[:20])
