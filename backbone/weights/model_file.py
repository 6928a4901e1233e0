"""One file is one model: weights, the graphs that run them, and what a user must know, as safetensors.

No pickle, no code. The weights are float16; the ONNX graphs, see `export.graphs`, hold no weights of
their own and take them by name, so that torch and ONNX Runtime run the very same numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ...data import atomic_write
from ...data.errors import ModelError

FORMAT = "inception-rcnn region model 3"
# No model of this kind is near it; a file that claims to be one is not read into memory whole.
MAX_BYTES = 512 * 2**20
SCORINGS = ("shared", "crops")
# What a picture as a whole goes through, whatever the scoring.
PICTURE_GRAPHS = ("trunk", "first_pass")
# Then, with shared features: once a picture, and once a region. Or only each crop, through the whole network.
REGION_GRAPHS = {"shared": ("project", "head"), "crops": ("crops",)}


@dataclass(frozen=True)
class RegionModel:
    """A detector's weights and settings, as read from a file.

    Attributes
    ----------
    classes : tuple of str
        Names of the object classes, in the order of the labels.
    long_side : int
        Pictures are resized to this many pixels on their longer side.
    box_regression : bool
        Whether the box deltas were trained.
    weights : dict of str to ndarray
        float16, named as in `regions.network.RegionNetwork`.
    graphs : dict of str to bytes
        ONNX graphs whose initializers are named as the weights, see `export.graphs.export_graphs`.
    sha256 : str
        Hash of the file.
    trained : dict
        How it was trained, for the record.
    scoring : {"shared", "crops"}
        Whether regions are read out of the whole picture's features or warped to crops, each of which goes through the
        whole network.
    """

    classes: tuple[str, ...]
    long_side: int
    box_regression: bool
    weights: dict[str, NDArray[np.float16]]
    graphs: dict[str, bytes]
    sha256: str
    trained: dict[str, object]
    scoring: str = "shared"

    @property
    def has_first_pass(self) -> bool:
        """Whether it has a first pass, see `regions.first_pass.fit_first_pass`."""
        return bool(np.any(self.weights["first_pass.weight"]))

    @property
    def trunk_weights(self) -> dict[str, NDArray[np.float16]]:
        """Weights of the layers up to inception 4e."""
        return {name: weight for name, weight in self.weights.items() if in_trunk(name)}

    @cached_property
    def trunk_sha256(self) -> str:
        """Hash of those weights: whatever stands on them works with every model that has them."""
        return hash_weights(self.trunk_weights)


def in_trunk(name: str) -> bool:
    """Whether a parameter is of the layers up to inception 4e."""
    return name.startswith("googlenet.") and not name.startswith("googlenet.inception_5")


def hash_weights(weights: Mapping[str, NDArray]) -> str:
    """SHA-256 over names and values of weights, in the order of the names.

    Examples
    --------
    >>> hash_weights({"a": np.zeros(2, np.float16)})[:8]
    '25be4b18'
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} {weights[name].shape}".encode())
        digest.update(np.ascontiguousarray(weights[name], np.float16).tobytes())
    return digest.hexdigest()


def write_model(path: str | Path, model: RegionModel) -> None:
    """Write a model file. ``model.sha256`` is not used.

    Parameters
    ----------
    path : str or Path
    model : RegionModel
    """
    tensors: dict[str, NDArray] = {name: np.ascontiguousarray(w, np.float16) for name, w in model.weights.items()}
    for name, graph in model.graphs.items():
        tensors[f"graph.{name}"] = np.frombuffer(graph, dtype=np.uint8)
    # One key: safetensors writes several in an order that changes from run to run, and with it the file's hash.
    description = {
        "format": FORMAT,
        "classes": model.classes,
        "long_side": model.long_side,
        "box_regression": model.box_regression,
        "trained": model.trained,
        "scoring": model.scoring,
    }
    metadata = {"model": json.dumps(description, sort_keys=True)}
    atomic_write(path, save_tensors(tensors, metadata=metadata))


def read_limited(path: Path, what: str, advice: str) -> bytes:
    """Read a file that is small enough to be a model.

    Parameters
    ----------
    path : Path
    what : str
        What it should be, and `advice` what to do if it is not, for the error.

    Raises
    ------
    ModelError
        If there is no such file, or it is too large.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path}: larger than {MAX_BYTES >> 20} MiB, so not {what}; {advice}")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); {advice}") from None


def read_model(path: str | Path) -> RegionModel:
    """Read a model file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    RegionModel

    Raises
    ------
    ModelError
        If there is no such file, or it is not a region model.
    """
    path = Path(path)
    advice = "name a file that `inception-rcnn train detector` wrote"
    data = read_limited(path, "a region model", advice)
    try:
        tensors = load_tensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: not a safetensors file ({error}); {advice}") from None
    try:
        description = json.loads(header.get("__metadata__", {}).get("model", "{}"))
        format_name = description.get("format")
    except (AttributeError, ValueError, RecursionError):
        format_name = None
    if format_name != FORMAT:
        raise ModelError(f"{path}: not a region model (format {format_name!r}); {advice}")
    try:
        graphs = {name[6:]: tensors.pop(name).tobytes() for name in [*tensors] if name.startswith("graph.")}
        classes, long_side = description["classes"], description["long_side"]
        box_regression, trained = description["box_regression"], description["trained"]
        if not (isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)):
            raise ValueError("classes is not a list of names")
        if not (isinstance(long_side, int) and 32 <= long_side <= 10_000):
            raise ValueError(f"long_side is {long_side!r}")
        if (scoring := description["scoring"]) not in SCORINGS:
            raise ValueError(f"scoring is {scoring!r}")
        if not isinstance(box_regression, bool) or not isinstance(trained, dict):
            raise ValueError("box_regression or trained is of the wrong type")
        if missing := [name for name in (*PICTURE_GRAPHS, *REGION_GRAPHS[scoring]) if name not in graphs]:
            raise ValueError(f"has no graph {missing[0]}")
        return RegionModel(
            classes=tuple(classes),
            long_side=long_side,
            box_regression=box_regression,
            weights=tensors,
            graphs=graphs,
            sha256=hashlib.sha256(data).hexdigest(),
            trained=trained,
            scoring=scoring,
        )
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path}: a region model with a broken header ({error}); {advice}") from None
