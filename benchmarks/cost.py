"""What very many pictures cost: CPU seconds and bytes a picture of whole runs, and what these come to for a million.

    python benchmarks/cost.py [IMAGES...] [--pictures 1000000] [--core-hour 0.05] [--markdown]

Each run is done twice in one process with one thread, the second time measured: from reading the files to the written
results. By default on the photographs that come with scikit-image; name pictures like your own. `--core-hour` is the
price of one core for one hour, in whatever currency; the default is a round number, no offer. Requests to a bucket are
not counted: two a picture, one if it is in a tar file.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

# Before numpy and torch are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
from machine_load import find_pictures
from tables import show

from inception_rcnn.detect import Detector
from inception_rcnn.detect.runs.detection import detect_batch
from inception_rcnn.detect.runs.proposing import propose_pictures
from inception_rcnn.detect.runs.summary import RunSummary
from inception_rcnn.proposals import MergedProposals, Proposer, SelectiveSearch

CORES = 64
# Stages of a run that read files, that need no network, and that need it.
SIDES = {"read": ("read",), "search": ("search",), "network": ("trunk", "merge proposals", "score"), "draw": ("draw",)}


def measure(run: Callable[[Path], RunSummary]) -> tuple[float, RunSummary, dict[str, int]]:
    """Run twice; CPU seconds of the second time, its summary, and the bytes of its results by kind."""
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            summary = run(Path(folder))
            seconds = time.process_time() - start
            sizes: dict[str, int] = {}
            for path in Path(folder).rglob("*"):
                if path.is_file():
                    kind = "drawings" if "pictures" in path.parts else path.suffix
                    sizes[kind] = sizes.get(kind, 0) + path.stat().st_size
    return seconds, summary, sizes


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", metavar="IMAGES", help="files and folders")
    parser.add_argument("--pictures", type=float, default=1e6, help="how many there are to do")
    parser.add_argument("--core-hour", type=float, default=0.05, help="price of a core for an hour")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    paths = find_pictures(arguments.images)
    cv2.setNumThreads(1)

    def detect(detector: Detector, folder: Path) -> RunSummary:
        return detect_batch(paths, folder / "out", detector)

    def propose(proposer: Proposer, folder: Path) -> RunSummary:
        return propose_pictures(paths, folder / "boxes.parquet", proposer)

    detectors = {one: Detector.load("voc", device="cpu", threads=1, precision=one) for one in ("float32", "int8")}
    runs = {
        **{f"detect --precision {precision}": partial(detect, loaded) for precision, loaded in detectors.items()},
        "propose": partial(propose, MergedProposals.load(device="cpu", threads=1)),
        "propose --method selective-search": partial(propose, SelectiveSearch("fast")),
    }
    stages, costs = [], []
    read = sum(path.stat().st_size for path in paths) / len(paths)
    for name, run in runs.items():
        seconds, summary, sizes = measure(run)
        each = seconds / summary.pictures
        by_side = [sum(summary.seconds.get(stage, 0) for stage in side) / summary.pictures for side in SIDES.values()]
        told = [f"{part:.3f}" if "detect" in name else "-" for part in by_side]
        kinds = [f"{sizes.get(kind, 0) / summary.pictures / 1000:.1f}" for kind in (".parquet", ".json", "drawings")]
        stages.append((name, f"{each:.3f}", *told, f"{read / 1000:.0f}", *kinds))
        hours = each * arguments.pictures / 3600
        rate = CORES / each
        costs.append(
            (
                name,
                f"{hours:,.0f}",
                f"{hours / CORES / 24:,.2f}",
                f"{hours * arguments.core_hour:,.0f}",
                f"{rate:,.0f}",
                f"{rate * read / 1e6:,.0f}",
                f"{sizes.get('.parquet', 0) / summary.pictures * arguments.pictures / 1e9:,.1f}",
                f"{sizes.get('drawings', 0) / summary.pictures * arguments.pictures / 1e9:,.0f}",
            )
        )
    show(
        f"A picture, of {len(paths)}: seconds of one core, all of it and by stage; kilobytes read and written",
        ("", "CPU s", *SIDES, "read kB", "Parquet kB", "JSON kB", "drawings kB"),
        stages,
        arguments.markdown,
    )
    show(
        f"{arguments.pictures:,.0f} pictures, on {CORES} cores",
        ("", "core hours", "days", "price", "pictures/s", "read MB/s", "Parquet GB", "drawings GB"),
        costs,
        arguments.markdown,
    )


if __name__ == "__main__":
    main()
