"""How runs over many pictures name them and recognise them."""

import itertools
import os
import posixpath
import unicodedata
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

from ...data.errors import SettingError
from ...data.images.reading import MAX_PIXELS, DecodedImage, decode_image

# What a detection writes into its folder beside pictures/: the detections, by --format, and the rest.
FORMATS = {
    "json": ("detections.json",),
    "parquet": ("detections.parquet",),
    "both": ("detections.json", "detections.parquet"),
}
RESULT_FILES = FORMATS["both"]
REPORT = "report.html"
THUMBNAILS = "report-thumbnails"  # the folder of the page's small pictures, where they are many
RUN_FILES = (*RESULT_FILES, "errors.jsonl", "run.json", "journal", REPORT)


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


def drawn_names(names: Sequence[str]) -> list[str]:
    """Where pictures are drawn below ``pictures/``: each in a file of its own, under its own name, as a JPEG file.

    Examples
    --------
    >>> drawn_names(["a.jpg", "b.png"])
    ['a.jpg', 'b.png.jpg']
    """
    # Some file systems do not distinguish case, or write accents in another way.
    folders = {posixpath.dirname(name) for name in names}
    taken = {_folded(str(one)) for folder in folders for one in (PurePosixPath(folder), *PurePosixPath(folder).parents)}
    drawn = dict.fromkeys(names, "")
    # The pictures that are JPEG files keep their names, whatever the others are called.
    for name in sorted(names, key=lambda name: not name.lower().endswith(".jpg")):
        others = (f"{name}.drawn{number or ''}.jpg" for number in itertools.count())
        drawn[name] = next(one for one in itertools.chain([plain_name(name)], others) if _folded(one) not in taken)
        taken.add(_folded(drawn[name]))
    return list(drawn.values())


def plain_name(name: str) -> str:
    """Where a picture is drawn unless another one is drawn there."""
    return name if name.lower().endswith(".jpg") else f"{name}.jpg"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


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
