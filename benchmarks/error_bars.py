"""Whether 95 % intervals contain the true figure in 95 % of the cases, how wide they are, and how fast they are.

    python benchmarks/error_bars.py coverage [--pictures 200] [--repetitions 1000] [--metric voc07]
    python benchmarks/error_bars.py speed [--pictures 5000] [--detections 100000]
    python benchmarks/error_bars.py peers [--pictures 5000]

``coverage`` simulates detectors of 20 classes whose average precision is known. Pictures have objects as often as those
of VOC 2007 have them, from 0.91 persons to 0.05 of the rarest classes. An object is found with probability 0.85. There
is one false detection of each class in a picture. Scores are normal, those of hits higher, and those of one picture
rise or fall together. From this follows the curve of infinitely many pictures. Two detectors of equal skill look at
the same objects, for the differences. ``speed`` and ``peers`` measure CPU seconds, on one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

# Before numpy and numba are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from evaluation import synthetic
from numpy.typing import NDArray
from scipy.stats import kstest, norm
from tables import show

from inception_rcnn.data import VOC_CLASSES
from inception_rcnn.eval import COCOEvaluator, VOCEvaluator, evaluate_coco, evaluate_voc, match_voc
from inception_rcnn.eval.bootstrap import Bootstrap, mean_over_classes, summarise_draws
from inception_rcnn.eval.matching import Matches
from inception_rcnn.eval.precision import RECALL_LEVELS, Metric, weighted_average_precision

# Objects of a class in a picture: person, car, chair, ... of VOC 2007.
FREQUENCY = (0.91, 0.24, 0.15, 0.1, 0.1, 0.09, 0.09, 0.08, 0.08, 0.07, 0.07, 0.065, 0.06, 0.06, *[0.05] * 6)
# Not a multiple of 0.1, so that the highest recall is none of the 11 at which precision is read.
FOUND, FALSE_PER_PICTURE = 0.85, 1.0
HIT_MEAN = tuple(0.2 + 0.12 * (i % 10) for i in range(20))
FALSE_MEAN, SPREAD, SPREAD_OF_PICTURES = -2.0, 1.0, 0.7


def true_precision(label: int, metric: Metric) -> float:
    """Average precision of a class on infinitely many pictures."""
    threshold = np.linspace(15, -15, 60_001)
    spread = np.hypot(SPREAD, SPREAD_OF_PICTURES)
    recall = FOUND * norm.sf((threshold - HIT_MEAN[label]) / spread)
    hits = FREQUENCY[label] * recall
    precision = hits / np.maximum(hits + FALSE_PER_PICTURE * norm.sf((threshold - FALSE_MEAN) / spread), 1e-300)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    levels = RECALL_LEVELS[metric]
    if not len(levels):
        return float((np.diff(recall, prepend=0) * envelope).sum())
    return float(np.append(envelope, 0)[np.searchsorted(recall, levels)].mean())


def simulate(rng: np.random.Generator, label: int, objects: NDArray[np.int64], mood: NDArray[np.float64]) -> Matches:
    """Make up the matches of one class, best first; `mood` is by how much the scores of a picture are higher."""
    pictures = np.arange(len(objects))
    hits = np.repeat(pictures, objects)
    hits = hits[rng.random(len(hits)) < FOUND]
    false = np.repeat(pictures, rng.poisson(FALSE_PER_PICTURE, len(objects)))
    picture, hit = np.concatenate([hits, false]), np.arange(len(hits) + len(false)) < len(hits)
    score = np.where(hit, HIT_MEAN[label], FALSE_MEAN) + rng.normal(0, SPREAD, len(hit)) + mood[picture]
    order, none = np.argsort(-score, kind="stable"), np.zeros(len(hit), np.int64)
    outcome = hit[order].astype(np.int8)
    return Matches(picture[order], none, score[order], outcome, none, none * 0.0, int(objects.sum()), objects)


def coverage(options: argparse.Namespace) -> None:
    """Print how often intervals contain what they are meant to, and how wide they are."""
    rng = np.random.default_rng(options.seed)
    labels = range(len(FREQUENCY))
    truth = np.array([true_precision(label, options.metric) for label in labels])
    figures, intervals, percentile, halves, p_values, of_classes = [], [], [], [], [], []
    classes: list[tuple[int, float, tuple[float, float]]] = []
    for repetition in range(options.repetitions):
        bootstrap = Bootstrap(options.pictures, options.draws, repetition)
        objects = [rng.poisson(one, options.pictures) for one in FREQUENCY]
        both = []
        for _ in range(2):
            mood = rng.normal(0, SPREAD_OF_PICTURES, options.pictures)
            matches = [simulate(rng, label, own, mood) for label, own in zip(labels, objects, strict=True)]
            both.append(
                {
                    str(i): weighted_average_precision(one, bootstrap.weights, options.metric)
                    for i, one in enumerate(matches)
                }
            )
        first, second = map(mean_over_classes, both)
        figures.append(first[0])
        intervals.append(bootstrap.interval(first))
        percentile.append(np.nanquantile(first[-options.draws :], [0.025, 0.975]))
        least, most, p_value = bootstrap.difference(second - first)
        p_values.append(p_value)
        halves.append((most - least) / 2)
        of_classes.extend(
            bootstrap.difference(one - other)[2] for one, other in zip(*(each.values() for each in both), strict=True)
        )
        for label, values in enumerate(both[0].values()):
            interval = bootstrap.interval(values)
            if not np.isnan(interval[0]):
                classes.append((int(objects[label].sum()), truth[label], interval))
    low, high = np.array(intervals).T
    mean, typical = truth.mean(), np.mean(figures)
    inside = [one[2][0] <= one[1] <= one[2][1] for one in classes]
    widths = np.array([(one[2][1] - one[2][0]) / 2 for one in classes])
    few = np.array([one[0] < 20 for one in classes])
    row = [
        f"{options.pictures:,}",
        f"{options.repetitions:,}",
        f"{100 * (typical - mean):+.2f}",
        f"{100 * np.mean((low <= mean) & (mean <= high)):.1f}",
        f"{100 * np.mean((low <= typical) & (typical <= high)):.1f}",
        f"{100 * np.mean([a <= mean <= b for a, b in percentile]):.1f}",
        f"{100 * np.mean(inside):.1f}",
        f"{100 * np.mean((high - low) / 2):.2f}",
        f"{100 * widths[few].mean():.1f}" if few.any() else "-",
        f"{100 * widths[~few].mean():.1f}",
        f"{100 * np.mean(halves):.2f}",
        f"{100 * np.mean(np.array(p_values) < 0.05):.1f}",
        f"{kstest(p_values, 'uniform').pvalue:.2f}",
        f"{100 * np.mean(np.array(of_classes)[~np.isnan(of_classes)] < 0.05):.1f}",
    ]
    columns = [
        "pictures", "repetitions", "mean mAP above the true one", "intervals with the true mAP, %",
        "with the mean mAP, %", "percentile intervals with the true mAP, %", "intervals with a class's true AP, %",
        "half width, mAP", "half width, AP of a class of under 20 objects", "half width, AP of other classes",
        "half width, difference of mAP", "equal detectors: p < 0.05, %",
        "whether these p are uniform, p of Kolmogorov and Smirnov", "equal detectors: p < 0.05 of a class, %",
    ]  # fmt: skip
    title = f"{options.metric}, true mAP {100 * mean:.2f}, {options.draws:,} draws; in points, of 100"
    # Of one row the columns are the lines.
    show(title, ["", ""], [*map(list, zip(columns, row, strict=True))], options.markdown)


def cpu_seconds(call: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Median of the CPU seconds of a call, and what it returns."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        result = call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), result


def speed(options: argparse.Namespace) -> None:
    """Print the time of an evaluation and of its intervals."""
    pictures, found = synthetic(options.pictures, options.detections, options.seed)
    matches = match_voc(pictures, found, VOC_CLASSES)
    evaluated, _ = cpu_seconds(lambda: evaluate_voc(pictures, found, VOC_CLASSES), options.rounds)
    rows = [["evaluate_voc", f"{evaluated:.2f}"]]
    for metric in ("voc07", "voc12", "coco"):

        def intervals(metric: Metric = metric) -> Any:
            bootstrap = Bootstrap(len(pictures), options.draws)
            values = {one: weighted_average_precision(m, bootstrap.weights, metric) for one, m in matches.items()}
            return summarise_draws(values, bootstrap)

        intervals()
        rows.append([f"intervals, {metric}", f"{cpu_seconds(intervals, options.rounds)[0]:.2f}"])
    title = f"{options.detections:,} detections, 20 classes, {options.pictures:,} pictures, {options.draws:,} draws"
    show(title, ["", "CPU s"], rows, options.markdown)


def peers(options: argparse.Namespace) -> None:
    """Print the time of the evaluators for loops beside the evaluation from arrays, and beside others'."""
    pictures, found = synthetic(options.pictures, options.detections, options.seed)
    targets = [{"boxes": one.boxes, "labels": one.labels, "difficult": one.difficult} for one in pictures]
    outputs = [found[one.image_id] for one in pictures]
    predictions = [{"boxes": one.boxes, "scores": one.scores, "labels": one.labels} for one in outputs]

    def update(evaluator: Any) -> Any:
        for i in range(0, len(targets), 16):
            evaluator.update(targets[i : i + 16], predictions[i : i + 16])
        return evaluator

    update(VOCEvaluator(VOC_CLASSES)).compute()
    rows = []
    calls: dict[str, Callable[[], Any]] = {
        "evaluate_voc": lambda: evaluate_voc(pictures, found, VOC_CLASSES),
        "VOCEvaluator.update": lambda: update(VOCEvaluator(VOC_CLASSES)),
        "VOCEvaluator.update and compute": lambda: update(VOCEvaluator(VOC_CLASSES)).compute(),
        "evaluate_coco": lambda: evaluate_coco(pictures, found, classes=VOC_CLASSES),
        "COCOEvaluator.update and compute": lambda: update(COCOEvaluator(VOC_CLASSES)).compute(),
    }
    with contextlib.suppress(ImportError):
        import torch
        from torchmetrics.detection import MeanAveragePrecision

        def tensors(one: dict[str, Any]) -> dict[str, Any]:
            return {name: torch.from_numpy(np.asarray(values)) for name, values in one.items() if name != "difficult"}

        as_tensors = [*map(tensors, predictions)], [*map(tensors, targets)]

        def torchmetrics() -> Any:
            metric = MeanAveragePrecision(class_metrics=True)
            metric.warn_on_many_detections = False
            for i in range(0, len(targets), 16):
                metric.update(*(one[i : i + 16] for one in as_tensors))
            with contextlib.redirect_stdout(io.StringIO()):
                return {"mAP": float(metric.compute()["map"])}

        calls["torchmetrics MeanAveragePrecision"] = torchmetrics
    for name, call in calls.items():
        seconds, result = cpu_seconds(call, options.rounds if "VOC" in name.upper() else 1)
        rows.append([name, f"{seconds:.3f}", f"{result['mAP']:.12f}" if isinstance(result, dict) else ""])
    title = f"{options.detections:,} detections, 20 classes, {options.pictures:,} pictures, in batches of 16"
    show(title, ["", "CPU s", "mAP"], rows, options.markdown)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("coverage", "speed", "peers"))
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100_000)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--metric", choices=tuple(RECALL_LEVELS), default="voc07")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    {"coverage": coverage, "speed": speed, "peers": peers}[options.what](options)


if __name__ == "__main__":
    main()
