"""What a training asks of its device: precision, threads, the layout of memory."""

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# oneDNN keeps 1,024 compiled kernels, one for each size of picture and number of regions; a training has some 13,000.
# To compile them again took a third of its CPU time on an Intel Xeon with AMX. All of them take 1.5 GB of memory.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")


def bfloat16_is_faster(device: str) -> bool:
    """Whether a device multiplies bfloat16 matrices faster than float32 ones.

    GPUs from Ampere on do, and CPUs with AMX or AVX512-BF16, unless ``ONEDNN_MAX_CPU_ISA`` forbids their use.

    Examples
    --------
    >>> bfloat16_is_faster("cuda")
    True
    """
    if device != "cpu":
        return not torch.cuda.is_available() or torch.cuda.get_device_capability(device) >= (8, 0)
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if allowed.startswith(("SSE", "AVX2")) or allowed in ("AVX", "AVX512_CORE", "AVX512_CORE_VNNI"):
        return False
    # Names of torch's own, which not every version has.
    return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("amx_tile", "avx512_bf16"))


def mixed_precision(device: str) -> AbstractContextManager[object]:
    """Context in which torch multiplies in bfloat16 where that is faster.

    On a CPU weights are converted for each use. All threads share autocast's cache of converted weights, and the first
    that ends empties it: which gradients are summed in bfloat16 would depend on their speed.
    """
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=bfloat16_is_faster(device), cache_enabled=kind != "cpu")


def to_device(array: NDArray[np.float32], device: str) -> Tensor:
    """Bring prepared pictures (N, 3, H, W) to where a network is, in channels-last memory."""
    return torch.from_numpy(array).to(device).contiguous(memory_format=torch.channels_last)


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Run with `number` threads inside an operation."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def thread_pool(workers: int, threads: int = 1) -> Iterator[Executor]:
    """Yield a pool of `workers`, in which, and outside of which too, an operation has `threads` threads."""
    with (
        torch_threads(threads),
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool,
    ):
        yield pool
