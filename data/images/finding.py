"""Files, folders, globs and lists, here or at URLs, to a list of picture files."""

import glob
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from ..errors import ImageError
from ..system.remote import file_system, has_magic, is_url, list_url, read_url, sort_paths, url_suffix

TGA_SUFFIXES = frozenset({".icb", ".tga", ".vda", ".vst"})
RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw",
    ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
})  # fmt: skip
IMAGE_SUFFIXES = TGA_SUFFIXES | RAW_SUFFIXES | frozenset({
    ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg",
    ".jpf", ".jpg", ".jpx", ".jxl", ".pbm", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
})  # fmt: skip
"""Suffixes, in lower case, of the files in a folder that are taken for pictures, also of formats that are not read: the
reader says what to do."""

VIDEO_SUFFIXES = frozenset({
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".webm", ".wmv",
})  # fmt: skip
_WEBCAM = "/dev/video"
MAX_LIST_BYTES = 2**30
# Numbers of files that are no pictures, by suffix, in each folder by its device and inode: also if it is named twice.
_Others: TypeAlias = dict[Hashable, Counter[str]]


def find_images(paths: str | Path | Iterable[str | Path], passed_over: Counter[str] | None = None) -> list[Path | str]:
    """List the picture files that a mix of files, folders, globs and lists stands for.

    Parameters
    ----------
    paths : str, Path or iterable of them
        Each is one of

        - a file: kept whatever its suffix, so that the reader can say what is wrong with it;
        - a folder: every file below it whose suffix is in `IMAGE_SUFFIXES`, sorted by path; hidden files and
          folders are passed over, links to folders are followed. A folder that cannot be searched is listed itself, so
          that the reader says so in its line, as of a picture that cannot be read;
        - a glob such as ``photos/**/*.jpg``: its matches, sorted, each as if it had been named itself;
        - ``@list.txt``: a text file with one file, folder or glob a line, relative to the list's own folder
          (so that a list means the same wherever it is read from); blank lines are passed over;
        - ``@-``: such a list from standard input, relative to the working folder, as is every list that is not a
          file but a pipe;
        - a URL of each of these, such as ``s3://bucket/photos/``: of all that fsspec reads. One that ends in a suffix
          of a picture is a file, and is not asked for: the reader says if it is missing. A folder of HTTP ends in "/".

        What exists under the literal name is taken as that, also if the name contains ``*``, ``[`` or a
        leading ``@``.
    passed_over : Counter of str, optional
        Gets the number of the other files in the folders by suffix, in lower case; hidden files are not counted.

    Returns
    -------
    list of Path, of str for a URL
        In the order named, each file once, at its first place; the same on every run. Empty only if no folder
        contained a picture.

    Raises
    ------
    ImageError
        If something named does not exist, a glob matches nothing, the only thing named is a folder that cannot be
        searched, or there are only videos: the text has the command that makes pictures of them.
    MissingPackageError
        If fsspec needs a package for a URL that is not installed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.jpg", "a.PNG", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     [path.name for path in find_images([f"{folder}/b.jpg", folder])]
    ['b.jpg', 'a.PNG']
    """
    return find_files(paths, IMAGE_SUFFIXES, passed_over)


def find_files(
    paths: str | Path | Iterable[str | Path], suffixes: Collection[str], passed_over: Counter[str] | None = None
) -> list[Path | str]:
    """List files as `find_images` does; those of `suffixes` are taken from folders.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.tar", "b.jpg"):
    ...         Path(folder, name).touch()
    ...     [path.name for path in find_files(folder, {".tar"})]
    ['a.tar']
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    found: dict[str, Path | str] = {}
    others: _Others = {}
    names = list(paths)
    for name in names:
        for path in _expand(os.fspath(name), suffixes, others, is_alone=len(names) == 1):
            if is_url(path):
                found.setdefault(path, path)
            else:
                found.setdefault(os.path.abspath(path), Path(path))
    if found and all(how_to_read_video(str(path)) for path in found.values()):
        first = str(next(iter(found.values())))
        raise ImageError(f"{first}: {how_to_read_video(first)}")
    if passed_over is not None:
        for counts in others.values():
            passed_over.update(counts)
    return list(found.values())


def how_to_read_video(name: str) -> str:
    """Say that a file is a video, or a webcam's device, and how to make pictures of it; "" of other names.

    Examples
    --------
    >>> how_to_read_video("a clip.MP4").partition(": ")[2]
    "mkdir -p frames && ffmpeg -i 'a clip.MP4' -vf fps=1 frames/%06d.jpg"
    >>> how_to_read_video("/dev/video0").partition(": ")[2]
    'mkdir -p frames && ffmpeg -f v4l2 -i /dev/video0 -vf fps=1 frames/%06d.jpg'
    """
    is_webcam = name.startswith(_WEBCAM)
    suffix = url_suffix(name) if is_url(name) else os.path.splitext(name)[1].lower()
    if not is_webcam and suffix not in VIDEO_SUFFIXES:
        return ""
    source = f"{'-f v4l2 ' * is_webcam}-i {shlex.quote(name)}"
    return (
        f"is a {'webcam' if is_webcam else 'video'}; make pictures of it, here one a second, and name their folder: "
        f"mkdir -p frames && ffmpeg {source} -vf fps=1 frames/%06d.jpg"
    )


def _expand(name: str, suffixes: Collection[str], others: _Others, is_alone: bool = False) -> Iterator[str]:
    """Yield the files that one thing named by the user stands for."""
    if name.startswith("@") and not os.path.exists(name):
        yield from _expand_list(name[1:], suffixes, others)
    elif is_url(name):
        yield from _expand_url(name, suffixes, others)
    elif os.path.isdir(name):
        yield from _walk(name, suffixes, others, is_alone)
    elif os.path.exists(name):
        yield name
    elif glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise ImageError(f"{name}: matches no file; check the pattern")
        for match in matches:
            # "**" matches a folder and also everything in it: its files come by themselves.
            if not os.path.isdir(match):
                yield match
            elif "**" not in name:
                yield from _walk(match, suffixes, others)
    elif re.fullmatch("[0-9]{1,2}", name):
        raise ImageError(f"{name}: {how_to_read_video(_WEBCAM + name)}")
    else:
        raise ImageError(f"{name}: does not exist; name files, folders, globs or @list.txt")


def _expand_url(url: str, suffixes: Collection[str], others: _Others) -> Iterator[str]:
    file_system(url)  # That a package is missing is not the fault of each picture.
    # A list may have a million of them, which are not all asked for first.
    if url_suffix(url) in suffixes and not has_magic(url):
        yield url
        return
    try:
        found = list_url(url)
    except FileNotFoundError as error:
        raise ImageError(f"{url}: does not exist; check the name") from error
    except OSError as error:
        raise ImageError(f"{url}: cannot be read ({error.strerror}); check the name and your permissions") from error
    if found is None:
        yield url
    elif has_magic(url):
        if not found:
            raise ImageError(f"{url}: matches no file; check the pattern")
        yield from found
    else:
        counts = others[url] = Counter()
        for one in found:
            if any(part.startswith(".") for part in one[len(url.rstrip("/")) :].split("/")):
                continue
            if (suffix := url_suffix(one)) in suffixes:
                yield one
            else:
                counts[suffix] += 1


def _expand_list(name: str, suffixes: Collection[str], others: _Others) -> Iterator[str]:
    try:
        if is_url(name):
            data = read_url(name, MAX_LIST_BYTES)[1]
        else:
            data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise ImageError(f"{name}: the list cannot be read ({error.strerror}); check its name") from error
    # Standard input and pipes ("<(ls)" of a shell) stand in no folder that anybody named.
    folder = "" if name == "-" or name.startswith(("/dev/", "/proc/")) else os.path.dirname(name)
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        # File names are bytes to the system: one that is not UTF-8 must survive the way through a list.
        entry = os.fsdecode(line.strip())
        if entry:
            try:
                yield from _expand(entry if is_url(entry) else os.path.join(folder, entry), suffixes, others)
            except ImageError as error:
                raise ImageError(f"{name}, line {number}: {error}") from error


def _walk(folder: str, suffixes: Collection[str], others: _Others, is_alone: bool = False) -> list[str]:
    found: list[str] = []

    def keep(error: OSError) -> None:
        if is_alone and error.filename == folder:  # There is nothing else to do.
            text = f"{folder}: the folder cannot be read ({error.strerror}); check its permissions"
            raise ImageError(text) from error
        found.append(error.filename)

    visited: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, onerror=keep, followlinks=True):
        status = os.stat(parent)
        identity = (status.st_dev, status.st_ino)
        if identity in visited:  # a link back to a folder above
            folders.clear()
            continue
        visited.add(identity)
        counts = others[identity] = Counter()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                suffix = os.path.splitext(name)[1].lower()
                if suffix in suffixes:
                    found.append(os.path.join(parent, name))
                else:
                    counts[suffix] += 1
    return sort_paths(found)
