"""What tests look at, made in one place: images, boxes, pictures, annotated sets on disk, detections.

Importing this module does not import torch; the region model with random weights is in `random_model`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from inception_rcnn.data import VOC_CLASSES, Detections, Picture

CLASSES = ("cat", "dog", "car")
Scene = tuple[list[Picture], dict[str, Detections]]


def random_image(seed: int, width: int = 120, height: int = 90) -> np.ndarray:
    """Four rectangles on a ramp, with a little noise: something for selective search to find."""
    rng = np.random.default_rng(seed)
    image = np.linspace(60, 160, width)[None, :, None] + np.zeros((height, width, 3))
    for _ in range(4):
        x, y = rng.integers(0, [width - 30, height - 30])
        w, h = rng.integers(20, 60, 2)
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def noise_image(seed: int, width: int, height: int) -> np.ndarray:
    """Pixels that have nothing to do with their neighbours, in any size: no two parts of it are equal."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path: Path, image: np.ndarray, **options: Any) -> Path:
    """Write an image, in a folder that is made for it, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def random_boxes(
    count: int, width: float = 200, height: float = 160, seed: int | np.random.Generator = 0, smallest: float = 1
) -> np.ndarray:
    """Boxes inside a picture, (count, 4), no side of which is shorter than `smallest`."""
    rng = np.random.default_rng(seed)  # of a generator: the generator itself
    corners = rng.uniform(0, [width - smallest, height - smallest], (count, 2, 2))
    return np.concatenate([corners.min(1), corners.max(1) + smallest], axis=1).astype(np.float32)


def inclusive_boxes(corners: ArrayLike) -> np.ndarray:
    """Boxes of corners as the kits of VOC and ILSVRC have them: counted from 1, and both included."""
    return np.array(corners, np.float32).reshape(-1, 4) - np.array([1, 1, 0, 0], np.float32)


def make_picture(
    boxes: ArrayLike,
    labels: ArrayLike | None = None,
    image_id: str = "a",
    *,
    path: Path | None = None,
    size: tuple[int, int] = (200, 160),
    difficult: ArrayLike = (),
    crowd: ArrayLike = (),
    labelled: tuple[int, ...] | None = None,
    exhaustive: bool = True,
) -> Picture:
    """Picture with objects, of class 0 where no labels are given; `difficult` and `crowd` are positions or flags."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.array(labels, np.int64)
    flags = np.zeros((2, len(boxes)), bool)
    for row, chosen in zip(flags, (difficult, crowd), strict=True):
        row[list(chosen)] = True
    return Picture(image_id, path or Path(f"{image_id}.jpg"), *size, boxes, labels, *flags, labelled, exhaustive)


def make_detections(
    boxes: ArrayLike,
    scores: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    classes: Sequence[str] = CLASSES,
) -> Detections:
    """Detections, by falling scores from 1 to 0.5 and of class 0 where nothing else is given."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    scores = np.linspace(1, 0.5, len(boxes)) if scores is None else scores
    labels = np.zeros(len(boxes)) if labels is None else labels
    return Detections(boxes, np.array(scores, np.float32), np.array(labels, np.int64), tuple(classes))


def random_detections(count: int, seed: int = 0, classes: Sequence[str] = VOC_CLASSES) -> Detections:
    """Detections in a picture of 500 x 500 pixels."""
    rng = np.random.default_rng(seed)
    boxes = random_boxes(count, 500, 500, rng, smallest=0)
    return make_detections(boxes, rng.random(count, np.float32), rng.integers(0, len(classes), count), classes)


def random_scene(seed: int, count: int = 8, classes: tuple[str, ...] = CLASSES) -> Scene:
    """Pictures with objects, some difficult, and detections near them and elsewhere, of scores that all differ."""
    rng = np.random.default_rng(seed)
    pictures, found = [], {}
    for i in range(count):
        objects, others = rng.integers(0, 5), rng.integers(0, 6)
        boxes = random_boxes(objects, seed=rng, smallest=20)
        labels = rng.integers(0, len(classes), objects)
        near = boxes + rng.normal(0, 4, boxes.shape).astype(np.float32)
        near = np.concatenate([np.minimum(near[:, :2], near[:, 2:]), np.maximum(near[:, :2], near[:, 2:])], axis=1)
        name = f"{i:03d}"
        pictures.append(make_picture(boxes, labels, name, difficult=np.flatnonzero(rng.random(objects) < 0.2)))
        found[name] = make_detections(
            np.concatenate([near, near, random_boxes(others, seed=rng)]),
            rng.permutation(10_000)[: 2 * objects + others] / 10_000 * 0.9 + 0.05,
            np.concatenate([labels, rng.integers(0, len(classes), objects + others)]),
            classes,
        )
    return pictures, found


def draw_pictures(scene: Scene, weights: np.ndarray) -> Scene:
    """Copies of each picture, as many as its weight."""
    pictures, found = scene
    copies = [
        (picture, f"{picture.image_id} {i}")
        for picture, weight in zip(pictures, weights, strict=True)
        for i in range(weight)
    ]
    return (
        [replace(picture, image_id=name) for picture, name in copies],
        {name: found[picture.image_id] for picture, name in copies},
    )


def voc_xml(*objects: tuple | str, size: tuple[int, int] | None = (60, 40)) -> str:
    """Annotation of a picture: objects are XML, or ``(name, xmin, ymin, xmax, ymax)`` and perhaps more XML."""
    texts = [] if size is None else [f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"]
    for one in objects:
        if not isinstance(one, str):
            name, *corners, more = one if len(one) == 6 else (*one, "")
            # Not in the order of the coordinates, as in some of the files of VOC.
            sides = sorted(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
            box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
            one = f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"
        texts.append(one)
    return f"<annotation>{''.join(texts)}</annotation>"


def write_voc(root: Path, annotations: Mapping[str, str], split: str = "test", names: str | None = None) -> Path:
    """Write a VOC set without images: a split's list, by default of all names, and their annotations; return `root`."""
    for folder in ("ImageSets/Main", "Annotations"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(annotations) if names is None else names)
    for image_id, text in annotations.items():
        (root / "Annotations" / f"{image_id}.xml").write_text(text)
    return root


def coco_document(
    images: Mapping[int, str],
    categories: Mapping[int, str],
    annotations: Iterable[tuple[int, int, list[float]]],
    size: tuple[int, int] = (60, 40),
    **more: Any,
) -> dict[str, list[dict[str, Any]]]:
    """COCO's document of images and categories by id, and of annotations: image id, category id, ``x y w h``."""
    return {
        "images": [{"id": i, "file_name": name, "width": size[0], "height": size[1]} for i, name in images.items()],
        "categories": [{"id": i, "name": name} for i, name in categories.items()],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **more}
            for i, (image, category, box) in enumerate(annotations, start=1)
        ],
    }


def write_coco(root: Path, document: Mapping[str, Any]) -> Path:
    """Write a folder in COCO's layout, its images left out, and return it."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "annotations.json").write_text(json.dumps(document))
    return root
