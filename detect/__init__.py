"""The pipeline that joins the rooms: the detector, its training, runs over many pictures, the command line."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..data.errors import needs_packages

if TYPE_CHECKING:
    from .detector import Detector
    from .drawing import draw_detections
    from .runs.detection import detect_batch
    from .runs.labels import Exports

__all__ = ["Detector", "Exports", "detect_batch", "draw_detections"]

_HOMES = {
    "Detector": ".detector",
    "Exports": ".runs.labels",
    "detect_batch": ".runs.detection",
    "draw_detections": ".drawing",
}


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: the command line evaluates without the packages that detection needs.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs_packages("detection", "detect"):
        return getattr(import_module(_HOMES[name], __name__), name)
