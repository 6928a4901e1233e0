"""Fitting the first pass: a linear score of the trunk's features that selects the regions to score with all layers.

It is fitted by least squares to the scores that all layers give to some thousand regions.
`scorer.RegionScorer.first_pass_logits` computes it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor

from ..preprocessing import crop_regions, prepare_picture
from .network import RegionNetwork, roi_align
from .onnx_engine import CROPS
from .roi_align import PARTS, TRUNK_CHANNELS

# Regions of a picture that are fitted to. Crops are fewer: one takes the time of ten regions.
REGIONS = {"shared": 200, "crops": 100}
# Ridge of the regression, as a share of the features' mean square.
RIDGE = 0.03
# Logarithms of odds are cut off at plus and minus this: which regions to keep does not depend on larger ones.
MAX_LOG_ODDS = 9.0


def _part_features(maps: Tensor, boxes: Tensor) -> Tensor:
    """Average the features of regions in nine parts: (1, 832, h, w), (N, 4) -> (N, 832 * 9)."""
    parts = torch.from_numpy(PARTS).flatten(1)
    return torch.einsum("ncb,pb->ncp", roi_align(maps, boxes).flatten(2), parts).flatten(1)


def fit_first_pass(
    network: RegionNetwork,
    samples: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]],
    *,
    long_side: int,
    scoring: str = "shared",
    seed: int = 0,
    step: Callable[[], None] = lambda: None,
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
        Of the random choice of regions where a picture has more than are fitted to.
    step : callable
        Called before each picture.

    References
    ----------
    Hoerl and Kennard, "Ridge regression", Technometrics 1970.
    """
    rng = np.random.default_rng(seed)
    size = TRUNK_CHANNELS * len(PARTS) + 1
    products, sums, number = torch.zeros(size, size), torch.zeros(size), 0
    with torch.inference_mode():
        for image, boxes in samples:
            step()
            drawn = boxes[rng.permutation(len(boxes))[: REGIONS[scoring]]]
            if not len(drawn):
                continue
            array, scale = prepare_picture(image, long_side)
            maps = network.trunk_maps(torch.from_numpy(array))
            places = torch.from_numpy(drawn * np.float32(scale))
            if scoring == "crops":
                crops = torch.from_numpy(crop_regions(image, drawn)).split(CROPS)
                logits = torch.cat([network.score_crops(network.trunk(batch)).logits for batch in crops])
            else:
                logits = network.region_head(maps, places).logits
            # The logarithm of the odds of an object of any class.
            odds = (logits[:, 1:].logsumexp(1) - logits[:, 0]).clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS)
            features = torch.cat([_part_features(maps.features, places), torch.ones(len(drawn), 1)], dim=1)
            products += features.T @ features
            sums += features.T @ odds
            number += len(drawn)
    if number == 0:
        return
    matrix = products.numpy()
    matrix[np.diag_indices(size)] += RIDGE * np.trace(matrix) / size
    # The constant is left out: it is the same for all regions and does not change their order.
    weights = cho_solve(cho_factor(matrix, overwrite_a=True), sums.numpy())[:-1]
    with torch.no_grad():
        network.first_pass.weight.copy_(torch.from_numpy(weights.reshape(-1, len(PARTS)).T[:, :, None, None]))
