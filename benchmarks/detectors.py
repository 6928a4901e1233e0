"""Detectors that somebody could use instead of ours, on the same pictures by the same rules: mAP and CPU seconds.

One process, one thread, picture by picture in turn; median CPU seconds of a picture, reading excluded, all else
included. Detections are scored from 0.01 up and suppressed as each detector's own evaluation does it. VOC's rules,
IoU 0.5.

    python benchmarks/detectors.py VOCdevkit/VOC2007 FILES --split test [--pictures 100] [--plot detectors.png]
        [--only NAME]... [--save FOLDER]
    python benchmarks/detectors.py PICTURES FILES --annotations instances.json ...

FILES is a folder with the files that `MODELS` of detector_ports.py lists. What is missing is told and left out. --save
writes the detections of each, NAME.parquet, for `inception-rcnn compare`. --annotations is a file of COCO: its 80
classes are found then, in the pictures of a folder, and measured by COCO's rules.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

# Before numpy and numba are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"

import cv2
from detector_ports import MIN_SCORE, MODELS, Pixels, load
from models import evenly_spaced
from tables import show

from inception_rcnn import backbone, proposals
from inception_rcnn.data import (
    COCO_CLASSES,
    VOC_CLASSES,
    Detections,
    Picture,
    read_coco,
    read_image,
    read_voc,
    write_detections,
)
from inception_rcnn.detect import Detector
from inception_rcnn.eval import evaluate_coco, evaluate_voc
from inception_rcnn.eval.precision import Metric

Detect: TypeAlias = Callable[[Pixels], Detections]
# The bundled model of each, and its settings.
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "ours, voc": ("voc", {}),
    "ours, voc, int8": ("voc", {"precision": "int8"}),
    "ours, coco": ("coco", {}),
    "ours, coco, int8": ("coco", {"precision": "int8"}),
}


def measure(
    pictures: Sequence[Picture], detectors: dict[str, Detect]
) -> tuple[dict[str, dict[str, Detections]], dict[str, float]]:
    """Return the detections of every picture and the median CPU seconds of one, by detector."""
    found: dict[str, dict[str, Detections]] = {name: {} for name in detectors}
    seconds: dict[str, list[float]] = {name: [] for name in detectors}
    for detect in detectors.values():  # kernels are compiled, buffers made
        detect(read_image(pictures[0].path))
    for done, picture in enumerate(pictures, 1):
        image = read_image(picture.path)
        for name, detect in detectors.items():
            start = time.process_time()
            found[name][picture.image_id] = detect(image)
            seconds[name].append(time.process_time() - start)
        print(f"\r{done} of {len(pictures)} pictures", end="\n" if done == len(pictures) else "", file=sys.stderr)
    return found, {name: statistics.median(own) for name, own in seconds.items()}


def plot(path: Path, points: dict[str, tuple[float, float]], measure: str) -> None:
    """Draw a measure against CPU seconds; a name goes to the first side of its point where it covers nothing."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker, transforms

    figure, axis = pyplot.subplots(figsize=(9, 5.2))
    axis.set_xscale("log")
    for name, point in points.items():
        axis.plot(*point, "o", color="#c2410c" if name in OURS else "#1d4ed8")
    axis.margins(0.16, 0.1)
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.set_xlabel("CPU seconds of a picture, one thread")
    axis.set_ylabel(f"{measure}, %")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    pixels = axis.transData.transform(list(points.values()))
    taken = [transforms.Bbox([point - 5, point + 5]) for point in pixels]
    for name, point in points.items():
        for x, y, side in ((7, 0, "left"), (-7, 0, "right"), (0, 9, "center"), (0, -9, "center"), (7, 9, "left")):
            text = axis.annotate(name, point, (x, y), textcoords="offset points", ha=side, va="center", fontsize=8.5)
            box = text.get_window_extent(figure.canvas.get_renderer())
            if not box.count_overlaps(taken):
                break
            text.remove()
        else:
            axis.add_artist(text)
        taken.append(box)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="in VOC layout; with --annotations the pictures")
    parser.add_argument("files", type=Path, help="folder with the models' files")
    parser.add_argument("--split", default="test", help="default: test")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="of COCO: measure its 80 classes")
    parser.add_argument("--pictures", type=int, help="so many, evenly spaced; default: all")
    parser.add_argument("--only", action="append", metavar="NAME", help="this detector; repeat for more; default: all")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write the detections of each")
    parser.add_argument("--plot", type=Path, help="draw mAP against CPU seconds into this file")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    coco = options.annotations is not None
    classes = COCO_CLASSES if coco else VOC_CLASSES
    ours = {name: own for name, own in OURS.items() if own[0] == ("coco" if coco else "voc")}
    known = [*ours, *(model.name for model in MODELS)]
    wanted = options.only or known
    if unknown := set(wanted) - set(known):
        parser.error(f"--only {unknown.pop()}: the detectors are {', '.join(known)}")
    detectors: dict[str, Detect] = {}
    for model in MODELS:
        if model.name not in wanted:
            continue
        try:
            detectors[model.name] = load(model, options.files, classes)
        except (OSError, ValueError, ImportError, AttributeError) as error:
            print(f"{model.name} is left out: {error}", file=sys.stderr)
    try:
        annotated = (
            read_coco(options.annotations, options.folder, classes, None)
            if coco
            else read_voc(options.folder, options.split)
        )
        pictures = evenly_spaced(annotated, options.pictures)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    for name, (bundled, settings) in ours.items():
        if name in wanted:
            try:
                detectors[name] = Detector.load(bundled, device="cpu", threads=1, min_score=MIN_SCORE, **settings)
            except (ValueError, OSError) as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
    if not detectors:
        sys.exit(2)
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
    found, seconds = measure(pictures, detectors)
    about: dict[str, tuple[str, str, int]] = {}
    for name, (bundled, _) in ours.items():
        if name in detectors:
            file = f"{bundled}.safetensors"
            own_files = [Path(room.__file__).with_name("models") / file for room in (backbone, proposals)]
            about[name] = "VOC, COCO, others", "640", sum(path.stat().st_size for path in own_files)
    for model in MODELS:
        if model.name in detectors:
            total = sum((options.files / Path(name).name).stat().st_size for name in model.files)
            about[model.name] = model.trained_on, str(model.size), total
    rows, points = [], {}
    for name in sorted(detectors, key=lambda name: seconds[name]):
        if coco:
            result = evaluate_coco(pictures, found[name], classes=classes)
            figures = {"AP at IoU 0.5": result["AP50"], "COCO's AP": result["AP"]}
        else:
            metrics: dict[str, Metric] = {"mAP, 11 points": "voc07", "mAP, area": "voc12"}
            figures = {
                key: evaluate_voc(pictures, found[name], classes, metric)["mAP"] for key, metric in metrics.items()
            }
        points[name] = seconds[name], 100 * next(iter(figures.values()))
        trained_on, size, total = about[name]
        if options.save:
            entries = ((f"{p.image_id}.jpg", p.width, p.height, found[name][p.image_id]) for p in pictures)
            write_detections(options.save / f"{name}.parquet", entries, classes)
        measured = [f"{100 * figure:.1f}" for figure in figures.values()]
        rows.append([name, trained_on, size, *measured, f"{seconds[name]:.3f}", f"{total / 1e6:.1f}"])
    columns = ["detector", "trained on", "input", *figures, "CPU s", "MB"]
    show(f"{len(pictures)} pictures", columns, rows, markdown=True)
    if options.plot:
        plot(options.plot, points, next(iter(figures)))


if __name__ == "__main__":
    main()
