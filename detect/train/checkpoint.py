"""Checkpoints: the state of a training in a file, and the settings and data that it belongs to."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ...backbone.weights.model_file import hash_weights
from ...data import atomic_write
from ...data.errors import CheckpointError


def save_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, step: int, settings: Mapping[str, object]
) -> None:
    """Write a checkpoint: weights, state of the optimizer, number of steps done, settings."""
    tensors = {f"network.{name}": value.contiguous() for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"optimizer.{key}.{name}"] = value.contiguous()
    metadata = {"step": str(step), "settings": json.dumps(settings, sort_keys=True)}
    atomic_write(path, save(tensors, metadata=metadata))


def load_checkpoint(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, object],
    defaults: Mapping[str, object],
) -> int:
    """Load a checkpoint's weights and state into a network and its optimizer.

    Parameters
    ----------
    path : Path
    network : Module
    optimizer : Optimizer
    settings : mapping of str to object
        What the checkpoint must have been made with.
    defaults : mapping of str to object
        Values of settings that a checkpoint lacks because an earlier version of this package made it.

    Returns
    -------
    int
        Steps done.

    Raises
    ------
    CheckpointError
        If it was made with other settings, or is not a checkpoint.
    """
    advice = "train with those, or remove it"
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            wanted, known = (json.loads(json.dumps(values)) for values in (settings, defaults))
            made = {name: known.get(name) for name in wanted} | json.loads(metadata["settings"])
            different = [name for name in {**made, **wanted} if made.get(name) != wanted.get(name)]
            if different:
                told = ", ".join(f"{name} {made.get(name)!r} and not {wanted.get(name)!r}" for name in different)
                raise CheckpointError(f"{path}: was made with other settings ({told}); {advice}")
            names = list(file.keys())
            network.load_state_dict({name[8:]: file.get_tensor(name) for name in names if name.startswith("network.")})
            for name, parameter in network.named_parameters():
                for tensor in names:
                    if tensor.startswith("optimizer.") and tensor.split(".", 2)[2] == name:
                        key, value = tensor.split(".", 2)[1], file.get_tensor(tensor)
                        # The optimizer keeps its count of steps on the CPU.
                        optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
            return int(metadata["step"])
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path}: is no checkpoint of such a training, or damaged ({reason}); remove it"
        ) from None


def weights_hash(network: nn.Module) -> str:
    """Hash the weights of a network that a training starts from."""
    return hash_weights({name: value.detach().cpu().numpy() for name, value in network.named_parameters()})[:16]
