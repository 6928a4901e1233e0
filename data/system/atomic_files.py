"""Files that are written completely or not at all, and by one process; the folder for downloads and compiled code."""

import fcntl
import hashlib
import os
import secrets
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import platformdirs

from ..errors import DataWarning, OutputError


def cache_folder() -> Path:
    """Folder for downloads and compiled code: ``$INCEPTION_RCNN_CACHE``, or the system's cache folder for this package.

    Raises
    ------
    OSError
        If the user has no home folder and the variable is not set.

    Examples
    --------
    >>> cache_folder().name
    'inception-rcnn'
    """
    try:
        folder = os.environ.get("INCEPTION_RCNN_CACHE") or platformdirs.user_cache_dir("inception-rcnn")
        return Path(folder).expanduser().absolute()
    except RuntimeError as error:
        raise OSError("this user has no home folder for a cache: set INCEPTION_RCNN_CACHE to a folder") from error


def atomic_write(path: str | Path, data: bytes | str | Iterable[bytes]) -> None:
    """Write a file under a temporary name in the same folder, flush it to the disk, then rename it.

    A reader finds the old file or the new one, whole, also after a crash or a power failure. If writing
    fails, the old file stays and the temporary one is removed.

    Parameters
    ----------
    path : str or Path
        The file to write; its folder must exist.
    data : bytes, str or iterable of bytes
        The content. Text is encoded as UTF-8. An iterable is written piece by piece, so that the document is never
        in memory as a whole.

    Raises
    ------
    OSError
        If the file cannot be written (no such folder, no permission, disk full); its text names `path`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     atomic_write(f"{folder}/a.txt", "hello")
    ...     print(open(f"{folder}/a.txt").read(), os.listdir(folder))
    hello ['a.txt']
    """
    if isinstance(data, str):
        data = data.encode()
    with atomic_file(path) as file:
        file.writelines((data,) if isinstance(data, bytes) else data)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file to write as `atomic_write` does, for libraries that write into an open file.

    The file gets its name when the ``with`` block ends without an exception. Otherwise the old file stays, and the
    temporary one is removed.

    Parameters
    ----------
    path : str or Path
        The file to write; its folder must exist.

    Yields
    ------
    binary file
        Open for writing, seekable.

    Raises
    ------
    OSError
        If the file cannot be written; its text names `path`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_file(f"{folder}/a.txt") as file:
    ...         _ = file.write(b"hello")
    ...     print(open(f"{folder}/a.txt").read(), os.listdir(folder))
    hello ['a.txt']
    """
    path = Path(path)
    temporary = path.parent / f".{_hashed_name(path)}-{secrets.token_hex(8)}.tmp"
    try:
        # "x" and not tempfile, which would make a file that only its owner may read.
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        # The block may read other files; an error that names one of them is about that one.
        if error.filename is not None and str(error.filename) != str(temporary):
            raise
        # The user asked for `path` and does not know the temporary name.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Write a small file that can be made again, and the folders above it; as `atomic_write`, but not flushed.

    Only one thread may write into a folder.

    Raises
    ------
    OSError

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     replace_file(Path(folder, "labels", "a.txt"), b"hello")
    ...     os.listdir(Path(folder, "labels"))
    ['a.txt']
    """
    # One writes, so one name will do; a suffix could make the file's own name too long.
    part = path.with_name(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def remove_leftovers(path: str | Path) -> None:
    """Remove the temporary files that `atomic_file` left beside a file when its process was killed.

    Call it only when no other process can be writing that file.

    Parameters
    ----------
    path : str or Path
        The file that was to be written.

    Examples
    --------
    >>> remove_leftovers("never-written.txt")
    """
    path = Path(path)
    for temporary in path.parent.glob(f".{_hashed_name(path)}-*.tmp"):
        temporary.unlink(missing_ok=True)


def open_locked(path: Path) -> BinaryIO:
    """Open a file to read and append, and lock it until it is closed, or this process ends in whatever way.

    Raises
    ------
    OutputError
        If another process, or another part of this one, has it open by this function.

    Warns
    -----
    DataWarning
        If its file system has no locks, as some of clusters have none: then the file is open without.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, open_locked(Path(folder, "journal")) as file:
    ...     file.write(b"one")
    3
    """
    while True:
        file = open(path, "a+b")  # noqa: SIM115 - closed by the caller
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise OutputError(f"{path}: another run is writing there; wait for it, or name another output") from None
        except OSError as error:
            text = f"{path}: cannot be locked ({error.strerror}); start no second run into this output meanwhile"
            warnings.warn(text, DataWarning, stacklevel=2)
            return file
        # The run that had it locked may have removed the file after it was opened here.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Be the only one to write a file, by a lock beside it, which is removed at the end of the ``with`` block.

    Raises
    ------
    OutputError
        If another process is inside such a block for this file.
    OSError
        If its folder does not exist or cannot be written; the text names `path`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with only_writer(Path(folder, "a.json")):
    ...         pass
    ...     os.listdir(folder)
    []
    """
    lock = path.parent / f".{_hashed_name(path)}.lock"
    try:
        file = open_locked(lock)
    except OutputError as error:
        raise OutputError(str(error).replace(str(lock), str(path))) from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    with file:
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # Still locked: nobody else's.


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal hash of a file, which is read a megabyte at a time.

    Examples
    --------
    >>> hash_file(Path(os.devnull))[:8]
    'e3b0c442'
    """
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _hashed_name(path: Path) -> str:
    # A name near the file system's limit has no room for a suffix.
    return hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]


def _sync_folder(folder: Path) -> None:
    """Flush the renaming to the disk, on systems where a folder can be flushed."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
