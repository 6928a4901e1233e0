"""The errors of users: one base class, and its kinds; and what users are warned of.

The text of every error is one line: which file or setting, what is wrong, what to do. The command line prints that
line and ends with status 2. What is no `UserError` and no `OSError` is a bug, and shows its traceback.

A `DataWarning` is for what does not stop the work but changes what comes out: objects left out, pictures repaired, two
files that disagree. Its text is one line of the same form; the command line prints it once.
"""

import difflib
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO


class UserError(ValueError):
    """Something that the user can put right."""


class SettingError(UserError):
    """An argument or a setting has a value that it cannot have."""


class CommandError(UserError):
    """A command cannot be carried out as given."""


class ImageError(UserError):
    """A picture cannot be found or read."""


class AnnotationError(UserError):
    """An annotation file is missing or malformed."""


class DetectionError(UserError):
    """A file of detections is missing or malformed, or detections cannot be written."""


class ProposalFileError(UserError):
    """A file of proposals cannot be read or written."""


class MatlabFileError(UserError):
    """A file of MATLAB is missing, damaged or of another version."""


class ModelError(UserError):
    """A model's name or file cannot be used, or models do not fit together."""


class DeviceError(UserError):
    """A device is not there, or cannot do what is asked of it."""


class EvaluationError(UserError):
    """Detections and annotations do not belong together."""


class OutputError(UserError):
    """An output cannot be written: it is an input too, holds files of others, or another run is writing it."""


class JournalError(UserError):
    """A run cannot go on from the journal beside its output."""


class ClusterError(UserError):
    """There is no such cluster, or its machines cannot do the work."""


class CheckpointError(UserError):
    """A training cannot begin, or cannot go on from its checkpoint."""


class MissingPackageError(ImportError, UserError):
    """A package is not installed that only some of the work needs."""


class DataWarning(UserWarning):
    """Something in the user's files is left out, repaired or contradictory; the work goes on."""


_show_warning = warnings.showwarning


def print_data_warnings(write: Callable[[str], object]) -> None:
    """Have each `DataWarning` written as one line, once, by this process; others are shown as Python does.

    What Pillow says of a picture is not shown at all: it does not name the file.
    """
    told: set[str] = set()  # Python's own filter forgets when somebody changes the filters.

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, DataWarning):
            if str(message) not in told:
                told.add(str(message))
                write(f"warning: {message}")
        else:
            _show_warning(message, category, filename, lineno, file, line)

    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("once", category=DataWarning)
    warnings.showwarning = show


def first_names(names: Collection[str], limit: int = 5) -> str:
    """Join names, the first so many of many.

    Examples
    --------
    >>> first_names(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    return ", ".join([*names][:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def did_you_mean(wrong: str, names: Iterable[str]) -> str:
    """Ask, behind a name that is none of `names`, whether the most similar of them is meant; "" if none is similar.

    Examples
    --------
    >>> did_you_mean("cta", ["cat", "dog"]), did_you_mean("Dog", ["cat", "dog"]), did_you_mean("zebra", ["cat", "dog"])
    (" (did you mean 'cat'?)", " (did you mean 'dog'?)", '')
    """
    # Of names that differ in case only, the first.
    known = {name.casefold(): name for name in reversed([*names])}
    near = difflib.get_close_matches(wrong.casefold(), known, n=1)
    return f" (did you mean {known[near[0]][:40]!r}?)" if near else ""


def reason_of(error: BaseException) -> str:
    r"""Write the error of a library as a part of one line: without line breaks, at most 200 letters of it.

    Libraries quote what they find in a damaged file, whatever it is and however long.

    Examples
    --------
    >>> reason_of(ValueError("unknown type 'F\n16'")), reason_of(MemoryError())
    ("unknown type 'F 16'", 'MemoryError')
    """
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def needs_packages(what: str, extra: str, instead: str = "") -> Iterator[None]:
    """Say how to install what an import in the block finds missing.

    Parameters
    ----------
    what : str
        What needs it, for the text: "detection".
    extra : str
        The extra of this package that has it: "detect", "train".
    instead : str
        What else the user may do.

    Raises
    ------
    MissingPackageError
        If a package of somebody else is not there.

    Examples
    --------
    >>> try:
    ...     with needs_packages("detection", "detect"):
    ...         import no_such_package
    ... except MissingPackageError as error:
    ...     print(error)
    detection needs no_such_package; in a clone of the project: pip install '.[detect]'
    """
    try:
        yield
    except ImportError as error:
        if isinstance(error, MissingPackageError) and instead:
            raise MissingPackageError(f"{error}, or {instead}", name=error.name) from None
        # A module of ours that does not import is a bug.
        if isinstance(error, MissingPackageError) or (error.name or "").partition(".")[0] == __name__.partition(".")[0]:
            raise
        text = f"{what} needs {error.name}; in a clone of the project: pip install '.[{extra}]'" + (
            f", or {instead}" if instead else ""
        )
        raise MissingPackageError(text, name=error.name) from None
