"""GoogLeNet: the network, its weights, model files, and scores of pictures and regions on CPU and GPU."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..data.errors import needs_packages

if TYPE_CHECKING:
    from .classifier import Classifier
    from .googlenet import GoogLeNet

__all__ = ["Classifier", "GoogLeNet"]

# ONNX Runtime reads this when it is imported, which only this room does: it would write an id of the machine and a
# database of its use into the user's cache folder, and send them. A value that the user has set stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    # Imported when it is first used: both need torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs_packages(name, "train"):
        return getattr(import_module(f".{name.lower()}", __name__), name)
