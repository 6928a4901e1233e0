"""Pictures that a run could not process: their lines in the errors file, and which of them are worth another try."""

import errno
from pathlib import Path
from socket import gethostname
from typing import NamedTuple

from ...data import ImageError
from ...data.errors import UserError
from ...data.images.sources import Source, is_gone

# A disk that is full or that we may not write to will not take the next picture either: the run ends.
FULL_OR_FORBIDDEN = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


class Failure(NamedTuple):
    """A picture without a result: its line of the errors file (file, kind, message), and `is_retryable`."""

    line: dict[str, str]
    retryable: bool


def is_retryable(path: Source, error: Exception) -> bool:
    """Whether a picture that failed may succeed when the same command is repeated.

    Parameters
    ----------
    path : Path, str or Member
        The picture.
    error : Exception
        What its processing raised.

    Returns
    -------
    bool
        False if the content is at fault, which is what a `UserError` says. True if the file is gone, or if the system
        could not read it (permissions, input and output, a network; not a name that is too long, nor a file that is
        too large) or had too little memory. True for everything unexpected as well: a lost GPU, a process that was
        killed, a bug that the next version may not have.

    Examples
    --------
    >>> is_retryable(Path("absent.jpg"), ImageError("absent.jpg: does not exist"))
    True
    >>> is_retryable(Path(__file__), ImageError("failures.py: is not a picture"))
    False
    """
    cause = error.__cause__
    # Pillow raises an OSError for bad content too. It has no error number.
    number = cause.errno if isinstance(cause, OSError) else None
    if number in (errno.ENAMETOOLONG, errno.EFBIG):
        return False
    system = isinstance(cause, MemoryError) or number is not None
    return system or not isinstance(error, UserError) or is_gone(path)


def failure(path: Source, error: Exception) -> Failure:
    """Describe why a picture has no result.

    Examples
    --------
    >>> failure(Path("a.jpg"), RuntimeError("device lost"))
    Failure(line={'file': 'a.jpg', 'kind': 'RuntimeError', 'message': 'a.jpg: device lost'}, retryable=True)
    """
    # An ImageError names its file already.
    message = str(error) if isinstance(error, ImageError) else f"{path}: {error or type(error).__name__}"
    return Failure({"file": str(path), "kind": type(error).__name__, "message": message}, is_retryable(path, error))


def name_machine(failed: Failure, path: Source) -> Failure:
    """Add to the message about a file that is missing on which machine it is, since it may be there on others.

    Examples
    --------
    >>> path = Path("a.jpg")
    >>> name_machine(failure(path, OSError("gone")), path).line["message"].startswith("a.jpg: gone; on machine ")
    True
    """
    if not is_gone(path):
        return failed
    return failed._replace(line=failed.line | {"message": f"{failed.line['message']}; on machine {gethostname()}"})


def as_resumable(error: OSError, path: Path) -> OSError:
    """Copy of an error of writing that names the file and says that the run can go on."""
    return OSError(error.errno, f"{error.strerror}; the same command goes on from there", str(path))
