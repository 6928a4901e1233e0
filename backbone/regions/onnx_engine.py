"""The engine for CPUs: a model's graphs, run by ONNX Runtime.

In float32 it is the fastest for this network: 10 % faster than OpenVINO, 50 % faster than torch. In 8 bits OpenVINO is
10 % faster (``benchmarks/scoring.py``). To install, it has a twentieth of torch's size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...data.errors import ModelError, needs_packages
from ...data.system.processes import usable_cores
from ..preprocessing import crop_regions, normalise_picture
from ..weights.model_file import GRAPHS, RegionModel
from .features import TrunkFeatures
from .roi_align import BINS, FINE_STRIDE, STRIDE, read_first_pass, read_regions

if TYPE_CHECKING:
    import onnxruntime


# Regions a batch of the head. The activations of 64 regions fit into a core's L2 cache and its usual share of the L3.
CHUNK = 64
# Crops a batch of the whole network. The activations of 4 crops fit into a core's usual share of the L3 cache.
CROPS = 4


@functools.cache
def _share_memory(runtime: ModuleType) -> None:
    """Make an arena of memory for all sessions of this process that ask for it."""
    memory = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
    runtime.create_and_register_allocator(memory, runtime.OrtArenaCfg(0, 0, -1, -1))


def onnx_session(
    graph: bytes, weights: Mapping[str, NDArray[np.float16]], threads: int | None = None
) -> onnxruntime.InferenceSession:
    """Load a graph of a model file into ONNX Runtime.

    Parameters
    ----------
    graph : bytes
        ONNX; its initializers are named as the weights.
    weights : mapping of str to ndarray
        float16, by name; weights that the graph does not name are left out.
    threads : int, optional
        Default all cores that this process may use.

    Raises
    ------
    ModelError
        If graph and weights do not fit together.
    MissingPackageError
        If ONNX Runtime is not installed.
    """
    with needs_packages("detection on a CPU", "detect"):
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.log_severity_level = 3
    # Trunk and regions take turns: what one has used, the other can. A pattern of memory, kept for every size of
    # picture, would need its room in one piece.
    _share_memory(onnxruntime)
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = False
    # Threads that wait in a loop would take the cores from the threads that compute proposals of the next picture.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # ONNX Runtime refuses weights that a graph does not name.
    named = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(weight.astype(np.float32))
        for name, weight in weights.items()
        if name.encode() in graph
    }
    options.add_external_initializers(list(named), list(named.values()))
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a class for each kind of failure, none of them public.
        raise ModelError(f"the model's graph cannot be run: {str(error).splitlines()[0]}") from error


def onnx_trunk(
    graph: bytes, weights: Mapping[str, NDArray[np.float16]], threads: int | None = None
) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
    """Load a trunk as a function: resized picture (H, W, 3) uint8 RGB -> outputs of inception 4e and 3b.

    Both are float32, (1, 832, h, w) and (1, 480, ~2h, ~2w). A graph of version 0.2 has only the first.
    """
    session = onnx_session(graph, weights, threads)
    return lambda picture: session.run(None, {"picture": normalise_picture(picture)})


class OnnxRegions:
    """A model's layers above the trunk, and its crops, in ONNX Runtime; see `scorer.RegionEngine`.

    Parameters
    ----------
    model : RegionModel
    precision : {"float32", "int8"}
    threads : int, optional
        Default all cores that this process may use.

    Raises
    ------
    ModelError
        If the model's graphs and weights do not fit together, or it lacks the graph in 8 bits.
    """

    def __init__(self, model: RegionModel, precision: str = "float32", threads: int | None = None) -> None:
        bits = ".int8" if precision == "int8" else ""
        by_region = f"{GRAPHS[model.scoring][-1]}{bits}"
        if bits and by_region not in model.graphs:
            raise ModelError("the model cannot run in 8 bits: it was packed without pictures; use precision float32")
        names = "first_pass", "project", by_region
        sessions = {n: onnx_session(model.graphs[n], model.weights, threads) for n in names if n in model.graphs}
        self._first_pass, self._by_region = sessions["first_pass"], sessions[by_region]
        self._project = sessions.get("project")
        self._has_logits = self._by_region.get_outputs()[0].name == "logits"

    def first_pass_logits(self, maps: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `scorer.RegionEngine`."""
        return read_first_pass(self._first_pass.run(None, {"features": maps})[0], boxes)

    def score_regions(self, features: TrunkFeatures, boxes: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """See `scorer.RegionEngine`."""
        assert self._project is not None
        names = [entry.name for entry in self._by_region.get_inputs()]
        given = {"features": features.maps} | ({"fine": features.fine} if "fine" in names else {})
        projections = dict(zip(names, self._project.run(None, given), strict=True))
        memory = {
            name: np.empty((min(CHUNK, len(boxes)), BINS, BINS, projected.shape[2]), np.float32)
            for name, projected in projections.items()
        }
        parts = []
        for start in range(0, len(boxes), CHUNK):
            batch = boxes[start : start + CHUNK]
            regions = {
                name: read_regions(array, batch, memory[name], stride=FINE_STRIDE if name == "fine" else STRIDE)
                for name, array in projections.items()
            }
            parts.append(self._by_region.run(None, regions))
        return self._concatenate(parts)

    def score_crops(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """See `scorer.RegionEngine`."""
        parts = [
            self._by_region.run(None, {"crops": crop_regions(image, boxes[start : start + CROPS])})
            for start in range(0, len(boxes), CROPS)
        ]
        return self._concatenate(parts)

    def _concatenate(self, parts: Sequence[Sequence[NDArray[np.float32]]]) -> tuple[NDArray[np.float32], ...]:
        """Concatenate the outputs of batches, with logits first."""
        first, *others = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        # Graphs of version 0.2 end with probabilities; their logarithms are logits that are the same after softmax.
        first = first if self._has_logits else np.log(np.maximum(first, np.float32(1e-38)))
        return first, *others
