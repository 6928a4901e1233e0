"""Picture to ranked boxes."""

from .selective_search import SelectiveSearch, selective_search

__all__ = ["SelectiveSearch", "selective_search"]
