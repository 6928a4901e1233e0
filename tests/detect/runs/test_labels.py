"""Drawings, crops and labels of a finished run: read back by our own readers, and never lost or mixed up."""

from __future__ import annotations

import json
import tarfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from builders import make_detections, random_image, write_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inception_rcnn.data import Detections, write_detections
from inception_rcnn.data.errors import DataWarning, OutputError, SettingError
from inception_rcnn.data.formats.voc import voc_annotation
from inception_rcnn.detect.cli.app import main
from inception_rcnn.detect.drawing import draw_detections
from inception_rcnn.detect.runs.finished import FinishedRun
from inception_rcnn.detect.runs.labels import Exports, FoundPicture, export_pictures, export_run
from inception_rcnn.detect.runs.names import label_names
from inception_rcnn.detect.train.data import read_labelled_folder

CLASSES = ("cat", "dog", "traffic light")
SIZE = (120, 90)
FOUND = {
    "a.jpg": make_detections(
        [[10.4, 10, 60.6, 50], [30, 20, 90, 80], [5, 5, 20, 20]], [0.9, 0.6, 0.2], [0, 1, 0], CLASSES
    ),
    "b.png": make_detections([[0, 0, 120, 90]], [0.5], [2], CLASSES),
    "sub/a.jpg": make_detections([], classes=CLASSES),
}


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    return int(stopped.value.code or 0)


def write_run(
    folder: Path,
    photos: Path,
    found: Mapping[str, Detections] = FOUND,
    name: str = "detections.parquet",
    **record: object,
) -> FinishedRun:
    """Write pictures, and what a run of detect leaves in a folder."""
    for seed, picture in enumerate(found):
        if photos.suffix != ".tar":
            write_image(photos / picture, random_image(seed, *SIZE), quality=95)
    folder.mkdir(exist_ok=True)
    write_detections(folder / name, [(picture, *SIZE, one) for picture, one in found.items()], CLASSES)
    (folder / "run.json").write_text(json.dumps({"folder": f"{photos}/", "draw_score": 0.5, **record}))
    return FinishedRun(folder)


@pytest.fixture
def finished(tmp_path: Path) -> FinishedRun:
    """A run over three pictures, two of the same stem, with three detections of at least its draw score."""
    return write_run(tmp_path / "out", tmp_path / "photos")


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def rows(found: Detections) -> list[tuple[str, list[float]]]:
    return [(name, box.tolist()) for box, _, name in found]


def test_files_of_labels_in_voc_form(finished: FinishedRun, tmp_path: Path) -> None:
    export_run(finished, Exports(voc=tmp_path / "voc"))
    assert files(tmp_path / "voc") == ["a.xml", "b.xml", "sub/a.xml"]
    assert (tmp_path / "voc" / "a.xml").read_text() == (
        "<annotation>\n\t<folder>photos</folder>\n\t<filename>a.jpg</filename>\n"
        "\t<source>\n\t\t<database>Unknown</database>\n\t</source>\n"
        "\t<size>\n\t\t<width>120</width>\n\t\t<height>90</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        "\t<segmented>0</segmented>\n"
        "\t<object>\n\t\t<name>cat</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
        "\t\t<difficult>0</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>11</xmin>\n\t\t\t<ymin>11</ymin>\n"
        "\t\t\t<xmax>61</xmax>\n\t\t\t<ymax>50</ymax>\n\t\t</bndbox>\n\t</object>\n"
        "\t<object>\n\t\t<name>dog</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
        "\t\t<difficult>0</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>31</xmin>\n\t\t\t<ymin>21</ymin>\n"
        "\t\t\t<xmax>90</xmax>\n\t\t\t<ymax>80</ymax>\n\t\t</bndbox>\n\t</object>\n"
        "</annotation>\n"
    )
    assert "<truncated>1</truncated>" in (tmp_path / "voc" / "b.xml").read_text()
    assert "<folder>sub</folder>" in (tmp_path / "voc" / "sub" / "a.xml").read_text()


def test_files_of_labels_in_yolo_form(finished: FinishedRun, tmp_path: Path) -> None:
    export_run(finished, Exports(yolo=tmp_path / "yolo"), draw_score=0.6)
    assert files(tmp_path / "yolo") == [
        "classes.txt", "data.yaml", "labels/a.txt", "labels/b.txt", "labels/classes.txt", "labels/sub/a.txt"
    ]  # fmt: skip
    assert (tmp_path / "yolo/labels/a.txt").read_text() == (
        "0 0.295833 0.333333 0.418333 0.444444\n1 0.500000 0.555556 0.500000 0.666667\n"
    )
    assert (tmp_path / "yolo/labels/b.txt").read_text() == (tmp_path / "yolo/labels/sub/a.txt").read_text() == ""
    assert (tmp_path / "yolo/classes.txt").read_text() == "cat\ndog\ntraffic light\n"


boxes = st.lists(
    st.tuples(*(st.floats(0, side, width=32) for side in (*SIZE, *SIZE))).map(
        lambda ends: [min(ends[0], ends[2]), min(ends[1], ends[3]), max(ends[0], ends[2]), max(ends[1], ends[3])]
    ),
    max_size=4,
)
names = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1).filter(lambda name: name == name.strip())


@settings(max_examples=25)
@given(st.lists(boxes, min_size=1, max_size=3), st.lists(names, min_size=2, max_size=3, unique=True), st.data())
def test_our_readers_read_labels_back(
    tmp_path_factory: pytest.TempPathFactory, pictures: list, classes: list[str], data: st.DataObject
) -> None:
    pytest.importorskip("yaml")
    folder = tmp_path_factory.mktemp("labels")
    found = {}
    for i, one in enumerate(pictures):
        labels = data.draw(st.lists(st.integers(0, len(classes) - 1), min_size=len(one), max_size=len(one)))
        name = f"{'sub/' * (i % 2)}{i}.jpg"
        found[name] = make_detections(one, labels=labels, classes=classes)
        for root in ("yolo/images", "voc"):
            write_image(folder / root / name, np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    exports = Exports(yolo=folder / "yolo", voc=folder / "voc")
    exports.prepare(classes)
    entries = [FoundPicture(name, folder / name, *SIZE, one) for name, one in found.items()]
    assert list(export_pictures(exports, list(found), entries)) == []
    # VOC has whole pixels, at least one; YOLO six decimals of a share.
    for root, below, tolerance in (("yolo", "images/", 2e-4), ("voc", "", 0.5001)):
        read = {picture.image_id: picture for picture in read_labelled_folder(folder / root, classes)}
        assert read.keys() == {f"{below}{name[:-4]}" for name in found}
        for name, one in found.items():
            picture = read[f"{below}{name[:-4]}"]
            assert (picture.width, picture.height) == SIZE
            assert [classes[label] for label in picture.labels] == one.names
            large = (one.boxes[:, 2:] - one.boxes[:, :2] >= 1).all(axis=1)
            difference = np.abs(picture.boxes - one.boxes)
            assert difference[large].max(initial=0) <= tolerance
            assert difference.max(initial=0) <= 1.5
            assert (picture.boxes[:, 2:] >= picture.boxes[:, :2] + (root == "voc")).all()


def test_names_that_xml_cannot_hold() -> None:
    found = make_detections([[0, 0, 5, 5]], classes=("a<b & \0c",))
    text = voc_annotation(found, "\udcff\x01.jpg", "", *SIZE)
    assert "<filename>\\xff?.jpg</filename>" in text
    assert "<name>a&lt;b &amp; ?c</name>" in text


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["a.jpg", "sub/a.jpg", "b"], ["a", "sub/a", "b"]),
        (["a.jpg", "a.png", "A.gif"], ["a", "a.png", "A.gif"]),
        (["a.png.jpg", "a.jpg", "a.png"], ["a.png", "a", "a.png.2"]),
        (["classes.jpg", "x/classes.jpg"], ["classes.jpg", "x/classes"]),
    ],
)
def test_labels_have_names_of_their_own(names: list[str], labels: list[str]) -> None:
    assert label_names(names) == labels


def test_labels_of_pictures_that_share_a_name_are_told(tmp_path: Path) -> None:
    finished = write_run(tmp_path / "out", tmp_path / "photos", {name: FOUND["b.png"] for name in ("a.jpg", "a.png")})
    with pytest.warns(DataWarning, match=r"labels have the suffix of their pictures too .* same name: a.png; rename"):
        export_run(finished, Exports(voc=tmp_path / "voc"))
    assert files(tmp_path / "voc") == ["a.png.xml", "a.xml"]
    assert "<filename>a.png</filename>" in (tmp_path / "voc" / "a.png.xml").read_text()


def test_labels_that_were_corrected_are_kept(finished: FinishedRun, tmp_path: Path) -> None:
    exports = Exports(yolo=tmp_path / "yolo", voc=tmp_path / "photos")
    export_run(finished, exports)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_run(finished, exports)  # the same again
    corrected = tmp_path / "yolo" / "labels" / "a.txt"
    corrected.write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.warns(DataWarning, match=r"labels that are there with other content are kept: a.txt; remove"):
        export_run(finished, exports)
    assert corrected.read_text() == "0 0.5 0.5 0.1 0.1\n"
    # Numbers of classes must mean the same in all files.
    (tmp_path / "yolo" / "classes.txt").write_text("dog\ncat\n")
    with pytest.raises(OutputError, match=r"yolo/classes.txt: has other classes"):
        export_run(finished, exports)


def test_crops(finished: FinishedRun, tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    assert export_run(finished, Exports(crops=crops), 0.1)[0].objects == {"cat": 2, "dog": 1, "traffic light": 1}
    expected = ["a-1-cat.jpg", "a-2-dog.jpg", "a-3-cat.jpg", "b-1-traffic light.jpg"]
    assert files(crops) == expected
    with Image.open(tmp_path / "photos" / "a.jpg") as picture, Image.open(crops / "a-1-cat.jpg") as crop:
        pixels = np.asarray(picture)[10:50, 10:61].astype(int)
        assert np.abs(np.asarray(crop).astype(int) - pixels).mean() < 6
    # What is no longer asked for goes; what other runs cut stays.
    (crops / "other-1-cat.jpg").touch()
    export_run(finished, Exports(crops=crops), only=["dog"])
    assert files(crops) == ["a-1-dog.jpg", "other-1-cat.jpg"]
    (crops / "mine.txt").touch()
    with pytest.raises(OutputError, match=r"crops: has files that are no crops \(mine.txt\); name another folder"):
        export_run(finished, Exports(crops=crops))


@pytest.mark.parametrize("box", [[119.5, 89.5, 120, 90], [120, 90, 120, 90], [0, 0, 0, 0], [3, 4, 3, 4]])
def test_every_crop_has_a_pixel(tmp_path: Path, box: list[float]) -> None:
    finished = write_run(tmp_path / "out", tmp_path / "photos", {"a.jpg": make_detections([box], classes=CLASSES)})
    export_run(finished, Exports(crops=tmp_path / "crops"))
    with Image.open(tmp_path / "crops" / "a-1-cat.jpg") as crop:
        assert crop.size == (1, 1)


@pytest.mark.parametrize("name", ["detections.json", "detections.parquet"])
def test_draw_from_both_files(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "out", tmp_path / "photos", name=name)
    assert run("draw", tmp_path / "out", "--draw-score", 0.6, "--only", "dog") == 0
    _, replaced, first, second = capsys.readouterr().err.splitlines()
    assert replaced == f"these take the place of the run's drawings; {tmp_path / 'out' / 'report.html'} is as it was"
    assert first.startswith("3 pictures in ")
    assert first.endswith(f" s -> {tmp_path / 'out' / 'pictures'}")
    assert second == "found at 0.6 or more: dog 1"
    assert files(tmp_path / "out" / "pictures") == ["a.jpg", "b.png.jpg", "sub/a.jpg"]
    with Image.open(tmp_path / "photos" / "a.jpg") as original:
        expected = np.asarray(draw_detections(np.asarray(original), FOUND["a.jpg"][1]))
    with Image.open(tmp_path / "out" / "pictures" / "a.jpg") as drawn:
        assert np.abs(np.asarray(drawn).astype(int) - expected).mean() < 6
    assert run("draw", tmp_path / "out", "--output", tmp_path / "again") == 0
    assert "take the place" not in (told := capsys.readouterr().err)
    assert "found at 0.5 or more: cat 1, dog 1, traffic light 1" in told
    assert files(tmp_path / "again") == files(tmp_path / "out" / "pictures")


def test_pictures_that_are_gone_or_changed_are_told(
    finished: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos" / "b.png").unlink()
    write_image(tmp_path / "photos" / "sub" / "a.jpg", random_image(5, 60, 60))
    labels = ["--save-voc", tmp_path / "voc", "--crop", tmp_path / "crops"]
    assert run("draw", finished.folder, "--output", tmp_path / "new", *labels) == 1
    _, *lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"passed over: {tmp_path}/photos/b.png: does not exist; check the name"
    assert lines[1].startswith(f"passed over: {tmp_path}/photos/sub/a.jpg: has another size than when it was searched")
    assert lines[2].startswith("1 picture in ")
    assert lines[-1] == "2 of 3 pictures could not be read or written"
    assert files(tmp_path / "new") == ["a.jpg"]
    assert files(tmp_path / "crops") == ["a-1-cat.jpg", "a-2-dog.jpg"]
    # Labels need no pixels.
    assert files(tmp_path / "voc") == ["a.xml", "b.xml", "sub/a.xml"]
    assert run("draw", finished.folder, "--no-drawings", "--save-voc", tmp_path / "voc") == 0


def test_mistakes_of_draw(finished: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, out = tmp_path / "photos", finished.folder
    before = {name: (photos / name).read_bytes() for name in files(photos)}
    (tmp_path / "file").touch()
    for told, arguments in (
        ("has no run.json; name the folder of a finished run of detect", [photos]),
        ("only 'cta': no such class (did you mean 'cat'?); there are cat, dog, traffic light", [out, "--only", "cta"]),
        ("photos: has files already; name a new or empty folder", [out, "--output", photos]),
        ("name --crop, --save-yolo or --save-voc", [out, "--no-drawings"]),
        ("file: cannot be a folder", [out, "--save-yolo", tmp_path / "file"]),
        ("crop and --save-voc are two outputs; name another", [out, "--crop", "same", "--save-voc", "./same"]),
        ("photos: has files that are no crops", [out, "--crop", photos]),
        ("out: is an input of this command", [out, "--crop", out]),
    ):
        assert run("draw", *arguments) == 2
        assert told in capsys.readouterr().err.splitlines()[-1]
    assert {name: (photos / name).read_bytes() for name in files(photos)} == before
    assert run("draw", out, "--crop", "s3://bucket/crops") == 2
    assert "s3://bucket/crops: is written to this machine only" in capsys.readouterr().err


def test_a_hostile_run_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").touch()
    finished = write_run(tmp_path / "out", tmp_path / "photos" / "x")
    write_detections(finished.folder / "detections.parquet", [("../../secret.jpg", *SIZE, FOUND["a.jpg"])], CLASSES)
    with pytest.raises(OutputError, match=r"'\.\./\.\./secret.jpg' leads out of the folder of the pictures"):
        export_run(FinishedRun(finished.folder), Exports(drawings=tmp_path / "drawn"))


def test_a_run_without_pictures(tmp_path: Path) -> None:
    finished = write_run(tmp_path / "out", tmp_path / "photos", {})
    summary, failures = export_run(finished, Exports(drawings=tmp_path / "drawn"), only=["cat"])
    assert (summary.pictures, failures, files(tmp_path / "drawn")) == (0, [], [])


def test_pictures_in_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "out", tmp_path / "photos", images_in=None)
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for name in ("a.jpg", "b.png"):
            tar.add(tmp_path / "photos" / name, name)
    record = {"folder": f"{tmp_path}/", "draw_score": 0.5, "settings": {"images_in": ["set.tar"]}}
    (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    _, (failed,) = export_run(FinishedRun(tmp_path / "out"), Exports(drawings=tmp_path / "drawn"))
    assert files(tmp_path / "drawn") == ["a.jpg", "b.png.jpg"]
    assert failed.line["message"] == "set.tar::sub/a.jpg: is not there any more"
    monkeypatch.chdir(tmp_path / "out")
    with pytest.raises(
        OutputError, match=r"its pictures cannot be found: set.tar: does not exist.*where detect was started"
    ):
        export_run(FinishedRun(tmp_path / "out"), Exports(drawings=tmp_path / "drawn"))


def test_only_classes_that_the_run_has(finished: FinishedRun, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"only 'Dog': no such class \(did you mean 'dog'\?\)"):
        export_run(finished, Exports(drawings=tmp_path / "drawn"), only=["Dog"])
    assert not (tmp_path / "drawn").exists()
