"""Masks of selective search beside objects that were segmented by hand, and what masks cost beside boxes.

    python benchmarks/masks.py DEVKIT [--split val] [--pictures 200] [--markdown]

DEVKIT is a folder in VOC's layout with ``SegmentationObject`` and ``ImageSets/Segmentation``. "mask" is the mean, over
all objects, of the best Jaccard index (intersection over union) of an object's mask and any region's; pixels that are
marked void count nowhere. "box" is the same of the boxes. "best half" has the regions of the first half of the ranking.
Times are CPU milliseconds of a picture, medians, of boxes alone, of boxes with their segments, and with the run lengths
of all of them. One thread.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before numba is imported: its threads are made once.
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tables import show

from inception_rcnn.data import box_iou, read_image
from inception_rcnn.proposals import SelectiveSearch

VOID = 255


def best_overlaps(regions: Any, objects: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Best overlap of each object by masks, masks of the first half, boxes, and boxes of the first half: (n, 4)."""
    numbers = [number for number in np.unique(objects) if number not in (0, VOID)]
    counts = regions.label_counts(objects)
    whole = np.bincount(objects.ravel(), minlength=counts.shape[1])
    void = counts[:, VOID] if counts.shape[1] > VOID else 0
    areas, half, rows = regions.areas - void, (len(regions) + 1) // 2, []
    for number in numbers:
        inside = counts[:, number]
        masks = inside / (areas + whole[number] - inside)
        y, x = np.nonzero(objects == number)
        box = np.float32([[x.min(), y.min(), x.max() + 1, y.max() + 1]])
        boxes = box_iou(box, regions.boxes)[0]
        rows.append([masks.max(), masks[:half].max(), boxes.max(), boxes[:half].max()])
    return np.array(rows).reshape(-1, 4)


def timed(call: Callable[[Any], Any], given: Any) -> tuple[float, Any]:
    """CPU milliseconds of a call, and what it returns."""
    began = time.process_time()
    result = call(given)
    return 1000 * (time.process_time() - began), result


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devkit", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--pictures", type=int, help="the first N of the list")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    try:
        names = (options.devkit / "ImageSets" / "Segmentation" / f"{options.split}.txt").read_text().split()
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    rows = []
    for mode in ("single", "fast", "quality"):
        search = SelectiveSearch(mode)
        overlaps, times, counts, sizes = [], [], [], []
        for name in names[: options.pictures]:
            image = read_image(options.devkit / "JPEGImages" / f"{name}.jpg")
            objects = np.asarray(Image.open(options.devkit / "SegmentationObject" / f"{name}.png"))
            if not times:
                search.regions(image)  # The kernels are read.
            boxes, _ = timed(search, image)
            segments, regions = timed(search.regions, image)
            encoding, encoded = timed(lambda regions: [*map(regions.run_lengths, range(len(regions)))], regions)
            times.append([boxes, segments, segments + encoding])
            overlaps.append(best_overlaps(regions, objects))
            counts.append(len(regions))
            sizes.append(sum(len(one["counts"]) for one in encoded))
        mean = 100 * np.concatenate(overlaps).mean(axis=0)
        alone, segments, encoded = np.median(times, axis=0)
        rows.append([
            mode, f"{np.mean(counts):.0f}", *(f"{value:.1f}" for value in mean), f"{alone:.0f}", f"{segments:.0f}",
            f"{encoded:.0f}", f"{np.median([row[2] / row[0] for row in times]):.2f}", f"{np.mean(sizes) / 1000:.0f}",
        ])  # fmt: skip
    columns = [
        "mode", "regions", "mask", "best half", "box", "best half", "boxes, ms", "segments, ms", "run lengths, ms",
        "times boxes", "run lengths, kB",
    ]  # fmt: skip
    objects = sum(len(one) for one in overlaps)
    show(f"{len(overlaps)} pictures, {objects} objects: best overlap, %", columns, rows, options.markdown)


if __name__ == "__main__":
    main()
