"""MultiBox: ranked boxes that may hold an object, of any class, predicted by a network as corrections to priors.

Erhan, Szegedy, Toshev & Anguelov, "Scalable Object Detection using Deep Neural Networks", CVPR 2014, in the improved
form of Szegedy, Reed, Erhan & Anguelov, "Scalable, High-Quality Object Detection", arXiv 1412.1441. The network is a
small head (`multibox.network`) on the features of a detector's trunk. This file turns its outputs into ranked boxes. It
needs torch only on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ...backbone.preprocessing import decode_boxes
from ...backbone.regions.features import PictureFeatures, TrunkFeatures
from ...backbone.regions.placement import Placement, choose_placement
from ...backbone.regions.scorer import Trunk
from ...backbone.weights.model_file import read_model
from ...backbone.weights.published import bundled_models, find_model
from ...data import clip_boxes
from ...data.arguments import check_names, check_number
from ...data.errors import ModelError
from ...data.nms import NMS_KERNELS, nms
from ..calibration import RankingCalibration
from ..proposer import Ranked, check_limit
from .file import MODELS, MultiBoxModel, find_multibox, read_multibox
from .priors import place_priors

# Most confident boxes that suppression compares with each other: with all 30,000 it would take longer than the network.
CANDIDATES = 2000


def rank_boxes(
    priors: NDArray[np.float32],
    residuals: NDArray[np.float32],
    logits: NDArray[np.float32],
    size: tuple[float, float],
    *,
    limit: int | None = 200,
    iou_threshold: float = 0.5,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn the outputs of a head into ranked boxes.

    Parameters
    ----------
    priors : ndarray, shape (P, 4), float32
        See `priors.place_priors`.
    residuals : ndarray, shape (P, 4), float32
        Box deltas of the priors, see `backbone.preprocessing.decode_boxes`.
    logits : ndarray, shape (P,), float32
        Logarithmic odds that a box holds an object.
    size : (float, float)
        Width and height of the picture in pixels; boxes are clipped to it.
    limit : int, optional
        Return at most this many boxes, the best.
    iou_threshold : float
        A box is dropped that overlaps a better one by more.

    Returns
    -------
    boxes : ndarray, shape (N, 4), float32
        x1 y1 x2 y2, best first, none lower or narrower than a pixel.
    scores : ndarray, shape (N,), float32
        Confidences in [0, 1], falling.

    Examples
    --------
    >>> priors = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]], np.float32)
    >>> boxes, scores = rank_boxes(priors, np.zeros((3, 4), np.float32), np.array([0, 2, 1], np.float32), (40, 25))
    >>> boxes.tolist(), scores.round(2).tolist()
    ([[1.0, 0.0, 11.0, 10.0], [20.0, 20.0, 30.0, 25.0]], [0.8799999952316284, 0.7300000190734863])
    """
    check_limit(limit)
    best = np.argsort(-logits, kind="stable")[:CANDIDATES]
    boxes = clip_boxes(decode_boxes(priors[best], residuals[best][:, None])[:, 0], *size)
    large = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
    boxes, scores = boxes[large], expit(logits[best][large])
    kept = nms(boxes, scores, iou_threshold)[:limit]
    return boxes[kept], scores[kept]


def tile_picture(width: int, height: int, tiles: int) -> NDArray[np.int64]:
    """Compute square tiles that cover a picture and overlap by half or more.

    Parameters
    ----------
    width, height : int
        Of the picture, in pixels.
    tiles : int
        Number of tiles along the shorter side.

    Returns
    -------
    ndarray, shape (N, 4), int64
        x1 y1 x2 y2, row by row.

    References
    ----------
    Erhan et al., "Scalable Object Detection using Deep Neural Networks", CVPR 2014, section 4.3 (crops).

    Examples
    --------
    >>> tile_picture(640, 480, 1).tolist()
    [[0, 0, 480, 480], [160, 0, 640, 480]]
    >>> len(tile_picture(640, 480, 2))
    6
    """
    side = max(1, math.ceil(min(width, height) * 2 / (tiles + 1)))
    starts = []
    for length in (width, height):
        count = math.ceil((length - side) / (side / 2)) + 1
        starts.append(np.linspace(0, length - side, count).round().astype(np.int64))
    corners = np.stack(np.meshgrid(*starts), axis=-1).reshape(-1, 2)
    return np.concatenate([corners, corners + side], axis=1)


class MultiBoxHead:
    """A head on the engine of its trunk: features (1, 832, h, w) -> residuals (P, 4), logits (P,), both float32.

    Parameters
    ----------
    model : MultiBoxModel
    placement : Placement
        That of the trunk.

    Raises
    ------
    ModelError
        If the model's graph and weights do not fit together.
    """

    def __init__(self, model: MultiBoxModel, placement: Placement) -> None:
        self._again = model, placement
        self._run: Callable[[Any], tuple[NDArray[np.float32], NDArray[np.float32]]]
        if placement.engine == "onnxruntime":
            from ...backbone.regions.onnx_engine import onnx_session

            session = onnx_session(model.graph, model.head_weights, placement.threads)
            self._run = lambda maps: session.run(None, {"features": maps})
        else:
            self._run = _torch_head(model, placement)

    def __call__(self, maps: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See the class."""
        residuals, logits = self._run(maps)
        return residuals, logits

    def __reduce__(self) -> tuple[type[MultiBoxHead], tuple[object, ...]]:
        return MultiBoxHead, self._again


def _torch_head(
    model: MultiBoxModel, placement: Placement
) -> Callable[[Any], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    import torch

    from ...backbone.regions.torch_engine import full_precision
    from .network import from_model

    head = from_model(model).eval()
    dtype = getattr(torch, placement.precision)
    head.to(torch.device(placement.device), dtype).to(memory_format=torch.channels_last)

    def run(maps: torch.Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode(), full_precision(placement.threads):
            residuals, logits = head(maps)
        return residuals[0].float().cpu().numpy(), logits[0].float().cpu().numpy()

    return run


@dataclass(frozen=True)
class MultiBox:
    """Proposes boxes with a trained MultiBox: picture -> boxes and confidences, best first.

    Parameters
    ----------
    model : MultiBoxModel
    trunk : Trunk
        The trunk that the head was trained on.
    head : callable
        Features (1, 832, h, w) -> residuals (P, 4), logits (P,); a `MultiBoxHead`.
    limit : int, optional
        Return at most this many boxes, the best.
    iou_threshold : float
        A box is dropped that overlaps a better one by more. 0.5 covers the most objects at an IoU of 0.5. 0.7 covers
        fewer at that IoU, and some more at high IoUs.
    tiles : int
        Propose also in tiles, this many along the shorter side, see `tile_picture`; 0 for none. Each tile is resized as
        the picture is. This finds more small objects, in a multiple of the time.

    Examples
    --------
    >>> from skimage.data import chelsea
    >>> boxes, scores = MultiBox.load("voc", limit=100)(chelsea())
    >>> boxes.shape, boxes.dtype.name, bool((np.diff(scores) <= 0).all())
    ((100, 4), 'float32', True)
    """

    model: MultiBoxModel = field(repr=False)
    trunk: Trunk = field(repr=False)
    head: Callable[[Any], tuple[NDArray[np.float32], NDArray[np.float32]]] = field(repr=False)
    _: KW_ONLY
    limit: int | None = 200
    iou_threshold: float = 0.5
    tiles: int = 0

    def __post_init__(self) -> None:
        vars(self).update(
            limit=check_limit(self.limit),
            iou_threshold=check_number("iou_threshold", self.iou_threshold, 0, 1),
            tiles=check_number("tiles", self.tiles, 0, 16, whole=True),
        )

    @classmethod
    def load(
        cls,
        name_or_file: str | Path = "voc",
        *,
        detector: str | Path = "voc",
        device: str = "auto",
        threads: int | None = None,
        engine: str | None = None,
        precision: str | None = None,
        limit: int | None = 200,
        iou_threshold: float = 0.5,
        tiles: int = 0,
    ) -> MultiBox:
        """Load a trained head and its trunk.

        Parameters
        ----------
        name_or_file : str or Path
            A bundled head, or a file that ``inception-rcnn train multibox`` wrote.
        detector : str or Path
            The detector whose trunk the head of a file was trained on, by name or file. Not used for a bundled head,
            which uses the bundled detector of its name, or "voc", and for a file with its own trunk.
        device, threads, engine, precision
            See `backbone.regions.placement.choose_placement`.
        limit, iou_threshold, tiles
            See the class.

        Raises
        ------
        ModelError
            If there is no such head or detector, or they do not belong together.
        DeviceError
            If the device is not there.
        """
        placement = choose_placement(device, threads=threads, engine=engine, precision=precision)
        model, trunk, head = load_head(name_or_file, placement, detector=detector)
        return cls(model, trunk, head, limit=limit, iou_threshold=iou_threshold, tiles=tiles)

    @property
    def calibration(self) -> RankingCalibration:
        """How its boxes are merged with selective search's, see `merge.merge_proposals`."""
        return self.model.calibration

    @property
    def settings(self) -> dict[str, object]:
        """All that the boxes depend on."""
        settings = {"limit": self.limit, "iou_threshold": self.iou_threshold, "tiles": self.tiles}
        return {"multibox": self.model.sha256, **settings}

    @property
    def kernels(self) -> tuple[Any, ...]:
        """Compiled functions that a call runs, for `data.system.kernels.compile_all`."""
        return NMS_KERNELS

    def __call__(self, image: NDArray[np.uint8]) -> Ranked:
        """Propose boxes that may hold an object.

        Parameters
        ----------
        image : ndarray, shape (H, W, 3), uint8
            RGB. Greyscale (H, W) or (H, W, 1) and RGBA (H, W, 4), laid on white, are taken too.

        Returns
        -------
        boxes : ndarray, shape (N, 4), float32
            x1 y1 x2 y2 in pixels of `image`, inside it, best first.
        scores : ndarray, shape (N,), float32
            Confidences in [0, 1], falling.

        Raises
        ------
        SettingError
            If the picture is not uint8, is empty or has not 1, 3 or 4 channels.
        """
        return self.propose(PictureFeatures(image))

    def search(self, image: NDArray[np.uint8], name: str | None = None) -> None:
        """Return None: all boxes come from the network; see `Proposer`."""

    def propose(self, features: PictureFeatures, searched: Ranked | None = None, name: str | None = None) -> Ranked:
        """Propose boxes of a picture whose features may be computed already; see `Proposer`."""
        image = features.image
        height, width = image.shape[:2]
        boxes, scores = self._propose_boxes(features.of(self.trunk, self.model.long_side), width, height)
        if self.tiles:
            parts = [(boxes, scores)]
            for x1, y1, x2, y2 in tile_picture(width, height, self.tiles):
                tile = image[y1:y2, x1:x2]
                boxes, scores = self._propose_boxes(self.trunk(tile, self.model.long_side), x2 - x1, y2 - y1)
                boxes += np.array([x1, y1, x1, y1], np.float32)
                # A box that ends at an edge of the tile inside the picture is only a part of an object.
                inner = np.array([x1 > 0, y1 > 0, x2 < width, y2 < height])
                whole = ~((np.abs(boxes - [x1, y1, x2, y2]) < 0.02 * (x2 - x1)) & inner).any(1)
                parts.append((boxes[whole], scores[whole]))
            boxes, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            kept = nms(boxes, scores, self.iou_threshold)[: self.limit]
            boxes, scores = boxes[kept], scores[kept]
        return boxes, scores

    def has_objectness(self, classes: Sequence[str]) -> bool:
        """Tell whether it learned all of `classes`, or any object; else objects of others were background."""
        return set(check_names("classes", classes)) <= set(self.model.classes) or self.model.any_object

    def _propose_boxes(
        self, features: TrunkFeatures, width: int, height: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Propose boxes (N, 4), in pixels of the picture or tile of that size, and scores (N,)."""
        residuals, logits = self.head(features.maps)
        size = width * features.scale, height * features.scale
        priors = place_priors(self.model.priors, features.maps.shape[2:], size)
        if len(priors) != len(logits):
            raise ModelError(
                f"the MultiBox has {len(priors)} priors for this picture and {len(logits)} outputs; its file is damaged"
            )
        boxes, scores = rank_boxes(priors, residuals, logits, size, limit=self.limit, iou_threshold=self.iou_threshold)
        return clip_boxes(boxes / np.float32(features.scale), width, height), scores


def load_head(
    name_or_file: str | Path, placement: Placement, *, detector: str | Path = "voc", loaded_trunks: Sequence[Trunk] = ()
) -> tuple[MultiBoxModel, Trunk, MultiBoxHead]:
    """Load the parts of a `MultiBox`: the model of its head, its trunk, and the head on the trunk's engine.

    Parameters
    ----------
    name_or_file, detector
        See `MultiBox.load`.
    placement : Placement
    loaded_trunks : sequence of Trunk
        Trunks that are loaded already; one with the right weights and placement is used instead of loading it.

    Raises
    ------
    ModelError
        If there is no such head or detector, or they do not belong together.
    """
    path = find_multibox(name_or_file)
    if path.resolve().parent == MODELS.resolve():
        detector = path.stem if path.stem in bundled_models() else "voc"
    model = read_multibox(path)
    fitting = (t for t in loaded_trunks if t.sha256 == model.trunk_sha256 and placement.can_read(t.placement))
    own_trunk = next(fitting, None)
    if own_trunk is None and model.trunk_graph:
        own_trunk = Trunk(model.trunk_weights, {"trunk": model.trunk_graph}, placement)
    elif own_trunk is None:
        region_model = read_model(find_model(detector))
        if region_model.trunk_sha256 != model.trunk_sha256:
            raise ModelError(
                f"{name_or_file}: this MultiBox was trained on another trunk (sha256 {model.trunk_sha256[:12]}...) "
                f"than that of {detector} ({region_model.trunk_sha256[:12]}...); name the detector that it was trained "
                "on (propose --model), train a MultiBox on this one, or let it learn along (--multibox-output)"
            )
        own_trunk = Trunk(region_model.trunk_weights, region_model.graphs, placement)
    return model, own_trunk, MultiBoxHead(model, own_trunk.placement)
