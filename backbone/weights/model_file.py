"""The file of a region model: its weights, the graphs that run them, and a description, as safetensors.

It holds no pickle and no code. The weights are float16. The ONNX graphs, see `export.graphs`, hold no weights and take
these by name, so torch and ONNX Runtime use the same numbers.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ...data import atomic_write
from ...data.class_measures import ClassMeasure
from ...data.errors import ModelError, reason_of
from ...data.score_calibration import ScoreCalibration

FORMAT = "inception-rcnn region model 4"
# In version 0.2 graphs ended with probabilities instead of logits, see `regions.onnx_engine`.
OLDER_FORMATS = ("inception-rcnn region model 3",)
GRAPHS_FORMAT = "inception-rcnn graphs 1"
# What is derived from the weights and can be fitted to them again; see `write_tensors`.
DERIVED = ("first_pass.weight", "calibration", "measures")
# Larger files are not read into memory: GoogLeNet's weights in float32, with all classifiers, have 53 MB.
MAX_BYTES = 512 * 2**20
# Graphs of each scoring. The last runs once for a region, the others once for a picture.
GRAPHS = {"shared": ("trunk", "first_pass", "project", "head"), "crops": ("trunk", "first_pass", "crops")}
SCORINGS = tuple(GRAPHS)


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
        True if the box deltas were trained, and are to be used.
    weights : dict of str to ndarray
        float16, named as in `regions.network.RegionNetwork`.
    graphs : dict of str to bytes
        ONNX graphs whose initializers are named as the weights, see `export.graphs.export_graphs`.
    sha256 : str
        SHA-256 of the file.
    trained : dict
        Settings and results of the training, for the record.
    scoring : {"shared", "crops"}
        "shared": regions are read out of the picture's features. "crops": each region is warped to a crop, which goes
        through the whole network.
    calibration : ScoreCalibration or None
        What makes a detection's score the probability that it is right; None if it was not fitted.
    measures : tuple of ClassMeasure, or None
        What each class was learned from and reached; None if it was not measured.
    """

    classes: tuple[str, ...]
    long_side: int
    box_regression: bool
    weights: dict[str, NDArray[np.float16]]
    graphs: dict[str, bytes]
    sha256: str
    trained: dict[str, object]
    scoring: str = "shared"
    calibration: ScoreCalibration | None = None
    measures: tuple[ClassMeasure, ...] | None = None

    @property
    def has_first_pass(self) -> bool:
        """True if it has a first pass, see `regions.first_pass.fit_first_pass`."""
        return bool(np.any(self.weights["first_pass.weight"]))

    @property
    def has_int8(self) -> bool:
        """True if it can run in 8 bits."""
        return f"{GRAPHS[self.scoring][-1]}.int8" in self.graphs

    @property
    def parts(self) -> dict[str, bool]:
        """Which parts the network has, see `network_parts`."""
        parts = network_parts(self.weights)
        return {**parts, "class_agnostic": parts["class_agnostic"] and len(self.classes) > 1}

    @property
    def trunk_weights(self) -> dict[str, NDArray[np.float16]]:
        """Weights of the layers up to inception 4e."""
        return {name: weight for name, weight in self.weights.items() if in_trunk(name)}

    @cached_property
    def trunk_sha256(self) -> str:
        """SHA-256 of `trunk_weights`: layers on top of a trunk work with every model whose trunk has this hash."""
        return hash_weights(self.trunk_weights)


def network_parts(weights: Mapping[str, NDArray]) -> dict[str, bool]:
    """Tell from the weights ``finer``, ``context`` and ``class_agnostic`` of their `RegionNetwork`."""
    deltas = weights.get("delta.bias")
    return {
        "finer": "lateral.weight" in weights,
        "context": "context.weight" in weights,
        "class_agnostic": deltas is not None and len(deltas) == 4,
    }


def in_trunk(name: str) -> bool:
    """Tell by its name whether a parameter belongs to the layers up to inception 4e."""
    return name.startswith("googlenet.") and not name.startswith("googlenet.inception_5")


def hash_weights(weights: Mapping[str, NDArray]) -> str:
    """Compute the SHA-256 of weights: of their names, shapes and values as float16, in the order of the names.

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


def write_model(path: str | Path, model: RegionModel, *, apart: bool = False) -> None:
    """Write a model file.

    Parameters
    ----------
    path : str or Path
    model : RegionModel
        Its ``sha256`` is not used.
    apart : bool
        Write what is derived from the weights to a file of its own, see `write_tensors`.
    """
    description: dict[str, object] = {
        "format": FORMAT,
        "classes": model.classes,
        "long_side": model.long_side,
        "box_regression": model.box_regression,
        "trained": model.trained,
        "scoring": model.scoring,
    }
    if model.calibration is not None:
        description["calibration"] = asdict(model.calibration)
    if model.measures is not None:
        description["measures"] = [asdict(one) for one in model.measures]
    write_tensors(path, "model", description, model.weights, model.graphs, apart=DERIVED if apart else None)


def graphs_file(path: Path) -> Path:
    """Name the file beside a model file that holds what is derived from its weights.

    Examples
    --------
    >>> graphs_file(Path("voc.safetensors")).name
    'voc.graphs.safetensors'
    """
    return path.with_suffix(".graphs.safetensors")


def write_tensors(
    path: str | Path,
    key: str,
    description: Mapping[str, object],
    weights: Mapping[str, NDArray],
    graphs: Mapping[str, bytes],
    *,
    apart: Sequence[str] | None = None,
) -> None:
    """Write weights, graphs and a description as a safetensors file, or as two.

    Graphs change more often than weights, and have a hundredth of their size. In a repository, which keeps every
    version of a file for ever, they stand in a file of their own.

    Parameters
    ----------
    path : str or Path
    key : str
        Name of the description in the file's metadata.
    description : mapping
        As JSON can hold it; has the format's name under ``"format"``.
    weights : mapping of str to ndarray
        Written as float16.
    graphs : mapping of str to bytes
        Written as tensors of bytes, named ``graph.<name>``.
    apart : sequence of str, optional
        Write two files: the second, see `graphs_file`, with the graphs and with these weights and keys of the
        description.
    """
    path = Path(path)
    tensors: dict[str, NDArray] = {name: np.ascontiguousarray(w, np.float16) for name, w in weights.items()}
    parts = {f"graph.{name}": np.frombuffer(graph, dtype=np.uint8) for name, graph in graphs.items()}
    if apart is None:
        _write(path, tensors | parts, key, description)
        graphs_file(path).unlink(missing_ok=True)  # Of a model that was there before.
        return
    tensors, derived = _partition(tensors, apart)
    description, told = _partition(description, apart)
    _write(path, tensors, key, description)
    _write(graphs_file(path), derived | parts, key, {"format": GRAPHS_FORMAT, "weights": hash_weights(tensors), **told})


def _partition(items: Mapping[str, Any], apart: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split items into those whose names are not in `apart`, and those whose are."""
    return tuple({name: item for name, item in items.items() if (name in apart) is part} for part in (False, True))  # type: ignore[return-value]


def _write(path: Path, tensors: dict[str, NDArray], key: str, description: Mapping[str, object]) -> None:
    # One key: safetensors writes several in an order that changes from run to run, and with it the file's hash.
    data = save_tensors(tensors, metadata={key: json.dumps(description, sort_keys=True)})
    atomic_write(path, data)


def read_tensors(
    path: Path, key: str, formats: Sequence[str], what: str, advice: str
) -> tuple[dict[str, NDArray], dict[str, bytes], dict[str, Any], str]:
    """Read what `write_tensors` wrote: weights, graphs, description, and a SHA-256 of the file or both files.

    Parameters
    ----------
    path : Path
    key : str
        See `write_tensors`.
    formats : sequence of str
        The description's ``"format"`` is one of these.
    what : str
        What the file should be, with its article, for errors.
    advice : str
        What to do if it is not, for errors.

    Raises
    ------
    ModelError
        If there is no such file, or it is too large, not safetensors or of another format; if the file beside it
        belongs to other weights.
    """
    tensors, description, data = _read(path, key, formats, what, advice)
    digest = hashlib.sha256(data)
    if (beside := graphs_file(path)).exists():
        own = hash_weights(tensors)
        derived, more, data = _read(beside, key, (GRAPHS_FORMAT,), f"the graphs of {path.name}", "restore it")
        if more.pop("weights", None) != own:
            raise ModelError(f"{beside}: belongs to other weights than {path.name}; restore both, or remove it")
        tensors |= derived
        description |= {name: value for name, value in more.items() if name != "format"}
        digest.update(data)
    graphs = {name[6:]: tensors.pop(name).tobytes() for name in [*tensors] if name.startswith("graph.")}
    return tensors, graphs, description, digest.hexdigest()


def _read(
    path: Path, key: str, formats: Sequence[str], what: str, advice: str
) -> tuple[dict[str, NDArray], dict[str, Any], bytes]:
    """Read one file: tensors, description, and all of its bytes."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path}: larger than {MAX_BYTES >> 20} MiB, so not {what}; {advice}")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); {advice}") from None
    try:
        tensors = load_tensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: not a safetensors file ({reason_of(error)}); {advice}") from None
    try:
        description = json.loads(header.get("__metadata__", {}).get(key, "{}"))
        found = description.get("format")
    except (AttributeError, ValueError, RecursionError):
        found = None
    if found not in formats:
        raise ModelError(f"{path}: not {what} (format {found!r:.80}); {advice}")
    return tensors, description, data


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
    weights, graphs, description, sha256 = read_tensors(
        path, "model", (FORMAT, *OLDER_FORMATS), "a region model", advice
    )
    try:
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
        if missing := [name for name in GRAPHS[scoring] if name not in graphs]:
            raise ValueError(f"has no graph {missing[0]}")
        calibration = _read_calibration(description.get("calibration"), len(classes))
        measures = _read_measures(description.get("measures"), len(classes))
        return RegionModel(
            tuple(classes), long_side, box_regression, weights, graphs, sha256, trained, scoring, calibration, measures
        )
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path}: a region model with a broken header ({reason_of(error)}); {advice}") from None


def _read_calibration(stored: Any, classes: int) -> ScoreCalibration | None:
    """Make a calibration of what a description holds; None is none.

    Raises
    ------
    ValueError
        If it is no calibration of so many classes.
    """
    if stored is None:
        return None
    if not isinstance(stored, dict) or stored.keys() != {field.name for field in fields(ScoreCalibration)}:
        raise ValueError("calibration does not hold scales, shifts and a threshold")
    calibration = ScoreCalibration(**stored)
    if len(calibration.scales) != classes:
        raise ValueError(f"calibration is for {len(calibration.scales)} classes, and there are {classes}")
    return calibration


def _read_measures(stored: Any, classes: int) -> tuple[ClassMeasure, ...] | None:
    """Make measures of what a description holds; None is none.

    Raises
    ------
    ValueError
        If they are no measures of so many classes.
    """
    if stored is None:
        return None
    wanted = {field.name for field in fields(ClassMeasure)}
    if not isinstance(stored, list) or any(not isinstance(one, dict) or one.keys() != wanted for one in stored):
        raise ValueError("measures do not hold boxes, taught, value and number of each class")
    if len(stored) != classes:
        raise ValueError(f"there are measures of {len(stored)} classes, and {classes} classes")
    return tuple(ClassMeasure(**one) for one in stored)
