"""The engine for GPUs: a model run by torch, in float16. It also runs on a CPU, where the same lines are tested.

A picture is sent to the GPU once, as uint8; regions are cut and warped there. A pass is a few hundred kernels. They are
recorded once for each size of batch as a CUDA graph, and replayed without Python; so batches have only a few sizes.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...data.errors import ModelError
from ..preprocessing import CONTEXT, CROP_SIDE, MEAN_BGR
from ..weights.model_file import RegionModel, in_trunk, network_parts
from .features import TrunkFeatures
from .network import RegionNetwork, TrunkMaps, roi_align
from .placement import Placement

# Regions and crops a batch. The numbers are halved where the device's memory does not hold a batch.
REGIONS = {"cpu": 64, "cuda": 512}
CROPS = {"cpu": 16, "cuda": 256}
# Recorded batches have at least so many rows: a GPU is hardly faster with fewer.
MIN_RECORDED = 32
_log = logging.getLogger(__name__)
_settings_lock = threading.RLock()
_is_forked = False


@cache
def survive_forks() -> None:
    """Have forked children run torch with one thread on a CPU.

    A forked child has none of torch's other threads, and would wait for them for ever. torch's DataLoader too sets one
    thread in its workers. Call this before torch runs anything. Forks of processes that never call it are not changed.

    Examples
    --------
    >>> survive_forks()
    """

    def in_child() -> None:
        global _settings_lock, _is_forked
        _is_forked = True
        _settings_lock = threading.RLock()  # A thread that the child does not have may hold the parent's.
        torch.set_num_threads(1)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=in_child)


@contextlib.contextmanager
def full_precision(threads: int | None = None) -> Iterator[None]:
    """Compute float32 on a GPU with all of its bits: by default, convolutions keep only ten bits of the fraction.

    On a CPU `threads`, if it is given, is the number of threads inside an operation. These settings hold for the whole
    process, so other threads wait here until the block ends. That also protects the memory of recorded batches, which
    all threads share. Afterwards each setting has the value that it had, set explicitly where it was inherited.

    Examples
    --------
    >>> with full_precision():
    ...     torch.backends.cudnn.conv.fp32_precision
    'ieee'
    """
    survive_forks()
    backends: tuple[Any, Any] = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    with _settings_lock:
        before, threads_before = [backend.fp32_precision for backend in backends], torch.get_num_threads()
        try:
            if threads and not _is_forked:
                torch.set_num_threads(threads)
            for backend in backends:
                backend.fp32_precision = "ieee"
            yield
        finally:
            torch.set_num_threads(threads_before)
            for backend, precision in zip(backends, before, strict=True):
                backend.fp32_precision = precision


@cache
def _side_stream() -> torch.cuda.Stream:
    """Make the stream on which all graphs are recorded. There is only one: libraries keep memory for each stream."""
    return torch.cuda.Stream()


def torch_network(
    weights: Mapping[str, NDArray[np.float16]],
    classes: int,
    device: str,
    *,
    trunk_alone: bool = False,
    precision: str = "float32",
) -> RegionNetwork:
    """Build the network of a model in torch.

    Parameters
    ----------
    weights : mapping of str to ndarray
        float16, named as in `regions.network.RegionNetwork`.
    classes : int
        Number of classes C.
    device : {"cpu", "cuda"}
    trunk_alone : bool
        `weights` may lack those above inception 4e.
    precision : {"float32", "float16"}

    Raises
    ------
    ModelError
        If the weights do not fit the network.

    Examples
    --------
    >>> from inception_rcnn.backbone.weights.model_file import read_model
    >>> from inception_rcnn.backbone.weights.published import find_model
    >>> network = torch_network(read_model(find_model("voc")).weights, 20, "cpu")
    >>> network.trunk(torch.zeros(1, 3, 96, 160)).shape
    torch.Size([1, 832, 6, 10])
    """
    network = RegionNetwork(classes, **network_parts(weights))
    tensors = {name: torch.from_numpy(weight.astype(np.float32)) for name, weight in weights.items()}
    try:
        missing, unexpected = network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ModelError(f"the model's weights do not fit the network: {str(error).splitlines()[0]}") from error
    missing = [name for name in missing if in_trunk(name) or not trunk_alone]
    if unexpected or missing:
        raise ModelError(f"the model's weights do not fit the network: {[*unexpected, *missing][0]}")
    return network.eval().to(torch.device(device), getattr(torch, precision)).to(memory_format=torch.channels_last)


def torch_trunk(
    weights: Mapping[str, NDArray[np.float16]], placement: Placement
) -> Callable[[NDArray[np.uint8]], TrunkMaps]:
    """Load a trunk as a function: resized picture (H, W, 3) uint8 RGB -> features on the device."""
    network = torch_network(weights, 1, placement.device, trunk_alone=True, precision=placement.precision)
    like = next(network.parameters())

    def forward(picture: NDArray[np.uint8]) -> TrunkMaps:
        with torch.inference_mode(), full_precision(placement.threads):
            array = _normalise(_upload(picture, like.device))[None]
            return network.trunk_maps(array.to(like.dtype).contiguous(memory_format=torch.channels_last))

    return forward


def _upload(picture: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Send a picture to the device; copied first where torch refuses it (negative strides) or warns (read-only)."""
    return torch.from_numpy(np.require(picture, requirements=["C", "W"])).to(device)


def _normalise(picture: Tensor) -> Tensor:
    """Convert a picture (H, W, 3) uint8 RGB to the network's input: (3, H, W) float32 BGR minus the mean."""
    return (picture.flip(2) - torch.from_numpy(MEAN_BGR).to(picture.device)).permute(2, 0, 1)


def warp_regions(picture: Tensor, boxes: Tensor) -> Tensor:
    """Warp regions of a picture on its device, all at once; `preprocessing.crop_regions` is the same on a CPU.

    Parameters
    ----------
    picture : Tensor, shape (H, W, 3), uint8
        RGB.
    boxes : Tensor, shape (N, 4), float32
        x1 y1 x2 y2 in pixels of `picture`, on the same device.

    Returns
    -------
    Tensor, shape (N, 3, 224, 224), float32
        BGR, 0..255, minus the mean; outside the picture 0, which is the mean colour.

    Examples
    --------
    >>> warp_regions(torch.zeros(80, 60, 3, dtype=torch.uint8), torch.tensor([[0.0, 0.0, 30.0, 40.0]])).shape
    torch.Size([1, 3, 224, 224])
    """
    height, width, _ = picture.shape
    # Offsets of the crop's pixels from its middle, as shares of the region's side.
    offsets = (torch.arange(CROP_SIDE, device=boxes.device) + 0.5 - CROP_SIDE / 2) * (CONTEXT / CROP_SIDE)
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    positions = centres[:, None] + sides[:, None] * offsets[:, None]
    # For grid_sample the edges of the picture are at -1 and 1.
    across, down = positions[:, :, 0] * (2 / width) - 1, positions[:, :, 1] * (2 / height) - 1
    size = len(boxes), CROP_SIDE, CROP_SIDE
    grid = torch.stack([across[:, None, :].expand(size), down[:, :, None].expand(size)], dim=3)
    # OpenCV, which crops on a CPU, gives whole grey levels.
    return F.grid_sample(_normalise(picture).expand(len(boxes), -1, -1, -1), grid, align_corners=False).round_()


class Batches:
    """Runs a function on any number of rows, in batches. Only one thread may use it at a time.

    Parameters
    ----------
    compute : callable
        Tensor, shape (B, ...) -> tensors of B rows, each computed from the same row of the input.
    size : int
        Most rows of a batch. It is halved, and stays so, when the device's memory does not hold a batch.
    record : bool
        Record a CUDA graph for each size of batch, and replay it. Sizes are powers of two, and smaller batches are
        filled up. If recording fails, there is a warning, and batches run unrecorded.

    Examples
    --------
    >>> batches = Batches(lambda rows: (rows + 1, rows.sum(1)), 2)
    >>> [part.shape for part in batches(5, lambda start, stop: torch.zeros(stop - start, 3))]
    [torch.Size([5, 3]), torch.Size([5])]
    """

    def __init__(self, compute: Callable[[Tensor], tuple[Tensor, ...]], size: int, *, record: bool = False) -> None:
        self.compute, self.size, self.record = compute, size, record
        self._recorded: dict[int, tuple[Tensor, tuple[Tensor, ...], torch.cuda.CUDAGraph]] = {}

    def __call__(self, number: int, make: Callable[[int, int], Tensor]) -> tuple[Tensor, ...]:
        """Run on `number` rows, at least one. ``make(start, stop)`` makes the rows of a batch just before it runs."""
        parts: list[tuple[Tensor, ...]] = []
        start = 0
        while start < number:
            stop = min(start + self.size, number)
            try:
                parts.append(self._run(make(start, stop)))
                start = stop
                continue
            except torch.cuda.OutOfMemoryError:
                if self._padded(stop - start) == 1:
                    raise
            # Outside the except clause: there, the error would still hold the tensors that did not fit.
            self._recorded.clear()
            with contextlib.suppress(RuntimeError):  # After a recording that failed torch may refuse.
                torch.cuda.empty_cache()
            self.size = (self._padded(stop - start) + 1) // 2
        return tuple(torch.cat(outputs) for outputs in zip(*parts, strict=True))

    def _padded(self, rows: int) -> int:
        return min(self.size, max(MIN_RECORDED, 2 ** (rows - 1).bit_length())) if self.record else rows

    def _run(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Run on the rows of one batch, at most `size`."""
        size = self._padded(len(rows))
        if self.record and size not in self._recorded:
            try:
                self._recorded[size] = self._capture(size, rows)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                # Where memory runs out while recording, torch raises another error, with that one as its context.
                if isinstance(error.__context__, torch.cuda.OutOfMemoryError):
                    raise error.__context__ from None
                _log.warning("batches run unrecorded, and slower: %s", str(error).splitlines()[0])
                self.record = False
                self._recorded.clear()
        if not self.record:
            return self.compute(rows)
        static, outputs, graph = self._recorded[size]
        static[: len(rows)].copy_(rows)
        graph.replay()
        # Copied, because the next replay overwrites them.
        return tuple(output[: len(rows)].clone() for output in outputs)

    def _capture(self, size: int, rows: Tensor) -> tuple[Tensor, tuple[Tensor, ...], torch.cuda.CUDAGraph]:
        static = torch.zeros((size, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
        static = static.contiguous(memory_format=torch.channels_last)
        graph, side = torch.cuda.CUDAGraph(), _side_stream()
        # All graphs share memory: only one runs at a time, and its outputs are copied.
        pool = next((other.pool() for _, _, other in self._recorded.values()), None)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            # In their first passes libraries choose kernels and allocate memory, which must not be recorded.
            for _ in range(3):
                self.compute(static)
            # "thread_local": other threads may allocate memory meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                outputs = self.compute(static)
        torch.cuda.current_stream().wait_stream(side)
        return static, outputs, graph


class TorchRegions:
    """A model's layers above the trunk, and its crops, in torch; see `scorer.RegionEngine`.

    Parameters
    ----------
    model : RegionModel
    placement : Placement

    Raises
    ------
    ModelError
        If the weights do not fit the network.
    """

    def __init__(self, model: RegionModel, placement: Placement) -> None:
        device, self.threads = placement.device, placement.threads
        self.network = network = torch_network(model.weights, len(model.classes), device, precision=placement.precision)
        self.like = next(network.parameters())

        def score(rows: Tensor) -> tuple[Tensor, ...]:
            return tuple(output.float() for output in network.score_regions(rows).present)

        def score_crops(rows: Tensor) -> tuple[Tensor, ...]:
            return tuple(output.float() for output in network.score_crops(network.trunk(rows)).present)

        record = device == "cuda"
        self._first_pass = Batches(lambda rows: (network.read_first_pass(rows).float(),), REGIONS[device])
        self._regions = Batches(score, REGIONS[device], record=record)
        self._crops = Batches(score_crops, CROPS[device], record=record)

    def first_pass_logits(self, maps: Tensor, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `scorer.RegionEngine`."""
        with torch.inference_mode(), full_precision(self.threads):
            parts, sent = self.network.first_pass(maps), self._send(boxes)
            (logits,) = self._first_pass(len(boxes), lambda start, stop: roi_align(parts, sent[start:stop]))
            return logits.cpu().numpy()

    def score_regions(self, features: TrunkFeatures, boxes: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """See `scorer.RegionEngine`."""
        with torch.inference_mode(), full_precision(self.threads):
            read, sent = self.network.reader(TrunkMaps(features.maps, features.fine)), self._send(boxes)
            outputs = self._regions(len(boxes), lambda start, stop: read(sent[start:stop]))
            return tuple(output.cpu().numpy() for output in outputs)

    def score_crops(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """See `scorer.RegionEngine`."""
        with torch.inference_mode(), full_precision(self.threads):
            picture, sent = _upload(image, self.like.device), self._send(boxes)
            outputs = self._crops(len(boxes), lambda start, stop: self._warp(picture, sent[start:stop]))
            return tuple(output.cpu().numpy() for output in outputs)

    def _warp(self, picture: Tensor, boxes: Tensor) -> Tensor:
        return warp_regions(picture, boxes).to(self.like.dtype).contiguous(memory_format=torch.channels_last)

    def _send(self, boxes: NDArray[np.float32]) -> Tensor:
        # float32 also on a GPU: above 1024, float16 has whole numbers only.
        return torch.from_numpy(boxes).to(self.like.device)
