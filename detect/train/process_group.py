"""Processes that train one network together, as torchrun starts them, on the GPUs of one machine or more.

Each process has the whole network and takes a share of each batch. Gradients are summed over all of them, so that all
take the same step.
"""

import atexit
import os
from collections.abc import Sequence
from datetime import timedelta
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor, distributed

from ...backbone.regions.placement import choose_device
from ...data.errors import DeviceError


class ProcessGroup(NamedTuple):
    """Place of this process among those that train together.

    Attributes
    ----------
    rank, world : int
        Number of this process, from 0, and number of all.
    device : str
        Its torch device.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over all processes."""
        if self.world > 1:
            # One message for each type instead of one for each tensor.
            for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
                own = [tensor for tensor in tensors if tensor.dtype == dtype]
                flat = torch.cat([tensor.flatten() for tensor in own])
                distributed.all_reduce(flat)
                for tensor, part in zip(own, flat.split([tensor.numel() for tensor in own]), strict=True):
                    tensor.copy_(part.view_as(tensor))

    def agree(self, value: object) -> bool:
        """Whether a value is the same in all processes."""
        if self.world == 1:
            return True
        values: list[object] = [None] * self.world
        distributed.all_gather_object(values, value)
        return all(one == value for one in values)


SINGLE_PROCESS = ProcessGroup()


def join_process_group(device: str = "auto") -> ProcessGroup:
    """Join the processes that torchrun started, if it did.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        On "cuda" every process of a machine takes the GPU of its number there.

    Returns
    -------
    ProcessGroup

    Raises
    ------
    DeviceError
        See `inception_rcnn.backbone.regions.placement.choose_device`; also if there are fewer GPUs than processes, or
        some of torchrun's variables are not set.

    Examples
    --------
    >>> join_process_group("cpu")
    ProcessGroup(rank=0, world=1, device='cpu')
    """
    kind = choose_device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not {"RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        raise DeviceError(f"WORLD_SIZE is {world}, but torchrun's other variables are not set; start it with torchrun")
    if kind == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise DeviceError(
                f"there is no GPU {local} here; give torchrun --nproc-per-node {torch.cuda.device_count()}"
            )
        kind = f"cuda:{local}"
        torch.cuda.set_device(kind)
    if world == 1:
        return ProcessGroup(device=kind)
    if not distributed.is_initialized():
        # Imported before there is a group: its functions would keep it as a default argument, with its threads, and a
        # thread that frees a message while Python ends aborts the process.
        import_module("torch.distributed.nn")
        # The other processes wait while the first measures recall or mAP.
        distributed.init_process_group("gloo" if kind == "cpu" else "nccl", timeout=timedelta(hours=2))
        # Ends the group's threads, however the process ends.
        atexit.register(distributed.destroy_process_group)
    return ProcessGroup(distributed.get_rank(), world, kind)
