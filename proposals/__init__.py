"""Picture to ranked boxes."""

from typing import TYPE_CHECKING, Any

from .from_file import FileProposals
from .merge import MergedProposals, load_proposer, merge_proposals
from .proposer import Proposer
from .search.selective_search import SelectiveSearch, Strategy, compile_kernels, selective_search

if TYPE_CHECKING:
    from .multibox.proposer import MultiBox

__all__ = [
    "FileProposals",
    "MergedProposals",
    "MultiBox",
    "Proposer",
    "SelectiveSearch",
    "Strategy",
    "compile_kernels",
    "load_proposer",
    "merge_proposals",
    "selective_search",
]


def __getattr__(name: str) -> Any:
    # Not imported before it is asked for: selective search needs none of the packages that run a network.
    if name == "MultiBox":
        from .multibox.proposer import MultiBox

        return MultiBox
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
