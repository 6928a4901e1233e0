"""How runs over many pictures name them and recognise them."""

import os
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ...data.errors import SettingError
from ...data.images.reading import MAX_PIXELS, DecodedImage, decode_image

# What a detection writes into its folder beside pictures/.
RUN_FILES = ("detections.json", "errors.jsonl", "run.json", "journal")


def as_paths(paths: Iterable[str | Path]) -> list[Path]:
    """Files of a run as paths; one name, which is also a sequence, of characters, is refused.

    Examples
    --------
    >>> as_paths(["a.jpg"])
    [PosixPath('a.jpg')]
    >>> as_paths("photos")
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: paths: one name, 'photos'; give a list of files, as find_images('photos')
    """
    if isinstance(paths, (str, bytes, os.PathLike)):
        name = os.fspath(paths)
        raise SettingError(f"paths: one name, {name!r}; give a list of files, as find_images({name!r})")
    return [Path(path) for path in paths]


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


def folders_inside(paths: Iterable[Path], folder: Path) -> set[Path]:
    """Folders of files that lie in a folder, also through links.

    Examples
    --------
    >>> folders_inside([Path("out/pictures/a/1.jpg"), Path("photos/1.jpg")], Path("out/pictures"))
    {PosixPath('out/pictures/a')}
    """
    real = Path(os.path.realpath(folder))
    # A million files lie in few folders, and each of these costs system calls.
    parents = {path.parent for path in paths}
    return {parent for parent in parents if Path(os.path.realpath(parent)).is_relative_to(real)}


def stamp(path: Path) -> list[int]:
    """Size (bytes) and time of change (ns) of a file, by which a changed picture is recognised; empty if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def read_stamped(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[list[int], DecodedImage]:
    """Stamp and pixels of a picture, see `stamp` and `data.images.reading.decode_image`."""
    # Stamped before it is read: a picture that is replaced meanwhile must not count as the one that was read.
    return stamp(path), decode_image(path, max_pixels)


def package_version() -> str:
    """Version of the package, "not installed" when it runs from the source folder."""
    try:
        return version("inception-rcnn")
    except PackageNotFoundError:
        return "not installed"
