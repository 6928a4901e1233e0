"""The pipeline that joins the rooms: the detector, its training, runs over many pictures, the command line."""

from typing import TYPE_CHECKING, Any

from ..data.errors import needs_packages

if TYPE_CHECKING:
    from .detector import Detector

__all__ = ["Detector"]


def __getattr__(name: str) -> Any:
    # Not imported before it is asked for: the command line evaluates without the packages that detection needs.
    if name == "Detector":
        with needs_packages("detection", "detect"):
            from .detector import Detector
        return Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
