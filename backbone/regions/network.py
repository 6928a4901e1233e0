"""The network that scores regions, in torch: GoogLeNet's trunk once for a picture, RoIAlign, its top once for a region.

He et al., "Spatial Pyramid Pooling", ECCV 2014, and Girshick, "Fast R-CNN", ICCV 2015, applied to the network of "Going
Deeper with Convolutions": overlapping regions share the trunk's features. The same layers can also score crops, as in
R-CNN: each region is warped to the size that GoogLeNet was made for, and goes through all of them, at many times the
work.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..googlenet import INCEPTION_WIDTHS, GoogLeNet
from ..preprocessing import CONTEXT
from .roi_align import BINS, FIRST_CENTRE, PARTS, STRIDE, TRUNK_CHANNELS

# Channels of the trunk's features, and of the 1x1 convolutions that three branches of inception 5a begin with.
_WIDTHS = INCEPTION_WIDTHS["5a"]
PROJECTED = [TRUNK_CHANNELS, _WIDTHS.one, _WIDTHS.three_reduce, _WIDTHS.five_reduce]
# Channels of inception 5b, averaged in each of a region's nine parts: what scores and box deltas are computed from.
TOP_CHANNELS = 1024


def _bin_weights(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """Weights (N, 7, cells) that average the two bilinear samples of each bin along one axis."""
    length = (high - low) * CONTEXT
    start = (low + high - length) / 2
    steps = (torch.arange(2 * BINS, dtype=low.dtype, device=low.device) + 0.5) / (2 * BINS)
    position = ((start[:, None] + length[:, None] * steps) - FIRST_CENTRE) / STRIDE
    grid = torch.arange(cells, dtype=low.dtype, device=low.device)
    position = position.clamp(min=0.0).minimum(grid[-1])
    weights = F.relu(1 - (position[:, :, None] - grid).abs())
    return weights.reshape(-1, BINS, 2, cells).mean(2)


def roi_align(features: Tensor, boxes: Tensor) -> Tensor:
    """Read a 7x7 grid of bilinear samples (2x2 a bin) out of the trunk's features for each box.

    RoIAlign is linear in the features, so it is a product with a matrix of interpolation weights. This form can be
    differentiated and exported, and is fast on a GPU. On a CPU `regions.roi_align.read_regions` takes a tenth of its
    time.

    Parameters
    ----------
    features : Tensor, shape (1, C, H, W)
        Output of `GoogLeNet.trunk` for one picture.
    boxes : Tensor, shape (N, 4), float32
        x1 y1 x2 y2 in pixels of the picture that the features were computed from. Each is enlarged by the context of
        R-CNN's crops, see `preprocessing.CONTEXT`.

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
    across = _bin_weights(x1, x2, width)
    down = _bin_weights(y1, y2, height)
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

    Parameters
    ----------
    classes : int
        Number of object classes C; index 0 of the logits is background.
    seed : int
        Of the new layers' initial weights.

    Examples
    --------
    >>> network = RegionNetwork(20).eval()
    >>> features = network.trunk(torch.zeros(1, 3, 224, 320))
    >>> logits, deltas = network.region_head(features, torch.tensor([[0.0, 0.0, 100.0, 80.0]]))
    >>> logits.shape, deltas.shape
    (torch.Size([1, 21]), torch.Size([1, 20, 4]))
    """

    def __init__(self, classes: int, *, seed: int = 0) -> None:
        super().__init__()
        self.classes = classes
        self.googlenet = GoogLeNet(classes=1)
        del self.googlenet.classifier
        self.score = nn.Linear(TOP_CHANNELS * len(PARTS), classes + 1)
        self.delta = nn.Linear(TOP_CHANNELS * len(PARTS), classes * 4)
        # A map for each of a region's nine parts; see `regions.first_pass.fit_first_pass`.
        self.first_pass = nn.Conv2d(TRUNK_CHANNELS, len(PARTS), 1, bias=False).requires_grad_(False)
        nn.init.zeros_(self.first_pass.weight)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.score.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.score.bias)
        nn.init.normal_(self.delta.weight, std=0.001, generator=generator)
        nn.init.zeros_(self.delta.bias)

    def trunk(self, pictures: Tensor) -> Tensor:
        """Compute the features of pictures: (N, 3, H, W) BGR minus the mean -> (N, 832, ~H/16, ~W/16)."""
        return self.googlenet.trunk(pictures)

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

    def score_regions(self, regions: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score regions read from `project_channels`: (N, 1280, 7, 7) -> logits (N, 1 + C), box deltas (N, C, 4).

        `kept` (N, 1024) is for dropout in training. It multiplies the channels of inception 5b: by 0 where a channel is
        dropped, elsewhere by the inverse of the share that is kept.
        """
        features, *begun = regions.split(PROJECTED, dim=1)
        return self.score_parts(features, begun, kept)

    def score_parts(
        self, features: Tensor, begun: Sequence[Tensor], kept: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Score regions as `score_regions` does, by the four tensors of `PROJECTED` channels that it splits."""
        maps = self.googlenet.inception_5b(self.googlenet.inception_5a.finish(features, begun))
        pooled = F.avg_pool2d(maps, 3, 2)
        if kept is not None:
            pooled = pooled * kept[:, :, None, None].to(pooled.dtype)
        pooled = pooled.permute(0, 2, 3, 1).flatten(1)
        return self.score(pooled), self.delta(pooled).unflatten(1, (self.classes, 4))

    def score_crops(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Score crops by the trunk's features of each: (N, 832, 14, 14) -> logits (N, 1 + C), box deltas (N, C, 4)."""
        return self.score_regions(self.project_channels(pool_crops(features)))

    def region_head(self, features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Score boxes by a picture's features: (1, 832, h, w), (N, 4) -> logits (N, 1 + C), box deltas (N, C, 4)."""
        return self.score_regions(roi_align(self.project_channels(features), boxes))

    def forward(self, picture: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        return self.region_head(self.trunk(picture), boxes)
