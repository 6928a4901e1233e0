"""How well ILSVRC's 200 classes are found in ILSVRC 2012's validation pictures, in which the labelled class is boxed.

    python benchmarks/localisation.py ILSVRC2012 [--model ilsvrc] [--half even] [--markdown]

ILSVRC2012 is the kit's folder, or has the pictures and Annotations/ with their XML files. Pictures are left out whose
class is none of the 200 and above none. Beside the detector stands a classifier alone, on the same regions: its
probabilities, summed over ImageNet's classes that are one of the 200, times the probability, by `voc`, that a region is
no background. Without --model only that is measured.

localised: share of pictures whose best detection has the right class and an IoU of 0.5 or more with an object of it.
mAP: area AP at IoU 0.5, mean of the classes with three objects or more, of all detections.
"""

import argparse
import os
import time
from pathlib import Path

# Before numpy and numba are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"

import cv2
import numpy as np
import torch
from tables import show

from inception_rcnn.backbone.preprocessing import resize_picture
from inception_rcnn.data import (
    ILSVRC_DET_CLASSES,
    Detections,
    read_image,
)
from inception_rcnn.detect import Detector
from inception_rcnn.detect.cli.terminal import progress_bar
from inception_rcnn.detect.postprocessing import suppress
from inception_rcnn.detect.settings import DetectorSettings
from inception_rcnn.detect.train.localisation import is_localised, read_localisation_pictures
from inception_rcnn.detect.train.teacher import Teacher
from inception_rcnn.detect.train.validation import crops_to_input
from inception_rcnn.eval import evaluate_voc

CLASSES = tuple(ILSVRC_DET_CLASSES.values())
SIDE = 448  # of the classifier's picture
FEWEST = 3  # objects of a class
SETTINGS = DetectorSettings(min_score=0.001)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--half", choices=("even", "odd", "both"), default="even")
    parser.add_argument("--teacher", default="googlenet-bvlc", help="weights of the classifier")
    parser.add_argument("--pictures", type=int, help="only so many")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    pictures = read_localisation_pictures(options.folder, CLASSES, options.half)[: options.pictures]
    teacher = Teacher.load(options.teacher, CLASSES, "cpu")
    voc = Detector.load("voc", multibox="any", threads=1, min_score=SETTINGS.min_score)
    detector = voc if options.model is None else Detector.load(options.model, threads=1, min_score=SETTINGS.min_score)
    found: dict[str, dict[str, Detections]] = {"classifier": {}}
    seconds = dict.fromkeys(["classifier"], 0.0)
    with progress_bar("pictures", len(pictures)) as report:
        for done, picture in enumerate(pictures, 1):
            image = read_image(picture.path)
            features = detector.features(image)
            boxes, objectness = detector.select_regions(features)
            start = time.process_time()
            small, scale = resize_picture(image, SIDE)
            read = teacher.reader(crops_to_input(small[None], "cpu"))
            named = read(torch.from_numpy(boxes * np.float32(scale))).numpy()
            foreground = 1 - voc.scorers[0].score(features, boxes)[0][:, :1]
            shares = (named * foreground).astype(np.float32)
            probabilities = np.concatenate([1 - shares.sum(1, keepdims=True), shares], axis=1)
            size = picture.width, picture.height
            found["classifier"][picture.image_id] = suppress(boxes, probabilities, None, size, CLASSES, SETTINGS)
            seconds["classifier"] += time.process_time() - start
            if options.model is not None:
                start = time.process_time()
                own = detector.score(features, boxes, objectness)
                found.setdefault(options.model, {})[picture.image_id] = own
                seconds[options.model] = seconds.get(options.model, 0.0) + time.process_time() - start
            report(done)
    counts = np.bincount(np.concatenate([picture.labels for picture in pictures]), minlength=len(CLASSES))
    measured = [CLASSES[i] for i in np.flatnonzero(counts >= FEWEST)]
    rows = []
    for name, detections in found.items():
        localised = np.mean([is_localised(picture, detections[picture.image_id]) for picture in pictures])
        per_class = evaluate_voc(pictures, detections, CLASSES, "voc12")["per_class"]
        mean = np.mean([per_class[one] for one in measured])
        rows.append(
            [name, f"{100 * localised:.1f}", f"{100 * mean:.1f}", f"{seconds[name] / max(len(pictures), 1):.3f}"]
        )
    title = f"{len(pictures)} pictures of {(counts > 0).sum()} classes, {len(measured)} with {FEWEST} objects or more"
    show(title, ["scores", "localised, %", "mAP, %", "CPU s"], rows, options.markdown)


if __name__ == "__main__":
    main()
