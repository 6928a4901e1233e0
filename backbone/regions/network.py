"""The network that scores regions, in torch: GoogLeNet's trunk once for a picture, RoIAlign, its top once for a region.

He et al., "Spatial Pyramid Pooling", ECCV 2014, and Girshick, "Fast R-CNN", ICCV 2015, applied to the network of "Going
Deeper with Convolutions": overlapping regions share the trunk's features. The same layers can also score crops, as in
R-CNN: each region is warped to the size that GoogLeNet was made for, and goes through all of them, at many times the
work.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..googlenet import INCEPTION_WIDTHS, GoogLeNet
from ..preprocessing import CONTEXT
from .roi_align import BINS, CENTRE_SHIFT, FINE_CHANNELS, FINE_INPUTS, FINE_STRIDE, PARTS, STRIDE, TRUNK_CHANNELS

# Channels of the trunk's features, and of the 1x1 convolutions that three branches of inception 5a begin with.
_WIDTHS = INCEPTION_WIDTHS["5a"]
PROJECTED = [TRUNK_CHANNELS, _WIDTHS.one, _WIDTHS.three_reduce, _WIDTHS.five_reduce]
# Channels of inception 5b, averaged in each of a region's nine parts: what scores and box deltas are computed from.
TOP_CHANNELS = 1024
# Standard deviation of the first weights of that convolution: a tenth of He's. Outputs of 3b are ten times as large as
# those of 4e.
_FINE_STD = 0.1 * (2 / FINE_INPUTS) ** 0.5


class TrunkMaps(NamedTuple):
    """What regions are read from, of one picture.

    Attributes
    ----------
    features : Tensor, shape (1, 832, h, w)
        Output of inception 4e, a cell for 16 pixels.
    fine : Tensor, shape (1, 480, ~2h, ~2w)
        Output of inception 3b, a cell for 8 pixels.
    """

    features: Tensor
    fine: Tensor


class RegionOutputs(NamedTuple):
    """What the network tells about regions.

    Attributes
    ----------
    logits : Tensor, shape (N, 1 + C)
        Of the classes; index 0 is background.
    deltas : Tensor, shape (N, C, 4)
        Box deltas for each class.
    context : Tensor, shape (N, 1 + C), or None
        Of a region that is the whole picture: what is added to the logits of the picture's other regions.
    """

    logits: Tensor
    deltas: Tensor
    context: Tensor | None = None

    @property
    def present(self) -> tuple[Tensor, ...]:
        """All three, or the first two of a network without context."""
        return tuple(output for output in self if output is not None)


def _bin_weights(low: Tensor, high: Tensor, cells: int, stride: float) -> Tensor:
    """Weights (N, 7, cells) that average the two bilinear samples of each bin along one axis."""
    length = (high - low) * CONTEXT
    start = (low + high - length) / 2
    steps = (torch.arange(2 * BINS, dtype=low.dtype, device=low.device) + 0.5) / (2 * BINS)
    position = ((start[:, None] + length[:, None] * steps) - (stride - CENTRE_SHIFT)) / stride
    grid = torch.arange(cells, dtype=low.dtype, device=low.device)
    position = position.clamp(min=0.0).minimum(grid[-1])
    weights = F.relu(1 - (position[:, :, None] - grid).abs())
    return weights.reshape(-1, BINS, 2, cells).mean(2)


def roi_align(features: Tensor, boxes: Tensor, stride: float = STRIDE) -> Tensor:
    """Read a 7x7 grid of bilinear samples (2x2 a bin) out of the trunk's features for each box.

    RoIAlign is linear in the features, so it is a product with a matrix of interpolation weights. This form can be
    differentiated and exported, and is fast on a GPU. On a CPU `regions.roi_align.read_regions` takes a tenth of its
    time.

    Parameters
    ----------
    features : Tensor, shape (1, C, H, W)
        Features of one picture, such as the output of `GoogLeNet.trunk`.
    boxes : Tensor, shape (N, 4), float32
        x1 y1 x2 y2 in pixels of the picture that the features were computed from. Each is enlarged by the context of
        R-CNN's crops, see `preprocessing.CONTEXT`.
    stride : float
        Pixels of a cell of the features.

    Returns
    -------
    Tensor, shape (N, C, 7, 7)

    References
    ----------
    He et al., "Mask R-CNN", ICCV 2017, section 3.

    Examples
    --------
    >>> roi_align(torch.ones(1, 8, 10, 12), torch.tensor([[8.0, 8.0, 100.0, 60.0]])).shape
    torch.Size([1, 8, 7, 7])
    """
    _, channels, height, width = features.shape
    x1, y1, x2, y2 = boxes.unbind(1)
    across = _bin_weights(x1, x2, width, stride)
    down = _bin_weights(y1, y2, height, stride)
    weights = (down[:, :, None, :, None] * across[:, None, :, None, :]).reshape(-1, height * width)
    flat = features.permute(0, 2, 3, 1).reshape(height * width, channels)
    sampled = weights.to(flat.dtype) @ flat
    return sampled.reshape(-1, BINS, BINS, channels).permute(0, 3, 1, 2)


def pool_crops(features: Tensor) -> Tensor:
    """GoogLeNet's pooling between inception 4e and 5a: features of crops (N, C, 14, 14) -> (N, C, 7, 7)."""
    return F.max_pool2d(features, 3, 2, ceil_mode=True)


class RegionNetwork(nn.Module):
    """GoogLeNet that scores regions: picture (1, 3, H, W), boxes (N, 4) -> logits (N, 1 + C), deltas (N, C, 4).

    The maps of inception 5b are averaged in 3x3 overlapping parts. An average of the whole region would keep the class
    of an object and lose where it ends, which costs a third of the mAP.

    Two parts can be left out. Both begin with weights of zero, so that a network without them can go on with them.

    - Finer features: inception 3b has a cell for 8 pixels. A 1x1 convolution reduces its channels. What is read of
      these for a region is added, after another 1x1 convolution, to what three branches of inception 5a begin with
      (Bell et al., "Inside-Outside Net", CVPR 2016; Kong et al., "HyperNet", CVPR 2016).
    - Context: the whole picture is one more region, whose features are added to the logits of all others, after a
      linear layer.

    Parameters
    ----------
    classes : int
        Number of object classes C; index 0 of the logits is background.
    finer, context : bool
        Whether it has these parts.
    class_agnostic : bool
        Whether a region has one row of box deltas for all classes, instead of one for each.
    seed : int
        Of the new layers' initial weights.

    Examples
    --------
    >>> network = RegionNetwork(20).eval()
    >>> maps = network.trunk_maps(torch.zeros(1, 3, 224, 320))
    >>> outputs = network.region_head(maps, torch.tensor([[0.0, 0.0, 100.0, 80.0]]))
    >>> [tuple(output.shape) for output in outputs]
    [(1, 21), (1, 20, 4), (1, 21)]
    """

    def __init__(
        self, classes: int, *, finer: bool = True, context: bool = True, class_agnostic: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        self.classes = classes
        self.googlenet = GoogLeNet(classes=1)
        del self.googlenet.classifier
        self.score = nn.Linear(TOP_CHANNELS * len(PARTS), classes + 1)
        self.delta = nn.Linear(TOP_CHANNELS * len(PARTS), 4 if class_agnostic else classes * 4)
        # A map for each of a region's nine parts; see `regions.first_pass.fit_first_pass`.
        self.first_pass = nn.Conv2d(TRUNK_CHANNELS, len(PARTS), 1, bias=False).requires_grad_(False)
        nn.init.zeros_(self.first_pass.weight)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.score.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.score.bias)
        nn.init.normal_(self.delta.weight, std=0.001, generator=generator)
        nn.init.zeros_(self.delta.bias)
        self.lateral: nn.Conv2d | None = None
        self.finer: nn.Conv2d | None = None
        self.context: nn.Linear | None = None
        if finer:
            self.lateral = nn.Conv2d(FINE_INPUTS, FINE_CHANNELS, 1)
            nn.init.normal_(self.lateral.weight, std=_FINE_STD, generator=generator)
            assert self.lateral.bias is not None
            nn.init.zeros_(self.lateral.bias)
            self.finer = nn.Conv2d(FINE_CHANNELS, sum(PROJECTED[1:]), 1, bias=False)
            nn.init.zeros_(self.finer.weight)
        if context:
            self.context = nn.Linear(TOP_CHANNELS, classes + 1, bias=False)
            nn.init.zeros_(self.context.weight)

    def trunk(self, pictures: Tensor) -> Tensor:
        """Compute the features of pictures: (N, 3, H, W) BGR minus the mean -> (N, 832, ~H/16, ~W/16)."""
        return self.googlenet.trunk(pictures)

    def trunk_maps(self, pictures: Tensor) -> TrunkMaps:
        """Compute what regions are read from: (N, 3, H, W) -> `TrunkMaps`."""
        x3b, features = self.googlenet.trunk_levels(pictures)
        return TrunkMaps(features, x3b)

    def first_pass_logits(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Rank regions by a linear score of the trunk's features: (1, 832, h, w), boxes (N, 4) -> (N,).

        Only the order of the scores has a meaning. The score is linear in a region's features, averaged in 3x3 parts,
        and RoIAlign is linear too. So the weights of each part are first applied to all of the picture, and then one
        number for each part is read per region (Dai et al., "R-FCN", NIPS 2016, section 2).
        """
        return self.read_first_pass(roi_align(self.first_pass(features), boxes))

    def read_first_pass(self, regions: Tensor) -> Tensor:
        """Sum the first pass's maps, read for each region, over its parts: (N, 9, 7, 7) -> (N,)."""
        return (regions * torch.from_numpy(PARTS).to(regions)).sum((1, 2, 3))

    def project_channels(self, features: Tensor) -> Tensor:
        """Run the layers of inception 5a that may come before RoIAlign: (N, 832, h, w) -> (N, 1280, h, w).

        The first 832 channels are the features. The others are the 1x1 convolutions that three branches begin with.
        They are linear and compute each cell from one cell. RoIAlign is linear too, and its weights sum to one. So
        either may come first, with the same result. Before RoIAlign the convolutions run once for each of a picture's
        1,000 cells, after it 49 times for each region.
        """
        return torch.cat([features, *self.googlenet.inception_5a.begin(features)], dim=1)

    def reduce_fine(self, fine: Tensor) -> Tensor:
        """Reduce the output of inception 3b to finer features: (N, 480, h, w) -> (N, 128, h, w)."""
        assert self.lateral is not None
        return F.relu(self.lateral(fine))

    def reader(self, maps: TrunkMaps) -> Callable[[Tensor], Tensor]:
        """Return a function that reads regions (N, 4) out of a picture's maps.

        It returns (N, 1280, 7, 7), with finer features (N, 1408, 7, 7): the channels of `project_channels`, then those.
        """
        projected = self.project_channels(maps.features)
        if self.lateral is None:
            return lambda boxes: roi_align(projected, boxes)
        fine = self.reduce_fine(maps.fine)
        return lambda boxes: torch.cat([roi_align(projected, boxes), roi_align(fine, boxes, FINE_STRIDE)], dim=1)

    def score_regions(self, regions: Tensor, kept: Tensor | None = None) -> RegionOutputs:
        """Score regions that `reader` read.

        `kept` (N, 1024) is for dropout in training. It multiplies the channels of inception 5b: by 0 where a channel is
        dropped, elsewhere by the inverse of the share that is kept.
        """
        # Crops have no finer features, whatever the network has.
        sizes = PROJECTED if regions.shape[1] == sum(PROJECTED) else [*PROJECTED, FINE_CHANNELS]
        features, one, three, five, *fine = regions.split(sizes, dim=1)
        return self.score_parts(features, [one, three, five], *fine, kept=kept)

    def score_parts(
        self, features: Tensor, begun: Sequence[Tensor], fine: Tensor | None = None, *, kept: Tensor | None = None
    ) -> RegionOutputs:
        """Score regions as `score_regions` does, by the tensors that it splits."""
        if self.finer is not None and fine is not None:
            added = self.finer(fine).split(PROJECTED[1:], dim=1)
            begun = [branch + more for branch, more in zip(begun, added, strict=True)]
        maps = self.googlenet.inception_5b(self.googlenet.inception_5a.finish(features, begun))
        pooled = F.avg_pool2d(maps, 3, 2)
        context = None if self.context is None else self.context(pooled.mean((2, 3)))
        if kept is not None:
            pooled = pooled * kept[:, :, None, None].to(pooled.dtype)
        pooled = pooled.permute(0, 2, 3, 1).flatten(1)
        deltas = self.delta(pooled).unflatten(1, (-1, 4)).expand(-1, self.classes, -1)
        return RegionOutputs(self.score(pooled), deltas, context)

    def score_crops(self, features: Tensor) -> RegionOutputs:
        """Score crops by the trunk's features of each: (N, 832, 14, 14) -> `RegionOutputs`."""
        return self.score_regions(self.project_channels(pool_crops(features)))

    def region_head(self, maps: TrunkMaps, boxes: Tensor) -> RegionOutputs:
        """Score boxes (N, 4) by a picture's maps, without adding the context."""
        return self.score_regions(self.reader(maps)(boxes))

    def forward(self, picture: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        if self.context is None:
            outputs = self.region_head(self.trunk_maps(picture), boxes)
            return outputs.logits, outputs.deltas
        whole = boxes.new_tensor([[0.0, 0.0, picture.shape[3], picture.shape[2]]])
        outputs = self.region_head(self.trunk_maps(picture), torch.cat([boxes, whole]))
        assert outputs.context is not None
        return outputs.logits[:-1] + outputs.context[-1], outputs.deltas[:-1]
