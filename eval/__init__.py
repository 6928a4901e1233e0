"""Detections to numbers: non-maximum suppression, average precision, the quality of proposals."""

from .nms import nms, nms_per_class
from .proposals import evaluate_proposals
from .voc import EvaluationError, average_precision, evaluate_voc

__all__ = [
    "EvaluationError",
    "average_precision",
    "evaluate_proposals",
    "evaluate_voc",
    "nms",
    "nms_per_class",
]
