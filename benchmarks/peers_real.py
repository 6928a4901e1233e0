"""Evaluators beside other programs on real detections: every figure of both, and their largest difference.

    python benchmarks/peers_real.py DEVKIT DETECTIONS [--split test] [--score 0.3] [--markdown]

DEVKIT is a folder in VOC's layout, DETECTIONS a file that `detect` or `benchmarks/detectors.py --save` wrote. TIDE's
figures stand beside those of `tidecv`, a confusion matrix beside that of `supervision`, COCO's numbers beside those of
`torchmetrics`. What they define differently is taken out before: `supervision` has no difficult objects, so none of the
objects is difficult in its comparison; an overlap of exactly a half, which it does not take, is left in. The recall
levels of `torchmetrics` are given in double precision, those of `tidecv` are its own: a recall that is exactly a level
may lie on either side. Of equal scores `tidecv` takes the false ones first. One that is not installed is named.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tables import show

from inception_rcnn.data import Detections, Picture, read_detections, read_voc
from inception_rcnn.eval import COCOEvaluator, confusion_matrix, tide_errors

Figures = dict[str, tuple[float, float]]


def tide(pictures: list[Picture], found: dict[str, Detections], score: float) -> Figures:
    """Compare what each type of error costs, and how many there are."""
    import tidecv
    from tidecv.data import Data

    truth, claims = Data("truth", max_dets=1000), Data("claims", max_dets=1000)
    for picture in pictures:
        for box, label, ignore in zip(picture.boxes.tolist(), picture.labels, picture.difficult, strict=True):
            sides = [*box[:2], box[2] - box[0], box[3] - box[1]]
            (truth.add_ignore_region if ignore else truth.add_ground_truth)(picture.image_id, int(label), sides)
        truth._make_default_image(picture.image_id)
        one = found[picture.image_id]
        for box, label, value in zip(one.boxes.tolist(), one.labels, one.scores, strict=True):
            sides = [*box[:2], box[2] - box[0], box[3] - box[1]]
            claims.add_detection(picture.image_id, int(label), float(value), sides)
    run = tidecv.TIDE().evaluate(truth, claims)
    ours = tide_errors(pictures, found)
    gains = [gain / 100 for gain in (run.fix_main_errors() | run.fix_special_errors()).values()]
    counts = [len(errors) for errors in run.error_dict.values()]
    figures = {"mAP": (ours["mAP"], run.ap / 100)}
    figures |= {f"costs of {name}": (own, gains[i]) for i, (name, own) in enumerate(ours["gains"].items())}
    return figures | {f"number of {name}": (own, counts[i]) for i, (name, own) in enumerate(ours["counts"].items())}


def confusion(pictures: list[Picture], found: dict[str, Detections], score: float) -> Figures:
    """Compare confusion matrices, entry by entry."""
    import supervision

    classes = pictures[0].classes
    pictures = [replace(one, difficult=np.zeros_like(one.difficult)) for one in pictures]
    outputs = [found[one.image_id] for one in pictures]
    theirs = supervision.ConfusionMatrix.from_tensors(
        [np.column_stack([one.boxes, one.labels, one.scores]) for one in outputs],
        [np.column_stack([one.boxes, one.labels]) for one in pictures],
        list(classes),
        conf_threshold=score,
    ).matrix.astype(int)
    ours = confusion_matrix(pictures, found, classes, min_score=score)
    wrong = ~np.eye(len(ours), dtype=bool)
    return {
        "objects of their class": (np.trace(ours), np.trace(theirs)),
        "objects of another class": (ours[:-1, :-1][wrong[:-1, :-1]].sum(), theirs[:-1, :-1][wrong[:-1, :-1]].sum()),
        "objects not found": (ours[:-1, -1].sum(), theirs[:-1, -1].sum()),
        "detections of nothing": (ours[-1].sum(), theirs[-1].sum()),
        "entries that differ": ((ours != theirs).sum(), 0),
        "largest difference of an entry": (abs(ours - theirs).max(), 0),
    }


def coco(pictures: list[Picture], found: dict[str, Detections], score: float) -> Figures:
    """Compare COCO's numbers, of objects that are not difficult and of crowds that are."""
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    levels = {"iou_thresholds": np.linspace(0.5, 0.95, 10).tolist(), "rec_thresholds": np.linspace(0, 1, 101).tolist()}
    own, peer = COCOEvaluator(pictures[0].classes), MeanAveragePrecision(**levels)
    peer.warn_on_many_detections = False
    for picture in pictures:
        one = found[picture.image_id]
        target: dict[str, Any] = {"boxes": picture.boxes, "labels": picture.labels, "iscrowd": picture.difficult * 1}
        output = {"boxes": one.boxes, "scores": one.scores, "labels": one.labels}
        own.update([target], [output])
        tensors = [{name: torch.tensor(np.asarray(value)) for name, value in x.items()} for x in (output, target)]
        peer.update([tensors[0]], [tensors[1]])
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = peer.compute()
    names = {"AP": "map", "AP50": "map_50", "AP75": "map_75", "AR_1": "mar_1", "AR_100": "mar_100"}
    ours = own.compute()
    return {name: (ours[name], float(theirs[other])) for name, other in names.items()}


COMPARISONS = (
    ("tide_errors", "tidecv", tide),
    ("confusion_matrix", "supervision", confusion),
    ("COCOEvaluator", "torchmetrics", coco),
)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devkit", type=Path)
    parser.add_argument("detections", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--score", type=float, default=0.3, help="from which a detection counts in the matrix")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    found = read_detections(options.detections)
    pictures = [one for one in read_voc(options.devkit, options.split) if one.image_id in found]
    rows = []
    for name, peer, compare in COMPARISONS:
        try:
            figures = compare(pictures, found, options.score)
        except ImportError as error:
            rows.append([name, f"{peer}: {error}", "", "", ""])
            continue
        title = f"{name}, {peer} {importlib.metadata.version(peer)}"
        for what, (ours, theirs) in figures.items():
            rows.append([title, what, f"{ours:.6g}", f"{theirs:.6g}", f"{abs(ours - theirs):.1g}"])
            title = ""
    boxes = sum(len(found[one.image_id]) for one in pictures)
    title = f"{len(pictures):,} pictures, {boxes:,} detections"
    show(title, ["", "", "ours", "theirs", "difference"], rows, options.markdown)


if __name__ == "__main__":
    main()
