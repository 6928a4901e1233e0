"""How runs over many pictures name them and recognise them."""

import os
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ...data.errors import SettingError
from ...data.images.reading import MAX_PIXELS, DecodedImage, decode_image

# What a detection writes into its folder beside pictures/: the detections, by --format, and the rest.
FORMATS = {
    "json": ("detections.json",),
    "parquet": ("detections.parquet",),
    "both": ("detections.json", "detections.parquet"),
}
RESULT_FILES = FORMATS["both"]
RUN_FILES = (*RESULT_FILES, "errors.jsonl", "run.json", "journal")


class RunFiles(Sequence[str]):
    """The files of a run: a sequence of their absolute paths.

    One string a file is kept, its path as it was given; the others are worked out when they are asked for.

    Parameters
    ----------
    paths : iterable of str or Path
        Distinct files.

    Attributes
    ----------
    folder : str
        Absolute path of the folder that holds them all, with a slash at its end; "" if there are none.

    Raises
    ------
    SettingError
        If `paths` is one name, which is also a sequence, of characters.

    Examples
    --------
    >>> files = RunFiles(["/photos/b/1.jpg", "/photos/2.jpg"])
    >>> files[0], files.path(0), files.name(0), files.folder
    ('/photos/b/1.jpg', PosixPath('/photos/b/1.jpg'), 'b/1.jpg', '/photos/')
    >>> RunFiles("photos")
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: paths: one name, 'photos'; give a list of files, as find_images('photos')
    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        if isinstance(paths, (str, bytes, os.PathLike)):
            name = os.fspath(paths)
            raise SettingError(f"paths: one name, {name!r}; give a list of files, as find_images({name!r})")
        self._given = [str(Path(path)) for path in paths]
        # A million files lie in few folders.
        folders = {os.path.dirname(path) for path in self}
        self.folder = os.path.join(os.path.commonpath(folders), "") if folders else ""

    def __len__(self) -> int:
        return len(self._given)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        # Not Path.absolute(), which keeps "..": a name must not lead out of the folder that it is put into.
        return os.path.abspath(self._given[index])

    def path(self, index: int) -> Path:
        """Path of a file as it was given."""
        return Path(self._given[index])

    def name(self, index: int) -> str:
        """Path of a file below the folder that holds them all, with forward slashes; no two are the same."""
        return self[index][len(self.folder) :].replace(os.sep, "/")


def relative_names(paths: Iterable[str | Path]) -> list[str]:
    """Name files by their paths below the folder that holds them all, see `RunFiles.name`.

    Examples
    --------
    >>> relative_names([Path("a/b/1.jpg"), Path("a/2.jpg")])
    ['b/1.jpg', '2.jpg']
    """
    files = RunFiles(paths)
    return [files.name(i) for i in range(len(files))]


def folders_inside(paths: Iterable[str | Path], folder: Path) -> set[str]:
    """Folders of files that lie in a folder, also through links.

    Examples
    --------
    >>> folders_inside([Path("out/pictures/a/1.jpg"), Path("photos/1.jpg")], Path("out/pictures"))
    {'out/pictures/a'}
    """
    real = Path(os.path.realpath(folder))
    # A million files lie in few folders, and each of these costs system calls.
    parents = {os.path.dirname(path) for path in paths}
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
