"""The networks of MultiBox and how they learn: priors from training boxes, matching, loss.

Two heads on the features of GoogLeNet's trunk. `GridHead` is the multi-scale one of Szegedy et al., "Scalable,
High-Quality Object Detection", arXiv 1412.1441: every cell of several grids corrects a few priors. `VectorHead` is the
original of Erhan et al., "Scalable Object Detection using Deep Neural Networks", CVPR 2014: one vector of all boxes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbone.export.graphs import Part, export_common, export_part, with_all_weights
from ...backbone.regions.network import RegionNetwork
from ...backbone.weights.model_file import hash_weights, in_trunk
from ...data.errors import ModelError
from ..calibration import RankingCalibration
from .file import MultiBoxModel

TRUNK_CHANNELS = 832
# Share of the priors that hold an object; a head that begins by claiming half of them spends its first steps on
# unlearning that.
RARITY = 0.001


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
    calibration: RankingCalibration | None = None,
    classes: Sequence[str] = (),
    trained: Mapping[str, object] | None = None,
) -> MultiBoxModel:
    """Pack a trained head for `file.write_multibox`.

    Parameters
    ----------
    head : GridHead or VectorHead
    trunk : RegionNetwork
        The network on whose trunk it was trained.
    own_trunk : bool
        Whether that was trained too and goes into the file, rather than being a detector's.
    long_side : int
        Pictures are to be resized to this many pixels on their longer side.
    calibration : RankingCalibration, optional
        See `merge.fit_calibration`; default `RankingCalibration`'s own.
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
        calibration=calibration or RankingCalibration(),
        classes=tuple(classes),
        trained=dict(trained or {}),
    )
