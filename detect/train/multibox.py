"""Training MultiBox: a head on a detector's trunk, which stays as it is, or both, from ImageNet weights.

The loss of Erhan et al., "Scalable Object Detection using Deep Neural Networks", CVPR 2014, on the network of
`proposals.multibox_network`, by AdamW. Every step draws from its own seed, so that a run that was interrupted and
resumed gives the weights of one that was not.
"""

from __future__ import annotations

import functools
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...backbone.preprocessing import prepare_picture
from ...backbone.weights.model_file import in_trunk
from ...data import Picture, read_image
from ...data.errors import SettingError
from ...data.system.processes import prefetch, usable_cores
from ...eval import evaluate_proposals
from ...proposals import MergedProposals
from ...proposals.calibration import RankingCalibration, fit_calibration
from ...proposals.multibox.loss import picture_loss
from ...proposals.multibox.network import GridHead, VectorHead
from ...proposals.multibox.priors import cluster_boxes, cluster_sides
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
    torch_threads,
)
from .process_group import SINGLE_PROCESS, ProcessGroup
from .validation import _trunk_features, propose_all

LIMITS = (50, 200)


def find_priors(
    pictures: Sequence[Picture], *, head: str = "grid", number: int = 5, long_side: int = 640, seed: int = 0
) -> NDArray[np.float32]:
    """Find priors for the objects of some pictures.

    Parameters
    ----------
    pictures : sequence of Picture
    head : {"grid", "vector"}
        For `GridHead` or `VectorHead`.
    number : int
        Priors of a cell, or of the whole vector.
    long_side : int
        Pixels of the longer side of the pictures when the network gets them.
    seed : int

    Returns
    -------
    ndarray, float32
        (5, number, 2) widths and heights in pixels, or (number, 4) boxes as shares of the picture.

    Raises
    ------
    ValueError
        If there are not enough objects, or the head is unknown.

    Examples
    --------
    >>> box, no = np.array([[0, 0, 20, 10]], np.float32), np.array([False])
    >>> picture = Picture("a", Path("a.jpg"), 40, 20, box, np.array([7]), no, no)
    >>> find_priors([picture], head="vector", number=1).tolist()
    [[0.0, 0.0, 0.5, 0.5]]
    """
    if head not in ("grid", "vector"):
        raise SettingError(f"head {head!r} is unknown; use grid or vector")
    boxes = []
    for picture in pictures:
        size = np.array([picture.width, picture.height] * 2, np.float32)
        scale = np.float32(long_side / max(picture.width, picture.height)) if head == "grid" else 1 / size
        boxes.append(picture.boxes[~picture.crowd] * scale)
    everything = np.concatenate([np.zeros((0, 4), np.float32), *boxes])
    if head == "grid":
        return cluster_sides(everything, each=number, seed=seed)
    return cluster_boxes(everything, number, seed=seed)


class MultiBoxExample(NamedTuple):
    """One picture made ready for the network."""

    array: NDArray[np.float32]
    picture: Picture  # boxes in pixels of `array`


def _load_example(picture: Picture, rng: np.random.Generator, long_sides: Sequence[int]) -> MultiBoxExample:
    nothing = np.zeros((0, 4), np.float32)
    image, picture, _ = augment(read_image(picture.path), picture, nothing, rng, long_sides)
    array, _ = prepare_picture(image, max(image.shape[:2]))
    return MultiBoxExample(array, picture)


def _gradients(
    head: GridHead | VectorHead,
    trunk: Callable[[Tensor], Tensor],
    parameters: Sequence[nn.Parameter],
    examples: Sequence[MultiBoxExample],
    device: str,
    *,
    whole: bool,
    many: bool,
) -> tuple[list[Tensor], NDArray[np.float64]]:
    """Gradients of the summed loss of some pictures, its parts, and the number of matched predictions."""
    total = [torch.zeros_like(parameter) for parameter in parameters]
    figures = np.zeros(3)
    for example in examples:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16_is_faster(device)):
            with torch.set_grad_enabled(whole):
                features = _trunk_features(trunk, example.array, device)
            location, confidence, matched = picture_loss(head, features, example.picture, many=many)
        figures += [location.item(), confidence.item(), matched]
        if not np.isfinite(figures).all():
            return total, figures
        for one, gradient in zip(total, torch.autograd.grad(location + confidence, parameters), strict=True):
            one += gradient
    return total, figures


def calibrate(
    pictures: Sequence[Picture], found: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
) -> RankingCalibration:
    """Find how a head's boxes are to be merged with those of selective search with superpixels twice as large.

    Parameters
    ----------
    pictures : sequence of Picture
        Not trained on. Difficult objects and crowds are left out.
    found : mapping of str to (ndarray, ndarray)
        Boxes and confidences by image id, see `propose_all`.

    Returns
    -------
    RankingCalibration

    Raises
    ------
    ValueError
        See `inception_rcnn.proposals.merge.fit_calibration`.
    """
    search = MergedProposals.SEARCH
    searched = [search(read_image(picture.path)) for picture in pictures]
    objects = [picture.boxes[~(picture.difficult | picture.crowd)] for picture in pictures]
    return fit_calibration(objects, searched, [found[picture.image_id] for picture in pictures])


def train_multibox(
    head: GridHead | VectorHead,
    trunk: nn.Module,
    pictures: Sequence[Picture],
    validation: Sequence[Picture] = (),
    *,
    whole: bool = False,
    epochs: float = 2.3,
    batch: int = 4,
    learning_rate: float = 0.001,
    many: bool = True,
    scales: Sequence[float] = SCALES,
    long_side: int = 640,
    seed: int = 0,
    group: ProcessGroup = SINGLE_PROCESS,
    checkpoint: Path | None = None,
    resume: bool = False,
    time_limit: float | None = None,
    report: Callable[[dict[str, float]], None] = lambda row: None,
) -> bool:
    """Train a MultiBox head, and its trunk if asked for, in place.

    Parameters
    ----------
    head : GridHead or VectorHead
    trunk : Module
        `RegionNetwork`: its method ``trunk`` gives pictures (1, 3, H, W) -> features (1, 832, h, w).
    pictures : sequence of Picture
        To learn from. Difficult objects and crowds count neither way; pictures where objects may be unlabelled
        (``labelled`` is not None) are no evidence of background.
    validation : sequence of Picture
        To measure recall on after every epoch.
    whole : bool
        Train the trunk too, from inception 3a up, at a tenth of the head's learning rate. Otherwise it stays as it is.
    epochs : float
        Passes over the pictures.
    batch : int
        Pictures a step.
    learning_rate : float
        Its peak.
    many : bool
        See `proposals.multibox_network.set_targets`.
    scales : sequence of float
        Pictures are resized to one of these shares of `long_side`, drawn for each showing.
    long_side : int
        Pixels of the longer side of pictures when the head is used, and of those of `validation`.
    seed : int
    group : ProcessGroup
        The device, and the other processes that train with this one. bfloat16 is used where it is faster.
    checkpoint : Path, optional
        Where to keep the state, saved every minute and at the end of every epoch by the first process, and read by all.
    resume : bool
        Go on from `checkpoint` if it exists: on a machine with as many cores, bit for bit what would have been.
    time_limit : float, optional
        Seconds after which to save and stop.
    report : callable
        Gets, in the first process, ``{"step", "steps", "epoch", "location", "confidence", "learning_rate",
        "seconds_left"}`` every 50 steps and at the end of every epoch, then with ``"recall_50"`` and ``"recall_200"``
        too.

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

    References
    ----------
    Erhan et al., CVPR 2014, section 3; Szegedy et al., arXiv 1412.1441, section 3.

    Examples
    --------
    >>> import tempfile
    >>> import cv2
    >>> from inception_rcnn.backbone.regions.network import RegionNetwork
    >>> head = GridHead(np.full((2, 1, 2), 40, np.float32), channels=4)
    >>> box, no = np.array([[10, 10, 50, 50]], np.float32), np.array([False])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.png"
    ...     _ = cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
    ...     picture = Picture("a", path, 64, 64, box, np.array([7]), no, no)
    ...     train_multibox(head, RegionNetwork(20), [picture] * 2, epochs=1, batch=2, scales=(0.1,))
    True
    """
    steps, ends = _steps(len(pictures), seed, batch, epochs)
    settings = {
        "pictures": fingerprint(pictures), "epochs": epochs, "batch": batch, "learning_rate": learning_rate,
        "many": many, "scales": list(scales), "long_side": long_side, "seed": seed,
        "head": weights_hash(head), "trunk": weights_hash(trunk), "whole": whole,
        "priors": hashlib.sha256(head.priors.tobytes()).hexdigest()[:16],
    }  # fmt: skip
    enough_steps(steps, len(pictures), batch)
    device, sides = group.device, [round(long_side * scale) for scale in scales]
    trunk = trunk.to(device).to(memory_format=torch.channels_last).eval()
    forward: Callable[[Tensor], Tensor] = trunk.trunk  # type: ignore[assignment]
    head.to(device).to(memory_format=torch.channels_last).train()
    groups: list[dict[str, Any]] = [{"params": list(head.parameters()), "factor": 1.0}]
    modules = nn.ModuleDict({"head": head})
    if whole:
        modules["trunk"] = trunk
        for name, parameter in trunk.named_parameters():
            parameter.requires_grad_(in_trunk(name) and "inception" in name)
        trained = [parameter for parameter in trunk.parameters() if parameter.requires_grad]
        groups.append({"params": trained, "factor": 0.1})
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.01)
    start = begin_at(checkpoint, modules, optimizer, settings, group, resume=resume)
    began = saved = time.monotonic()

    def examples(step: int) -> list[MultiBoxExample]:
        own = [*enumerate(steps[step])][group.rank :: group.world]
        return [_load_example(pictures[i], np.random.default_rng([seed, step, slot]), sides) for slot, i in own]

    def part_gradients(part: list[MultiBoxExample]) -> tuple[list[Tensor], NDArray[np.float64]]:
        return _gradients(head, forward, parameters, part, device, whole=whole, many=many)

    # One thread a picture, and gradients added in a fixed order: as in `training`.
    workers = min(batch, usable_cores()) if device == "cpu" else 1
    threads = torch.get_num_threads() if device != "cpu" else 1
    totals, window = np.zeros(2), 0
    with (
        torch_threads(threads),
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool,
        ThreadPoolExecutor(1) as reader,
    ):
        for step, future in prefetch(reader, examples, range(start, len(steps)), limit=4):
            loaded = future.result()
            results = list(pool.map(part_gradients, [loaded[i::workers] for i in range(workers)]))
            gradients = [functools.reduce(torch.add, parts) for parts in zip(*(g for g, _ in results), strict=True)]
            late = time_limit is not None and time.monotonic() - began > time_limit
            notes = add_up(group, gradients, [*np.sum([figures for _, figures in results], axis=0), late])
            *losses, matched, any_late = notes
            figures = np.array(losses) / max(1.0, matched)
            if not np.isfinite(figures).all():
                names = ", ".join(pictures[i].path.name for i in steps[step])
                raise FloatingPointError(f"the loss is not finite at step {step} ({names}); lower the learning rate")
            rate = learning_rate_at(step, len(steps), learning_rate, min(200, len(steps) // 10))
            take_step(optimizer, parameters, [gradient / max(1.0, matched) for gradient in gradients], rate)
            totals, window = totals + figures, window + 1
            done = step + 1
            due = time.monotonic() - saved > SAVE_SECONDS or done in ends or any_late
            if group.rank == 0 and checkpoint is not None and due:
                save_checkpoint(checkpoint, modules, optimizer, done, settings)
                saved = time.monotonic()
            if group.rank == 0 and (done % 50 == 0 or done in ends):
                spent = time.monotonic() - began
                row = {
                    "step": done,
                    "steps": len(steps),
                    "epoch": epochs * done / len(steps),
                    "location": float(totals[0]) / window,
                    "confidence": float(totals[1]) / window,
                    "learning_rate": rate,
                    "seconds_left": spent / (done - start) * (len(steps) - done),
                }
                if done in ends and validation:
                    found = propose_all(head, forward, validation, long_side=long_side, device=device)
                    boxes = {image_id: boxes for image_id, (boxes, _) in found.items()}
                    recall = evaluate_proposals(validation, boxes, LIMITS)["recall_at"]
                    row |= {f"recall_{limit}": share for limit, share in recall.items()}
                report(row)
                totals, window = np.zeros(2), 0
            if any_late and done < len(steps):
                return False
    return True


def _steps(pictures: int, seed: int, batch: int, epochs: float) -> tuple[list[NDArray[np.intp]], set[int]]:
    """Picture indices of every step of the run, and after how many steps an epoch ends."""
    orders = [np.random.default_rng([seed, epoch]).permutation(pictures) for epoch in range(math.ceil(epochs))]
    return cut_steps(orders, round(pictures * epochs), batch)
