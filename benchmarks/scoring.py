"""How fast regions are scored, and how near that is to what the processor can: engines, batches, both ways of scoring.

One process, one thread, CPU seconds, medians; every engine in turn. The peak is the fastest large matrix product in
float32 of the same run, by NumPy's BLAS, torch or ONNX Runtime. Engines that skip products with the zeros around a
picture, or are better at convolutions than at these products, come out above it.

    python benchmarks/scoring.py [--regions 1200] [--markdown]
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

# Before numpy and torch are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import cv2
import numpy as np
import onnx
import torch
from machine_load import count_work, sample_boxes, sample_image
from onnx import TensorProto, helper
from tables import show

from inception_rcnn.backbone.preprocessing import crop_regions, prepare_picture
from inception_rcnn.backbone.regions.features import PictureFeatures
from inception_rcnn.backbone.regions.network import RegionNetwork
from inception_rcnn.backbone.regions.onnx_engine import onnx_session
from inception_rcnn.backbone.regions.placement import choose_placement
from inception_rcnn.backbone.regions.scorer import RegionScorer
from inception_rcnn.backbone.regions.torch_engine import torch_network
from inception_rcnn.backbone.weights.model_file import RegionModel, read_model
from inception_rcnn.backbone.weights.published import find_model
from inception_rcnn.detect.settings import DetectorSettings


def seconds_of(call: Callable[[], Any], rounds: int) -> float:
    """Median CPU seconds of a call, the first one not counted."""
    call()
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def matrix_graph() -> bytes:
    """Make an ONNX graph of one matrix product."""
    names = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in ("a", "b", "c")]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", names[:2], names[2:])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


def matrix_peak(rounds: int) -> dict[str, float]:
    """Float32 operations a second of large matrix products, by library."""
    side = 1536
    left, right = np.random.default_rng(0).normal(size=(2, side, side)).astype(np.float32)
    tensors = torch.from_numpy(left), torch.from_numpy(right)
    session = onnx_session(matrix_graph(), {}, 1)
    operations = 2 * side**3
    return {
        "NumPy": operations / seconds_of(lambda: left @ right, rounds),
        "torch": operations / seconds_of(lambda: tensors[0] @ tensors[1], rounds),
        "ONNX Runtime": operations / seconds_of(lambda: session.run(None, {"a": left, "b": right}), rounds),
    }


def crops_table(
    model: RegionModel, network: RegionNetwork, peak: float, batches: Sequence[int], rounds: int
) -> tuple[list[list[str]], float]:
    """Lines of the table of crops, and ONNX Runtime's fewest seconds a crop in float32."""
    image = sample_image()
    sessions = {
        "ONNX Runtime": onnx_session(model.graphs["crops"], model.weights, 1),
        "ONNX Runtime, int8": onnx_session(model.graphs["crops.int8"], model.weights, 1),
    }
    rows, best = [], float("inf")

    def torch_scores(crops: torch.Tensor, half: bool) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return network.score_crops(network.trunk(crops))[0].float().softmax(1).numpy()

    for batch in batches:
        crops = crop_regions(image, sample_boxes(batch))
        tensor = torch.from_numpy(crops).contiguous(memory_format=torch.channels_last)
        operations, _ = count_work(network, lambda tensor=tensor: network.score_crops(network.trunk(tensor)))
        expected = torch_scores(tensor, False)
        engines: dict[str, Callable[[], np.ndarray]] = {
            name: lambda session=session, crops=crops: session.run(None, {"crops": crops})[0]
            for name, session in sessions.items()
        }
        engines["torch"] = lambda tensor=tensor: torch_scores(tensor, False)
        engines["torch, bfloat16"] = lambda tensor=tensor: torch_scores(tensor, True)
        for name, run in engines.items():
            spent = seconds_of(run, rounds)
            if name == "ONNX Runtime":
                best = min(best, spent / batch)
            share = f"{100 * operations / spent / peak:.0f}"
            rows.append([name, str(batch), f"{batch / spent:.1f}", share, f"{np.abs(run() - expected).max():.1e}"])
    return rows, best


def shared_table(
    model: RegionModel, network: RegionNetwork, peak: float, regions: int, rounds: int
) -> tuple[list[list[str]], float, float]:
    """Lines of the table of shared scoring; ONNX Runtime's seconds a picture, in full and in 8 bits by a first pass."""
    image, boxes = sample_image(), sample_boxes(regions)
    array, scale = prepare_picture(image, model.long_side)
    picture, scaled = torch.from_numpy(array), torch.from_numpy(boxes * np.float32(scale))
    maps = network.trunk(picture)
    work = {
        "trunk": count_work(network, lambda: network.trunk(picture))[0],
        f"score {regions}": count_work(network, lambda: network.region_head(maps, scaled))[0],
    }
    rows, seconds = [], {}
    reference: np.ndarray | None = None
    for engine, precision in (("torch", "float32"), ("onnxruntime", "float32"), ("onnxruntime", "int8")):
        scorer = RegionScorer(model, choose_placement("cpu", threads=1, engine=engine, precision=precision))
        features = PictureFeatures(image)
        found = scorer.score(features, boxes)[0]
        reference = found if reference is None else reference
        kept = boxes[np.argsort(-scorer.first_pass_logits(features, boxes))[: DetectorSettings.first_pass_regions]]
        calls: dict[str, Callable[[], Any]] = {
            "trunk": lambda scorer=scorer: scorer.trunk(image, scorer.long_side),
            "first pass": lambda scorer=scorer, features=features: scorer.first_pass_logits(features, boxes),
            f"score {regions}": lambda scorer=scorer, features=features: scorer.score(features, boxes),
            f"score {len(kept)}": lambda scorer=scorer, features=features, kept=kept: scorer.score(features, kept),
        }
        name = {"torch": "torch", "onnxruntime": "ONNX Runtime"}[engine] + (", int8" if precision == "int8" else "")
        for part, call in calls.items():
            spent = seconds[name, part] = seconds_of(call, rounds)
            share = f"{100 * work[part] / spent / peak:.0f}" if part in work else ""
            difference = f"{np.abs(found - reference).max():.1e}" if part == f"score {regions}" else ""
            rows.append([name, part, f"{spent:.3f}", share, difference])
    whole = sum(seconds["ONNX Runtime", part] for part in work)
    cheap = sum(seconds["ONNX Runtime, int8", part] for part in ("trunk", "first pass", f"score {len(kept)}"))
    return rows, whole, cheap


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="voc", help="of shared scoring; default: voc")
    parser.add_argument("--crops-model", default="voc-crops", help="of scoring by crops; default: voc-crops")
    parser.add_argument("--regions", type=int, default=1200, help="of a picture; default: 1200")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64], help="crops at once")
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
    rows, crop = crops_table(crops, network, peak, options.batches, options.rounds)
    columns = ["engine", "batch", "crops/s", "% of peak", "difference"]
    show("Crops through the whole network", columns, rows, options.markdown)
    network = torch_network(shared.weights, len(shared.classes), "cpu")
    rows, picture, cheap = shared_table(shared, network, peak, options.regions, options.rounds)
    columns = ["engine", "part", "CPU s", "% of peak", "difference"]
    show(f"A picture of 500x375, {options.regions} regions of its features", columns, rows, options.markdown)
    boxes = sample_boxes(64)
    image = sample_image()
    cut = seconds_of(lambda: crop_regions(image, boxes), options.rounds) / len(boxes)
    all_crops = options.regions * (crop + cut)
    print(
        f"{options.regions} regions as crops: {all_crops:.1f} CPU s (of which cutting {options.regions * cut:.2f}), "
        f"{all_crops / picture:.1f} times a picture of shared features ({picture:.2f}); in 8 bits, after a first pass "
        f"that leaves {DetectorSettings.first_pass_regions}: {cheap:.2f}"
    )


if __name__ == "__main__":
    main()
