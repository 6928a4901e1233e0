"""A finished run, read from its folder: what was found in which pictures, and where these lie."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from ...data import Detections, find_images_in
from ...data.errors import OutputError, UserError, reason_of
from ...data.formats.by_suffix import read_detection_entries, read_detection_names
from ...data.formats.parquet import read_detections_parquet
from ...data.images.containers import Member
from ...data.images.sources import Source
from ...data.picture_names import as_text
from ...data.system.remote import is_url
from ..drawing import DRAW_SCORE, DrawRule
from .names import RESULT_FILES, RunFiles

Entry = tuple[str, int, int, Detections]


class FinishedRun:
    """What `inception_rcnn.detect.detect_batch` left in a folder.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    record : dict
        What ``run.json`` holds.
    pictures : str
        The folder of the pictures, with a slash at its end; "" if they have none in common.

    Raises
    ------
    OutputError
        If the folder has no finished run.

    Examples
    --------
    >>> import tempfile
    >>> from inception_rcnn.data import write_detections
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_detections(f"{folder}/detections.json", [("a.jpg", 20, 10, Detections.empty(("cat",)))], ("cat",))
    ...     _ = Path(folder, "run.json").write_text('{"folder": "/photos/", "draw_score": 0.5}')
    ...     run = FinishedRun(Path(folder))
    ...     run.names, run.classes, run.draw_score, run.original("a.jpg")
    (['a.jpg'], ('cat',), 0.5, PosixPath('/photos/a.jpg'))
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = _read_record(folder / "run.json")
        self.pictures = str(self.record.get("folder", ""))

    @property
    def results(self) -> Path:
        """The file of detections."""
        # The Parquet file is read picture by picture.
        for name in reversed(RESULT_FILES):
            if (self.folder / name).is_file():
                return self.folder / name
        raise OutputError(f"{self.folder}: has no {' and no '.join(RESULT_FILES)}; name the folder of a finished run")

    def entries(self) -> Iterable[Entry]:
        """Results by the names that the pictures' files have, also with backslashes."""
        path = self.results
        if path.suffix == ".parquet":
            return read_detections_parquet(path)
        named = zip(read_detection_names(path), read_detection_entries(path), strict=True)
        return ((name, *one[1:]) for name, one in named)

    @cached_property
    def names(self) -> list[str]:
        """Names of the pictures' files below their folder, in the order of the results."""
        names = [self.file_name(name) for name in read_detection_names(self.results)]
        if outside := [name for name in names if name.startswith("/") or ".." in name.split("/")]:
            raise OutputError(
                f"{self.results}: {outside[0][:80]!r} leads out of the folder of the pictures; repeat the run"
            )
        return names

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes of the results; none if there are no pictures."""
        return next((found.classes for *_, found in self.entries()), ())

    @property
    def draw_score(self) -> float:
        """The score from which detections were drawn."""
        value = self.record.get("draw_score")
        return float(value) if isinstance(value, (int, float)) else DRAW_SCORE

    @property
    def rule(self) -> DrawRule:
        """Which detections were drawn."""
        hidden = self.record.get("hidden_classes")
        return DrawRule(self.draw_score, tuple(map(str, hidden)) if isinstance(hidden, list) else ())

    @property
    def settings(self) -> dict[str, Any]:
        """What the user asked for."""
        return self.record.get("settings", {})

    @property
    def in_containers(self) -> bool:
        """Whether its pictures are in Parquet or tar files, so that no name of one is that of a file."""
        return bool(self.settings.get("images_in"))

    def file_name(self, name: str) -> str:
        """Name of a picture's file, also of one that is not Unicode, which Parquet has in another spelling."""
        if "\\x" not in name or os.path.lexists(self.pictures + name):
            return name
        raw = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), os.fsencode(name))
        return os.fsdecode(raw)

    def original(self, name: str) -> Source:
        """Where a picture lies that is a file of its own."""
        return self.pictures + name if is_url(self.pictures) else Path(self.pictures + self.file_name(name))

    def find_originals(self) -> Callable[[str], Source]:
        """Return what tells where a picture lies, also in a Parquet or tar file, all of which are listed again.

        Raises
        ------
        OutputError
            If these cannot be read.
        """
        if not self.in_containers:
            return self.original
        containers = self.settings["images_in"]
        try:
            members = find_images_in(containers, self.settings.get("column"))
        except (UserError, OSError) as error:
            told = f"{reason_of(error)}; start the command where detect was started"
            raise OutputError(f"{self.folder}: its pictures cannot be found: {told}") from error
        files = RunFiles(members)
        position = {as_text(files.name(i)): i for i in range(len(files))}

        def find(name: str) -> Source:
            if (text := as_text(name)) in position:
                return members[position[text]]
            return Member(" ".join(containers), name, (), -1, problem="is not there any more")

        return find


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise OutputError(f"{path.parent}: has no {path.name}; name the folder of a finished run of detect") from None
    except (ValueError, RecursionError) as error:
        raise OutputError(f"{path}: is damaged ({reason_of(error)}); repeat the run") from None
    if not isinstance(record, dict) or not isinstance(record.get("settings", {}), dict):
        raise OutputError(f"{path}: is not what a run of detect writes; name the folder of such a run")
    return record
