"""The features that trunks compute of a picture, each once, however many models need them."""

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ...data.images.reading import as_rgb, check_image


class TrunkFeatures(NamedTuple):
    """A trunk's features of one picture.

    Attributes
    ----------
    maps : ndarray or Tensor, shape (1, 832, h, w)
        Output of inception 4e. ONNX Runtime gives an array, torch a tensor on its device.
    scale : float
        Pixels of the resized picture per pixel of the picture: boxes times `scale` are boxes on the resized one.
    fine : ndarray or Tensor, shape (1, 480, ~2h, ~2w), or None
        Output of inception 3b, for finer features; see `network.RegionNetwork`. None from a file of version 0.2.
    """

    maps: Any
    scale: float
    fine: Any = None


class FeatureTrunk(Protocol):
    """Computes features of a picture, such as `scorer.Trunk`; two with the same `key` compute the same."""

    @property
    def key(self) -> tuple[str, ...]:
        """Weights, engine, device and precision."""

    def __call__(self, image: NDArray[np.uint8], long_side: int) -> TrunkFeatures:
        """Compute the features of a picture (H, W, 3) uint8 RGB, resized to `long_side` pixels."""


class PictureFeatures:
    """A picture and its features by any number of trunks; each are computed when they are first needed.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        RGB. Greyscale (H, W) or (H, W, 1) and RGBA (H, W, 4), laid on white, are taken too.

    Raises
    ------
    SettingError
        If the picture is not uint8, is empty or has not 1, 3 or 4 channels.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        check_image(image)
        self.image = as_rgb(image)
        self._features: dict[tuple[object, ...], TrunkFeatures] = {}

    def of(self, trunk: FeatureTrunk, long_side: int) -> TrunkFeatures:
        """Return a trunk's features of the picture, its longer side resized to `long_side` pixels.

        Trunks of equal weights and placement share them.
        """
        key = *trunk.key, long_side
        if key not in self._features:
            self._features[key] = trunk(self.image, long_side)
        return self._features[key]
