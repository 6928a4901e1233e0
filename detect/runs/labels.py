"""What people make of finished detections: drawings, crops, and labels for an annotation tool to correct.

Labels are written once. A file of labels that is there may have been corrected by hand, and stays as it is.
"""

from __future__ import annotations

import math
import posixpath
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...data import Detections, ImageError
from ...data.classes.spelling import find_labels
from ...data.errors import DataWarning, OutputError, first_names
from ...data.formats.voc import voc_annotation
from ...data.formats.yolo import yolo_labels, yolo_settings
from ...data.images.reading import MAX_PIXELS, read_image
from ...data.images.sources import Source
from ...data.picture_names import without_suffix
from ...data.system.atomic_files import replace_file
from ...data.system.processes import prefetch, usable_cores
from ..drawing import DrawRule, as_jpeg, draw_detections
from .failures import FULL_OR_FORBIDDEN, Failure, failure
from .finished import FinishedRun
from .names import drawn_names, label_names
from .summary import RunSummary

_CROP = re.compile(r"-(?=\d+-.+\.jpg)")  # in the name of a crop, behind that of its picture
_NO_FILE_NAME = re.compile(r"[^\w .+-]")


class FoundPicture(NamedTuple):
    """A picture of a finished run, with the detections to draw, to cut out and to write.

    Attributes
    ----------
    name : str
        Its file below the folder of all pictures.
    source : Path, str or Member
        Where it lies.
    width, height : int
        In pixels.
    found : Detections
    """

    name: str
    source: Source
    width: int
    height: int
    found: Detections


@dataclass(frozen=True)
class Exports:
    """Folders for what is made of detections; None leaves it out.

    Parameters
    ----------
    drawings : Path, optional
        The pictures, with the detections drawn, under the names that `names.drawn_names` gives.
    crops : Path, optional
        Each detection, cut from its picture, as ``<picture>-<number>-<class>.jpg``; the best of a picture is number 1.
    yolo : Path, optional
        ``labels/<picture>.txt``, ``classes.txt`` there and beside it, and ``data.yaml``. The tools look for the
        pictures in ``images/`` beside ``labels/``.
    voc : Path, optional
        ``<picture>.xml``, as LabelImg writes them. The folder may be that of the pictures.

    Notes
    -----
    Names of pictures have their folders. A picture of labels has no suffix, unless another has the same name without.

    Examples
    --------
    >>> import tempfile
    >>> from inception_rcnn.data import write_detections
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_detections(f"{folder}/detections.json", [("a.jpg", 20, 10, Detections.empty(("cat",)))], ("cat",))
    ...     _ = Path(folder, "run.json").write_text("{}")
    ...     _ = export_run(FinishedRun(Path(folder)), Exports(voc=Path(folder, "voc")))
    ...     [path.name for path in Path(folder, "voc").iterdir()]
    ['a.xml']
    """

    drawings: Path | None = None
    crops: Path | None = None
    yolo: Path | None = None
    voc: Path | None = None

    def __bool__(self) -> bool:
        """Whether anything is to be made."""
        return any(folder is not None for folder in vars(self).values())

    def prepare(self, classes: Sequence[str]) -> None:
        """Make the folders, and write the names of the classes: better now than after hours of work.

        Raises
        ------
        OutputError
            If a folder cannot be made, has labels of other classes, or the folder of crops has other files.
        OSError
            If nothing can be written there.
        """
        for folder in filter(None, vars(self).values()):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{folder}: cannot be a folder ({error.strerror}); name another") from None
        if self.crops is not None:
            files = (path for path in self.crops.rglob("*") if path.is_file() and not path.name.startswith("."))
            if (other := next((path for path in files if not _CROP.search(path.name)), None)) is not None:
                raise OutputError(f"{self.crops}: has files that are no crops ({other.name}); name another folder")
        if self.yolo is not None:
            names = "".join(f"{name}\n" for name in classes).encode()
            for path in (self.yolo / "classes.txt", self.yolo / "labels" / "classes.txt"):
                if not _write_once(path, names):
                    raise OutputError(f"{path}: has other classes, whose labels would be mixed up; name another folder")
            _write_once(self.yolo / "data.yaml", yolo_settings(classes).encode())


def export_pictures(
    exports: Exports,
    names: Sequence[str],
    pictures: Iterable[FoundPicture],
    folder: str = "",
    *,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[tuple[int, Exception]]:
    """Make what is asked for, after `Exports.prepare`; the pictures are read again in threads, if they are needed.

    Parameters
    ----------
    exports : Exports
    names : sequence of str
        Names of all pictures.
    pictures : iterable of FoundPicture
        In the same order, asked for a few at a time.
    folder : str
        What the folder that holds all pictures is called.
    max_pixels : int
        See `inception_rcnn.data.read_image`.

    Yields
    ------
    int, Exception
        The position of a picture that cannot be read, or whose files cannot be written, and why.

    Raises
    ------
    OSError
        If the disk is full, or there is no permission to write.

    Warns
    -----
    DataWarning
        If other labels are there and are kept, or some have the name of their file with its suffix.
    """
    drawn = drawn_names(names) if exports.drawings is not None else names
    labels = label_names(names)
    if exports.crops is not None:
        _remove_crops(exports.crops, labels)
    kept: list[str] = []
    workers = usable_cores()
    with ThreadPoolExecutor(workers, thread_name_prefix="export") as pool:
        work = partial(_with_pixels, exports, max_pixels=max_pixels)
        jobs = zip(pictures, drawn, labels, strict=True)
        for i, (job, future) in enumerate(prefetch(pool, lambda job: work(*job), jobs, limit=2 * workers)):
            picture, _, label = job
            try:
                kept += [
                    path.name for path, text in _labels(exports, picture, label, folder) if not _write_once(path, text)
                ]
                for path, data in future.result():
                    replace_file(path, data)
            except Exception as error:  # One picture must not end the work on thousands.
                if isinstance(error, OSError) and error.errno in FULL_OR_FORBIDDEN:
                    raise
                yield i, error
    if kept:
        text = f"labels that are there with other content are kept: {first_names(kept)}"
        warnings.warn(f"{text}; remove them to have them written again", DataWarning, stacklevel=2)
    renamed = [label for label, name in zip(labels, names, strict=True) if label != without_suffix(name)]
    if renamed and (exports.yolo or exports.voc):
        text = f"labels have the suffix of their pictures too where others have the same name: {first_names(renamed)}"
        warnings.warn(f"{text}; rename the pictures", DataWarning, stacklevel=2)


def export_run(
    run: FinishedRun,
    exports: Exports,
    draw_score: float | None = None,
    only: Iterable[str] = (),
    *,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[RunSummary, list[Failure]]:
    """Make drawings, crops and labels of what a finished run found; nothing is scored again.

    Parameters
    ----------
    run : FinishedRun
    exports : Exports
    draw_score : float, optional
        Weaker detections are left out; default as in the run.
    only : iterable of str
        Classes to keep; none for all that the run drew.
    max_pixels : int
        See `inception_rcnn.data.read_image`.
    progress : callable
        Gets the number of pictures begun.

    Returns
    -------
    RunSummary
        Its ``pictures`` have all that was asked for.
    list of Failure
        The others: pictures that are gone, or have changed.

    Raises
    ------
    OutputError
        If the run, or a folder of `exports`, cannot be used.
    DetectionError
        If the file of detections is damaged.
    SettingError
        If the run has no such class.
    OSError
        If the results cannot be written.
    """
    rule = run.rule
    rule = DrawRule(rule.score if draw_score is None else draw_score, () if only else rule.hidden)
    summary, failures = RunSummary(draw_score=rule.score, hidden_classes=rule.hidden), []
    names, classes = run.names, run.classes
    # Without pictures there are no classes.
    labels = find_labels(only, classes) if only and names else np.arange(len(classes))
    exports.prepare(classes)
    source = run.find_originals() if exports.drawings or exports.crops else run.original
    objects: Counter[str] = Counter()

    def pictures() -> Iterator[FoundPicture]:
        for i, (_, width, height, found) in enumerate(run.entries()):
            progress(i)
            drawn = rule(found)
            chosen = drawn[np.isin(drawn.labels, labels)]
            objects.update(chosen.names)
            yield FoundPicture(names[i], source(names[i]), width, height, chosen)

    folder = posixpath.basename(run.pictures.rstrip("/"))
    with summary.timed("total"):
        for i, error in export_pictures(exports, names, pictures(), folder, max_pixels=max_pixels):
            failures.append(failure(source(names[i]), error))
    progress(len(names))
    summary.pictures, summary.failed = len(names) - len(failures), len(failures)
    summary.objects = dict(sorted(objects.items()))
    return summary, failures


def _write_once(path: Path, data: bytes) -> bool:
    """Write a file unless it is there; return whether it has this content."""
    if path.exists():
        return path.read_bytes() == data
    replace_file(path, data)
    return True


def _labels(exports: Exports, picture: FoundPicture, label: str, folder: str) -> Iterator[tuple[Path, bytes]]:
    """Yield the files of labels of a picture."""
    name, _, width, height, found = picture
    if min(width, height) < 1:
        raise OutputError(f"{name}: the results do not tell its size; repeat the run")
    if exports.yolo is not None:
        yield exports.yolo / "labels" / f"{label}.txt", yolo_labels(found, width, height).encode()
    if exports.voc is not None:
        above, file = posixpath.split(name)
        text = voc_annotation(found, file, posixpath.basename(above) or folder, width, height)
        yield exports.voc / f"{label}.xml", text.encode()


def _with_pixels(
    exports: Exports, picture: FoundPicture, drawn: str, label: str, max_pixels: int
) -> list[tuple[Path, bytes]]:
    """Return the files for which the picture is read: its drawing and its crops."""
    files: list[tuple[Path, bytes]] = []
    found = picture.found
    if exports.drawings is None and (exports.crops is None or not len(found)):
        return files
    image = read_image(picture.source, max_pixels)
    if image.shape[:2] != (picture.height, picture.width):
        raise ImageError(f"{picture.source}: has another size than when it was searched; repeat the run")
    if exports.drawings is not None:
        drawing = draw_detections(image, found, -math.inf)
        files.append((exports.drawings / drawn, as_jpeg(drawing)))
    if exports.crops is not None:
        for number, (box, _, name) in enumerate(found, start=1):
            target = exports.crops / f"{label}-{number}-{_NO_FILE_NAME.sub('_', name)}.jpg"
            files.append((target, as_jpeg(Image.fromarray(_cut(image, box)), 95)))
    return files


def _cut(image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Cut out all pixels that a box touches, at least one."""
    height, width = image.shape[:2]
    x1, y1 = (min(max(0, math.floor(at)), side - 1) for at, side in zip(box[:2], (width, height), strict=True))
    x2, y2 = (math.ceil(at) for at in box[2:])
    return image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]


def _remove_crops(folder: Path, labels: Sequence[str]) -> None:
    """Remove the crops of the pictures that an earlier run made: it may have found more."""
    own = set(labels)
    for path in folder.rglob("*.jpg"):
        name = path.relative_to(folder).as_posix()
        if any(name[: mark.start()] in own for mark in _CROP.finditer(name)):
            path.unlink()
