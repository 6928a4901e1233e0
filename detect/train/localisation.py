"""Whether a detector finds ILSVRC's classes in pictures of which only the labelled class is boxed.

That is all there is for most of the 200 classes: ILSVRC 2012's validation pictures have one label each, and boxes of
its objects. Objects of other classes are not boxed, so that average precision cannot be measured on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...data import IMAGENET_CLASSES, Detections, Picture, box_iou, read_ilsvrc
from ...data.errors import AnnotationError
from .teacher import taught_classes

Half: TypeAlias = Literal["odd", "even", "both"]


def read_localisation_pictures(folder: str | Path, classes: Sequence[str], half: Half) -> list[Picture]:
    """Read ILSVRC 2012's validation pictures whose class is one of a detector's, with boxes of it.

    Parameters
    ----------
    folder : str or Path
        The kit's folder, with ``Annotations/CLS-LOC/val`` and ``Data/CLS-LOC/val``; or one that has the pictures, and
        their XML files in ``Annotations``.
    classes : sequence of str
        Names or WordNet ids of classes of the detection challenge, and perhaps others.
    half : {"odd", "even", "both"}
        Which pictures, by the last digit of their number.

    Returns
    -------
    list of Picture
        ``labels`` are positions in `classes`, ``labelled`` is the picture's class.

    Raises
    ------
    AnnotationError
        If there is no such folder, or an annotation is malformed.

    Examples
    --------
    >>> read_localisation_pictures("absent", ["zebra"], "odd")
    Traceback (most recent call last):
    inception_rcnn.data.errors.AnnotationError: absent: has no folder Annotations; name ILSVRC 2012's, with boxes
    """
    folder = Path(folder)
    kit = folder / "Annotations" / "CLS-LOC" / "val"
    if not (folder / "Annotations").is_dir():
        raise AnnotationError(f"{folder}: has no folder Annotations; name ILSVRC 2012's, with boxes")
    annotations, root = (kit, None) if kit.is_dir() else (folder / "Annotations", folder)
    of_classes, kept = taught_classes(classes), []
    for picture in read_ilsvrc(annotations, classes=IMAGENET_CLASSES, image_root=root):
        labels = of_classes[picture.labels]
        wanted = half == "both" or int(picture.image_id[-1]) % 2 == (half == "odd")
        if wanted and len(labels) and (labels >= 0).all():
            labelled = tuple(sorted({*labels.tolist()}))
            kept.append(replace(picture, labels=labels, labelled=labelled, classes=tuple(classes)))
    return kept


def is_localised(picture: Picture, found: Detections) -> bool:
    """Whether the best detection of a picture has its class, and an IoU of 0.5 or more with an object of it.

    Examples
    --------
    >>> box, none = np.float32([[0, 0, 8, 8]]), np.zeros(1, bool)
    >>> picture = Picture("a", Path("a.jpg"), 20, 10, box, np.array([1]), none, none, classes=("cat", "zebra"))
    >>> is_localised(picture, Detections(box + 1, [0.9], [1], ("cat", "zebra")))
    True
    """
    if not len(found):
        return False
    best = int(found.scores.argmax())
    own = picture.boxes[picture.labels == found.labels[best]]
    return bool(len(own)) and bool(box_iou(found.boxes[best : best + 1], own).max() >= 0.5)


def localise(
    detect: Callable[[Picture], Detections], pictures: Iterable[Picture], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count for each class the pictures that show it, and those of them that are localised, see `is_localised`.

    Parameters
    ----------
    detect : callable
        Picture -> what is found in it.
    pictures : iterable of Picture
        See `read_localisation_pictures`.
    classes : int
        Their number.

    Returns
    -------
    localised, pictures : ndarray, shape (classes,), int64

    Examples
    --------
    >>> localise(lambda picture: Detections.empty(("zebra",)), [], 1)
    (array([0]), array([0]))
    """
    right, shown = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for picture in pictures:
        label = picture.labels[0]
        shown[label] += 1
        right[label] += is_localised(picture, detect(picture))
    return right, shown
