"""Where a picture lies: in a file, at a URL, or in a container. What differs between these is here."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeAlias

from ..errors import ImageError, UserError
from ..system.remote import is_url, read_url, stamp_url
from .containers import Member

Source: TypeAlias = Path | str | Member
"""A local path, a URL, or a picture in a Parquet or tar file. All can be pickled; `str` shows them to the user."""


def is_local(source: Source) -> bool:
    """Whether a picture is a file of its own on this machine.

    Examples
    --------
    >>> is_local("photos/a.jpg"), is_local("s3://bucket/a.jpg")
    (True, False)
    """
    return not isinstance(source, Member) and not is_url(source)


def absolute_name(source: Source) -> str:
    """Return what tells a picture from all others, wherever the program runs.

    Examples
    --------
    >>> absolute_name("/photos/../a.jpg"), absolute_name("s3://bucket/a.jpg")
    ('/a.jpg', 's3://bucket/a.jpg')
    """
    if isinstance(source, Member):
        return str(source if is_url(source.container) else replace(source, container=os.path.abspath(source.container)))
    # Not Path.absolute(), which keeps "..": a name must not lead out of the folder that it is put into.
    return str(source) if is_url(source) else os.path.abspath(source)


def stamp(source: Source) -> list[int]:
    """Size (bytes) and time of change (ns) of a file, by which a changed picture is recognised; empty if it is gone.

    Of a URL, size and a hash of its version; of a picture in a container, the container's with the position.
    """
    if isinstance(source, Member):
        return list(source.stamp)
    try:
        if is_url(source):
            return stamp_url(str(source))
        status = os.stat(source)
    except (OSError, UserError, ValueError):
        return []
    return [status.st_size, status.st_mtime_ns]


def is_gone(source: Source) -> bool:
    """Whether a file of this machine, or the one that holds a picture, is not there."""
    if isinstance(source, Member):
        return source.data is None and not is_url(source.container) and not os.path.exists(source.container)
    return is_local(source) and not os.path.exists(source)


@contextmanager
def open_source(source: Source, max_bytes: int) -> Iterator[tuple[list[int], BinaryIO]]:
    """Yield a picture's stamp and its file, open to read; one that is not local is in memory, if it is not too large.

    Raises
    ------
    ImageError
        If it cannot be read, also in the ``with`` block.
    """
    try:
        # Stamped before it is read: a picture that is replaced meanwhile must not count as the one that was read.
        if isinstance(source, Member):
            yield stamp(source), io.BytesIO(source.read(max_bytes))
        elif is_url(source):
            known, data = read_url(str(source), max_bytes)
            yield known, io.BytesIO(data)
        else:
            path = Path(source)
            if not path.is_file():
                raise ImageError(f"{path}: {_why_no_file(path)}")
            known = stamp(path)
            with open(path, "rb") as file:
                yield known, file
    except OSError as error:
        advice = "check its name and permissions"
        if error.errno == errno.EFBIG:
            advice = "make it smaller or raise the limit (--max-pixels)"
        elif error.errno == errno.EAGAIN and isinstance(source, Member):
            raise ImageError(f"{source}: {error.strerror}") from error
        elif isinstance(error, FileNotFoundError) and not is_local(source):
            raise ImageError(f"{source}: does not exist; check the name") from error
        raise ImageError(f"{source}: cannot be read ({error.strerror}); {advice}") from error


def _why_no_file(path: Path) -> str:
    """Say why a path is no picture. `find_images` lists the folders that it could not search."""
    if not path.is_dir():
        exists = path.exists()
        return "is not a regular file; copy the picture to a file" if exists else "does not exist; check the name"
    try:
        os.scandir(path).close()
    except OSError as error:
        return f"the folder cannot be searched ({error.strerror}); check its permissions"
    return "is a folder, not a picture; name a file in it"
