"""Pictures of which only the labelled class is boxed: reading them, and whether a detector finds it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import make_picture, write_image

pytest.importorskip("torch")

from inception_rcnn.data import AnnotationError, Detections
from inception_rcnn.detect.train.localisation import is_localised, localise, read_localisation_pictures

CLASSES = ("zebra", "my cup", "n02084071")  # the last is the dog
NAMES = {1: "n02391049", 2: "n02391049", 3: "n02106662", 4: "n01749939"}  # zebras, a shepherd dog, a mamba
XML = (
    "<annotation><filename>{0}</filename><size><width>60</width><height>40</height></size><object><name>{1}</name>"
    "<bndbox><xmin>1</xmin><xmax>30</xmax><ymin>1</ymin><ymax>20</ymax></bndbox></object></annotation>"
)


@pytest.mark.parametrize(
    ("annotations", "pictures"), [("Annotations", "."), ("Annotations/CLS-LOC/val", "Data/CLS-LOC/val")]
)
def test_both_layouts_in_halves(tmp_path: Path, annotations: str, pictures: str) -> None:
    (tmp_path / annotations).mkdir(parents=True)
    for number, wnid in NAMES.items():
        name = f"ILSVRC2012_val_{number:08}"
        (tmp_path / annotations / f"{name}.xml").write_text(XML.format(name, wnid))
        write_image(tmp_path / pictures / f"{name}.JPEG", np.zeros((40, 60, 3), np.uint8))
    read = {half: read_localisation_pictures(tmp_path, CLASSES, half) for half in ("odd", "even", "both")}  # type: ignore[arg-type]
    assert [(one.image_id[-1], one.labels.tolist(), one.labelled) for one in read["odd"]] == [
        ("1", [0], (0,)),
        ("3", [2], (2,)),
    ]
    assert [one.image_id[-1] for one in read["even"]] == ["2"]  # The snake is none of the classes.
    assert [one.image_id[-1] for one in read["both"]] == ["1", "2", "3"]
    for one in read["both"]:
        assert one.path.is_file()
        assert (one.boxes.tolist(), one.classes) == ([[0, 0, 30, 20]], CLASSES)


BOX = np.float32([[0, 0, 30, 20]])
AWAY = np.float32([[30, 20, 60, 40]])


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "right"),
    [
        (BOX, [0.1], [1], True),
        (BOX, [0.1], [0], False),  # another class
        (AWAY, [0.1], [1], False),
        (np.concatenate([AWAY, BOX]), [0.3, 0.4], [1, 1], True),  # The best need not come first.
        (np.concatenate([AWAY, BOX]), [0.4, 0.3], [0, 1], False),  # Only the best counts, of whatever class.
        (BOX * np.float32([1, 1, 1, 0.4]), [0.9], [1], False),  # IoU 0.4
        (BOX[:0], [], [], False),
    ],
)
def test_the_best_detection_tells(boxes: np.ndarray, scores: list[float], labels: list[int], right: bool) -> None:
    picture = make_picture(BOX, [1], size=(60, 40))
    found = Detections(boxes, np.float32(scores), np.array(labels, np.int64), ("cat", "zebra"))
    assert is_localised(picture, found) == right


def test_counts_by_class(tmp_path: Path) -> None:
    shown = [
        make_picture(BOX, [label], path=write_image(tmp_path / f"{i}.png", np.full((40, 60, 3), i, np.uint8)))
        for i, label in enumerate([1, 1, 0])
    ]
    (tmp_path / "empty.png").touch()
    told: list[str] = []
    done: list[int] = []

    class Zebras:
        """Finds a zebra in each picture."""

        classes = ("cat", "zebra")

        def __call__(self, image: np.ndarray, name: str) -> Detections:
            return Detections(BOX, np.float32([0.5]), np.array([1]), self.classes)

    pictures = [*shown, make_picture(BOX, [1], path=tmp_path / "empty.png")]
    counts = localise(Zebras(), pictures, told.append, done.append)
    assert [count.tolist() for count in counts] == [[0, 2], [1, 2]]
    assert done == [1, 2, 3, 4]
    assert len(told) == 1
    assert "empty.png: is empty" in told[0]


def test_what_cannot_be_measured_on(tmp_path: Path) -> None:
    folder = tmp_path / "Annotations"
    folder.mkdir()
    (folder / "a1.xml").write_text(XML.format("a1", NAMES[1]))
    with pytest.raises(AnnotationError, match=r"a1\.JPEG: there is no such picture"):
        read_localisation_pictures(tmp_path, CLASSES, "odd")
    assert read_localisation_pictures(tmp_path, CLASSES, "even") == []
    (folder / "a1.xml").rename(folder / "cat.xml")
    with pytest.raises(AnnotationError, match="cat has no number"):
        read_localisation_pictures(tmp_path, CLASSES, "odd")


def test_not_more_than_so_many_of_a_class(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    for number in range(12):
        (tmp_path / "Annotations" / f"{number:02}.xml").write_text(XML.format(number, NAMES[1 if number % 3 else 3]))
        write_image(tmp_path / f"{number:02}.JPEG", np.zeros((40, 60, 3), np.uint8))
    kept = read_localisation_pictures(tmp_path, CLASSES, "both", most=2)
    assert [one.image_id for one in kept] == ["00", "01", "02", "03"]
