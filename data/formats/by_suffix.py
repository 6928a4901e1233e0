"""Files of ranked boxes in the format that the suffix names.

``.parquet`` (a row a picture), ``.npz`` (NumPy), ``.mat`` (Fast R-CNN), ``.pkl`` (Detectron and Detectron2) and
``.json`` (COCO).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import DetectionError, MatlabFileError, ProposalFileError, reason_of
from ..picture_names import short_names
from ..proposals import Proposals, check_entry, check_image_ids, checked_entries, survey_entries
from ..system.atomic_files import atomic_file, atomic_write
from .coco import OBJECT, proposals_as_detections, read_coco_proposals, write_detections
from .detectron_pickle import pickle_pieces, read_pickle
from .fast_rcnn_mat import check_mat_size, read_mat, write_mat
from .npz import read_npz, write_npz
from .parquet import read_parquet, write_parquet

_READERS: dict[str, Callable[[Path], Iterable[Proposals]]] = {
    ".parquet": read_parquet,
    ".json": read_coco_proposals,
    ".mat": read_mat,
    ".pkl": read_pickle,
    ".npz": read_npz,
}
PROPOSAL_SUFFIXES = tuple(_READERS)


def write_proposals(
    path: str | Path,
    entries: Sequence[Proposals],
    *,
    image_ids: Mapping[str, int | str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the proposals of many pictures to one file, in the format that its suffix names.

    ==========  ============================================================================================
    .parquet    A row a picture: ``file``, ``width``, ``height``, ``boxes``, ``scores``.
    .npz        Arrays ``files`` (P,), ``sizes`` (P, 2), ``offsets`` (P + 1,), ``boxes`` (T, 4) and ``scores``
                (T,); picture i has ``boxes[offsets[i]:offsets[i + 1]]``.
    .mat        MATLAB 5: cells ``boxes`` (1, P), each (N, 4) double ``y1 x1 y2 x2``, whole pixels from 1, both
                corners included, and ``images`` (P, 1), the ids. No scores; at most 2 GB, about 60 million
                boxes.
    .pkl        A pickled dict of the lists ``boxes``, ``scores`` and ``ids``.
    .json       A COCO document with one category, "object".
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
        formats going through several times, and no more is kept than a Parquet file's row group of 32 MB (and
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
        If the suffix is not known, an entry is malformed (arrays that do not fit, a number that is not
        finite, a box that ends before it begins, scores that rise), two pictures have the same name or id (not
        checked in ``.parquet``), `image_ids` lacks a picture, or the boxes are too many for ``.mat``. The old file,
        if any, stays.
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
        write_detections(path, map(proposals_as_detections, checked_entries(path, entries)), OBJECT, image_ids)
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
        The file; its suffix is one of `PROPOSAL_SUFFIXES`.

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
    path = Path(path)
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
            yield entry._replace(boxes=entry.boxes[order], scores=entry.scores[order])
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
