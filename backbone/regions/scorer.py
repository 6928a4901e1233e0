"""Running a region model: on a CPU through ONNX Runtime, on a GPU through torch, the same weights in both.

This is the door; `onnx_engine` and `torch_engine` are the two engines behind it. torch is imported only when a GPU, or
its engine, is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ...data.errors import DeviceError, ModelError, SettingError
from ...data.images.reading import as_rgb, check_image
from ..preprocessing import resize_picture
from ..weights.model_file import RegionModel, hash_weights
from .placement import choose_device, choose_precision


class Features(NamedTuple):
    """A picture as a trunk sees it.

    Attributes
    ----------
    maps : ndarray or Tensor, shape (1, 832, h, w)
        Output of inception 4e, where the engine has it.
    scale : float
        Pixels that the trunk got per pixel of the picture.
    """

    maps: Any
    scale: float


class Trunk:
    """GoogLeNet's layers up to inception 4e, for all that stand on them: picture -> features.

    Parameters
    ----------
    weights : mapping of str to ndarray
        float16, named as in `regions.RegionNetwork`.
    graph : bytes
        ONNX, ``picture`` (N, 3, H, W) -> ``features``.
    device : {"auto", "cpu", "cuda"}
    threads : int, optional
        CPU threads; default all cores that this process may use.
    engine : {"onnxruntime", "torch"}, optional
        Default ONNX Runtime on a CPU, torch on a GPU. ONNX Runtime is for a CPU only.
    precision : {"float32", "float16", "int8"}, optional
        See `choose_precision`. A trunk never runs in 8 bits: what stands on it is many, and it runs once a picture.

    Raises
    ------
    DeviceError
        See `choose_device` and `choose_precision`; also if the engine is unknown.
    ModelError
        If graph and weights do not fit together.
    ValueError
        If `threads` is less than 1.

    Examples
    --------
    >>> from inception_rcnn.backbone.weights.model_file import read_model
    >>> from inception_rcnn.backbone.weights.published import find_model
    >>> model = read_model(find_model("voc"))
    >>> trunk = Trunk(model.trunk_weights, model.graphs["trunk"], device="cpu", threads=1)
    >>> maps, scale = trunk(np.zeros((300, 400, 3), np.uint8), 640)
    >>> maps.shape, scale
    ((1, 832, 30, 40), 1.6)
    """

    def __init__(
        self,
        weights: Mapping[str, NDArray[np.float16]],
        graph: bytes,
        *,
        device: str = "auto",
        threads: int | None = None,
        engine: str | None = None,
        precision: str | None = None,
    ) -> None:
        if engine not in (None, "onnxruntime", "torch"):
            raise DeviceError(f"engine {engine!r} is unknown; use onnxruntime or torch")
        if engine == "onnxruntime" and device == "cuda":
            raise DeviceError("engine onnxruntime is for a CPU; leave the engine out, or use --device cpu")
        self.device = choose_device("cpu" if engine == "onnxruntime" and device == "auto" else device)
        if threads is not None and threads < 1:
            raise SettingError(f"threads must be 1 or more, not {threads}")
        self.threads = threads
        self.engine = engine or ("onnxruntime" if self.device == "cpu" else "torch")
        precision = choose_precision(precision, self.device, self.engine)
        self.precision = "float32" if precision == "int8" else precision
        self.sha256 = hash_weights(weights)
        self._again = partial(
            Trunk, weights, graph, device=self.device, threads=threads, engine=self.engine, precision=self.precision
        )
        # Features are only of use to what runs on the same engine and device.
        self.key = self.sha256, self.engine, self.device, self.precision
        self._look: Callable[[NDArray[np.uint8]], Any]
        if self.engine == "onnxruntime":
            from .onnx_engine import onnx_trunk

            self._look = onnx_trunk(graph, weights, threads)
        else:
            from .torch_engine import torch_trunk

            self._look = torch_trunk(weights, self.device, self.precision)

    def __call__(self, image: NDArray[np.uint8], long_side: int) -> Features:
        """Look at a picture: (H, W, 3) uint8 RGB, resized to `long_side` pixels."""
        picture, scale = resize_picture(image, long_side)
        return Features(self._look(picture), scale)

    def __reduce__(self) -> tuple[Callable[[], Trunk], tuple[()]]:
        return self._again, ()


class PictureFeatures:
    """A picture and its features, each computed when first asked for.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        RGB. Greyscale (H, W) or (H, W, 1) and RGBA (H, W, 4), laid on white, are taken too.

    Raises
    ------
    ValueError
        If the picture is not uint8, is empty or has not 1, 3 or 4 channels.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        check_image(image)
        self.image = as_rgb(image)
        self._features: dict[tuple[object, ...], Features] = {}

    def features(self, trunk: Trunk, long_side: int) -> Features:
        """Features of the picture at a size; of two trunks with the same weights only one looks at it."""
        key = *trunk.key, long_side
        if key not in self._features:
            self._features[key] = trunk(self.image, long_side)
        return self._features[key]


class RegionEngine(Protocol):
    """Runs a model's layers above the trunk: what an engine has to do, whichever it is."""

    def first_pass_logits(self, maps: Any, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Tell how promising regions, at least one, look at a first glance.

        Parameters
        ----------
        maps : ndarray or Tensor, shape (1, 832, h, w)
            Features of the picture, where the engine has them.
        boxes : ndarray, shape (N, 4), float32
            In pixels that the trunk got.

        Returns
        -------
        ndarray, shape (N,), float32
            Higher is more promising, any scale.
        """

    def score_regions(self, maps: Any, boxes: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score at least one region by a picture's features: probabilities (N, 1 + C), deltas (N, C, 4)."""

    def score_crops(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score regions of a picture (H, W, 3) RGB, boxes in its pixels, by themselves, warped, through all layers."""


def _check_boxes(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    boxes = np.ascontiguousarray(boxes, np.float32)
    if boxes.shape != (len(boxes), 4) or not np.isfinite(boxes).all():
        raise SettingError(f"boxes must be (N, 4) finite numbers, not of shape {boxes.shape} or with NaN")
    return boxes


class RegionScorer:
    """Scores regions of pictures with a model.

    Parameters
    ----------
    model : RegionModel
    device : {"auto", "cpu", "cuda"}
    threads : int, optional
        CPU threads; default all cores that this process may use.
    engine : {"onnxruntime", "torch"}, optional
        Default ONNX Runtime on a CPU, torch on a GPU.
    precision : {"float32", "float16", "int8"}, optional
        Default half precision on a GPU, float32 on a CPU.
    trunk : Trunk, optional
        One that is there already, of the same weights; its device, engine and precision are then the scorer's.
    scale : float
        Pictures are looked at in so many times the size that the model says; of no meaning for crops.

    Raises
    ------
    DeviceError
        See `choose_device` and `choose_precision`.
    ModelError
        If the model's graphs and weights do not fit together, its trunk is another, or it has no graphs in 8 bits.
    ValueError
        If `threads` or `scale` is out of range; of the methods if boxes are not (N, 4) finite numbers.

    Examples
    --------
    >>> from skimage.data import chelsea
    >>> from inception_rcnn.backbone.weights.model_file import read_model
    >>> from inception_rcnn.backbone.weights.published import find_model
    >>> scorer = RegionScorer(read_model(find_model("voc")), device="cpu", threads=1)
    >>> probabilities, deltas = scorer(chelsea(), np.array([[0, 0, 451, 300], [0, 0, 40, 30]], np.float32))
    >>> probabilities.shape, deltas.shape
    ((2, 21), (2, 20, 4))
    >>> scorer.model.classes[probabilities[0, 1:].argmax()]
    'cat'
    """

    def __init__(
        self,
        model: RegionModel,
        *,
        device: str = "auto",
        threads: int | None = None,
        engine: str | None = None,
        precision: str | None = None,
        trunk: Trunk | None = None,
        scale: float = 1.0,
    ) -> None:
        if not 0 < scale < np.inf:
            raise SettingError(f"scale must be more than 0, not {scale}")
        self.model = model
        self.long_side = round(model.long_side * scale)
        self.trunk = trunk or Trunk(
            model.trunk_weights, model.graphs["trunk"],
            device=device, threads=threads, engine=engine, precision=precision,
        )  # fmt: skip
        if self.trunk.sha256 != model.trunk_sha256:
            raise ModelError("the trunk's weights are not the model's")
        self.device = self.trunk.device
        self.precision = choose_precision(precision or self.trunk.precision, self.device, self.trunk.engine)
        if self.precision not in (self.trunk.precision, "int8"):
            raise DeviceError(f"the trunk that is given computes in {self.trunk.precision}, not {self.precision}")
        self._regions: RegionEngine
        if self.trunk.engine == "onnxruntime":
            from .onnx_engine import OnnxRegions

            self._regions = OnnxRegions(model, self.precision, self.trunk.threads)
        else:
            from .torch_engine import TorchRegions

            self._regions = TorchRegions(model, self.device, self.precision)

    def __reduce__(self) -> tuple[Callable[[], RegionScorer], tuple[()]]:
        scale = self.long_side / self.model.long_side
        return partial(RegionScorer, self.model, trunk=self.trunk, precision=self.precision, scale=scale), ()

    def first_pass_logits(self, view: PictureFeatures, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """First pass: how promising regions look, at the cost of none of the layers above the trunk.

        Parameters
        ----------
        view : PictureFeatures
            Of the picture.
        boxes : ndarray, shape (N, 4), float32
            In its pixels.

        Returns
        -------
        ndarray, shape (N,), float32
            About the logarithm of the odds that there is an object; all zero of a model that was packed without
            pictures to fit it on.
        """
        boxes = _check_boxes(boxes)
        if len(boxes) == 0:
            return np.zeros(0, np.float32)
        maps, scale = view.features(self.trunk, self.long_side)
        return self._regions.first_pass_logits(maps, boxes * np.float32(scale))

    def score(
        self, view: PictureFeatures, boxes: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score regions of a picture that may have been looked at before; see `__call__`."""
        classes, boxes = len(self.model.classes), _check_boxes(boxes)
        if len(boxes) == 0:
            return np.zeros((0, classes + 1), np.float32), np.zeros((0, classes, 4), np.float32)
        if self.model.scoring == "crops":
            return self._regions.score_crops(view.image, boxes)
        maps, scale = view.features(self.trunk, self.long_side)
        return self._regions.score_regions(maps, boxes * np.float32(scale))

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
