"""Where a run writes. Results for a URL are gathered in a folder of this machine, and uploaded when all are there.

The journal lies in that folder too: a run that was interrupted, or whose upload failed, goes on there by the same
command. The folder is removed when everything is uploaded and nothing is left to be tried again.
"""

import errno
import hashlib
import json
import os
import posixpath
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...data.errors import OutputError, SettingError, UserError
from ...data.system.atomic_files import cache_folder
from ...data.system.remote import exists_url, is_url, read_url, remove_url, upload


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

    Raises
    ------
    SettingError
        If the URL is that of a bucket.

    Examples
    --------
    >>> Destination("out").path, Destination("s3://bucket/boxes.npz").path.name
    (PosixPath('out'), 'boxes.npz')
    """

    def __init__(self, output: str | Path) -> None:
        self.url = str(output).rstrip("/") if is_url(output) else ""
        if self.url and "/" not in self.url.partition("://")[2]:
            raise SettingError(f"{self.url}: is a whole bucket; name a folder or a file in it, as {self.url}/results")
        self.path = Path(output)
        self.folder: Path | None = None
        if self.url:
            self.folder = cache_folder() / "uploads" / hashlib.sha256(os.fsencode(self.url)).hexdigest()[:16]
            self.path = self.folder / (posixpath.basename(self.url) or "results")

    def begin(self, errors: Path) -> None:
        """Make the folder, and write and remove a file beside the errors file: better now than after hours of work.

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
        url = self._url_of(errors.with_suffix(".writable"))
        try:
            list(upload([(url, probe)]))
            remove_url(url)
        except OSError as error:
            text = f"cannot be written ({_reason(error)}); check its name and your permissions to write and to delete"
            raise OutputError(f"{self.url}: {text}") from error

    def deliver(self, files: Sequence[Path], removed: Sequence[Path] = ()) -> None:
        """Upload the results, first those that come first, and remove what an earlier run wrote and this one did not.

        What is uploaded is noted in the folder: after an upload that failed, or when a few pictures are tried again,
        only files that are new or changed go there.

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
        notes = self.folder / "uploaded"
        try:
            done = self._uploaded(notes)
            with open(notes, "a" if done else "w", encoding="ascii") as file:
                for one in files:
                    new = (path for path in _files(one) if self._note(path) not in done)
                    for path in upload((self._url_of(path), path) for path in new):
                        file.write(self._note(path) + "\n")
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

    def _uploaded(self, notes: Path) -> set[str]:
        """Return the notes on what was uploaded before; none if that was removed from there since."""
        if not notes.exists():
            return set()
        lines = notes.read_text("ascii").splitlines()
        return {*lines} if lines and exists_url(self._url_of(self.path.parent / json.loads(lines[0])[0])) else set()

    def _note(self, path: Path) -> str:
        status = path.stat()
        return json.dumps([path.relative_to(self.path.parent).as_posix(), status.st_size, status.st_mtime_ns])

    def _url_of(self, path: Path) -> str:
        base = self.url.rpartition("/")[0]  # Not dirname, which makes one slash of three.
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
