"""Faults of a set, collected by its reader and told as one error."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import AnnotationError, UserError

MAX_LETTERS = 1000  # of a fault: a path of a longer name comes from a damaged list


def raise_faults(
    faults: Sequence[str], source: str | Path, advice: str = "", error: type[UserError] = AnnotationError
) -> None:
    """Raise one error for all that is wrong in a set, with the first ten faults; do nothing if there is none.

    Parameters
    ----------
    faults : sequence of str
        What is wrong, each with its file.
    source : str or Path
        The file or folder that names all of the set; in the text if there are several faults.
    advice : str
        What to do, of one as of many.
    error : type
        The error to raise.

    Examples
    --------
    >>> raise_faults(["a.xml: is empty", "b.xml: has no <name>"], "test.txt", "correct them")
    Traceback (most recent call last):
    inception_rcnn.data.errors.AnnotationError: test.txt: 2 faults: a.xml: is empty; b.xml: has no <name>; correct them
    """
    if faults:
        count = [f"{source}: {len(faults)} faults"] if len(faults) > 1 else []
        more = [f"and {len(faults) - 10} more"] if len(faults) > 10 else []
        told = [fault if len(fault) < MAX_LETTERS else f"{fault[:200]} ... {fault[-600:]}" for fault in faults[:10]]
        raise error(": ".join([*count, "; ".join([*told, *more, *([advice] if advice else [])])]))
