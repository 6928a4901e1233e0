"""The state of a training on the disk, and what it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ...backbone.weights.model_file import hash_weights
from ...data import Picture, atomic_write
from ...data.errors import CheckpointError
from .process_group import ProcessGroup


def save_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, step: int, settings: Mapping[str, object]
) -> None:
    """Write what `load_checkpoint` goes on from: weights, the optimizer's state, the steps done."""
    tensors = {f"network.{name}": value.contiguous() for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"optimizer.{key}.{name}"] = value.contiguous()
    metadata = {"step": str(step), "settings": json.dumps(settings, sort_keys=True)}
    atomic_write(path, save(tensors, metadata=metadata))


def load_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, settings: Mapping[str, object]
) -> int:
    """Go on from a checkpoint.

    Returns
    -------
    int
        Steps done.

    Raises
    ------
    CheckpointError
        If it was made with other settings, or is none.
    """
    advice = "train with those, or remove it"
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            made = json.loads(metadata["settings"])
            different = [name for name in {**made, **settings} if made.get(name) != settings.get(name)]
            if different:
                told = ", ".join(f"{name} {made.get(name)!r} and not {settings.get(name)!r}" for name in different)
                raise CheckpointError(f"{path}: was made with other settings ({told}); {advice}")
            names = list(file.keys())
            network.load_state_dict({name[8:]: file.get_tensor(name) for name in names if name.startswith("network.")})
            for name, parameter in network.named_parameters():
                for tensor in names:
                    if tensor.startswith("optimizer.") and tensor.split(".", 2)[2] == name:
                        key, value = tensor.split(".", 2)[1], file.get_tensor(tensor)
                        # The count of steps stays on the CPU wherever the parameter is.
                        optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
            return int(metadata["step"])
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path}: is no checkpoint of such a training, or damaged ({reason}); remove it"
        ) from None


def begin_at(
    checkpoint: Path | None,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, object],
    group: ProcessGroup,
    *,
    resume: bool,
) -> int:
    """Go on from a checkpoint, if asked for and there is one: how many steps are done, the same in all processes.

    Raises
    ------
    CheckpointError
        See `load_checkpoint`; also if the processes do not agree.
    """
    start = 0
    if resume and checkpoint is not None and checkpoint.exists():
        start = load_checkpoint(checkpoint, network, optimizer, settings)
    if not group.agree((start, settings)):
        raise CheckpointError(
            f"{checkpoint}: not all processes have the same checkpoint and settings; give them a folder that all share"
        )
    return start


def fingerprint(pictures: Sequence[Picture]) -> str:
    """Short hash of the pictures' names, order and labels."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(
            f"{picture.image_id} {picture.width} {picture.height} {picture.labelled} {picture.exhaustive}\n".encode()
        )
        for array in (picture.boxes, picture.labels, picture.difficult, picture.crowd):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def weights_hash(network: nn.Module) -> str:
    """Short hash of a network's weights, of what a training starts from."""
    return hash_weights({name: value.detach().cpu().numpy() for name, value in network.named_parameters()})[:16]
