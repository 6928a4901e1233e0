"""Running a region model: on a CPU through ONNX Runtime, on a GPU through torch, the same weights in both.

On CPUs ONNX Runtime is at least as fast as torch on this network (``benchmarks/pipeline.py`` compares them) and a
twentieth of its size to install; torch is imported only when a GPU is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.parallel import usable_cores
from .model_file import ModelError, RegionModel
from .preprocessing import prepare_picture

if TYPE_CHECKING:
    import torch

__all__ = ["DeviceError", "RegionScorer", "choose_device"]

# Regions that go through the head at once: the largest activations of 64 regions stay inside a usual L2 + L3 share.
CHUNK = 64


class DeviceError(ValueError):
    """A device that was asked for is not there; the text says what to do."""


class _Engine(Protocol):
    def __call__(
        self, picture: NDArray[np.float32], boxes: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...


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


class RegionScorer:
    """Scores regions of pictures with a model.

    Parameters
    ----------
    model : RegionModel
    device : {"auto", "cpu", "cuda"}
    threads : int, optional
        CPU threads; default all cores that this process may use.

    Raises
    ------
    DeviceError
        See `choose_device`.
    ModelError
        If the model's graphs and weights do not fit together.
    """

    def __init__(self, model: RegionModel, *, device: str = "auto", threads: int | None = None) -> None:
        self.model = model
        self.device = choose_device(device)
        self._engine: _Engine
        if self.device == "cpu":
            self._engine = _OnnxEngine(model, threads or usable_cores())
        else:
            self._engine = _TorchEngine(model, self.device)

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
        classes = len(self.model.classes)
        if len(boxes) == 0:
            return np.zeros((0, classes + 1), np.float32), np.zeros((0, classes, 4), np.float32)
        picture, scale = prepare_picture(image, self.model.long_side)
        return self._engine(picture, np.ascontiguousarray(boxes, dtype=np.float32) * np.float32(scale))


class _OnnxEngine:
    """The model's two graphs in ONNX Runtime."""

    def __init__(self, model: RegionModel, threads: int) -> None:
        import onnxruntime

        weights = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(w.astype(np.float32)) for name, w in model.weights.items()
        }

        def session(graph: bytes) -> onnxruntime.InferenceSession:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.log_severity_level = 3
            # Spinning threads would take the cores from the threads that propose for the next picture.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            # ONNX Runtime refuses weights that a graph does not name, and the two graphs share none.
            own = {name: value for name, value in weights.items() if name.encode() in graph}
            options.add_external_initializers(list(own), list(own.values()))
            return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

        try:
            self._trunk, self._head = session(model.trunk_graph), session(model.head_graph)
        except Exception as error:  # ONNX Runtime raises one class per kind of failure, none of them public.
            raise ModelError(f"the model's graph cannot be run: {str(error).splitlines()[0]}") from error

    def __call__(
        self, picture: NDArray[np.float32], boxes: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        (features,) = self._trunk.run(None, {"picture": picture})
        chunks = [
            self._head.run(None, {"features": features, "boxes": boxes[start : start + CHUNK]})
            for start in range(0, len(boxes), CHUNK)
        ]
        return np.concatenate([c[0] for c in chunks]), np.concatenate([c[1] for c in chunks])


class _TorchEngine:
    """The same network in torch, in half precision on a GPU."""

    def __init__(self, model: RegionModel, device: str) -> None:
        import torch

        from .regions import RegionNetwork

        self._torch = torch
        self.device = torch.device(device)
        self.dtype = torch.float16 if device == "cuda" else torch.float32
        network = RegionNetwork(len(model.classes))
        try:
            network.load_state_dict({name: torch.from_numpy(w.astype(np.float32)) for name, w in model.weights.items()})
        except RuntimeError as error:
            raise ModelError(f"the model's weights do not fit the network: {str(error).splitlines()[0]}") from error
        self.network = network.eval().to(self.device, self.dtype).to(memory_format=torch.channels_last)

    def _numpy(self, chunks: list[torch.Tensor]) -> NDArray[np.float32]:
        return np.asarray(self._torch.cat(chunks).float().cpu().numpy())

    def __call__(
        self, picture: NDArray[np.float32], boxes: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        torch = self._torch
        chunk = 1024 if self.device.type == "cuda" else CHUNK
        with torch.inference_mode():
            array = torch.from_numpy(picture).to(self.device, self.dtype, memory_format=torch.channels_last)
            features = self.network.trunk(array)
            # Boxes stay float32: half precision has no half pixels past 1024.
            where = torch.from_numpy(boxes).to(self.device)
            chunks = [self.network.head(features, part) for part in where.split(chunk)]
            probabilities = self._numpy([logits.float().softmax(1) for logits, _ in chunks])
            return probabilities, self._numpy([deltas for _, deltas in chunks])
