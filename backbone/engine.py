"""Running a region model: on a CPU through ONNX Runtime, on a GPU through torch, the same weights in both.

On CPUs ONNX Runtime is at least as fast as torch on this network (``benchmarks/pipeline.py`` compares them) and a
twentieth of its size to install; torch is imported only when a GPU is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..data.images import as_rgb, check_image
from ..data.parallel import usable_cores
from .model_file import ModelError, RegionModel, hash_weights, in_trunk
from .preprocessing import crop_regions, prepare_picture
from .region_features import read_regions

if TYPE_CHECKING:
    import onnxruntime
    import torch

    from .regions import RegionNetwork

__all__ = [
    "DeviceError",
    "Features",
    "RegionScorer",
    "Trunk",
    "choose_device",
    "onnx_session",
    "torch_network",
    "torch_place",
]

# Regions that go through the head at once: the largest activations of 64 regions stay inside a usual L2 + L3 share.
CHUNK = 64
# And crops through the whole network: more at once are no faster.
CROPS = 16


class DeviceError(ValueError):
    """A device that was asked for is not there; the text says what to do."""


def choose_device(device: str = "auto") -> str:
    """Decide where to run.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        "auto" takes the GPU if torch is installed and sees one.

    Returns
    -------
    str
        "cpu" or "cuda".

    Raises
    ------
    DeviceError
        If "cuda" is asked for and is not there, or the name is unknown.

    Examples
    --------
    >>> choose_device("cpu")
    'cpu'
    """
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"device {device!r} is unknown; use auto, cpu or cuda")
    if device == "cpu":
        return "cpu"
    try:
        import torch

        if torch.cuda.is_available():
            return "cuda"
        missing = "torch sees no GPU; check the driver"
    except ImportError:
        missing = "torch is not installed; in a clone of the project: pip install '.[train]'"
    if device == "cuda":
        raise DeviceError(f"device cuda is not available: {missing}, or use --device cpu")
    return "cpu"


def onnx_session(
    graph: bytes, weights: Mapping[str, NDArray[np.float16]], threads: int | None = None
) -> onnxruntime.InferenceSession:
    """Make what runs a graph of a model file.

    Parameters
    ----------
    graph : bytes
        ONNX; its initializers are named as the weights.
    weights : mapping of str to ndarray
        float16; those that the graph does not name are left out.
    threads : int, optional
        Default all cores that this process may use.

    Raises
    ------
    ModelError
        If graph and weights do not fit together.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.log_severity_level = 3
    # Spinning threads would take the cores from the threads that propose for the next picture.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # ONNX Runtime refuses weights that a graph does not name, and a file's graphs share none.
    own = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(weight.astype(np.float32))
        for name, weight in weights.items()
        if name.encode() in graph
    }
    options.add_external_initializers(list(own), list(own.values()))
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises one class per kind of failure, none of them public.
        raise ModelError(f"the model's graph cannot be run: {str(error).splitlines()[0]}") from error


def torch_place(device: str) -> tuple[torch.device, torch.dtype]:
    """Where torch runs a network, and in which precision: half on a GPU."""
    import torch

    return torch.device(device), torch.float16 if device == "cuda" else torch.float32


def torch_network(
    weights: Mapping[str, NDArray[np.float16]], classes: int, device: str, *, trunk_alone: bool = False
) -> RegionNetwork:
    """Make the network of a model in torch.

    Parameters
    ----------
    weights : mapping of str to ndarray
        float16, named as in `regions.RegionNetwork`.
    classes : int
    device : {"cpu", "cuda"}
        float32 on a CPU, half precision on a GPU.
    trunk_alone : bool
        The weights are only those up to inception 4e.

    Raises
    ------
    ModelError
        If the weights do not fit the network.

    Examples
    --------
    >>> import torch
    >>> from .model_file import read_model
    >>> from .weights import find_model
    >>> network = torch_network(read_model(find_model("voc")).weights, 20, "cpu")
    >>> network.trunk(torch.zeros(1, 3, 96, 160)).shape
    torch.Size([1, 832, 6, 10])
    """
    import torch

    from .regions import RegionNetwork

    network = RegionNetwork(classes)
    tensors = {name: torch.from_numpy(weight.astype(np.float32)) for name, weight in weights.items()}
    try:
        missing, unexpected = network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ModelError(f"the model's weights do not fit the network: {str(error).splitlines()[0]}") from error
    # A trunk comes without the layers above it.
    missing = [name for name in missing if in_trunk(name) or not trunk_alone]
    if unexpected or missing:
        raise ModelError(f"the model's weights do not fit the network: {[*unexpected, *missing][0]}")
    place, dtype = torch_place(device)
    return network.eval().to(place, dtype).to(memory_format=torch.channels_last)


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
        Default ONNX Runtime on a CPU, torch on a GPU.

    Raises
    ------
    DeviceError
        See `choose_device`; also if the engine is unknown.
    ModelError
        If graph and weights do not fit together.
    """

    def __init__(
        self,
        weights: Mapping[str, NDArray[np.float16]],
        graph: bytes,
        *,
        device: str = "auto",
        threads: int | None = None,
        engine: str | None = None,
    ) -> None:
        if engine not in (None, "onnxruntime", "torch"):
            raise DeviceError(f"engine {engine!r} is unknown; use onnxruntime or torch")
        self.device, self.threads = choose_device(device), threads
        self.engine = engine or ("onnxruntime" if self.device == "cpu" else "torch")
        self.sha256 = hash_weights(weights)
        self._again = partial(Trunk, weights, graph, device=self.device, threads=threads, engine=self.engine)
        # Features are only of use to what runs on the same engine and device.
        self.key = self.sha256, self.engine, self.device
        self._run: Callable[[NDArray[np.float32]], Any]
        if self.engine == "onnxruntime":
            session = onnx_session(graph, weights, threads)
            self._run = lambda picture: session.run(None, {"picture": picture})[0]
        else:
            self._run = _run_trunk(torch_network(weights, 1, self.device, trunk_alone=True), self.device)

    def __call__(self, image: NDArray[np.uint8], long_side: int) -> Features:
        """Look at a picture: (H, W, 3) uint8 RGB, resized to `long_side` pixels."""
        picture, scale = prepare_picture(image, long_side)
        return Features(self._run(picture), scale)

    def run(self, pictures: NDArray[np.float32]) -> Any:
        """Features of prepared pictures or crops: (N, 3, H, W) float32 -> (N, 832, h, w), where the engine has them."""
        return self._run(pictures)

    def __reduce__(self) -> tuple[Callable[[], Trunk], tuple[()]]:
        return self._again, ()


class View:
    """A picture and its features, each computed when first asked for.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        RGB. Greyscale (H, W) or (H, W, 1) and RGBA (H, W, 4; alpha ignored) are taken too.

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


def _run_trunk(network: RegionNetwork, device: str) -> Callable[[NDArray[np.float32]], torch.Tensor]:
    import torch

    place, dtype = torch_place(device)

    def run(picture: NDArray[np.float32]) -> torch.Tensor:
        with torch.inference_mode():
            return network.trunk(torch.from_numpy(picture).to(place, dtype, memory_format=torch.channels_last))

    return run


_Scores: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
# Features, and for a whole picture's boxes (N, 4) in pixels that the trunk got, -> probabilities, deltas.
_Head: TypeAlias = Callable[..., _Scores]


def _onnx_head(model: RegionModel, threads: int | None) -> _Head:
    session = onnx_session(model.head_graph, model.weights, threads)
    if model.scoring == "crops":
        return lambda maps: session.run(None, {"features": maps})

    def run(maps: NDArray[np.float32], boxes: NDArray[np.float32]) -> _Scores:
        features = np.ascontiguousarray(maps[0].transpose(1, 2, 0))
        chunks = [
            session.run(None, {"features": read_regions(features, boxes[start : start + CHUNK])})
            for start in range(0, len(boxes), CHUNK)
        ]
        return np.concatenate([c[0] for c in chunks]), np.concatenate([c[1] for c in chunks])

    return run


def _torch_head(model: RegionModel, device: str) -> _Head:
    import torch

    network = torch_network(model.weights, len(model.classes), device)
    place, _ = torch_place(device)
    chunk = 1024 if device == "cuda" else CHUNK

    def run(maps: torch.Tensor, boxes: NDArray[np.float32] | None = None) -> _Scores:
        with torch.inference_mode():
            if boxes is None:
                chunks = [network.score_crops(maps)]
            else:
                # Boxes stay float32: half precision has no half pixels past 1024.
                chunks = [network.head(maps, part) for part in torch.from_numpy(boxes).to(place).split(chunk)]
            probabilities = torch.cat([logits.float().softmax(1) for logits, _ in chunks])
            deltas = torch.cat([deltas for _, deltas in chunks]).float()
            return probabilities.cpu().numpy(), deltas.cpu().numpy()

    return run


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
    trunk : Trunk, optional
        One that is there already, of the same weights.
    scale : float
        Pictures are looked at in so many times the size that the model says; of no meaning for crops.

    Raises
    ------
    DeviceError
        See `choose_device`.
    ModelError
        If the model's graphs and weights do not fit together, or its trunk is another.
    """

    def __init__(
        self,
        model: RegionModel,
        *,
        device: str = "auto",
        threads: int | None = None,
        engine: str | None = None,
        trunk: Trunk | None = None,
        scale: float = 1.0,
    ) -> None:
        self.model = model
        self.long_side = round(model.long_side * scale)
        self.trunk = trunk or Trunk(
            model.trunk_weights, model.trunk_graph, device=device, threads=threads, engine=engine
        )
        if self.trunk.sha256 != model.trunk_sha256:
            raise ModelError("the trunk's weights are not the model's")
        self.device = self.trunk.device
        if self.trunk.engine == "onnxruntime":
            self._head = _onnx_head(model, self.trunk.threads)
        else:
            self._head = _torch_head(model, self.device)

    def score(self, view: View, boxes: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score regions of a picture that may have been looked at before; see `__call__`."""
        classes = len(self.model.classes)
        if len(boxes) == 0:
            return np.zeros((0, classes + 1), np.float32), np.zeros((0, classes, 4), np.float32)
        boxes = np.ascontiguousarray(boxes, dtype=np.float32)
        if self.model.scoring == "crops":
            chunk = CROPS if self.device == "cpu" else 16 * CROPS
            parts = (crop_regions(view.image, boxes[i : i + chunk]) for i in range(0, len(boxes), chunk))
            scores = [self._head(self.trunk.run(part)) for part in parts]
            return np.concatenate([s[0] for s in scores]), np.concatenate([s[1] for s in scores])
        maps, scale = view.features(self.trunk, self.long_side)
        return self._head(maps, boxes * np.float32(scale))

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
        return self.score(View(image), boxes)
