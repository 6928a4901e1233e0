"""Scores of regions by a model: on a CPU by ONNX Runtime, on a GPU by torch, with the same weights.

Other rooms use this file. It runs one of two engines, `onnx_engine` and `torch_engine`. torch is imported only for the
second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from ...data.arguments import check_number
from ...data.boxes import as_boxes
from ...data.errors import DeviceError, ModelError, SettingError
from ..preprocessing import MIN_SIDE, resize_picture
from ..weights.model_file import RegionModel, hash_weights
from .features import PictureFeatures, TrunkFeatures
from .placement import Placement, choose_placement


class Trunk:
    """GoogLeNet's layers up to inception 4e, which several models may share: picture -> features.

    Parameters
    ----------
    weights : mapping of str to ndarray
        float16, named as in `regions.network.RegionNetwork`.
    graphs : mapping of str to bytes
        ``trunk`` and, to run in 8 bits, ``trunk.int8``; see `export.graphs.export_graphs`.
    placement : Placement, optional
        Default ``choose_placement()``. Without a graph in 8 bits the trunk runs in float32 where int8 is asked for.

    Raises
    ------
    ModelError
        If graph and weights do not fit together.

    Examples
    --------
    >>> from inception_rcnn.backbone.weights.model_file import read_model
    >>> from inception_rcnn.backbone.weights.published import find_model
    >>> model = read_model(find_model("voc"))
    >>> trunk = Trunk(model.trunk_weights, model.graphs, Placement(threads=1))
    >>> features = trunk(np.zeros((300, 400, 3), np.uint8), 640)
    >>> features.maps.shape, features.scale
    ((1, 832, 30, 40), 1.6)
    """

    def __init__(
        self,
        weights: Mapping[str, NDArray[np.float16]],
        graphs: Mapping[str, bytes],
        placement: Placement | None = None,
    ) -> None:
        placement = placement or choose_placement()
        if "trunk.int8" not in graphs:
            placement = placement.in_full_precision
        self.placement = placement
        self.sha256 = hash_weights(weights)
        # Only layers on the same engine and device can use the features.
        self.key = self.sha256, placement.engine, placement.device, placement.precision
        self._again = partial(Trunk, weights, graphs, placement)
        self._forward: Callable[[NDArray[np.uint8]], Any]
        if placement.engine == "onnxruntime":
            from .onnx_engine import onnx_trunk

            graph = "trunk.int8" if placement.precision == "int8" else "trunk"
            self._forward = onnx_trunk(graphs[graph], weights, placement.threads)
        else:
            from .torch_engine import torch_trunk

            self._forward = torch_trunk(weights, placement)

    def __call__(self, image: NDArray[np.uint8], long_side: int) -> TrunkFeatures:
        """Compute the features of a picture (H, W, 3) uint8 RGB, its longer side resized to `long_side` pixels."""
        picture, scale = resize_picture(image, long_side)
        maps, *fine = self._forward(picture)
        return TrunkFeatures(maps, scale, fine[0] if fine else None)

    def __reduce__(self) -> tuple[Callable[[], Trunk], tuple[()]]:
        return self._again, ()


class RegionEngine(Protocol):
    """Runs a model's layers above the trunk, and its crops: the methods that an engine must have."""

    def first_pass_logits(self, maps: Any, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rank regions by a linear score of the trunk's features.

        Parameters
        ----------
        maps : ndarray or Tensor, shape (1, 832, h, w)
            Features of the picture, from a trunk on the same engine.
        boxes : ndarray, shape (N, 4), float32
            At least one, in pixels of the resized picture.

        Returns
        -------
        ndarray, shape (N,), float32
            About the logarithm of the odds of an object, without its constant: only the order has a meaning.
        """

    def score_regions(self, features: TrunkFeatures, boxes: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Score one or more regions by a picture's features.

        Returns logits (N, 1 + C), box deltas (N, C, 4), and if the model has it the context (N, 1 + C); see
        `network.RegionOutputs`.
        """

    def score_crops(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Score regions of a picture (H, W, 3) RGB as crops: warped, then sent through all layers."""


def _check_boxes(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    boxes = np.ascontiguousarray(as_boxes(boxes))
    if boxes.shape != (len(boxes), 4) or not np.isfinite(boxes).all():
        raise SettingError(f"boxes must be (N, 4) finite numbers, not of shape {boxes.shape} or with NaN")
    return boxes


class RegionScorer:
    """Scores regions of pictures with a model.

    Parameters
    ----------
    model : RegionModel
    placement : Placement, optional
        Default that of `trunk`; without a trunk ``choose_placement()``.
    trunk : Trunk, optional
        A trunk that is loaded already, with the model's weights, on the same device and engine.
    scale : float
        Factor of the model's ``long_side``, which pictures are resized to. Crops do not depend on it.

    Raises
    ------
    DeviceError
        If `trunk` runs elsewhere.
    ModelError
        If the model's graphs and weights do not fit together, `trunk` has other weights than the model, or the model
        has no graph in 8 bits and `placement` needs it.
    SettingError
        If `scale` is out of range. The methods raise it if boxes are not (N, 4) finite numbers.

    Examples
    --------
    >>> from skimage.data import chelsea
    >>> from inception_rcnn.backbone.weights.model_file import read_model
    >>> from inception_rcnn.backbone.weights.published import find_model
    >>> scorer = RegionScorer(read_model(find_model("voc")), Placement(threads=1))
    >>> probabilities, deltas = scorer(chelsea(), np.array([[0, 0, 451, 300], [0, 0, 40, 30]], np.float32))
    >>> probabilities.shape, deltas.shape
    ((2, 21), (2, 20, 4))
    >>> scorer.model.classes[probabilities[0, 1:].argmax()]
    'cat'
    """

    def __init__(
        self, model: RegionModel, placement: Placement | None = None, *, trunk: Trunk | None = None, scale: float = 1.0
    ) -> None:
        scale = check_number("scale", scale, 0, above=True)
        self.model = model
        self.long_side = round(model.long_side * scale)
        self.placement = placement = placement or (trunk.placement if trunk else choose_placement())
        self.trunk = trunk or Trunk(model.trunk_weights, model.graphs, placement)
        if self.trunk.sha256 != model.trunk_sha256:
            raise ModelError("the given trunk has other weights than the model's trunk; give the model's, or none")
        if not placement.can_read(self.trunk.placement):
            raise DeviceError(f"the given trunk runs with {self.trunk.placement}, not {placement}; load another")
        self._regions: RegionEngine
        if placement.engine == "onnxruntime":
            from .onnx_engine import OnnxRegions

            self._regions = OnnxRegions(model, placement.precision, placement.threads)
        else:
            from .torch_engine import TorchRegions

            self._regions = TorchRegions(model, placement)

    def __reduce__(self) -> tuple[Callable[[], RegionScorer], tuple[()]]:
        scale = self.long_side / self.model.long_side
        return partial(RegionScorer, self.model, self.placement, trunk=self.trunk, scale=scale), ()

    def first_pass_logits(self, features: PictureFeatures, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rank regions by a linear score of the trunk's features, without running the layers above the trunk.

        Parameters
        ----------
        features : PictureFeatures
            Of the picture.
        boxes : ndarray, shape (N, 4), float32
            In its pixels.

        Returns
        -------
        ndarray, shape (N,), float32
            About the logarithm of the odds of an object, without its constant: only the order has a meaning. All
            zero if the model has no first pass, see `RegionModel.has_first_pass`.
        """
        boxes = _check_boxes(boxes)
        if len(boxes) == 0:
            return np.zeros(0, np.float32)
        of_picture = features.of(self.trunk, self.long_side)
        return self._regions.first_pass_logits(of_picture.maps, boxes * np.float32(of_picture.scale))

    def score(
        self, features: PictureFeatures, boxes: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score regions of a picture whose features may be computed already; see `__call__`."""
        classes, boxes = len(self.model.classes), _check_boxes(boxes)
        if len(boxes) == 0:
            return np.zeros((0, classes + 1), np.float32), np.zeros((0, classes, 4), np.float32)
        height, width = features.image.shape[:2]
        if self.model.scoring == "crops":
            logits, deltas, *context = self._regions.score_crops(features.image, self._with_whole(boxes, width, height))
        else:
            of_picture = features.of(self.trunk, self.long_side)
            # What the trunk saw: the narrow ones are extended, see `preprocessing.resize_picture`.
            sides = (max(MIN_SIDE, round(side * of_picture.scale)) for side in (width, height))
            regions = self._with_whole(boxes * np.float32(of_picture.scale), *sides)
            logits, deltas, *context = self._regions.score_regions(of_picture, regions)
        if context:
            logits, deltas = logits[:-1] + context[0][-1], deltas[:-1]
        return softmax(logits, axis=1), deltas

    def _with_whole(self, boxes: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
        """Add the whole picture as the last region, if the model has context."""
        if not self.model.parts["context"]:
            return boxes
        return np.concatenate([boxes, np.array([[0, 0, width, height]], np.float32)])

    def __call__(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score regions of one picture.

        Parameters
        ----------
        image : ndarray, shape (H, W, 3), uint8
            RGB.
        boxes : ndarray, shape (N, 4), float32
            In pixels of `image`.

        Returns
        -------
        probabilities : ndarray, shape (N, 1 + C), float32
            Softmax; column 0 is background.
        deltas : ndarray, shape (N, C, 4), float32
            Box deltas, see `preprocessing.decode_boxes`.
        """
        return self.score(PictureFeatures(image), boxes)
