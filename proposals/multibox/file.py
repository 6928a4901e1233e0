"""The file that a MultiBox is kept in: its head, the graph that runs it, and a trunk if it has one of its own.

No pickle, no code, as `backbone.weights.model_file`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ...backbone.weights.model_file import in_trunk, read_limited
from ...data import atomic_write
from ...data.errors import ModelError
from ..calibration import RankingCalibration
from .priors import FINEST_STRIDE

FORMAT = "inception-rcnn multibox 2"
# Bundled heads, each named like the detector on whose trunk it stands.
MODELS = Path(__file__).parents[1] / "models"
GRAPHS = ("graph.head", "graph.trunk")


@dataclass(frozen=True)
class MultiBoxModel:
    """A trained head, as read from a file.

    Attributes
    ----------
    priors : ndarray, float32
        (L, A, 2) of a `network.GridHead`, (K, 4) of a `VectorHead`; see `place_priors`.
    channels : int
        Width of the head.
    long_side : int
        Pictures are resized to this many pixels on their longer side.
    weights : dict of str to ndarray
        float16, named as in the head; also those of a trunk, if it has one of its own, named as in
        `backbone.regions.network.RegionNetwork`.
    graph : bytes
        ONNX, ``features`` (1, 832, h, w) -> ``residuals`` (P, 4), ``logits`` (P,); initializers named as the weights.
    trunk_graph : bytes
        ONNX, ``picture`` -> ``features``, of its own trunk; empty if it stands on a detector's.
    trunk_sha256 : str
        Hash of the weights of the trunk that it was trained on: on another's features it means nothing.
    calibration : RankingCalibration
        How its boxes are merged with selective search's.
    classes : tuple of str
        The classes whose objects it learned to propose, whatever the class; of things that are none of them its
        confidences say little.
    trained : dict
        How it was trained, for the record.
    sha256 : str
        Hash of the file.
    """

    priors: NDArray[np.float32]
    channels: int
    long_side: int
    weights: dict[str, NDArray[np.float16]]
    graph: bytes
    trunk_graph: bytes
    trunk_sha256: str
    calibration: RankingCalibration
    classes: tuple[str, ...]
    trained: dict[str, object]
    sha256: str = ""

    @property
    def head_weights(self) -> dict[str, NDArray[np.float16]]:
        """Weights without those of a trunk of its own."""
        return {name: weight for name, weight in self.weights.items() if not in_trunk(name)}

    @property
    def trunk_weights(self) -> dict[str, NDArray[np.float16]]:
        """Weights of its own trunk; empty if it stands on a detector's."""
        return {name: weight for name, weight in self.weights.items() if in_trunk(name)}


def write_multibox(path: str | Path, model: MultiBoxModel) -> None:
    """Write a head's file: its weights as float16 and a header of JSON, as safetensors. No pickle, no code.

    Parameters
    ----------
    path : str or Path
    model : MultiBoxModel
        Its ``sha256`` is not used.
    """
    description = {
        "format": FORMAT,
        "priors": model.priors.astype(np.float64).round(4).tolist(),
        "channels": model.channels,
        "long_side": model.long_side,
        "trunk_sha256": model.trunk_sha256,
        "worth": model.calibration,
        "classes": model.classes,
        "trained": model.trained,
    }
    if model.priors.ndim == 3:
        description["strides"] = [FINEST_STRIDE * 2**level for level in range(len(model.priors))]
    tensors: dict[str, NDArray] = {
        name: np.ascontiguousarray(value, np.float16) for name, value in model.weights.items()
    }
    for name, graph in zip(GRAPHS, (model.graph, model.trunk_graph), strict=True):
        tensors[name] = np.frombuffer(graph, dtype=np.uint8)
    # One key: safetensors writes several in an order that changes from run to run.
    atomic_write(path, save_tensors(tensors, metadata={"multibox": json.dumps(description, sort_keys=True)}))


def find_multibox(name_or_file: str | Path) -> Path:
    """Find a MultiBox by the name of a bundled one or by file, which need not exist.

    Examples
    --------
    >>> find_multibox("voc").name
    'voc.safetensors'
    """
    bundled = MODELS / f"{name_or_file}.safetensors"
    return bundled if bundled.is_file() else Path(name_or_file)


def read_multibox(path: str | Path) -> MultiBoxModel:
    """Read a head's file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    MultiBoxModel

    Raises
    ------
    ModelError
        If there is no such file, or it is not a MultiBox head.
    """
    path = Path(path)
    advice = "name a file that `inception-rcnn train multibox` wrote"
    data = read_limited(path, "a MultiBox head", advice)
    try:
        tensors = load_tensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        description = json.loads(header.get("__metadata__", {}).get("multibox", "{}"))
        if not isinstance(description, dict) or description.get("format") != FORMAT:
            raise ValueError("the header has another format or none")
        priors = np.array(description["priors"], np.float32)
        levels = priors.ndim == 3 and priors.shape[2] == 2 and len(priors) <= 8
        if not (levels or (priors.ndim == 2 and priors.shape[1] == 4)) or not np.isfinite(priors).all():
            raise ValueError(f"the priors have shape {priors.shape}")
        long_side, channels = description["long_side"], description["channels"]
        if not (isinstance(long_side, int) and 32 <= long_side <= 10_000 and isinstance(channels, int)):
            raise ValueError(f"long_side is {long_side!r}, channels {channels!r}")
        graph, trunk_graph = (tensors.pop(name).tobytes() for name in GRAPHS)
        return MultiBoxModel(
            priors=priors,
            channels=channels,
            long_side=long_side,
            weights=tensors,
            graph=graph,
            trunk_graph=trunk_graph,
            trunk_sha256=str(description["trunk_sha256"]),
            calibration=RankingCalibration.checked(description["worth"]),
            classes=tuple(map(str, description.get("classes", ()))),
            trained=dict(description["trained"]),
            sha256=hashlib.sha256(data).hexdigest(),
        )
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: not a MultiBox head ({error}); {advice}") from None
