"""What 8 bits and a first pass save, and what they cost: CPU seconds of a whole detection, and mAP.

Every row finds the objects of every picture, proposals included, on one thread; VOC's rules (11-point mAP, IoU 0.5).

    python benchmarks/savings.py VOCdevkit/VOC2007 --split test [--skip "crops, int8" ...] [--markdown]
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

# Before numpy and numba are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"

import cv2
from models import MIN_SCORE, evenly_spaced, run_on
from tables import show

from inception_rcnn.data import Detections, Picture, read_image, read_voc
from inception_rcnn.data.system.processes import usable_cores
from inception_rcnn.detect import Detector
from inception_rcnn.detect.settings import DetectorSettings
from inception_rcnn.eval import evaluate_voc

MANY = 1200
ALONE = {"method": "selective-search"}
# Model, how many are proposed, and how it is loaded.
Row = tuple[str, int, dict[str, Any]]
ROWS: dict[str, Row] = {
    "merged": ("voc", MANY, {"proposals": MANY, "first_pass_regions": 0}),
    "merged, int8": ("voc", MANY, {"proposals": MANY, "first_pass_regions": 0, "precision": "int8"}),
    "merged, int8, first pass": ("voc", MANY, {"proposals": MANY, "precision": "int8"}),
    "selective search": ("voc", DetectorSettings.search_proposals, {**ALONE, "first_pass_regions": 0}),
    "selective search, int8, first pass": ("voc", DetectorSettings.search_proposals, {**ALONE, "precision": "int8"}),
    "the default": ("voc", DetectorSettings.proposals, {}),
    "the default, int8": ("voc", DetectorSettings.proposals, {"precision": "int8"}),
    "crops, int8": ("voc-crops", DetectorSettings.proposals, {"precision": "int8"}),
}


class Work:
    """Detections of a picture by some rows; made anew in each process."""

    def __init__(self, rows: dict[str, Row]) -> None:
        self.rows = rows
        self.detectors: dict[str, Detector] = {}

    def __call__(self, picture: Picture) -> tuple[dict[str, Detections], dict[str, float]]:
        """Find the objects of a picture: detections and CPU seconds by row."""
        if not self.detectors:
            cv2.setNumThreads(1)
            for name, (model, _, settings) in self.rows.items():
                self.detectors[name] = Detector.load(model, device="cpu", threads=1, min_score=MIN_SCORE, **settings)
        found, seconds = {}, {}
        for name, detector in self.detectors.items():
            start = time.process_time()
            found[name] = detector(read_image(picture.path))
            seconds[name] = time.process_time() - start
        return found, seconds

    def __reduce__(self) -> tuple[type, tuple[dict[str, Row]]]:
        return Work, (self.rows,)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="in VOC layout")
    parser.add_argument("--split", default="test", help="default: test")
    parser.add_argument("--pictures", type=int, help="so many, evenly spaced; default: all")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes; default: one a core")
    parser.add_argument("--skip", action="append", default=[], choices=list(ROWS), help="a row; may be given again")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    options = parser.parse_args()
    kept = {name: row for name, row in ROWS.items() if name not in options.skip}
    try:
        pictures = evenly_spaced(read_voc(options.folder, options.split), options.pictures)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    found, seconds = run_on(pictures, Work(kept), options.workers)
    rows = []
    for name, (_, number, settings) in kept.items():
        result = evaluate_voc(pictures, found[name], found[name][pictures[0].image_id].classes, metric="voc07")
        scored = min(number, settings.get("first_pass_regions", DetectorSettings.first_pass_regions) or number)
        spent = statistics.median(seconds[name])
        rows.append([name, str(number), str(scored), f"{100 * result['mAP']:.2f}", f"{spent:.2f}"])
    columns = ["what", "proposals", "scored", "mAP", "CPU s"]
    show(f"{len(pictures)} pictures, a detection with everything", columns, rows, options.markdown)


if __name__ == "__main__":
    main()
