"""Ranked boxes of many pictures, in the files that other programs read.

The suffix says which: ``.parquet`` (a row a picture), ``.npz`` (NumPy), ``.mat`` (Fast R-CNN), ``.pkl``
(Detectron and Detectron2) and ``.json`` (COCO). Inside the program boxes are continuous and 0-based; the
conventions of these formats begin and end here.
"""

import pickle
import pickletools
import posixpath
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .detections import DetectionError, Detections, read_detection_entries, write_detections
from .formats.matlab5 import MatlabFileError, read_matlab
from .system.atomic_files import atomic_file, atomic_write

if TYPE_CHECKING:
    import pyarrow

# pyarrow and scipy.io are imported where they are used: together they would double the time that importing
# this package takes.

__all__ = [
    "PROPOSAL_SUFFIXES",
    "ProposalFileError",
    "Proposals",
    "check_image_ids",
    "check_suffix",
    "read_proposals",
    "write_proposals",
]

PROPOSAL_SUFFIXES = (".parquet", ".json", ".mat", ".pkl", ".npz")
ROW_GROUP_BYTES = 32 * 2**20  # what is gathered in memory before it goes to a Parquet file
MAT_VARIABLE_BYTES = 2**31  # MATLAB's limit for a variable in a file of version 5
MAX_RATIO = 100  # arrays of boxes are not compressed as far as this


class ProposalFileError(ValueError):
    """A file of proposals cannot be read or written; the text is one line: which file, what is wrong."""


class Proposals(NamedTuple):
    """The ranked boxes of one picture.

    Attributes
    ----------
    file : str
        Name of the picture, such as "train/000005.jpg", with forward slashes. From a ``.mat`` or ``.pkl``
        file: the picture's id in it.
    width, height : int
        Size in pixels; 0 where the format does not tell (``.mat``, ``.pkl``).
    boxes : ndarray of float32, shape (N, 4)
        ``x1 y1 x2 y2`` in pixels, continuous, 0-based, best first.
    scores : ndarray of float32, shape (N,)
        Higher is better; they never rise.

    Examples
    --------
    >>> Proposals("a.jpg", 20, 10, np.zeros((0, 4), np.float32), np.zeros(0, np.float32)).file
    'a.jpg'
    """

    file: str
    width: int
    height: int
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


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
            _write_parquet(file, _each(path, entries), metadata)
        return

    files, table = _survey(path, entries)
    if image_ids is not None and suffix in (".pkl", ".json"):
        image_ids = check_image_ids(path, files, image_ids)
    if suffix == ".json":
        write_detections(path, map(_as_detections, _each(path, entries)), _CLASSES, image_ids)
    elif suffix == ".pkl":
        ids = _short_names(files) if image_ids is None else list(image_ids.values())
        atomic_write(path, _pickled(lambda: _each(path, entries), ids))
    elif suffix == ".mat":
        _check_mat_size(path, table)
        with atomic_file(path) as file:
            _write_mat(file, len(files), lambda i: _checked(path, entries[i]).boxes, _short_names(files))
    else:
        with atomic_file(path) as file:
            _write_npz(file, lambda: _each(path, entries), files, table)


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
    readers = {
        ".parquet": _read_parquet,
        ".json": _read_json,
        ".mat": _read_mat,
        ".pkl": _read_pickle,
        ".npz": _read_npz,
    }
    reader = readers[check_suffix(path)]
    if not path.is_file():
        raise ProposalFileError(f"{path}: there is no such file; check its name")
    return _read(path, reader)


def _read(path: Path, reader: Callable[[Path], Iterable[Proposals]]) -> Iterator[Proposals]:
    try:
        for entry in reader(path):
            entry = _checked(path, entry)
            order = np.argsort(-entry.scores, kind="stable")
            # Copies also where nothing moves: a picture must not keep the arrays of all in memory.
            yield entry._replace(boxes=entry.boxes[order], scores=entry.scores[order])
    except ProposalFileError:
        raise
    except (DetectionError, MatlabFileError) as error:
        raise ProposalFileError(str(error)) from error
    # Five parsers, and bytes that nobody vouches for: there is no list of what they may raise.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ProposalFileError(f"{path}: is not a {path.suffix} file of proposals, or damaged ({reason})") from error


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


def _checked(path: Path, entry: Proposals) -> Proposals:
    """Return the entry with plain float32 arrays that fit together and are finite."""
    with np.errstate(over="ignore"):  # becomes an infinity, which is refused below
        # One score may come as a number; this makes an array of it.
        boxes, scores = (np.ascontiguousarray(array, np.float32) for array in (entry.boxes, entry.scores))
    entry = Proposals(str(entry.file), int(entry.width), int(entry.height), boxes, scores)
    problem = ""
    if boxes.shape != (len(scores), 4) or scores.ndim != 1:
        problem = f"boxes {boxes.shape} and scores {scores.shape} do not fit: (N, 4) and (N,) are expected"
    elif not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        problem = "a coordinate or a score is not a finite number"
    elif (boxes[:, 2:] < boxes[:, :2]).any():
        problem = "a box ends before it begins"
    elif not (0 <= entry.width < 2**31 and 0 <= entry.height < 2**31):
        problem = f"the picture's size is {entry.width} x {entry.height}"
    elif any("\ud800" <= letter <= "\udfff" for letter in entry.file):
        problem = "the name of the picture is not valid Unicode; rename it"
    if problem:
        raise ProposalFileError(f"{path}: {entry.file!r}: {problem}")
    return entry


def _each(path: Path, entries: Sequence[Proposals]) -> Iterator[Proposals]:
    """Yield the entries to write, one at a time."""
    for i in range(len(entries)):
        entry = _checked(path, entries[i])
        # The readers of these formats rank by score.
        if (entry.scores[1:] > entry.scores[:-1]).any():
            raise ProposalFileError(f"{path}: {entry.file!r}: its scores rise; boxes are expected best first")
        yield entry


def _survey(path: Path, entries: Sequence[Proposals]) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the pictures and, a row each, their width, height and number of boxes."""
    files: list[str] = []
    table = np.zeros((len(entries), 3), np.int64)
    for entry in _each(path, entries):
        table[len(files)] = entry.width, entry.height, len(entry.scores)
        files.append(entry.file)
    (most, times), *_ = [*Counter(files).most_common(1), ("", 0)]
    if times > 1:
        raise ProposalFileError(f"{path}: two pictures are called {most!r}; make them distinct")
    return files, table


def _short_names(files: Sequence[str]) -> list[str]:
    whole = [posixpath.splitext(file)[0] for file in files]
    for names in ([posixpath.basename(name) for name in whole], whole):
        if len(set(names)) == len(names):
            return names
    return list(files)


def check_image_ids(path: str | Path, files: Iterable[str], image_ids: Mapping[str, int | str]) -> dict[str, int | str]:
    """Take the ids that `write_proposals` will need: it does this itself, but after the work that its entries are.

    Parameters
    ----------
    path : str or Path
        The file to write, for the errors.
    files : iterable of str
        Names of the pictures.
    image_ids : mapping of str to int or str
        Ids by name.

    Returns
    -------
    dict of str to int or str
        Of these pictures, in their order.

    Raises
    ------
    ProposalFileError
        If a picture has no id, or two have the same.

    Examples
    --------
    >>> check_image_ids("p.pkl", ["b.jpg"], {"a.jpg": 1, "b.jpg": 2})
    {'b.jpg': 2}
    """
    ids: dict[str, int | str] = {}
    owner: dict[int | str, str] = {}
    for file in files:
        if file not in image_ids:
            raise ProposalFileError(
                f"{path}: image_ids has no id for {file!r}; with no image id it cannot be written: add it or leave "
                "image_ids out"
            )
        chosen = image_ids[file]
        ids[file] = chosen if isinstance(chosen, str) else int(chosen)  # NumPy's integers are no JSON
        other = owner.setdefault(ids[file], file)
        if other != file:
            raise ProposalFileError(
                f"{path}: two pictures have the id {ids[file]!r}, {other!r} and {file!r}; "
                "no two may have the same image id"
            )
    return ids


def _take(path: Path, holder: Mapping[str, Any], *names: str) -> list[Any]:
    for name in names:
        if name not in holder:
            there = " ".join(", ".join(map(str, holder)).split())[:200] or "nothing"
            raise ProposalFileError(f"{path}: has no {name!r}, which is expected beside {names}; there is: {there}")
    return [holder[name] for name in names]


# Parquet


def _schema() -> "pyarrow.Schema":
    # Boxes of a fixed size and not lists of any: on the disk they are the same, but pyarrow, pandas and polars
    # then know, and check, that a box has four numbers. Nothing may be null, which saves a bit a number.
    import pyarrow as pa

    number = pa.field("element", pa.float32(), nullable=False)
    box = pa.field("element", pa.list_(number, 4), nullable=False)
    columns = {
        "file": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "boxes": pa.list_(box),
        "scores": pa.list_(number),
    }
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


def _write_parquet(file: BinaryIO, pictures: Iterable[Proposals], metadata: Mapping[str, str] | None) -> None:
    import pyarrow.parquet as pq

    schema = _schema().with_metadata(dict(metadata or {}))
    # Dictionaries, Parquet's own compression of repeated values, make files of boxes larger under zstd.
    with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False) as writer:
        group: list[Proposals] = []
        size = 0
        for picture in pictures:
            group.append(picture)
            size += 64 + picture.boxes.nbytes + picture.scores.nbytes
            if size >= ROW_GROUP_BYTES:
                writer.write_table(_as_table(group, schema))
                group, size = [], 0
        if group:
            writer.write_table(_as_table(group, schema))


def _as_table(group: Sequence[Proposals], schema: "pyarrow.Schema") -> "pyarrow.Table":
    import pyarrow as pa

    files, widths, heights, boxes, scores = zip(*group, strict=True)
    kind = schema.field("boxes").type
    offsets = pa.array(np.cumsum([0, *map(len, scores)], dtype=np.int32))
    numbers = pa.array(np.concatenate(boxes).ravel())
    columns = [
        pa.array(files, pa.string()),
        pa.array(widths, pa.int32()),
        pa.array(heights, pa.int32()),
        pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(numbers, type=kind.value_type), type=kind),
        pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(scores)), type=schema.field("scores").type),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _read_parquet(path: Path) -> Iterator[Proposals]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    # Buffered beforehand, the whole file would stay in memory.
    with pq.ParquetFile(path, pre_buffer=False) as file:
        _take(path, dict.fromkeys(file.schema_arrow.names), *schema.names)
        for batch in file.iter_batches(batch_size=64, columns=schema.names):
            # Other programs' double numbers and lists of any length become ours, or it is an error.
            table = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            for name, width, height, boxes, scores in zip(*table.columns, strict=True):
                yield Proposals(
                    name.as_py(),
                    width.as_py(),
                    height.as_py(),
                    boxes.values.flatten().to_numpy(zero_copy_only=False).reshape(-1, 4),
                    scores.values.to_numpy(zero_copy_only=False),
                )


# NumPy


def _write_npz(
    file: BinaryIO, pictures: Callable[[], Iterator[Proposals]], files: Sequence[str], table: NDArray[np.int64]
) -> None:
    """Write what ``np.savez`` would, which wants whole arrays, piece by piece and without the time of day."""
    offsets = np.concatenate([[0], np.cumsum(table[:, 2])])
    text = f"<U{max(map(len, files), default=1) or 1}"
    names = (np.array(files[i : i + 1000], text) for i in range(0, len(files), 1000))
    arrays: list[tuple[str, str, tuple[int, ...], Iterable[NDArray[Any]]]] = [
        ("files", text, (len(files),), names),
        ("sizes", "<i4", (len(files), 2), [table[:, :2]]),
        ("offsets", "<i8", (len(files) + 1,), [offsets]),
        ("boxes", "<f4", (int(offsets[-1]), 4), (picture.boxes for picture in pictures())),
        ("scores", "<f4", (int(offsets[-1]),), (picture.scores for picture in pictures())),
    ]
    with zipfile.ZipFile(file, "w") as archive:
        for name, kind, shape, pieces in arrays:
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, {"descr": kind, "fortran_order": False, "shape": shape})
                for piece in pieces:
                    member.write(piece.astype(kind).tobytes())


def _read_npz(path: Path) -> Iterator[Proposals]:
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MAX_RATIO * path.stat().st_size:
        raise ProposalFileError(f"{path}: would unpack to {size} bytes, over {MAX_RATIO} times its size; refused")
    with np.load(path, allow_pickle=False) as arrays:
        files, sizes, offsets, boxes, scores = _take(path, arrays, "files", "sizes", "offsets", "boxes", "scores")
    cuts = offsets.tolist()
    if (
        len(cuts) != len(files) + 1
        or sizes.shape != (len(files), 2)
        or cuts != sorted(cuts)
        or (cuts[0], cuts[-1], len(scores)) != (0, len(boxes), len(boxes))
    ):
        raise ProposalFileError(f"{path}: its arrays 'files', 'sizes', 'offsets', 'boxes' and 'scores' do not fit")
    for file, (width, height), start, end in zip(files.tolist(), sizes.tolist(), cuts[:-1], cuts[1:], strict=True):
        yield Proposals(file, width, height, boxes[start:end], scores[start:end])


# MATLAB


class _Cell:
    """A cell whose content is made when scipy writes it, so that only one is in memory."""

    __slots__ = ("content", "i")

    def __init__(self, content: Callable[[int], NDArray[Any]], i: int) -> None:
        self.content = content
        self.i = i

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.content(self.i)


def _check_mat_size(path: Path, table: NDArray[np.int64]) -> None:
    # Of a cell: 56 bytes of headers and 4 double numbers a box.
    size = 56 * len(table) + 32 * int(table[:, 2].sum())
    if size >= MAT_VARIABLE_BYTES:
        raise ProposalFileError(
            f"{path}: {size} bytes of boxes are more than a .mat file can hold ({MAT_VARIABLE_BYTES}); "
            "write .parquet, or fewer boxes or pictures"
        )


def _write_mat(file: BinaryIO, count: int, boxes_of: Callable[[int], NDArray[np.float32]], ids: Sequence[str]) -> None:
    import scipy.io

    def to_matlab(i: int) -> NDArray[np.float64]:
        corners = np.rint(boxes_of(i).astype(np.float64))
        first = corners[:, 1::-1] + 1
        return np.concatenate([first, np.maximum(corners[:, :1:-1], first)], axis=1)

    boxes, images = np.empty((1, count), object), np.empty((count, 1), object)
    for i in range(count):
        boxes[0, i], images[i, 0] = _Cell(to_matlab, i), _Cell(lambda i: np.array(ids[i]), i)
    # savemat writes a header with the time of day, but only at the beginning of a file.
    file.write(struct.pack("=116s8xHH", b"MATLAB 5.0 MAT-file, proposals".ljust(116), 0x0100, 0x4D49))
    scipy.io.savemat(file, {"boxes": boxes, "images": images})


def _read_mat(path: Path) -> Iterator[Proposals]:
    cells = {name: value for name, value in read_matlab(path).items() if isinstance(value, list)}
    boxes, images = _take(path, cells, "boxes", "images")
    if len(boxes) != len(images):
        raise ProposalFileError(f"{path}: the cells 'boxes' ({len(boxes)}) and 'images' ({len(images)}) do not fit")
    for image, array in zip(images, boxes, strict=True):
        # y1 x1 y2 x2, from 1, both included. MATLAB's empty array is 0 x 0.
        corners: Any = np.asarray(array, np.float64)
        corners = (corners if corners.size else np.zeros((0, 4)))[:, (1, 0, 3, 2)] - [1, 1, 0, 0]
        scores = (1 / np.arange(1, len(corners) + 1)).astype(np.float32)
        yield Proposals(str(image), 0, 0, corners, scores)


# Detectron's pickles


def _pickled(pictures: Callable[[], Iterator[Proposals]], ids: Sequence[int | str]) -> Iterator[bytes]:
    """Pickle ``{"boxes": [...], "scores": [...], "ids": [...]}`` piece by piece.

    Protocol 2, the newest that Python 2 reads, as Detectron was written for it.
    """
    lists: dict[str, Iterable[object]] = {
        "boxes": (picture.boxes for picture in pictures()),
        "scores": (picture.scores for picture in pictures()),
        "ids": ids,
    }
    yield pickle.PROTO + b"\2" + pickle.EMPTY_DICT + pickle.MARK
    for key, items in lists.items():
        yield _body(key) + pickle.EMPTY_LIST + pickle.MARK
        for i, item in enumerate(items, start=1):
            yield _body(item)
            if i % 1000 == 0:  # the reader's stack holds what is not in the list yet
                yield pickle.APPENDS + pickle.MARK
        yield pickle.APPENDS
    yield pickle.SETITEMS + pickle.STOP


def _body(item: object) -> bytes:
    """Pickle one object without the frame of a file; a later one may overwrite its memory of earlier parts."""
    data = pickle.dumps(item, 2)[2:-1]
    # NumPy 2 knows its old name, NumPy 1 does not know the new one.
    return data.replace(b"cnumpy._core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\n_reconstruct\n", 1)


def _read_pickle(path: Path) -> Iterator[Proposals]:
    with open(path, "rb") as file:
        # A pickle numbers its parts, and reading it makes room for as many as the highest number says.
        size = path.stat().st_size
        for operation, number, _ in pickletools.genops(file):
            if operation.name.endswith("PUT") and number is not None and number > size:
                raise ProposalFileError(f"{path}: claims more parts than it has bytes; refused")
        file.seek(0)
        # latin1 is how the bytes of Python 2 become text.
        document = _Unpickler(file, encoding="latin1").load()
    if not isinstance(document, dict):
        raise ProposalFileError(f"{path}: is not a dict of 'boxes', 'scores' and 'ids'")
    # The names before Detectron's, and those of Detectron2.
    for other, name in (("indexes", "ids"), ("objectness_logits", "scores")):
        if other in document:
            document[name] = document[other]
    mode = document.get("bbox_mode", 0)
    if mode not in (0, 1):
        raise ProposalFileError(f"{path}: bbox_mode is {mode!r}; 0 (x1 y1 x2 y2) or 1 (x y w h) are expected")
    lists = _take(path, document, "ids", "boxes", "scores")
    if len(set(map(len, lists))) > 1:
        raise ProposalFileError(f"{path}: its lists 'ids', 'boxes' and 'scores' are not equally long")
    for name, boxes, scores in zip(*lists, strict=True):
        corners = np.asarray(boxes)
        if mode == 1:
            corners = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1)
        yield Proposals(str(name), 0, 0, corners, scores)


class _Unpickler(pickle.Unpickler):
    """Unpickle numbers, texts, lists, dicts and arrays of numbers, and refuse the rest.

    A pickle is a program that may call whatever it can name. Here the names in it that NumPy's arrays need
    lead to the harmless stand-ins below, also because NumPy's own functions trust what they are given.
    """

    def find_class(self, module: str, name: str) -> Any:
        # New functions every time, since a pickle can also set attributes.
        allowed: dict[str, Any] = {
            "numpy.ndarray": _Array,
            "numpy.dtype": _Kind,
            "numpy.core.multiarray._reconstruct": _Array,
            "numpy.core.multiarray.scalar": lambda kind, data: kind.array(data, ()).item(),
            "numpy.core.numeric._frombuffer": lambda data, kind, shape, order: _Array(kind.array(data, shape, order)),
            "_codecs.encode": lambda text, _: text.encode("latin1"),
            "__builtin__.bytes": lambda: b"",
            "builtins.bytes": lambda: b"",
        }
        # The module's name since NumPy 2.
        name = f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1)
        if name not in allowed:
            raise pickle.UnpicklingError(f"{name} is refused: only numbers, texts and arrays are taken from a pickle")
        return allowed[name]


class _Kind:
    """What a pickle says of an array's dtype."""

    def __init__(self, text: str, *_: object) -> None:
        self.text = text

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.text = f"{state[1]}{self.text}"  # byte order

    def array(self, data: bytes | str, shape: Any, order: Any = "C") -> NDArray[Any]:
        if not re.fullmatch(r"[<>=|]?[biuf][1248]", str(self.text)):
            raise pickle.UnpicklingError(f"an array of {self.text!r} is refused: only arrays of numbers are taken")
        return np.ndarray(shape, self.text, data.encode("latin1") if isinstance(data, str) else data, order=order)


class _Array:
    """What a pickle says of an array; first nothing of use, then in a second step all."""

    def __init__(self, values: object, *_: object) -> None:
        self.values = values

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        self.values = kind.array(data, shape, "F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.values, dtype)


# COCO

_CLASSES = ("object",)


def _as_detections(picture: Proposals) -> tuple[str, int, int, Detections]:
    labels = np.zeros(len(picture.scores), np.int64)
    found = Detections(picture.boxes, picture.scores, labels, _CLASSES)
    return picture.file, picture.width, picture.height, found


def _read_json(path: Path) -> Iterator[Proposals]:
    for name, width, height, found in read_detection_entries(path):
        yield Proposals(name, width, height, found.boxes, found.scores.astype(np.float32))
