"""Our selective search beside OpenCV's, dlib's and the original's: time, number of boxes, objects covered.

One process, one thread, CPU seconds. Every picture goes through all methods before the next one, so that a
noisy machine hits all alike; the first picture once more beforehand, to compile kernels. In a separate
environment, with opencv-contrib-python-headless in place of opencv-python-headless; dlib (or dlib-bin) and
scikit-image take part if they are there.

    python benchmarks/selective_search.py VOCdevkit/VOC2007 --split test [--pictures 50] [--skip quality]

Peers get the picture already 500 pixels wide, in the channel order they expect; neither that nor scaling
their boxes back is counted. Ours gets it as it is in the file, and its scaling is counted. Ours leaves out boxes
under 20 pixels; OpenCV and dlib return boxes of any size, and they are taken as returned.

"OpenCV paper grid" is what ours, fast, does (HSV and Lab, k = 50 and 100, two similarities, 8 hierarchies) put
together from OpenCV's parts. What OpenCV calls single, fast and quality is 1, 12 and 100 hierarchies with k from
150 upwards (single: 200); ours is 1, 8 and 80 with k from 50 (single: 100), as in the paper.

--reference takes the original MATLAB code's boxes, as in Fast R-CNN's demo: NAME.jpg and NAME_boxes.mat, a
variable `boxes` with x1 y1 x2 y2, 0-based, ends inclusive. Recall is the share of them that a method has a box
for, precision the share of the method's boxes that they have a box for.
"""

import argparse
import ctypes
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Before numpy and numba are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from scipy.io import loadmat
from tables import show

from inception_rcnn.data import Picture, atomic_write, box_iou, read_image, read_voc
from inception_rcnn.eval import evaluate_proposals
from inception_rcnn.proposals import selective_search
from inception_rcnn.proposals.search.segmentation import pixel_graph, segment
from inception_rcnn.proposals.search.selective_search import _scale

try:
    import dlib
except ImportError:
    dlib = None
try:
    import skimage
    from skimage.segmentation import felzenszwalb
except ImportError:
    skimage = None

LIMITS = (100, 500, 1000, 2000)
PAIRS = (  # at equal counts
    ("ours, single", "OpenCV single"),
    ("ours, fast", "OpenCV fast"),
    ("ours, fast", "OpenCV paper grid"),
    ("ours, quality", "OpenCV quality"),
)


class View(NamedTuple):
    """One picture in the forms that the methods take: RGB as in the file, RGB and BGR at 500 pixels width."""

    rgb: NDArray[np.uint8]
    scaled: NDArray[np.uint8]
    bgr: NDArray[np.uint8]


class Method(NamedTuple):
    """What is timed; how its result becomes boxes, where it has any; which of ours it is compared with."""

    run: Callable[[View], Any]
    boxes: Callable[[Any, View], NDArray[np.float32]] | None
    ours: str | None = None
    ranked: bool = True


def look(path: Path) -> View:
    """Read a picture."""
    rgb = read_image(path)
    scaled = _scale(rgb)
    return View(rgb, scaled, np.ascontiguousarray(scaled[..., ::-1]))


def scale_back(corners: NDArray[Any], view: View) -> NDArray[np.float32]:
    """Boxes of the picture at 500 pixels width as boxes of the picture in the file."""
    (height, width), (scaled_height, scaled_width) = view.rgb.shape[:2], view.scaled.shape[:2]
    stretched = corners.reshape(-1, 4) * np.array([width / scaled_width, height / scaled_height] * 2)
    return np.minimum(stretched, [width, height] * 2).astype(np.float32)


def opencv(view: View, switch: str) -> NDArray[np.int32]:
    """OpenCV's selective search in one of its own modes."""
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(view.bgr)
    getattr(search, switch)()
    return process(search)


def opencv_grid(view: View) -> NDArray[np.int32]:
    """OpenCV's selective search with the paper's fast grid; `process` looks at the added pictures only."""
    parts = cv2.ximgproc.segmentation
    search = parts.createSelectiveSearchSegmentation()
    for code in (cv2.COLOR_BGR2HSV, cv2.COLOR_BGR2Lab):
        search.addImage(cv2.cvtColor(view.bgr, code))
    for k in (50, 100):
        search.addGraphSegmentation(parts.createGraphSegmentation(0.8, k, k))
    # Both sums share their parts, as in OpenCV's own fast: the second takes the first's texture from a cache.
    # A part remembers the number of the last graph it saw, so a picture needs new ones.
    colour = parts.createSelectiveSearchSegmentationStrategyColor()
    texture = parts.createSelectiveSearchSegmentationStrategyTexture()
    size = parts.createSelectiveSearchSegmentationStrategySize()
    fill = parts.createSelectiveSearchSegmentationStrategyFill()
    search.addStrategy(parts.createSelectiveSearchSegmentationStrategyMultiple(colour, texture, size, fill))
    search.addStrategy(parts.createSelectiveSearchSegmentationStrategyMultiple(texture, size, fill))
    return process(search)


def process(search: Any) -> NDArray[np.int32]:
    """Run OpenCV's search; its ranking draws from C's rand(), which cv2.setRNGSeed does not reach."""
    ctypes.CDLL(None).srand(0)
    return search.process()


def from_opencv(rects: NDArray[np.int32], view: View) -> NDArray[np.float32]:
    """Boxes from x, y, width, height."""
    return scale_back(np.concatenate([rects[:, :2], rects[:, :2] + rects[:, 2:]], axis=1), view)


def run_dlib(view: View) -> list[Any]:
    """Candidate boxes of dlib, which have no order."""
    rectangles: list[Any] = []
    dlib.find_candidate_object_locations(view.scaled, rectangles)
    return rectangles


def from_dlib(rectangles: list[Any], view: View) -> NDArray[np.float32]:
    """Boxes from rectangles whose ends are inclusive."""
    return scale_back(np.array([(r.left(), r.top(), r.right() + 1, r.bottom() + 1) for r in rectangles]), view)


def ours(**settings: Any) -> Method:
    """Our selective search with these settings."""
    return Method(lambda view: selective_search(view.rgb, **settings), lambda result, view: result[0])


def all_methods() -> dict[str, Method]:
    """Everything that can be measured here, by the name that the tables show."""
    peers = {
        name: Method(lambda view, switch=switch: opencv(view, switch), from_opencv, beside)
        for name, switch, beside in (
            ("OpenCV single", "switchToSingleStrategy", "ours, single"),
            ("OpenCV fast", "switchToSelectiveSearchFast", "ours, fast"),
            ("OpenCV quality", "switchToSelectiveSearchQuality", "ours, quality"),
        )
    }
    methods = {
        "ours, single": ours(mode="single"),
        "OpenCV single": peers["OpenCV single"],
        "ours, fast, superpixel_scale=2": ours(mode="fast", superpixel_scale=2),
        "ours, fast": ours(mode="fast"),
        "OpenCV paper grid": Method(opencv_grid, from_opencv, "ours, fast"),
        "OpenCV fast": peers["OpenCV fast"],
    }
    if dlib:
        methods["dlib"] = Method(run_dlib, from_dlib, "ours, fast", ranked=False)
    methods["ours, quality"] = ours(mode="quality")
    methods["OpenCV quality"] = peers["OpenCV quality"]
    graph = cv2.ximgproc.segmentation.createGraphSegmentation(0.8, 100, 100)
    methods["ours, segmentation"] = Method(lambda view: segment(pixel_graph(view.scaled), 100, 100), None)
    methods["OpenCV segmentation"] = Method(lambda view: graph.processImage(view.bgr), None, "ours, segmentation")
    if skimage:
        methods["scikit-image felzenszwalb"] = Method(
            lambda view: felzenszwalb(view.scaled, scale=100, sigma=0.8, min_size=100), None, "ours, segmentation"
        )
    return methods


class Measured(NamedTuple):
    """By method: CPU seconds in the order of the pictures, and boxes by picture."""

    seconds: dict[str, list[float]]
    boxes: dict[str, dict[str, NDArray[np.float32]]]


def measure(pictures: Sequence[Picture], methods: Mapping[str, Method]) -> Measured:
    """Run all methods on all pictures."""
    measured = Measured({name: [] for name in methods}, {name: {} for name, method in methods.items() if method.boxes})
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Refreshed by hand: a thread that draws would be counted.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:
        bar = progress.add_task("", total=len(pictures))
        for turn, picture in enumerate([pictures[0], *pictures]):
            view = look(picture.path)
            for name, method in methods.items():
                start = time.process_time()
                result = method.run(view)
                seconds = time.process_time() - start
                if turn:
                    measured.seconds[name].append(seconds)
                    if method.boxes:
                        measured.boxes[name][picture.image_id] = method.boxes(result, view)
            progress.update(bar, completed=turn, refresh=True)
    return measured


def summarise(pictures: Sequence[Picture], methods: Mapping[str, Method], measured: Measured) -> dict[str, Any]:
    """All numbers about every method."""
    summary: dict[str, Any] = {}
    for name, method in methods.items():
        seconds = measured.seconds[name]
        one: dict[str, Any] = {"cpu_s": statistics.median(seconds), "beside": method.ours, "ratio": None}
        if method.ours in methods:
            pairs = zip(seconds, measured.seconds[method.ours], strict=True)
            one["ratio"] = statistics.median(peer / own for peer, own in pairs)
        if method.boxes:
            one |= evaluate_proposals(pictures, measured.boxes[name], LIMITS if method.ranked else ())
            one["boxes_of_picture"] = [len(measured.boxes[name][picture.image_id]) for picture in pictures]
        summary[name] = one | {"cpu_s_of_picture": seconds}
    return summary


def equal_counts(pictures: Sequence[Picture], measured: Measured) -> list[dict[str, Any]]:
    """Both of a pair cut, on every picture, to as many boxes as the shorter list has."""
    rows = []
    for own, peer in PAIRS:
        if own not in measured.boxes or peer not in measured.boxes:
            continue
        cut: dict[str, dict[str, NDArray[np.float32]]] = {"ours": {}, "peer": {}, "peer_turned": {}}
        for image_id, boxes in measured.boxes[own].items():
            others = measured.boxes[peer][image_id]
            count = min(len(boxes), len(others))
            cut["ours"][image_id] = boxes[:count]
            cut["peer"][image_id] = others[:count]
            cut["peer_turned"][image_id] = others[::-1][:count]
        row: dict[str, Any] = {"pair": [own, peer]}
        for name, proposals in cut.items():
            result = evaluate_proposals(pictures, proposals, ())
            row["boxes"] = result["boxes_per_image"]
            row[name] = {"recall": result["recall"]["0.5"], "mabo": result["mabo"]}
        rows.append(row)
    return rows


def compare_with_reference(folder: Path) -> list[dict[str, Any]]:
    """How far the original's boxes and those of ours and OpenCV's are the same."""
    files = sorted(folder.glob("*_boxes.mat"))
    if not files:
        raise FileNotFoundError(f"{folder}: has no file NAME_boxes.mat")
    # The reference has boxes of any size, so ours is asked for them too.
    methods = {
        "ours, fast": ours(mode="fast"),
        "ours, fast, any size": ours(mode="fast", min_side=0),
        "OpenCV paper grid": Method(opencv_grid, from_opencv),
        "OpenCV fast": Method(lambda view: opencv(view, "switchToSelectiveSearchFast"), from_opencv),
    }
    rows = []
    for file in files:
        name = file.name.removesuffix("_boxes.mat")
        view = look(folder / f"{name}.jpg")
        content = loadmat(file)
        if "boxes" not in content:
            raise ValueError(f"{file}: has no variable `boxes`")
        reference = content["boxes"].astype(np.float32) + np.array([0, 0, 1, 1], np.float32)
        for method_name, method in methods.items():
            boxes = method.boxes(method.run(view), view)
            overlaps = box_iou(reference, boxes)
            row = {"picture": name, "method": method_name, "reference_boxes": len(reference), "boxes": len(boxes)}
            for threshold in (0.7, 0.9):
                row[f"recall_{threshold}"] = float((overlaps.max(axis=1) >= threshold).mean())
                row[f"precision_{threshold}"] = float((overlaps.max(axis=0) >= threshold).mean())
            rows.append(row)
    return rows


def show_summary(summary: Mapping[str, Any], markdown: bool) -> None:
    """Print what was measured of every method."""

    def speed(name: str) -> list[str]:
        ratio = summary[name]["ratio"]
        return [name, f"{summary[name]['cpu_s']:.3f}", "" if ratio is None else f"{ratio:.1f}"]

    searches = {name: one for name, one in summary.items() if "recall" in one}
    show(
        "Time and boxes of a picture; what all boxes cover (recall at IoU 0.5)",
        ["method", "CPU s", "/ ours", "boxes", "recall %", "MABO"],
        [
            [*speed(name), f"{one['boxes_per_image']:.0f}", percent(one["recall"]["0.5"]), f"{one['mabo']:.3f}"]
            for name, one in searches.items()
        ],
        markdown,
    )
    ranked = {name: one for name, one in searches.items() if one["recall_at"]}
    show(
        "Recall at IoU 0.5, %, of the first so many boxes",
        ["method", *map(str, LIMITS)],
        [[name, *map(percent, one["recall_at"].values())] for name, one in ranked.items()],
        markdown,
    )
    show(
        "MABO of the first so many boxes",
        ["method", *map(str, LIMITS)],
        [[name, *(f"{mabo:.3f}" for mabo in one["mabo_at"].values())] for name, one in ranked.items()],
        markdown,
    )
    show(
        "Segmentation alone: one graph, k = 100",
        ["method", "CPU s", "/ ours"],
        [speed(name) for name in summary if name not in searches],
        markdown,
    )


def show_equal_counts(rows: Sequence[Mapping[str, Any]], markdown: bool) -> None:
    """Print the comparison at equal counts."""
    show(
        "At equal counts: pair by pair, the first boxes, as many as the shorter list of the picture has",
        ["method", "boxes", "recall %", "MABO"],
        [
            [name, f"{row['boxes']:.0f}", percent(row[part]["recall"]), f"{row[part]['mabo']:.3f}"]
            for row in rows
            for own, peer in [row["pair"]]
            for name, part in ((own, "ours"), (peer, "peer"), (f"{peer}, last boxes first", "peer_turned"))
        ],
        markdown,
    )


def show_reference(rows: Sequence[Mapping[str, Any]], markdown: bool) -> None:
    """Print the comparison with the original's boxes, a table for each picture."""
    shares = [f"{kind}_{t}" for kind in ("recall", "precision") for t in (0.7, 0.9)]
    for picture in dict.fromkeys(row["picture"] for row in rows):
        own = [row for row in rows if row["picture"] == picture]
        count = own[0]["reference_boxes"]
        show(
            f"{picture}: recall and precision, %, at IoU 0.7 and 0.9; the original has {count} boxes",
            ["method", "boxes", "recall 0.7", "recall 0.9", "precision 0.7", "precision 0.9"],
            [[row["method"], str(row["boxes"]), *(percent(row[share]) for share in shares)] for row in own],
            markdown,
        )


def percent(share: float) -> str:
    """Write a share as a percentage."""
    return f"{100 * share:.1f}"


def compare(options: argparse.Namespace, methods: Mapping[str, Method]) -> None:
    """Measure what the options ask for, print it and write it."""
    versions = {"OpenCV": cv2.__version__}
    versions |= {"dlib": dlib.__version__} if dlib else {}
    versions |= {"scikit-image": skimage.__version__} if skimage else {}
    document: dict[str, Any] = {"versions": versions}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    for name, module, package in (("dlib", dlib, "dlib or dlib-bin"), ("scikit-image", skimage, "scikit-image")):
        if module is None:
            print(f"{name} is not installed and left out (pip install {package})")
    print()
    if options.devkit:
        pictures = read_voc(options.devkit, options.split)
        count = min(options.pictures or len(pictures), len(pictures))
        if not count:
            raise ValueError(f"{options.devkit}: split {options.split} has no pictures")
        pictures = [pictures[i * len(pictures) // count] for i in range(count)]
        objects = sum(int((~picture.difficult).sum()) for picture in pictures)
        print(f"{len(pictures)} pictures, {objects} objects\n")
        measured = measure(pictures, methods)
        document["pictures"] = [picture.image_id for picture in pictures]
        document["objects"] = objects
        document["methods"] = summarise(pictures, methods, measured)
        document["equal_counts"] = equal_counts(pictures, measured)
        print("/ ours: median over the pictures of a peer's CPU seconds through those of ours of the same kind\n")
        show_summary(document["methods"], options.markdown)
        show_equal_counts(document["equal_counts"], options.markdown)
    if options.reference:
        document["reference"] = compare_with_reference(options.reference)
        show_reference(document["reference"], options.markdown)
    if options.json:
        atomic_write(options.json, json.dumps(document, indent=1))


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devkit", nargs="?", type=Path, help="folder in VOC layout, such as VOCdevkit/VOC2007")
    parser.add_argument("--split", default="test", help="default: test")
    parser.add_argument("--pictures", type=int, help="so many, evenly spaced over the split; default: all")
    parser.add_argument("--skip", action="append", default=[], help="leave out methods with this in their name")
    parser.add_argument("--reference", type=Path, help="folder with pictures and the original's boxes")
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args()
    if not hasattr(cv2, "ximgproc"):
        print(
            "OpenCV has no ximgproc here; in a separate environment, install opencv-contrib-python-headless in place "
            "of opencv-python-headless",
            file=sys.stderr,
        )
        sys.exit(2)
    if not options.devkit and not options.reference:
        parser.error("name a folder in VOC layout, or --reference, or both")
    if options.pictures is not None and options.pictures < 1:
        parser.error(f"--pictures must be at least 1, not {options.pictures}")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"{options.json}: there is no such folder")
    cv2.setNumThreads(1)
    cv2.setUseOptimized(True)
    methods = all_methods()
    for part in options.skip:
        if not any(part in name for name in methods):
            parser.error(f"--skip {part}: is in none of the names: {'; '.join(methods)}")
    methods = {name: method for name, method in methods.items() if not any(part in name for part in options.skip)}
    try:
        compare(options, methods)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
