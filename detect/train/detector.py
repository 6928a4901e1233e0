"""Training the region network: Fast R-CNN's recipe on GoogLeNet.

Regions of interest sampled per picture, softmax and per-class box regression, everything from inception 3a up
trained by momentum SGD (Girshick, "Fast R-CNN", ICCV 2015). Every step draws from its own seed, so that a run that
was interrupted and resumed gives the weights of one that was not.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbone.preprocessing import crop_regions, encode_boxes, prepare_picture
from ...backbone.regions.network import RegionNetwork, pool_crops, roi_align
from ...backbone.weights.model_file import in_trunk
from ...data import Picture, box_iou, read_image
from ...data.errors import SettingError
from ...data.system.processes import prefetch, usable_cores
from ...proposals.multibox.loss import picture_loss
from ...proposals.multibox.network import GridHead, VectorHead
from .augmentation import SCALES, augment
from .checkpoint import begin_at, fingerprint, save_checkpoint, weights_hash
from .loop import (
    SAVE_SECONDS,
    add_up,
    bfloat16_is_faster,
    cut_steps,
    enough_steps,
    learning_rate_at,
    take_step,
    to_device,
    torch_threads,
)
from .process_group import SINGLE_PROCESS, ProcessGroup
from .validation import Proposed, measure_map

# Regions are drawn from so many of a picture's proposals: those that a detector scores, and the next.
CANDIDATES = 300
# Channels of inception 5b, and which share of them a region loses in training.
CHANNELS = 1024
DROPOUT = 0.4
# Weight of the loss of a MultiBox that learns along: with it the trunk hears as much of it as of the regions.
MULTIBOX = 0.2
LEARNING_RATES = {"sgd": 0.003, "adamw": 0.0001}


class SampledRegions(NamedTuple):
    """Regions of one picture to learn from.

    Attributes
    ----------
    boxes : ndarray, shape (R, 4), float32
        In pixels of the picture.
    labels : ndarray, shape (R,), int64
        0 is background, 1 + c is class c.
    targets : ndarray, shape (R, 4), float32
        Box deltas; zero for background.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    targets: NDArray[np.float32]


def repeat_factors(pictures: Sequence[Picture], classes: int, threshold: float | None = None) -> NDArray[np.float64]:
    """How often to show each picture, so that thin classes are seen often enough.

    Parameters
    ----------
    pictures : sequence of Picture
    classes : int
        Number of classes.
    threshold : float, optional
        Classes in less than this share of the pictures are shown more often. Default 0.1, or with more than 20 classes
        2 over their number: of 200 nearly all are in less than a tenth.

    Returns
    -------
    ndarray, shape (len(pictures),), float64
        At least 1 each: ``max over its classes of sqrt(threshold / share of pictures with the class)``.

    References
    ----------
    Gupta et al., "LVIS", CVPR 2019, section 5.

    Examples
    --------
    >>> repeat_factors([], 20).shape
    (0,)
    """
    threshold = min(0.1, 2 / classes) if threshold is None else threshold
    present = np.zeros((len(pictures), classes), dtype=bool)
    for row, picture in zip(present, pictures, strict=True):
        row[picture.labels] = True
    share = present.sum(0) / max(1, len(pictures))
    factor = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1e-9)))
    return np.where(present, factor, 1.0).max(axis=1, initial=1.0)


def _jitter(boxes: NDArray[np.float32], copies: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Copy boxes (N, 4), shifted by up to 15 % of their sides and rescaled by up to a quarter."""
    boxes = np.repeat(boxes, copies, axis=0)
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + sides * rng.uniform(-0.15, 0.15, sides.shape)
    half = sides * np.exp(rng.uniform(-0.25, 0.25, sides.shape)) / 2
    return np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)


def sample_regions(
    picture: Picture,
    proposals: NDArray[np.float32],
    rng: np.random.Generator,
    *,
    number: int = 32,
    foreground: float = 0.25,
) -> SampledRegions:
    """Draw the regions of a picture that one training step learns from.

    Foreground has IoU >= 0.5 with an object; background less, three quarters of it from [0.1, 0.5) where the hard
    cases are. Regions on difficult objects and crowds are neither. Where not every object of the labelled classes is
    boxed, regions away from those that are could be anything and are not drawn.

    Parameters
    ----------
    picture : Picture
    proposals : ndarray, shape (N, 4), float32
        In pixels of the picture.
    rng : numpy.random.Generator
    number : int
        Regions to draw; fewer come back if there are not enough.
    foreground : float
        Largest share of foreground.

    Returns
    -------
    SampledRegions

    References
    ----------
    Girshick, "Fast R-CNN", ICCV 2015, section 2.3.
    """
    known = ~(picture.difficult | picture.crowd)
    objects, labels = picture.boxes[known], picture.labels[known]
    candidates = np.concatenate([objects, _jitter(objects, 4, rng), proposals])
    limits = np.array([picture.width, picture.height] * 2, dtype=np.float32)
    candidates = np.clip(candidates, 0, limits)
    candidates = candidates[((candidates[:, 2:] - candidates[:, :2]) >= 8).all(1)]
    overlap = np.zeros(len(candidates), dtype=np.float32)
    nearest = np.zeros(len(candidates), dtype=np.int64)
    if len(objects):
        iou = box_iou(candidates, objects)
        overlap, nearest = iou.max(1), iou.argmax(1)
    usable = np.ones(len(candidates), dtype=bool)
    if not known.all():
        # Share of the region that a difficult object or crowd covers, and their IoU: either makes it ambiguous.
        doubtful = picture.boxes[~known]
        low = np.maximum(candidates[:, None, :2], doubtful[None, :, :2])
        high = np.minimum(candidates[:, None, 2:], doubtful[None, :, 2:])
        covered = np.clip(high - low, 0, None).prod(2) / (candidates[:, 2:] - candidates[:, :2]).prod(1)[:, None]
        usable = (covered.max(1) < 0.5) & (box_iou(candidates, doubtful).max(1) < 0.3)
    chosen_foreground = np.flatnonzero(overlap >= 0.5)
    hard = np.flatnonzero(usable & (overlap < 0.5) & (overlap >= 0.1))
    easy = np.flatnonzero(usable & (overlap < 0.1)) if picture.exhaustive else np.empty(0, dtype=np.int64)

    def draw(indices: NDArray[np.intp], wanted: int) -> NDArray[np.intp]:
        return rng.permutation(indices)[: max(0, wanted)]

    # Objects take turns, or the largest, with hundreds of good proposals, would crowd out the small ones.
    per_object = np.bincount(nearest[chosen_foreground], minlength=max(1, len(objects)))
    order = np.log(rng.random(len(chosen_foreground)) + 1e-12) * per_object[nearest[chosen_foreground]]
    wanted = round(number * foreground)
    chosen_foreground = chosen_foreground[np.argsort(-order, kind="stable")[:wanted]]
    background = number - len(chosen_foreground)
    chosen_hard = draw(hard, max(round(background * 0.75), background - len(easy)))
    chosen_easy = draw(easy, background - len(chosen_hard))
    chosen = np.concatenate([chosen_foreground, chosen_hard, chosen_easy]).astype(np.int64)
    boxes = candidates[chosen]
    region_labels = np.zeros(len(chosen), dtype=np.int64)
    targets = np.zeros((len(chosen), 4), dtype=np.float32)
    count = len(chosen_foreground)
    if count:
        region_labels[:count] = labels[nearest[chosen_foreground]] + 1
        targets[:count] = encode_boxes(boxes[:count], objects[nearest[chosen_foreground]])
    return SampledRegions(boxes, region_labels, targets)


def detection_loss(
    logits: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Classification and box regression loss, each averaged over all regions.

    Parameters
    ----------
    logits : Tensor, shape (R, 1 + C)
    deltas : Tensor, shape (R, C, 4)
    labels : Tensor, shape (R,), int64
        0 is background.
    targets : Tensor, shape (R, 4)
    allowed : Tensor, shape (R, 1 + C), bool, optional
        For background regions of pictures where only some classes are labelled: what the region may be (background
        or a class that nobody labelled there). Their loss is ``-log(sum of the allowed probabilities)``.

    Returns
    -------
    classification, regression : Tensor
        Scalars.

    Examples
    --------
    >>> c, r = detection_loss(torch.zeros(2, 21), torch.zeros(2, 20, 4), torch.tensor([0, 3]), torch.zeros(2, 4))
    >>> round(c.item(), 4), r.item()
    (3.0445, 0.0)
    """
    log_probability = F.log_softmax(logits, dim=1)
    picked = log_probability.gather(1, labels[:, None])[:, 0]
    if allowed is not None:
        any_allowed = log_probability.masked_fill(~allowed, -torch.inf).logsumexp(1)
        picked = torch.where(labels == 0, any_allowed, picked)
    positive = labels.nonzero()[:, 0]
    predicted = deltas[positive, labels[positive] - 1]
    regression = F.smooth_l1_loss(predicted, targets[positive], reduction="sum") / max(1, len(labels))
    return -picked.sum() / max(1, len(labels)), regression


class DetectorExample(NamedTuple):
    """One picture made ready for the network."""

    array: NDArray[np.float32]  # (1, 3, h, w), or the regions' crops (R, 3, 224, 224)
    regions: SampledRegions  # boxes in pixels of `array`, if that is the picture
    allowed: NDArray[np.bool_]
    kept: NDArray[np.float32]  # (R, 1024), see `RegionNetwork.score_regions`
    picture: Picture  # as varied


def _load_example(
    picture: Picture,
    proposals: NDArray[np.float32],
    rng: np.random.Generator,
    classes: int,
    regions_per_picture: int,
    long_sides: Sequence[int] | None,
) -> DetectorExample:
    """Read a picture, vary it, draw its regions; without `long_sides` these become crops."""
    image, picture, proposals = augment(read_image(picture.path), picture, proposals[:CANDIDATES], rng, long_sides)
    regions = sample_regions(picture, proposals, rng, number=regions_per_picture)
    # Drawn here and not by torch, whose generator is shared by the threads in whatever order they come.
    kept = (rng.random((len(regions.labels), CHANNELS)) >= DROPOUT).astype(np.float32) / (1 - DROPOUT)
    allowed = np.ones(classes + 1, dtype=bool)
    if picture.labelled is None:
        allowed[1:] = False
    else:
        allowed[[label + 1 for label in picture.labelled]] = False
    if long_sides is None:
        return DetectorExample(crop_regions(image, regions.boxes), regions, allowed, kept, picture)
    array, _ = prepare_picture(image, max(image.shape[:2]))
    return DetectorExample(array, regions, allowed, kept, picture)


def _epoch_order(weights: NDArray[np.float64], seed: int, epoch: int) -> NDArray[np.intp]:
    """Picture indices of one epoch: each ``weights`` times, the fraction by chance, shuffled."""
    rng = np.random.default_rng([seed, epoch])
    times = np.floor(weights) + (rng.random(len(weights)) < weights % 1)
    return rng.permutation(np.repeat(np.arange(len(weights)), times.astype(np.int64)))


def _steps(
    weights: NDArray[np.float64], seed: int, batch: int, epochs: float
) -> tuple[list[NDArray[np.intp]], set[int]]:
    """Picture indices of every step of the run, and after how many steps an epoch ends."""
    orders = [_epoch_order(weights, seed, epoch) for epoch in range(math.ceil(epochs))]
    return cut_steps(orders, round(sum(len(order) for order in orders) * epochs / math.ceil(epochs)), batch)


def train_detector(
    network: RegionNetwork,
    pictures: Sequence[Picture],
    proposals: Callable[[Picture], Proposed],
    validation: Sequence[Picture] = (),
    *,
    multibox: GridHead | VectorHead | None = None,
    scoring: str = "shared",
    epochs: float = 2.5,
    batch: int = 4,
    regions_per_picture: int = 48,
    optimizer: str = "sgd",
    learning_rate: float | None = None,
    schedule: str = "cosine",
    box_regression: bool = True,
    freeze: str = "stem",
    scales: Sequence[float] = SCALES,
    long_side: int = 640,
    seed: int = 0,
    group: ProcessGroup = SINGLE_PROCESS,
    checkpoint: Path | None = None,
    resume: bool = False,
    time_limit: float | None = None,
    report: Callable[[dict[str, float]], None] = lambda row: None,
) -> bool:
    """Fine-tune a region network in place.

    Parameters
    ----------
    network : RegionNetwork
        With ImageNet weights in its ``googlenet``, or trained before.
    pictures : sequence of Picture
    proposals : callable
        Picture -> boxes (N, 4) float32 in its pixels, best first, and their objectness (N,) or None.
    validation : sequence of Picture
        To measure mAP on after every epoch, see `measure_map`.
    multibox : GridHead or VectorHead, optional
        The head of a MultiBox that stands on the network's trunk: it learns along, in place, and the trunk from both.
        Not with crops.
    scoring : {"shared", "crops"}
        Read regions out of the features of the whole picture as Fast R-CNN does, or warp each to a crop as R-CNN does.
    epochs : float
        Passes over the pictures; a repeated picture (see `repeat_factors`) counts once for each showing.
    batch : int
        Pictures a step, of all processes together.
    regions_per_picture : int
    optimizer : {"sgd", "adamw"}
        Momentum SGD as R-CNN's, or AdamW, which bears a MultiBox's uneven loss.
    learning_rate : float, optional
        Its peak; default 0.003 for SGD, 0.0001 for AdamW. New layers learn at twice that, a MultiBox at five times.
    schedule : {"cosine", "step"}
        See `learning_rate_at`.
    box_regression : bool
        False for the setting of the GoogLeNet team, who had none.
    freeze : {"stem", "trunk", "googlenet"}
        What stays as it is: the layers before inception 3a, which no recipe trains; everything up to inception 4e, so
        that what else stands on it, a MultiBox or another member of an ensemble, goes on fitting; or all but the new
        layers.
    scales : sequence of float
        Pictures are resized to one of these shares of `long_side`, drawn for each showing; of no meaning for crops.
    long_side : int
        Pixels of the longer side of pictures when the network is used, and of those of `validation`.
    seed : int
    group : ProcessGroup
        The device, and the other processes that train with this one. bfloat16 is used where it is faster.
    checkpoint : Path, optional
        Where to keep the state, saved every minute and at the end by the first process, and read by all.
    resume : bool
        Go on from `checkpoint` if it exists: on a CPU with as many cores, bit for bit what would have been.
    time_limit : float, optional
        Seconds after which to save and stop.
    report : callable
        Gets, in the first process, ``{"step", "steps", "epoch", "classification", "regression", "accuracy",
        "learning_rate", "seconds_left"}`` every 50 steps and at the end of every epoch, then with ``"mAP"`` too.

    Returns
    -------
    bool
        True if all steps were done, False if `time_limit` came first.

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    CheckpointError
        If `checkpoint` was made with other settings or pictures, or there are fewer pictures than one batch.
    """
    learning_rate = LEARNING_RATES[optimizer] if learning_rate is None else learning_rate
    steps, ends = _steps(repeat_factors(pictures, network.classes), seed, batch, epochs)
    settings = {
        "pictures": fingerprint(pictures), "epochs": epochs, "batch": batch, "regions": regions_per_picture,
        "optimizer": optimizer, "learning_rate": learning_rate, "schedule": schedule,
        "box_regression": box_regression, "scoring": scoring,
        "scales": list(scales), "long_side": long_side, "seed": seed, "freeze": freeze, "start": weights_hash(network),
        "proposals": getattr(proposals, "settings", ""), "multibox": multibox and weights_hash(multibox),
    }  # fmt: skip
    enough_steps(steps, len(pictures), batch)
    if multibox is not None and scoring == "crops":
        raise SettingError("a MultiBox looks at whole pictures; it cannot learn along with crops")
    device = group.device
    modules = nn.ModuleDict({"detector": network})
    if multibox is not None:
        modules["multibox"] = multibox.to(device).to(memory_format=torch.channels_last).train()
    network.to(device).to(memory_format=torch.channels_last).train()
    for name, parameter in network.named_parameters():
        # The first pass is fitted afterwards.
        frozen = (in_trunk(name) and (freeze == "trunk" or "inception" not in name)) or name.startswith("first_pass.")
        parameter.requires_grad_(not (frozen or (freeze == "googlenet" and name.startswith("googlenet."))))
    new = [*network.score.parameters(), *network.delta.parameters()]
    old = [p for p in network.googlenet.parameters() if p.requires_grad]
    own = [] if multibox is None else [*multibox.parameters()]
    parameters = [*old, *new, *own]
    groups: list[dict[str, Any]] = [
        {"params": old, "factor": 1.0}, {"params": new, "factor": 2.0}, {"params": own, "factor": 5.0},
    ]  # fmt: skip
    solvers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": functools.partial(torch.optim.SGD, momentum=0.9, weight_decay=5e-4),
        "adamw": functools.partial(torch.optim.AdamW, weight_decay=0.01),
    }
    solver = solvers[optimizer](groups, lr=learning_rate)
    start = begin_at(checkpoint, modules, solver, settings, group, resume=resume)
    began = saved = time.monotonic()
    sides = [round(long_side * scale) for scale in scales] if scoring == "shared" else None

    def examples(step: int) -> list[DetectorExample]:
        share = [*enumerate(steps[step])][group.rank :: group.world]
        return [
            _load_example(
                pictures[i],
                proposals(pictures[i])[0],
                np.random.default_rng([seed, step, slot]),
                network.classes,
                regions_per_picture,
                sides,
            )
            for slot, i in share
        ]

    # On a CPU one thread per picture, each with its own backward pass: threads inside an operation wait for each
    # other a thousand times a step. Gradients are added in a fixed order, so that the sum is the same every time.
    workers = min(batch, usable_cores()) if device == "cpu" else 1
    half = bfloat16_is_faster(device)

    def part_losses(part: list[DetectorExample]) -> tuple[list[Tensor], NDArray[np.float64]]:
        return _losses(network, part, device, scoring=scoring, half=half, multibox=multibox)

    def part_gradients(losses: Sequence[Tensor], regions: float, matched: float) -> Sequence[Tensor]:
        classification, regression, location, confidence = losses
        loss = (classification + regression if box_regression else classification) / regions
        loss = loss + MULTIBOX * (location + confidence) / matched
        if not loss.requires_grad:  # Not one region.
            return [torch.zeros_like(parameter) for parameter in parameters]
        return torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)

    totals, window = np.zeros(6), 0
    threads = torch.get_num_threads() if device != "cpu" else 1
    with (
        torch_threads(threads),
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool,
        ThreadPoolExecutor(1) as reader,
    ):
        for step, future in prefetch(reader, examples, range(start, len(steps)), limit=4):
            loaded = future.result()
            losses, counts = zip(*pool.map(part_losses, [loaded[i::workers] for i in range(workers)]), strict=True)
            # What is averaged over is known only when all pictures of the step, of all processes, are through.
            counted = torch.from_numpy(np.sum(counts, axis=0)).to(device)
            group.all_reduce([counted])
            right, positive, *divisors = counted.tolist()
            regions, matched = (max(1.0, divisor) for divisor in divisors)
            parts = pool.map(part_gradients, losses, [regions] * workers, [matched] * workers)
            gradients = [functools.reduce(torch.add, some) for some in zip(*parts, strict=True)]
            late = time_limit is not None and time.monotonic() - began > time_limit
            sums = np.sum([[loss.item() for loss in part] for part in losses], axis=0)
            *sums, any_late = add_up(group, gradients, [*sums, late])
            figures = np.array([*np.divide(sums, [regions, regions, matched, matched]), right, positive])
            if not np.isfinite(figures).all():
                names = ", ".join(pictures[i].path.name for i in steps[step])
                raise FloatingPointError(f"the loss is not finite at step {step} ({names}); lower the learning rate")
            rate = learning_rate_at(step, len(steps), learning_rate, min(200, len(steps) // 10), schedule)
            take_step(solver, parameters, gradients, rate)
            totals, window = totals + figures, window + 1
            done = step + 1
            due = time.monotonic() - saved > SAVE_SECONDS or done in ends or any_late
            if group.rank == 0 and checkpoint is not None and due:
                save_checkpoint(checkpoint, modules, solver, done, settings)
                saved = time.monotonic()
            if group.rank == 0 and (done % 50 == 0 or done in ends):
                spent = time.monotonic() - began
                row = {
                    "step": done,
                    "steps": len(steps),
                    "epoch": epochs * done / len(steps),
                    "classification": totals[0] / window,
                    "regression": totals[1] / window,
                    "accuracy": totals[4] / max(1, totals[5]),
                    "learning_rate": rate,
                    "seconds_left": spent / (done - start) * (len(steps) - done),
                }
                if multibox is not None:
                    row |= {"location": totals[2] / window, "confidence": totals[3] / window}
                # Where nothing is labelled exhaustively there is nothing to measure on.
                if done in ends and any(picture.labelled is None for picture in validation):
                    row["mAP"] = measure_map(
                        network, validation, proposals, scoring=scoring, box_regression=box_regression,
                        long_side=long_side, device=device,
                    )  # fmt: skip
                report(row)
                totals, window = np.zeros(6), 0
            if any_late and done < len(steps):
                return False
    return True


def _losses(
    network: RegionNetwork,
    examples: Sequence[DetectorExample],
    device: str,
    *,
    scoring: str,
    half: bool,
    multibox: GridHead | VectorHead | None = None,
) -> tuple[list[Tensor], NDArray[np.float64]]:
    """Sum the classification and the regression loss of some pictures' regions, and a MultiBox's two.

    The second result counts the regions that are foreground and classified right, those that are foreground, all of
    them, and the predictions of a MultiBox that are matched.
    """
    examples = [example for example in examples if len(example.regions.labels)]
    nothing = torch.zeros((), device=device)
    if not examples:
        return [nothing] * 4, np.zeros(4)
    location = confidence = nothing
    matched = 0
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
        aligned = []
        for example in examples:
            # What is frozen of the trunk notes nothing for the way back.
            features = network.trunk(to_device(example.array, device))
            if scoring == "shared":
                boxes = torch.from_numpy(example.regions.boxes).to(device)
                aligned.append(roi_align(network.project_channels(features), boxes))
            else:
                aligned.append(network.project_channels(pool_crops(features)))
            if multibox is not None:
                *parts, count = picture_loss(multibox, features, example.picture, many=isinstance(multibox, GridHead))
                location, confidence, matched = location + parts[0], confidence + parts[1], matched + count
        kept = torch.from_numpy(np.concatenate([example.kept for example in examples])).to(device)
        logits, deltas = network.score_regions(torch.cat(aligned), kept)
    labels = torch.from_numpy(np.concatenate([e.regions.labels for e in examples])).to(device)
    targets = torch.from_numpy(np.concatenate([e.regions.targets for e in examples])).to(device)
    allowed = np.concatenate([np.repeat(e.allowed[None], len(e.regions.labels), 0) for e in examples])
    means = detection_loss(logits.float(), deltas.float(), labels, targets, torch.from_numpy(allowed).to(device))
    right = (logits.argmax(1) == labels)[labels > 0].sum().item()
    counts = [right, (labels > 0).sum().item(), len(labels), matched]
    return [*(mean * len(labels) for mean in means), location, confidence], np.array(counts, np.float64)
