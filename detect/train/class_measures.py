"""What each class of a detector was learned from, and what it reached: put together at the end of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...backbone.weights.model_file import RegionModel
from ...data.class_measures import ClassMeasure
from ...data.classes.spelling import labels_in
from ...eval import Matches
from ...eval.voc import summarise_matches
from .teacher import taught_classes


def learned_from(
    names: Sequence[str], boxed: NDArray[np.int64], before: RegionModel | None = None, *, taught: bool, new: bool
) -> list[ClassMeasure]:
    """Tell what each class was learned from, by this training or by the detector that it went on from.

    Parameters
    ----------
    names : sequence of str
        The classes.
    boxed : ndarray, shape (number of classes,), int64
        Labelled objects of each in the training's pictures.
    before : RegionModel, optional
        The detector before. What it reached stays for classes that are not learned now.
    taught : bool
        Whether the training had a teacher.
    new : bool
        Whether anything was learned; if not, what is known of the detector before stays.

    Returns
    -------
    list of ClassMeasure

    Examples
    --------
    >>> learned_from(("zebra", "my cup"), np.array([0, 12]), taught=True, new=True)[0].taught
    True
    """
    by_teacher = {*taught_classes(names).tolist()} if taught else set()
    known: dict[int, ClassMeasure] = {}
    if before is not None and before.measures is not None:
        places = enumerate(labels_in(names, before.classes).tolist())
        known = {label: before.measures[own] for label, own in places if own >= 0}
    sources = []
    for label, boxes in enumerate(boxed.tolist()):
        one = ClassMeasure(boxes, label in by_teacher and not boxes, None, 0)
        learned = new and (one.boxes or one.taught)
        sources.append(one if learned else known.get(label, one))
    return sources


def measure_classes(
    sources: Sequence[ClassMeasure],
    matches: Mapping[str, Matches] | None,
    localised: NDArray[np.int64],
    pictures: NDArray[np.int64],
) -> tuple[ClassMeasure, ...]:
    """Put together what each class was learned from and what it reached; what is not measured now stays.

    Parameters
    ----------
    sources : sequence of ClassMeasure
        See `learned_from`.
    matches : mapping of str to Matches, or None
        By class, of pictures set aside, see `inception_rcnn.detect.train.validation.match_set_aside`.
    localised, pictures : ndarray, shape (number of classes,), int64
        See `inception_rcnn.detect.train.localisation.localise`.

    Returns
    -------
    tuple of ClassMeasure

    Examples
    --------
    >>> zebra = ClassMeasure(boxes=0, taught=True, value=None, number=0)
    >>> measure_classes([zebra], None, np.array([1]), np.array([4]))[0].value
    0.25
    """
    values, numbers = localised / np.maximum(pictures, 1), pictures
    boxed = np.array([one.boxes > 0 for one in sources])
    if matches is None:
        numbers = np.where(boxed, 0, numbers)
    else:
        values = np.where(boxed, [*summarise_matches(matches, "voc07")["per_class"].values()], values)
        numbers = np.where(boxed, [one.positives for one in matches.values()], numbers)
    measured = zip(sources, values.tolist(), numbers.tolist(), strict=True)
    return tuple(replace(one, value=value, number=number) if number else one for one, value, number in measured)
