"""Where the time of one detection goes, what runs the network faster, and how many pictures a second come out.

One process, one thread, CPU seconds, the median over the pictures; then whole runs, from files to results, by the
clock. By default on the photographs that come with scikit-image.

    python benchmarks/pipeline.py [IMAGES...] [--proposals 1200]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before numpy and torch are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
from machine_load import find_pictures
from tables import show

from inception_rcnn.data import read_image
from inception_rcnn.data.system.processes import usable_cores
from inception_rcnn.detect import Detector
from inception_rcnn.detect.runs.detection import detect_batch
from inception_rcnn.detect.settings import DetectorSettings
from inception_rcnn.proposals import MergedProposals, SelectiveSearch

SEARCH, PLAIN = "selective search, superpixels x2", "selective search without the doubling"
TRUNK, BOXES, MERGE = "trunk: up to inception 4e", "MultiBox on its features", "merge, first pass"
SCORE = "score and suppress"
STAGES = ["read", SEARCH, TRUNK, BOXES, MERGE, SCORE]


def timed(seconds: dict[str, list[float]], stage: str, call: Callable[[], Any]) -> Any:
    """Call, and note the CPU seconds of this process under `stage`."""
    start = time.process_time()
    result = call()
    seconds.setdefault(stage, []).append(time.process_time() - start)
    return result


def stages(detector: Detector, paths: list[Path], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each stage of a detection."""
    seconds: dict[str, list[float]] = {}
    proposer = detector.proposer
    assert isinstance(proposer, MergedProposals)
    for path in paths:
        for turn in range(rounds + 1):
            # The first turn fills caches and compiles kernels.
            notes = seconds if turn else {}
            image = timed(notes, "read", lambda path=path: read_image(path))
            searched = timed(notes, SEARCH, lambda image=image: detector.search(image))
            features = timed(notes, TRUNK, lambda image=image: detector.features(image))
            timed(notes, BOXES, lambda features=features: proposer.multibox.propose(features))
            boxes, objectness = timed(
                notes, MERGE, lambda features=features, found=searched: detector.select_regions(features, found)
            )
            timed(
                notes,
                SCORE,
                lambda features=features, boxes=boxes, objectness=objectness: detector.score(
                    features, boxes, objectness
                ),
            )
    median = {stage: statistics.median(values) for stage, values in seconds.items()}
    # What is measured as merging proposes by MultiBox too.
    median[MERGE] -= median[BOXES]
    return median


def end_to_end(detector: Detector, paths: list[Path], workers: int) -> list[str]:
    """Pictures a second of a whole run, and what its two sides did."""
    detector(read_image(paths[0]))
    with tempfile.TemporaryDirectory() as folder:
        done = detect_batch(paths, Path(folder), detector, workers=workers)
    seconds = done.seconds
    scoring = sum(seconds[stage] for stage in ("trunk", "merge proposals", "score"))
    return [
        f"{done.pictures / seconds['total']:.2f}",
        f"{(seconds['read'] + seconds['search']) / done.pictures:.3f}", f"{scoring / done.pictures:.3f}",
        f"{100 * done.waiting_share:.0f}",
    ]  # fmt: skip


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", help="default: scikit-image's sample photographs")
    parser.add_argument("--proposals", type=int, default=DetectorSettings.proposals)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    paths = find_pictures(options.images)
    number = options.proposals
    columns: dict[str, dict[str, float]] = {}
    settings: dict[str, dict[str, Any]] = {"float32": {}, "int8": {"precision": "int8"}}
    try:
        import torch

        torch.set_num_threads(1)
        settings["torch, float32"] = {"engine": "torch"}
    except ImportError:
        pass
    for name, own in settings.items():
        detector = Detector.load("voc", device="cpu", threads=1, proposals=number, **own)
        columns[name] = stages(detector, paths, options.rounds)
    rows = [[stage, *(f"{median[stage]:.3f}" for median in columns.values())] for stage in STAGES]
    rows.append(["all of it", *(f"{sum(median.values()):.3f}" for median in columns.values())])
    show(f"CPU s of one picture, one thread, {number} proposals", ["stage", *columns], rows, options.markdown)

    median, notes = columns["float32"], {}
    plain = SelectiveSearch("fast", limit=number)
    for path in paths:
        image = read_image(path)
        for turn in range(options.rounds + 1):
            timed(notes if turn else {}, PLAIN, lambda image=image: plain(image))
    searching = statistics.median(notes[PLAIN])
    without = median["read"] + searching + median[TRUNK] + median[SCORE]
    added = median[BOXES] + median[MERGE]
    print(
        f"{PLAIN}: {searching:.3f}; MultiBox and the merge add {100 * added / without:.1f} % to a detection with it\n"
    )

    cores = usable_cores()
    rows = []
    for scoring, model in (("shared", "voc"), ("crops", "voc-crops")):
        for precision in ("float32", "int8"):
            # One thread searches ahead; the network has as many as there are cores.
            detector = Detector.load(model, device="cpu", precision=precision, proposals=number)
            rows.append([f"{scoring}, {precision}", *end_to_end(detector, paths, 1)])
    headings = ["scoring", "pictures/s", "read, search s", "score s", "scoring waits %"]
    show(f"{len(paths)} files to results, {cores} cores, {number} proposals", headings, rows, options.markdown)


if __name__ == "__main__":
    main()
