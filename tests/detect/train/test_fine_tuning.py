"""Eight pictures and classes of one's own: fine-tune the bundled detector, and use the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import cv2
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from inception_rcnn.data import box_iou, read_image
from inception_rcnn.detect import Detector
from inception_rcnn.detect.cli.app import app

CLASSES = ("cat's face", "helmet", "coffee")


def write_scenes(folder: Path) -> dict[str, list[tuple[int, list[int]]]]:
    """Eight pictures with two or three things cut out of scikit-image's photographs, in COCO layout."""
    things = [data.chelsea()[10:200, 60:330], data.astronaut()[0:250, 330:512], data.coffee()[60:360, 130:470]]
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    images, annotations, scenes = [], [], {}
    for number in range(8):
        # Smooth noise: something for selective search to segment, nothing that is a thing.
        coarse = rng.integers(40, 216, (5, 6, 3)).astype(np.uint8)
        scene = cv2.resize(coarse, (420, 320), interpolation=cv2.INTER_CUBIC)
        scene = np.clip(scene + rng.normal(0, 4, scene.shape), 0, 255).astype(np.uint8)
        placed = []
        for slot, label in enumerate(rng.permutation(3)[: 2 + number % 2]):
            height, width = things[label].shape[:2]
            factor = rng.uniform(100, 135) / max(height, width)
            thing = cv2.resize(things[label], (round(width * factor), round(height * factor)))
            thing = thing[:, ::-1] if rng.random() < 0.5 else thing
            height, width = thing.shape[:2]
            x, y = slot * 140 + rng.integers(0, 140 - width + 1), rng.integers(0, 320 - height + 1)
            scene[y : y + height, x : x + width] = thing
            placed.append((int(label), [int(x), int(y), int(x + width), int(y + height)]))
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": int(label), "iscrowd": 0,
                 "bbox": [int(x), int(y), width, height], "area": width * height}
            )  # fmt: skip
        name = f"scene{number}.jpg"
        Image.fromarray(scene).save(folder / "images" / name, quality=92)
        images.append({"id": number, "file_name": name, "width": 420, "height": 320})
        scenes[name] = placed
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(document))
    return scenes


@pytest.mark.slow
def test_eight_pictures_of_new_classes(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "mine")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    model = tmp_path / "mine.safetensors"
    arguments = ["train", "detector", "--data", tmp_path / "mine", "--classes", tmp_path / "classes.txt"]
    arguments += ["--start", "voc", "--freeze", "trunk", "--epochs", 16, "--regions", 24, "--device", "cpu"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--output", str(model), "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 0, result.output
    detector = Detector.load(model, device="cpu", proposals=200)
    for name, placed in scenes.items():
        found = detector(read_image(tmp_path / "mine" / "images" / name))
        assert found.classes == CLASSES
        for label, box in placed:
            # There is one of a class in a picture: it is the first to be found of its class, and surely.
            first = np.flatnonzero(found.labels == label)[:1]
            assert len(first), (name, CLASSES[label])
            assert found.scores[first] >= 0.1, (name, CLASSES[label])
            assert box_iou(np.float32([box]), found.boxes[first]) >= 0.5, (name, CLASSES[label])
