"""Average precision by VOC's and by ILSVRC's rules beside a plain NumPy evaluator: time, and whether the figures agree.

Synthetic detections from a seed, as many as a detector leaves on VOC 2007's test pictures. One process, one thread,
CPU seconds, the median of the rounds; what is compared takes turns, so that a noisy machine hits all alike. Reading
files is not counted: all begin with arrays.

    python benchmarks/evaluation.py [--pictures 4952] [--detections 100000] [--rounds 5]

The plain evaluator does what py-faster-rcnn's voc_eval does with VOC 2007's metric, without its reading of files: a
class at a time, its objects looked up picture by picture, its detections sorted by score, each compared with the
objects of its picture by NumPy. It is handed the detections of each class, which it has in files of their own; ours
sorts them into classes itself. For ILSVRC's rules its loop has their threshold of each object and their choice among
the objects that are free.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Before numpy and numba are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from inception_rcnn.data import VOC_CLASSES, Detections, Picture
from inception_rcnn.eval import evaluate_ilsvrc, evaluate_voc

WIDTH, HEIGHT = 500, 375
Rows = tuple[list[str], NDArray[np.float64], NDArray[np.float64]]  # names of pictures, scores, boxes


def synthetic(pictures: int, detections: int, seed: int) -> tuple[list[Picture], dict[str, Detections]]:
    """Make up annotated pictures, about 3 objects each, and detections: half near an object, half anywhere.

    Scores are float64, as they are when they come from files.
    """
    rng = np.random.default_rng(seed)
    annotated, found = [], {}
    counts = rng.multinomial(detections, np.full(pictures, 1 / pictures))
    for i, count in enumerate(counts):
        objects = 1 + rng.poisson(2)
        boxes, labels = anywhere(rng, objects), rng.integers(0, len(VOC_CLASSES), objects)
        flags = rng.random(objects) < 0.15
        image_id = f"{i:06d}"
        annotated.append(
            Picture(image_id, Path(image_id), WIDTH, HEIGHT, boxes, labels, flags, np.zeros(objects, bool))
        )
        near = rng.random(count) < 0.5
        which = rng.integers(0, objects, count)
        sides = np.tile(boxes[which, 2:] - boxes[which, :2], 2)
        close = boxes[which] + rng.normal(0, 0.12, (count, 4)) * sides
        # Corners in order, as a detector's are.
        close = np.concatenate([np.minimum(close[:, :2], close[:, 2:]), np.maximum(close[:, :2], close[:, 2:]) + 1], 1)
        found[image_id] = Detections(
            boxes=np.where(near[:, None], close, anywhere(rng, count)).astype(np.float32),
            scores=np.where(near, rng.beta(2, 2, count), rng.beta(1, 4, count)),
            labels=np.where(near, labels[which], rng.integers(0, len(VOC_CLASSES), count)),
            classes=VOC_CLASSES,
        )
    return annotated, found


def anywhere(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Draw boxes that lie in the picture."""
    corners = rng.uniform(0, [WIDTH, HEIGHT], (2, count, 2))
    return np.concatenate([corners.min(axis=0), corners.max(axis=0) + 1], axis=1).astype(np.float32)


def overlaps(objects: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Overlap of one box with many, whole pixels from 1 with both corners included, as the kits count."""
    sides = np.minimum(objects[:, 2:], box[2:]) - np.maximum(objects[:, :2], box[:2]) + 1
    inter = np.maximum(sides, 0).prod(axis=1)
    return inter / ((box[2:] - box[:2] + 1).prod() + (objects[:, 2:] - objects[:, :2] + 1).prod(axis=1) - inter)


def by_class(pictures: Sequence[Picture], detections: Mapping[str, Detections]) -> list[Rows]:
    """Sort the detections of all pictures into classes, corners as in VOC's files."""
    found = [detections[picture.image_id] for picture in pictures]
    names = np.repeat([picture.image_id for picture in pictures], [len(one) for one in found])
    label = np.concatenate([one.labels for one in found])
    score = np.concatenate([one.scores for one in found])
    box = np.concatenate([one.boxes for one in found]) + np.array([1.0, 1, 0, 0])
    return [(names[own].tolist(), score[own], box[own]) for own in (label == one for one in range(len(VOC_CLASSES)))]


def plain(pictures: Sequence[Picture], rows: Sequence[Rows], ilsvrc: bool = False) -> list[float]:
    """Average precision of every class, a detection at a time."""
    results = []
    for label, (names, score, claim) in enumerate(rows):
        truth: dict[str, tuple[Any, ...]] = {}
        positives = 0
        for picture in pictures:
            own = picture.labels == label
            boxes = picture.boxes[own] + np.array([1.0, 1, 0, 0])
            difficult = picture.difficult[own] & (not ilsvrc)
            truth[picture.image_id] = boxes, difficult, np.zeros(len(boxes), bool)
            positives += int((~difficult).sum())
        order = np.argsort(-score, kind="stable")
        hits, false = np.zeros(len(order)), np.zeros(len(order))
        for d, i in enumerate(order):
            boxes, difficult, taken = truth[names[i]]
            false[d] = 1
            if not len(boxes):
                continue
            overlap = overlaps(boxes, claim[i])
            least = np.full(len(boxes), 0.5)
            if ilsvrc:
                sides = boxes[:, 2:] - boxes[:, :2] + 1
                least = np.minimum(0.5, sides.prod(axis=1) / (sides + 10).prod(axis=1))
                overlap = np.where(taken | (overlap < least), -1, overlap)
            best = int(np.argmax(overlap))
            if overlap[best] >= least[best]:
                hits[d], false[d] = (0, 0) if difficult[best] else (not taken[best], taken[best])
                taken[best] = not difficult[best]
        hit = np.cumsum(hits)
        recall = hit / positives
        precision = hit / np.maximum(hit + np.cumsum(false), np.finfo(np.float64).eps)
        if ilsvrc:
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            results.append(float((np.diff(recall, prepend=0) * envelope).sum()))
        else:
            levels = np.arange(0, 1.1, 0.1)
            results.append(sum(float(precision[recall >= t].max(initial=0)) for t in levels) / 11)
    return results


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4952)
    parser.add_argument("--detections", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pictures, found = synthetic(options.pictures, options.detections, options.seed)
    rows = by_class(pictures, found)
    calls: dict[tuple[str, str], Callable[[], Any]] = {
        ("VOC 2007, 11-point", "ours"): lambda: evaluate_voc(pictures, found, VOC_CLASSES, "voc07"),
        ("VOC 2007, 11-point", "plain NumPy"): lambda: plain(pictures, rows),
        ("ILSVRC", "ours"): lambda: evaluate_ilsvrc(pictures, found, VOC_CLASSES),
        ("ILSVRC", "plain NumPy"): lambda: plain(pictures, rows, ilsvrc=True),
    }
    evaluate_voc(pictures[:1], {}, VOC_CLASSES), evaluate_ilsvrc(pictures[:1], {}, VOC_CLASSES)  # compiles kernels
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    results = {}
    for _ in range(options.rounds):
        for key, call in calls.items():
            start = time.process_time()
            results[key] = call()
            seconds[key].append(time.process_time() - start)
    title = (
        f"{options.detections:,} detections, {len(VOC_CLASSES)} classes, {options.pictures:,} pictures; one thread, "
        f"median of {options.rounds}"
    )
    table = Table("rules", "evaluator", "CPU s", "ours is faster by", "mAP", "largest difference of an AP", title=title)
    for column in table.columns[2:]:
        column.justify = "right"
    for (rules, name), values in seconds.items():
        ours = results[rules, "ours"]
        own = list(ours["per_class"].values())
        theirs = own if name == "ours" else results[rules, name]
        ratio = statistics.median(values) / statistics.median(seconds[rules, "ours"])
        table.add_row(
            rules,
            name,
            f"{statistics.median(values):.3f}",
            "" if name == "ours" else f"{ratio:.1f} x",
            f"{np.mean(theirs):.4f}",
            "" if name == "ours" else f"{np.abs(np.subtract(own, theirs)).max():.1g}",
        )
    Console(highlight=False, width=120).print(table)


if __name__ == "__main__":
    main()
