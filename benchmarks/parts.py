"""What each part of a training is worth: the same short training with and without it, measured on pictures set aside.

    python benchmarks/parts.py VOCdevkit/VOC2007 VOCdevkit/VOC2012 [--pictures 2000] [--parts context finer ...]

Every training starts from the same weights and shows the same pictures, drawn from the folders, once; only the final
models get longer ones. Pictures are shown at 416 pixels and measured at the model's size, by VOC's rules (11-point mAP,
IoU 0.5), with the boxes of the MultiBox that learns along. A part that the weights have already is lost when a training
does without it, so the difference is also of what earlier trainings gave it.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from models import MIN_SCORE, run_on
from tables import show

from inception_rcnn.backbone.export.graphs import to_model
from inception_rcnn.backbone.regions.network import RegionNetwork
from inception_rcnn.backbone.regions.torch_engine import torch_network
from inception_rcnn.backbone.weights.model_file import RegionModel, read_model, write_model
from inception_rcnn.backbone.weights.published import find_model
from inception_rcnn.data import VOC_CLASSES, Detections, Picture
from inception_rcnn.data.system.processes import usable_cores
from inception_rcnn.detect import Detector
from inception_rcnn.detect.cli.terminal import progress_bar
from inception_rcnn.detect.settings import DetectorSettings
from inception_rcnn.detect.train.data import read_training_pictures
from inception_rcnn.detect.train.detector import train_detector
from inception_rcnn.detect.train.loop import RunSettings
from inception_rcnn.detect.train.recipes import DetectorRecipe
from inception_rcnn.detect.train.shards import read_pixels
from inception_rcnn.eval import evaluate_voc
from inception_rcnn.proposals.multibox.file import find_multibox, read_multibox, write_multibox
from inception_rcnn.proposals.multibox.network import from_model
from inception_rcnn.proposals.multibox.network import to_model as to_multibox_model

SHOWN_AT = 416
LOOKS = {"one look": 0, "two looks": DetectorSettings.second_look}
HALF = "half of the pictures, each shown twice"
# Changes of the recipe that leave a part out.
WITHOUT: dict[str, dict[str, object]] = {
    "second look learned": {"second_look": 0},
    "context": {"context": False},
    "finer features": {"finer": False},
    "running average": {"averaging": 0.0},
    HALF: {"epochs": 2.0},
}


class Measure:
    """Finds the objects of pictures with a trained model, in one look and in two; made anew in each process."""

    def __init__(self, model: Path, multibox: Path) -> None:
        self.files = model, multibox
        self.detector: Detector | None = None

    def __call__(self, picture: Picture) -> tuple[dict[str, Detections], dict[str, float]]:
        """Find the objects of a picture."""
        if self.detector is None:
            model, multibox = self.files
            self.detector = Detector.load(
                model, device="cpu", threads=1, precision="float32", multibox=multibox, first_pass_regions=0,
                min_score=MIN_SCORE, calibrated=False,
            )  # fmt: skip
        scorers, proposer, settings = self.detector.scorers, self.detector.proposer, self.detector.settings
        features = self.detector.features(read_pixels(picture))
        regions = self.detector.select_regions(features)
        looks = {
            name: Detector(scorers, proposer, replace(settings, second_look=number)) for name, number in LOOKS.items()
        }
        return {name: detector.score(features, *regions) for name, detector in looks.items()}, {}

    def __reduce__(self) -> tuple[object, ...]:
        return Measure, self.files


def train(before: RegionModel, multibox: str, recipe: DetectorRecipe, pictures: list[Picture], folder: Path) -> None:
    """Train a detector and its MultiBox, and write both into a folder."""
    classes = before.classes
    network = RegionNetwork(len(classes), finer=recipe.finer, context=recipe.context, seed=recipe.seed)
    own = network.state_dict()
    old = torch_network(before.weights, len(classes), "cpu").state_dict()
    network.load_state_dict({name: old.get(name, value) for name, value in own.items()})
    head = from_model(read_multibox(find_multibox(multibox)))
    with progress_bar("training", len(pictures)) as report:
        run = RunSettings(report=lambda row: report(round(len(pictures) * row["step"] / row["steps"])))
        train_detector(network, pictures, None, [], recipe, multibox=head, run=run)
    write_model(folder / "model.safetensors", to_model(network, classes, long_side=before.long_side))
    write_multibox(folder / "multibox.safetensors", to_multibox_model(head, network, long_side=before.long_side))


def main() -> None:
    """Train, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="labelled pictures, as for train detector --data")
    parser.add_argument("--start", default="voc", help="a detector, by name or file; default: voc")
    parser.add_argument("--multibox", default="voc", help="its MultiBox; default: voc")
    parser.add_argument("--pictures", type=int, default=2000, help="shown once each; default: 2000")
    parser.add_argument("--aside", type=int, default=500, help="measured on, at most; default: 500")
    parser.add_argument("--parts", nargs="+", choices=[*WITHOUT], default=[*WITHOUT], help="default: all")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="default: 0.0001")
    parser.add_argument(
        "--workers", type=int, default=usable_cores(), help="processes that measure; default: one a core"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    options = parser.parse_args()
    try:
        before = read_model(find_model(options.start))
        training, aside = read_training_pictures(
            options.folders, VOC_CLASSES, "trainval", tell=print, warn=print, progress=progress_bar
        )
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    chosen = np.random.default_rng(0).permutation(len(training))[: options.pictures]
    training = [training[i] for i in sorted(chosen)]
    aside = [picture for picture in aside if picture.labelled is None and picture.exhaustive][: options.aside]
    everything = DetectorRecipe(
        epochs=1.0, batch=8, regions=32, second_look=8, optimizer="adamw", learning_rate=options.learning_rate,
        scales=(SHOWN_AT / before.long_side,), rare_share=0.0,
    )  # fmt: skip
    rows = []
    with tempfile.TemporaryDirectory() as parent:
        for name in ["nothing", *options.parts]:
            start, folder = time.monotonic(), Path(parent) / name
            folder.mkdir()
            recipe = replace(everything, **WITHOUT.get(name, {}))
            pictures = training[::2] if name == HALF else training
            train(before, options.multibox, recipe, pictures, folder)
            minutes = (time.monotonic() - start) / 60
            work = Measure(folder / "model.safetensors", folder / "multibox.safetensors")
            found, _ = run_on(aside, work, options.workers)
            maps = [evaluate_voc(aside, found[name], VOC_CLASSES, metric="voc07")["mAP"] for name in LOOKS]
            rows.append([name, *(f"{100 * one:.2f}" for one in maps), f"{minutes:.0f}"])
            print(*rows[-1], flush=True)
    title = f"11-point mAP at IoU 0.5, %, on {len(aside)} pictures set aside, after {len(training)} shown"
    show(title, ["training without", *LOOKS, "minutes"], rows, options.markdown)


if __name__ == "__main__":
    main()
