"""The training loop."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...data.errors import CheckpointError
from .process_group import ProcessGroup

# What an interruption may cost.
SAVE_SECONDS = 60.0


def cut_steps(orders: Sequence[NDArray[np.intp]], shown: int, batch: int) -> tuple[list[NDArray[np.intp]], set[int]]:
    """Cut the orders of epochs, the first `shown` pictures of them all, into steps; also after which an epoch ends."""
    whole = np.concatenate(orders)[:shown]
    steps = [whole[start : start + batch] for start in range(0, len(whole) - batch + 1, batch)]
    return steps, {int(end) // batch for end in np.cumsum([len(order) for order in orders])} | {len(steps)}


def add_up(group: ProcessGroup, gradients: Sequence[Tensor], notes: Sequence[float]) -> list[float]:
    """Sum gradients over all processes, in place, and with them the notes that all must agree on."""
    together = torch.tensor(notes, dtype=torch.float64).to(group.device)
    group.all_reduce([*gradients, together])
    return together.tolist()


def take_step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor], rate: float
) -> None:
    """Clip gradients and step; a group of parameters with a ``factor`` learns at that times the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(parameters, 10.0)
    optimizer.step()


def enough_steps(steps: Sequence[object], pictures: int, batch: int) -> None:
    """Refuse a training that would do nothing.

    Raises
    ------
    CheckpointError
        If there is not one step.
    """
    if not steps:
        raise CheckpointError(
            f"{pictures} pictures give no step of {batch}; give more pictures or epochs, or less --batch"
        )


def learning_rate_at(step: int, steps: int, peak: float, warm_up: int = 200, schedule: str = "cosine") -> float:
    """Linear warm-up, then a half cosine down to 1 % of the peak, or a tenth of it for the last quarter ("step").

    Examples
    --------
    >>> [learning_rate_at(step, 1000, 1.0, schedule="step") for step in (99, 200, 749, 750)]
    [0.5, 1.0, 1.0, 0.1]
    """
    if step < warm_up:
        return peak * (step + 1) / warm_up
    if schedule == "step":
        return peak if step < 0.75 * steps else peak / 10
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))))


def open_log(path: Path) -> Callable[[dict[str, float]], None]:
    """Make a `report` that writes JSON lines, and TensorBoard's curves beside them if ``tensorboard`` is installed.

    Parameters
    ----------
    path : Path
        The file of JSON lines, which is appended to. The curves go to the folder of the same name without suffix.

    Returns
    -------
    callable
        Row -> None.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     open_log(Path(folder) / "run.jsonl")({"step": 1, "location": 0.5})
    ...     print((Path(folder) / "run.jsonl").read_text(), end="")
    {"step": 1, "location": 0.5}
    """
    try:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(path.with_suffix("")))
    except ImportError:
        writer = None

    def report(row: dict[str, float]) -> None:
        with path.open("a") as log:
            log.write(json.dumps(row) + "\n")
        if writer is not None:
            for name, value in row.items():
                if name != "step":
                    writer.add_scalar(name, value, int(row["step"]))
            writer.flush()

    return report


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


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Run with `number` threads inside an operation."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def to_device(array: NDArray[np.float32], device: str) -> Tensor:
    """Bring prepared pictures (N, 3, H, W) to where a network is, in channels-last memory."""
    return torch.from_numpy(array).to(device).contiguous(memory_format=torch.channels_last)
