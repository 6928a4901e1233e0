"""The networks of MultiBox: two heads, their export, and their packing for a file.

Both are heads on the features of GoogLeNet's trunk. `GridHead` is the multi-scale one of Szegedy et al., "Scalable,
High-Quality Object Detection", arXiv 1412.1441: every cell of several grids corrects a few priors. `VectorHead` is the
original of Erhan et al., "Scalable Object Detection using Deep Neural Networks", CVPR 2014: one vector of all boxes.
"""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbone.export.graphs import Part, export_common, export_part, with_all_weights
from ...backbone.regions.network import RegionNetwork
from ...backbone.regions.roi_align import TRUNK_CHANNELS
from ...backbone.weights.model_file import hash_weights, in_trunk
from ...data.errors import ModelError
from ..calibration import RankingCalibration
from .file import MultiBoxModel

# Confidence of every prior before training, about the share of priors that hold an object. With 0.5, the first steps of
# a training would only lower the confidences.
FIRST_CONFIDENCE = 0.001


def _initialise(module: nn.Module, seed: int) -> None:
    """Draw all weights of a module by He's rule; biases are zero."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
            assert part.bias is not None
            nn.init.zeros_(part.bias)


def _initialise_output(output: nn.Conv2d | nn.Linear, seed: int, cells: int = 1) -> None:
    """Initialise an output layer: residuals near zero, and confidences of `FIRST_CONFIDENCE`.

    Its channels are (priors, 5, cells): four residuals and the confidence of each prior in each cell.
    """
    assert output.bias is not None
    nn.init.normal_(output.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        output.bias.view(-1, 5, cells)[:, 4] = float(np.log(FIRST_CONFIDENCE / (1 - FIRST_CONFIDENCE)))


class GridHead(nn.Module):
    """Multi-scale MultiBox: features (N, 832, h, w) -> residuals (N, P, 4), confidence logits (N, P).

    A 1x1 convolution reduces the trunk's 832 channels, and a 3x3 convolution follows. The finest two grids are computed
    from that, the second after another 3x3 convolution. Each coarser grid follows by 2x2 max pooling, which keeps a
    cell in the middle of its pixels, and a 3x3 convolution. In every grid a 1x1 convolution computes the residuals and
    confidences of each cell's priors. The finest grid, of 8 pixels, has four cells in each cell of the trunk. Their
    outputs are channels at first, and are then laid out side by side.

    Parameters
    ----------
    priors : ndarray, shape (L, A, 2), float32
        Widths and heights in pixels, see `priors.cluster_sides`.
    channels : int
        Channels of the head's convolutions.
    seed : int
        Of the initial weights.

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
        # Cells of each grid in one cell of its convolution.
        cells = [4] + [1] * (levels - 1)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, each * 5 * number, 1) for number in cells)
        _initialise(self, seed)
        for i, output in enumerate(self.outputs):
            assert isinstance(output, nn.Conv2d)
            _initialise_output(output, seed + 1 + i, cells[i])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        x = F.relu(self.around(F.relu(self.reduce(features))))
        maps = []
        for level, output in enumerate(self.outputs):
            if level >= 1:
                x = x if level == 1 else F.max_pool2d(x, 2, ceil_mode=True)
                x = F.relu(self.grids[level - 1](x))
            outputs = output(x)
            maps.append(F.pixel_shuffle(outputs, 2) if level == 0 else outputs)
        rows = torch.cat([grid.permute(0, 2, 3, 1).reshape(len(grid), -1, 5) for grid in maps], dim=1)
        return rows[..., :4], rows[..., 4]


class VectorHead(nn.Module):
    """The original MultiBox: features (N, 832, h, w) -> residuals (N, K, 4), confidence logits (N, K).

    A 1x1 convolution reduces the channels, and the features are averaged in 7x7 cells for pictures of any size. One
    hidden layer leads to a vector of K boxes and confidences.

    Parameters
    ----------
    priors : ndarray, shape (K, 4), float32
        Boxes as shares of the picture's width and height, see `priors.cluster_boxes`.
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
        _initialise_output(self.output, seed + 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        x = F.relu(self.reduce(features))
        # Adaptive average pooling, as products with two matrices: torch exports its own for one size of picture only.
        x = _averages(x.shape[2], x) @ x @ _averages(x.shape[3], x).T
        rows = self.output(F.relu(self.hidden(x.flatten(1)))).unflatten(1, (-1, 5))
        return rows[..., :4], rows[..., 4]


def _averages(length: int, like: Tensor, cells: int = 7) -> Tensor:
    """Weights (cells, length) of the averages in cells of one axis, as of adaptive average pooling."""
    cell, position = (torch.arange(count, device=like.device) for count in (cells, length))
    low, high = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
    inside = (position >= low[:, None]) & (position < high[:, None])
    return inside.to(like.dtype) / (high - low)[:, None].to(like.dtype)


def head_for(priors: NDArray[np.float32], *, channels: int | None = None, seed: int = 0) -> GridHead | VectorHead:
    """Build the head for priors: `GridHead` for (L, A, 2), `VectorHead` for (K, 4).

    Examples
    --------
    >>> type(head_for(np.zeros((7, 4), np.float32))).__name__
    'VectorHead'
    """
    if np.ndim(priors) == 3:
        return GridHead(priors, channels=channels or 192, seed=seed)
    return VectorHead(priors, channels=channels or 64, seed=seed)


def from_model(model: MultiBoxModel) -> GridHead | VectorHead:
    """Build the head of a model, with its weights.

    Raises
    ------
    ModelError
        If the weights do not fit the head.

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
        raise ModelError(f"the MultiBox's weights do not fit its head: {str(error).splitlines()[0]}") from error
    return head


def _run_single(head: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    """Run a head on one picture: features (1, 832, h, w) -> residuals (P, 4), logits (P,)."""
    residuals, logits = head(features)
    return residuals[0], logits[0]


_exported: dict[object, bytes] = {}


def _export_head(head: GridHead | VectorHead) -> bytes:
    """Export the graph of a head without its weights, once for each kind of head and shapes of weights."""
    key = type(head), tuple((name, weight.shape) for name, weight in head.named_parameters())
    if key not in _exported:
        part = Part(with_all_weights(copy.deepcopy(head).cpu()), _run_single)
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
        The network whose trunk the head was trained on.
    own_trunk : bool
        True if the trunk was trained too and goes into the file, False if it is a detector's.
    long_side : int
        Pictures are resized to this many pixels on their longer side.
    calibration : RankingCalibration, optional
        See `calibration.fit_calibration`; default ``RankingCalibration()``.
    classes : sequence of str
        Classes of the objects that it was trained on.
    trained : dict, optional
        Settings and results of the training, for the record, as JSON can hold them.

    Returns
    -------
    MultiBoxModel

    Examples
    --------
    >>> model = to_model(VectorHead(np.zeros((7, 4), np.float32)), RegionNetwork(1), trained={"epochs": 1})
    >>> model.weights["output.bias"].shape, model.trunk_graph
    ((35,), b'')
    """
    trunk_parameters = {name: value for name, value in trunk.named_parameters() if in_trunk(name)}
    head_weights, trunk_weights = (
        {name: value.detach().cpu().numpy().astype(np.float16) for name, value in parameters.items()}
        for parameters in (dict(head.named_parameters()), trunk_parameters)
    )
    return MultiBoxModel(
        priors=head.priors,
        channels=head.channels,
        long_side=long_side,
        weights=head_weights | (trunk_weights if own_trunk else {}),
        graph=_export_head(head),
        trunk_graph=export_common("trunk") if own_trunk else b"",
        trunk_sha256=hash_weights(trunk_weights),
        calibration=calibration or RankingCalibration(),
        classes=tuple(classes),
        trained=dict(trained or {}),
    )
