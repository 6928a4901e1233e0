"""Picture to ranked boxes."""

from .selective_search import SelectiveSearch, Strategy, compile_kernels, selective_search

__all__ = ["SelectiveSearch", "Strategy", "compile_kernels", "selective_search"]
