"""How runs over many pictures name them and recognise them."""

import contextlib
import itertools
import os
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ...data.errors import SettingError
from ...data.images.containers import Members, common_folder, inner_path
from ...data.images.sources import Source, absolute_name, stamp
from ...data.picture_names import without_suffix
from ...data.system.processes import prefetch
from ...data.system.remote import REQUESTS, is_url, list_stamps

# What a detection writes into its folder beside pictures/: the detections, by --format, and the rest.
FORMATS = {
    "json": ("detections.json",),
    "parquet": ("detections.parquet",),
    "both": ("detections.json", "detections.parquet"),
}
RESULT_FILES = FORMATS["both"]
REPORT = "report.html"
LISTED_FROM = 1000  # The stamps of so many pictures in a bucket are taken from a list of their folder,
MAX_LISTED = 20  # as far as it has at most so many files for each picture of the run.
THUMBNAILS = "report-thumbnails"  # the folder of the page's small pictures, where they are many
RUN_FILES = (*RESULT_FILES, "errors.jsonl", "run.json", "journal", REPORT)


class RunFiles(Sequence[str]):
    """The files of a run: a sequence of their absolute paths, URLs, or names in containers.

    One string a file is kept, its path as it was given; the others are worked out when they are asked for.

    Parameters
    ----------
    paths : iterable of str or Path, or Members
        Distinct files, or URLs; or the pictures in some containers, of which nothing more is kept.

    Attributes
    ----------
    folder : str
        Absolute path, or URL, of the folder that holds them all, with a slash at its end; "" if there is none.

    Raises
    ------
    SettingError
        If `paths` is one name, which is also a sequence, of characters.

    Examples
    --------
    >>> files = RunFiles(["/photos/b/1.jpg", "/photos/2.jpg"])
    >>> files[0], files.path(0), files.name(0), files.folder
    ('/photos/b/1.jpg', PosixPath('/photos/b/1.jpg'), 'b/1.jpg', '/photos/')
    >>> files = RunFiles(["s3://bucket/photos/b/1.jpg", "s3://bucket/photos/2.jpg"])
    >>> files.path(0), files.name(0)
    ('s3://bucket/photos/b/1.jpg', 'b/1.jpg')
    >>> RunFiles("photos")
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: paths: one name, 'photos'; give a list of files, as find_images('photos')
    """

    def __init__(self, paths: Iterable[str | Path] | Members) -> None:
        if isinstance(paths, (str, bytes, os.PathLike)):
            name = os.fspath(paths)
            raise SettingError(f"paths: one name, {name!r}; give a list of files, as find_images({name!r})")
        self._members = paths if isinstance(paths, Members) else None
        if isinstance(paths, Members):
            self._given: Sequence[str | Path] = ()
            self.folder = paths.folder
            return
        self._given = [str(path) if is_url(path) else str(Path(path)) for path in paths]
        # A million files lie in few folders.
        self.folder = common_folder({os.path.dirname(path) for path in self})

    def __len__(self) -> int:
        return len(self._given if self._members is None else self._members)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return absolute_name(self._given[index] if self._members is None else self._members[index])

    def path(self, index: int) -> Source:
        """Path of a file as it was given, its URL, or where it lies in a container."""
        if self._members is not None:
            return self._members[index]
        given = self._given[index]
        return given if is_url(given) else Path(given)

    def name(self, index: int) -> str:
        """Path of a file below the folder that holds them all, with forward slashes; no two are the same."""
        if self._members is not None:
            return self._members.name(index)
        own = self[index]
        name = own[len(self.folder) :].replace(os.sep, "/")
        if self.folder and not is_url(own):
            return name
        # Outside a common folder names begin with a slash or a protocol; a URL may have any path.
        return inner_path("_" + name if self.folder and name.startswith("/") else name)

    def stamps(self, pictures: Iterable[int]) -> Iterator[list[int]]:
        """Stamp of each of some pictures as they are now, in order; of files at URLs many are asked for at a time."""
        if not is_url(self.folder) or self._members is not None:
            yield from (stamp(self.path(i)) for i in pictures)
            return
        rest = iter(pictures)
        first = list(itertools.islice(rest, LISTED_FROM))
        listed = self._listed_stamps() if len(first) == LISTED_FROM else None

        def stamp_now(i: int) -> list[int]:
            known = listed is not None and listed[i, 0] >= 0
            return listed[i].tolist() if known else stamp(self.path(i))  # type: ignore[index]

        with ThreadPoolExecutor(REQUESTS) as pool:
            for _, known in prefetch(pool, stamp_now, itertools.chain(first, rest), limit=4 * REQUESTS):
                yield known.result()

    def _listed_stamps(self) -> NDArray[np.int64]:
        """Stamps out of a list of the folder, shape (P, 2); -1 where that does not tell them."""
        stamps = np.full((len(self), 2), -1, np.int64)
        position = {file: i for i, file in enumerate(self)}
        with contextlib.suppress(OSError):  # who may read, but not list
            # The folder may have far more than the run.
            for name, known in itertools.islice(list_stamps(self.folder), MAX_LISTED * len(self)):
                if (i := position.get(name)) is not None:
                    stamps[i] = known
        return stamps


def relative_names(paths: Iterable[str | Path] | Members) -> list[str]:
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
    parents = {os.path.dirname(path) for path in paths if not is_url(path)}
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


def label_names(names: Sequence[str]) -> list[str]:
    """Names of pictures' files without suffix, as annotation tools call labels; with it where two would be the same.

    Examples
    --------
    >>> label_names(["a.jpg", "a.png", "b/a.jpg"])
    ['a', 'a.png', 'b/a']
    """
    taken = {"classes"}  # LabelImg reads the names of the classes beside the labels.
    labels = []
    for name in names:
        forms = itertools.chain([without_suffix(name), name], (f"{name}.{number}" for number in itertools.count(2)))
        labels.append(next(form for form in forms if _folded(form) not in taken))
        taken.add(_folded(labels[-1]))
    return labels


def plain_name(name: str) -> str:
    """Where a picture is drawn unless another one is drawn there."""
    return name if name.lower().endswith(".jpg") else f"{name}.jpg"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def package_version() -> str:
    """Version of the package, "not installed" when it runs from the source folder."""
    try:
        return version("inception-rcnn")
    except PackageNotFoundError:
        return "not installed"
