"""The GoogLeNet team's table of proposals, on any labelled pictures: selective search, superpixels x2, + MultiBox.

One process, one thread, CPU seconds, median over the pictures; difficult objects and crowds are left out. Coverage is
the share of objects that a box covers at an IoU.

    python benchmarks/coverage.py VOCdevkit/VOC2007 --split test [--plot coverage.png]
    python benchmarks/coverage.py val2017/ --annotations instances_val2017.json [--classes unseen.txt]

OpenCV's selective search takes part where OpenCV is the contrib build, EdgeBoxes if --edges names the edge model that
OpenCV publishes for it (model.yml.gz). OpenCV's list begins with its worst boxes, so it is also shown turned round.
"""

import argparse
import ctypes
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

# Before numpy and numba are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from tables import show

from inception_rcnn.backbone.regions.features import PictureFeatures
from inception_rcnn.data import Picture, atomic_write, read_coco, read_image, read_voc
from inception_rcnn.data.classes.reading import read_class_list
from inception_rcnn.eval import evaluate_proposals
from inception_rcnn.proposals import MultiBox, SelectiveSearch, merge_proposals
from inception_rcnn.proposals.search.selective_search import _scale

LIMITS = (10, 20, 50, 100, 200, 300, 500, 700, 1000, 1200, 1500, 2000)
TICKS = (10, 20, 50, 100, 200, 500, 1000, 2000)
Boxes = dict[str, NDArray[np.float32]]


def opencv(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """OpenCV's selective search, its fast mode, at 500 pixels width."""
    scaled = _scale(image)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(scaled[..., ::-1]))
    search.switchToSelectiveSearchFast()
    ctypes.CDLL(None).srand(0)  # its ranking draws from there, which cv2.setRNGSeed does not reach
    return corners(search.process(), image, scaled)


def edge_boxes(model: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Make OpenCV's EdgeBoxes on structured edges."""
    detector = cv2.ximgproc.createStructuredEdgeDetection(str(model))
    boxes = cv2.ximgproc.createEdgeBoxes()
    boxes.setMaxBoxes(2000)

    def run(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        edges = detector.detectEdges(image.astype(np.float32) / 255)
        orientation = detector.computeOrientation(edges)
        rectangles, _ = boxes.getBoundingBoxes(detector.edgesNms(edges, orientation), orientation)
        return corners(np.array(rectangles), image, image)

    return run


def corners(rectangles: NDArray[Any], image: NDArray[np.uint8], scaled: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Boxes of `image` from x, y, width, height of `scaled`."""
    rectangles = rectangles.reshape(-1, 4)
    boxes = np.concatenate([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]], axis=1)
    stretch = np.array([image.shape[1] / scaled.shape[1], image.shape[0] / scaled.shape[0]] * 2)
    return (boxes * stretch).astype(np.float32)


def measure(
    pictures: Sequence[Picture], multibox: MultiBox, peers: dict[str, Callable[[NDArray[np.uint8]], Any]]
) -> tuple[dict[str, Boxes], dict[str, list[float]]]:
    """Boxes of every method, best first, and CPU seconds of every part, by picture."""
    plain, doubled = SelectiveSearch("fast"), SelectiveSearch("fast", superpixel_scale=2)
    boxes: dict[str, Boxes] = {}
    seconds: dict[str, list[float]] = {}
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Refreshed by hand: a thread that draws would be counted.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:
        bar = progress.add_task("", total=len(pictures))
        for turn, picture in enumerate([pictures[0], *pictures]):  # the first twice, to compile kernels
            image = read_image(picture.path)
            own: dict[str, float] = {}

            def timed(part: str, call: Callable[[], Any], own: dict[str, float] = own) -> Any:
                start = time.process_time()
                result = call()
                own[part] = time.process_time() - start
                return result

            features = PictureFeatures(image)
            searched = timed("search", lambda image=image: plain(image))
            large = timed("search x2", lambda image=image: doubled(image))
            timed("trunk", lambda features=features: features.of(multibox.trunk, multibox.model.long_side))
            found = timed("head", lambda features=features: multibox.propose(features))
            merged = timed("merge", lambda a=large, b=found: merge_proposals(a, b, multibox.calibration))
            lists = {
                "selective search": searched[0],
                "superpixels x2": large[0],
                "MultiBox": found[0],
                "superpixels x2 + MultiBox, merged": merged[0],
                "the same, MultiBox first": np.concatenate([found[0], large[0]]),
                "the same, MultiBox last": np.concatenate([large[0], found[0]]),
            }
            for name, run in peers.items():
                lists[name] = timed(name, lambda run=run, image=image: run(image))
            if turn:
                for name, one in lists.items():
                    boxes.setdefault(name, {})[picture.image_id] = one
                for part, spent in own.items():
                    seconds.setdefault(part, []).append(spent)
            progress.update(bar, completed=turn, refresh=True)
    if "OpenCV fast" in boxes:
        boxes["OpenCV fast, last first"] = {i: one[::-1] for i, one in boxes["OpenCV fast"].items()}
    return boxes, seconds


def summarise(pictures: Sequence[Picture], boxes: dict[str, Boxes]) -> dict[str, dict[str, Any]]:
    """Quality of every list at every number of boxes."""
    return {name: evaluate_proposals(pictures, one, LIMITS) for name, one in boxes.items()}


def rows_of(
    pictures: Sequence[Picture], boxes: dict[str, Boxes], seconds: dict[str, list[float]]
) -> list[dict[str, Any]]:
    """Lines of the team's table: name, list, how many of its boxes, which parts it takes."""
    merged = "superpixels x2 + MultiBox, merged"
    lines: list[tuple[str, str, int | None, tuple[str, ...]]] = [
        ("selective search, first 2000", "selective search", 2000, ("search",)),
        ("superpixels x2", "superpixels x2", None, ("search x2",)),
        ("superpixels x2, first 1000", "superpixels x2", 1000, ("search x2",)),
        ("MultiBox, first 50", "MultiBox", 50, ("trunk", "head")),
        ("MultiBox, 200", "MultiBox", None, ("trunk", "head")),
        ("superpixels x2 + MultiBox", merged, None, ("search x2", "trunk", "head", "merge")),
        ("superpixels x2 + MultiBox, first 1000", merged, 1000, ("search x2", "trunk", "head", "merge")),
        ("superpixels x2 + MultiBox, first 500", merged, 500, ("search x2", "trunk", "head", "merge")),
    ]
    lines += [(name, name, None, (name,)) for name in boxes if name in seconds]
    rows = []
    for title, name, limit, parts in lines:
        result = evaluate_proposals(pictures, {i: one[:limit] for i, one in boxes[name].items()}, ())
        total = statistics.median(map(sum, zip(*(seconds[part] for part in parts), strict=True)))
        rows.append({
            "name": title, "boxes": result["boxes_per_image"], "coverage_0.5": result["recall"]["0.5"],
            "coverage_0.7": result["recall"]["0.7"], "mabo": result["mabo"], "cpu_s": total,
        })  # fmt: skip
    return rows


def plot(path: Path, summary: dict[str, dict[str, Any]]) -> None:
    """Draw coverage and average recall against the number of boxes, and coverage by the objects' size below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    styles = {
        "superpixels x2 + MultiBox, merged": ("#c2410c", "-", 2.4),
        "the same, MultiBox last": ("#c2410c", ":", 1.2),
        "MultiBox": ("#1d4ed8", "-", 1.6),
        "selective search": ("#15803d", "-", 1.6),
        "selective search, any size": ("#15803d", ":", 1.2),
        "superpixels x2": ("#15803d", "--", 1.6),
        "OpenCV fast": ("#6b7280", "-", 1.2),
        "OpenCV fast, last first": ("#6b7280", "--", 1.2),
        "EdgeBoxes": ("#7c3aed", "-", 1.2),
    }
    figure, axes = pyplot.subplot_mosaic([[*"aaabbb"], [*"ccddee"]], figsize=(11, 8.2), height_ratios=(5, 4))
    drawn = (
        ("coverage at IoU 0.5", "recall_at", None),
        ("average recall, IoU 0.5 to 0.95", "ar_at", None),
        ("coverage, objects up to 32 x 32 pixels", "recall_at_by_size", "small"),
        ("coverage, up to 96 x 96", "recall_at_by_size", "medium"),
        ("coverage, larger", "recall_at_by_size", "large"),
    )
    for axis, (title, key, size) in zip(axes.values(), drawn, strict=True):
        for name, (colour, line, width) in styles.items():
            if name in summary:
                most = summary[name]["boxes_per_image"]
                shown = [limit for limit in LIMITS if limit <= most * 1.25]
                figures = [summary[name][key][str(limit)] for limit in shown]
                values = [100 * (one if size is None else one[size]) for one in figures]
                axis.plot(shown, values, color=colour, linestyle=line, linewidth=width, label=name)
        axis.set_xscale("log")
        ticks = TICKS if size is None else TICKS[::3]
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel("boxes of a picture")
        axis.set_title(title, fontsize=11)
        axis.set_ylim(0, None if key == "ar_at" else 101)
        axis.yaxis.set_major_formatter("{x:.0f} %")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes["a"].legend(fontsize=8, frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def read_pictures(options: argparse.Namespace) -> list[Picture]:
    """Read the pictures that the options name, evenly spaced if not all are wanted."""
    if options.annotations:
        names = json.loads(options.annotations.read_text()).get("categories", [])
        classes = tuple(category["name"] for category in names)
        pictures = read_coco(options.annotations, options.folder, classes, rename=None)
        if options.classes:
            chosen = [classes.index(name) for name in read_class_list(str(options.classes))]
            others = {picture.image_id: ~np.isin(picture.labels, chosen) for picture in pictures}
            pictures = [replace(one, difficult=one.difficult | others[one.image_id]) for one in pictures]
            pictures = [picture for picture in pictures if not (picture.difficult | picture.crowd).all()]
    else:
        pictures = read_voc(options.folder, options.split)
    if not pictures:
        raise ValueError(f"{options.folder}: no pictures there")
    count = min(options.pictures or len(pictures), len(pictures))
    return [pictures[i * len(pictures) // count] for i in range(count)]


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="in VOC layout, or of the pictures that --annotations are of")
    parser.add_argument("--split", default="test", help="of a folder in VOC layout; default: test")
    parser.add_argument("--annotations", type=Path, help="COCO annotations; all of their classes count as objects")
    parser.add_argument("--classes", type=Path, help="of --annotations, those whose objects count: a file, one a line")
    parser.add_argument("--pictures", type=int, help="so many, evenly spaced; default: all")
    parser.add_argument("--multibox", default="voc", help="a MultiBox by name or file; default: voc")
    parser.add_argument("--model", default="voc", help="the detector on whose trunk it stands; default: voc")
    parser.add_argument("--tiles", type=int, default=0, help="also MultiBox on so many squares tiles a picture")
    parser.add_argument("--edges", type=Path, help="edge model for EdgeBoxes")
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--plot", type=Path, help="draw the curves into this file (needs matplotlib)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    any_size = SelectiveSearch("fast", min_side=0)
    peers: dict[str, Callable[[NDArray[np.uint8]], Any]] = {
        "selective search, any size": lambda image: any_size(image)[0]
    }
    if hasattr(cv2, "ximgproc"):
        peers["OpenCV fast"] = opencv
    else:
        print("OpenCV's selective search is left out: install opencv-contrib-python-headless in place of the plain one")
    try:
        if options.edges:
            if not options.edges.is_file() or not hasattr(cv2, "ximgproc"):
                raise ValueError(f"--edges {options.edges}: EdgeBoxes needs that file and OpenCV's contrib build")
            peers["EdgeBoxes"] = edge_boxes(options.edges)
        else:
            print("EdgeBoxes is left out: --edges names the model that it needs")
        pictures = read_pictures(options)
        multibox = MultiBox.load(options.multibox, detector=options.model, device="cpu", threads=1)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if options.tiles:
        wider = replace(multibox, tiles=options.tiles)
        peers["MultiBox, squares too"] = lambda image: wider(image)[0]
    objects = sum(int((~(picture.difficult | picture.crowd)).sum()) for picture in pictures)
    print(f"{len(pictures)} pictures, {objects} objects\n")
    boxes, seconds = measure(pictures, multibox, peers)
    rows = rows_of(pictures, boxes, seconds)
    summary = summarise(pictures, boxes)
    percent = "{:.1f}".format
    show(
        "What the boxes cover",
        ["proposals", "boxes", "coverage at 0.5, %", "at 0.7, %", "MABO", "CPU s"],
        [
            [row["name"], f"{row['boxes']:.0f}", percent(100 * row["coverage_0.5"]), percent(100 * row["coverage_0.7"]),
             f"{row['mabo']:.3f}", f"{row['cpu_s']:.3f}"]
            for row in rows
        ],
        options.markdown,
    )  # fmt: skip
    limits = (10, 50, 100, 200, 500, 1000, 2000)
    for key, title in (("recall_at", "Coverage at IoU 0.5"), ("ar_at", "Average recall, IoU 0.5 to 0.95")):
        show(
            f"{title}, %, of the first so many boxes",
            ["ranking", *map(str, limits)],
            [[name, *(percent(100 * one[key][str(limit)]) for limit in limits)] for name, one in summary.items()],
            options.markdown,
        )
    sizes = ("small", "medium", "large")
    show(
        "Coverage at IoU 0.5, %, by the size of objects (small: up to 32 x 32 pixels, medium: 96 x 96), of the first",
        ["ranking", *(f"{limit}, {size}" for limit in (100, 1000) for size in sizes)],
        [
            [
                name,
                *(percent(100 * one["recall_at_by_size"][str(limit)][size]) for limit in (100, 1000) for size in sizes),
            ]
            for name, one in summary.items()
        ],
        options.markdown,
    )
    show(
        "Where the time goes, CPU s of a picture",
        ["part", "CPU s"],
        [[part, f"{statistics.median(spent):.3f}"] for part, spent in seconds.items()],
        options.markdown,
    )
    if options.json:
        document = {"pictures": len(pictures), "objects": objects, "rows": rows, "lists": summary}
        document["cpu_s"] = {part: statistics.median(spent) for part, spent in seconds.items()}
        atomic_write(options.json, json.dumps(document, indent=1))
    if options.plot:
        plot(options.plot, summary)


if __name__ == "__main__":
    main()
