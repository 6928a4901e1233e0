"""What users can get wrong: one base, and its kinds.

The text of an error is one line: which file, what is wrong, what to do.
"""

from __future__ import annotations

__all__ = [
    "AnnotationError",
    "CheckpointError",
    "CommandError",
    "DetectionError",
    "DeviceError",
    "EvaluationError",
    "ImageError",
    "JournalError",
    "MatlabFileError",
    "ModelError",
    "ProposalFileError",
]


class AnnotationError(ValueError):
    """An annotation file is missing or malformed; the text is one line: which file, what is wrong."""


class DetectionError(ValueError):
    """A file of detections is missing or malformed; the text is one line: which file, what is wrong."""


class ImageError(ValueError):
    """A picture cannot be found or read; the text is one line: which file, what is wrong, what to do."""


class ProposalFileError(ValueError):
    """A file of proposals cannot be read or written; the text is one line: which file, what is wrong."""


class MatlabFileError(ValueError):
    """A file of MATLAB is missing, damaged or of another version; the text is one line: which file, what is wrong."""


class DeviceError(ValueError):
    """A device that was asked for is not there; the text says what to do."""


class ModelError(ValueError):
    """A model file or name cannot be used; the text says why and what to do."""


class EvaluationError(ValueError):
    """Detections and annotations do not belong together; the text is one line that says how."""


class JournalError(ValueError):
    """The journal beside the output cannot be gone on from; the text says why and what to do."""


class CheckpointError(ValueError):
    """A training cannot begin or go on like this; the text says why and what to do."""


class CommandError(ValueError):
    """A command cannot be carried out as given; the text says why and what to do."""
