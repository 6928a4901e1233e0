"""The settings of a detection and their defaults, which the command line reads too: nothing heavy is imported here."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..data.arguments import check_choice, check_names, check_number
from ..data.errors import SettingError

NMS = ("soft", "greedy")


@dataclass(frozen=True)
class DetectorSettings:
    """Every setting of a detection and its default.

    Parameters
    ----------
    proposals : int
        Regions of a picture that are considered, best proposals first. On pictures set aside from training, more of the
        merged ones found no more objects.
    search_proposals : int
        The same for selective search alone and for boxes of a file: selective search's first hundred cover half as many
        objects as the merged ones'.
    first_pass_regions : int
        If there are more regions, only so many are scored: those with the highest first pass, weighed with the
        objectness where it is known. 0 scores all.
    second_look : int
        The regions with the highest scores, so many, are moved by their box deltas and scored again there (Gidaris and
        Komodakis, "Object detection via a multi-region CNN", ICCV 2015, section 5); 0 for none. The mean of both scores
        is better than the second alone.
    calibrated : bool
        Whether scores are made the probability that a detection is right, by the models' calibration, if each has one.
    min_score : float
        Detections with a lower score are dropped; of calibrated scores, with a lower calibrated one.
    nms : {"soft", "greedy"}
        Lower the scores of boxes that overlap a better one of their class (Bodla et al.), or drop them as R-CNN does.
    iou_threshold : float
        IoU with a better box above which "greedy" drops a box; "soft" does not use it.
    softness : float
        Sigma of the Gaussian of "soft": at 0.4, boxes with an IoU of 0.5 lose 46 % of their score.
    objectness_weight : float
        Weight of the proposal's objectness in the score, 0 to 1, a weighted geometric mean. Chosen with the softness on
        pictures set aside from training.
    max_detections : int
        Of a picture, the best. ILSVRC and COCO both stop counting at a hundred; more only makes files large.
    only : iterable of str
        Names of the classes whose detections are kept, among which `max_detections` counts. Their scores do not depend
        on it. Empty for all classes.

    Raises
    ------
    SettingError
        If a setting is out of range.

    Examples
    --------
    >>> DetectorSettings(nms="greedy").iou_threshold
    0.3
    """

    proposals: int = 100
    search_proposals: int = 1000
    first_pass_regions: int = 200
    second_look: int = 40
    calibrated: bool = True
    min_score: float = 0.05
    nms: str = "soft"
    iou_threshold: float = 0.3
    softness: float = 0.4
    objectness_weight: float = 0.2
    max_detections: int = 100
    only: Iterable[str] = ()

    def __post_init__(self) -> None:
        check_choice("nms", self.nms, NMS)
        mine = vars(self)
        if not isinstance(self.calibrated, bool):
            raise SettingError(f"calibrated must be True or False, not {self.calibrated!r}")
        # In one order: the same classes are the same settings.
        mine["only"] = tuple(sorted(set(check_names("only", self.only))))
        for name in ("min_score", "iou_threshold", "objectness_weight"):
            mine[name] = check_number(name, mine[name], 0, 1)
        mine["softness"] = check_number("softness", self.softness, 1e-6, 1e6)
        for name in ("proposals", "search_proposals", "max_detections"):
            mine[name] = check_number(name, mine[name], 1, whole=True)
        for name in ("first_pass_regions", "second_look"):
            mine[name] = check_number(name, mine[name], 0, whole=True)
