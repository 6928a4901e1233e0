"""Files of ranked boxes and of detections in the format that the suffix names.

Ranked boxes: ``.parquet`` (a row a picture), ``.npz`` (NumPy), ``.mat`` (Fast R-CNN), ``.pkl`` (Detectron and
Detectron2) and ``.json`` (COCO). Detections: ``.parquet``, and COCO's JSON under every other name.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ..arguments import check_choice, check_names
from ..detections import Detections
from ..errors import DetectionError, MatlabFileError, ProposalFileError, reason_of
from ..picture_names import forward_slashes, short_names
from ..proposals import Proposals, check_entry, check_image_ids, checked_entries, survey_entries
from ..system.atomic_files import atomic_file, atomic_write
from ..system.remote import local_copy
from .coco import (
    NAME_FORMS,
    read_coco_detections,
    read_coco_entries,
    read_coco_names,
    read_coco_proposals,
    write_coco_detections,
    write_coco_proposals,
)
from .detectron_pickle import pickle_pieces, read_pickle
from .fast_rcnn_mat import check_mat_size, read_mat, write_mat
from .npz import read_npz, write_npz
from .parquet import (
    read_detections_parquet,
    read_names_parquet,
    read_parquet,
    write_detections_parquet,
    write_parquet,
)
from .records import check_distinct

_READERS: dict[str, Callable[[Path], Iterable[Proposals]]] = {
    ".parquet": read_parquet,
    ".json": read_coco_proposals,
    ".mat": read_mat,
    ".pkl": read_pickle,
    ".npz": read_npz,
}
PROPOSAL_SUFFIXES = tuple(_READERS)
_DETECTIONS = "detections.json", "detections.parquet"  # in a folder


def write_proposals(
    path: str | Path,
    entries: Sequence[Proposals],
    *,
    image_ids: Mapping[str, int | str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the proposals of many pictures to one file, in the format that its suffix names.

    ==========  ============================================================================================
    .parquet    A row a picture: ``file``, ``width``, ``height``, ``boxes``, ``scores``, and ``masks`` if there are.
    .npz        Arrays ``files`` (P,), ``sizes`` (P, 2), ``offsets`` (P + 1,), ``boxes`` (T, 4) and ``scores``
                (T,); picture i has ``boxes[offsets[i]:offsets[i + 1]]``.
    .mat        MATLAB 5: cells ``boxes`` (1, P), each (N, 4) double ``y1 x1 y2 x2``, whole pixels from 1, both
                corners included, and ``images`` (P, 1), the ids. No scores; at most 2 GB, about 60 million
                boxes.
    .pkl        A pickled dict of the lists ``boxes``, ``scores`` and ``ids``.
    .json       A COCO document with one category, "object"; masks are its ``segmentation``.
    ==========  ============================================================================================

    The id of a picture in ``.mat`` and ``.pkl`` is its file's name without folder and suffix, as in VOC. If
    two would be the same, folders are kept, if need be suffixes too, for all. In ``.json`` pictures are
    counted from 1.

    Parameters
    ----------
    path : str or Path
        The file; its suffix is one of `PROPOSAL_SUFFIXES`. It appears under its name when it is complete.
    entries : sequence of Proposals
        The pictures, each best first. Only ``len(entries)`` and ``entries[i]`` are used, in order, some
        formats going through several times, and no more is kept than a Parquet file's row group of 8 MB (and
        a few hundred bytes a picture): the entries may be loaded or computed when they are asked for, and
        then must be the same every time.
    image_ids : mapping of str to int or str, optional
        Ids by `Proposals.file` for ``.pkl`` and ``.json``, such as those of COCO's annotation files, which
        the boxes will be used with.
    metadata : mapping of str to str, optional
        Goes into the metadata of a Parquet file; the other formats have no place for it.

    Raises
    ------
    ProposalFileError
        If the suffix is not known or has no place for masks, an entry is malformed (arrays that do not fit, a
        number that is not finite, a box that ends before it begins, scores that rise, masks unlike the other
        pictures), two pictures have the same name or id (not checked in ``.parquet``), `image_ids` lacks a picture,
        or the boxes are too many for ``.mat``. The old file, if any, stays.
    OSError
        If the file cannot be written.

    Notes
    -----
    The same entries give the same bytes. `read_proposals` gives back the same float32 numbers, except that
    ``.mat`` has whole pixels, and that ``.json`` promises it only for boxes that begin inside the picture.
    A box that rounding would leave without a pixel gets one in ``.mat``.

    References
    ----------
    Fast R-CNN reads ``.mat`` in lib/datasets/pascal_voc.py, https://github.com/rbgirshick/fast-rcnn;
    Detectron reads ``.pkl`` in detectron/datasets/json_dataset.py, https://github.com/facebookresearch/Detectron;
    Detectron2 in detectron2/data/build.py, https://github.com/facebookresearch/detectron2.
    https://cocodataset.org/#format-data
    "MAT-File Format", The MathWorks, and for its limit
    https://www.mathworks.com/help/matlab/import_export/mat-file-versions.html

    Examples
    --------
    >>> import tempfile
    >>> boxes, scores = np.array([[1, 2, 4, 8]], np.float32), np.ones(1, np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_proposals(f"{folder}/voc.mat", [Proposals("train/000005.jpg", 20, 10, boxes, scores)])
    ...     picture, = read_proposals(f"{folder}/voc.mat")
    >>> picture.file, picture.boxes.tolist()
    ('000005', [[1.0, 2.0, 4.0, 8.0]])
    """
    path = Path(path)
    suffix = check_suffix(path)
    if suffix == ".parquet":
        with atomic_file(path) as file:
            write_parquet(file, checked_entries(path, entries), metadata)
        return

    files, table = survey_entries(path, entries)
    if image_ids is not None and suffix in (".pkl", ".json"):
        image_ids = check_image_ids(path, files, image_ids)
    if suffix == ".json":
        write_coco_proposals(path, checked_entries(path, entries), image_ids)
    elif suffix == ".pkl":
        ids = short_names(files) if image_ids is None else list(image_ids.values())
        atomic_write(path, pickle_pieces(lambda: checked_entries(path, entries), ids))
    elif suffix == ".mat":
        check_mat_size(path, table)
        with atomic_file(path) as file:
            write_mat(file, len(files), lambda i: check_entry(path, entries[i]).boxes, short_names(files))
    elif suffix == ".npz":
        with atomic_file(path) as file:
            write_npz(file, lambda: checked_entries(path, entries), files, table)
    else:
        raise NotImplementedError(f"{suffix} can be read and has no writer")


def read_proposals(path: str | Path) -> Iterator[Proposals]:
    """Read a file that `write_proposals` wrote, or another program in one of its formats.

    Nothing in the file is run: of a pickle, only numbers, texts and arrays of numbers are taken (also as
    Python 2 wrote them, except with protocol 0).

    Parameters
    ----------
    path : str or Path
        The file, or its URL; its suffix is one of `PROPOSAL_SUFFIXES`. From a URL it is copied first.

    Returns
    -------
    iterator of Proposals
        The pictures in the order of the file, each sorted best first, boxes with equal scores in their order.
        ``.parquet`` is read piece by piece, the others as a whole. The scores from ``.mat``, which has none,
        are 1, 1/2, 1/3, ...

    Raises
    ------
    ProposalFileError
        If the file is missing, malformed, or has numbers that are not finite or boxes that end before they begin.
        That the file is missing is known at once, other problems when the pictures are asked for.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_proposals(f"{folder}/none.parquet", [])
    ...     list(read_proposals(f"{folder}/none.parquet"))
    []
    """
    path = local_copy(path)
    reader = _READERS[check_suffix(path)]
    if not path.is_file():
        raise ProposalFileError(f"{path}: there is no such file; check its name")
    return _read_ranked(path, reader)


def _read_ranked(path: Path, reader: Callable[[Path], Iterable[Proposals]]) -> Iterator[Proposals]:
    try:
        for entry in reader(path):
            entry = check_entry(path, entry)
            order = np.argsort(-entry.scores, kind="stable")
            # Copies also where nothing moves: a picture must not keep the arrays of all in memory.
            masks = None if entry.masks is None else [entry.masks[i] for i in order]
            yield entry._replace(boxes=entry.boxes[order], scores=entry.scores[order], masks=masks)
    except ProposalFileError:
        raise
    except (DetectionError, MatlabFileError) as error:
        raise ProposalFileError(str(error)) from error
    # Five parsers: a damaged file can raise nearly anything.
    except Exception as error:
        text = f"{path}: is not a {path.suffix} file of proposals, or damaged ({reason_of(error)})"
        raise ProposalFileError(text) from error


def check_suffix(path: str | Path) -> str:
    """Return the suffix of a proposal file, in lower case.

    Raises
    ------
    ProposalFileError
        If it is not one of `PROPOSAL_SUFFIXES`.

    Examples
    --------
    >>> check_suffix("p.PKL")
    '.pkl'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in PROPOSAL_SUFFIXES:
        raise ProposalFileError(f"{path}: its name must end in one of {', '.join(PROPOSAL_SUFFIXES)}")
    return suffix


def write_detections(
    path: str | Path,
    entries: Iterable[tuple[str, int, int, Detections]],
    classes: Sequence[str],
    image_ids: Mapping[str, int | str] | None = None,
    category_ids: Mapping[str, int | str] | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    r"""Write the detections of many pictures as one COCO document or, under a name ``*.parquet``, as a Parquet file.

    `entries` is consumed picture by picture and the file written on the way, so that a run over a million
    pictures does not gather them in memory. The file appears under its name when it is complete.

    The Parquet file has a row a picture: ``file``, ``width``, ``height``, ``boxes`` (lists of four float32,
    ``x1 y1 x2 y2`` in pixels), ``scores`` (lists of float32), ``labels`` (lists of int16, positions in the classes),
    in row groups of about 8 MB. The names of the classes are a JSON list under ``classes`` in the metadata.

    Parameters
    ----------
    path : str or Path
        The file, usually ``detections.json`` or ``detections.parquet``.
    entries : iterable of (file_name, width, height, Detections)
        The pictures, each with its size in pixels.
    classes : sequence of str
        The classes of the document. Every class that a `Detections` mentions must be among them.
    image_ids : mapping of str to int or str, optional
        The id of each picture by its ``file_name``, for results that are compared with a document that has
        its own. Without it the pictures are counted from 1. A Parquet file has no ids.
    category_ids : mapping of str to int or str, optional
        The id of each class; without it the 1-based positions in `classes`.
    metadata : mapping of str to str, optional
        Goes into the metadata of a Parquet file; JSON has no place for it.

    Raises
    ------
    DetectionError
        If a score or a coordinate is not finite, a box ends before it begins, a label is not one of `classes`, or
        `image_ids` lacks a picture or `category_ids` a class; if there are more than 32,768 classes for Parquet.
    SettingError
        If `classes` is one name.
    OSError
        If the file cannot be written.

    Notes
    -----
    In JSON numbers have 9 digits, float64 scores as many as they need: `read_detections` gives back the same float64
    scores or, rounded to float32, the same float32 scores, and the same float32 boxes where they begin inside the
    picture. Parquet gives back the same float32 numbers; it rounds float64 scores to them. In it bytes of a file's name
    that are no text are written as ``\xff``.

    In JSON every annotation has an empty ``segmentation``: Detectron and Datumaro, by which CVAT imports, ask for the
    field.

    References
    ----------
    https://cocodataset.org/#format-data

    Examples
    --------
    >>> import tempfile
    >>> boxes, scores = np.array([[1, 2, 4, 8]], np.float32), np.ones(1, np.float32)
    >>> found = Detections(boxes, scores, np.array([0]), ("cat",))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("detections.json", "detections.parquet"):
    ...         write_detections(f"{folder}/{name}", [("a.jpg", 20, 10, found)], ("cat",))
    ...         read_detections(f"{folder}/{name}")["a"].boxes.tolist()
    [[1.0, 2.0, 4.0, 8.0]]
    [[1.0, 2.0, 4.0, 8.0]]
    """
    path, classes = Path(path), check_names("classes", classes)
    if _is_parquet(path):
        with atomic_file(path) as file:
            write_detections_parquet(file, entries, classes, metadata)
    else:
        write_coco_detections(path, entries, classes, image_ids, category_ids)


def read_detections(path: str | Path, key: Literal["stem", "image_id", "file_name"] = "stem") -> dict[str, Detections]:
    """Read a file that `write_detections` wrote, or any COCO document whose annotations have a ``score``.

    Parameters
    ----------
    path : str or Path
        The file, Parquet if its name ends so, or the folder in which it is called ``detections.json`` or, if that is
        not there, ``detections.parquet``. Or a URL of these, which is copied first.
    key : {"stem", "image_id", "file_name"}
        By what names the result has the pictures: "stem" is the file's name without folder and suffix, which is
        the image id of VOC; "image_id" is the name without suffix, which is the image id of `read_coco` and
        `read_ilsvrc`; "file_name" is the document's own name. Folders are parted by forward slashes, also where the
        document has backslashes.

    Returns
    -------
    dict of str to Detections
        Every picture of the file in its order, also those without detections. ``classes`` are the document's
        categories in the order of their ids. Scores are float64, of a Parquet file float32.

    Raises
    ------
    DetectionError
        If the file is missing or malformed, has a number that is not finite or a box of negative size, two pictures
        have the same id or are called the same (two of equal "stem" can still be read by "file_name"), two
        categories have the same id or name, or it is a plain list of results, for which there is
        `read_coco_results`. In JSON all bad detections are counted, and the first ten named; in Parquet the first
        picture with a bad one is named.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_detections(f"{folder}/detections.json", [], ("cat", "dog"))
    ...     read_detections(folder)
    {}
    """
    check_choice("key", key, [*NAME_FORMS])
    path = detections_file(path)
    if not _is_parquet(path):
        return read_coco_detections(path, key)
    form, shorten = NAME_FORMS[key]
    entries = [(shorten(name), found) for name, _, _, found in read_detections_parquet(path)]
    check_distinct({i: name for i, (name, _) in enumerate(entries)}, "pictures", path, DetectionError, form)
    return dict(entries)


def detections_file(path: str | Path) -> Path:
    """Return the file of detections that is named, or that is in the folder named; of a URL, a copy."""
    path = local_copy(path, _DETECTIONS)
    if not path.is_dir():
        return path
    document, table = (path / name for name in _DETECTIONS)
    return table if table.exists() and not document.exists() else document


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def read_detection_entries(path: str | Path) -> list[tuple[str, int, int, Detections]]:
    """Read what `write_detections` was given: the pictures of a file with their names and sizes.

    Parameters
    ----------
    path : str or Path
        The file, Parquet if its name ends so, or the folder in which it is called ``detections.json`` or, if that is
        not there, ``detections.parquet``. Or a URL of these, which is copied first.

    Returns
    -------
    list of (file_name, width, height, Detections)
        In the order of the file, names with forward slashes. A size that it does not tell is 0.

    Raises
    ------
    DetectionError
        If the file is missing or malformed, or two pictures have the same name.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_detections(f"{folder}/detections.json", [], ("cat", "dog"))
    ...     read_detection_entries(folder)
    []
    """
    path = detections_file(path)
    if not _is_parquet(path):
        return read_coco_entries(path)
    entries = [(forward_slashes(name), w, h, found) for name, w, h, found in read_detections_parquet(path)]
    check_distinct({i: name for i, (name, *_) in enumerate(entries)}, "pictures", path, DetectionError)
    return entries


def read_detection_names(path: Path) -> list[str]:
    """Names of the pictures in a file of detections, as they were written, without reading it as a whole."""
    return read_names_parquet(path) if _is_parquet(path) else read_coco_names(path)
