"""Pictures of which only the labelled class is boxed: reading them, and whether a detector finds it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import make_picture, write_image

pytest.importorskip("torch")

from inception_rcnn.data import Detections
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
    counts = localise(lambda one: found, [picture, picture], 2)
    assert [count.tolist() for count in counts] == [[0, 2 * right], [0, 2]]
