"""Proposals: a picture -> boxes that may hold an object, best first."""

from typing import TYPE_CHECKING, Any

from .dataset import ProposalDataset
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
    "ProposalDataset",
    "Proposer",
    "SelectiveSearch",
    "Strategy",
    "compile_kernels",
    "load_proposer",
    "merge_proposals",
    "selective_search",
]


def __getattr__(name: str) -> Any:
    # Imported when it is first used: selective search needs no package that runs a network.
    if name == "MultiBox":
        from .multibox.proposer import MultiBox

        return MultiBox
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
