"""Where the time of one detection goes, and what runs the network faster: ONNX Runtime or torch.

One process, one thread, CPU seconds, the median over the pictures. By default on the photographs that come with
scikit-image.

    python benchmarks/pipeline.py [IMAGES...] [--proposals 1000]
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

# Before numpy and torch are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
from rich.console import Console
from rich.table import Table

from inception_rcnn.data import find_images, read_image
from inception_rcnn.detect import Detector
from inception_rcnn.detect.detector import PROPOSALS
from inception_rcnn.proposals import MergedProposals, SelectiveSearch

SEARCH, PLAIN = "selective search, superpixels x2", "selective search without the doubling"
LOOK, BOXES, MERGE = "look: up to inception 4e", "MultiBox on what was seen", "merge"
SCORE = "score and suppress"


def timed(seconds: dict[str, list[float]], stage: str, call: Callable[[], Any]) -> Any:
    """Call, and note the CPU seconds of this process under `stage`."""
    start = time.process_time()
    result = call()
    seconds.setdefault(stage, []).append(time.process_time() - start)
    return result


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", help="default: scikit-image's sample photographs")
    parser.add_argument("--proposals", type=int, default=PROPOSALS)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not options.images:
        import skimage

        folder = os.path.join(os.path.dirname(skimage.__file__), "data")
        options.images = [os.path.join(folder, f"{name}.png") for name in ("chelsea", "astronaut", "motorcycle_left")]
    cv2.setNumThreads(1)
    detector = Detector.load("voc", device="cpu", threads=1, proposals=options.proposals)
    proposer = detector.proposer
    assert isinstance(proposer, MergedProposals)
    plain = SelectiveSearch("fast", limit=options.proposals)
    try:
        import torch

        torch.set_num_threads(1)
        eager = Detector.load("voc", device="cpu", threads=1, engine="torch", method="selective-search")
    except ImportError:
        eager = None
    seconds: dict[str, list[float]] = {}
    counts = []
    for path in find_images(options.images):
        for turn in range(options.rounds + 1):
            # The first turn fills caches and compiles kernels.
            notes = seconds if turn else {}
            image = timed(notes, "read", lambda path=path: read_image(path))
            searched = timed(notes, SEARCH, lambda image=image: detector.search(image))
            view = timed(notes, LOOK, lambda image=image: detector.look(image))
            found = timed(notes, BOXES, lambda view=view: proposer.multibox.propose(view))
            boxes, _ = timed(notes, MERGE, lambda a=searched, b=found: proposer.join(a, b))
            timed(notes, SCORE, lambda view=view, boxes=boxes: detector.score(view, boxes))
            if eager is not None:
                seen = timed(notes, f"{LOOK}, torch", lambda image=image: eager.look(image))
                timed(notes, f"{SCORE}, torch", lambda view=seen, boxes=boxes: eager.score(view, boxes))
            timed(notes, PLAIN, lambda image=image: plain(image))
            counts.append(len(boxes))
    median = {stage: statistics.median(values) for stage, values in seconds.items()}
    stages = ["read", SEARCH, LOOK, BOXES, MERGE, SCORE]
    table = Table("stage", "CPU s", title=f"one picture, one thread, {round(statistics.mean(counts))} proposals")
    table.columns[1].justify = "right"
    for stage in stages:
        table.add_row(stage, f"{median[stage]:.3f}")
    table.add_row("all of it", f"{sum(median[stage] for stage in stages):.3f}", end_section=True)
    for stage in median:
        if stage not in stages:
            table.add_row(stage, f"{median[stage]:.3f}")
    Console(highlight=False).print(table)
    without = median["read"] + median[PLAIN] + median[LOOK] + median[SCORE]
    added = median[BOXES] + median[MERGE]
    print(f"MultiBox and the merge add {100 * added / without:.1f} % to a detection with selective search alone")
    if eager is not None:
        ratio = (median[f"{LOOK}, torch"] + median[f"{SCORE}, torch"]) / (median[LOOK] + median[SCORE])
        print(f"torch / ONNX Runtime: {ratio:.2f}")


if __name__ == "__main__":
    main()
