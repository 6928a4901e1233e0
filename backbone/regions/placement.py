"""Device, engine, precision and threads of a network: chosen here once, and passed on as a `Placement`."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ...data.arguments import check_choice, check_number
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
            check_choice(name, getattr(self, name), choices, DeviceError)
        if self.engine == "onnxruntime" and self.device == "cuda":
            raise DeviceError(ONNX_ON_GPU)
        if self.precision == "int8" and self.engine != "onnxruntime":
            raise DeviceError("precision int8 is for a CPU and ONNX Runtime; leave it out, or use --device cpu")
        if self.precision == "float16" and self.engine != "torch":
            raise DeviceError("precision float16 is for a GPU; leave it out")
        vars(self).update(threads=check_number("threads", self.threads, 1, whole=True, optional=True))

    def can_read(self, trunk: Placement) -> bool:
        """Tell whether layers placed here can use the features of a trunk: those in 8 bits are float32 too.

        Examples
        --------
        >>> Placement(precision="int8").can_read(Placement()), Placement(threads=1).can_read(Placement(threads=2))
        (True, False)
        """
        return self.in_full_precision == trunk.in_full_precision

    @property
    def in_full_precision(self) -> Placement:
        """The same with float32 instead of int8, for models that have no graphs in 8 bits."""
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


@cache
def has_dot_products() -> bool:
    """Tell whether the CPU multiplies and adds 8-bit numbers in one instruction, from what Linux says of it.

    On x86 that is VNNI, on ARM the dot product of version 8.2. Without them, 8 bits are hardly faster than float32, and
    on x86 sums can overflow. Elsewhere than on Linux the answer is False.

    Examples
    --------
    >>> has_dot_products() in (True, False)
    True
    """
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    features = {
        word for line in text.splitlines() if line.lower().startswith(("flags", "features")) for word in line.split()
    }
    return not features.isdisjoint(("avx512_vnni", "avx_vnni", "asimddp"))


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
    check_choice("device", device, DEVICES, DeviceError)
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
