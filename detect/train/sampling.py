"""Which regions of a picture a detector learns from in a step, and what each of them shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...backbone.preprocessing import encode_boxes
from ...data import Picture, box_iou
from ...proposals.multibox.loss import away_from
from ..postprocessing import move_by_best


class SampledRegions(NamedTuple):
    """Regions of a picture to learn from.

    Attributes
    ----------
    boxes : ndarray, shape (R, 4), float32
        In pixels of the picture.
    labels : ndarray, shape (R,), int64
        0 is background, 1 + c is class c.
    targets : ndarray, shape (R, 4), float32
        Box deltas; zero for background.
    overlaps : ndarray, shape (R,), float32
        Largest IoU with an object.
    objects : ndarray, shape (R,), int64
        Which object that is, of those that are neither difficult nor crowds.
    objectness : ndarray, shape (R,), float32
        Probability, by their proposer, that they are an object of any class and no part of a likelier one, see
        `without_parts`; 0 of those drawn around known objects.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    targets: NDArray[np.float32]
    overlaps: NDArray[np.float32]
    objects: NDArray[np.int64]
    objectness: NDArray[np.float32]

    def select(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> SampledRegions:
        """Return some of them, by their indices or a mask."""
        return SampledRegions(
            self.boxes[chosen], self.labels[chosen], self.targets[chosen], self.overlaps[chosen],
            self.objects[chosen], self.objectness[chosen],
        )  # fmt: skip


def repeat_factors(pictures: Sequence[Picture], classes: int, rare_share: float) -> NDArray[np.float64]:
    """Compute how often each picture is shown in an epoch, so that rare classes are shown often enough.

    Parameters
    ----------
    pictures : sequence of Picture
    classes : int
        Number of classes.
    rare_share : float
        Classes in less than this share of the pictures are shown more often; with many classes, in less than 2 over
        their number: of 200 nearly all are in less than a tenth.

    Returns
    -------
    ndarray, shape (len(pictures),), float64
        At least 1 each: ``max over its classes of sqrt(rare_share / share of pictures with the class)``.

    References
    ----------
    Gupta et al., "LVIS", CVPR 2019, section 5.

    Examples
    --------
    >>> repeat_factors([], 20, 0.1).shape
    (0,)
    """
    present = np.zeros((len(pictures), classes), dtype=bool)
    for row, picture in zip(present, pictures, strict=True):
        row[picture.labels] = True
    share = present.sum(0) / max(1, len(pictures))
    factor = np.maximum(1.0, np.sqrt(min(rare_share, 2 / classes) / np.maximum(share, 1e-9)))
    return np.where(present, factor, 1.0).max(axis=1, initial=1.0)


def _jitter(boxes: NDArray[np.float32], copies: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Make copies of boxes (N, 4), shifted by up to 15 % of their sides and scaled by factors of up to exp(0.25)."""
    boxes = np.repeat(boxes, copies, axis=0)
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + sides * rng.uniform(-0.15, 0.15, sides.shape)
    half = sides * np.exp(rng.uniform(-0.25, 0.25, sides.shape)) / 2
    return np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)


def sample_regions(
    picture: Picture,
    proposals: NDArray[np.float32],
    rng: np.random.Generator,
    *,
    number: int,
    foreground: float,
    objectness: NDArray[np.float32] | None = None,
) -> SampledRegions:
    """Draw the regions of a picture that one step learns from.

    Foreground has an IoU of 0.5 or more with an object, background less. Three quarters of the background have 0.1 or
    more: these are the hard ones. Regions on difficult objects and crowds are neither. Where not every object of the
    labelled classes is boxed, a region away from the boxes can show an object and is not drawn. With objectness, the
    other quarter is drawn in proportion to it: what a teacher can name.

    Parameters
    ----------
    picture : Picture
    proposals : ndarray, shape (N, 4), float32
        In pixels of the picture.
    rng : numpy.random.Generator
    number : int
        Regions to draw; fewer come back if there are not enough.
    foreground : float
        Largest share of foreground.
    objectness : ndarray, shape (N,), float32, optional
        Of the proposals, for a `Teacher`.

    Returns
    -------
    SampledRegions

    References
    ----------
    Girshick, "Fast R-CNN", ICCV 2015, section 2.3.
    """
    objects = picture.boxes[~(picture.difficult | picture.crowd)]
    boxes = np.concatenate([objects, _jitter(objects, 4, rng), proposals])
    known = np.zeros(len(boxes), np.float32)
    if objectness is not None:
        known[len(boxes) - len(proposals) :] = objectness
    every = label_regions(picture, boxes, known)
    chosen_foreground = np.flatnonzero(every.labels > 0)
    hard = np.flatnonzero((every.labels == 0) & (every.overlaps >= 0.1))
    easy = np.flatnonzero((every.labels == 0) & (every.overlaps < 0.1))

    # Objects take turns, or the largest, with hundreds of good proposals, would crowd out the small ones.
    nearest = every.objects
    per_object = np.bincount(nearest[chosen_foreground], minlength=1)
    order = np.log(rng.random(len(chosen_foreground)) + 1e-12) * per_object[nearest[chosen_foreground]]
    wanted = round(number * foreground)
    chosen_foreground = chosen_foreground[np.argsort(-order, kind="stable")[:wanted]]
    background = number - len(chosen_foreground)
    chosen_hard = rng.permutation(hard)[: max(round(background * 0.75), background - len(easy))]
    chosen_easy = rng.permutation(easy)
    if objectness is not None:
        # Drawn one after the other, each by its weight among those that are left (Efraimidis and Spirakis, 2006).
        turn = np.log(rng.random(len(easy)) + 1e-12) / (every.objectness[chosen_easy] + 1e-6)
        chosen_easy = chosen_easy[np.argsort(-turn, kind="stable")]
    chosen_easy = chosen_easy[: background - len(chosen_hard)]
    chosen = np.concatenate([chosen_foreground, chosen_hard, chosen_easy]).astype(np.int64)
    if objectness is not None:
        # Parts are drawn as often: that they are none of the classes has to be learned.
        every = every._replace(objectness=without_parts(every.boxes, every.objectness))
    return every.select(chosen)


def label_regions(
    picture: Picture, boxes: NDArray[np.float32], objectness: NDArray[np.float32] | None = None
) -> SampledRegions:
    """Tell what boxes show: an object if the IoU with it is 0.5 or more, else background.

    Parameters
    ----------
    picture : Picture
    boxes : ndarray, shape (N, 4), float32
        In pixels of the picture; what lies outside is cut off.
    objectness : ndarray, shape (N,), float32, optional
        Default 0.

    Returns
    -------
    SampledRegions
        Those that can be learned from: not narrower or lower than 8 pixels, and no background on difficult objects and
        crowds, or away from all boxes where not every object is boxed.

    Examples
    --------
    >>> from pathlib import Path
    >>> no = np.array([False])
    >>> picture = Picture("a", Path("a.jpg"), 40, 20, np.array([[0, 0, 20, 20]], np.float32), np.array([7]), no, no)
    >>> label_regions(picture, np.array([[0, 0, 20, 18], [15, 5, 90, 90]], np.float32)).labels.tolist()
    [8, 0]
    """
    known = ~(picture.difficult | picture.crowd)
    objects = picture.boxes[known]
    boxes = np.clip(boxes, 0, np.array([picture.width, picture.height] * 2, np.float32))
    large = ((boxes[:, 2:] - boxes[:, :2]) >= 8).all(1)
    known_objectness = np.zeros(len(boxes), np.float32) if objectness is None else objectness
    boxes, known_objectness = boxes[large], known_objectness[large]
    overlaps, nearest = np.zeros(len(boxes), np.float32), np.zeros(len(boxes), np.int64)
    if len(objects):
        iou = box_iou(boxes, objects)
        overlaps, nearest = iou.max(1), iou.argmax(1)
    foreground = overlaps >= 0.5
    background = away_from(boxes, picture.boxes[~known]) & (picture.exhaustive | (overlaps >= 0.1))
    labels, targets = np.zeros(len(boxes), np.int64), np.zeros((len(boxes), 4), np.float32)
    labels[foreground] = picture.labels[known][nearest[foreground]] + 1
    targets[foreground] = encode_boxes(boxes[foreground], objects[nearest[foreground]])
    every = SampledRegions(boxes, labels, targets, overlaps, nearest, known_objectness)
    return every.select(foreground | background)


def without_parts(boxes: NDArray[np.float32], objectness: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lower the objectness of boxes that are rather a part of an object: those inside a likelier and much larger box.

    A classifier names an object by its parts, too: a patch of a zebra is a zebra to it.

    Parameters
    ----------
    boxes : ndarray, shape (N, 4), float32
    objectness : ndarray, shape (N,), float32

    Returns
    -------
    ndarray, shape (N,), float32
        ``objectness * (1 - p)``, where p is the largest objectness of a box that is above a box's own, and that covers
        four fifths of it while the IoU is less than 0.5.

    Examples
    --------
    >>> boxes = np.float32([[0, 0, 40, 40], [0, 0, 10, 10], [0, 0, 40, 30], [35, 0, 60, 40]])
    >>> without_parts(boxes, np.float32([0.8, 0.5, 0.5, 0.5])).round(2).tolist()
    [0.800000011920929, 0.10000000149011612, 0.5, 0.5]
    """
    if not len(boxes):
        return objectness
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    iou = box_iou(boxes, boxes)
    # Of areas a and b the intersection is iou / (1 + iou) * (a + b).
    covered = iou / (1 + iou) * (areas[:, None] + areas) / np.maximum(areas[:, None], 1e-6)
    whole = (covered >= 0.8) & (iou < 0.5) & (objectness > objectness[:, None])
    return objectness * (1 - np.where(whole, objectness, np.float32(0)).max(1))


def refine_regions(
    picture: Picture,
    boxes: NDArray[np.float32],
    logits: NDArray[np.float32],
    deltas: NDArray[np.float32],
    rng: np.random.Generator,
    *,
    number: int,
    objectness: NDArray[np.float32] | None = None,
) -> SampledRegions:
    """Draw some of a picture's regions and move each as detection does for its second look.

    Parameters
    ----------
    picture : Picture
    boxes : ndarray, shape (N, 4), float32
        Regions that were scored.
    logits : ndarray, shape (N, 1 + C), float32
    deltas : ndarray, shape (N, C, 4), float32
    rng : numpy.random.Generator
    number : int
        Regions to draw.
    objectness : ndarray, shape (N,), float32, optional
        Of the regions; the moved ones keep it.

    Returns
    -------
    SampledRegions
        With the labels of the places they were moved to.

    References
    ----------
    Cai and Vasconcelos, "Cascade R-CNN", CVPR 2018, section 3.2: with one head for both looks.

    Examples
    --------
    >>> from pathlib import Path
    >>> no = np.array([False])
    >>> picture = Picture("a", Path("a.jpg"), 40, 20, np.array([[10, 0, 20, 20]], np.float32), np.array([0]), no, no)
    >>> box, right = np.array([[0, 0, 10, 20]], np.float32), np.array([[[10, 0, 0, 0]]], np.float32)
    >>> refine_regions(picture, box, np.zeros((1, 2), np.float32), right, np.random.default_rng(0), number=1).labels
    array([1])
    """
    chosen = rng.permutation(len(boxes))[:number]
    moved = move_by_best(boxes[chosen], logits[chosen, 1:], deltas[chosen])
    return label_regions(picture, moved, None if objectness is None else objectness[chosen])
