"""What training reads: class lists, folders in three layouts, stable splits, proposals computed once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from builders import coco_document, make_picture, voc_xml, write_coco, write_image, write_voc
from PIL import Image

from inception_rcnn.data import COCO_CLASSES, ILSVRC_DET_CLASSES, VOC_CLASSES, AnnotationError, Picture
from inception_rcnn.data.classes.reading import read_class_list
from inception_rcnn.data.errors import DataWarning, SettingError
from inception_rcnn.detect.train import data as training_data
from inception_rcnn.detect.train.data import (
    balanced_halves,
    read_labelled_folder,
    read_training_pictures,
    read_validation,
    split_validation,
    write_ilsvrc_halves,
)
from inception_rcnn.detect.train.proposal_cache import ProposalCache
from inception_rcnn.proposals import SelectiveSearch

pytestmark = pytest.mark.filterwarnings("ignore::inception_rcnn.data.errors.DataWarning")


def named(name: str, labelled: tuple[int, ...] | None = None, path: Path = Path("absent.jpg")) -> Picture:
    return make_picture([], image_id=name, path=path, size=(60, 40), labelled=labelled)


def test_split_is_by_name_alone() -> None:
    pictures = [named(f"{number:06}") for number in range(3000)]
    training, validation = split_validation(pictures)
    assert len(training) + len(validation) == 3000
    assert 70 < len(validation) < 130
    # These names forever: figures of models trained years apart stay comparable.
    assert [picture.image_id for picture in validation[:3]] == ["000000", "000010", "000040"]
    again = split_validation(pictures[999::-1])[1]
    aside = {picture.image_id for picture in validation}
    assert split_validation(pictures[:59]) == (pictures[:59], [])
    assert {picture.image_id for picture in again} == {name for name in aside if int(name) < 1000}


def test_pictures_that_are_not_labelled_exhaustively_only_train() -> None:
    names = [str(number) for number in range(500)]
    training, validation = split_validation([dataclasses.replace(named(name), exhaustive=False) for name in names])
    assert (len(training), len(validation)) == (500, 0)
    # Of some classes all objects are boxed, or of all: the same are set aside.
    some, every = (split_validation([named(name, labelled=one) for name in names])[1] for one in ((3,), None))
    assert [picture.image_id for picture in some] == [picture.image_id for picture in every] != []


def test_both_layouts(tmp_path: Path) -> None:
    voc, coco = tmp_path / "voc", tmp_path / "coco"
    write_voc(voc, {"000005": voc_xml(("cat", 1, 1, 20, 10))}, "trainval")
    write_coco(coco, coco_document({1: "a.jpg"}, {9: "couch"}, [(1, 9, [2, 3, 4, 5])]))
    (one,) = read_labelled_folder(voc, VOC_CLASSES)
    assert (one.image_id, one.boxes.tolist(), one.labels.tolist()) == ("000005", [[0, 0, 20, 10]], [7])
    (two,) = read_labelled_folder(coco, VOC_CLASSES)
    assert (two.path, two.boxes.tolist()) == (coco / "images" / "a.jpg", [[2, 3, 6, 8]])
    assert VOC_CLASSES[two.labels[0]] == "sofa"


def voc_folder(root: Path, *names: str) -> Path:
    """A VOC folder of one picture, with an object of each name."""
    return write_voc(root, {"000005": xml(*names)}, "trainval")


def coco_folder(root: Path, *names: str, categories: tuple[str, ...] = ()) -> Path:
    """A COCO folder of one picture, with an object of each name, and more categories."""
    objects = [(1, number, [2, 3, 4, 5]) for number in range(len(names))]
    return write_coco(root, coco_document({1: "a.jpg"}, dict(enumerate((*names, *categories))), objects))


def xml(*names: str, box: tuple[int, int, int, int] = (1, 1, 20, 10)) -> str:
    """An annotation with an object of each name."""
    return voc_xml(*((name, *box) for name in names))


def test_class_lists(tmp_path: Path) -> None:
    assert read_class_list("voc") == VOC_CLASSES
    assert read_class_list("coco") == COCO_CLASSES
    assert read_class_list("ilsvrc") == tuple(ILSVRC_DET_CLASSES.values())
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufefftraffic light \r\n\r\n  Hündin\r\n".encode())
    assert read_class_list(str(path)) == ("traffic light", "Hündin")
    pytest.importorskip("yaml")
    path = tmp_path / "data.yaml"
    path.write_text("train: images\nnames: {0: traffic light, 1: cat}\n")
    assert read_class_list(str(path)) == ("traffic light", "cat")
    path.write_text("train: images\n")
    with pytest.raises(AnnotationError, match="names is no list"):
        read_class_list(str(path))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"cat\ndog\ncat\n", "has the class 'cat' twice"),
        (b"__background__\ncat\n", "has '__background__', which other programs call what is no object"),
        (b"cat\ndog\ncat\ndog\n", "has the class 'cat', 'dog' twice"),
        (b"\xff\xfe", "not a text file in UTF-8"),
    ],
)
def test_bad_class_lists_are_named(tmp_path: Path, text: bytes, problem: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(text)
    with pytest.raises(AnnotationError, match=problem) as caught:
        read_class_list(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    for absent in ("cocoa", str(tmp_path), "a\0b"):
        with pytest.raises(AnnotationError, match=r"neither voc, coco nor ilsvrc|not a text file"):
            read_class_list(absent)


@pytest.mark.parametrize("classes", [VOC_CLASSES, COCO_CLASSES, ("n02691156", "aeroplane"), ("car", "airplane")])
@pytest.mark.parametrize("name", ["aeroplane", "airplane"])
def test_either_spelling_is_read(tmp_path: Path, classes: tuple[str, ...], name: str) -> None:
    for folder in (voc_folder(tmp_path / "voc", name, "bread"), coco_folder(tmp_path / "coco", name, "bread")):
        (picture,) = read_labelled_folder(folder, classes)
        assert [classes[label] for label in picture.labels] in (["aeroplane"], ["airplane"])
    # Two classes of somebody's own are two.
    for folder in (tmp_path / "voc", tmp_path / "coco"):
        (picture,) = read_labelled_folder(folder, ("aeroplane", "airplane"))
        assert picture.labels.tolist() == [("aeroplane", "airplane").index(name)]


@pytest.mark.parametrize("classes", [tuple(ILSVRC_DET_CLASSES.values()), tuple(ILSVRC_DET_CLASSES)])
def test_classes_of_voc_and_coco_are_ilsvrcs(tmp_path: Path, classes: tuple[str, ...]) -> None:
    names = dict(zip(classes, ILSVRC_DET_CLASSES.values(), strict=True))
    voc = voc_folder(tmp_path / "voc", "tvmonitor", "diningtable", "bottle", "cat")
    coco = coco_folder(tmp_path / "coco", "tv", "cup", "hot dog", "truck", categories=("mouse",))
    read = {}
    for folder in (voc, coco):
        (picture,) = read_labelled_folder(folder, classes)
        assert picture.labelled is not None
        found = [names[classes[label]] for label in picture.labels]
        read[folder.name] = found, [names[classes[label]] for label in picture.labelled]
    assert read["voc"][0] == ["tv or monitor", "table", "domestic cat"]
    assert len(read["voc"][1]) == 18  # All of VOC's that ILSVRC has: it lacks bottles and potted plants.
    assert read["coco"] == (
        ["tv or monitor", "cup or mug", "hotdog"],
        ["computer mouse", "cup or mug", "hotdog", "tv or monitor"],
    )
    # Somebody's own classes are what they are called.
    with pytest.raises(AnnotationError, match="none of its categories"):
        read_labelled_folder(coco, ("tv or monitor", "my cup"))


def test_classes_that_a_data_set_does_not_have_are_not_background(tmp_path: Path) -> None:
    voc = voc_folder(tmp_path / "voc", "cat", "wombat")
    coco = coco_folder(tmp_path / "coco", "cat", "truck", categories=("kiwi",))

    def labelled(folder: Path, *classes: str) -> list[str] | None:
        (picture,) = read_labelled_folder(folder, classes)
        return None if picture.labelled is None else [classes[label] for label in picture.labelled]

    # A folder in VOC layout with the challenge's classes alone has all of them boxed, also those that do not occur.
    assert labelled(voc, *VOC_CLASSES) is labelled(voc, "cat", "tv") is None
    assert labelled(voc, "cat", "truck", "tv") == ["cat", "tv"]
    # With others it is somebody's own, who boxed what occurs; COCO's files say what was boxed.
    assert labelled(voc, "airplane", "wombat") == ["wombat"]
    assert labelled(voc, "cat", "truck", "wombat", "tv") == ["cat", "wombat"]
    assert labelled(coco, "cat", "kiwi") is None
    assert labelled(coco, *VOC_CLASSES) == labelled(coco, *COCO_CLASSES[15:17]) == ["cat"]
    assert labelled(coco, "cat", "wombat", "sofa", "truck") == ["cat", "truck"]
    with pytest.raises(AnnotationError, match="none of its categories"):
        read_labelled_folder(coco, ["wombat"])


ANT, ZEBRA, PERSON = "n02219486", "n02391049", "n00007846"
NUMBERS = {wnid: number for number, wnid in enumerate(ILSVRC_DET_CLASSES, start=1)}


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A little of the ILSVRC DET kit: eight pictures for validation, four for training, of ants and zebras."""
    root = tmp_path / "kit" / "ILSVRC"
    lists = root / "ImageSets" / "DET"
    lists.mkdir(parents=True)
    annotations = {f"val/ILSVRC2012_val_{i:08}": xml(ANT if i % 2 else ZEBRA, *[PERSON] * (i > 4)) for i in range(8)}
    annotations["val/ILSVRC2012_val_00000007"] = xml(ANT, PERSON, box=(5, 6, 4, 7))  # without a pixel
    annotations |= {
        "train/ILSVRC2013_train/n02219486/n02219486_1": xml(ANT, ANT, PERSON),
        "train/ILSVRC2014_train_0006/ILSVRC2014_train_00060036": xml(ANT, ZEBRA),
        "train/ILSVRC2014_train_0006/ILSVRC2014_train_00060037": xml(ZEBRA),
    }
    for name, text in annotations.items():
        path = root / "Annotations" / "DET" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        picture = root / "Data" / "DET" / f"{name}.JPEG"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.touch()
    (lists / "val.txt").write_text("".join(f"ILSVRC2012_val_{i:08} {i + 1}\n" for i in range(8)))
    one, both, other = (name.removeprefix("train/") for name in annotations if name.startswith("train/"))
    # No annotation: a picture without objects, which is nowhere positive.
    nothing = "ILSVRC2013_train_extra0/ILSVRC2013_train_00000001"
    for wnid, number in NUMBERS.items():
        flags = {
            ANT: f"{one} 1\n{both} 1\n{other} -1\n",
            ZEBRA: f"{one} -1\n{both} 1\n{other} 1\n",
            PERSON: f"{one} 0\n",
        }
        (lists / f"train_{number}.txt").write_text(flags.get(wnid, "") + f"{nothing} -1\n")
    return root.parent


def test_ilsvrc(kit: Path) -> None:
    classes = read_class_list("ilsvrc")
    ant, zebra, person = (NUMBERS[wnid] - 1 for wnid in (ANT, ZEBRA, PERSON))
    pictures, validation = read_labelled_folder(kit, classes), read_validation(kit, classes)
    assert [picture.image_id for picture in read_labelled_folder(kit / "ILSVRC", classes)] == [
        picture.image_id for picture in pictures
    ]
    assert all(picture.path.is_file() for picture in [*pictures, *validation])
    halves = [[p for p in pictures if "_val_" in p.image_id], validation]
    assert {picture.image_id for half in halves for picture in half} == {f"ILSVRC2012_val_{i:08}" for i in range(8)}
    counts = []
    for half in halves:
        assert len(half) == 4
        assert all(picture.labelled is None for picture in half)
        labels = np.concatenate([picture.labels for picture in half]).tolist()
        counts.append([labels.count(label) for label in (zebra, ant, person)])
    # Boxes without a pixel, an ant and a person, count in the split and are not learnt from.
    assert np.sum(counts, axis=0).tolist() == [4, 3, 2]
    assert np.abs(np.diff(counts, axis=0)).max(0).tolist() <= [0, 1, 2]
    train = {p.image_id.rsplit("_", 1)[1]: p for p in pictures if "_train" in p.image_id or "n0" in p.image_id}
    assert not any(picture.exhaustive for picture in train.values())
    assert {name: (p.labels.tolist(), p.labelled) for name, p in train.items()} == {
        "1": ([ant, ant, person], (ant,)),  # partly labelled persons are objects, but may be unboxed
        "00060036": ([ant, zebra], (ant, zebra)),
        "00060037": ([zebra], (zebra,)),
    }


def test_ilsvrc_with_the_lists_of_rcnn(kit: Path) -> None:
    lists = kit / "ILSVRC" / "ImageSets" / "DET"
    (lists / "val1.txt").write_text("ILSVRC2012_val_00000006 1\n")
    with pytest.raises(AnnotationError, match=r"val2\.txt: cannot be read"):
        read_validation(kit, ["ant"])
    (lists / "val2.txt").write_text("ILSVRC2012_val_00000002 1\nILSVRC2012_val_00000001 2\n")
    assert [p.image_id[-1] for p in read_labelled_folder(kit, ["ant"]) if "_val_" in p.image_id] == ["6"]
    assert [p.image_id[-1] for p in read_validation(kit, ["ant"])] == ["2", "1"]


def test_ilsvrc_with_other_classes(kit: Path) -> None:
    whole = {picture.image_id for picture in read_validation(kit, read_class_list("ilsvrc"))}
    # By name, by WordNet id, and one that it does not have.
    classes = ["unicorn", ZEBRA, "ant"]
    pictures, validation = read_labelled_folder(kit, classes), read_validation(kit, classes)
    assert {picture.image_id for picture in validation} == whole
    assert {picture.labelled for picture in validation} == {(1, 2)}
    assert set(np.concatenate([picture.labels for picture in validation])) == {1, 2}
    assert {p.labelled for p in pictures if "_val_" not in p.image_id} == {(2,), (1, 2), (1,)}
    assert [p.labelled for p in read_validation(kit, [ZEBRA, "ant"])] == [None] * 4
    only = [picture for picture in read_labelled_folder(kit, ["zebra"]) if "_val_" not in picture.image_id]
    assert [(picture.labels.tolist(), picture.labelled) for picture in only] == [([0], (0,))] * 2
    # VOC's name of a class, where ILSVRC has COCO's.
    assert read_validation(kit, ["ant", "aeroplane"])[0].labelled is None
    with pytest.raises(AnnotationError, match=r"'(ant|n02219486)' is given twice"):
        read_validation(kit, ["ant", ANT])
    with pytest.raises(AnnotationError, match="none of its 200 classes is among the 1 to learn"):
        read_labelled_folder(kit, ["unicorn"])


def test_pictures_without_labels(tmp_path: Path) -> None:
    voc = voc_folder(tmp_path / "voc", "cat")
    write_image(voc / "JPEGImages" / "000005.jpg", np.zeros((40, 60, 3), np.uint8))
    for name in ("x/a.jpg", "b.png"):
        write_image(tmp_path / "photos" / name, np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "photos" / "c.jpg").write_bytes(b"")
    told: list[str] = []

    def read(*unlabelled: Path) -> list[Picture]:
        progress = lambda what, total: nullcontext(lambda done: None)  # noqa: E731
        read = read_training_pictures(
            [voc], ("cat", "zebra"), "trainval", tell=str, warn=told.append, progress=progress, unlabelled=unlabelled
        )
        return read[0]

    training = read(tmp_path / "photos")
    assert [(one.path.name, one.labelled, one.width) for one in training[1:]] == [("b.png", (), 30), ("a.jpg", (), 30)]
    assert len({one.image_id for one in training}) == 3
    assert told == [f"passed over: {tmp_path}/photos/c.jpg: is empty; copy or download it again"]
    with pytest.raises(AnnotationError, match="absent: has no pictures"):
        read(tmp_path / "absent")


def test_training_pictures_are_checked(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    counted: list[int] = []

    @contextmanager
    def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
        yield counted.append
        assert counted.pop() == total

    def read(folders: list[Path], classes: tuple[str, ...]) -> tuple[list[Picture], list[Picture]]:
        return read_training_pictures(
            folders, classes, "trainval", tell=told.append, warn=told.append, progress=progress
        )

    voc = voc_folder(tmp_path / "voc", "cat", "zebra", "ant")
    (voc / "JPEGImages").mkdir()
    for path in kit.rglob("*.JPEG"):
        Image.new("RGB", (60, 40)).save(path)
    Image.new("RGB", (60, 40), "white").save(voc / "JPEGImages" / "000005.jpg")
    monkeypatch.setattr(training_data, "split_validation", lambda pictures: ([], pictures))
    training, validation = read([kit, voc], ("ant", "zebra"))
    # Only of the folder that has no pictures for validation some are set aside.
    assert [len(training), len(validation), validation[-1].image_id] == [7, 5, "000005"]
    assert told[-1] == "7 pictures to train on, 5 set aside"
    assert told[0].startswith("objects: ant ")
    told.clear()
    read([kit], ("ant", "unicorn"))
    assert "no object to learn from: unicorn" in told
    assert any("no picture is labelled for all of the classes" in text for text in told)
    # A picture that cannot be read is told and passed over; one that lies on its side has wrong labels.
    broken = read_validation(kit, ["ant"])[1].path
    broken.write_bytes(b"no picture")
    assert [len(pictures) for pictures in read([kit], ("ant", "zebra"))] == [7, 3]
    assert any(text.startswith(f"passed over: {broken}") for text in told)
    Image.new("RGB", (40, 60)).save(broken, "jpeg")
    with pytest.raises(AnnotationError, match=r"pixels, its labels are for .*save the picture upright"):
        read([kit], ("ant", "zebra"))
    with pytest.raises(AnnotationError, match=r"is in .*voc and again in .*voc; give it once"):
        read([voc, voc], ("cat",))
    kept = read_validation(kit, ["ant"])[0].path
    kept.unlink()
    with pytest.raises(AnnotationError, match=r"there is no such picture, but .*kit has labels for it"):
        read([kit], ("ant",))


def read_quietly(folders: list[Path], classes: tuple[str, ...]) -> list[Picture]:
    def progress(what: str, total: int) -> nullcontext:
        return nullcontext(lambda done: None)

    training, validation = read_training_pictures(folders, classes, "trainval", tell=str, warn=str, progress=progress)
    return [*training, *validation]


def draw(path: Path, colour: str = "grey") -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (60, 40), colour).save(path)


def test_the_size_of_the_file_is_taken_where_the_labels_have_none(tmp_path: Path) -> None:
    box = ("cat", 1, 1, 20, 10)
    root = write_voc(tmp_path, {"a": voc_xml(box, size=(0, 0)), "b": voc_xml(box, size=None)}, "trainval")
    for name in ("a.png", "b.JPG"):
        draw(root / "JPEGImages" / name)
    pictures = read_quietly([root], ("cat",))
    assert [(p.path.name, p.width, p.height) for p in pictures] == [("a.png", 60, 40), ("b.JPG", 60, 40)]


def test_all_pictures_that_are_missing_or_of_another_size_are_told(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {str(i): voc_xml(("cat", 1, 1, 2, 2), size=(40, 60)) for i in range(12)}, "trainval")
    with pytest.raises(AnnotationError, match=r"12 faults: .*0\.jpg: there is no such picture, .*; and 2 more"):
        read_quietly([root], ("cat",))
    for i in range(12):
        draw(root / f"JPEGImages/{i}.jpg")
    with pytest.raises(AnnotationError, match=r"12 faults: .*0\.jpg: is 60 x 40 pixels, its labels are for 40 x 60; "):
        read_quietly([root], ("cat",))


@pytest.mark.parametrize("layout", ["voc", "coco", "ilsvrc"])
def test_labels_in_another_spelling_are_refused(tmp_path: Path, kit: Path, layout: str) -> None:
    # Left out, their objects would be learnt as background.
    classes, told = ("kitty",), r"1 of 'Kitty' \(did you mean 'kitty'\?\).* spell them alike"
    if layout == "voc":
        folder = voc_folder(tmp_path / "set", "kitty", "Kitty")
    elif layout == "coco":
        folder = coco_folder(tmp_path / "set", "kitty", "Kitty")
    else:
        folder, classes, told = kit, ("ant",), "1 of 'N02219486'"
        (kit / "ILSVRC/Annotations/DET/val/ILSVRC2012_val_00000003.xml").write_text(xml(ANT.upper()))
    with pytest.raises(AnnotationError, match=told) as caught:
        read_labelled_folder(folder, classes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [voc_folder, coco_folder])
def test_sets_that_are_mixed_on_purpose_give_one_line(tmp_path: Path, make: Callable[..., Path]) -> None:
    folder = make(tmp_path / "set", "cat", "dining table", "truck", "kite", "kite")
    with pytest.warns(DataWarning) as caught:
        (picture,) = read_labelled_folder(folder, VOC_CLASSES)
    assert [VOC_CLASSES[label] for label in picture.labels] == ["cat", "diningtable"]
    (warning,) = caught
    assert "left out 3 objects of classes that are not asked for: 2 of 'kite', 1 of 'truck'" in str(warning.message)


def test_one_folder_twice_is_refused(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path / "set", "cat")
    draw(folder / "JPEGImages/000005.jpg")
    (tmp_path / "link").symlink_to(folder)
    for again in (folder, folder / ".." / "set", tmp_path / "link"):
        with pytest.raises(AnnotationError, match=r"picture '000005' is in .* and again in .*; give it once"):
            read_quietly([folder, again], ("cat",))


def test_one_picture_of_two_sets_is_refused(tmp_path: Path) -> None:
    voc, coco = voc_folder(tmp_path / "voc", "cat"), coco_folder(tmp_path / "coco", "cat")
    draw(voc / "JPEGImages/000005.bmp")
    picture = coco / "images/a.jpg"
    # The same file, and a copy of it; then another picture, of as many bytes and with the same ones in the middle.
    os.link(voc / "JPEGImages/000005.bmp", picture)
    for _ in range(2):
        with pytest.raises(AnnotationError, match=r"picture 'a' is in .*voc and again in .*coco; give it once"):
            read_quietly([voc, coco], ("cat",))
        data = picture.read_bytes()
        picture.unlink()
        picture.write_bytes(data)
    picture.write_bytes(data[:-1] + b"\0")
    assert len(read_quietly([voc, coco], ("cat",))) == 2


def test_two_training_files_of_one_folder(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path, "cat")
    (folder / "annotations").mkdir()
    document = (folder / "annotations.json").read_text()
    (folder / "annotations.json").unlink()
    for name, text in {"train2017": document, "train2017.1@10": document.replace("a.jpg", "b.jpg")}.items():
        (folder / f"annotations/instances_{name}.json").write_text(text)
    assert [picture.image_id for picture in read_labelled_folder(folder, ("cat",))] == ["b", "a"]
    (folder / "annotations/instances_train2017.1@10.json").write_text(document)
    with pytest.raises(AnnotationError, match=r"train2017\.json: 1 of its pictures are in .*@10\.json too \(a\); keep"):
        read_labelled_folder(folder, ("cat",))


def test_one_name_is_no_list(tmp_path: Path) -> None:
    for read in (read_labelled_folder, read_validation):
        with pytest.raises(SettingError, match="classes must be a list of names"):
            read(tmp_path, "cat")
    with pytest.raises(SettingError, match="classes must be a list of names"):
        read_quietly([tmp_path], "cat")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="folders must be a list of folders"):
        read_quietly(tmp_path, ("cat",))  # type: ignore[arg-type]


@pytest.mark.parametrize("command", ["detector", "multibox"])
def test_mistakes_with_classes(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from inception_rcnn.detect.cli.app import main

    arguments = ["train", command, "--data", tmp_path, "--output", tmp_path / "a.safetensors", "--classes", "cocoa"]
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("inception-rcnn: classes cocoa: neither voc, coco nor ilsvrc")


def test_of_ilsvrc_so_many_objects_of_a_class(kit: Path) -> None:
    def chosen(limit: int) -> int:
        return len(training_data._read_ilsvrc_train(kit / "ILSVRC", ["ant"], limit))

    lists = kit / "ILSVRC" / "ImageSets" / "DET"
    folder = kit / "ILSVRC" / "Annotations" / "DET" / "train" / "more"
    folder.mkdir()
    for i in range(10):
        (folder / f"{i}.xml").write_text(xml(ANT, ANT, ZEBRA))
    (lists / f"train_{NUMBERS[ANT]}.txt").write_text("".join(f"more/{i} 1\n" for i in range(10)))
    assert [chosen(limit) for limit in (1, 2, 3, 19, 20, 1000)] == [1, 1, 2, 10, 10, 10]


def test_what_is_wrong_with_an_ilsvrc_folder_is_named(kit: Path) -> None:
    root = kit / "ILSVRC"
    listed = root / "ImageSets" / "DET" / f"train_{NUMBERS[ANT]}.txt"
    for text, problem in [
        ("a/b 2\n", f"{listed}, line 1: 'a/b 2' is not a picture's name and 1, 0 or -1"),
        ("a/b\n", f"{listed}, line 1: 'a/b' is not"),
        ("a/b 1\n", f"{listed} names it"),
        (None, f"{listed}: cannot be read"),
    ]:
        listed.unlink() if text is None else listed.write_text(text)
        with pytest.raises(AnnotationError) as caught:
            read_labelled_folder(kit, ["ant"])
        assert problem in str(caught.value)
        assert "\n" not in str(caught.value)
    (root / "ImageSets" / "DET" / "val.txt").unlink()
    with pytest.raises(AnnotationError, match=r"val\.txt: cannot be read"):
        read_validation(kit, ["ant"])


def test_halves_are_balanced() -> None:
    """Better than R-CNN's of ILSVRC (11 % at most, 4 % in the median), on as many pictures and as long a tail."""
    rng = np.random.default_rng(0)
    classes, number = 200, 20121
    # As in ILSVRC: the rarest class has 31 objects, half have fewer than 110, the commonest 12,500; 61,000 together.
    rank = np.linspace(0, 1, classes)
    labels: list[list[int]] = [[] for _ in range(number)]
    for label, left in enumerate(np.round(31 * np.exp(2.5 * rank + 3.5 * rank**32)).astype(int)):
        while left > 0:
            together = min(left, rng.geometric(0.4))
            labels[rng.integers(number)] += [label] * together
            left -= together
    pictures = [
        dataclasses.replace(named(str(i)), labels=np.array(own, np.int64), boxes=np.zeros((len(own), 4), np.float32))
        for i, own in enumerate(labels)
    ]
    first, second = halves = balanced_halves(pictures, classes)
    a, b = (np.bincount(np.concatenate([p.labels for p in half]), minlength=classes) for half in halves)
    imbalance = abs(a - b) / (a + b)
    assert (a + b).min() == 31
    assert imbalance.max() < 0.08
    assert np.median(imbalance) < 0.005
    assert abs(len(first) - len(second)) < 0.01 * number
    assert sorted(p.image_id for half in halves for p in half) == sorted(p.image_id for p in pictures)

    def names(seed: int) -> list[str]:
        return [picture.image_id for picture in balanced_halves(pictures, classes, seed=seed)[0]]

    assert names(0) == [picture.image_id for picture in first]
    assert names(1) != names(0)


def test_halves_of_few() -> None:
    assert balanced_halves([], 3) == ([], [])
    assert sorted(map(len, balanced_halves([named("a")], 3))) == [0, 1]
    assert [len(half) for half in balanced_halves([named(str(i)) for i in range(10)], 3)] == [5, 5]


def test_other_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path, tmp_path / "empty"):
        with pytest.raises(AnnotationError, match="neither VOC layout") as caught:
            read_labelled_folder(folder, VOC_CLASSES)
        assert str(caught.value).startswith(f"{folder}:")


@pytest.fixture
def cache(tmp_path: Path) -> ProposalCache:
    return ProposalCache(tmp_path / "cache" / "proposals", SelectiveSearch("single"))


def must_not_search(*_: object) -> None:
    raise AssertionError("searched again")


def test_proposals_are_computed_once(
    cache: ProposalCache, tmp_path: Path, picture: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture(0)).save(path)
    one = named("a", path=path)
    expected, _ = cache.proposer(picture(0))
    first, objectness = cache(one)
    np.testing.assert_array_equal(first, expected)
    assert first.dtype == np.float32
    assert objectness is None
    assert len(list(cache.folder.iterdir())) == 1
    monkeypatch.setattr(SelectiveSearch, "search", must_not_search)
    np.testing.assert_array_equal(cache(one)[0], expected)
    cache.fill([one], workers=1)  # nothing is missing
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(cache(one)[0], expected)
    # A changed picture is another picture; so are other settings.
    Image.fromarray(picture(1)).save(path)
    with pytest.raises(AssertionError, match="searched again"):
        cache(one)
    monkeypatch.undo()
    other = ProposalCache(cache.folder, SelectiveSearch("single", superpixel_scale=2.0))
    assert len(other(one)[0]) > 0
    assert len(list(cache.folder.iterdir())) == 2


def test_proposals_of_a_network_come_with_their_objectness(tmp_path: Path, picture: Callable[..., np.ndarray]) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture(0)).save(path)
    ranked = np.array([[0, 0, 9, 9], [5, 0, 9, 9]], np.float32), np.array([0.5, 0.25], np.float32)

    class Proposer:
        settings: ClassVar = {"of": "a network"}

        def search(self, image: np.ndarray, name: str | None = None) -> None:
            return None

        def propose(self, features: object, searched: None = None, name: str | None = None) -> tuple:
            return ranked

        def has_objectness(self, classes: object) -> bool:
            return True

    cache = ProposalCache(tmp_path / "proposals", Proposer(), objectness=True)
    for _ in range(2):
        for part, expected in zip(cache(named("a", path=path)), ranked, strict=True):
            np.testing.assert_array_equal(part, expected)


def test_fill_computes_in_processes(
    cache: ProposalCache, tmp_path: Path, picture: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = []
    for seed in range(3):
        path = tmp_path / f"{seed}.png"
        Image.fromarray(picture(seed)).save(path)
        pictures.append(dataclasses.replace(named(str(seed)), path=path))
    done: list[int] = []
    first, _ = cache(pictures[0])
    cache.fill(pictures, workers=1, report=done.append)
    assert done == [1, 2, 3]
    monkeypatch.setattr(SelectiveSearch, "search", must_not_search)
    np.testing.assert_array_equal(cache(pictures[0])[0], first)
    assert all(len(cache(one)[0]) > 0 for one in pictures)


def test_the_halves_of_val_are_written_as_they_are_used(kit: Path) -> None:
    used = [[p.image_id for p in read(kit, ["ant"])] for read in (read_labelled_folder, read_validation)]
    write_ilsvrc_halves(kit)
    lists = kit / "ILSVRC" / "ImageSets" / "DET"
    lines = [(lists / f"val{number}.txt").read_text().splitlines() for number in (1, 2)]
    assert sorted(lines[0] + lines[1]) == (lists / "val.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines[1]] == used[1]
    # And from then on they are read.
    assert used == [[p.image_id for p in read(kit, ["ant"])] for read in (read_labelled_folder, read_validation)]
    (lists / "val2.txt").write_text("mine")
    write_ilsvrc_halves(kit)
    assert (lists / "val2.txt").read_text() == "mine"
    with pytest.raises(AnnotationError, match="has no ImageSets/DET"):
        write_ilsvrc_halves(lists)
