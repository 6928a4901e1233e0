"""The networks of MultiBox and how they learn: priors from training boxes, matching, loss.

Two heads on the features of GoogLeNet's trunk. `GridHead` is the multi-scale one of Szegedy et al., "Scalable,
High-Quality Object Detection", arXiv 1412.1441: every cell of several grids corrects a few priors. `VectorHead` is the
original of Erhan et al., "Scalable Object Detection using Deep Neural Networks", CVPR 2014: one vector of all boxes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbone.export.graphs import Part, export_common, export_part, with_all_weights
from ...backbone.preprocessing import encode_boxes
from ...backbone.regions.network import RegionNetwork
from ...backbone.weights.model_file import ModelError, hash_weights, in_trunk
from ...data import Picture, box_iou
from ..merge import Worth
from .file import FINEST_STRIDE, MultiBoxModel
from .proposer import place_priors

__all__ = [
    "ALPHA",
    "GridHead",
    "Targets",
    "VectorHead",
    "cluster_boxes",
    "cluster_sides",
    "from_model",
    "head_for",
    "match_objects",
    "multibox_loss",
    "picture_loss",
    "set_targets",
    "to_model",
]

# Weight of the location term (Erhan et al., section 4.1). The paper's locations are shares of the picture; ours are in
# units of their typical spread (`backbone.preprocessing.encode_boxes`), in which the two terms are of a size too.
ALPHA = 0.3
TRUNK_CHANNELS = 832
# Share of the priors that hold an object; a head that begins by claiming half of them spends its first steps on
# unlearning that.
RARITY = 0.001


def cluster_boxes(boxes: ArrayLike, clusters: int, *, seed: int = 0, steps: int = 50) -> NDArray[np.float32]:
    """Find typical boxes: k-means with the distance 1 - IoU.

    Parameters
    ----------
    boxes : array_like, shape (N, 4), float32
        x1 y1 x2 y2 in any unit. With x1 = y1 = 0 it is widths and heights that are clustered.
    clusters : int
        Number of boxes to find.
    seed : int
        Of the first choice, which prefers boxes far from those chosen before (k-means++).
    steps : int
        At most so many rounds.

    Returns
    -------
    ndarray, shape (clusters, 4), float32
        Means of the clusters, the smallest area first.

    Raises
    ------
    ValueError
        If there are fewer different boxes than clusters.

    References
    ----------
    Erhan et al., CVPR 2014, section 3.2 (priors); Redmon & Farhadi, "YOLO9000", CVPR 2017, section 2 (the distance).

    Examples
    --------
    >>> cluster_boxes([[0, 0, 10, 10], [0, 0, 12, 12], [0, 0, 50, 20], [0, 0, 54, 20]], 2).tolist()
    [[0.0, 0.0, 11.0, 11.0], [0.0, 0.0, 52.0, 20.0]]
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    if len(np.unique(boxes, axis=0)) < clusters:
        raise ValueError(f"{clusters} clusters of {len(np.unique(boxes, axis=0))} different boxes; give more boxes")
    rng = np.random.default_rng(seed)
    centres = boxes[rng.integers(len(boxes), size=1)]
    while len(centres) < clusters:
        distance = np.maximum(1 - box_iou(boxes, centres).max(1).astype(np.float64), 0) ** 2
        distance[(boxes[:, None] == centres).all(2).any(1)] = 0
        centres = np.concatenate([centres, boxes[rng.choice(len(boxes), 1, p=distance / distance.sum())]])
    nearest = np.full(len(boxes), -1)
    for _ in range(steps):
        before, nearest = nearest, box_iou(boxes, centres).argmax(1)
        if (before == nearest).all():
            break
        for i in np.unique(nearest):
            centres[i] = boxes[nearest == i].mean(0)
    return centres[np.argsort((centres[:, 2:] - centres[:, :2]).prod(1), kind="stable")]


def cluster_sides(boxes: NDArray[np.float32], *, levels: int = 5, each: int = 5, seed: int = 0) -> NDArray[np.float32]:
    """Find the widths and heights of the priors of every grid.

    A grid whose cells are s pixels apart is for boxes of 2.5 s to 5 s (root of the area; the finest also for
    smaller, the coarsest also for larger ones): wherever the box is, a prior overlaps it by about half. Its priors are
    the clusters of those training boxes alone, or the many small objects would get them all.

    Parameters
    ----------
    boxes : ndarray, shape (N, 4), float32
        Training boxes in pixels of pictures at the size that the network gets.
    levels : int
        Number of grids.
    each : int
        Priors of a cell.
    seed : int
        See `cluster_boxes`.

    Returns
    -------
    ndarray, shape (levels, each, 2), float32
        Widths and heights in pixels.

    Raises
    ------
    ValueError
        If a grid has fewer different boxes than priors.

    Examples
    --------
    >>> corners = np.random.default_rng(0).uniform(8, 600, (400, 2)).astype(np.float32)
    >>> cluster_sides(np.concatenate([np.zeros_like(corners), corners], axis=1), each=3).shape
    (5, 3, 2)
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    size = np.sqrt(np.maximum(sides, 0).prod(1))
    level = np.floor(np.log2(np.maximum(size, 1e-6) / (2.5 * FINEST_STRIDE))).clip(0, levels - 1)
    anchored = np.concatenate([np.zeros_like(sides), sides], axis=1)
    return np.stack([cluster_boxes(anchored[level == i], each, seed=seed)[:, 2:] for i in range(levels)])


def _initialise(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
            assert part.bias is not None
            nn.init.zeros_(part.bias)


def _begin_at_priors(output: nn.Conv2d | nn.Linear, seed: int, cells: int = 1) -> None:
    """Have an output layer say at first: the box is where its prior is, and is rarely an object.

    Its channels are (priors, 5, cells): four residuals and the confidence of each prior of each cell.
    """
    assert output.bias is not None
    nn.init.normal_(output.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        output.bias.view(-1, 5, cells)[:, 4] = float(np.log(RARITY / (1 - RARITY)))


class GridHead(nn.Module):
    """Multi-scale MultiBox: features (N, 832, h, w) -> residuals (N, P, 4), confidence logits (N, P).

    A 1x1 convolution makes the trunk's 832 channels fewer, two 3x3 convolutions look around; grids twice as coarse
    each follow by 2x2 max pooling, which keeps a cell in the middle of its pixels, and a 3x3 convolution. Every cell
    corrects its priors by a 1x1 convolution. The finest grid, 8 px, has four cells in each of the trunk's: its outputs
    are channels that are laid out side by side.

    Parameters
    ----------
    priors : ndarray, shape (L, A, 2), float32
        Widths and heights, see `cluster_sides`.
    channels : int
        Width of the head.
    seed : int
        Of its initial weights.

    Examples
    --------
    >>> head = GridHead(np.full((5, 3, 2), 32, np.float32))
    >>> residuals, logits = head(torch.zeros(1, 832, 12, 20))
    >>> residuals.shape, logits.shape  # 3 x (24 x 40 + 12 x 20 + 6 x 10 + 3 x 5 + 2 x 3)
    (torch.Size([1, 3843, 4]), torch.Size([1, 3843]))
    """

    def __init__(self, priors: NDArray[np.float32], *, channels: int = 192, seed: int = 0) -> None:
        super().__init__()
        self.priors = np.asarray(priors, np.float32)
        levels, each, _ = self.priors.shape
        self.channels = channels
        self.reduce = nn.Conv2d(TRUNK_CHANNELS, channels, 1)
        self.around = nn.Conv2d(channels, channels, 3, padding=1)
        self.grids = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(levels - 1))
        # Of each of the trunk's cells the finest grid has four, whose outputs lie one after the other.
        cells = [4] + [1] * (levels - 1)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, each * 5 * number, 1) for number in cells)
        _initialise(self, seed)
        for i, output in enumerate(self.outputs):
            assert isinstance(output, nn.Conv2d)
            _begin_at_priors(output, seed + 1 + i, cells[i])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        x = F.relu(self.around(F.relu(self.reduce(features))))
        maps = []
        for level, output in enumerate(self.outputs):
            if level >= 1:
                x = x if level == 1 else F.max_pool2d(x, 2, ceil_mode=True)
                x = F.relu(self.grids[level - 1](x))
            made = output(x)
            maps.append(F.pixel_shuffle(made, 2) if level == 0 else made)
        rows = torch.cat([made.permute(0, 2, 3, 1).reshape(len(made), -1, 5) for made in maps], dim=1)
        return rows[..., :4], rows[..., 4]


class VectorHead(nn.Module):
    """The original MultiBox: features (N, 832, h, w) -> residuals (N, K, 4), confidence logits (N, K).

    The features, averaged in 7x7 cells whatever the picture's size and made narrower, go through one hidden layer to
    a vector of K boxes and confidences.

    Parameters
    ----------
    priors : ndarray, shape (K, 4), float32
        Boxes as shares of the picture's width and height, see `cluster_boxes`.
    channels : int
        Channels after the 1x1 convolution.
    hidden : int
        Width of the hidden layer.
    seed : int
        Of the initial weights.

    Examples
    --------
    >>> head = VectorHead(np.tile(np.array([0.2, 0.2, 0.8, 0.8], np.float32), (200, 1)))
    >>> residuals, logits = head(torch.zeros(1, 832, 12, 20))
    >>> residuals.shape, logits.shape
    (torch.Size([1, 200, 4]), torch.Size([1, 200]))
    """

    def __init__(self, priors: NDArray[np.float32], *, channels: int = 64, hidden: int = 512, seed: int = 0) -> None:
        super().__init__()
        self.priors = np.asarray(priors, np.float32)
        self.channels = channels
        self.reduce = nn.Conv2d(TRUNK_CHANNELS, channels, 1)
        self.hidden = nn.Linear(channels * 49, hidden)
        self.output = nn.Linear(hidden, len(self.priors) * 5)
        _initialise(self, seed)
        _begin_at_priors(self.output, seed + 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        x = F.relu(self.reduce(features))
        # Averages in 7x7 cells as products with two matrices: adaptive pooling exports for one size of picture only.
        x = _averages(x.shape[2], x) @ x @ _averages(x.shape[3], x).T
        rows = self.output(F.relu(self.hidden(x.flatten(1)))).unflatten(1, (-1, 5))
        return rows[..., :4], rows[..., 4]


def _averages(length: int, like: Tensor, cells: int = 7) -> Tensor:
    """Weights (cells, length) that average a line in cells, as adaptive average pooling does."""
    cell, at = (torch.arange(count, device=like.device) for count in (cells, length))
    low, high = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
    inside = (at >= low[:, None]) & (at < high[:, None])
    return inside.to(like.dtype) / (high - low)[:, None].to(like.dtype)


def head_for(priors: NDArray[np.float32], *, channels: int | None = None, seed: int = 0) -> GridHead | VectorHead:
    """Make the head that goes with priors: (L, A, 2) `GridHead`, (K, 4) `VectorHead`.

    Examples
    --------
    >>> type(head_for(np.zeros((7, 4), np.float32))).__name__
    'VectorHead'
    """
    if np.ndim(priors) == 3:
        return GridHead(priors, channels=channels or 192, seed=seed)
    return VectorHead(priors, channels=channels or 64, seed=seed)


def from_model(model: MultiBoxModel) -> GridHead | VectorHead:
    """Make the head of a file, with its weights.

    Raises
    ------
    ModelError
        If they do not fit it.

    Examples
    --------
    >>> from inception_rcnn.proposals.multibox.file import MODELS, read_multibox
    >>> from_model(read_multibox(MODELS / "voc.safetensors")).priors.shape
    (5, 5, 2)
    """
    head = head_for(model.priors, channels=model.channels)
    try:
        head.load_state_dict({name: torch.from_numpy(w.astype(np.float32)) for name, w in model.head_weights.items()})
    except RuntimeError as error:
        raise ModelError(f"the head's weights do not fit it: {str(error).splitlines()[0]}") from error
    return head


class Targets(NamedTuple):
    """What a picture's predictions should be.

    Attributes
    ----------
    matched : ndarray, shape (P,), bool
        The prior shall become an object.
    counted : ndarray, shape (P,), bool
        Its confidence counts in the loss.
    residuals : ndarray, shape (P, 4), float32
        Of the object from the prior, in units of their typical spread; zero where nothing is matched.
    """

    matched: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    residuals: NDArray[np.float32]


def match_objects(cost: NDArray[np.floating]) -> NDArray[np.int64]:
    """Give every object a prior or prediction of its own so that the sum of the costs is least.

    Parameters
    ----------
    cost : ndarray, shape (P, N), floating
        Of giving prediction p to object n.

    Returns
    -------
    ndarray, shape (P,), int64
        The object of each prediction, or -1. With more objects than predictions some objects get none.

    References
    ----------
    Erhan et al., CVPR 2014, section 3.1, equation 4.

    Examples
    --------
    >>> match_objects(np.array([[0.1, 0.2], [0.3, 0.9], [0.8, 0.7]])).tolist()  # the dearest pair is avoided
    [1, 0, -1]
    """
    matched = np.full(len(cost), -1, np.int64)
    rows, columns = linear_sum_assignment(cost)
    matched[rows] = columns
    return matched


def set_targets(
    priors: NDArray[np.float32],
    objects: NDArray[np.float32],
    doubtful: NDArray[np.float32],
    *,
    exhaustive: bool = True,
    many: bool = True,
    predicted: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> Targets:
    """Decide which priors shall become which objects, and which confidences count.

    Every object gets one prior, all pairs together of the largest sum of overlaps. That much is the paper's. With tens
    of thousands of priors, of which neighbours look at nearly the same pixels, one match an object would have the
    network learn to tell them apart and little else, so with `many` every prior that overlaps an object by at least
    half is matched too, as in the Faster R-CNN that followed.

    Parameters
    ----------
    priors : ndarray, shape (P, 4), float32
        See `multibox.place_priors`.
    objects : ndarray, shape (N, 4), float32
        Boxes to find, in the same pixels.
    doubtful : ndarray, shape (M, 4), float32
        Difficult objects and crowds: priors that overlap one by 0.3 or lie in it by half count neither way.
    exhaustive : bool
        False where objects may be unlabelled: then no prior counts as background.
    many : bool
        False for one match an object, and every other prior background, as published.
    predicted : (ndarray (P, 4), ndarray (P,)), optional
        Residuals and logits. With them the matching is by the cost of what the network predicts, location and
        confidence (Erhan et al., equation 3), instead of by the priors' overlap.

    Returns
    -------
    Targets

    References
    ----------
    Erhan et al., CVPR 2014, sections 3.1 (by predictions) and 3.2 (by priors).

    Examples
    --------
    >>> priors = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5], [0, 0, 10, 4], [50, 50, 60, 60]], np.float32)
    >>> targets = set_targets(priors, priors[:1], np.zeros((0, 4), np.float32))
    >>> targets.matched.tolist(), targets.counted.tolist()
    ([True, True, True, False, False], [True, True, True, False, True])
    """
    matched = np.full(len(priors), -1, np.int64)
    counted = np.full(len(priors), exhaustive)
    residuals = np.zeros((len(priors), 4), np.float32)
    if len(doubtful):
        low = np.maximum(priors[:, None, :2], doubtful[:, :2])
        high = np.minimum(priors[:, None, 2:], doubtful[:, 2:])
        inside = np.clip(high - low, 0, None).prod(2) / (priors[:, 2:] - priors[:, :2]).prod(1)[:, None]
        counted &= (inside < 0.5).all(1) & (box_iou(priors, doubtful) < 0.3).all(1)
    if len(objects):
        overlap = box_iou(priors, objects)
        matched = match_objects(1 - overlap if predicted is None else _costs(priors, objects, *predicted))
        if many:
            best, nearest = overlap.max(1), overlap.argmax(1)
            matched = np.where((matched < 0) & (best >= 0.5), nearest, matched)
            counted &= best < 0.4
        own = matched >= 0
        counted |= own
        residuals[own] = encode_boxes(priors[own], objects[matched[own]])
    return Targets(matched >= 0, counted, residuals)


def _costs(
    priors: NDArray[np.float32],
    objects: NDArray[np.float32],
    residuals: NDArray[np.float32],
    logits: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Cost (P, N) of matching a prediction to an object: alpha / 2 ||l - g||^2 - log c + log(1 - c)."""
    columns = [ALPHA / 2 * ((residuals - encode_boxes(priors, box[None])) ** 2).sum(1) for box in objects]
    return np.stack(columns, axis=1).astype(np.float64) - logits[:, None]  # log(c / (1 - c)) is the logit


def multibox_loss(
    residuals: Tensor, logits: Tensor, targets: Tensor, matched: Tensor, counted: Tensor, *, alpha: float = ALPHA
) -> tuple[Tensor, Tensor]:
    """Location and confidence loss, each a sum over predictions.

    ``alpha / 2 * ||l - g||^2`` over the matched ones; ``-log c`` over the matched and ``-log(1 - c)`` over the other
    counted ones. Divide by the number of matched ones.

    Parameters
    ----------
    residuals : Tensor, shape (..., 4)
        l, the predicted corrections of the priors, in units of their typical spread.
    logits : Tensor, shape (...)
        Of the confidences c.
    targets : Tensor, shape (..., 4)
        g, see `Targets`.
    matched, counted : Tensor, shape (...), bool
        See `Targets`.
    alpha : float
        Weight of the location.

    Returns
    -------
    location, confidence : Tensor
        Scalars.

    References
    ----------
    Erhan et al., CVPR 2014, section 3.1, equations 1 to 3.

    Examples
    --------
    >>> yes, no = torch.tensor([True, False]), torch.tensor([True, True])
    >>> location, confidence = multibox_loss(torch.ones(2, 4), torch.zeros(2), torch.zeros(2, 4), yes, no)
    >>> round(location.item(), 4), round(confidence.item(), 4)  # 0.3 / 2 * 4, 2 log 2
    (0.6, 1.3863)
    """
    location = alpha / 2 * ((residuals - targets)[matched] ** 2).sum()
    each = F.binary_cross_entropy_with_logits(logits, matched.to(logits.dtype), reduction="none")
    return location, each[counted].sum()


def picture_loss(
    head: GridHead | VectorHead, features: Tensor, picture: Picture, *, many: bool = True
) -> tuple[Tensor, Tensor, int]:
    """Location and confidence loss of what a head says of a picture, as sums, and how many predictions are matched.

    Parameters
    ----------
    head : GridHead or VectorHead
    features : Tensor, shape (1, 832, h, w)
        The trunk's, of the picture.
    picture : Picture
        Its labels, in the pixels that the trunk saw. Difficult objects and crowds count neither way.
    many : bool
        See `set_targets`.

    Returns
    -------
    location, confidence : Tensor
        Scalars; not finite if what the head says is not. To be divided by what is matched, in all pictures of a step.
    matched : int
        Predictions that shall become objects.

    Examples
    --------
    >>> from pathlib import Path
    >>> box, no = np.array([[8, 8, 56, 56]], np.float32), np.array([False])
    >>> head = GridHead(np.full((2, 1, 2), 40, np.float32), channels=4)
    >>> picture = Picture("a", Path("a.jpg"), 64, 64, box, np.array([7]), no, no)
    >>> picture_loss(head, torch.zeros(1, 832, 4, 4), picture)[2]
    7
    """
    residuals, logits = (made[0].float() for made in head(features))
    if not (residuals.isfinite().all() and logits.isfinite().all()):
        return residuals.sum() * torch.nan, logits.sum() * torch.nan, 0
    size = (picture.width, picture.height)
    # Annotations can end a little outside, or have no area; a box's side must have a logarithm.
    boxes = np.clip(picture.boxes, 0, np.array([*size, *size], np.float32))
    doubtful = picture.difficult | picture.crowd
    real = ((boxes[:, 2:] - boxes[:, :2]) >= 2).all(1)
    predicted = None
    if isinstance(head, VectorHead):
        predicted = residuals.detach().cpu().numpy(), logits.detach().cpu().numpy()
    targets = set_targets(
        place_priors(head.priors, (features.shape[2], features.shape[3]), size),
        boxes[real & ~doubtful],
        boxes[real & doubtful],
        exhaustive=picture.labelled is None,
        many=many,
        predicted=predicted,
    )
    matched, counted, wanted = (torch.from_numpy(array).to(logits.device) for array in targets)
    return *multibox_loss(residuals, logits, wanted, matched, counted), int(targets.matched.sum())


def _of_one(head: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    """Run a head on a batch of one picture."""
    residuals, logits = head(features)
    return residuals[0], logits[0]


_exported: dict[object, bytes] = {}


def _export_head(head: GridHead | VectorHead) -> bytes:
    """Export the structure of a head, which is that of every other one with weights of the same shapes."""
    key = type(head), tuple((name, weight.shape) for name, weight in head.named_parameters())
    if key not in _exported:
        part = Part(with_all_weights(copy.deepcopy(head).cpu()), _of_one)
        features = {"features": torch.zeros(1, TRUNK_CHANNELS, 6, 8)}
        _exported[key] = export_part(part, features, ["residuals", "logits"], {"features": (2, 3)})
    return _exported[key]


def to_model(
    head: GridHead | VectorHead,
    trunk: RegionNetwork,
    *,
    own_trunk: bool = False,
    long_side: int = 640,
    worth: Worth | None = None,
    classes: Sequence[str] = (),
    trained: Mapping[str, object] | None = None,
) -> MultiBoxModel:
    """Pack a trained head for `multibox_file.write_multibox`.

    Parameters
    ----------
    head : GridHead or VectorHead
    trunk : RegionNetwork
        The network on whose trunk it was trained.
    own_trunk : bool
        Whether that was trained too and goes into the file, rather than being a detector's.
    long_side : int
        Pictures are to be resized to this many pixels on their longer side.
    worth : Worth, optional
        See `merge.fit_worth`; default `Worth`'s own.
    classes : sequence of str
        Whose objects it was trained on.
    trained : dict, optional
        How it was trained; must be representable as JSON.

    Returns
    -------
    MultiBoxModel

    Examples
    --------
    >>> model = to_model(VectorHead(np.zeros((7, 4), np.float32)), RegionNetwork(1), trained={"epochs": 1})
    >>> model.weights["output.bias"].shape, model.trunk_graph
    ((35,), b'')
    """
    below = {name: value for name, value in trunk.named_parameters() if in_trunk(name)}
    halves = [
        {name: value.detach().cpu().numpy().astype(np.float16) for name, value in parameters.items()}
        for parameters in (dict(head.named_parameters()), below)
    ]
    return MultiBoxModel(
        priors=head.priors,
        channels=head.channels,
        long_side=long_side,
        weights=halves[0] | halves[1] if own_trunk else halves[0],
        graph=_export_head(head),
        trunk_graph=export_common("trunk") if own_trunk else b"",
        trunk_sha256=hash_weights(halves[1]),
        worth=worth or Worth(),
        classes=tuple(classes),
        trained=dict(trained or {}),
    )
