"""Where a run writes. Results for a URL are gathered in a folder of this machine, and uploaded when all are there.

The journal lies in that folder too: a run that was interrupted, or whose upload failed, goes on there by the same
command. The folder is removed when everything is uploaded and nothing is left to be tried again.
"""

import errno
import hashlib
import os
import posixpath
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...data.errors import OutputError, UserError
from ...data.system.atomic_files import cache_folder
from ...data.system.remote import is_url, read_url, remove_url, upload


class Destination:
    """The output of a run, a local path or a URL.

    Parameters
    ----------
    output : str or Path
        A folder or a file.

    Attributes
    ----------
    path : Path
        Where the run writes: the output itself, or of a URL a path in a folder of its own in the cache.
    url : str
        The URL; "" if the output is local.
    folder : Path or None
        The folder in the cache.

    Examples
    --------
    >>> Destination("out").path, Destination("s3://bucket/boxes.npz").path.name
    (PosixPath('out'), 'boxes.npz')
    """

    def __init__(self, output: str | Path) -> None:
        self.url = str(output).rstrip("/") if is_url(output) else ""
        self.path = Path(output)
        self.folder: Path | None = None
        if self.url:
            self.folder = cache_folder() / "uploads" / hashlib.sha256(os.fsencode(self.url)).hexdigest()[:16]
            self.path = self.folder / (posixpath.basename(self.url) or "results")

    def begin(self, errors: Path) -> None:
        """Make the folder, and write the errors file, empty, to the URL: better now than after hours of work.

        Raises
        ------
        OutputError
            If the URL cannot be written to.
        OSError
            If the folder cannot be made.
        """
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        probe = self.folder / ".empty"
        probe.touch()
        try:
            upload([(self._url_of(errors), probe)])
        except OSError as error:
            text = f"cannot be written ({_reason(error)}); check its name and your permissions"
            raise OutputError(f"{self.url}: {text}") from error

    def deliver(self, files: Sequence[Path], removed: Sequence[Path] = ()) -> None:
        """Upload the results, first those that come first, and remove what an earlier run wrote and this one did not.

        Parameters
        ----------
        files : sequence of Path
            Files, and folders with all that is in them.
        removed : sequence of Path

        Raises
        ------
        OutputError
            If one cannot be written. All of them stay in the folder.
        """
        if self.folder is None:
            return
        try:
            for one in files:
                upload((self._url_of(path), path) for path in _files(one))
            for one in removed:
                remove_url(self._url_of(one))
        except (OSError, UserError) as error:
            text = (
                f"cannot be written ({_reason(error)}); the results are in {self.folder}, the same command uploads them"
            )
            raise OutputError(f"{self.url}: {text}") from error

    def read(self, path: Path) -> bytes:
        """Read a small file of the results, of a URL from there.

        Raises
        ------
        OSError
            If it cannot be read.
        """
        return path.read_bytes() if self.folder is None else read_url(self._url_of(path), 2**20)[1]

    def remove(self) -> None:
        """Remove the folder in the cache."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _url_of(self, path: Path) -> str:
        base = posixpath.dirname(self.url)
        return f"{base}/{path.relative_to(self.path.parent).as_posix()}"


def _files(path: Path) -> Iterator[Path]:
    """Yield a file, or the files below a folder; there may be a million of them."""
    if path.is_file():
        yield path
    for parent, _, names in os.walk(path):
        yield from (Path(parent, name) for name in names)


def _reason(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    missing = error.errno == errno.ENOENT  # As of a bucket.
    return "there is no such place" if missing else error.strerror or str(error)
