"""Training of a detector's region network: Fast R-CNN's recipe on GoogLeNet.

Regions sampled in every picture, softmax and box regression for each class, everything from inception 3a up trained by
momentum SGD (Girshick, "Fast R-CNN", ICCV 2015).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbone.preprocessing import resize_picture, warp_regions
from ...backbone.regions.network import RegionNetwork, pool_crops
from ...backbone.weights.model_file import in_trunk
from ...data import MAX_PIXELS, Picture
from ...data.errors import SettingError
from ...data.picture import fingerprint
from ...proposals.multibox.loss import picture_loss
from ...proposals.multibox.network import GridHead, VectorHead
from ...proposals.multibox.priors import place_priors
from ...proposals.multibox.proposer import rank_boxes
from ..settings import DetectorSettings
from .augmentation import augment
from .checkpoint import weights_hash
from .device import mixed_precision
from .loop import NOTHING_KEPT, Order, RunSettings, Schedule, TrainingLoop
from .recipes import WEIGHT_DECAYS, DetectorRecipe
from .sampling import SampledRegions, refine_regions, repeat_factors, sample_regions
from .shards import read_pixels
from .teacher import Teacher
from .validation import Proposed, crops_to_input, measure_map, propose_all

# IoU above which a box of a MultiBox that learns along is dropped for a better one. At 0.5, as in detections, an object
# would have one region, and those that are nearly right, the hard ones, would be gone.
OWN_IOU_THRESHOLD = 0.7


def soften(probabilities: Tensor, objectness: Tensor, unlabelled: Tensor) -> Tensor:
    """Tell what background regions are by a teacher: shares of background and of classes without labels there.

    Parameters
    ----------
    probabilities : Tensor, shape (R, C)
        Of the classes, by the teacher.
    objectness : Tensor, shape (R,)
        Probability that a region is an object at all.
    unlabelled : Tensor, shape (R, C), bool
        Classes whose objects are not boxed in the region's picture. The others are not there: they would have a box.

    Returns
    -------
    Tensor, shape (R, 1 + C)
        Rows of sum 1.

    Examples
    --------
    >>> soften(torch.tensor([[0.5, 0.5]]), torch.tensor([0.5]), torch.tensor([[True, False]]))
    tensor([[0.7500, 0.2500, 0.0000]])
    """
    shares = probabilities * objectness[:, None] * unlabelled
    return torch.cat([1 - shares.sum(1, keepdim=True), shares], dim=1)


def detection_loss(
    logits: Tensor,
    deltas: Tensor,
    labels: Tensor,
    targets: Tensor,
    background: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Classification and box regression loss, each averaged over all regions.

    Parameters
    ----------
    logits : Tensor, shape (R, 1 + C)
    deltas : Tensor, shape (R, C, 4)
    labels : Tensor, shape (R,), int64
        0 is background.
    targets : Tensor, shape (R, 4)
    background : Tensor, shape (R, 1 + C), bool or float32, optional
        For background regions of pictures where only some classes are labelled. bool: what a region can be, background
        or a class that is not labelled there; its loss is ``-log(sum of these probabilities)``. float32: what it is by
        a teacher, see `soften`; its loss is the cross entropy.

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
    if background is not None:
        if background.dtype == torch.bool:
            fitting = log_probability.masked_fill(~background, -torch.inf).logsumexp(1)
        else:
            fitting = (background * log_probability).sum(1)
        picked = torch.where(labels == 0, fitting, picked)
    positive = labels.nonzero()[:, 0]
    predicted = deltas[positive, labels[positive] - 1]
    regression = F.smooth_l1_loss(predicted, targets[positive], reduction="sum") / max(1, len(labels))
    return -picked.sum() / max(1, len(labels)), regression


class DetectorExample(NamedTuple):
    """A picture as the network gets it, with what its regions are drawn from."""

    images: NDArray[np.uint8]  # RGB, the picture (1, h, w, 3), or the regions' crops (R, 224, 224, 3)
    picture: Picture  # augmented
    proposals: NDArray[np.float32]  # (N, 4), in its pixels; with a teacher (N, 5), their objectness last
    regions: SampledRegions | None  # with crops
    rng: np.random.Generator  # of all that is drawn for the example


class DetectorLoader(NamedTuple):
    """Makes examples of pictures, in worker processes too; see `DetectorTask`."""

    recipe: DetectorRecipe
    proposals: Callable[[Picture], Proposed] | None
    long_sides: Sequence[int] | None
    max_pixels: int = MAX_PIXELS
    taught: bool = False  # by a teacher, who needs objectness

    def __call__(self, picture: Picture, rng: np.random.Generator) -> DetectorExample:
        """Read a picture and augment it; with crops, draw its regions and warp them."""
        boxes = np.zeros((0, 5 if self.taught else 4), np.float32)
        if self.proposals is not None:
            boxes, objectness = self.proposals(picture)
            if self.taught:
                assert objectness is not None  # `train_detector` has seen to it.
                boxes = np.column_stack([boxes, objectness])
            boxes = boxes[: self.recipe.candidates]
        image = read_pixels(picture, self.max_pixels)
        image, picture, boxes = augment(image, picture, boxes, rng, self.long_sides)
        if self.recipe.scoring == "crops":
            regions = self.sample(picture, boxes, rng)
            return DetectorExample(warp_regions(image, regions.boxes), picture, boxes, regions, rng)
        images = resize_picture(image, max(image.shape[:2]))[0][None]
        return DetectorExample(images, picture, boxes, None, rng)

    def sample(self, picture: Picture, boxes: NDArray[np.float32], rng: np.random.Generator) -> SampledRegions:
        """Draw regions by the recipe, see `sample_regions`."""
        number, foreground = self.recipe.regions, self.recipe.foreground
        objectness = boxes[:, 4] if self.taught else None
        return sample_regions(picture, boxes[:, :4], rng, number=number, foreground=foreground, objectness=objectness)


class Look(NamedTuple):
    """Scored regions of some pictures, one after the other, and what they should have been scored."""

    logits: Tensor  # (R, 1 + C)
    deltas: Tensor  # (R, C, 4)
    labels: Tensor  # (R,)
    targets: Tensor  # (R, 4)
    background: Tensor  # (R, 1 + C), see `detection_loss`


class DetectorTask:
    """The steps of a detector's training, see `inception_rcnn.detect.train.loop.Task`."""

    by_picture = True

    def __init__(
        self,
        network: RegionNetwork,
        pictures: Sequence[Picture],
        proposals: Callable[[Picture], Proposed] | None,
        validation: Sequence[Picture],
        recipe: DetectorRecipe,
        multibox: GridHead | VectorHead | None,
        run: RunSettings,
        teacher: Teacher | None = None,
    ) -> None:
        self.network, self.multibox, self.recipe, self.group = network, multibox, recipe, run.group
        self.teacher = teacher
        self.averaging = recipe.averaging
        self.items, self.proposals, self.validation = pictures, proposals, validation
        self.paths, self.max_pixels = [picture.path for picture in pictures], run.max_pixels
        self.settings: dict[str, object] = {
            "pictures": fingerprint(pictures), **asdict(recipe), "start": weights_hash(network),
            "proposals": getattr(proposals, "settings", ""), "multibox": multibox and weights_hash(multibox),
            **({} if teacher is None else {"teacher": weights_hash(teacher.network)}),
        }  # fmt: skip
        factors = repeat_factors(pictures, network.classes, recipe.rare_share)
        of_epoch = functools.partial(_epoch_order, factors, recipe.seed)
        epochs = math.ceil(recipe.epochs)
        lengths = [len(of_epoch(epoch)) for epoch in range(epochs)]
        shown = round(sum(lengths) * recipe.epochs / max(1, epochs))
        self.order = Order(of_epoch, lengths, shown, recipe.batch)
        self.modules: nn.Module = nn.ModuleDict({"detector": network})
        if multibox is not None:
            self.modules["multibox"] = multibox
        self.modules.to(run.group.device).to(memory_format=torch.channels_last).train()
        self.optimizer = self._make_optimizer()
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        shared = recipe.scoring == "shared"
        long_sides = [round(recipe.long_side * scale) for scale in recipe.scales] if shared else None
        self.load = DetectorLoader(recipe, proposals, long_sides, run.max_pixels, teacher is not None)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """Freeze what the recipe says, and make the optimizer of the rest."""
        network, recipe = self.network, self.recipe
        for name, parameter in network.named_parameters():
            frozen = (
                name.startswith("first_pass.")  # fitted after the training
                or (recipe.freeze == "googlenet" and name.startswith("googlenet."))
                or (recipe.freeze == "trunk" and in_trunk(name))
                or name.startswith("googlenet.conv")
            )
            parameter.requires_grad_(not frozen)
        old = [parameter for parameter in network.googlenet.parameters() if parameter.requires_grad]
        heads = network.score, network.delta, network.lateral, network.finer, network.context
        new = [parameter for module in heads if module is not None for parameter in module.parameters()]
        new = [parameter for parameter in new if parameter.requires_grad]
        own = [] if self.multibox is None else [*self.multibox.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": old, "factor": 1.0}, {"params": new, "factor": recipe.new_layer_rate},
            {"params": own, "factor": recipe.multibox_rate},
        ]  # fmt: skip
        settings: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": WEIGHT_DECAYS[recipe.optimizer]}
        if recipe.optimizer == "adamw":
            return torch.optim.AdamW(groups, **settings)
        return torch.optim.SGD(groups, momentum=recipe.momentum, **settings)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        assert self.recipe.learning_rate is not None  # The recipe has filled it in.
        return Schedule(self.recipe.learning_rate, self.order.steps, self.recipe.schedule).rate(step)

    def _own_proposals(self, features: Tensor, picture: Picture, outputs: tuple[Tensor, Tensor]) -> NDArray[np.float32]:
        """Rank the boxes of the MultiBox that learns along, from its outputs for a picture's features.

        As `DetectorExample.proposals`.
        """
        assert self.multibox is not None
        residuals, logits = (output[0].detach().float().cpu().numpy() for output in outputs)
        size = picture.width, picture.height
        priors = place_priors(self.multibox.priors, (features.shape[2], features.shape[3]), size)
        limit = self.recipe.candidates
        boxes, scores = rank_boxes(priors, residuals, logits, size, limit=limit, iou_threshold=OWN_IOU_THRESHOLD)
        return boxes if self.teacher is None else np.column_stack([boxes, scores])

    def loss(self, batch: Sequence[DetectorExample]) -> tuple[list[Tensor], Tensor]:
        """Compute the losses of some pictures, each summed, and four counts.

        Returns
        -------
        losses : list of Tensor
            Classification and regression loss of the regions, location and confidence loss of a MultiBox; scalars.
        counts : Tensor, shape (4,), float64
            Foreground regions that are classified right, foreground regions, regions, matched predictions of a
            MultiBox. Both stay on the device: nobody waits for them.
        """
        device, network = self.group.device, self.network
        location = confidence = torch.zeros((), device=device)
        readers: list[Callable[[Tensor], Tensor]] = []
        taught: list[Callable[[Tensor], Tensor]] = []
        drawn: list[SampledRegions] = []
        matched = 0
        with mixed_precision(device):
            for example in batch:
                picture, boxes, regions = example.picture, example.proposals, example.regions
                # Frozen layers keep no activations for the backward pass.
                pixels = crops_to_input(example.images, device)
                maps = network.trunk_maps(pixels)
                if self.teacher is not None:
                    taught.append(self.teacher.reader(pixels))
                if self.multibox is not None:
                    outputs = self.multibox(maps.features)
                    *parts, count = picture_loss(self.multibox, maps.features, picture, outputs)
                    location, confidence, matched = location + parts[0], confidence + parts[1], matched + count
                    if self.proposals is None:
                        boxes = self._own_proposals(maps.features, picture, outputs)
                if regions is None:
                    regions = self.load.sample(picture, boxes, example.rng)
                    readers.append(network.reader(maps))
                else:
                    readers.append(functools.partial(self._read_crops, maps.features))
                drawn.append(regions)
            first, context = self._look(batch, readers, taught, drawn)
            looks = [first]
            if self.recipe.second_look:
                looks.append(self._look(batch, readers, taught, self._refine(batch, drawn, first), context)[0])
        logits, deltas, labels, targets, background = (torch.cat(values) for values in zip(*looks, strict=True))
        number = len(labels)
        if number == 0:
            nothing = torch.zeros((), device=device)
            counts = torch.tensor([0, 0, 0, matched], dtype=torch.float64, device=device)
            return [nothing, nothing, location, confidence], counts
        means = detection_loss(logits, deltas, labels, targets, background)
        foreground = labels > 0
        right = (logits.argmax(1) == labels) & foreground
        numbers = torch.tensor([number, matched], dtype=torch.float64, device=device)
        counts = torch.cat([torch.stack([right.sum(), foreground.sum()]).double(), numbers])
        return [*(mean * number for mean in means), location, confidence], counts

    def _read_crops(self, features: Tensor, _: Tensor) -> Tensor:
        """Read the only regions there are with crops, which have been warped already."""
        return self.network.project_channels(pool_crops(features))

    def _look(
        self,
        batch: Sequence[DetectorExample],
        readers: Sequence[Callable[[Tensor], Tensor]],
        taught: Sequence[Callable[[Tensor], Tensor]],
        drawn: Sequence[SampledRegions],
        context: Tensor | None = None,
    ) -> tuple[Look, Tensor | None]:
        """Read and score regions of each picture; unless given, the context (P, 1 + C) of each picture too.

        `taught` are the teacher's readers, if there is one.
        """
        device, network, numbers = self.group.device, self.network, [len(regions.labels) for regions in drawn]
        labels, targets = (
            torch.from_numpy(np.concatenate([regions[i] for regions in drawn])).to(device) for i in (1, 2)
        )
        allowed = torch.from_numpy(np.stack([self._allowed(example.picture) for example in batch])).to(device)
        of_picture = torch.from_numpy(np.repeat(np.arange(len(batch)), numbers)).to(device)
        background = allowed[of_picture]
        if taught and sum(numbers):
            boxes = (torch.from_numpy(regions.boxes).to(device) for regions in drawn)
            named = torch.cat([ask(places) for ask, places in zip(taught, boxes, strict=True)])
            objectness = torch.from_numpy(np.concatenate([regions.objectness for regions in drawn])).to(device)
            background = soften(named, objectness, background[:, 1:])
        if not sum(numbers):
            nothing = torch.zeros((0, network.classes + 1), device=device)
            deltas = torch.zeros((0, network.classes, 4), device=device)
            return Look(nothing, deltas, labels, targets, background), context
        whole = self.recipe.scoring == "shared" and network.context is not None and context is None
        read, kept = [], []
        for example, reader, regions in zip(batch, readers, drawn, strict=True):
            places = regions.boxes
            if whole:
                picture = np.array([[0, 0, example.picture.width, example.picture.height]], np.float32)
                places = np.concatenate([places, picture])
            read.append(reader(torch.from_numpy(places).to(device)))
            # Dropout, drawn here and not by torch: its generator serves the threads in whatever order they come.
            lost = example.rng.random((len(read[-1]), network.googlenet.inception_5b.outputs))
            kept.append((lost >= self.recipe.dropout).astype(np.float32) / (1 - self.recipe.dropout))
        logits, deltas, own = network.score_regions(torch.cat(read), torch.from_numpy(np.concatenate(kept)).to(device))
        if whole:
            assert own is not None
            ends = np.cumsum([len(part) for part in read]) - 1
            rows = torch.from_numpy(np.setdiff1d(np.arange(len(logits)), ends)).to(device)
            context = own[torch.from_numpy(ends).to(device)]
            logits, deltas = logits[rows], deltas[rows]
        if context is not None:
            logits = logits + context[of_picture]
        return Look(logits.float(), deltas.float(), labels, targets, background), context

    def _refine(
        self, batch: Sequence[DetectorExample], drawn: Sequence[SampledRegions], look: Look
    ) -> list[SampledRegions]:
        """Draw regions for a second look where the first has moved them."""
        logits, deltas = (values.detach().cpu().numpy() for values in look[:2])
        refined, start = [], 0
        for example, regions in zip(batch, drawn, strict=True):
            own = slice(start, start + len(regions.labels))
            refined.append(
                refine_regions(
                    example.picture, regions.boxes, logits[own], deltas[own], example.rng,
                    number=self.recipe.second_look, objectness=regions.objectness,
                )
            )  # fmt: skip
            start = own.stop
        return refined

    def _allowed(self, picture: Picture) -> NDArray[np.bool_]:
        """Tell what a background region of a picture can be, see `detection_loss`: (1 + C,)."""
        allowed = np.ones(self.network.classes + 1, dtype=bool)
        allowed[slice(1, None) if picture.labelled is None else [label + 1 for label in picture.labelled]] = False
        return allowed

    def gradients(self, batch: Sequence[list[DetectorExample]], pool: Executor) -> tuple[Sequence[Tensor], Tensor]:
        """Compute gradients of the mean loss; the figures are the sums of the four losses and counts of `loss`."""
        losses, counts = zip(*pool.map(self.loss, batch), strict=True)
        count = functools.reduce(torch.add, counts)
        # The numbers to average over are known only after the forward pass of all pictures, in all processes.
        counted = count.clone()
        self.group.all_reduce([counted])
        regions, matched = counted[2:].clamp(min=1).float()

        def part_gradients(part: Sequence[Tensor]) -> Sequence[Tensor]:
            classification, regression, location, confidence = part
            loss = (classification + regression if self.recipe.box_regression else classification) / regions
            loss = loss + self.recipe.multibox_weight * (location + confidence) / matched
            if not loss.requires_grad:  # Not one region.
                return [torch.zeros_like(parameter) for parameter in self.parameters]
            return torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)

        # Added in a fixed order, so that the sum is the same every time.
        gradients = [functools.reduce(torch.add, some) for some in zip(*pool.map(part_gradients, losses), strict=True)]
        sums = functools.reduce(torch.add, [torch.stack([*part]).detach().double() for part in losses])
        return gradients, torch.cat([sums, count])

    def divisor(self, figures: Tensor) -> float:
        """Return 1: the gradients are those of the mean."""
        return 1.0

    def row(self, figures: NDArray[np.float64]) -> dict[str, float]:
        """Return the mean losses, and the share of the foreground that is classified right."""
        names = ["classification", "regression", *(["location", "confidence"] if self.multibox is not None else [])]
        means = (figures[:, :4] / np.maximum(1, figures[:, [6, 6, 7, 7]])).mean(0).tolist()
        accuracy = figures[:, 4].sum() / max(1, figures[:, 5].sum())
        return dict(zip(names, means, strict=False)) | {"accuracy": float(accuracy)}

    def validate(self, row: dict[str, float]) -> None:
        """Add the mAP in the first process, if there are pictures where all objects of some classes are labelled."""
        validation = self.validation
        if self.group.rank > 0 or not validation:
            return
        where: dict[str, Any] = {
            "long_side": self.recipe.long_side, "device": self.group.device, "max_pixels": self.max_pixels,
        }  # fmt: skip
        proposals = self.proposals
        if proposals is None:
            assert self.multibox is not None
            limit = DetectorSettings.proposals
            own = propose_all(self.multibox, self.network.trunk, validation, limit=limit, **where)
            proposals = lambda picture: own[picture.image_id]  # noqa: E731
        row["mAP"] = measure_map(
            self.network, validation, proposals, scoring=self.recipe.scoring,
            box_regression=self.recipe.box_regression, **where,
        )  # fmt: skip


def _epoch_order(weights: NDArray[np.float64], seed: int, epoch: int) -> NDArray[np.intp]:
    """Draw the order of an epoch: each picture ``weights`` times, the fraction of that by chance, shuffled."""
    rng = np.random.default_rng([seed, epoch])
    times = np.floor(weights) + (rng.random(len(weights)) < weights % 1)
    return rng.permutation(np.repeat(np.arange(len(weights)), times.astype(np.int64)))


def train_detector(
    network: RegionNetwork,
    pictures: Sequence[Picture],
    proposals: Callable[[Picture], Proposed] | None,
    validation: Sequence[Picture],
    recipe: DetectorRecipe,
    *,
    multibox: GridHead | VectorHead | None = None,
    teacher: Teacher | None = None,
    run: RunSettings = NOTHING_KEPT,
) -> bool:
    """Fine-tune a region network in place.

    Parameters
    ----------
    network : RegionNetwork
        Its ``googlenet`` has ImageNet weights, or it was trained before.
    pictures : sequence of Picture
    proposals : callable, optional
        Picture -> boxes (N, 4) float32 in its pixels, best first, and their objectness (N,) or None. Default: the boxes
        of `multibox` as it learns.
    validation : sequence of Picture
        To measure mAP on after every epoch, see `measure_map`.
    recipe : DetectorRecipe
    multibox : GridHead or VectorHead, optional
        The head of a MultiBox on the network's trunk, trained in place too; the trunk learns from both. Not with crops.
    teacher : Teacher, optional
        Says what regions are in pictures where some classes are not labelled. Needs `proposals` that have objectness,
        or a `multibox`. Not with crops.
    run : RunSettings
        Its ``report`` gets ``"classification"``, ``"regression"``, ``"accuracy"`` too, with a MultiBox ``"location"``
        and ``"confidence"``, and at the end of every epoch ``"mAP"``.

    Returns
    -------
    bool
        True if all steps were done, False if the time limit came first.

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    CheckpointError
        If the checkpoint was made with other settings or pictures, or there are fewer pictures than one batch.
    SettingError
        If a MultiBox is to learn along with crops or a teacher is to teach with them, if there are neither proposals
        nor a MultiBox, or if a teacher gets no objectness.

    References
    ----------
    Girshick, "Fast R-CNN", ICCV 2015, section 2.3.
    """
    if multibox is not None and recipe.scoring == "crops":
        raise SettingError(
            "a MultiBox needs whole pictures and cannot learn along with crops; use scoring shared, or no MultiBox"
        )
    if multibox is None and proposals is None:
        raise SettingError("there are no regions to learn from; give proposals, or a MultiBox that learns along")
    if teacher is not None and recipe.scoring == "crops":
        raise SettingError("a teacher reads regions out of whole pictures; use scoring shared, or no teacher")
    if teacher is not None and proposals is not None and pictures and proposals(pictures[0])[1] is None:
        raise SettingError("a teacher needs the objectness of regions; use the MultiBox any, or one of these classes")
    task = DetectorTask(network, pictures, proposals, validation, recipe, multibox, run, teacher)
    return TrainingLoop(task, run).run()
