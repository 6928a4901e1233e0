"""Evaluation in a loop: batches of targets and predictions in, the figures of all of them out.

An evaluator keeps boxes, scores and labels, and nothing else of a picture. `compute` calls the evaluator of files, so
the figures are the same to the last digit. torch is not needed: tensors are read as arrays are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data import Detections, Picture
from ..data.arguments import as_array, check_names
from ..data.boxes import as_boxes, as_scores, find_bad_number, find_misfit
from ..data.detections import as_labels, checked_detections
from ..data.errors import EvaluationError, SettingError
from .coco import evaluate_coco
from .ilsvrc import evaluate_ilsvrc
from .voc import evaluate_voc

# What torchmetrics calls the figures of COCO.
_TORCHMETRICS = {
    "map": "AP", "map_50": "AP50", "map_75": "AP75",
    "map_small": "AP_small", "map_medium": "AP_medium", "map_large": "AP_large",
    "mar_1": "AR_1", "mar_10": "AR_10", "mar_100": "AR_100",
    "mar_small": "AR_small", "mar_medium": "AR_medium", "mar_large": "AR_large",
}  # fmt: skip


class _Target(NamedTuple):
    """The objects of a picture, with labels as they were given."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]


class _Prediction(NamedTuple):
    """The detections of a picture, with labels as they were given."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]


class _Evaluator:
    """What the evaluators share: everything but `compute`."""

    def __init__(self, classes: Sequence[str] | Mapping[int, str] | None) -> None:
        self._names: dict[int, str] | None = None
        if isinstance(classes, Mapping):
            self._names = dict(zip(map(int, classes), check_names("classes", classes.values()), strict=True))
        elif classes is not None:
            self._names = dict(enumerate(check_names("classes", classes)))
        # By image id, or by number for pictures without one.
        self._pictures: dict[str | int, tuple[_Target, _Prediction]] = {}

    def __len__(self) -> int:
        """Return the number of pictures so far."""
        return len(self._pictures)

    def update(self, targets: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch of pictures.

        Parameters
        ----------
        targets : sequence of mapping
            For each picture ``"boxes"`` (N, 4), ``x1 y1 x2 y2`` in pixels, and ``"labels"`` (N,), as torchvision's
            detection models take them; where they are there, ``"difficult"`` and ``"iscrowd"`` (N,), and
            ``"image_id"``, a name or a number. Arrays, lists or tensors.
        predictions : sequence of mapping
            For each picture ``"boxes"``, ``"scores"`` and ``"labels"``, as torchvision's detection models return them.
            Predictions are those that have scores, so torchmetrics' order, predictions first, will do.

        Raises
        ------
        EvaluationError
            If a picture with that ``"image_id"`` has been added before. Nothing of the batch is kept then.
        SettingError
            If the two differ in length, or something in them is missing or malformed; likewise.
        """
        targets, predictions = list(targets), list(predictions)
        if any("scores" in one for one in targets) and not any("scores" in one for one in predictions):
            targets, predictions = predictions, targets
        if len(targets) != len(predictions):
            raise SettingError(f"there are targets of {len(targets)} pictures, but predictions of {len(predictions)}")
        batch: dict[str | int, tuple[_Target, _Prediction]] = {}
        for target, prediction in zip(targets, predictions, strict=True):
            name = _image_id(target, len(self._pictures) + len(batch))
            if name in self._pictures or name in batch:
                raise EvaluationError(f"picture {name!r} has been added before; reset, or rename it")
            batch[name] = _read_target(target), _read_prediction(prediction)
        if batch:
            self._check(*zip(*batch.values(), strict=True))
        self._pictures.update(batch)

    def reset(self) -> None:
        """Forget all pictures."""
        self._pictures = {}

    def merge(self, *others: _Evaluator) -> None:
        """Add the pictures of other evaluators, such as those of other processes, in their order.

        A picture whose ``"image_id"`` is here already is left out: samplers repeat some, so that each process has as
        many.

        Raises
        ------
        SettingError
            If another evaluator is of another kind or has other classes.
        """
        for other in others:
            if type(other) is not type(self) or other._names != self._names:
                raise SettingError("evaluators that are merged must be of one kind and have the same classes")
        for other in others:
            for name, picture in list(other._pictures.items()):
                self._pictures.setdefault(len(self._pictures) if isinstance(name, int) else name, picture)

    def _check(self, targets: Sequence[_Target], predictions: Sequence[_Prediction]) -> None:
        """Refuse a batch with numbers that are none of a picture's; of all at once, since each call costs as much."""
        boxes = np.concatenate([one.boxes for one in targets])
        if problem := find_bad_number(boxes, boxes[:, 0]):
            raise SettingError(f"a target: {problem}")
        boxes, scores = (np.concatenate(arrays) for arrays in zip(*(one[:2] for one in predictions), strict=True))
        if problem := find_bad_number(boxes, scores):
            raise SettingError(f"a prediction: {problem}")
        labels = np.concatenate([*(one.labels for one in targets), *(one.labels for one in predictions)])
        if self._names is not None and (unknown := set(labels.tolist()) - self._names.keys()):
            raise SettingError(
                f"label {min(unknown)} is none of the {len(self._names)} classes; give classes as a dict of label to "
                "name if labels do not begin with 0"
            )

    def _collected(self) -> tuple[list[Picture], dict[str, Detections], tuple[str, ...]]:
        """Pictures, detections and names of classes, as evaluators take them; a picture's name is its position."""
        names = self._names
        if names is None:
            every = [one.labels for pair in self._pictures.values() for one in pair]
            names = {int(one): str(one) for one in np.unique(np.concatenate([np.zeros(0, np.int64), *every]))}
        classes = tuple(names.values())
        labels = np.array([*names], np.int64)
        order = np.argsort(labels)
        # Positions among the classes.
        placed = (lambda own: own) if (labels == np.arange(len(labels))).all() else (
            lambda own: order[np.searchsorted(labels[order], own)]
        )  # fmt: skip
        pictures, found, path = [], {}, Path("of-an-evaluator")
        for i, (target, prediction) in enumerate(self._pictures.values()):
            name = f"{i:09d}"
            pictures.append(
                Picture(name, path, 0, 0, target.boxes, placed(target.labels), target.difficult, target.crowd)
            )
            found[name] = checked_detections(prediction.boxes, prediction.scores, placed(prediction.labels), classes)
        return pictures, found, classes


def _read_target(target: Mapping[str, Any]) -> _Target:
    # Copies, as below: memory that is used again must not change what is kept.
    boxes, labels = np.array(as_boxes(_field("boxes", target))), np.array(as_labels(_field("labels", target)))
    if problem := find_misfit(boxes, labels):
        raise SettingError(f"a target: {problem}")
    flags = [
        as_array(name, target[name]).astype(bool) if name in target else np.zeros(labels.shape, bool)
        for name in ("difficult", "iscrowd")
    ]
    if any(one.shape != labels.shape for one in flags):
        raise SettingError("a target: there must be as many flags as labels")
    return _Target(boxes, labels, *flags)


def _read_prediction(prediction: Mapping[str, Any]) -> _Prediction:
    read = _Prediction(
        np.array(as_boxes(_field("boxes", prediction))),
        np.array(as_scores(_field("scores", prediction))),
        np.array(as_labels(_field("labels", prediction))),
    )
    if problem := find_misfit(read.boxes, read.scores):
        raise SettingError(f"a prediction: {problem}")
    if read.labels.shape != read.scores.shape:
        raise SettingError("a prediction: there must be as many labels as scores")
    return read


def _image_id(target: Mapping[str, Any], number: int) -> str | int:
    """Return the name of a picture as text, or its number as it is if it has no name."""
    if "image_id" not in target:
        return number
    name = target["image_id"]
    return name if isinstance(name, str) else str(int(as_array("image_id", name).reshape(-1)[0]))


def _field(name: str, entry: Mapping[str, Any]) -> Any:
    if not isinstance(entry, Mapping) or name not in entry:
        raise SettingError(f"each picture must have a dict with {name!r}")
    return entry[name]


class VOCEvaluator(_Evaluator):
    """Mean average precision by the rules of PASCAL VOC, of batches in a loop.

    Parameters
    ----------
    classes : sequence of str, mapping of int to str, or None
        The name of each label, by position; or label to name, for labels that do not begin with 0 or have gaps. None
        for the labels' numbers as names.
    metric : {"voc07", "voc12"}
        See `evaluate_voc`.
    iou_threshold : float
        See `evaluate_voc`.

    Examples
    --------
    >>> evaluator = VOCEvaluator(["cat", "dog"])
    >>> target = {"boxes": [[0, 0, 20, 10]], "labels": [1]}
    >>> prediction = {"boxes": [[0, 0, 20, 9]], "scores": [0.9], "labels": [1]}
    >>> evaluator.update([target, target], [prediction, {"boxes": [], "scores": [], "labels": []}])
    >>> len(evaluator), round(evaluator.compute()["per_class"]["dog"], 4)
    (2, 0.5455)
    """

    def __init__(
        self,
        classes: Sequence[str] | Mapping[int, str] | None = None,
        metric: Literal["voc07", "voc12"] = "voc07",
        iou_threshold: float = 0.5,
    ) -> None:
        super().__init__(classes)
        self._settings = {"metric": metric, "iou_threshold": iou_threshold}

    def compute(self, bootstrap: int | None = None, seed: int = 0) -> dict[str, Any]:
        """Return what `evaluate_voc` does for all pictures so far."""
        return evaluate_voc(*self._collected(), **self._settings, bootstrap=bootstrap, seed=seed)  # type: ignore[arg-type]


class ILSVRCEvaluator(_Evaluator):
    """Mean average precision by the rules of the ILSVRC detection challenge, of batches in a loop.

    Parameters
    ----------
    classes : sequence of str, mapping of int to str, or None
        As for `VOCEvaluator`.
    blacklist : collection of (str, str)
        Pairs of ``"image_id"`` and class that do not count.

    Examples
    --------
    >>> evaluator = ILSVRCEvaluator(["ant"])
    >>> evaluator.update([{"boxes": [[0, 0, 10, 10]], "labels": [0]}],
    ...                  [{"boxes": [[0, 0, 15, 15]], "scores": [0.9], "labels": [0]}])
    >>> evaluator.compute()["mAP"]
    1.0
    """

    def __init__(
        self,
        classes: Sequence[str] | Mapping[int, str] | None = None,
        blacklist: Collection[tuple[str, str]] = (),
    ) -> None:
        super().__init__(classes)
        self._blacklist = blacklist

    def compute(self, bootstrap: int | None = None, seed: int = 0) -> dict[str, Any]:
        """Return what `evaluate_ilsvrc` does for all pictures so far."""
        place = {str(name): f"{i:09d}" for i, name in enumerate(self._pictures)}
        avoided = {(place[name], one) for name, one in self._blacklist if name in place}
        return evaluate_ilsvrc(*self._collected(), avoided, bootstrap, seed)


class COCOEvaluator(_Evaluator):
    """Average precision and recall of COCO, of batches in a loop.

    Parameters
    ----------
    classes : sequence of str, mapping of int to str, or None
        As for `VOCEvaluator`.
    engine : {"pycocotools", "faster-coco-eval"}
        See `evaluate_coco`.

    Examples
    --------
    >>> metric = COCOEvaluator()
    >>> metric.update([{"boxes": [[0, 0, 40, 40]], "scores": [0.9], "labels": [17]}],
    ...               [{"boxes": [[0, 0, 40, 32]], "labels": [17]}])  # torchmetrics' order
    >>> result = metric.compute()
    >>> round(result["map"], 2), round(result["map_50"], 2), round(result["per_class"]["17"], 2)
    (0.7, 1.0, 0.7)
    """

    def __init__(
        self,
        classes: Sequence[str] | Mapping[int, str] | None = None,
        engine: Literal["pycocotools", "faster-coco-eval"] = "pycocotools",
    ) -> None:
        super().__init__(classes)
        self._engine = engine

    def compute(self, bootstrap: int | None = None, seed: int = 0) -> dict[str, Any]:
        """Return what `evaluate_coco` does for all pictures so far, and its figures by torchmetrics' names besides.

        The area of an object is that of its box. A figure without objects is nan, where torchmetrics has -1.
        """
        pictures, found, classes = self._collected()
        result = evaluate_coco(
            pictures, found, classes=classes, rename=None, engine=self._engine, bootstrap=bootstrap, seed=seed
        )  # fmt: skip
        return result | {name: result[own] for name, own in _TORCHMETRICS.items()}
