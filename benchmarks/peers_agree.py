"""Evaluators, suppression and fusion beside other programs, on random scenes: the largest difference of each.

Scenes are small and full of what programs disagree on: equal scores, doubled boxes, overlaps of exactly a half, objects
of a few pixels, difficult objects, crowds, pictures without objects or without detections.

    python benchmarks/peers_agree.py [--scenes 2000] [--seed 0] [--markdown]

pycocotools counts COCO's numbers. With its recall thresholds set to all recalls that there are, its precision also has
the area under the curve at one IoU: by ILSVRC's rules of objects of 25 x 25 pixels and more, and by VOC's where the
objects of a picture do not overlap. For difficult objects, small ones, the blacklist and 11 points there is no program
that pip installs: the algorithms of VOC's and ILSVRC's kits stand below as plain loops. torchvision is given doubles.
ensemble-boxes computes fused boxes in single precision. A peer that is not installed is named in the table.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tables import show

from inception_rcnn.data import Detections, Picture
from inception_rcnn.data.errors import DataWarning
from inception_rcnn.eval import (
    evaluate_coco,
    evaluate_ilsvrc,
    evaluate_voc,
    nms,
    nms_per_class,
    soft_nms,
    weighted_box_fusion,
)

CLASSES = ("ant", "bee", "cat")
SIDE = 512  # a power of two: divided by it, boxes keep all their bits
Random = np.random.Generator
Scene = tuple[list[Picture], dict[str, Detections]]


def draw_boxes(rng: Random, count: int, smallest: int = 1) -> NDArray[np.float32]:
    """Draw boxes with whole corners, some of them twice, many near another, inside 512 x 512 pixels."""
    start = rng.integers(0, 60, (count, 2))
    boxes = np.concatenate([start, start + rng.integers(smallest, smallest + rng.choice([6, 40]), (count, 2))], axis=1)
    for i in range(1, count):
        if rng.random() < 0.5:
            boxes[i] = boxes[rng.integers(i)]
            boxes[i, 2:] += rng.integers(0, 4, 2)
    return boxes.astype(np.float32)


def draw_scene(rng: Random, smallest: int = 1, apart: bool = False) -> Scene:
    """Draw a few pictures with objects and detections; `apart`: the objects of a picture do not overlap."""
    pictures, found = [], {}
    for i in range(rng.integers(1, 5)):
        boxes = draw_boxes(rng, int(rng.integers(0, 6)), smallest)
        labels = rng.integers(0, len(CLASSES), len(boxes))
        if apart:
            boxes += 128 * np.tile(np.stack(np.divmod(np.arange(len(boxes)), 4), axis=1), 2).astype(np.float32)
        flags = rng.random(len(boxes)) < 0.2
        no = np.zeros(len(boxes), bool)
        pictures.append(Picture(str(i), Path(f"{i}.jpg"), SIDE, SIDE, boxes, labels, flags, no, classes=CLASSES))
        count = int(rng.integers(0, 9))
        claims = draw_boxes(rng, count, smallest)
        label = rng.integers(0, len(CLASSES), count)
        for k in range(count if len(boxes) else 0):
            if rng.random() < 0.7:  # near an object
                j = rng.integers(len(boxes))
                claims[k] = boxes[j] + rng.integers(-3, 4, 4)
                claims[k, 2:] = np.maximum(claims[k, 2:], claims[k, :2] + 1)
                label[k] = labels[j]
        scores = rng.integers(0, 6, count) / 5 if rng.random() < 0.5 else rng.random(count)
        found[str(i)] = Detections(claims, scores, label, CLASSES)
    return pictures, found


# The kits' algorithms as plain loops. They count pixels from 1, both corners included.


def kit_overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Overlap of two boxes ``xmin ymin xmax ymax``."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    area = [(x2 - x1 + 1) * (y2 - y1 + 1) for x1, y1, x2, y2 in (a, b)]
    return width * height / (sum(area) - width * height)


def kit_average_precision(scene: Scene, label: int, rules: str, blacklist: set[tuple[str, str]]) -> float:
    """Average precision of a class as VOCevaldet.m (`voc07`, `voc12`) and eval_detection.m (`ilsvrc`) count it."""
    pictures, found = scene
    ours = [picture for picture in pictures if rules != "ilsvrc" or (picture.image_id, CLASSES[label]) not in blacklist]
    objects = {
        picture.image_id: [
            ([x1 + 1, y1 + 1, x2, y2], bool(flag) and rules != "ilsvrc")
            for (x1, y1, x2, y2), own, flag in zip(
                picture.boxes.tolist(), picture.labels, picture.difficult, strict=True
            )
            if own == label
        ]
        for picture in ours
    }
    positives = sum(not flag for own in objects.values() for _, flag in own)
    rows = [
        (score, picture.image_id, [x1 + 1, y1 + 1, x2, y2])
        for picture in ours
        for one in [found[picture.image_id]]
        for (x1, y1, x2, y2), score, own in zip(one.boxes.tolist(), one.scores.tolist(), one.labels, strict=True)
        if own == label
    ]
    taken, hits = set(), []
    for _, image_id, box in sorted(rows, key=lambda row: -row[0]):
        best, at, ignored = 0.0, -1, False
        for j, (other, flag) in enumerate(objects[image_id]):
            overlap = kit_overlap(box, other)
            if rules == "ilsvrc":
                width, height = other[2] - other[0] + 1, other[3] - other[1] + 1
                enough = min(0.5, width * height / ((width + 10) * (height + 10)))
                if overlap < enough or (image_id, j) in taken:
                    continue
            if overlap > best:
                best, at, ignored = overlap, j, flag
        good = at >= 0 and (rules == "ilsvrc" or best >= 0.5)
        if good and ignored:
            continue
        hits.append(good and (image_id, at) not in taken)
        if good:
            taken.add((image_id, at))
    if not positives:
        return float("nan")
    recall = [sum(hits[: n + 1]) / positives for n in range(len(hits))]
    precision = [sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))]
    if rules == "voc07":
        points = list(zip(recall, precision, strict=True))
        return sum(max([p for r, p in points if r >= 0.1 * tenths], default=0) for tenths in range(11)) / 11
    recall, precision = [0, *recall, 1], [0, *precision, 0]
    for n in range(len(precision) - 2, -1, -1):
        precision[n] = max(precision[n], precision[n + 1])
    return sum((recall[n] - recall[n - 1]) * precision[n] for n in range(1, len(recall)))


def largest(one: Any, other: Any) -> float:
    """Return the largest difference of two arrays; infinite if their shapes differ or nan stands elsewhere."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.shape != other.shape or (np.isnan(one) != np.isnan(other)).any():
        return float("inf")
    return float(np.nanmax(np.abs(one - other), initial=0)) if (~np.isnan(one)).any() else 0.0


def kits(rules: str) -> Callable[[Random], float]:
    """Compare average precision of every class with the kit's loops."""

    def compare(rng: Random) -> float:
        scene = draw_scene(rng)
        blacklist = {(one.image_id, name) for one in scene[0] for name in CLASSES if rng.random() < 0.1}
        expected = [kit_average_precision(scene, label, rules, blacklist) for label in range(len(CLASSES))]
        if rules == "ilsvrc":
            result = evaluate_ilsvrc(*scene, blacklist=blacklist)
        else:
            result = evaluate_voc(*scene, metric=rules)  # type: ignore[arg-type]
        return largest(list(result["per_class"].values()), expected)

    return compare


def run_pycocotools(truth: dict[str, Any], rows: list[dict[str, Any]], **settings: Any) -> Any:
    """Have pycocotools load, match and accumulate; return its COCOeval."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(rows), "bbox")
        for name, value in settings.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
        if not settings:
            evaluation.summarize()
    return evaluation


def coco_sides(scene: Scene) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write a scene as COCO has it, with ids of its own, difficult objects as crowds, and areas unlike the boxes'."""
    pictures, found = scene
    images, sides = [], ([], [])
    for picture in pictures:
        image = 10 + 3 * int(picture.image_id)
        images.append({"id": image, "file_name": picture.path.name, "width": SIDE, "height": SIDE})
        one = found[picture.image_id]
        for rows, boxes, labels in ((sides[0], picture.boxes, picture.labels), (sides[1], one.boxes, one.labels)):
            for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
                row = {"image_id": image, "category_id": 7 * (int(labels[i]) + 1), "bbox": [x1, y1, x2 - x1, y2 - y1]}
                if rows is sides[0]:
                    area = (x2 - x1) * (y2 - y1) * 5
                    row |= {"id": len(rows) + 1, "iscrowd": int(picture.difficult[i]), "area": area}
                else:
                    row |= {"score": float(one.scores[i])}
                rows.append(row)
    categories = [{"id": 7 * (label + 1), "name": name} for label, name in enumerate(CLASSES)]
    # pycocotools cannot load an empty list.
    nothing = [{"image_id": 10, "category_id": 7, "bbox": [500, 500, 5, 5], "score": 0.0}]
    return {"images": images, "categories": categories, "annotations": sides[0]}, sides[1] or nothing


def coco(rng: Random) -> float:
    """Compare COCO's twelve numbers, from files."""
    truth, rows = coco_sides(draw_scene(rng))
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("truth.json", truth), ("found.json", rows)):
            Path(folder, name).write_text(json.dumps(content))
        result = evaluate_coco(f"{folder}/truth.json", f"{folder}/found.json")
    stats = run_pycocotools(truth, rows).stats
    return largest([*result.values()][:12], np.where(stats < 0, np.nan, stats))


def area_by_pycocotools(evaluate: Callable[..., dict[str, Any]], **options: Any) -> Callable[[Random], float]:
    """Compare the area under every class's curve at IoU 0.5 with pycocotools' precision at all recalls there are."""

    def compare(rng: Random) -> float:
        pictures, found = draw_scene(rng, smallest=25, apart=evaluate is evaluate_voc)
        pictures = [replace(one, difficult=one.crowd) for one in pictures]
        truth, rows = coco_sides((pictures, found))
        result = evaluate(pictures, found, **options)["per_class"]
        differences = []
        for label, name in enumerate(CLASSES):
            positives = sum(int((one.labels == label).sum()) for one in pictures)
            if not positives:
                differences.append(0.0 if np.isnan(result[name]) else float("inf"))
                continue
            # A little below, since k / n is compared with recalls that were summed up.
            recalls = np.arange(1, positives + 1) / positives - 1e-9
            settings = {"iouThrs": np.array([0.5]), "recThrs": recalls, "maxDets": [1, 10, 1000]}
            evaluation = run_pycocotools(truth, rows, catIds=[7 * (label + 1)], **settings)
            differences.append(largest(result[name], evaluation.eval["precision"][0, :, 0, 0, -1].mean()))
        return max(differences)

    return compare


def torchvision_nms(rng: Random) -> float:
    """Count the boxes that only one of the two keeps, or keeps at another place."""
    import torch
    from torchvision.ops import nms as peer

    boxes, threshold = draw_boxes(rng, int(rng.integers(0, 40))), 0.5
    if rng.random() < 0.5:
        boxes, threshold = boxes + rng.random(boxes.shape, np.float32) * 0.5, float(rng.uniform(0.1, 0.9))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    scores = (rng.integers(0, 9, len(boxes)) / 8).astype(np.float32)
    theirs = peer(torch.from_numpy(boxes).double(), torch.from_numpy(scores).double(), threshold).numpy()
    return largest(nms(boxes, scores, threshold), theirs)


def torchvision_batched(rng: Random) -> float:
    """Count the detections that only one of the two has."""
    import torch
    from torchvision.ops import batched_nms

    boxes = draw_boxes(rng, int(rng.integers(1, 40)))
    scores = rng.random((len(boxes), len(CLASSES)), np.float32)
    kept_boxes, kept_scores, kept_labels = nms_per_class(boxes, scores, 0.5)
    row, label = np.divmod(np.arange(scores.size), len(CLASSES))
    kept = batched_nms(
        torch.from_numpy(boxes[row]).double(), torch.from_numpy(scores.ravel()).double(), torch.from_numpy(label), 0.5
    ).numpy()
    theirs = np.column_stack([boxes[row[kept]], scores.ravel()[kept], label[kept]])
    return largest(np.column_stack([kept_boxes, kept_scores, kept_labels]), theirs)


def ensemble_soft_nms(method: Any) -> Callable[[Random], float]:
    """Compare lowered scores; equal ones, which their program shuffles, are not drawn."""

    def compare(rng: Random) -> float:
        from ensemble_boxes.ensemble_boxes_nms import cpu_soft_nms_float

        boxes = draw_boxes(rng, int(rng.integers(1, 30))).astype(np.float64)
        scores = rng.uniform(0.05, 1, len(boxes))
        index, lowered = soft_nms(boxes, scores, method, sigma=0.5, iou_threshold=0.3, min_score=0.001)
        theirs = scores.copy()  # lowered in place, in the order of the choice
        chosen = cpu_soft_nms_float(boxes / SIDE, theirs, 0.3, 0.5, 0.001, 1 if method == "linear" else 2)
        theirs = theirs[theirs > 0.001]
        order = np.argsort(-theirs, kind="stable")
        return max(largest(index, chosen[order]), largest(lowered, theirs[order]))

    return compare


def ensemble_fusion(rng: Random) -> float:
    """Compare fused boxes, in pixels, and scores."""
    from ensemble_boxes import weighted_boxes_fusion

    members = int(rng.integers(1, 4))
    boxes = [draw_boxes(rng, int(rng.integers(1, 12))) for _ in range(members)]
    scores = [rng.uniform(0.05, 1, len(one)) for one in boxes]
    labels = [rng.integers(0, len(CLASSES), len(one)) for one in boxes]
    weights = rng.integers(1, 4, members).astype(float)
    ours = weighted_box_fusion(boxes, scores, labels, iou_threshold=0.55, weights=weights)
    theirs = weighted_boxes_fusion(
        [one.astype(np.float64) / SIDE for one in boxes], scores, labels, weights=weights, iou_thr=0.55
    )
    sides = []
    for box, score, label in (ours, (theirs[0] * SIDE, theirs[1], theirs[2])):
        sides.append(np.column_stack([box, score, label])[np.lexsort((np.round(box[:, 0], 2), np.round(score, 5)))])
    return largest(*sides)


COMPARISONS: list[tuple[str, str, Callable[[Random], float]]] = [
    ("evaluate_voc, 11 points", "", kits("voc07")),
    ("evaluate_voc, area", "", kits("voc12")),
    ("evaluate_ilsvrc, blacklist", "", kits("ilsvrc")),
    ("evaluate_voc, area, objects apart", "pycocotools", area_by_pycocotools(evaluate_voc, metric="voc12")),
    ("evaluate_ilsvrc, large objects", "pycocotools", area_by_pycocotools(evaluate_ilsvrc)),
    ("evaluate_coco, 12 numbers", "pycocotools", coco),
    ("nms", "torchvision", torchvision_nms),
    ("nms_per_class", "torchvision", torchvision_batched),
    ("soft_nms, Gaussian", "ensemble-boxes", ensemble_soft_nms("gaussian")),
    ("soft_nms, linear", "ensemble-boxes", ensemble_soft_nms("linear")),
    ("weighted_box_fusion, pixels", "ensemble-boxes", ensemble_fusion),
]


def main() -> None:
    """Draw scenes, compare and print the table; exit with 1 where a difference is more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore", DataWarning)  # of detections outside such small pictures
    rows, failed = [], False
    for name, peer, compare in COMPARISONS:
        try:
            version = f"{peer} {importlib.metadata.version(peer)}" if peer else "the kit as loops"
        except importlib.metadata.PackageNotFoundError:
            rows.append([name, f"{peer}: not installed", "0", "not compared"])
            continue
        rng = np.random.default_rng(options.seed)
        worst = max(compare(rng) for _ in range(options.scenes))
        # Their fused boxes are in single precision, of pixels divided by 512.
        failed |= worst > (1e-3 if compare is ensemble_fusion else 1e-9)
        rows.append([name, version, f"{options.scenes:,}", f"{worst:.1g}"])
    show("Largest differences", ("what", "peer", "scenes", "largest difference"), rows, options.markdown)
    sys.exit(failed)


if __name__ == "__main__":
    main()
