"""Files at URLs, read and written by fsspec: S3, Google Cloud, Azure, HDFS, HTTP, and what else it has a package for.

What goes wrong there is told as of a local file: an ``OSError`` with a number, a reason and the URL.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import MissingPackageError, SettingError, UserError, reason_of
from .processes import prefetch

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

REQUESTS = 16  # at a time
# What file systems call that which changes with a file, besides its size.
_VERSION_FIELDS = (
    "ETag", "etag", "Content-MD5", "md5Hash", "crc32c", "checksum", "generation", "LastModified", "Last-Modified",
    "last_modified", "mtime", "modified", "updated",
)  # fmt: skip


def is_url(name: object) -> bool:
    """Whether a name is that of a file elsewhere.

    Examples
    --------
    >>> is_url("s3://bucket/a.jpg"), is_url(Path("photos/a.jpg"))
    (True, False)
    """
    return isinstance(name, str) and "://" in name


def url_suffix(url: str) -> str:
    """Return the suffix of a file at a URL, in lower case; what follows "?" does not count.

    Examples
    --------
    >>> url_suffix("https://host/a.JPG?size=1.5"), url_suffix("s3://bucket.name")
    ('.jpg', '')
    """
    path = url.partition("://")[2].partition("?")[0]
    return posixpath.splitext(path.partition("/")[2])[1].lower()


def file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """Return fsspec's file system of a URL, and the file's path in it.

    Raises
    ------
    MissingPackageError
        If a package is not installed that the protocol needs.
    SettingError
        If the protocol is not known.
    OSError
        If there is no connection.

    Examples
    --------
    >>> file_system("nowhere://a.jpg")
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: nowhere://a.jpg: protocol not known: nowhere; name a file or another URL
    """
    import fsspec

    try:
        # Listings that are kept would hide what changes, and hold a kilobyte a file.
        return fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise MissingPackageError(f"{url}: {reason_of(error)}", name=error.name) from None
    except ValueError as error:
        reason = reason_of(error)
        raise SettingError(f"{url}: {reason[:1].lower()}{reason[1:]}; name a file or another URL") from None
    except Exception as error:
        raise _file_error(url, error) from error


def _file_error(url: str, error: Exception) -> OSError:
    """Say what went wrong as of a local file."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    # Over HTTP fsspec says that a file is not there also where it could not ask.
    http = next((one for one in causes if type(one).__module__.startswith("aiohttp")), None)
    status = getattr(http, "status", 0)
    if isinstance(error, PermissionError) or status in (401, 403):
        return PermissionError(errno.EACCES, f"no permission: {reason_of(http or error)}", url)
    if status in (404, 410) or (isinstance(error, FileNotFoundError) and http is None):
        return FileNotFoundError(errno.ENOENT, "does not exist", url)
    return OSError(getattr(error, "errno", None) or errno.EIO, reason_of(http or causes[-1]), url)


@contextmanager
def told_of(url: str) -> Iterator[None]:
    """Raise what goes wrong in the ``with`` block as an ``OSError`` of a file; nothing changes for a local file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Each file system has its own.
        if not is_url(url) or (isinstance(error, OSError) and error.filename == url):
            raise
        raise _file_error(url, error) from error


def stamp_of(info: Mapping[str, Any]) -> list[int]:
    """Size (bytes) and a hash of what tells one version of a file from the next, out of what its file system says.

    Examples
    --------
    >>> stamp_of({"size": 5, "ETag": '"5d41"'}) == stamp_of({"size": 5, "ETag": '"5d41"', "mtime": 8})
    True
    """
    # An ETag tells all; the time beside it is rounded in one way in a list, and in another one of a single file.
    said = [f"{name}={info[name]}" for name in _VERSION_FIELDS if info.get(name) is not None]
    if said and said[0].lower().startswith("etag="):
        said = said[:1]
    digest = hashlib.sha256("\n".join(said).encode(errors="replace")).digest()
    size = info.get("size")
    return [-1 if size is None else int(size), int.from_bytes(digest[:6], "big")]


def stamp_url(url: str) -> list[int]:
    """Stamp of a file, see `stamp_of`.

    Raises
    ------
    OSError
    """
    system, path = file_system(url)
    with told_of(url):
        return stamp_of(system.info(path))


def read_url(url: str, max_bytes: int) -> tuple[list[int], bytes]:
    """Read a file as a whole, if it has no more bytes than the limit; return its stamp and its content.

    Raises
    ------
    OSError
    """
    system, path = file_system(url)
    with told_of(url):
        info = system.info(path)
        if info.get("type") == "directory":
            raise IsADirectoryError(errno.EISDIR, "is a folder", url)
        size = info.get("size")
        if size is None:  # as of a page that a server makes
            with system.open(path, "rb") as file:
                data = file.read(max_bytes + 1)
            size = len(data)
        elif size <= max_bytes:
            data = system.cat_file(path)
        if size > max_bytes:
            raise OSError(errno.EFBIG, f"has {size} bytes or more, the limit is {max_bytes}", url)
        return stamp_of(info), data


def read_range(url: str, start: int, size: int) -> bytes:
    """Read a part of a file.

    Raises
    ------
    OSError
    """
    system, path = file_system(url)
    with told_of(url):
        return system.cat_file(path, start=start, end=start + size)[:size] if size else b""


def open_url(url: str) -> BinaryIO:
    """Open a file to read, seekable.

    Raises
    ------
    OSError
    """
    system, path = file_system(url)
    with told_of(url):
        return system.open(path, "rb")


def has_magic(url: str) -> bool:
    """Whether a URL may be a glob. That of HTTP has no "?", behind which stand parameters.

    Examples
    --------
    >>> has_magic("s3://bucket/?.jpg"), has_magic("https://host/a.jpg?size=1")
    (True, False)
    """
    return any(sign in url for sign in _magic(url))


def _magic(url: str) -> str:
    return "[*" if url.startswith("http") else "[*?"


def list_url(url: str) -> list[str] | None:
    """List the files below a folder, or those that match a glob; None if the URL is none of both.

    Raises
    ------
    OSError
        If it does not exist, or cannot be listed.
    """
    if "::" in url:  # fsspec's chains of file systems
        return None
    system, path = file_system(url)
    first = min((at for sign in _magic(url) if (at := url.find(sign)) >= 0), default=-1)
    with told_of(url):
        if first >= 0 and not system.exists(path):
            base = url[:first].rpartition("/")[0]
            found = [name for name, one in system.glob(path, detail=True).items() if one["type"] != "directory"]
        # HTTP tells no folders. It is asked all the same: that it does not answer would be an empty list.
        elif system.info(path).get("type") == "directory" or url.endswith("/"):
            return sort_paths([name for name, _ in _infos_below(url)])
        else:
            return None
    root = system._strip_protocol(base).rstrip("/")
    # As the user wrote it: a host or an account may be left out of a file system's paths.
    return sort_paths([base + name[len(root) :] for name in found])


def sort_paths(paths: list[str]) -> list[str]:
    """Sort paths folder by folder, in place, and return them.

    Examples
    --------
    >>> sort_paths(["a b/1", "a/2", "a/1"])
    ['a/1', 'a/2', 'a b/1']
    """
    # As by their parts, of which lists would be held for all of them.
    paths.sort(key=lambda path: path.replace(os.sep, "/").replace("/", "\0"))
    return paths


def _infos_below(url: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the URLs of the files below a folder, with what is said of each; of S3 a page at a time is held."""
    system, path = file_system(url)
    base, root = url.rstrip("/"), system._strip_protocol(url).rstrip("/")
    # As the user wrote it: a host or an account may be left out of a file system's paths.
    if not hasattr(system, "call_s3"):
        yield from ((base + name[len(root) :], info) for name, info in system.find(path, detail=True).items())
        return
    bucket, key, _ = system.split_path(root)
    asked = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", **system.req_kw}
    while True:
        page = system.call_s3("list_objects_v2", **asked)
        for one in page.get("Contents", ()):
            if not one["Key"].endswith("/"):  # what stands for a folder
                yield f"{base}/{one['Key'][len(asked['Prefix']) :]}", {**one, "size": one["Size"]}
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def list_stamps(url: str) -> Iterator[tuple[str, list[int]]]:
    """Yield the files below a folder of S3 with their stamps, see `stamp_of`; a thousand by one request.

    Of other file systems none: what they say in a list may be less than what they say of a file.

    Raises
    ------
    OSError
    """
    if url.startswith(("s3://", "s3a://")) and url.partition("://")[2]:
        with told_of(url):
            yield from ((name, stamp_of(info)) for name, info in _infos_below(url))


def upload(files: Iterable[tuple[str, Path]]) -> Iterator[Path]:
    """Write local files to URLs, several at a time; yield those that are written, in order.

    Raises
    ------
    OSError
        Of the first that cannot be written.
    """
    with ThreadPoolExecutor(REQUESTS) as pool:
        for (_, local), future in prefetch(pool, lambda pair: _put(*pair), files, limit=4 * REQUESTS):
            future.result()
            yield local


def _put(url: str, local: Path) -> None:
    system, path = file_system(url)
    with told_of(url):
        system.put_file(str(local), path)


def remove_url(url: str) -> None:
    """Remove a file, if it is there.

    Raises
    ------
    OSError
        If it is there and cannot be removed.
    """
    system, path = file_system(url)
    # Who may not list is not told by S3 that a file is not there: then it is tried.
    if (there := exists_url(url)) is False:
        return
    try:
        with told_of(url):
            system.rm_file(path)
    except FileNotFoundError:
        pass
    except PermissionError:
        if there:
            raise


def exists_url(url: str) -> bool | None:
    """Whether a file is there; None if we may not know.

    Raises
    ------
    OSError
    """
    system, path = file_system(url)
    try:
        with told_of(url):
            return bool(system.exists(path))
    except PermissionError:
        return None


@functools.cache
def _copies() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="inception-rcnn-")  # removed when the process ends


def local_copy(name: str | Path, contents: tuple[str, ...] = ()) -> Path:
    """Path of a file: a local one itself, of one at a URL a copy that lasts as long as the process.

    Parameters
    ----------
    name : str or Path
        Of a folder at a URL, the files among `contents` are copied.
    contents : tuple of str

    Raises
    ------
    OSError

    Examples
    --------
    >>> local_copy("a.json")
    PosixPath('a.json')
    """
    if not is_url(name):
        return Path(name)
    url = str(name)
    system, path = file_system(url)
    folder = Path(tempfile.mkdtemp(dir=_copies().name))
    with told_of(url):
        there = {posixpath.basename(one): one for one in system.find(path, maxdepth=1)} if contents else {}
        names = [one for one in contents if one in there and system.info(path).get("type") == "directory"]
        try:
            for one in names:
                system.get_file(there[one], str(folder / one))
            if names:
                return folder
            target = folder / (posixpath.basename(path.rstrip("/")) or "file")
            system.get_file(path, str(target))
            return target
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
