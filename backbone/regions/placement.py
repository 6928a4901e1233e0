"""Where a network runs and in what it computes."""

from __future__ import annotations

from ...data.errors import DeviceError

# Of the engine's arithmetic; the weights are float16 in all of them.
PRECISIONS = ("float32", "float16", "int8")


def choose_device(device: str = "auto") -> str:
    """Decide where to run.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        "auto" takes the GPU if torch is installed and sees one.

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
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"device {device!r} is unknown; use auto, cpu or cuda")
    if device == "cpu":
        return "cpu"
    try:
        import torch

        if torch.cuda.is_available():
            return "cuda"
        missing = "torch sees no GPU; check the driver"
    except ImportError:
        missing = "torch is not installed; in a clone of the project: pip install '.[train]'"
    if device == "cuda":
        raise DeviceError(f"device cuda is not available: {missing}, or use --device cpu")
    return "cpu"


def choose_precision(precision: str | None, device: str, engine: str) -> str:
    """Decide in what to compute.

    Parameters
    ----------
    precision : {"float32", "float16", "int8"}, optional
        Default half precision on a GPU, float32 on a CPU.
    device : {"cpu", "cuda"}
    engine : {"onnxruntime", "torch"}

    Returns
    -------
    str

    Raises
    ------
    DeviceError
        If the engine does not do that on the device.

    Examples
    --------
    >>> choose_precision(None, "cpu", "onnxruntime")
    'float32'
    """
    if precision not in (None, *PRECISIONS):
        raise DeviceError(f"precision {precision!r} is unknown; use {', '.join(PRECISIONS)}")
    if precision == "int8" and engine != "onnxruntime":
        raise DeviceError("precision int8 is for a CPU and ONNX Runtime; leave it out, or use --device cpu")
    if precision == "float16" and engine != "torch":
        raise DeviceError("precision float16 is for a GPU; leave it out")
    return precision or ("float16" if device == "cuda" else "float32")
