"""Device, engine, precision and threads of a network: chosen here once, and passed on as a `Placement`."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from ...data.arguments import check_number
from ...data.errors import DeviceError, MissingPackageError, needs_packages

DEVICES = ("auto", "cpu", "cuda")
ENGINES = ("onnxruntime", "torch")
# The numbers that the engine computes with. Files always hold the weights in float16.
PRECISIONS = ("float32", "float16", "int8")
ONNX_ON_GPU = "engine onnxruntime is for a CPU; leave the engine out, or use --device cpu"


@dataclass(frozen=True)
class Placement:
    """Device, engine, precision and threads of a network; see `choose_placement`.

    Parameters
    ----------
    device : {"cpu", "cuda"}
    engine : {"onnxruntime", "torch"}
        ONNX Runtime is for a CPU only.
    precision : {"float32", "float16", "int8"}
        int8 is for ONNX Runtime only, float16 for torch only.
    threads : int, optional
        Threads of the CPU. Default: all cores that this process may use.

    Raises
    ------
    DeviceError
        If a value is unknown, or the values do not fit together.
    SettingError
        If `threads` is out of range.

    Examples
    --------
    >>> Placement(threads=1)
    Placement(device='cpu', engine='onnxruntime', precision='float32', threads=1)
    """

    device: str = "cpu"
    engine: str = "onnxruntime"
    precision: str = "float32"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, choices in (("device", DEVICES[1:]), ("engine", ENGINES), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise DeviceError(f"{name} {getattr(self, name)!r} is unknown; use {', '.join(choices)}")
        if self.engine == "onnxruntime" and self.device == "cuda":
            raise DeviceError(ONNX_ON_GPU)
        if self.precision == "int8" and self.engine != "onnxruntime":
            raise DeviceError("precision int8 is for a CPU and ONNX Runtime; leave it out, or use --device cpu")
        if self.precision == "float16" and self.engine != "torch":
            raise DeviceError("precision float16 is for a GPU; leave it out")
        vars(self).update(threads=check_number("threads", self.threads, 1, whole=True, optional=True))

    @property
    def of_trunk(self) -> Placement:
        """Placement of the trunk: float32 instead of int8, so that models of any precision share a trunk."""
        return replace(self, precision="float32") if self.precision == "int8" else self


def choose_placement(
    device: str = "auto", *, threads: int | None = None, engine: str | None = None, precision: str | None = None
) -> Placement:
    """Choose the placement of a network from what is given, and defaults for the rest.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        See `choose_device`.
    threads : int, optional
        Threads of the CPU. Default: all cores that this process may use.
    engine : {"onnxruntime", "torch"}, optional
        Default ONNX Runtime on a CPU, torch on a GPU.
    precision : {"float32", "float16", "int8"}, optional
        Default float16 on a GPU, float32 on a CPU.

    Raises
    ------
    DeviceError
        If the device is not there, or the values do not fit together.
    SettingError
        If `threads` is out of range.

    Examples
    --------
    >>> choose_placement("cpu", precision="int8").engine
    'onnxruntime'
    """
    if (device, engine) == ("cuda", "onnxruntime"):
        raise DeviceError(ONNX_ON_GPU)
    device = choose_device("cpu" if (device, engine) == ("auto", "onnxruntime") else device)
    if engine is None:
        engine = "onnxruntime" if device == "cpu" else "torch"
    if precision is None:
        precision = "float16" if device == "cuda" else "float32"
    return Placement(device, engine, precision, threads)


def choose_device(device: str = "auto") -> str:
    """Choose the device of a network, and check that it is there.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        "auto" is the GPU if torch is installed and finds one, else the CPU. torch is not imported where no driver of a
        GPU is loaded.

    Returns
    -------
    str
        "cpu" or "cuda".

    Raises
    ------
    DeviceError
        If "cuda" is asked for and is not there, or the name is unknown.

    Examples
    --------
    >>> choose_device("cpu")
    'cpu'
    """
    if device not in DEVICES:
        raise DeviceError(f"device {device!r} is unknown; use {', '.join(DEVICES)}")
    if device == "cpu" or (device == "auto" and not has_gpu_driver()):
        return "cpu"
    try:
        with needs_packages("a GPU", "train"):
            import torch

        if torch.cuda.is_available():
            return "cuda"
        missing = "torch finds no GPU; check the driver"
    except MissingPackageError as error:
        missing = str(error)
    if device == "cuda":
        raise DeviceError(f"device cuda is not available: {missing}, or use --device cpu")
    return "cpu"


def has_gpu_driver() -> bool:
    """Tell whether a driver of NVIDIA's or AMD's GPUs may be loaded, in a millisecond and without importing torch.

    Examples
    --------
    >>> has_gpu_driver() in (True, False)
    True
    """
    # Where torch is imported already, it costs nothing to ask it. /dev/kfd is the device of AMD's driver.
    if "torch" in sys.modules or Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
