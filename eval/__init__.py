"""Detections to numbers: suppression and ensembling, average precision, the quality of proposals, error analysis."""

from ..data.errors import EvaluationError

# Suppression is an operation on boxes that proposals need too: it lives in data/nms.py, and is offered here.
from ..data.nms import nms, nms_per_class, soft_nms, soft_nms_per_class
from .classification import evaluate_classification
from .coco import evaluate_coco, match_coco
from .compare import compare_detectors
from .confusion import confusion_matrix
from .ensemble import merge_detections, weighted_box_fusion
from .errors import false_positive_shares, false_positives, normalised_average_precision, size_sensitivity
from .evaluators import COCOEvaluator, ILSVRCEvaluator, VOCEvaluator
from .ilsvrc import evaluate_ilsvrc
from .matching import Matches, match_ilsvrc, match_voc
from .precision import average_precision
from .proposals import evaluate_proposals
from .report.page import write_report
from .thresholds import evaluate_thresholds
from .tide import tide_errors
from .voc import evaluate_voc

__all__ = [
    "COCOEvaluator",
    "EvaluationError",
    "ILSVRCEvaluator",
    "Matches",
    "VOCEvaluator",
    "average_precision",
    "compare_detectors",
    "confusion_matrix",
    "evaluate_classification",
    "evaluate_coco",
    "evaluate_ilsvrc",
    "evaluate_proposals",
    "evaluate_thresholds",
    "evaluate_voc",
    "false_positive_shares",
    "false_positives",
    "match_coco",
    "match_ilsvrc",
    "match_voc",
    "merge_detections",
    "nms",
    "nms_per_class",
    "normalised_average_precision",
    "size_sensitivity",
    "soft_nms",
    "soft_nms_per_class",
    "tide_errors",
    "weighted_box_fusion",
    "write_report",
]
