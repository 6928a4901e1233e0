"""Non-maximum suppression of 2,000 boxes in 200 classes: ours beside torchvision's and a loop in NumPy.

One process, one thread, CPU seconds, the median of the rounds; all methods take turns, so that a noisy machine hits
all alike. What is left is compared with what the definition leaves: the boxes from the best score down, each dropped if
its overlap in double precision with one that was kept is above the threshold. torchvision divides in single precision.

    python benchmarks/nms.py [--boxes 2000] [--classes 200] [--threshold 0.3] [--min-score 0.01] [--rounds 5]

"Clustered" boxes scatter around 30 objects, as proposals do; "anywhere", they cover the picture evenly and more of them
are left. The scores are a softmax in which the clusters have classes. "Ours, a box for each class" and torchvision's
batched_nms get the boxes once for every class, as regressed boxes come. Each method begins with the same two arrays (or
tensors) and drops the scores under the minimum itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

# Before numpy, numba and torch are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torchvision.ops import batched_nms
from torchvision.ops import nms as torchvision_nms

from inception_rcnn.eval import nms_per_class

SIDE, OBJECTS = 500, 30
Kept = set[tuple[int, bytes]]  # class and corners of every box that is left


def clustered(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw boxes around objects of all sizes, and which object each is of."""
    centre = rng.uniform(0, SIDE, (OBJECTS, 2))
    size = np.exp(rng.uniform(np.log(30), np.log(300), (OBJECTS, 2)))
    which = rng.integers(0, OBJECTS, count)
    middle = centre[which] + rng.normal(0, 0.15, (count, 2)) * size[which]
    return around(middle, size[which] * np.exp(rng.normal(0, 0.3, (count, 2)))), which


def anywhere(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw boxes evenly over the picture, of objects that have nothing to do with where they are."""
    boxes = around(rng.uniform(0, SIDE, (count, 2)), rng.uniform(20, 250, (count, 2)))
    return boxes, rng.integers(0, OBJECTS, count)


def around(middle: NDArray[np.float64], size: NDArray[np.float64]) -> NDArray[np.float32]:
    """Cut boxes off at the border of the picture, those around a point outside so that 10 pixels of them are left."""
    middle = middle.clip(10, SIDE - 10)
    half = np.maximum(size, 20) / 2
    return np.concatenate([middle - half, middle + half], axis=1).clip(0, SIDE).astype(np.float32)


def probabilities(rng: np.random.Generator, which: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Draw a softmax over background and classes: most of it background, and the class of each box's object."""
    logits = rng.normal(0, 1.5, (len(which), 1 + classes))
    logits[:, 0] += 6
    own = rng.integers(1, 1 + classes, OBJECTS)
    logits[np.arange(len(which)), own[which]] += rng.uniform(0, 9, len(which))
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=1, keepdims=True))[:, 1:].astype(np.float32)


def numpy_nms(boxes: NDArray[np.float32], scores: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Do what the definition says, a kept box at a time, in double precision."""
    x1, y1, x2, y2 = boxes.astype(np.float64).T
    area = (x2 - x1) * (y2 - y1)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        width = np.minimum(x2[best], x2[order]) - np.maximum(x1[best], x1[order])
        height = np.minimum(y2[best], y2[order]) - np.maximum(y1[best], y1[order])
        inter = np.maximum(width, 0) * np.maximum(height, 0)
        order = order[inter / (area[best] + area[order] - inter) <= threshold]
    return np.array(kept, np.int64)


def methods(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], threshold: float, minimum: float
) -> dict[str, tuple[Callable[[], object], Callable[[object], Kept]]]:
    """By name: what is timed, and how its result becomes a set of class and corners."""
    classes = scores.shape[1]
    repeated = np.repeat(boxes[:, None], classes, axis=1)
    box, score, many = torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(repeated)

    def from_ours(result) -> Kept:  # type: ignore[no-untyped-def]
        return {(int(label), corners.tobytes()) for corners, label in zip(result[0], result[2], strict=True)}

    def from_loop(result) -> Kept:  # type: ignore[no-untyped-def]
        return {(label, boxes[row].tobytes()) for label, rows in enumerate(result) for row in rows}

    def from_batched(result) -> Kept:  # type: ignore[no-untyped-def]
        return {(int(label), boxes[row].tobytes()) for label, row in zip(*result, strict=True)}

    def numpy_loop() -> list[NDArray[np.int64]]:
        kept = []
        for label in range(classes):
            own = np.flatnonzero(scores[:, label] >= minimum)
            kept.append(own[numpy_nms(boxes[own], scores[own, label], threshold)])
        return kept

    def loop() -> list[torch.Tensor]:
        kept = []
        for label in range(classes):
            own = torch.nonzero(score[:, label] >= minimum)[:, 0]
            kept.append(own[torchvision_nms(box[own], score[own, label], threshold)])
        return kept

    def batched() -> tuple[torch.Tensor, torch.Tensor]:
        row, label = torch.nonzero(score >= minimum, as_tuple=True)
        kept = batched_nms(many[row, label], score[row, label], label, threshold)
        return label[kept], row[kept]

    return {
        "ours, shared boxes": (lambda: nms_per_class(boxes, scores, threshold, minimum), from_ours),
        "ours, a box for each class": (lambda: nms_per_class(repeated, scores, threshold, minimum), from_ours),
        "torchvision nms, a loop over classes": (loop, from_loop),
        "torchvision batched_nms": (batched, from_batched),
        "NumPy, a loop over classes": (numpy_loop, from_loop),
    }


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--threshold", type=float, default=0.3)
    parser.add_argument("--min-score", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for draw, minimum in ((d, m) for d in (clustered, anywhere) for m in (0.0, options.min_score)):
        rng = np.random.default_rng(options.seed)
        boxes, which = draw(rng, options.boxes)
        scores = probabilities(rng, which, options.classes)
        seconds: dict[str, list[float]] = {}
        kept: dict[str, Kept] = {}
        for turn in range(options.rounds + 1):
            for name, (run, read) in methods(boxes, scores, options.threshold, minimum).items():
                start = time.process_time()
                result = run()
                # The first turn compiles kernels and says what is left.
                if turn:
                    seconds.setdefault(name, []).append(time.process_time() - start)
                else:
                    kept[name] = read(result)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        title = (
            f"{len(boxes):,} boxes {draw.__name__}, {options.classes} classes, IoU {options.threshold}, "
            f"scores from {minimum:g}: {(scores >= minimum).sum():,} candidates"
        )
        table = Table("method", "CPU s", "torchvision's loop takes", "kept", "not as defined", title=title)
        for column in table.columns[1:]:
            column.justify = "right"
        for name, median in medians.items():
            ratio = medians["torchvision nms, a loop over classes"] / median
            differing = kept[name] ^ kept["NumPy, a loop over classes"]
            table.add_row(name, f"{median:.4f}", f"{ratio:.1f} x", f"{len(kept[name]):,}", f"{len(differing):,}")
        Console(highlight=False, width=120).print(table)


if __name__ == "__main__":
    main()
