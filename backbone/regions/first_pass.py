"""Fitting the first pass: a linear score of the trunk's features that says which regions to score with all layers.

It is fitted by least squares to the whole network's scores of some thousand regions, and used by
`scorer.RegionScorer.first_pass_logits`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor

from ..preprocessing import crop_regions, prepare_picture
from .network import RegionNetwork, roi_align
from .onnx_engine import CROPS
from .roi_align import PARTS

# Regions of a picture that are learned from; a crop takes ten times the time of a region.
REGIONS = {"shared": 200, "crops": 100}
# Ridge, as a share of the features' mean square.
RIDGE = 0.03
# Odds beyond these say no more about which regions to keep.
MOST_CERTAIN = 9.0


def _part_features(maps: Tensor, boxes: Tensor) -> Tensor:
    """Features of regions, averaged in nine parts: (N, 832 * 9)."""
    parts = torch.from_numpy(PARTS).reshape(9, -1)
    return torch.einsum("ncb,pb->ncp", roi_align(maps, boxes).flatten(2), parts).flatten(1)


def fit_first_pass(
    network: RegionNetwork,
    samples: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]],
    *,
    long_side: int,
    scoring: str = "shared",
    seed: int = 0,
) -> None:
    """Fit a network's first pass to its own scores, in place.

    Parameters
    ----------
    network : RegionNetwork
        On a CPU.
    samples : sequence of (ndarray, shape (H, W, 3), uint8; ndarray, shape (N, 4), float32)
        Pictures, RGB, and regions in their pixels.
    long_side : int
        Pictures are resized to this many pixels on their longer side.
    scoring : {"shared", "crops"}
    seed : int
        Some of the regions of each picture are drawn.

    References
    ----------
    Hoerl and Kennard, "Ridge regression", Technometrics 1970.
    """
    rng = np.random.default_rng(seed)
    size = 832 * len(PARTS) + 1
    products, sums, number = torch.zeros(size, size), torch.zeros(size), 0
    with torch.inference_mode():
        for image, boxes in samples:
            drawn = boxes[rng.permutation(len(boxes))[: REGIONS[scoring]]]
            if not len(drawn):
                continue
            array, scale = prepare_picture(image, long_side)
            maps = network.trunk(torch.from_numpy(array))
            places = torch.from_numpy(drawn * np.float32(scale))
            if scoring == "crops":
                crops = torch.from_numpy(crop_regions(image, drawn)).split(CROPS)
                logits = torch.cat([network.score_crops(network.trunk(some))[0] for some in crops])
            else:
                logits, _ = network.region_head(maps, places)
            # The odds of an object of any class.
            odds = (logits[:, 1:].logsumexp(1) - logits[:, 0]).clamp(-MOST_CERTAIN, MOST_CERTAIN)
            features = torch.cat([_part_features(maps, places), torch.ones(len(drawn), 1)], dim=1)
            products += features.T @ features
            sums += features.T @ odds
            number += len(drawn)
    if number == 0:
        return
    matrix = products.numpy()
    matrix[np.diag_indices(size)] += RIDGE * np.trace(matrix) / size
    # The constant is the same for all regions, so it is of no use to a ranking.
    weights = cho_solve(cho_factor(matrix, overwrite_a=True), sums.numpy())[:-1]
    with torch.no_grad():
        network.first_pass.weight.copy_(torch.from_numpy(weights.reshape(832, len(PARTS)).T[:, :, None, None]))
