"""How fast regions are scored, and how near that is to what the processor can: engines, batches, both ways of scoring.

One process, one thread, CPU seconds, medians; every engine in turn. The peak is the fastest large matrix product in
float32 of the same run, by NumPy's BLAS or torch.

    python benchmarks/scoring.py [--regions 1200] [--markdown]
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

# Before numpy and torch are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import cv2
import numpy as np
import torch
from tables import show
from torch import nn

from inception_rcnn.backbone.engine import RegionScorer, View, torch_network
from inception_rcnn.backbone.model_file import RegionModel, read_model
from inception_rcnn.backbone.preprocessing import crop_regions, prepare_picture
from inception_rcnn.backbone.regions import RegionNetwork
from inception_rcnn.backbone.weights import find_model


def seconds_of(call: Callable[[], Any], rounds: int) -> float:
    """Median CPU seconds of a call, the first one not counted."""
    call()
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def matrix_peak(rounds: int) -> dict[str, float]:
    """Float32 operations a second of large matrix products, by library."""
    side = 1536
    left, right = np.random.default_rng(0).normal(size=(2, side, side)).astype(np.float32)
    tensors = torch.from_numpy(left), torch.from_numpy(right)
    operations = 2 * side**3
    return {
        "NumPy": operations / seconds_of(lambda: left @ right, rounds),
        "torch": operations / seconds_of(lambda: tensors[0] @ tensors[1], rounds),
    }


def operations_of(network: RegionNetwork, call: Callable[[], Any]) -> float:
    """Multiplications and additions of the convolutions and matrix products of a call."""
    total = 0.0

    def count(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            total += 2.0 * output.numel() * module.weight[0].numel()

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    with torch.inference_mode():
        call()
    for hook in hooks:
        hook.remove()
    return total


def crops_table(model: RegionModel, network: RegionNetwork, peak: float, rounds: int) -> tuple[list[list[str]], float]:
    """Lines of the table of crops, and the fastest engine's seconds a crop in float32."""
    rng = np.random.default_rng(0)
    onnx = RegionScorer(model, device="cpu", threads=1)
    rows, best = [], float("inf")

    def torch_scores(crops: torch.Tensor, half: bool) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return network.score_crops(network.trunk(crops))[0].float().softmax(1).numpy()

    for batch in (1, 4, 16, 64):
        crops = rng.normal(0, 60, (batch, 3, 224, 224)).astype(np.float32)
        tensor = torch.from_numpy(crops).contiguous(memory_format=torch.channels_last)
        operations = operations_of(network, lambda tensor=tensor: network.score_crops(network.trunk(tensor)))
        expected = torch_scores(tensor, False)
        engines: dict[str, Callable[[], np.ndarray]] = {
            "ONNX Runtime": lambda crops=crops: onnx._head(onnx.trunk.run(crops))[0],
            "torch": lambda tensor=tensor: torch_scores(tensor, False),
            "torch, bfloat16": lambda tensor=tensor: torch_scores(tensor, True),
        }
        for name, run in engines.items():
            spent = seconds_of(run, rounds)
            if "bfloat16" not in name:
                best = min(best, spent / batch)
            share = f"{100 * operations / spent / peak:.0f}"
            rows.append([name, str(batch), f"{batch / spent:.1f}", share, f"{np.abs(run() - expected).max():.1e}"])
    return rows, best


def shared_table(
    model: RegionModel, network: RegionNetwork, peak: float, regions: int, rounds: int
) -> tuple[list[list[str]], float]:
    """Lines of the table of shared scoring, and ONNX Runtime's seconds a picture."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), (500, 375))
    corners = rng.uniform(0, [500, 375], (regions, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1) + 20], axis=1).astype(np.float32).clip(0, 375)
    array, scale = prepare_picture(image, model.long_side)
    picture, scaled = torch.from_numpy(array), torch.from_numpy(boxes * np.float32(scale))
    operations = {
        "look": operations_of(network, lambda: network.trunk(picture)),
        "score": operations_of(network, lambda: network.head(torch.zeros(1, 832, 30, 40), scaled)),
    }
    rows, times = [], {}
    reference: np.ndarray | None = None
    for engine in ("torch", "onnxruntime"):
        scorer = RegionScorer(model, device="cpu", threads=1, engine=engine)
        view = View(image)
        view.features(scorer.trunk, scorer.long_side)
        look = seconds_of(lambda scorer=scorer: scorer.trunk(image, scorer.long_side), rounds)
        score = seconds_of(lambda scorer=scorer, view=view: scorer.score(view, boxes), rounds)
        found = scorer.score(view, boxes)[0]
        reference = found if reference is None else reference
        for part, spent in (("look", look), ("score", score)):
            share = f"{100 * operations[part] / spent / peak:.0f}"
            difference = f"{np.abs(found - reference).max():.1e}" if part == "score" else ""
            rows.append([engine, part, f"{spent:.3f}", share, difference])
        times[engine] = look + score
    return rows, times["onnxruntime"]


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="voc", help="of shared scoring; default: voc")
    parser.add_argument("--crops-model", default="voc-crops", help="of scoring by crops; default: voc-crops")
    parser.add_argument("--regions", type=int, default=1200, help="of a picture; default: 1200")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    shared, crops = (read_model(find_model(name)) for name in (options.model, options.crops_model))
    peaks = matrix_peak(options.rounds)
    peak = max(peaks.values())
    print(f"matrix products: {', '.join(f'{name} {value / 1e9:.0f}' for name, value in peaks.items())} GFLOP/s\n")
    network = torch_network(crops.weights, len(crops.classes), "cpu")
    rows, crop = crops_table(crops, network, peak, options.rounds)
    columns = ["engine", "batch", "crops/s", "% of peak", "difference"]
    show("Crops through the whole network", columns, rows, options.markdown)
    network = torch_network(shared.weights, len(shared.classes), "cpu")
    rows, picture = shared_table(shared, network, peak, options.regions, options.rounds)
    columns = ["engine", "part", "CPU s", "% of peak", "difference"]
    show(f"A picture of 500x375, {options.regions} regions of its features", columns, rows, options.markdown)
    image = np.zeros((375, 500, 3), np.uint8)
    boxes = np.tile(np.array([[50, 50, 300, 250]], np.float32), (64, 1))
    cut = seconds_of(lambda: crop_regions(image, boxes), options.rounds) / 64
    all_crops = options.regions * (crop + cut)
    print(
        f"{options.regions} regions as crops: {all_crops:.1f} CPU s (of which cutting {options.regions * cut:.2f}), "
        f"{all_crops / picture:.1f} times a picture of shared features ({picture:.2f})"
    )


if __name__ == "__main__":
    main()
