"""``inception-rcnn info``: what is installed here, and what it can use."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...backbone.regions.placement import choose_placement, has_dot_products
from ...data.errors import DeviceError
from ...data.system.atomic_files import cache_folder
from ...data.system.kernels import kernel_folder
from ...data.system.processes import usable_cores
from ..runs.names import package_version
from .evaluate import JsonFile, check_outputs, write_json
from .terminal import output

# What runs networks, and what else changes results or speed.
PACKAGES = ("torch", "torchvision", "onnxruntime", "onnx", "numpy", "numba", "opencv-python-headless", "pillow", "ray")


def info(json_file: JsonFile = None) -> None:
    """Tell versions, devices, models, and what is in the cache."""
    told = collect()
    check_outputs(json_file)
    write_json(json_file, told)
    for name, value in told.items():
        lines = [f"{key} {_words(one)}" for key, one in value.items()] if isinstance(value, dict) else [_words(value)]
        for i, line in enumerate(lines or ["none"]):
            output.print(f"{'' if i else name:<10} {line}", soft_wrap=True)


def collect() -> dict[str, Any]:
    """Collect what `info` tells.

    Returns
    -------
    dict of str to str, int or dict
        ``version``, ``python``, ``system``, ``cores``, ``packages`` (versions, or what is missing), ``gpu`` (its name,
        or why none is used), ``precision`` (of `detect`'s networks here), ``models``, ``multibox`` (name -> MB) and
        ``cache`` (folders -> MB).

    Examples
    --------
    >>> collect()["models"]["voc"] > 1
    True
    """
    # Their modules need packages that an installation for evaluations has not.
    models: dict[str, float] = {}
    multiboxes: dict[str, float] = {}
    with suppress(ImportError):
        from ...backbone.weights.published import BUNDLED, bundled_models
        from ...proposals.multibox.file import MODELS, bundled_multiboxes

        models = {name: _megabytes(*BUNDLED.glob(f"{name}.*safetensors")) for name in bundled_models()}
        multiboxes = {name: _megabytes(*MODELS.glob(f"{name}.*safetensors")) for name in bundled_multiboxes()}
    gpu, precision = _gpu()
    caches = {str(folder): _megabytes(folder) for folder in _cache_folders()}
    return {
        "version": package_version(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": usable_cores(),
        "packages": {name: _version(name) for name in PACKAGES},
        "gpu": gpu,
        "precision": precision,
        "models": models,
        "multibox": multiboxes,
        "cache": caches,
    }


def _gpu() -> tuple[str, str]:
    """Say which GPU networks use, or why none; and which numbers `detect` computes with."""
    try:
        placement = choose_placement("cuda")
    except DeviceError as error:
        reason = str(error).removeprefix("device cuda is not available: ").removesuffix(", or use --device cpu")
        if _version("torch") != "not installed" and "finds no GPU" in reason:
            import torch

            if torch.version.cuda is None and torch.version.hip is None:
                reason = f"torch {torch.__version__} is a build for CPUs; install one for your GPU"
        dot = "int8: the CPU has dot products of 8 bits" if has_dot_products() else "float32"
        return f"none: {reason}", dot
    import torch

    return torch.cuda.get_device_name(), placement.precision


def _cache_folders() -> list[Path]:
    folders = []
    for find in (cache_folder, kernel_folder):
        try:
            folders.append(find())
        except OSError:  # There is no home folder; what needs it will say so.
            continue
    return folders


def _version(package: str) -> str:
    try:
        found = version(package)
    except PackageNotFoundError:
        return "not installed"
    if package == "torchvision":
        try:
            import torchvision.ops  # noqa: F401 - of another build than torch's it is there, and fails
        except (ImportError, RuntimeError) as error:
            return f"{found}, which does not fit torch ({error}); install both from one index"
    return found


def _megabytes(*paths: Path) -> float:
    """Size of files and of what is below folders, in MB; 0 if there is nothing."""
    files = [Path(root, name) for path in paths for root, _, names in os.walk(path) for name in names]
    files += [path for path in paths if path.is_file()]
    return round(sum(file.stat().st_size for file in files if file.is_file()) / 1e6, 1)


def _words(value: object) -> str:
    return f"{value} MB" if isinstance(value, float) else str(value)
