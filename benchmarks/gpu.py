"""How fast a GPU scores regions, what bounds it, and whether it finds what a CPU finds.

Crops a second and how near that is to the GPU's own half-precision matrix products and its memory's bandwidth, both
measured in the same run; a picture of 1,200 regions; pictures a second from files to results; and the detections of
the GPU in float32 against the CPU's. Seconds by the clock, medians.

    python benchmarks/gpu.py [IMAGES...] [--workers 16] [--markdown]

With `--device cpu` the same lines run where there is no GPU: to see that they do, not how fast.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine_load import count_work, find_pictures, sample_boxes, sample_image
from tables import show

from inception_rcnn.backbone.regions.features import PictureFeatures
from inception_rcnn.backbone.regions.placement import choose_device, choose_placement
from inception_rcnn.backbone.regions.scorer import RegionScorer
from inception_rcnn.backbone.regions.torch_engine import CROPS, Batches, TorchRegions, torch_network
from inception_rcnn.backbone.weights.model_file import read_model
from inception_rcnn.backbone.weights.published import find_model
from inception_rcnn.data import read_image
from inception_rcnn.data.errors import DeviceError
from inception_rcnn.data.system.processes import usable_cores
from inception_rcnn.detect import Detector
from inception_rcnn.detect.runs.detection import detect_batch


def seconds_of(call: Callable[[], Any], device: str, rounds: int) -> float:
    """Median seconds of a call by the clock, the first three not counted."""
    spent = []
    for turn in range(rounds + 3):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        if turn >= 3:
            spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def measure_limits(device: str, rounds: int) -> tuple[float, float]:
    """Operations a second of large matrix products, and bytes a second that a copy moves."""
    side, precision = (8192, torch.float16) if device == "cuda" else (1024, torch.float32)
    matrix = torch.randn(side, side, device=device, dtype=precision)
    product = seconds_of(lambda: matrix @ matrix, device, rounds)
    block = torch.zeros(2**28 if device == "cuda" else 2**22, device=device, dtype=torch.uint8)
    copy = seconds_of(lambda: block.clone(), device, rounds)
    return 2 * side**3 / product, 2 * block.numel() / copy


def crops_table(device: str, peak: float, bandwidth: float, rounds: int) -> list[list[str]]:
    """Lines of the table of crops: the network alone, recorded and not, and cutting them out of a picture."""
    model = read_model(find_model("voc-crops"))
    regions = TorchRegions(model, device, "float16" if device == "cuda" else "float32")
    like = regions.like
    one = torch.zeros(1, 3, 224, 224)
    network = torch_network(model.weights, len(model.classes), "cpu")
    # Of the convolutions alone: what they read and write, as if nothing stayed in a cache. The weights are shared by a
    # batch.
    operations, numbers = count_work(network, lambda: network.score_crops(network.trunk(one)))
    moved = numbers * like.element_size()
    rows = []
    image = torch.from_numpy(sample_image()).to(like.device)
    for batch in (CROPS[device] // 8, CROPS[device] // 2, CROPS[device]):
        crops = torch.randn(batch, 3, 224, 224, device=like.device, dtype=like.dtype)
        crops = crops.contiguous(memory_format=torch.channels_last)
        boxes = torch.from_numpy(sample_boxes(batch)).to(like.device)
        calls: dict[str, Callable[[], Any]] = {"cutting out and warping": partial(regions._warp, image, boxes)}
        for name, record in (("network", False), ("network, recorded", True)):
            if device == "cuda" or not record:
                batches = Batches(regions._crops.compute, batch, record=record)
                calls[name] = partial(batches, batch, lambda start, stop, crops=crops: crops[start:stop])
        with torch.inference_mode():
            for name, call in calls.items():
                rate = batch / seconds_of(call, device, rounds)
                limits = ["", ""] if name.startswith("cutting") else [
                    f"{100 * rate * operations / peak:.0f}", f"{100 * rate * moved / bandwidth:.0f}"
                ]  # fmt: skip
                rows.append([name, str(batch), f"{rate:.0f}", *limits])
    return rows


def pictures_table(device: str, regions: int, rounds: int) -> list[list[str]]:
    """Lines of the table of a picture's regions, by both ways of scoring."""
    image, boxes = sample_image(), sample_boxes(regions)
    rows = []
    for name in ("voc", "voc-crops"):
        scorer = RegionScorer(read_model(find_model(name)), choose_placement(device, engine="torch"))
        features = PictureFeatures(image)
        parts = {
            "trunk": lambda scorer=scorer: scorer.trunk(image, scorer.long_side),
            "first pass": lambda scorer=scorer, features=features: scorer.first_pass_logits(features, boxes),
            "score": lambda scorer=scorer, features=features: scorer.score(features, boxes),
        }
        for part, call in parts.items():
            rows.append([scorer.model.scoring, part, f"{1000 * seconds_of(call, device, rounds):.1f}"])
    return rows


def end_to_end(paths: list[Path], device: str, workers: int, regions: int) -> list[list[str]]:
    """Lines of the table of whole runs: files in, detections, drawings and reports out."""
    rows = []
    for model in ("voc", "voc-crops"):
        for first_pass in (0, regions // 6):
            detector = Detector.load(
                model, device=device, engine="torch", proposals=regions, first_pass_regions=first_pass
            )
            for path in paths[:16]:  # compiles, records, and chooses kernels for pictures of these sizes
                detector(read_image(path))
            with tempfile.TemporaryDirectory() as folder:
                done = detect_batch(paths, Path(folder), detector, workers=workers)
            speed = done.pictures / done.seconds["total"]
            kept = str(first_pass or regions)
            rows.append([model, str(regions), kept, f"{speed:.1f}", f"{100 * done.waiting_share:.0f}"])
    return rows


def compare(paths: list[Path], device: str) -> str:
    """Tell how far the GPU's detections in float32 are from the CPU's."""
    pair = [
        Detector.load("voc", device=where, engine=engine, precision="float32")
        for where, engine in ((device, "torch"), ("cpu", None))
    ]
    boxes = scores = 0.0
    different = 0
    for path in paths:
        image = read_image(path)
        ours, theirs = (detector(image) for detector in pair)
        if len(ours) != len(theirs) or (ours.labels != theirs.labels).any():
            different += 1
            continue
        boxes = max(boxes, float(np.abs(ours.boxes - theirs.boxes).max(initial=0)))
        scores = max(scores, float(np.abs(ours.scores - theirs.scores).max(initial=0)))
    return (
        f"float32 on {device} and ONNX Runtime on the CPU, {len(paths)} pictures: {len(paths) - different} with the "
        f"same detections in the same order, boxes to {boxes:.3f} px, scores to {scores:.1e}"
    )


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", help="for whole runs; default: scikit-image's sample photographs")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--workers", type=int, default=usable_cores(), help="threads that read and propose")
    parser.add_argument("--regions", type=int, default=1200, help="of a picture; default: 1200")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    options = parser.parse_args()
    try:
        choose_device(options.device)
    except DeviceError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    paths = find_pictures(options.images)
    if options.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    peak, bandwidth = measure_limits(options.device, options.rounds)
    precision = "half" if options.device == "cuda" else "single"
    print(f"matrix products in {precision} precision {peak / 1e12:.2f} TFLOP/s, memory {bandwidth / 1e9:.0f} GB/s\n")
    rows = crops_table(options.device, peak, bandwidth, options.rounds)
    columns = ["what", "batch", "crops/s", "% of peak", "% of bandwidth"]
    show("Crops through the whole network", columns, rows, options.markdown)
    rows = pictures_table(options.device, options.regions, options.rounds)
    show(f"A picture of 500x375, {options.regions} regions", ["scoring", "part", "ms"], rows, options.markdown)
    rows = end_to_end(paths, options.device, options.workers, options.regions)
    columns = ["model", "proposals", "scored", "pictures/s", "scoring waits, %"]
    show(f"{len(paths)} files to results, {options.workers} threads", columns, rows, options.markdown)
    print(compare(paths[:50], options.device))


if __name__ == "__main__":
    main()
