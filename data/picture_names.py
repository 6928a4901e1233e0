"""Which name means which picture, for all readers and evaluators.

Folders are parted by forward slashes; backslashes, as Windows writes them, mean the same. A picture's id is the name
of its file in its set, without the suffix: with folders in COCO's and ILSVRC's sets, without any in VOC's. Which file
such a name means is looked up in the folder, whatever its suffix. An accented letter may be one character or two, as
macOS writes it: both mean the same name, unless there is one of each.
"""

import os
import posixpath
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import ImageError
from .images.finding import IMAGE_SUFFIXES


def forward_slashes(file_name: str) -> str:
    r"""Return a name with forward slashes between its folders.

    Examples
    --------
    >>> forward_slashes(r"val\cats\1.jpg")
    'val/cats/1.jpg'
    """
    return file_name.replace("\\", "/")


def without_suffix(file_name: str) -> str:
    """Return the name of a file without its suffix, which is the id of a picture of COCO's.

    Examples
    --------
    >>> without_suffix("val2017/1.jpg")
    'val2017/1'
    """
    return os.path.splitext(file_name)[0]


def picture_name(file_name: str) -> str:
    r"""Return a name with forward slashes and without the suffix of a picture: an id such as ``IMG.1`` has none.

    Examples
    --------
    >>> picture_name(r"val\IMG.1.jpg"), picture_name("IMG.1")
    ('val/IMG.1', 'IMG.1')
    """
    name = forward_slashes(file_name)
    return without_suffix(name) if posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES else name


def without_folders(file_name: str) -> str:
    """Return the name of a file without its folders.

    Examples
    --------
    >>> without_folders("val2017/1.jpg")
    '1.jpg'
    """
    return posixpath.basename(forward_slashes(file_name))


def stem(file_name: str) -> str:
    """Return the name of a file without folders and suffix, which is the id of a picture of VOC's.

    Examples
    --------
    >>> stem("JPEGImages/000005.jpg")
    '000005'
    """
    return without_suffix(without_folders(file_name))


def short_names(files: Sequence[str]) -> list[str]:
    """Return ids of pictures: their stems, or with folders, or with suffixes too, where two would be the same.

    Examples
    --------
    >>> short_names(["a/1.jpg", "a/2.jpg"]), short_names(["a/1.jpg", "b/1.jpg"])
    (['1', '2'], ['a/1', 'b/1'])
    """
    for names in (list(map(stem, files)), list(map(without_suffix, files))):
        if len(set(names)) == len(names):
            return names
    return list(files)


def match_picture_names(names: Iterable[str], known: Iterable[str]) -> dict[str, list[str]]:
    """Find the known pictures that each name may mean.

    Parameters
    ----------
    names : iterable of str
        Names, with suffixes if the known ones have them.
    known : iterable of str
        The pictures that there are.

    Returns
    -------
    dict of str to list of str
        By name: the known picture of the same name. If there is none, all that have the same name without folders.

    Examples
    --------
    >>> match_picture_names(["a/1", "photos/2", "1", "3"], ["a/1", "b/1", "2"])
    {'a/1': ['a/1'], 'photos/2': ['2'], '1': ['a/1', 'b/1'], '3': []}
    """
    full: dict[str, str] = {}
    composed: dict[str, list[str]] = {}
    short: dict[str, list[str]] = {}
    for picture in known:
        slashed = forward_slashes(picture)
        full[slashed] = picture
        composed.setdefault(_composed(slashed), []).append(picture)
        short.setdefault(without_folders(_composed(slashed)), []).append(picture)
    found = {}
    for name in names:
        slashed = forward_slashes(name)
        alike = [full[slashed]] if slashed in full else composed.get(_composed(slashed))
        found[name] = alike or short.get(without_folders(_composed(slashed)), [])
    return found


def _composed(name: str) -> str:
    """Return a name with each accented letter as one character, where there is one."""
    return unicodedata.normalize("NFC", name)


class PictureFolder:
    """The picture files in a folder and those below, by their names without suffix. Each folder is listed once.

    Parameters
    ----------
    root : str or Path
        It need not exist.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("1.PNG", "2.jpg", "2.png"):
    ...         Path(root, name).touch()
    ...     folder = PictureFolder(root)
    ...     folder.find("1"), folder.find("2"), folder.find("2", "photo.png"), folder.find("3")
    (['1.PNG'], ['2.jpg', '2.png'], ['2.png'], [])
    """

    def __init__(self, root: str | Path) -> None:
        self.root = os.fspath(root)
        self._files: dict[str, dict[str, list[str]]] = {}
        self._composed_files: dict[str, dict[str, list[str]]] = {}

    def find(self, name: str, labelled: str = "") -> list[str]:
        """Return the files that a name may mean: with a suffix of a picture, in lower or upper case.

        Parameters
        ----------
        name : str
            Without suffix, relative to the root; folders are parted by forward slashes.
        labelled : str
            The file's name as its labels have it: if there is a file with its suffix, that is meant.

        Returns
        -------
        list of str
            Relative to the root, sorted; one, if all is well.
        """
        folder, slash, own = name.rpartition("/")
        if folder not in self._files:
            self._files[folder] = self._list(folder)
            composed: dict[str, list[str]] = {}
            for stored, files in self._files[folder].items():
                composed.setdefault(_composed(stored), []).extend(files)
            self._composed_files[folder] = composed
        found = self._files[folder].get(own) or self._composed_files[folder].get(_composed(own), [])
        if len(found) > 1:
            meant = own + os.path.splitext(labelled)[1]
            same = [file for file in found if file.lower() == meant.lower()]
            found = [meant] if meant in same else same or found
        return [folder + slash + file for file in found]

    def path(self, name: str, labelled: str = "", otherwise: str = ".jpg") -> str:
        """Return the path of the one file that a name means; with the suffix `otherwise` if there is none.

        Raises
        ------
        ImageError
            If there are several.
        """
        found = self.find(name, labelled)
        if len(found) > 1:
            raise ImageError(
                f"{os.path.join(self.root, name)}: may be {' or '.join(map(without_folders, found))}; remove all but "
                "one, or have the labels name the file"
            )
        return os.path.join(self.root, found[0] if found else name + otherwise)

    def _list(self, folder: str) -> dict[str, list[str]]:
        files: dict[str, list[str]] = {}
        try:
            names = os.listdir(os.path.join(self.root, folder))
        except (OSError, ValueError):  # Who needs the pixels will say so. A ValueError: the name has a zero byte.
            return files
        for name in sorted(names):
            own, suffix = os.path.splitext(name)
            if suffix.lower() in IMAGE_SUFFIXES:
                files.setdefault(own, []).append(name)
        return files
