import contextlib
import io
import json
import os
import pickle
import pickletools
import stat
import struct
import time
import tracemalloc
import warnings
import weakref
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from builders import make_detections, random_boxes
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from inception_rcnn.data import (
    PROPOSAL_SUFFIXES,
    DetectionError,
    ProposalFileError,
    Proposals,
    read_proposals,
    write_detections,
    write_proposals,
)
from inception_rcnn.data.formats import fast_rcnn_mat, parquet


def proposals(file, count, seed=0, width=500, height=400):
    rng = np.random.default_rng(seed)
    boxes = random_boxes(count, width, height, rng, smallest=0)
    scores = np.sort(rng.random(count, np.float32))[::-1]
    return Proposals(file, width, height, boxes, scores)


@pytest.fixture
def entries():
    return [proposals("train/000005.jpg", 30, 1), proposals("train/000007.jpg", 0), proposals("val/é 9.png", 1, 2)]


def assert_same(found, written, names=None):
    """Compare with what was written; `names` for formats that keep no more than an id."""
    found = list(found)
    assert len(found) == len(written)
    for i, (a, b) in enumerate(zip(found, written, strict=True)):
        assert a[:3] == (b[:3] if names is None else (names[i], 0, 0))
        assert a.masks == b.masks
        for got, expected in zip(a[3:5], b[3:5], strict=True):
            assert got.dtype == np.float32
            assert got.flags.c_contiguous
            np.testing.assert_array_equal(got, expected)


def rounded(entry):
    scores = (1 / np.arange(1, len(entry.scores) + 1)).astype(np.float32)
    return entry._replace(boxes=np.rint(entry.boxes), scores=scores)


def masked(entry, seed=0):
    """The entry with masks of pixels at random."""
    rng, size = np.random.default_rng(seed), (entry.height, entry.width)
    drawn = [np.asfortranarray(rng.random(size) < rng.random(), np.uint8) for _ in entry.scores]
    return entry._replace(masks=[coco_mask.encode(one)["counts"] for one in drawn])


@st.composite
def many_entries(draw):
    # Distinct names; no control characters, which file names do not have, and no halves of characters. A backslash
    # would be read as a slash.
    name = st.text(st.characters(exclude_categories=("C",), exclude_characters="/.\\"), min_size=1, max_size=8)
    paths = st.tuples(st.sampled_from(["", "train/", "val/ü/"]), name, st.sampled_from(["", ".jpg", ".tar.gz"]))
    files = draw(st.lists(paths.map("".join), unique=True, max_size=5))
    seed = draw(st.integers(0, 999))
    return [
        proposals(file, draw(st.integers(0, 20)), seed + i, draw(st.integers(1, 5000)), draw(st.integers(1, 5000)))
        for i, file in enumerate(files)
    ]


@settings(deadline=None, max_examples=40)
@given(many_entries())
def test_every_format_gives_back_what_was_written(tmp_path_factory, entries):
    folder = tmp_path_factory.mktemp("out")
    for suffix in PROPOSAL_SUFFIXES:
        write_proposals(folder / f"p{suffix}", entries)
    for suffix in (".parquet", ".npz", ".json"):
        assert_same(read_proposals(folder / f"p{suffix}"), entries)
    names = [entry.file for entry in read_proposals(folder / "p.pkl")]
    assert len(set(names)) == len(entries)
    assert all(name in entry.file for name, entry in zip(names, entries, strict=True))
    assert_same(read_proposals(folder / "p.pkl"), entries, names)
    # A box may round to nothing, which the format cannot say: then it keeps a pixel.
    expected = [rounded(entry) for entry in entries]
    for entry in expected:
        entry.boxes[:, 2:] = np.maximum(entry.boxes[:, 2:], entry.boxes[:, :2] + 1)
    assert_same(read_proposals(folder / "p.mat"), expected, names)


@pytest.mark.parametrize("suffix", PROPOSAL_SUFFIXES)
def test_the_same_entries_give_the_same_bytes(tmp_path, monkeypatch, entries, suffix):
    write_proposals(tmp_path / f"a{suffix}", entries)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setattr(time, "asctime", lambda *_: "another day")
    write_proposals(tmp_path / f"b{suffix}", [entry._replace(boxes=entry.boxes.copy("F")) for entry in entries])
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", PROPOSAL_SUFFIXES)
def test_no_pictures_and_no_boxes(tmp_path, suffix):
    path = tmp_path / f"p{suffix.upper()}"
    write_proposals(path, [])
    assert list(read_proposals(path)) == []
    write_proposals(path, [proposals("a.jpg", 0), proposals("b.jpg", 0)])
    assert [(entry.boxes.shape, entry.scores.shape) for entry in read_proposals(path)] == [((0, 4), (0,))] * 2


class Lazy:
    """Entries that are made when asked for, and counted while they live."""

    def __init__(self, pictures, boxes):
        self.pictures, self.boxes = pictures, boxes
        self.asked, self.alive, self.most = [], weakref.WeakSet(), 0

    def __len__(self):
        return self.pictures

    def __getitem__(self, i):
        self.asked.append(i)
        boxes = np.full((self.boxes, 4), i, np.float32).view(Counted)
        self.alive.add(boxes)
        self.most = max(self.most, len(self.alive))
        return Proposals(f"{i}.jpg", 9, 9, boxes, np.zeros(self.boxes, np.float32))


class Counted(np.ndarray):
    __hash__ = object.__hash__


@pytest.mark.parametrize("suffix", PROPOSAL_SUFFIXES)
def test_few_pictures_are_in_memory_at_a_time(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 2**20)
    boxes = 40 if suffix == ".json" else 2000  # text is slow
    entries = Lazy(500, boxes)
    write_proposals(tmp_path / f"warm{suffix}", Lazy(2, 2))  # imports
    tracemalloc.start()
    try:
        write_proposals(tmp_path / f"p{suffix}", entries)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The one that is written and the next; of Parquet, a row group of 1 MB.
    assert entries.most <= (30 if suffix == ".parquet" else 3)
    assert peak < (2**20 if suffix == ".json" else 4 * 2**20)  # of 20 million bytes
    # In order, pass after pass.
    assert entries.asked == list(range(500)) * (len(entries.asked) // 500)


def test_a_parquet_file_is_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 2**20)
    write_proposals(tmp_path / "p.parquet", [proposals(f"{i}.jpg", 500, i) for i in range(800)])
    assert (tmp_path / "p.parquet").stat().st_size > 5 * 2**20
    assert next(read_proposals(tmp_path / "p.parquet")).boxes.base is None  # also imports
    most, count = 0, 0
    tracemalloc.start()
    try:
        for entry in read_proposals(tmp_path / "p.parquet"):
            most, count = max(most, pa.total_allocated_bytes()), count + len(entry.scores)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 400_000
    assert most + peak < 4 * 2**20, (most, peak)


def test_parquet_as_pyarrow_reads_it(tmp_path, monkeypatch, entries):
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 100)
    write_proposals(tmp_path / "p.parquet", entries, metadata={"mode": "fast", "ключ": "é"})
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names == ["file", "width", "height", "boxes", "scores"]
    assert table.schema.metadata == {b"mode": b"fast", "ключ".encode(): "é".encode()}
    for row, entry in zip(table.to_pylist(), entries, strict=True):
        assert (row["file"], row["width"], row["height"]) == entry[:3]
        np.testing.assert_array_equal(np.array(row["boxes"], np.float32).reshape(-1, 4), entry.boxes)
        np.testing.assert_array_equal(np.array(row["scores"], np.float32), entry.scores)
    assert pq.ParquetFile(tmp_path / "p.parquet").num_row_groups == 2


def test_parquet_of_other_programs(tmp_path, entries):
    columns = {
        "scores": [entry.scores.astype(float).tolist() for entry in entries],
        "boxes": [entry.boxes.astype(float).tolist() for entry in entries],
        "height": [entry.height for entry in entries],
        "width": [entry.width for entry in entries],
        "more": ["x"] * len(entries),
        "file": [entry.file for entry in entries],
    }
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    assert_same(read_proposals(tmp_path / "p.parquet"), entries)


def test_npz_as_numpy_reads_it(tmp_path, entries):
    write_proposals(tmp_path / "p.npz", entries)
    with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["boxes", "files", "offsets", "scores", "sizes"]
        assert [arrays[name].dtype.str for name in sorted(arrays)] == ["<f4", "<U16", "<i8", "<f4", "<i4"]
        offsets = arrays["offsets"]
        assert arrays["files"].tolist() == [entry.file for entry in entries]
        assert arrays["sizes"].tolist() == [[500, 400]] * 3
        for i, entry in enumerate(entries):
            np.testing.assert_array_equal(arrays["boxes"][offsets[i] : offsets[i + 1]], entry.boxes)
            np.testing.assert_array_equal(arrays["scores"][offsets[i] : offsets[i + 1]], entry.scores)


def test_mat_as_fast_rcnn_reads_it(tmp_path, entries):
    write_proposals(tmp_path / "voc.mat", entries)
    document = scipy.io.loadmat(tmp_path / "voc.mat")
    assert document["boxes"].shape == (1, 3)
    assert document["images"].shape == (3, 1)
    assert [name.item() for name in document["images"].ravel()] == ["000005", "000007", "é 9"]
    raw = document["boxes"].ravel()
    for i, entry in enumerate(entries):
        assert raw[i].dtype == np.float64
        boxes = raw[i][:, (1, 0, 3, 2)] - 1
        # 0-based whole pixels, both corners inside, as Fast R-CNN keeps them; at least one pixel.
        expected = np.rint(entry.boxes) - [0, 0, 1, 1]
        expected[:, 2:] = np.maximum(expected[:, 2:], expected[:, :2])
        np.testing.assert_array_equal(boxes.astype(np.uint16), expected)
        assert (boxes[:, 2:] >= boxes[:, :2]).all()


def test_mat_keeps_a_pixel_of_the_smallest_boxes(tmp_path):
    write_proposals(tmp_path / "p.mat", [Proposals("a", 9, 9, np.array([[3.1, 2, 3.4, 8]]), np.ones(1))])
    assert scipy.io.loadmat(tmp_path / "p.mat")["boxes"][0, 0].tolist() == [[3, 4, 8, 4]]


def cell(*contents):
    array = np.empty(len(contents), object)
    array[:] = contents
    return array


@pytest.mark.parametrize("compressed", [False, True])
def test_mat_of_other_programs(tmp_path, compressed):
    boxes = np.array([[2, 1, 10, 20], [1, 1, 5, 6]], np.uint16)
    document = {
        "more": {"boxes": 1},
        "boxes": cell(boxes, np.zeros((0, 0)), boxes[:1].astype(np.float32)),
        "images": cell("000005", "ü", "000009"),
        "numbers": np.arange(3),
    }
    scipy.io.savemat(tmp_path / "p.mat", document, do_compression=compressed)
    found = list(read_proposals(tmp_path / "p.mat"))
    assert [entry.file for entry in found] == ["000005", "ü", "000009"]
    assert [entry.boxes.tolist() for entry in found] == [[[0, 1, 20, 10], [0, 0, 6, 5]], [], [[0, 1, 20, 10]]]
    assert found[0].scores.tolist() == [1, 0.5]


def test_mat_as_matlab_writes_it(tmp_path):
    """Big-endian, double numbers packed as bytes, texts of 16-bit units, elements that were never set."""

    def element(kind, data):
        if len(data) <= 4:
            return struct.pack(">HH", len(data), kind) + data.ljust(4, b"\0")
        return struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    def matrix(kind, shape, name, content):
        head = element(6, struct.pack(">II", kind, 0)) + element(5, struct.pack(">2i", *shape)) + element(1, name)
        return element(14, head + content)

    boxes = matrix(6, (2, 4), b"", element(2, bytes([2, 1, 1, 1, 10, 5, 20, 6])))
    empty = struct.pack(">II", 14, 0)
    names = [matrix(4, (1, len(text)), b"", element(4, text.encode("utf-16-be"))) for text in ("aé5", "b")]
    data = b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0MI" + matrix(1, (1, 2), b"boxes", boxes + empty)
    packed = zlib.compress(matrix(1, (2, 1), b"images", b"".join(names)))
    (tmp_path / "p.mat").write_bytes(data + struct.pack(">II", 15, len(packed)) + packed)
    assert scipy.io.loadmat(tmp_path / "p.mat")["boxes"][0, 0].tolist() == [[2, 1, 10, 20], [1, 1, 5, 6]]
    first, second = read_proposals(tmp_path / "p.mat")
    assert (first.file, first.boxes.tolist()) == ("aé5", [[0, 1, 20, 10], [0, 0, 6, 5]])
    assert (second.file, second.boxes.shape) == ("b", (0, 4))


def test_mat_files_that_unfold_or_are_of_another_version(tmp_path):
    document = {"boxes": cell(np.zeros((10**5, 4))), "images": cell("a")}
    scipy.io.savemat(tmp_path / "p.mat", document, do_compression=True)
    with pytest.raises(ProposalFileError, match="over 100 times its size; refused"):
        list(read_proposals(tmp_path / "p.mat"))
    (tmp_path / "p.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + b"\0" * 384 + b"\x89HDF")
    with pytest.raises(ProposalFileError, match=r"p\.mat: is not a file of MATLAB 5.*'-v7'"):
        list(read_proposals(tmp_path / "p.mat"))


def test_what_a_mat_file_cannot_hold_is_refused_beforehand(tmp_path, monkeypatch, entries):
    write_proposals(tmp_path / "p.mat", entries)
    size = (tmp_path / "p.mat").stat().st_size
    monkeypatch.setattr(fast_rcnn_mat, "MAT_VARIABLE_BYTES", 56 * 3 + 32 * 31)
    with pytest.raises(ProposalFileError, match=r"p\.mat: 1160 bytes .*parquet"):
        write_proposals(tmp_path / "p.mat", entries)
    # The estimate is exact but for the variable's own header; the other variable is the names.
    assert 1160 < size < 1160 + 128 + 64 + 64 * 4 + 64


def detectron(path, roidb):
    """What detectron/datasets/json_dataset.py does with a file: sort all by id, then go along."""
    with open(path, "rb") as file:
        document = pickle.load(file)
    field = "indexes" if "indexes" in document else "ids"
    order = np.argsort(document[field])
    document = {key: [document[key][i] for i in order] for key in ("boxes", field, "scores")}
    for i, entry in enumerate(roidb):
        assert entry["id"] == document[field][i]
        entry["boxes"] = document["boxes"][i]
    return roidb


def detectron2(path, records):
    """What detectron2/data/build.py does with a file: look ids up as text, sort by score."""
    with open(path, "rb") as file:
        document = pickle.load(file, encoding="latin1")
    for old, new in (("indexes", "ids"), ("scores", "objectness_logits")):
        if old in document:
            document[new] = document.pop(old)
    assert document.get("bbox_mode", 0) == 0
    position = {str(image_id): i for i, image_id in enumerate(document["ids"])}
    for record in records:
        i = position[str(record["image_id"])]
        ranks = document["objectness_logits"][i].argsort()[::-1]
        record["proposal_boxes"] = document["boxes"][i][ranks]
        record["proposal_objectness_logits"] = document["objectness_logits"][i][ranks]
    return records


def test_pickle_as_detectron_reads_it(tmp_path, entries):
    ids = {"val/é 9.png": 7, "train/000005.jpg": np.int64(300), "train/000007.jpg": 2, "other.jpg": 1}
    write_proposals(tmp_path / "p.pkl", entries, image_ids=ids)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = detectron(tmp_path / "p.pkl", [{"id": 2}, {"id": 7}, {"id": 300}])
        second = detectron2(tmp_path / "p.pkl", [{"image_id": 300}, {"image_id": "7"}])
    for roi, entry in zip(first, (entries[1], entries[2], entries[0]), strict=True):
        assert roi["boxes"].dtype == np.float32
        np.testing.assert_array_equal(roi["boxes"], entry.boxes)
    for record, entry in zip(second, (entries[0], entries[2]), strict=True):
        np.testing.assert_array_equal(record["proposal_boxes"], entry.boxes)
        np.testing.assert_array_equal(record["proposal_objectness_logits"], entry.scores)


def test_pickle_is_fit_for_old_pythons_and_both_numpys(tmp_path, entries):
    write_proposals(tmp_path / "p.pkl", [entries[0]._replace(file=f"{i}") for i in range(1001)])
    data = (tmp_path / "p.pkl").read_bytes()
    operations = list(pickletools.genops(data))
    assert max(operation.proto for operation, _, _ in operations) == 2
    named = {argument for operation, argument, _ in operations if operation.name == "GLOBAL"}
    assert named == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype", "_codecs encode"}
    document = pickle.loads(data)
    assert list(document) == ["boxes", "scores", "ids"]
    assert document["ids"] == [str(i) for i in range(1001)]
    assert all(array.flags.writeable for array in document["boxes"])


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_other_programs(tmp_path, protocol):
    boxes, logits = np.array([[1, 2, 4, 8], [0, 0, 5, 5]], np.int16), np.array([-1.0, 3.0])
    document = {
        "indexes": [np.int64(7), "8", 9],
        "boxes": [boxes, np.asfortranarray(boxes, ">f8"), np.zeros((0, 4))],
        "objectness_logits": [logits, logits.astype(">f4"), np.zeros(0)],
        "bbox_mode": 1,
        "cfg": "a: b",
    }
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(document, protocol))
    found = list(read_proposals(tmp_path / "p.pkl"))
    assert [entry.file for entry in found] == ["7", "8", "9"]
    for entry in found[:2]:
        # Best first, and corners instead of sides.
        assert entry.scores.tolist() == [3, -1]
        assert entry.boxes.tolist() == [[0, 0, 5, 5], [1, 2, 5, 10]]
    assert found[2].boxes.shape == (0, 4)


def test_pickle_of_python_2(tmp_path):
    # {"boxes": [float32 (1, 4)], "scores": [float32 (1,)], "ids": [5]} as cPickle wrote it there: bytes are strings.
    def array(shape, values):
        data = np.array(values, "<f4").tobytes()
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tU\1btR(K\1("
            + b"".join(b"K%c" % n for n in shape)
            + b"tcnumpy\ndtype\n(U\2f4K\0K\1tR(K\3U\1<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tbI00\nU%c" % len(data)
            + data
            + b"tb"
        )

    data = b"\x80\2}(U\5boxes](%seU\6scores](%seU\3ids](K\5eu." % (array((1, 4), [-1, 2, 4, 8]), array((1,), [0.7]))
    (tmp_path / "p.pkl").write_bytes(data)
    (found,) = read_proposals(tmp_path / "p.pkl")
    assert found.file == "5"
    assert found.boxes.tolist() == [[-1, 2, 4, 8]]
    assert found.scores == np.float32([0.7])


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "evil",
    [
        Call(os.system, "touch gone"),
        Call(eval, "open('gone', 'w')"),
        Call(getattr, "text", "format"),
        Call(bytes, 10**15),
        Call(np.ndarray, (10**15,)),
        Call(np.zeros, 10**15),
        np.array([1, "a"], object),
        np.zeros(2, "f4,O"),
        np.dtype("O"),
        io.BytesIO(),
    ],
)
def test_a_pickle_that_does_more_than_hold_boxes_is_refused(tmp_path, monkeypatch, evil):
    monkeypatch.chdir(tmp_path)
    for document in (evil, {"boxes": [evil], "scores": [np.ones(1)], "ids": [1]}):
        for protocol in (2, 5):
            (tmp_path / "p.pkl").write_bytes(pickle.dumps(document, protocol))
            with pytest.raises(ProposalFileError) as caught:
                list(read_proposals(tmp_path / "p.pkl"))
            assert str(caught.value).startswith(str(tmp_path / "p.pkl"))
    assert os.listdir(tmp_path) == ["p.pkl"]


def test_the_refusal_says_what_was_asked_for(tmp_path):
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(Call(os.system, "true"), 2))
    with pytest.raises(ProposalFileError, match=r"p\.pkl: .*posix\.system is refused: only numbers"):
        list(read_proposals(tmp_path / "p.pkl"))


def test_a_pickle_that_claims_much_memory_is_refused(tmp_path):
    for data in (b"\x80\2K\1r\xff\xff\xff\xff.", b"(lp99999999999\n.", b"\x80\5\x96" + b"\xff" * 5 + b"\0\0\0."):
        (tmp_path / "p.pkl").write_bytes(data)
        with pytest.raises(ProposalFileError, match=r"p\.pkl: .*(refused|damaged)"):
            list(read_proposals(tmp_path / "p.pkl"))


def nested(depth, kind=list):
    """A list that holds a list twice, and so on: a hundred bytes that unfold to 2**depth numbers."""
    value = kind([1.0, 1.0])
    for _ in range(depth):
        value = kind([value, value])
    return value


class Kind:
    """A type of numbers that is called whatever it is given."""

    def __init__(self, *state):
        self.state = state

    def __reduce__(self):
        return np.dtype, self.state


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"ids": [1], "boxes": [nested(40)], "scores": [[1.0]]}, "a list is neither of numbers nor of boxes"),
        ({"ids": [1], "boxes": [[[0, 0, 1, 1]]], "scores": [nested(40)]}, "a list is neither of numbers nor of boxes"),
        ({"ids": [1], "boxes": [[np.zeros(9)] * 9], "scores": [[1.0] * 9]}, "a list is neither of numbers nor of"),
        ({"ids": [nested(40)], "boxes": [[]], "scores": [[]]}, "an id is a list, and a number or a text is expected"),
        (Kind(nested(40)), "a list stands where a type of numbers is expected"),
    ],
    ids=["boxes", "scores", "arrays", "id", "type"],
)
def test_a_pickle_that_would_unfold_without_bound_is_refused(tmp_path, document, problem):
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(document, 2))
    assert (tmp_path / "p.pkl").stat().st_size < 2000
    with pytest.raises(ProposalFileError, match=rf"p\.pkl: .*{problem}"):
        list(read_proposals(tmp_path / "p.pkl"))


def test_coco_document_as_pycocotools_reads_it(tmp_path, entries, capsys):
    ids = {entry.file: 100 - i for i, entry in enumerate(entries)}
    write_proposals(tmp_path / "p.json", entries, image_ids=ids)
    coco = COCO(str(tmp_path / "p.json"))
    assert coco.loadCats(1) == [{"id": 1, "name": "object"}]
    assert sorted(coco.getImgIds()) == [98, 99, 100]
    assert coco.loadImgs(98) == [{"id": 98, "file_name": "val/é 9.png", "width": 500, "height": 400}]
    document = json.loads((tmp_path / "p.json").read_text())
    assert document["annotations"][0].keys() == {
        "id", "image_id", "category_id", "bbox", "score", "area", "iscrowd", "segmentation"
    }  # fmt: skip
    results = coco.loadRes(document["annotations"])
    for read in (coco, results):
        found = read.loadAnns(read.getAnnIds(imgIds=100))
        boxes = np.array([one["bbox"] for one in found])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_array_equal(boxes.astype(np.float32), entries[0].boxes)
        np.testing.assert_array_equal(np.float32([one["score"] for one in found]), entries[0].scores)
        assert {one["category_id"] for one in found} == {1}
    assert_same(read_proposals(tmp_path / "p.json"), entries)

    write_proposals(tmp_path / "p.json", entries)
    assert [image["id"] for image in json.loads((tmp_path / "p.json").read_text())["images"]] == [1, 2, 3]


@pytest.mark.parametrize("suffix", [".parquet", ".json"])
def test_masks(tmp_path, entries, suffix):
    some = [masked(entry, seed) for seed, entry in enumerate(entries)]
    write_proposals(tmp_path / f"p{suffix}", some)
    assert_same(read_proposals(tmp_path / f"p{suffix}"), some)
    for wrong, problem in [
        ([some[0], entries[1]], "all pictures or for none"),
        ([entries[0], some[2]], "for none"),
        ([some[0]._replace(masks=some[0].masks[1:])], "29 masks for 30 boxes"),
    ]:
        with pytest.raises(ProposalFileError, match=problem):
            write_proposals(tmp_path / f"p{suffix}", wrong)
    for other in (".npz", ".mat", ".pkl"):
        with pytest.raises(ProposalFileError, match="have a place for masks"):
            write_proposals(tmp_path / f"p{other}", some)


def test_masks_as_pycocotools_reads_them(tmp_path, entries, capsys):
    some = [masked(entry, seed) for seed, entry in enumerate(entries)]
    write_proposals(tmp_path / "p.json", some)
    coco = COCO(str(tmp_path / "p.json"))
    for number, entry in enumerate(some, start=1):
        found = coco.loadAnns(coco.getAnnIds(imgIds=number))
        assert len(found) == len(entry.scores)
        for one, counts in zip(found, entry.masks, strict=True):
            expected = coco_mask.decode({"size": [entry.height, entry.width], "counts": counts})
            assert one["area"] == expected.sum()
            np.testing.assert_array_equal(coco.annToMask(one), expected)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/x.jpg", "b/y.v2.png"], ["x", "y.v2"]),
        (["a/x.jpg", "b/x.jpg", "b/y.jpg"], ["a/x", "b/x", "b/y"]),
        (["a/x.jpg", "a/x.png", "b/y.jpg"], ["a/x.jpg", "a/x.png", "b/y.jpg"]),
    ],
)
def test_ids_stay_distinct(tmp_path, files, names):
    for suffix in (".mat", ".pkl"):
        write_proposals(tmp_path / f"p{suffix}", [proposals(file, 1) for file in files])
        assert [entry.file for entry in read_proposals(tmp_path / f"p{suffix}")] == names


@pytest.mark.parametrize("suffix", [".json", ".pkl"])
def test_image_ids_must_be_complete_and_distinct(tmp_path, entries, suffix):
    path = tmp_path / f"p{suffix}"
    with pytest.raises(ProposalFileError, match=r"no id for 'train/000007\.jpg'"):
        write_proposals(path, entries, image_ids={"train/000005.jpg": 1})
    with pytest.raises(ProposalFileError, match="two pictures have the id 1"):
        write_proposals(path, entries, image_ids={entry.file: 1 for entry in entries})
    write_proposals(path, entries, image_ids={entry.file: f"id {i}" for i, entry in enumerate(entries)})
    assert len(list(read_proposals(path))) == 3
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", PROPOSAL_SUFFIXES)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    path.write_text("old")
    good = proposals("good.jpg", 3)
    for bad, problem in [
        (good._replace(scores=np.array([1, np.nan, 0])), "not a finite number"),
        (good._replace(boxes=good.boxes.astype(float) * 1e300), "not a finite number"),
        (good._replace(boxes=good.boxes[:2]), r"\(2, 4\).*\(3,\) do not fit"),
        (good._replace(scores=good.scores[::-1]), "scores rise"),
        (good._replace(width=2**31), "size"),
        (good._replace(file="bad\udc80.jpg"), "not valid Unicode"),
    ]:
        bad = bad._replace(file="bad.jpg") if bad.file == good.file else bad
        with pytest.raises(ProposalFileError, match=problem) as caught:
            write_proposals(path, [good, bad])
        assert str(caught.value).startswith(f"{path}: 'bad")
    if suffix != ".parquet":
        with pytest.raises(ProposalFileError, match=r"two pictures are called 'good\.jpg'"):
            write_proposals(path, [good, good])
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


class Failing(list):
    """Entries of which the second cannot be read on the last pass."""

    def __init__(self, entries, failing_pass):
        super().__init__(entries)
        self.left = failing_pass

    def __getitem__(self, i):
        self.left -= i == 1
        if self.left == 0:
            raise FileNotFoundError(2, "No such file or directory", "cached.npy")
        return super().__getitem__(i)


@pytest.mark.parametrize(("suffix", "passes"), [(".parquet", 1), (".json", 2), (".mat", 2), (".pkl", 3), (".npz", 3)])
def test_an_entry_that_cannot_be_loaded_ends_the_writing(tmp_path, entries, suffix, passes):
    (tmp_path / f"p{suffix}").write_text("old")
    for failing in range(1, passes + 1):
        with pytest.raises(FileNotFoundError, match=r"cached\.npy"):
            write_proposals(tmp_path / f"p{suffix}", Failing(entries, failing))
    assert (tmp_path / f"p{suffix}").read_text() == "old"
    assert os.listdir(tmp_path) == [f"p{suffix}"]
    write_proposals(tmp_path / f"p{suffix}", Failing(entries, passes + 1))
    with pytest.raises(FileNotFoundError, match=rf"missing/p\{suffix}"):
        write_proposals(tmp_path / "missing" / f"p{suffix}", entries)


def test_files_obey_the_umask(tmp_path, entries):
    for suffix in PROPOSAL_SUFFIXES:
        write_proposals(tmp_path / f"p{suffix}", entries)
        mask = os.umask(0)
        os.umask(mask)
        assert stat.S_IMODE((tmp_path / f"p{suffix}").stat().st_mode) == 0o666 & ~mask


def test_unknown_suffixes_and_missing_files_are_known_at_once(tmp_path):
    for name in ("p.txt", "p", "p.npz.gz"):
        with pytest.raises(ProposalFileError, match=r"must end in one of \.parquet, "):
            write_proposals(tmp_path / name, [])
        with pytest.raises(ProposalFileError, match=r"must end in one of \.parquet, "):
            read_proposals(tmp_path / name)
    with pytest.raises(ProposalFileError, match=r"p\.npz: there is no such file"):
        read_proposals(tmp_path / "p.npz")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", PROPOSAL_SUFFIXES)
def test_damaged_files_are_named(tmp_path, entries, suffix):
    path = tmp_path / f"p{suffix}"
    write_proposals(path, entries)
    whole = path.read_bytes()
    for data in (b"", b"\0" * 300, b"hello world", whole[: len(whole) // 2], whole[:-1], whole[1:]):
        path.write_bytes(data)
        # The end of a .json file is a line's end, that of a .mat file is padding.
        if data == whole[:-1] and suffix in (".json", ".mat"):
            continue
        with pytest.raises(ProposalFileError) as caught:
            list(read_proposals(path))
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(PROPOSAL_SUFFIXES), st.integers(0, 10**6), st.integers(0, 255))
def test_a_damaged_byte_does_no_harm(tmp_path_factory, suffix, position, value):
    path = tmp_path_factory.mktemp("out") / f"p{suffix}"
    write_proposals(path, [proposals("a.jpg", 2), proposals("b.jpg", 0)])
    data = bytearray(path.read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data)
    with contextlib.suppress(ProposalFileError):
        for entry in read_proposals(path):
            assert entry.boxes.shape == (len(entry.scores), 4)


def npz(path, **changes):
    arrays = {
        "files": np.array(["a", "b"]),
        "sizes": np.zeros((2, 2), np.int32),
        "offsets": np.array([0, 1, 3]),
        "boxes": np.zeros((3, 4)),
        "scores": np.zeros(3),
    }
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"offsets": np.array([0, 4, 3])}, "do not fit"),
        ({"offsets": np.array([1, 1, 3])}, "do not fit"),
        ({"offsets": np.array([0, 1, 2])}, "do not fit"),
        ({"offsets": np.array([-3, 1, 3])}, "do not fit"),
        ({"offsets": np.array([0, 3])}, "do not fit"),
        ({"offsets": np.array(3)}, r"'offsets' is an array \(\) of int64, and 1 dimensions are expected"),
        ({"scores": np.zeros(2)}, "do not fit"),
        ({"scores": np.full(3, np.inf)}, "'a': a coordinate or a score is not a finite number"),
        ({"sizes": np.zeros((2, 3))}, "do not fit"),
        ({"boxes": np.zeros((3, 5))}, r"boxes \(1, 5\).*do not fit"),
        ({"boxes": np.array(["x"] * 12).reshape(3, 4)}, "could not convert"),
        ({"boxes": np.array([None] * 12).reshape(3, 4)}, "allow_pickle"),
        ({"scores": None}, "has no 'scores'.*there is: files, sizes"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, changes, problem):
    npz(tmp_path / "p.npz")
    assert [len(entry.scores) for entry in read_proposals(tmp_path / "p.npz")] == [1, 2]
    npz(tmp_path / "p.npz", **changes)
    with pytest.raises(ProposalFileError, match=problem):
        list(read_proposals(tmp_path / "p.npz"))


def test_archives_that_unfold_are_refused(tmp_path):
    npz(tmp_path / "p.npz")
    with zipfile.ZipFile(tmp_path / "p.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", b"\0" * 10**6)
    with pytest.raises(ProposalFileError, match=r"p\.npz: would unpack to \d+ bytes.*refused"):
        list(read_proposals(tmp_path / "p.npz"))
    # A header that promises more than there is.
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**15, 4)})
    npz(tmp_path / "p.npz", boxes=None)
    with zipfile.ZipFile(tmp_path / "p.npz", "a") as archive:
        archive.writestr("boxes.npy", header.getvalue())
    with pytest.raises(ProposalFileError, match="damaged"):
        list(read_proposals(tmp_path / "p.npz"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"boxes": [[[1.0, 2.0, 3.0]]]}, "its columns file string, .* boxes list<.* do not fit"),
        ({"boxes": [None]}, "its columns file .* do not fit"),
        ({"boxes": [[None]]}, "do not fit"),
        ({"boxes": [[[1.0, 2.0, None, 4.0]]]}, "finite"),
        ({"boxes": [["a"]]}, "boxes list<element: string>.* do not fit"),
        ({"scores": [[0.5, 0.4]]}, "do not fit"),
        ({"scores": [[float("nan")]]}, "finite"),
        ({"width": [2**40]}, "its columns file .* do not fit"),
        ({"file": [None]}, "its columns file .* do not fit"),
        ({"scores": None}, "has no 'scores'"),
    ],
)
def test_tables_that_hold_no_boxes_are_named(tmp_path, changes, problem):
    columns = {"file": ["a"], "width": [9], "height": [9], "boxes": [[[1.0, 2.0, 3.0, 4.0]]], "scores": [[0.5]]}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    assert len(list(read_proposals(tmp_path / "p.parquet"))) == 1
    columns = {name: values for name, values in (columns | changes).items() if values is not None}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    with pytest.raises(ProposalFileError, match=problem) as caught:
        list(read_proposals(tmp_path / "p.parquet"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "document", "problem"),
    [
        (".pkl", [1], "is not a dict"),
        (".pkl", {"boxes": [], "scores": []}, "has no 'ids'.*there is: boxes, scores"),
        (".pkl", {"boxes": [], "scores": [], "ids": [1]}, "not equally long"),
        (".pkl", {"boxes": 3, "scores": [], "ids": []}, "'boxes' is a int, and a list with an entry a picture is"),
        (".pkl", {"boxes": [], "scores": [], "ids": [], "bbox_mode": 4}, "bbox_mode is 4"),
        (".pkl", {"boxes": [np.zeros((2, 3))], "scores": [np.zeros(2)], "ids": [1]}, r"'1': boxes \(2, 3\)"),
        (".mat", {"boxes": cell(1)}, "has no 'images'.*there is: boxes"),
        (
            ".mat",
            {"boxes": np.zeros((1, 4)), "images": np.zeros(1)},
            r"'boxes' is an array \(1, 4\) of float64",
        ),
        (".mat", {"boxes": cell(1, 1), "images": cell("a")}, r"\(2\).*\(1\) do not fit"),
        (
            ".mat",
            {"boxes": cell(np.zeros((2, 3))), "images": cell("a")},
            r"'a' are an array \(2, 3\) of float64",
        ),
        (".mat", {"boxes": cell(np.full((1, 4), np.inf)), "images": cell("a")}, "'a': .*not a finite number"),
        (".mat", {"boxes": cell("text"), "images": cell("a")}, r"boxes of 'a' are a str, not \(N, 4\)"),
        (".json", {"images": []}, "has no list"),
        (".json", {"images": [{"id": 1}], "categories": [], "annotations": []}, "has no 'file_name'"),
        (
            ".json",
            {"images": [{"id": i, "file_name": "a"} for i in (1, 2)], "categories": [], "annotations": []},
            "two of its images are called 'a'; give each its own name$",
        ),
    ],
)
def test_documents_that_hold_no_boxes_are_named(tmp_path, suffix, document, problem):
    path = tmp_path / f"p{suffix}"
    if suffix == ".mat":
        scipy.io.savemat(path, document)
    else:
        path.write_bytes(pickle.dumps(document) if suffix == ".pkl" else json.dumps(document).encode())
    with pytest.raises(ProposalFileError, match=problem) as caught:
        list(read_proposals(path))
    assert str(caught.value).startswith(f"{path}: ")


def test_detections_with_ids_of_their_own(tmp_path):
    found = make_detections(np.zeros((1, 4)), classes=("cat",))
    rows = [("a.jpg", 9, 9, found), ("b.jpg", 9, 9, found)]
    write_detections(tmp_path / "d.json", rows, ("cat",), {"b.jpg": 7, "a.jpg": 8})
    document = json.loads((tmp_path / "d.json").read_text())
    assert [image["id"] for image in document["images"]] == [8, 7]
    assert [(one["id"], one["image_id"]) for one in document["annotations"]] == [(1, 8), (2, 7)]
    with pytest.raises(DetectionError, match=r"b\.jpg: image_ids has no id"):
        write_detections(tmp_path / "d.json", rows, ("cat",), {"a.jpg": 8})


def test_coco_documents_of_other_programs(tmp_path):
    annotations = [
        {"image_id": 5, "category_id": category, "bbox": [1, 2, 3, 4], "score": score}
        for category, score in ((9, 0.25), (3, 0.5))
    ]
    document = {
        "images": [{"id": 5, "file_name": "a.jpg"}],
        "categories": [{"id": 9, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": annotations,
    }
    (tmp_path / "p.json").write_text(json.dumps(document))
    (found,) = read_proposals(tmp_path / "p.json")
    assert found[:3] == ("a.jpg", 0, 0)
    assert found.scores.tolist() == [0.5, 0.25]
