"""The log of a training: JSON lines, and curves for TensorBoard."""

import json
from collections.abc import Callable
from pathlib import Path


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
