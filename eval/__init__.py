"""Detections to numbers: non-maximum suppression, average precision, the quality of proposals."""

from .ilsvrc import evaluate_ilsvrc
from .matching import EvaluationError, Matches, match_ilsvrc, match_voc
from .nms import nms, nms_per_class
from .proposals import evaluate_proposals
from .voc import average_precision, evaluate_voc

__all__ = [
    "EvaluationError",
    "Matches",
    "average_precision",
    "evaluate_ilsvrc",
    "evaluate_proposals",
    "evaluate_voc",
    "match_ilsvrc",
    "match_voc",
    "nms",
    "nms_per_class",
]
