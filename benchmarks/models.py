"""What each part of the detector is worth: second look, 8 bits, box regression, fine-tuning, proposals, an ensemble.

Every row is measured against the same system without the part, on the same pictures, by VOC's rules (11-point mAP,
IoU 0.5). Each picture is proposed for and scored once by every model; the rows differ in what they make of it.

    python benchmarks/models.py VOCdevkit/VOC2007 --split test [--models voc voc-2 voc-crops]
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

# Before numpy and numba are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"

import cv2
from tables import show

from inception_rcnn.backbone.regions.features import PictureFeatures
from inception_rcnn.backbone.regions.placement import Placement
from inception_rcnn.backbone.regions.scorer import RegionScorer
from inception_rcnn.data import Detections, Picture, atomic_write, read_image, read_voc
from inception_rcnn.data.system.processes import ProcessDied, map_processes, usable_cores
from inception_rcnn.detect import Detector
from inception_rcnn.detect.cli.terminal import progress_bar
from inception_rcnn.detect.postprocessing import average_scores, suppress
from inception_rcnn.detect.settings import DetectorSettings
from inception_rcnn.eval import compare_detectors, evaluate_voc
from inception_rcnn.proposals import SelectiveSearch

MIN_SCORE = 0.01
SEARCHED = "selective search"
SECOND_LOOK = "with a second look"
IN_8_BITS = "in 8 bits"
IN_8_BITS_TWICE = "in 8 bits, with a second look"
# Regions that are looked at again.
AGAIN = DetectorSettings.second_look


class Rows:
    """Detections of a picture by every variant; made anew in each process.

    Parameters
    ----------
    models : sequence of str
        The first is the one that parts are taken away from.
    without_fine_tuning : str or None
        A model of which only the scores were trained.
    proposals : int
    multibox : str
    """

    def __init__(self, models: Sequence[str], without_fine_tuning: str | None, proposals: int, multibox: str) -> None:
        self.models, self.plain, self.proposals, self.multibox = list(models), without_fine_tuning, proposals, multibox
        self.names = [*self.models, *([self.plain] if self.plain else [])]
        self.detector: Detector | None = None
        self.in_8_bits: RegionScorer | None = None

    def load(self) -> Detector:
        """Load all models as one detector, for its parts."""
        return Detector.load(
            *self.names, device="cpu", threads=1, precision="float32", proposals=self.proposals, multibox=self.multibox
        )

    def __call__(self, picture: Picture) -> tuple[dict[str, Detections], dict[str, float]]:
        """Find the objects of a picture: detections and CPU seconds by variant."""
        if self.detector is None:
            cv2.setNumThreads(1)
            self.detector = self.load()
            if self.detector.scorers[0].model.has_int8:
                self.in_8_bits = RegionScorer(self.detector.scorers[0].model, Placement(precision="int8", threads=1))
        scorers = dict(zip(self.names, self.detector.scorers, strict=True))
        classes, size = self.detector.classes, (picture.width, picture.height)
        features = PictureFeatures(read_image(picture.path))
        seconds = {}
        for name, scorer in scorers.items():
            start = time.process_time()
            if scorer.model.scoring == "shared":  # Of models on one trunk the first looks for all.
                features.of(scorer.trunk, scorer.model.long_side)
            seconds[name] = time.process_time() - start
        start = time.process_time()
        merged, objectness = self.detector.select_regions(features)
        seconds["proposals"] = time.process_time() - start
        found: dict[str, Detections] = {}
        scores: dict[str, tuple[Any, Any]] = {}

        def keep(
            name: str, members: Sequence[str], *, use_deltas: bool = True, weigh: bool = True, nms: str = "soft"
        ) -> None:
            regressing = [use_deltas and scorers[member].model.box_regression for member in members]
            averaged = average_scores([scores[member] for member in members], regressing)
            settings = DetectorSettings(min_score=MIN_SCORE, nms=nms)
            found[name] = suppress(merged, *averaged, size, classes, settings, objectness if weigh else None)

        for name, scorer in scorers.items():
            start = time.process_time()
            scores[name] = scorer.score(features, merged)
            seconds[name] += time.process_time() - start
            keep(name, [name])
        first = self.models[0]
        looks = [(SECOND_LOOK, scorers[first], AGAIN)]
        if self.in_8_bits is not None:
            looks += [(IN_8_BITS, self.in_8_bits, 0), (IN_8_BITS_TWICE, self.in_8_bits, AGAIN)]
        for name, scorer, again in looks:
            settings = DetectorSettings(min_score=MIN_SCORE, second_look=again, calibrated=False)
            start, own = time.process_time(), PictureFeatures(features.image)
            found[name] = Detector([scorer], self.detector.proposer, settings).score(own, merged, objectness)
            seconds[name] = time.process_time() - start
        keep("without box regression", [first], use_deltas=False)
        keep("without objectness", [first], weigh=False)
        keep("greedy NMS", [first], nms="greedy")
        keep("without objectness, greedy NMS", [first], weigh=False, nms="greedy")
        for count in range(2, len(self.models) + 1):
            keep(" + ".join(self.models[:count]), self.models[:count])
        boxes = SelectiveSearch("fast", limit=self.proposals)(features.image)[0]
        probabilities, deltas = scorers[first].score(features, boxes)
        regressed = deltas if scorers[first].model.box_regression else None
        found[SEARCHED] = suppress(
            boxes, probabilities, regressed, size, classes, DetectorSettings(min_score=MIN_SCORE)
        )
        return found, seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return Rows, (self.models, self.plain, self.proposals, self.multibox)


def table(
    options: argparse.Namespace,
    maps: Mapping[str, float],
    compare: Callable[[str, str], Mapping[str, Any]],
) -> list[list[str]]:
    """Lines of the table: part, with it, without it, difference, its interval of 95 % and p-value."""
    first = options.models[0]
    pairs = [
        (f"second look at {AGAIN} regions", SECOND_LOOK, first),
        ("8 bits instead of float32", IN_8_BITS, first),
        ("8 bits, with a second look", IN_8_BITS_TWICE, SECOND_LOOK),
        ("box regression", first, "without box regression"),
        ("merged proposals, with their objectness", first, SEARCHED),
        ("objectness", first, "without objectness"),
        ("soft-NMS", first, "greedy NMS"),
    ]
    if options.without_fine_tuning:
        pairs.append(("fine-tuning", first, options.without_fine_tuning))
    lines = [
        (part, maps[with_it], maps[without], compare(without, with_it))
        for part, with_it, without in pairs
        if with_it in maps
    ]
    for count in range(2, len(options.models) + 1):
        members = options.models[:count]
        mean = statistics.mean(maps[name] for name in members)
        lines.append((f"ensemble of {count}, against its members' mean", maps[" + ".join(members)], mean, {}))
    return [
        [
            part, f"{100 * with_it:.2f}", f"{100 * without:.2f}", f"{100 * (with_it - without):+.2f}",
            "{:+.2f} to {:+.2f}".format(*(100 * end for end in found["interval"])) if found else "",
            f"{found['p_value']:.3f}" if found else "",
        ]
        for part, with_it, without, found in lines
    ]  # fmt: skip


def evenly_spaced(pictures: Sequence[Picture], count: int | None) -> list[Picture]:
    """Take so many pictures, or all."""
    count = min(count or len(pictures), len(pictures))
    return [pictures[i * len(pictures) // count] for i in range(count)]


Found: TypeAlias = dict[str, dict[str, Detections]]


def run_on(
    pictures: Sequence[Picture],
    work: Callable[[Picture], tuple[dict[str, Detections], dict[str, float]]],
    workers: int,
) -> tuple[Found, dict[str, list[float]]]:
    """Have processes find the objects of all pictures: detections and CPU seconds by variant."""
    found: Found = {}
    seconds: dict[str, list[float]] = {}
    with progress_bar("pictures", len(pictures)) as report:
        for done, (picture, result) in enumerate(map_processes(work, pictures, workers)):
            if isinstance(result, ProcessDied):
                raise result
            detections, spent = result
            for name, one in detections.items():
                found.setdefault(name, {})[picture.image_id] = one
            for name, value in spent.items():
                seconds.setdefault(name, []).append(value)
            report(done + 1)
    return found, seconds


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="in VOC layout")
    parser.add_argument("--split", default="test", help="default: test")
    parser.add_argument("--models", nargs="+", default=["voc"], help="by name or file; several also as an ensemble")
    parser.add_argument("--without-fine-tuning", help="a model trained with --freeze googlenet")
    parser.add_argument(
        "--proposals", type=int, default=DetectorSettings.proposals, help=f"default: {DetectorSettings.proposals}"
    )
    parser.add_argument("--multibox", default="voc", help="by name or file; default: voc")
    parser.add_argument("--pictures", type=int, help="so many, evenly spaced; default: all")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes; default: one a core")
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args()
    rows = Rows(options.models, options.without_fine_tuning, options.proposals, options.multibox)
    try:
        pictures = read_voc(options.folder, options.split)
        # Says before the work what cannot be loaded.
        if len(set(rows.names)) < len(rows.names):
            raise ValueError("a model is named twice; name each once")
        classes = rows.load().classes
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    pictures = evenly_spaced(pictures, options.pictures)
    found, seconds = run_on(pictures, rows, options.workers)
    results = {name: evaluate_voc(pictures, one, classes, metric="voc07") for name, one in found.items()}
    maps = {name: result["mAP"] for name, result in results.items()}

    def compare(without: str, with_it: str) -> Mapping[str, Any]:
        result = compare_detectors(pictures, found[without], found[with_it], classes, metric="voc07")
        difference: Mapping[str, Any] = result["difference"]["mAP"]
        return difference

    print(f"{len(pictures)} pictures, {options.proposals} regions each\n")
    title = "11-point mAP at IoU 0.5, %"
    show(
        f"{title}, of each part",
        ["part", "with", "without", "difference", "95 % interval", "p"],
        table(options, maps, compare),
        options.markdown,
    )
    cpu = {name: f"{statistics.median(values):.2f}" for name, values in seconds.items()}
    show(
        f"{title}, and CPU s of a picture (proposals {cpu['proposals']})",
        ["system", "mAP", "network, CPU s"],
        [[name, f"{100 * value:.2f}", cpu.get(name, "")] for name, value in maps.items()],
        options.markdown,
    )
    show(
        "AP by class, %",
        ["class", *options.models],
        [[name, *(f"{100 * results[model]['per_class'][name]:.1f}" for model in options.models)] for name in classes],
        options.markdown,
    )
    if options.json:
        document = {"pictures": len(pictures), "proposals": options.proposals, "results": results, "cpu_s": cpu}
        atomic_write(options.json, json.dumps(document, indent=1, default=float))


if __name__ == "__main__":
    main()
