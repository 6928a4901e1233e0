"""What a detector learned each class from, and what it reached with it on pictures set aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .arguments import check_number

# A class that reached less, or was never measured, is not drawn by a detector that had a teacher.
MIN_REACHED = 0.2


@dataclass(frozen=True)
class ClassMeasure:
    """What a detector learned a class from, and what it reached with it on pictures set aside.

    Parameters
    ----------
    boxes : int
        Labelled objects in the training's pictures; 0 if a teacher alone knew the class.
    value : float or None
        0 to 1. With `boxes` the average precision (VOC's 11-point rule, IoU 0.5); without, the share of pictures that
        are localised, see `inception_rcnn.detect.train.localisation.localise`. None if it was not measured.
    number : int
        Objects, or without `boxes` pictures, that it was measured on.

    Raises
    ------
    SettingError
        If a number is out of range.

    Examples
    --------
    >>> ClassMeasure(boxes=120, value=0.41, number=7).reached, ClassMeasure(boxes=0, value=None, number=0).reached
    (True, False)
    """

    boxes: int
    value: float | None
    number: int

    def __post_init__(self) -> None:
        vars(self).update(
            boxes=check_number("boxes", self.boxes, 0, whole=True),
            value=check_number("value", self.value, 0, 1, optional=True),
            number=check_number("number", self.number, 0, whole=True),
        )

    @property
    def reached(self) -> bool:
        """Whether the value is `MIN_REACHED` or more."""
        return self.value is not None and self.value >= MIN_REACHED


def hidden_classes(classes: Sequence[str], measures: Sequence[ClassMeasure] | None) -> tuple[str, ...]:
    """List the classes that are not drawn: of a detector that had a teacher, those that did not reach `MIN_REACHED`.

    Parameters
    ----------
    classes : sequence of str
    measures : sequence of ClassMeasure, or None
        One a class; None of a detector that was not measured.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> boxed, taught = ClassMeasure(boxes=9, value=0.1, number=3), ClassMeasure(boxes=0, value=0.5, number=2)
    >>> hidden_classes(["cup"], [boxed]), hidden_classes(["cup", "zebra"], [boxed, taught])
    ((), ('cup',))
    """
    if measures is None or all(one.boxes for one in measures):
        return ()
    return tuple(name for name, one in zip(classes, measures, strict=True) if not one.reached)
