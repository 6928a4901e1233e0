"""What a detector learned each class from, and what it reached with it on pictures set aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .arguments import check_choice, check_number

# A class that reached less is not drawn by a detector that had a teacher.
MIN_REACHED = 0.2
# With fewer objects, an average precision below that may be bad luck.
MIN_OBJECTS = 10


@dataclass(frozen=True)
class ClassMeasure:
    """What a detector learned a class from, and what it reached with it on pictures set aside.

    Parameters
    ----------
    boxes : int
        Labelled objects in the training's pictures.
    taught : bool
        Whether it has no boxes, and a teacher told what shows it.
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
    >>> [ClassMeasure(0, True, value, 4).hidden for value in (0.5, 0.1)]
    [False, True]
    """

    boxes: int
    taught: bool
    value: float | None
    number: int

    def __post_init__(self) -> None:
        vars(self).update(
            boxes=check_number("boxes", self.boxes, 0, whole=True),
            taught=check_choice("taught", self.taught, (True, False)),
            value=check_number("value", self.value, 0, 1, optional=True),
            number=check_number("number", self.number, 0, whole=True),
        )

    @property
    def hidden(self) -> bool:
        """Whether a detector that had a teacher does not draw it: it reached too little, or was not measured.

        With boxes it is hidden only if it was measured, on `MIN_OBJECTS` or more.
        """
        if self.value is None or (self.boxes and self.number < MIN_OBJECTS):
            return self.taught
        return self.value < MIN_REACHED


def hidden_classes(classes: Sequence[str], measures: Sequence[ClassMeasure] | None) -> tuple[str, ...]:
    """List the classes that are not drawn: none, if no class had a teacher; else those that are found too badly.

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
    >>> boxed, taught = ClassMeasure(90, False, 0.1, 30), ClassMeasure(0, True, 0.5, 2)
    >>> hidden_classes(["cup"], [boxed]), hidden_classes(["cup", "zebra"], [boxed, taught])
    ((), ('cup',))
    """
    if measures is None or not any(one.taught for one in measures):
        return ()
    return tuple(name for name, one in zip(classes, measures, strict=True) if one.hidden)
