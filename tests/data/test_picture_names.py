import unicodedata

import pytest

from inception_rcnn.data import Detections, read_coco_ids, read_detections, write_detections
from inception_rcnn.data.picture_names import PictureFolder, match_picture_names, short_names, stem


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("a/1", ["a/1"]),
        (r"a\1", ["a/1"]),
        ("photos/2", ["c/2"]),
        (r"C:\photos\2", ["c/2"]),
        ("1", ["a/1", "b/1"]),
        ("other/1", ["a/1", "b/1"]),
        ("3", []),
        ("4", [r"d\4"]),
        ("d/4", [r"d\4"]),
    ],
)
def test_a_name_means_the_picture_of_that_name_or_those_with_it_in_a_folder(name, meant):
    assert match_picture_names([name], ["a/1", "b/1", "c/2", r"d\4"]) == {name: meant}


@pytest.mark.parametrize("name", ["x/a.b.jpg", r"x\a.b.jpg", "a.b.jpg"])
def test_a_stem_has_neither_folder_nor_suffix(name, tmp_path):
    assert stem(name) == "a.b"
    write_detections(tmp_path / "d.json", [(name, 9, 9, Detections.empty(["cat"]))], ["cat"], {name: 3})
    assert list(read_detections(tmp_path / "d.json")) == ["a.b"]
    assert read_coco_ids(tmp_path / "d.json") == {"a.b.jpg": 3}


def test_ids_are_as_short_as_they_can_be():
    assert short_names(["x/1.jpg", "y/2.jpg"]) == ["1", "2"]
    assert short_names(["x/1.jpg", "y/1.jpg"]) == ["x/1", "y/1"]
    assert short_names(["x/1.jpg", "x/1.png"]) == ["x/1.jpg", "x/1.png"]


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("name", "stored"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_an_accented_letter_may_be_one_character_or_two(name, stored, tmp_path):
    assert match_picture_names([name, f"x/{name}"], [stored]) == {name: [stored], f"x/{name}": [stored]}
    (tmp_path / f"{stored}.png").touch()
    assert PictureFolder(tmp_path).find(name) == [f"{stored}.png"]


def test_of_two_names_with_accents_the_same_is_meant(tmp_path):
    known = [COMPOSED, DECOMPOSED]
    assert match_picture_names(known, known) == {name: [name] for name in known}
    for name in known:
        (tmp_path / f"{name}.png").touch()
    assert [PictureFolder(tmp_path).find(name) for name in known] == [[f"{name}.png"] for name in known]


def test_the_labels_name_the_file_in_whatever_case(tmp_path):
    for name in ("1.jpg", "1.png", "2.JPG", "2.jpg"):
        (tmp_path / name).touch()
    folder = PictureFolder(tmp_path)
    assert folder.find("1", "x.PNG") == ["1.png"]
    assert folder.find("2", "x.jpg") == ["2.jpg"]
    assert folder.find("2", "x.Jpg") == ["2.JPG", "2.jpg"]
