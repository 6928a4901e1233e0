"""Kinds of false positives, and average precision by the size of objects.

Hoiem, Chodpathumwan and Dai, "Diagnosing Error in Object Detectors", ECCV 2012. Everything here starts from what
`match_voc` or `match_ilsvrc` returned.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data import VOC_CLASSES, Detections, Picture, box_iou
from ..data.arguments import check_names, check_number
from ..data.errors import SettingError, did_you_mean
from .matching import FALSE, HIT, IGNORED, Matches
from .precision import average_precision, mean_of_numbers

ERROR_TYPES = ("localisation", "similar", "other", "background")
"""The kinds of false positives, in the order in which they are tried."""

SIZES = ("extra small", "small", "medium", "large", "extra large")
"""The smallest 10 % of a class's objects, the next 20 %, the middle 40 %, the next 20 %, the largest 10 %."""

VOC_SIMILAR: tuple[frozenset[str], ...] = (
    frozenset({"aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"}),
    frozenset({"bird", "cat", "cow", "dog", "horse", "sheep", "person"}),
    frozenset({"chair", "diningtable", "sofa"}),
    frozenset({"aeroplane", "bird"}),
)
"""The paper's groups of similar classes; bottle, pottedplant and tvmonitor are like no other."""

_TOUCH = 0.1


class FalsePositives(NamedTuple):
    """The kind of each false positive of one class, in the order of the class's `Matches`.

    Attributes
    ----------
    kind : ndarray of int8, shape (D,)
        Index into `ERROR_TYPES`; -1 for a detection that is not false.
    object : ndarray of int64, shape (D,)
        Position, among its picture's objects, of the object that the detection is too far off or that is of another
        class; -1 for background and for what is not false.
    overlap : ndarray of float32, shape (D,)
        IoU with that object, 0 if there is none.
    """

    kind: NDArray[np.int8]
    object: NDArray[np.int64]
    overlap: NDArray[np.float32]


def false_positives(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    matches: Mapping[str, Matches],
    similar: Sequence[Collection[str]] | None = None,
) -> dict[str, FalsePositives]:
    """Find the kind of each false positive.

    The first that applies: *localisation*, if it overlaps an object of its own class by at least 0.1 (too little for
    a hit, or the object has been found before); *similar*, if it overlaps an object of a similar class by at least
    0.1; *other*, an object of any other class; *background*. Difficult objects are objects here.

    Parameters
    ----------
    pictures : sequence of Picture
        The annotated pictures, those that were matched.
    detections : mapping of str to Detections
        By ``image_id``, those that were matched.
    matches : mapping of str to Matches
        By class, as `match_voc` or `match_ilsvrc` returned them for these pictures and detections.
    similar : sequence of collections of str, optional
        Groups of classes that are like each other; a class may be in several. Without it `VOC_SIMILAR` if the classes
        are VOC's, and no groups for any others.

    Returns
    -------
    dict of str to FalsePositives
        By class, every one of `matches`.

    Raises
    ------
    SettingError
        If a group names a class that is not among those matched.

    References
    ----------
    Hoiem et al., "Diagnosing Error in Object Detectors", ECCV 2012, section 3.1.

    Examples
    --------
    >>> from inception_rcnn.eval.matching import match_voc
    >>> no = np.array([False])
    >>> picture = Picture("1", "1.jpg", 40, 20, np.float32([[0, 0, 20, 10]]), np.array([0]), no, no)
    >>> boxes = np.float32([[0, 0, 20, 10], [0, 0, 20, 10], [0, 0, 20, 10], [30, 10, 40, 20]])
    >>> found = {"1": Detections(boxes, np.float32([4, 3, 2, 1]), np.array([0, 0, 1, 1]), ("cat", "dog"))}
    >>> matches = match_voc([picture], found, ("cat", "dog"))
    >>> result = false_positives([picture], found, matches, similar=[("cat", "dog")])
    >>> {name: [ERROR_TYPES[k] for k in one.kind if k >= 0] for name, one in result.items()}
    {'cat': ['localisation'], 'dog': ['similar', 'background']}
    """
    related = related_classes(tuple(matches), similar)
    found = [detections.get(picture.image_id) for picture in pictures]
    start = np.cumsum([0, *(0 if one is None else len(one) for one in found)])
    label = np.full(start[-1], -1)
    for position, one in enumerate(matches.values()):
        label[start[one.picture] + one.detection] = position

    # For every detection the object of a similar class, and of any other class, that it overlaps most.
    nearest = np.full((2, len(label)), -1)
    overlap = np.zeros((2, len(label)), np.float32)
    for i, (picture, claims) in enumerate(zip(pictures, found, strict=True)):
        if claims is None or not len(claims) or not len(picture.labels):
            continue
        rows = slice(start[i], start[i + 1])
        overlaps = box_iou(claims.boxes, picture.boxes)
        alike = related[label[rows]][:, picture.labels]
        foreign = (label[rows][:, None] != picture.labels) & ~alike
        for row, allowed in enumerate((alike, foreign)):
            allowed_overlaps = np.where(allowed, overlaps, 0)
            nearest[row, rows] = allowed_overlaps.argmax(axis=1)
            overlap[row, rows] = allowed_overlaps.max(axis=1)

    result = {}
    for name, one in matches.items():
        own = start[one.picture] + one.detection
        overlaps = np.stack([one.overlap.astype(np.float32), *overlap[:, own], np.ones(len(own), np.float32)])
        objects = np.stack([one.object, *nearest[:, own], np.full(len(own), -1)])
        # The first that applies; in float32, the precision of `box_iou`, so that an overlap of exactly 1/10 counts.
        kind = (overlaps >= np.float32(_TOUCH)).argmax(axis=0)
        overlaps[-1] = 0
        false = one.outcome == FALSE
        column = np.arange(len(own))
        result[name] = FalsePositives(
            np.where(false, kind, -1).astype(np.int8),
            np.where(false, objects[kind, column], -1),
            np.where(false, overlaps[kind, column], np.float32(0)),
        )
    return result


def related_classes(classes: tuple[str, ...], similar: Sequence[Collection[str]] | None) -> NDArray[np.bool_]:
    """Which classes (C, C) are in a group with each other; no class with itself."""
    if similar is None:
        similar = VOC_SIMILAR if set(classes) == set(VOC_CLASSES) else ()
    position = {name: i for i, name in enumerate(classes)}
    related = np.zeros((len(classes), len(classes)), bool)
    for one in similar:
        group = check_names("a group of similar classes", one if isinstance(one, str) else list(one))
        unknown = sorted(set(group) - set(classes))
        if unknown:
            meant = did_you_mean(unknown[0], classes)
            raise SettingError(
                f"a group of similar classes names {unknown[0]!r}, which is not among the classes{meant}"
            )
        members = [position[name] for name in group]
        related[np.ix_(members, members)] = True
    np.fill_diagonal(related, False)
    return related


def false_positive_shares(matches: Mapping[str, Matches], false: Mapping[str, FalsePositives]) -> dict[str, Any]:
    """Share of each kind among the highest-scored false positives of each class.

    As many as the class has objects to be found (or all, where there are fewer): what is false further down hardly
    costs any precision.

    Parameters
    ----------
    matches : mapping of str to Matches
        By class.
    false : mapping of str to FalsePositives
        By class, as `false_positives` returned them.

    Returns
    -------
    dict
        ``"per_class"``: name to kind to share, from 0 to 1; the shares of a class add up to 1, and are nan if it has no
        false positive or no object. ``"mean"``: kind to the mean over the classes that are not nan.

    References
    ----------
    Hoiem et al., "Diagnosing Error in Object Detectors", ECCV 2012, section 3.1 and figure 2.

    Examples
    --------
    >>> none, outcome = np.zeros(3, np.int64), np.array([FALSE, HIT, FALSE], np.int8)
    >>> cat = Matches(none, none, np.array([0.9, 0.8, 0.7]), outcome, none, np.zeros(3), 2)
    >>> false = FalsePositives(np.array([0, -1, 3], np.int8), none, np.zeros(3))
    >>> false_positive_shares({"cat": cat}, {"cat": false})["mean"]
    {'localisation': 0.5, 'similar': 0.0, 'other': 0.0, 'background': 0.5}
    """
    counts = count_false_positives(matches, false)
    shares = {name: one / one.sum() if one.any() else np.full(len(one), np.nan) for name, one in counts.items()}
    return _table(shares, ERROR_TYPES)


def count_false_positives(
    matches: Mapping[str, Matches], false: Mapping[str, FalsePositives]
) -> dict[str, NDArray[np.int64]]:
    """Count each kind of `ERROR_TYPES` among the false positives that `false_positive_shares` takes, by class.

    Examples
    --------
    >>> none, outcome = np.zeros(3, np.int64), np.array([FALSE, HIT, FALSE], np.int8)
    >>> cat = Matches(none, none, np.array([0.9, 0.8, 0.7]), outcome, none, np.zeros(3), 2)
    >>> false = FalsePositives(np.array([0, -1, 3], np.int8), none, np.zeros(3))
    >>> count_false_positives({"cat": cat}, {"cat": false})["cat"].tolist()
    [1, 0, 0, 1]
    """
    kinds = {name: false[name].kind for name in matches}
    tops = {name: kind[kind >= 0][: matches[name].positives] for name, kind in kinds.items()}
    return {name: np.bincount(top, minlength=len(ERROR_TYPES)) for name, top in tops.items()}


def normalised_average_precision(matches: Matches, positives: float) -> float:
    """Average precision as it would be if there were `positives` objects to be found.

    Precision depends on how many objects there are: of two classes that are found equally well, the rarer one has the
    lower precision. With R the recall and F the number of false positives after each detection, and N the same number
    for all classes, the normalised precision is::

        P_N = R * N / (R * N + F)

    and the normalised average precision AP_N is the area under it once it is made to fall monotonically. It is the
    average precision of VOC 2010 and later if N is the class's own number of objects.

    Parameters
    ----------
    matches : Matches
        The detections of one class. For a part of its objects: with the hits on other objects `IGNORED` and
        ``positives`` their number.
    positives : float
        N, above 0; the paper takes about the mean number of objects of a class.

    Returns
    -------
    float
        From 0 to 1; nan if the class has no objects.

    References
    ----------
    Hoiem et al., "Diagnosing Error in Object Detectors", ECCV 2012, section 3.2.

    Examples
    --------
    >>> none, outcome = np.zeros(2, np.int64), np.array([FALSE, HIT], np.int8)
    >>> cat = Matches(none, none, np.array([0.9, 0.8]), outcome, none, np.zeros(2), 1)
    >>> normalised_average_precision(cat, 1), normalised_average_precision(cat, 3)
    (0.5, 0.75)
    """
    if not matches.positives:
        return float("nan")
    check_number("positives", positives, 0)
    hit = matches.outcome[matches.outcome != IGNORED] == HIT
    recall = np.cumsum(hit) / matches.positives
    weighted = recall * positives
    return average_precision(recall, weighted / (weighted + np.cumsum(~hit)), "voc12")


def size_sensitivity(pictures: Sequence[Picture], matches: Mapping[str, Matches]) -> dict[str, Any]:
    """Normalised average precision of small and of large objects.

    The objects of each class are divided by the area of their boxes into `SIZES`. For each part, hits on the class's
    other objects are left out and all false positives stay. N of `normalised_average_precision` is the mean number of
    objects of the classes that have any.

    Parameters
    ----------
    pictures : sequence of Picture
        The annotated pictures, those that were matched. Objects flagged as difficult or crowd do not count, which is
        the rule of `match_voc`; for `match_ilsvrc` flag those that its blacklist takes out, and no others.
    matches : mapping of str to Matches
        By class.

    Returns
    -------
    dict
        ``"per_class"``: name to size to AP_N, nan for a size that no object of the class has; ``"all"`` is that of all
        its objects. ``"mean"``: size to the mean over the classes that are not nan.

    Raises
    ------
    SettingError
        If the flags do not leave as many objects as `matches` counted.

    References
    ----------
    Hoiem et al., "Diagnosing Error in Object Detectors", ECCV 2012, sections 2.2 and 3.2.

    Examples
    --------
    >>> from inception_rcnn.eval.matching import match_voc
    >>> boxes, label = np.float32([[0, 0, 4 + i, 4] for i in range(10)]), np.zeros(1, np.int64)
    >>> no = np.array([False])
    >>> pictures = [Picture(str(i), "1.jpg", 40, 20, box[None], label, no, no) for i, box in enumerate(boxes)]
    >>> found = {"0": Detections(boxes[:1], np.float32([1]), label, ("cat",))}
    >>> size_sensitivity(pictures, match_voc(pictures, found, ("cat",)))["per_class"]["cat"]
    {'extra small': 1.0, 'small': 0.0, 'medium': 0.0, 'large': 0.0, 'extra large': 0.0, 'all': 0.1}
    """
    start = np.cumsum([0, *(len(picture.labels) for picture in pictures)])
    label = np.concatenate([np.zeros(0, np.int64), *(picture.labels for picture in pictures)])
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(picture.boxes for picture in pictures)])
    counted = ~np.concatenate([np.zeros(0, bool), *(picture.difficult | picture.crowd for picture in pictures)])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    positives = mean_of_numbers([one.positives or np.nan for one in matches.values()])

    table = {}
    for position, (name, one) in enumerate(matches.items()):
        own = np.flatnonzero(counted & (label == position))
        if len(own) != one.positives:
            raise SettingError(
                f"{name}: the pictures' flags leave {len(own)} objects to be found, the matches have {one.positives}; "
                "flag the objects that do not count as difficult, and no others"
            )
        size = np.full(len(label) + 1, -1)
        size[own] = _size(area[own])
        # The last entry, -1, stands for detections that touch no object.
        size_hit = size[np.where(one.object < 0, -1, start[one.picture] + one.object)]
        row = []
        for part in range(len(SIZES)):
            outcome = np.where((one.outcome == HIT) & (size_hit != part), IGNORED, one.outcome).astype(np.int8)
            of_part = one._replace(outcome=outcome, positives=int((size[own] == part).sum()))
            row.append(normalised_average_precision(of_part, positives))
        table[name] = np.array([*row, normalised_average_precision(one, positives)])
    return _table(table, (*SIZES, "all"))


def _size(area: NDArray[np.float32]) -> NDArray[np.int64]:
    """Index into `SIZES` of each object of a class, equal areas together."""
    count = len(area)
    bounds = np.append(0, np.sort(area))[[(tenths * count + 5) // 10 for tenths in (1, 3, 7, 9)]]
    return np.searchsorted(bounds, area, side="left")


def _table(rows: Mapping[str, NDArray[np.float64]], columns: Sequence[str]) -> dict[str, Any]:
    return {
        "mean": {column: mean_of_numbers(row[i] for row in rows.values()) for i, column in enumerate(columns)},
        "per_class": {name: dict(zip(columns, row.tolist(), strict=True)) for name, row in rows.items()},
    }
