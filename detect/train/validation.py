"""Figures of networks in training, measured on pictures set aside."""

import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...backbone.classifier import centre_crop
from ...backbone.preprocessing import MEAN_BGR, crop_regions, prepare_picture
from ...backbone.regions.network import RegionNetwork
from ...backbone.regions.onnx_engine import CHUNK, CROPS
from ...data import MAX_PIXELS, Detections, ImageError, Picture, read_image
from ...data.formats.imagenet import Sample
from ...data.system.processes import prefetch, usable_cores
from ...eval import Matches, evaluate_voc, match_voc
from ...proposals.multibox.network import GridHead, VectorHead
from ...proposals.multibox.priors import place_priors
from ...proposals.multibox.proposer import rank_boxes
from ..detector import Detector
from ..postprocessing import suppress
from ..settings import DetectorSettings
from .device import mixed_precision, thread_pool, to_device
from .process_group import SINGLE_PROCESS, ProcessGroup
from .recipes import Scoring
from .shards import read_pixels

Proposed: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32] | None]


def measure_map(
    network: RegionNetwork,
    pictures: Sequence[Picture],
    proposals: Callable[[Picture], Proposed],
    *,
    scoring: Scoring,
    box_regression: bool,
    long_side: int,
    device: str,
    max_pixels: int = MAX_PIXELS,
) -> float:
    """Measure the 11-point mAP of a network in training on pictures that it does not learn from.

    Parameters
    ----------
    network : RegionNetwork
    pictures : sequence of Picture
        In which all objects of some classes, or of all, are boxed; see `on_labelled`.
    proposals : callable
        Picture -> boxes (N, 4) float32 in its pixels, best first, and their objectness (N,) or None.
    scoring, box_regression, long_side
        See `inception_rcnn.backbone.weights.model_file.RegionModel`.
    device : str
    max_pixels : int
        See `inception_rcnn.data.read_image`.

    Returns
    -------
    float
        0 to 1, the mean over the classes that occur in the pictures; NaN without pictures.

    Examples
    --------
    >>> settings = {"scoring": "shared", "box_regression": True, "long_side": 640, "device": "cpu"}
    >>> measure_map(RegionNetwork(20), [], lambda picture: (np.zeros((0, 4), np.float32), None), **settings)
    nan
    """
    pictures = [picture for picture in pictures if picture.exhaustive]
    named = next((picture.classes for picture in pictures if picture.classes is not None), None)
    classes = named or tuple(str(label) for label in range(network.classes))

    def detect(picture: Picture) -> Detections:
        image, (boxes, objectness) = read_pixels(picture, max_pixels), proposals(picture)
        boxes = boxes[: DetectorSettings.proposals]
        objectness = None if objectness is None else objectness[: DetectorSettings.proposals]
        outputs = []
        if not len(boxes):
            return Detections.empty(classes)
        # The last region is the whole picture, for the context.
        regions = np.concatenate([boxes, np.array([[0, 0, picture.width, picture.height]], np.float32)])
        with torch.no_grad(), mixed_precision(device):
            if scoring == "shared":
                array, scale = prepare_picture(image, long_side)
                maps = network.trunk_maps(to_device(array, device))
                for part in torch.from_numpy(regions * np.float32(scale)).to(device).split(CHUNK):
                    outputs.append(network.region_head(maps, part))
            else:
                for start in range(0, len(regions), CROPS):
                    crops = crop_regions(image, regions[start : start + CROPS])
                    outputs.append(network.score_crops(network.trunk(to_device(crops, device))))
        logits = torch.cat([output.logits for output in outputs])[:-1].float()
        if (context := outputs[-1].context) is not None:
            logits = logits + context[-1].float()
        probabilities = logits.softmax(1).cpu().numpy()
        deltas = None
        if box_regression:
            deltas = torch.cat([output.deltas for output in outputs])[:-1].float().cpu().numpy()
        size = picture.width, picture.height
        found = suppress(boxes, probabilities, deltas, size, classes, DetectorSettings(min_score=0.01), objectness)
        return on_labelled(picture, found)

    network.eval()
    with thread_pool(usable_cores() if device == "cpu" else 1) as pool:
        found = dict(zip((picture.image_id for picture in pictures), pool.map(detect, pictures), strict=True))
    network.train()
    return float(evaluate_voc(pictures, found, classes, metric="voc07")["mAP"]) if pictures else math.nan


def on_labelled(picture: Picture, found: Detections) -> Detections:
    """Return the detections of classes that are boxed in a picture: of the others nobody knows whether they are right.

    Examples
    --------
    >>> empty, none = np.zeros((0, 4), np.float32), np.zeros(0, bool)
    >>> picture = Picture("a", Path("a.jpg"), 20, 10, empty, np.zeros(0, np.int64), none, none, labelled=(1,))
    >>> on_labelled(picture, Detections(np.float32([[0, 0, 8, 8]] * 2), [0.9, 0.8], [0, 1], ("cat", "dog"))).names
    ['dog']
    """
    return found if picture.labelled is None else found[np.isin(found.labels, picture.labelled)]


def match_set_aside(
    detector: Detector, pictures: Sequence[Picture], max_pixels: int = MAX_PIXELS
) -> dict[str, Matches]:
    """Match what a detector finds, before its scores are calibrated, with the objects of pictures set aside.

    Parameters
    ----------
    detector : Detector
        Its own calibration, if it has one, and ``min_score`` are not used.
    pictures : sequence of Picture
        With labels of the detector's classes. Those in which objects of labelled classes may be unlabelled are left
        out.
    max_pixels : int
        See `inception_rcnn.data.read_image`.

    Returns
    -------
    dict of str to Matches
        By class, as `inception_rcnn.eval.match_voc` returns them: for `summarise_matches`, and for
        `fit_score_calibration`, whose result is the ``calibration`` of a `RegionModel`.

    Raises
    ------
    EvaluationError
        If the pictures were read with other classes.
    ImageError
        If a picture cannot be read.

    Examples
    --------
    >>> match_set_aside(Detector.load("voc", device="cpu"), [])["cat"].positives
    0
    """
    pictures = [picture for picture in pictures if picture.exhaustive]
    settings = replace(detector.settings, calibrated=False, min_score=0.01)
    raw = Detector(detector.scorers, detector.proposer, settings)
    found = {one.image_id: on_labelled(one, raw(read_pixels(one, max_pixels), one.path.name)) for one in pictures}
    return match_voc(pictures, found, detector.classes)


def propose_all(
    head: GridHead | VectorHead,
    trunk: Callable[[Tensor], Tensor],
    pictures: Sequence[Picture],
    *,
    long_side: int,
    limit: int,
    device: str,
    max_pixels: int = MAX_PIXELS,
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Propose boxes of pictures with a MultiBox head in training.

    Parameters
    ----------
    head : GridHead or VectorHead
    trunk : callable
        Pictures (1, 3, H, W) -> features (1, 832, h, w).
    pictures : sequence of Picture
    long_side : int
        Pixels.
    limit : int
        Boxes of a picture.
    device : str
    max_pixels : int
        See `inception_rcnn.data.read_image`.

    Returns
    -------
    dict of str to (ndarray, shape (N, 4), float32; ndarray, shape (N,), float32)
        By image id, boxes in pixels of the picture and confidences, best first.

    Examples
    --------
    >>> head = GridHead(np.full((2, 1, 2), 40, np.float32), channels=4)
    >>> propose_all(head, lambda picture: torch.zeros(1, 832, 4, 4), [], long_side=640, limit=200, device="cpu")
    {}
    """

    def propose(picture: Picture) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        array, scale = prepare_picture(read_pixels(picture, max_pixels), long_side)
        with torch.no_grad(), mixed_precision(device):
            features = trunk(to_device(array, device))
            residuals, logits = (made[0].float().cpu().numpy() for made in head(features))
        size = picture.width * scale, picture.height * scale
        priors = place_priors(head.priors, (features.shape[2], features.shape[3]), size)
        boxes, scores = rank_boxes(priors, residuals, logits, size, limit=limit)
        return boxes / np.float32(scale), scores

    with thread_pool(usable_cores() if device == "cpu" else 1) as pool:
        return dict(zip((picture.image_id for picture in pictures), pool.map(propose, pictures), strict=True))


def read_crop(
    path: Path, cut: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], max_pixels: int
) -> NDArray[np.uint8] | ImageError:
    """Read a picture and cut a crop out of it. Return the error if it cannot be read."""
    try:
        return cut(read_image(path, max_pixels))
    except ImageError as error:
        return error


def readable_crops(
    examples: Sequence[tuple[NDArray[np.uint8] | ImageError, int]], warn: Callable[[str], None]
) -> tuple[list[NDArray[np.uint8]], Tensor]:
    """Return crops and labels (N,) int64 of the pictures that can be read; `warn` gets a line for each other one."""
    crops, labels = [], []
    for crop, label in examples:
        if isinstance(crop, ImageError):
            warn(str(crop))
        else:
            crops.append(crop)
            labels.append(label)
    return crops, torch.tensor(labels, dtype=torch.int64)


def crops_to_input(crops: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], device: str) -> Tensor:
    """Make the published network's input (N, 3, H, W) of RGB pictures (N, H, W, 3), in channels-last memory."""
    array = torch.from_numpy(np.ascontiguousarray(crops)).to(device)  # As bytes: a quarter of the transfer.
    return (array.flip(3).float() - torch.from_numpy(MEAN_BGR).to(device)).permute(0, 3, 1, 2)


def measure_errors(
    network: nn.Module,
    samples: Sequence[Sample],
    *,
    batch: int,
    size: int,
    group: ProcessGroup = SINGLE_PROCESS,
    warn: Callable[[str], None] = lambda text: None,
    max_pixels: int = MAX_PIXELS,
) -> dict[str, float]:
    """Measure the top-1 and top-5 error of a classifier on the centre crops of pictures.

    Parameters
    ----------
    network : Module
        Crops (N, 3, size, size), BGR, 0..255, minus the mean -> logits (N, C).
    samples : sequence of (Path, int)
        Pictures and their classes.
    batch : int
        Pictures at a time.
    size : int
        Pixels of a crop's sides.
    group : ProcessGroup
        Every process measures its share.
    warn : callable
        Gets a line for every picture that cannot be read.
    max_pixels : int
        See `inception_rcnn.data.read_image`.

    Returns
    -------
    dict of str to float
        ``"top_1_error"`` and ``"top_5_error"`` as shares of the pictures that can be read, left out if there are none;
        ``"unreadable"``, the number of the others.

    References
    ----------
    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, section 4.1.

    Examples
    --------
    >>> from inception_rcnn.backbone.googlenet import GoogLeNet
    >>> measure_errors(GoogLeNet(classes=10), [(Path("absent.jpg"), 0)], batch=32, size=224, warn=print)
    absent.jpg: does not exist; check the name
    {'unreadable': 1.0}
    """
    own = samples[group.rank :: group.world]
    parts = [own[start : start + batch] for start in range(0, len(own), batch)]

    def read(part: Sequence[Sample]) -> list[tuple[NDArray[np.uint8] | ImageError, int]]:
        cut = functools.partial(centre_crop, size=size)
        return [(read_crop(path, cut, max_pixels), label) for path, label in part]

    counts = torch.zeros(4, dtype=torch.float64)
    was_training, readers = network.training, 1 if group.device == "cpu" else usable_cores()
    network.eval()
    with torch.no_grad(), ThreadPoolExecutor(readers) as pool:
        for part, future in prefetch(pool, read, parts, limit=readers + 3):
            crops, labels = readable_crops(future.result(), warn)
            counts[3] += len(part) - len(crops)
            if not crops:
                continue
            with mixed_precision(group.device):
                logits = network(crops_to_input(crops, group.device)).float().cpu()
            best = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
            counts[:3] += torch.tensor([best[:, 0].sum(), best.sum(), len(labels)])
    network.train(was_training)
    counts = counts.to(group.device)
    group.all_reduce([counts])
    first, five, number, unreadable = counts.tolist()
    errors = {"top_1_error": 1 - first / number, "top_5_error": 1 - five / number} if number else {}
    return errors | {"unreadable": unreadable}
