"""How fast a training reads pictures from files and from packed ones, and how many bytes these have.

One process with one thread reads, and augments as a training does: pictures per second of CPU time, with the files in
the system's cache. So the disk does not count. All kinds take turns. A second table compares how OpenCV and Pillow
write and read WebP.

    python benchmarks/shards.py VOCdevkit/VOC2007 [--split trainval] [--pictures 200] [--markdown]
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
from PIL import Image
from tables import show

from inception_rcnn.data import VOC_CLASSES, Picture
from inception_rcnn.detect.train.augmentation import augment
from inception_rcnn.detect.train.data import read_labelled_folder
from inception_rcnn.detect.train.recipes import SCALES, DetectorRecipe
from inception_rcnn.detect.train.shards import (
    Packing,
    decode_picture,
    encode_picture,
    pack_pictures,
    picture_bytes,
    read_pixels,
    read_shards,
)

ROUNDS = 3
SIDES = [round(DetectorRecipe.long_side * scale) for scale in SCALES]
LOSSLESS = "packed as WebP without loss"
NOTHING = np.zeros((0, 4), np.float32)


def compare_sources(sources: dict[str, list[Picture]]) -> dict[str, tuple[float, float]]:
    """Measure how many pictures are read, and read and augmented, in a second of CPU time, by source."""
    seconds = {name: [0.0, 0.0] for name in sources}
    for turn in range(ROUNDS):
        for number, pictures in enumerate(zip(*sources.values(), strict=True)):
            for name, picture in zip(sources, pictures, strict=True):
                began = time.process_time()
                image = read_pixels(picture)
                read = time.process_time()
                augment(image, picture, NOTHING, np.random.default_rng([turn, number]), SIDES)
                seconds[name][0] += read - began
                seconds[name][1] += time.process_time() - began
    total = ROUNDS * len(next(iter(sources.values())))
    return {name: (total / alone, total / both) for name, (alone, both) in seconds.items()}


def compare_codecs(images: list[np.ndarray], quality: int) -> list[list[str]]:
    """Measure writing and reading of WebP by OpenCV and Pillow: milliseconds of CPU time a picture, and KB."""

    def encode_by_pillow(image: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "WEBP", quality=quality)
        return file.getvalue()

    def measure(work: Callable[[int], object]) -> tuple[float, list]:
        began = time.process_time()
        results = [work(i) for i in range(len(images))]
        return 1000 * (time.process_time() - began) / len(images), results

    rows = []
    for name, encode, decode in (
        ("OpenCV", lambda image: encode_picture(image, Packing(max(image.shape), quality)), decode_picture),
        ("Pillow", encode_by_pillow, lambda data: np.array(Image.open(io.BytesIO(data)))),
    ):
        writing, encoded = measure(lambda i, encode=encode: encode(images[i]))
        reading, _ = measure(lambda i, decode=decode, encoded=encoded: decode(encoded[i]))
        size = sum(map(len, encoded)) / len(encoded) / 1000
        rows.append([name, f"{writing:.1f}", f"{reading:.1f}", f"{size:.0f}"])
    return rows


def main() -> None:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="in VOC, COCO or ILSVRC layout")
    parser.add_argument("--split", default="trainval", help="which pictures of VOC's layout")
    parser.add_argument("--pictures", type=int, default=200, help="so many, the first")
    parser.add_argument("--markdown", action="store_true", help="print tables for a README")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    files = read_labelled_folder(options.folder, VOC_CLASSES, options.split)[: options.pictures]
    sources, sizes = {"files": files}, {"files": sum(len(picture_bytes(picture)) for picture in files)}
    with tempfile.TemporaryDirectory() as temporary:
        for name, packing in {
            "packed as WebP, quality 90": Packing(max(SIDES)),
            LOSSLESS: Packing(max(SIDES), quality=100),
            "packed as JPEG, quality 90": Packing(max(SIDES), image_format="jpeg"),
        }.items():
            folder = Path(temporary, name)
            pack_pictures(
                folder, files, [], VOC_CLASSES, packing,
                progress=lambda what, total: nullcontext(lambda done: None),
            )  # fmt: skip
            sources[name] = read_shards(folder)[1]
            sizes[name] = sum(file.stat().st_size for file in folder.iterdir())
        speeds = compare_sources(sources)
        images = [read_pixels(picture) for picture in sources[LOSSLESS][:50]]
    rows = [
        [name, f"{sizes[name] / len(files) / 1000:.0f}", *(f"{speed:.0f}" for speed in speeds[name])]
        for name in sources
    ]
    columns = ["pictures", "KB a picture", "read a second", "read and augmented a second"]
    show(f"Reading {len(files)} pictures", columns, rows, options.markdown)
    codecs = compare_codecs(images, 90)
    columns = ["by", "ms to write", "ms to read", "KB a picture"]
    show(f"WebP of quality 90, {len(images)} pictures", columns, codecs, options.markdown)


if __name__ == "__main__":
    main()
