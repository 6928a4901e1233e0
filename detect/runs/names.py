"""What runs over many files have in common: how files are named, recognised and reported."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ...data import ImageError

# A disk that is full or not ours to write to will not take the next picture either.
FULL_OR_FORBIDDEN = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


def relative_names(paths: Sequence[Path]) -> list[str]:
    """Name files by their paths below the folder that holds them all.

    Parameters
    ----------
    paths : sequence of Path
        Distinct files.

    Returns
    -------
    list of str
        Distinct, with forward slashes.

    Examples
    --------
    >>> relative_names([Path("a/b/1.jpg"), Path("a/2.jpg")])
    ['b/1.jpg', '2.jpg']
    """
    if not paths:
        return []
    # Not Path.absolute(), which keeps "..": a name must not lead out of the folder that it is put into.
    absolute = [os.path.abspath(path) for path in paths]
    common = os.path.commonpath([os.path.dirname(path) for path in absolute])
    start = len(os.path.join(common, ""))
    return [path[start:].replace(os.sep, "/") for path in absolute]


def stamp(path: Path) -> list[int]:
    """Size and time of change: a picture that was replaced is not the one in the journal."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def error_line(path: Path, error: Exception) -> dict[str, str]:
    """One line of ``errors.jsonl``: which file, what kind of error, what is wrong."""
    message = str(error) if isinstance(error, ImageError) else f"{path}: {error or type(error).__name__}"
    return {"file": str(path), "kind": type(error).__name__, "message": message}


def package_version() -> str:
    """Version of the package, "not installed" when it runs from the source folder."""
    try:
        return version("inception-rcnn")
    except PackageNotFoundError:
        return "not installed"
