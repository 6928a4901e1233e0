"""Where the time of one detection goes, and what runs the network faster: ONNX Runtime or torch.

One process, one thread, CPU seconds, the median over the pictures. By default on the photographs that come with
scikit-image.

    python benchmarks/pipeline.py [IMAGES...] [--proposals 1000]
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

# Before numpy and torch are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
from rich.console import Console
from rich.table import Table

from inception_rcnn.backbone.engine import RegionScorer
from inception_rcnn.backbone.model_file import read_model
from inception_rcnn.backbone.weights import find_model
from inception_rcnn.data import find_images, read_image
from inception_rcnn.detect.detector import Detector, suppress


def timed(seconds: dict[str, list[float]], stage: str, call: Callable[[], Any]) -> Any:
    """Call, and note the CPU seconds of this process under `stage`."""
    start = time.process_time()
    result = call()
    seconds.setdefault(stage, []).append(time.process_time() - start)
    return result


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", help="default: scikit-image's sample photographs")
    parser.add_argument("--proposals", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not options.images:
        import skimage

        folder = os.path.join(os.path.dirname(skimage.__file__), "data")
        options.images = [os.path.join(folder, f"{name}.png") for name in ("chelsea", "astronaut", "motorcycle_left")]
    cv2.setNumThreads(1)
    model = read_model(find_model("voc"))
    scorer = RegionScorer(model, device="cpu", threads=1)
    detector = Detector([scorer], proposals=options.proposals)
    engines: dict[str, RegionScorer] = {"ONNX Runtime, float32": scorer}
    try:
        import torch

        from inception_rcnn.backbone.engine import _TorchEngine

        torch.set_num_threads(1)
        eager = RegionScorer(model, device="cpu", threads=1)
        eager._engine = _TorchEngine(model, "cpu")
        engines["torch, float32"] = eager
    except ImportError:
        pass
    seconds: dict[str, list[float]] = {}
    counts = []
    for path in find_images(options.images):
        for turn in range(options.rounds + 1):
            # The first turn fills caches and compiles kernels.
            notes = seconds if turn else {}
            image = timed(notes, "read", lambda path=path: read_image(path))
            boxes = timed(notes, "propose", lambda image=image: detector.propose(image))
            outputs = [
                timed(notes, f"score ({name})", lambda e=engine, i=image, b=boxes: e(i, b))
                for name, engine in engines.items()
            ]
            size = image.shape[1::-1]
            timed(notes, "suppress", lambda b=boxes, o=outputs[0], s=size: suppress(b, *o, *s, detector.classes))
            counts.append(len(boxes))
    table = Table("stage", "CPU s", title=f"one picture, one thread, {round(statistics.mean(counts))} proposals")
    table.columns[1].justify = "right"
    for stage, values in seconds.items():
        table.add_row(stage, f"{statistics.median(values):.3f}")
    Console(highlight=False).print(table)
    names = list(engines)
    if len(names) > 1:
        first, second = (statistics.median(seconds[f"score ({name})"]) for name in names)
        print(f"{names[1]} / {names[0]}: {second / first:.2f}")


if __name__ == "__main__":
    main()
