"""The file of a MultiBox: its head, the graph that runs it, and its trunk if it does not use a detector's.

It is safetensors without pickle and code, see `backbone.weights.model_file`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...backbone.weights.model_file import in_trunk, read_tensors, write_tensors
from ...backbone.weights.published import bundled_models, find_model
from ...data.classes import VOC_CLASSES
from ...data.errors import ModelError, reason_of
from ..calibration import RankingCalibration
from .priors import FINEST_STRIDE

FORMAT = "inception-rcnn multibox 2"
# Bundled heads. Each uses the trunk of the detector of its name, or of "voc" if there is none.
MODELS = Path(__file__).parents[1] / "models"


@dataclass(frozen=True)
class MultiBoxModel:
    """A trained head, as read from a file.

    Attributes
    ----------
    priors : ndarray, float32
        (L, A, 2) of a `network.GridHead`, (K, 4) of a `network.VectorHead`; see `priors.place_priors`.
    channels : int
        Width of the head.
    long_side : int
        Pictures are resized to this many pixels on their longer side.
    weights : dict of str to ndarray
        float16, named as in the head. If it has its own trunk, also that trunk's, named as in
        `backbone.regions.network.RegionNetwork`.
    graph : bytes
        ONNX, ``features`` (1, 832, h, w) -> ``residuals`` (P, 4), ``logits`` (P,); initializers named as the weights.
    trunk_graph : bytes
        ONNX, ``picture`` -> ``features``, of its own trunk; empty if it uses a detector's.
    trunk_sha256 : str
        Hash of the weights of the trunk that it was trained on. With another trunk its boxes are wrong.
    calibration : RankingCalibration
        How its boxes are merged with selective search's.
    classes : tuple of str
        Classes whose objects it learned to propose. All count as one class; its confidences say little about other
        objects, unless it learned `any_object`.
    trained : dict
        Settings and results of the training, for the record.
    sha256 : str
        SHA-256 of the file.
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
    def any_object(self) -> bool:
        """Whether it is meant for objects of any class: background that no object is near weighed less in training."""
        weight = self.trained.get("far_background", 1)
        return isinstance(weight, (int, float)) and weight < 1

    @property
    def head_weights(self) -> dict[str, NDArray[np.float16]]:
        """Weights of the head, without those of its own trunk."""
        return {name: weight for name, weight in self.weights.items() if not in_trunk(name)}

    @property
    def trunk_weights(self) -> dict[str, NDArray[np.float16]]:
        """Weights of its own trunk; empty if it uses a detector's."""
        return {name: weight for name, weight in self.weights.items() if in_trunk(name)}


def write_multibox(path: str | Path, model: MultiBoxModel, *, apart: bool = False) -> None:
    """Write the file of a head.

    Parameters
    ----------
    path : str or Path
    model : MultiBoxModel
        Its ``sha256`` is not used.
    apart : bool
        Write what is derived from the weights to a file of its own, see `backbone.weights.model_file.write_tensors`.
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
    graphs = {"head": model.graph, "trunk": model.trunk_graph}
    write_tensors(path, "multibox", description, model.weights, graphs, apart=("worth",) if apart else None)


def bundled_multiboxes() -> list[str]:
    """List the names of the heads that come with the package.

    Examples
    --------
    >>> "voc" in bundled_multiboxes()
    True
    """
    return bundled_models(MODELS)


def default_multibox(classes: Iterable[str], detector: str | Path | None = None) -> str:
    """Name the bundled head that proposes regions for detectors of some classes: that of a detector's name, if any.

    Examples
    --------
    >>> default_multibox(["cat", "dog"]), default_multibox(["cat", "mug"]), default_multibox(["cat"], "voc-2007")
    ('voc', 'any', 'voc-2007')
    """
    if detector in bundled_multiboxes():
        return str(detector)
    return "voc" if set(classes) <= set(VOC_CLASSES) else "any"


def find_multibox(name_or_file: str | Path) -> Path:
    """Find the file of a MultiBox, by the name of a bundled one or by its path; see `find_model`.

    Examples
    --------
    >>> find_multibox("voc").name
    'voc.safetensors'
    """
    return find_model(name_or_file, MODELS)


def read_multibox(path: str | Path) -> MultiBoxModel:
    """Read the file of a head.

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
    weights, graphs, description, sha256 = read_tensors(path, "multibox", (FORMAT,), "a MultiBox head", advice)
    try:
        with np.errstate(over="ignore"):  # becomes an infinity, which is refused
            priors = np.array(description["priors"], np.float32)
        levels = priors.ndim == 3 and priors.shape[2] == 2 and len(priors) <= 8
        if not (levels or (priors.ndim == 2 and priors.shape[1] == 4)) or not np.isfinite(priors).all():
            raise ValueError(f"the priors have shape {priors.shape}")
        long_side, channels = description["long_side"], description["channels"]
        if not (isinstance(long_side, int) and 32 <= long_side <= 10_000 and isinstance(channels, int)):
            raise ValueError(f"long_side is {long_side!r}, channels {channels!r}")
        return MultiBoxModel(
            priors=priors,
            channels=channels,
            long_side=long_side,
            weights=weights,
            graph=graphs["head"],
            trunk_graph=graphs["trunk"],
            trunk_sha256=str(description["trunk_sha256"]),
            calibration=RankingCalibration.checked(description["worth"]),
            classes=tuple(map(str, description.get("classes", ()))),
            trained=dict(description["trained"]),
            sha256=sha256,
        )
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ModelError(f"{path}: not a MultiBox head ({reason_of(error)}); {advice}") from None
