"""Whether a detector finds ILSVRC's classes in pictures of which only the labelled class is boxed.

That is all there is for most of the 200 classes: ILSVRC 2012's validation pictures have one label each, and boxes of
its objects. Objects of other classes are not boxed, so that average precision cannot be measured on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...data import (
    IMAGENET_CLASSES,
    MAX_PIXELS,
    Detections,
    ImageError,
    Picture,
    box_iou,
    read_ilsvrc,
    read_image,
)
from ...data.errors import AnnotationError
from ...data.formats.faults import raise_faults
from ..detector import Detector
from .teacher import taught_classes

Half: TypeAlias = Literal["odd", "even", "both"]


def read_localisation_pictures(
    folder: str | Path, classes: Sequence[str], half: Half, most: int | None = None
) -> list[Picture]:
    """Read ILSVRC 2012's validation pictures whose class is one of a detector's, with boxes of it.

    Parameters
    ----------
    folder : str or Path
        The kit's folder, with ``Annotations/CLS-LOC/val`` and ``Data/CLS-LOC/val``; or one that has the pictures, and
        their XML files in ``Annotations``.
    classes : sequence of str
        As of `inception_rcnn.detect.train.teacher.taught_classes`.
    half : {"odd", "even", "both"}
        Which pictures, by the last digit of their number.
    most : int, optional
        Pictures of a class, the first ones; of a class such as "dog" there are thousands.

    Returns
    -------
    list of Picture
        ``labels`` are positions in `classes`, ``labelled`` is the picture's class.

    Raises
    ------
    AnnotationError
        If there is no such folder, an annotation is malformed, or a picture is missing or has no number.

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
    of_classes, counts = taught_classes(classes), Counter[int]()
    kept: list[Picture] = []
    for picture in read_ilsvrc(annotations, classes=IMAGENET_CLASSES, image_root=root):
        labels = of_classes[picture.labels]
        if not len(labels) or (labels < 0).any():
            continue
        if not picture.image_id[-1:].isdecimal():
            raise AnnotationError(f"{annotations}: {picture.image_id} has no number; ILSVRC's pictures end with one")
        own = int(labels[0])
        in_half = half == "both" or int(picture.image_id[-1]) % 2 == (half == "odd")
        if in_half and (most is None or counts[own] < most):
            counts[own] += 1
            labelled = tuple(sorted({*labels.tolist()}))
            kept.append(replace(picture, labels=labels, labelled=labelled, classes=tuple(classes)))
    faults = [f"{picture.path}: there is no such picture" for picture in kept if not picture.path.is_file()]
    raise_faults(faults, annotations, "name a folder with the pictures and their annotations")
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
    detector: Detector,
    pictures: Sequence[Picture],
    warn: Callable[[str], None],
    report: Callable[[int], None] = lambda done: None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count for each class the pictures that show it, and those of them that are localised, see `is_localised`.

    Parameters
    ----------
    detector : Detector
    pictures : sequence of Picture
        See `read_localisation_pictures`.
    warn : callable
        Gets a line for each picture that cannot be read; it does not count.
    report : callable
        Gets the number of pictures done.
    max_pixels : int
        See `inception_rcnn.data.read_image`.

    Returns
    -------
    localised, pictures : ndarray, shape (number of the detector's classes,), int64

    Examples
    --------
    >>> localised, shown = localise(Detector.load("voc", device="cpu"), [], print)
    >>> localised.shape, int(shown.sum())
    ((20,), 0)
    """
    right, shown = np.zeros((2, len(detector.classes)), np.int64)
    for done, picture in enumerate(pictures, 1):
        try:
            image = read_image(picture.path, max_pixels)
        except ImageError as error:
            warn(f"passed over: {error}")
        else:
            shown[picture.labels[0]] += 1
            right[picture.labels[0]] += is_localised(picture, detector(image, picture.path.name))
        report(done)
    return right, shown
