"""GoogLeNet: the network, its weights, model files, and scores of pictures and regions on CPU and GPU."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..data.errors import needs_packages

if TYPE_CHECKING:
    from .classifier import Classifier
    from .googlenet import GoogLeNet

__all__ = ["Classifier", "GoogLeNet"]


def __getattr__(name: str) -> Any:
    # Imported when it is first used: both need torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs_packages(name, "train"):
        return getattr(import_module(f".{name.lower()}", __name__), name)
