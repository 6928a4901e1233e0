"""Pictures and annotations in, detections out: readers and writers, class lists, the box convention."""

from .boxes import box_iou, clip_boxes
from .classes import (
    COCO_CLASSES,
    COCO_TO_VOC,
    ILSVRC_DET_CLASSES,
    IMAGENET_CLASSES,
    TO_ILSVRC_DET,
    VOC_CLASSES,
)
from .classes.reading import read_class_list
from .detections import Detections
from .errors import AnnotationError, DetectionError, ImageError, MatlabFileError, ProposalFileError
from .formats.by_suffix import (
    PROPOSAL_SUFFIXES,
    read_detection_entries,
    read_detections,
    read_proposals,
    write_detections,
    write_proposals,
)
from .formats.coco import read_coco, read_coco_ids, read_coco_results, write_coco_results
from .formats.ilsvrc import (
    read_ilsvrc,
    read_ilsvrc_blacklist,
    read_ilsvrc_list,
    read_ilsvrc_results,
    read_meta_det,
    write_ilsvrc_results,
)
from .formats.matlab5 import read_matlab
from .formats.voc import read_voc, read_voc_results, write_voc_results
from .images.containers import find_images_in
from .images.finding import IMAGE_SUFFIXES, find_images
from .images.reading import MAX_PIXELS, read_image
from .picture import Picture
from .proposals import Proposals
from .system.atomic_files import atomic_file, atomic_write

__all__ = [
    "COCO_CLASSES",
    "COCO_TO_VOC",
    "ILSVRC_DET_CLASSES",
    "IMAGENET_CLASSES",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "PROPOSAL_SUFFIXES",
    "TO_ILSVRC_DET",
    "VOC_CLASSES",
    "AnnotationError",
    "DetectionError",
    "Detections",
    "ImageError",
    "MatlabFileError",
    "Picture",
    "ProposalFileError",
    "Proposals",
    "atomic_file",
    "atomic_write",
    "box_iou",
    "clip_boxes",
    "find_images",
    "find_images_in",
    "read_class_list",
    "read_coco",
    "read_coco_ids",
    "read_coco_results",
    "read_detection_entries",
    "read_detections",
    "read_ilsvrc",
    "read_ilsvrc_blacklist",
    "read_ilsvrc_list",
    "read_ilsvrc_results",
    "read_image",
    "read_matlab",
    "read_meta_det",
    "read_proposals",
    "read_voc",
    "read_voc_results",
    "write_coco_results",
    "write_detections",
    "write_ilsvrc_results",
    "write_proposals",
    "write_voc_results",
]
