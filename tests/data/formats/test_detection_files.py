import json
import os
import stat

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import make_detections, make_picture, random_detections
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_rcnn.data import (
    VOC_CLASSES,
    DetectionError,
    Detections,
    atomic_write,
    read_detection_entries,
    read_detections,
    read_voc_results,
    write_detections,
    write_voc_results,
)
from inception_rcnn.data.errors import DataWarning
from inception_rcnn.data.formats import parquet
from inception_rcnn.data.formats.by_suffix import read_detection_names
from inception_rcnn.eval import evaluate_voc
from inception_rcnn.eval.matching import match_voc


def assert_same(read, written, scores=np.float64):
    assert read.classes == written.classes
    for name, dtype in (("boxes", np.float32), ("scores", scores), ("labels", np.int64)):
        kept = getattr(written, name)
        assert getattr(read, name).dtype == dtype
        np.testing.assert_array_equal(getattr(read, name).astype(kept.dtype), kept)


@given(st.lists(st.integers(0, 30), max_size=4), st.integers(0, 99))
def test_the_document_gives_back_what_was_written(tmp_path_factory, counts, seed):
    path = tmp_path_factory.mktemp("out") / "detections.json"
    written = {f"{i:06d}": random_detections(n, seed + i) for i, n in enumerate(counts)}
    write_detections(path, ((f"{k}.jpg", 500, 400, d) for k, d in written.items()), VOC_CLASSES)
    found = read_detections(path)
    assert list(found) == list(written)
    for name in written:
        assert_same(found[name], written[name])


@settings(max_examples=20, deadline=None)  # Each example writes two files to the disk.
@given(st.lists(st.integers(0, 30), max_size=4), st.integers(0, 99), st.integers(1, 2000))
def test_parquet_gives_back_what_was_written_as_the_document_does(tmp_path_factory, counts, seed, group):
    folder = tmp_path_factory.mktemp("out")
    written = [(f"s/{i}.jpg", 500, 400 + i, random_detections(n, seed + i)) for i, n in enumerate(counts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROW_GROUP_BYTES", group)
        for suffix in ("json", "parquet"):
            write_detections(folder / f"d.{suffix}", iter(written), VOC_CLASSES)
    table, document = (read_detection_entries(folder / f"d.{suffix}") for suffix in ("parquet", "json"))
    assert [one[:3] for one in table] == [one[:3] for one in document] == [one[:3] for one in written]
    for own, other, one in zip(table, document, written, strict=True):
        assert_same(own[3], one[3], np.float32)
        assert_same(other[3], own[3])
    for key in ("stem", "image_id", "file_name"):
        names = [list(read_detections(folder / f"d.{suffix}", key)) for suffix in ("parquet", "json")]
        assert names[0] == names[1]
    for suffix in ("json", "parquet"):
        assert read_detection_names(folder / f"d.{suffix}") == [one[0] for one in written]


def test_parquet_as_pyarrow_reads_it(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 100)
    dog = make_detections([[1, 2, 4, 8]], [0.1], [1], ("cat", "dog"))
    rows = [("a.jpg", 20, 10, dog), ("b.jpg", 20, 10, Detections.empty(("cat",))), ("c.jpg", 20, 10, dog)]
    write_detections(tmp_path / "d.parquet", rows, ("dog", "cat"), metadata={"inception-rcnn": "{}"})
    file = pq.ParquetFile(tmp_path / "d.parquet")
    assert file.schema_arrow.metadata == {b"inception-rcnn": b"{}", b"classes": b'["dog", "cat"]'}
    kinds = {field.name: str(field.type) for field in file.schema_arrow}
    assert kinds == {
        "file": "string", "width": "int32", "height": "int32",
        "boxes": "list<element: fixed_size_list<element: float not null>[4] not null>",
        "scores": "list<element: float not null>", "labels": "list<element: int16 not null>",
    }  # fmt: skip
    assert file.num_row_groups == 2
    assert file.read().to_pylist()[0] == {
        "file": "a.jpg", "width": 20, "height": 10,
        "boxes": [[1, 2, 4, 8]], "scores": [float(np.float32(0.1))], "labels": [0],
    }  # fmt: skip
    assert read_detections(tmp_path / "d.parquet")["b"].classes == ("dog", "cat")


def test_a_folder_stands_for_the_file_in_it(tmp_path):
    one, two = random_detections(1), random_detections(2)
    with pytest.raises(DetectionError, match=r"detections\.json: cannot be read"):
        read_detections(tmp_path)
    write_detections(tmp_path / "detections.parquet", [("a.jpg", 9, 9, one)], VOC_CLASSES)
    assert len(read_detections(tmp_path)["a"]) == len(read_detection_entries(tmp_path)[0][3]) == 1
    write_detections(tmp_path / "detections.json", [("a.jpg", 9, 9, two)], VOC_CLASSES)
    assert len(read_detections(tmp_path)["a"]) == 2


def test_lines_on_many_pictures_wait_in_a_file(tmp_path):
    names = [f"{'n' * 200}{i}.jpg" for i in range(6000)]  # more than what waits in memory

    def entries():
        for name in names:
            assert len(os.listdir(tmp_path)) <= 2  # what is being written, and on some systems what waits
            yield name, 9, 9, Detections.empty(("cat",))

    write_detections(tmp_path / "d.json", entries(), ("cat",))
    assert os.listdir(tmp_path) == ["d.json"]
    lines = [f'{{"id": {i}, "file_name": "{name}", "width": 9, "height": 9}}' for i, name in enumerate(names, start=1)]
    expected = '{"categories": [{"id": 1, "name": "cat"}],\n"annotations": [\n],\n"images": [\n'
    assert (tmp_path / "d.json").read_text() == expected + ",\n".join(lines) + "\n]}\n"
    assert read_detection_names(tmp_path / "d.json") == names
    (tmp_path / "d.json").write_text(json.dumps(json.loads((tmp_path / "d.json").read_text()), indent=1))
    assert read_detection_names(tmp_path / "d.json") == names


def test_names_that_are_no_text(tmp_path):
    rows = [(os.fsdecode(b"caf\xe9.jpg"), 9, 9, random_detections(1))]
    write_detections(tmp_path / "d.parquet", rows, VOC_CLASSES)
    assert read_detection_names(tmp_path / "d.parquet") == ["caf\\xe9.jpg"]
    with pytest.raises(DetectionError, match="not valid Unicode; rename it"):
        write_detections(tmp_path / "d.parquet", [("\ud800.jpg", 9, 9, random_detections(1))], VOC_CLASSES)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"labels": None},
            "has no 'labels', which .*; there is: file, width, height, boxes, scores",
        ),
        ({"boxes": [[[1.0, 2.0, 3.0]]]}, "its columns file string, .* boxes list<.* do not fit"),
        ({"boxes": [[[1.0, 2.0, 0.0, 4.0]]]}, "'a': a box ends before it begins"),
        ({"boxes": [[[1.0, float("inf"), 3.0, 4.0]]]}, "'a': .*finite"),
        ({"boxes": [[]]}, "'a': .*do not fit"),
        ({"scores": [[float("nan")]]}, "'a': .*finite"),
        ({"scores": [["high"]]}, "scores list<element: string>.* do not fit"),
        ({"scores": [[0.5, 0.4]]}, "'a': .*do not fit"),
        ({"labels": [[1.5]]}, "labels list<element: double>.* do not fit"),
        ({"labels": [[2]]}, "'a': a label is 2, which is no index into its 2 classes"),
        ({"labels": [[-1]]}, "'a': a label is -1"),
        ({"labels": [[None]]}, "'a': labels must be whole numbers"),
        ({"labels": [[0, 1]]}, "'a': .*do not fit"),
        ({"width": [-9]}, "the size of 'a' is -9 x 9, not two whole numbers"),
        ({"file": [None]}, "do not fit"),
    ],
)
def test_tables_that_hold_no_detections_are_named(tmp_path, changes, problem):
    columns = {"file": ["a"], "width": [9], "height": [9], "boxes": [[[1.0, 2.0, 3.0, 4.0]]], "scores": [[0.5]]}
    columns["labels"] = [[1]]
    path, metadata = tmp_path / "d.parquet", {"classes": '["cat", "dog"]'}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    assert read_detections(path)["a"].names == ["dog"]
    columns = {name: values for name, values in (columns | changes).items() if values is not None}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    for read in (read_detections, read_detection_entries):
        with pytest.raises(DetectionError, match=problem) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "problem"),
    [
        (None, "its metadata has no 'classes', the names of its classes; there is: nothing"),
        ("cat, dog", "'classes' of its metadata is no list of names in JSON"),
        ('"cat"', "no list of names in JSON"),
        ("[1, 2]", "no list of names in JSON"),
        ('["cat", "cat"]', "two of its classes are called 'cat'"),
    ],
)
def test_tables_that_do_not_tell_their_classes_are_named(tmp_path, classes, problem):
    path = tmp_path / "d.parquet"
    write_detections(path, [("a.jpg", 9, 9, random_detections(1))], VOC_CLASSES)
    table = pq.read_table(path).replace_schema_metadata(None if classes is None else {"classes": classes})
    pq.write_table(table, path)
    with pytest.raises(DetectionError, match=problem) as caught:
        read_detections(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_what_is_no_table_is_named(tmp_path):
    path = tmp_path / "d.parquet"
    with pytest.raises(DetectionError, match=r"d\.parquet: cannot be read \(there is no such file\); check its name"):
        read_detections(path)
    write_detections(path, [("a.jpg", 9, 9, random_detections(9))], VOC_CLASSES)
    whole = path.read_bytes()
    for content in (b"", b"{}", whole[:-9], whole[:200]):
        path.write_bytes(content)
        with pytest.raises(DetectionError, match=r"d\.parquet: is not a Parquet file of detections, or damaged \("):
            read_detections(path)
    one = random_detections(1)
    write_detections(path, [("b/x.jpg", 9, 9, one), ("a\\x.jpg", 9, 9, one), ("a/x.jpg", 9, 9, one)], VOC_CLASSES)
    for read in (read_detections, read_detection_entries):
        with pytest.raises(DetectionError, match=r"two of its pictures are called .*; give each its own name"):
            read(path)


def test_the_document_is_what_coco_tools_expect(tmp_path):
    found = make_detections([[1, 2, 4, 8]], [0.25], [1], ("cat", "dog"))
    write_detections(tmp_path / "d.json", [("é/x.jpg", 20, 10, found)], ("dog", "cat"))
    assert json.loads((tmp_path / "d.json").read_text()) == {
        "images": [{"id": 1, "file_name": "é/x.jpg", "width": 20, "height": 10}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [1, 2, 3, 6],
                "score": 0.25,
                "area": 18,
                "segmentation": [],
                "iscrowd": 0,
            }
        ],
    }
    assert list(read_detections(tmp_path / "d.json")) == ["x"]
    assert list(read_detections(tmp_path / "d.json", key="file_name")) == ["é/x.jpg"]


def test_equal_stems_are_not_mixed_up(tmp_path):
    write_detections(
        tmp_path / "detections.json", [(f"{d}/x.jpg", 9, 9, random_detections(2)) for d in "ab"], VOC_CLASSES
    )
    with pytest.raises(DetectionError, match=r"two of its images are called 'x' without folder and suffix; give each"):
        read_detections(tmp_path)
    assert len(read_detections(tmp_path, key="file_name")) == 2


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, suffix):
    path = tmp_path / f"d.{suffix}"
    path.write_text("old")
    bad = random_detections(3)
    bad.scores[1] = np.nan
    with pytest.raises(DetectionError, match=r"b\.jpg.*finite"):
        write_detections(path, [("a.jpg", 9, 9, random_detections(3)), ("b.jpg", 9, 9, bad)], VOC_CLASSES)
    with pytest.raises(DetectionError, match="not among the classes"):
        write_detections(path, [("a.jpg", 9, 9, random_detections(3))], ("zebra",))
    bad = random_detections(3)
    bad.boxes[1] = [5, 5, 4, 6]
    with pytest.raises(DetectionError, match=r"b\.jpg: a box ends before it begins"):
        write_detections(path, [("b.jpg", 9, 9, bad)], VOC_CLASSES)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "JSON"),
        ("[]", "COCO document"),
        ('{"images": [], "categories": [{}], "annotations": []}', "'categories' has no 'id'"),
        (
            '{"images": [], "categories": [], "annotations": [{"bbox": [1, 2, 3, 4], "image_id": 1}]}',
            "image_id 1 is not defined",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": 2}], "categories": [], "annotations": []}',
            "two of its images have the id 1",
        ),
        (
            '{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "annotations": []}',
            "two of its categories are called 'a'",
        ),
        (
            '{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": "2", "name": "b"}], "annotations": []}',
            "numbers as well as texts",
        ),
    ],
)
def test_bad_documents_are_named(tmp_path, text, problem):
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(DetectionError, match=problem) as caught:
        read_detections(tmp_path / "d.json")
    assert str(caught.value).startswith(str(tmp_path / "d.json"))
    with pytest.raises(DetectionError, match="cannot be read"):
        read_detections(tmp_path / "missing.json")


def test_voc_files_give_back_what_was_written(tmp_path):
    written = {"000001": random_detections(40), "000002": random_detections(3, seed=1)}
    write_voc_results(tmp_path / "results", written)
    found = read_voc_results(tmp_path / "results")
    assert list(found) == list(written)
    for name, one in written.items():
        order = np.argsort(one.labels, kind="stable")
        np.testing.assert_allclose(found[name].boxes, one.boxes[order], atol=1e-4)
        np.testing.assert_array_equal(found[name].scores.astype(np.float32), one.scores[order])
        np.testing.assert_array_equal(found[name].labels, one.labels[order])


@given(st.data())
def test_lines_of_voc_files_are_in_the_order_of_ties(tmp_path_factory, data):
    ids = [f"{i:06d}" for i in range(6)]
    corners = st.tuples(*[st.integers(0, 6)] * 2)
    boxes = st.lists(corners.map(lambda at: [*(4 * x for x in at), *(4 * x + 12 for x in at)]), max_size=5)
    pictures = [make_picture(data.draw(boxes), image_id=one, size=(40, 40)) for one in ids]
    found = {}
    for one in data.draw(st.permutations(ids)):  # as any run may have them
        rows = data.draw(boxes)
        scores = data.draw(st.lists(st.sampled_from([0.1, 0.5, 0.7]), min_size=len(rows), max_size=len(rows)))
        found[one] = make_detections(rows, scores, classes=("cat",))
    folder = tmp_path_factory.mktemp("out")
    write_voc_results(folder, found)
    again = read_voc_results(folder, ("cat",))
    results = [evaluate_voc(pictures, one, ("cat",))["mAP"] for one in (again, found)]
    np.testing.assert_equal(*results)
    # The kit sorts the lines of a file by their scores, equal ones in their order.
    lines = [line.split() for line in (folder / "comp4_det_test_cat.txt").read_text().splitlines()]
    lines.sort(key=lambda words: -float(words[1]))
    matches = match_voc(pictures, found, ("cat",))["cat"]
    assert [words[0] for words in lines] == [ids[i] for i in matches.picture]
    firsts = [found[ids[i]].boxes[j, 0] + 1 for i, j in zip(matches.picture, matches.detection, strict=True)]
    assert [float(words[2]) for words in lines] == firsts


def test_voc_files_for_some_classes_only(tmp_path):
    (tmp_path / "comp3_det_val_dog.txt").write_text("x 1e-3 1 2 3.5 4\n\n")
    found = read_voc_results(tmp_path, prefix="comp3_det_val_")["x"]
    assert found.boxes.tolist() == [[0, 1, 3.5, 4]]
    assert found.classes[found.labels[0]] == "dog"
    with pytest.raises(DetectionError, match="has no file comp4_det_test_<class>"):
        read_voc_results(tmp_path)
    (tmp_path / "comp4_det_test_dog.txt").write_text("x 0.1 1 2 3 4\nx 0.1 1 2 3\n")
    with pytest.raises(DetectionError, match=r"dog\.txt, line 2"):
        read_voc_results(tmp_path)
    (tmp_path / "comp4_det_test_dog.txt").write_text("x nan 1 2 3 4\n")
    with pytest.raises(DetectionError, match="not a finite number"):
        read_voc_results(tmp_path)
    (tmp_path / "comp4_det_test_dog.txt").write_text("x 0.5 3 4 2 3\nx 0.1 3 4 1 3\n")
    with pytest.raises(DetectionError, match=r"dog\.txt, line 2: a box that ends before it begins in \[0.1, 3.0, 4.0"):
        read_voc_results(tmp_path)


def test_voc_files_with_a_salt(tmp_path):
    # As py-faster-rcnn writes them.
    salt = "0d6d1c1e-5c5c-4a39-a6ad-3c5d0d9d5d5f"
    for name in ("dog", "cat"):
        (tmp_path / f"comp4_{salt}_det_test_{name}.txt").write_text("x 0.5 1 2 3 4\n")
    (tmp_path / f"comp4_{salt}_det_val_cow.txt").write_text("x 0.5 1 2 3 4\n")
    assert sorted(read_voc_results(tmp_path)["x"].labels) == [VOC_CLASSES.index("cat"), VOC_CLASSES.index("dog")]
    (tmp_path / "comp4_other_det_test_dog.txt").touch()
    with pytest.raises(DetectionError, match=r"has the results of 2 runs .*comp4_other_det_test_\); give each its own"):
        read_voc_results(tmp_path)
    # Files without a salt are those that are asked for.
    (tmp_path / "comp4_det_test_dog.txt").write_text("y 0.5 1 2 3 4\n")
    assert list(read_voc_results(tmp_path)) == ["y"]


def test_voc_files_of_other_classes_are_told(tmp_path):
    for name in ("cat", "Dog", "zebra"):
        (tmp_path / f"comp4_det_test_{name}.txt").write_text("x 0.5 1 2 3 4\n")
    with pytest.warns(DataWarning, match=r"left out 2 files of .* 1 of 'Dog' \(did you mean 'dog'\?\), 1 of 'zebra'"):
        read_voc_results(tmp_path)


def test_voc_files_of_pictures_with_spaces_in_their_names(tmp_path):
    write_voc_results(tmp_path, {"IMG 001": random_detections(3), "b": random_detections(3)})
    assert sorted(read_voc_results(tmp_path)) == ["IMG 001", "b"]


def test_double_scores_are_written_whole(tmp_path):
    scores = 1 - np.random.default_rng(0).random(40) * 1e-9
    one = random_detections(40)
    one = Detections(one.boxes, scores, np.zeros(40, np.int64), one.classes)
    write_detections(tmp_path / "d.json", [("a.jpg", 500, 400, one)], VOC_CLASSES)
    write_voc_results(tmp_path, {"a": one})
    for found in (read_detections(tmp_path / "d.json"), read_voc_results(tmp_path)):
        assert found["a"].scores.tolist() == scores.tolist()


def test_detections_of_different_classes_do_not_share_files(tmp_path):
    with pytest.raises(DetectionError, match="2 different lists"):
        write_voc_results(tmp_path, {"a": random_detections(1), "b": random_detections(1, classes=("cat",))})


def test_arrays_must_fit():
    with pytest.raises(ValueError, match="do not fit"):
        Detections(np.zeros((2, 4), np.float32), np.zeros(1, np.float32), np.zeros(2, np.int64), VOC_CLASSES)


@pytest.mark.parametrize(
    ("index", "positions"),
    [
        (np.array([True, False, True, False]), [0, 2]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        (np.array([2, 2, 0]), [2, 2, 0]),
        ([], []),
        (1, [1]),
        (np.int64(-1), [3]),
    ],
)
def test_an_index_chooses_detections(index, positions):
    found = random_detections(4)
    chosen = found[index]
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(chosen, name), getattr(found, name)[positions])
    assert chosen.names == [VOC_CLASSES[found.labels[i]] for i in positions]
    assert [score for _, score, _ in found] == found.scores.tolist()


def test_detections_are_shown_in_a_line():
    found = Detections(
        np.zeros((4, 4), np.float32), np.float32([0.1, 0.9, 0.5, 0.3]), np.array([1, 0, 1, 1]), ("cat", "dog")
    )
    assert repr(found) == "Detections(4: 3 dog, 1 cat; best: cat 0.900, dog 0.500, dog 0.300)"
    assert repr(Detections.empty(["cat"])) == "Detections(0)"
    assert Detections.empty(["cat"]).classes == ("cat",)


def test_atomic_write_replaces_and_obeys_the_umask(tmp_path):
    path = tmp_path / ("n" * 255)
    path.write_text("old")
    old = os.umask(0o022)
    try:
        atomic_write(path, [b"ne", b"w"])
    finally:
        os.umask(old)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_atomic_write_names_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        atomic_write(tmp_path / "missing" / "a.txt", "text")
    assert caught.value.filename == str(tmp_path / "missing" / "a.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        atomic_write(tmp_path / "folder", "text")
    assert os.listdir(tmp_path) == ["folder"]
