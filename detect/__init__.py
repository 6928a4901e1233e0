"""The pipeline that joins the rooms: the detector, its training, runs over many pictures, the command line."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .detector import Detector

__all__ = ["Detector"]


def __getattr__(name: str) -> Any:
    # Not imported before it is asked for: the command line evaluates without the packages that detection needs.
    if name == "Detector":
        try:
            from .detector import Detector
        except ImportError as error:
            raise ImportError(
                f"detection needs {error.name}; in a clone of the project: pip install '.[detect]'", name=error.name
            ) from error
        return Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
