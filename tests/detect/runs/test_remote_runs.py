"""Runs over pictures at URLs and in containers, with results at a URL: the same as over files, whatever happens."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import random_image, write_image

pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")

from inception_rcnn.data import find_images, find_images_in, read_detections, read_proposals
from inception_rcnn.data.errors import OutputError
from inception_rcnn.data.images.sources import stamp
from inception_rcnn.data.system.remote import upload
from inception_rcnn.detect import Detector, detect_batch
from inception_rcnn.detect.cli.app import main
from inception_rcnn.detect.runs.destination import Destination
from inception_rcnn.detect.runs.names import RunFiles, relative_names
from inception_rcnn.detect.runs.proposing import propose_pictures
from inception_rcnn.proposals import SelectiveSearch

NAMES = ["a.jpg", "b.png", "c.JPG", "sub/a.jpg", "sub/d.jpeg"]
SEARCH = SelectiveSearch("single", limit=5)


def stop_after(number: int) -> Callable[..., None]:
    def progress(done: int, note: str = "") -> None:
        if done == number:
            raise KeyboardInterrupt

    return progress


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    return int(stopped.value.code or 0)


TIMED = ("run.json", "report.html")


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in TIMED)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def fetched(s3, url: str) -> dict[str, bytes]:  # type: ignore[no-untyped-def]
    return {name: s3.files.cat_file(f"{url}/{name}") for name in s3.names(url) if name not in TIMED}


def test_names_of_urls() -> None:
    assert relative_names(["s3://a/x/1.jpg", "s3://a/2.jpg"]) == ["x/1.jpg", "2.jpg"]
    assert relative_names(["s3://a/1.jpg", "s3://b/1.jpg"]) == ["a/1.jpg", "b/1.jpg"]
    assert relative_names(["s3://a/1.jpg", "gs://a/1.jpg", Path("/x/1.jpg")]) == ["s3/a/1.jpg", "gs/a/1.jpg", "x/1.jpg"]
    assert relative_names(["s3://a/x/../1.jpg", "s3://a/x//2.jpg"]) == ["_/1.jpg", "_/2.jpg"]
    assert RunFiles(["https://host/a/1.jpg?size=2"]).name(0) == "1.jpg?size=2"


def test_detect_from_a_bucket_into_a_bucket(photos: Path, tmp_path: Path, detector: Detector, s3) -> None:  # type: ignore[no-untyped-def]
    (photos / "text.jpg").write_text("no picture")
    s3.put(photos, "s3://bucket/photos")
    detect_batch(find_images(photos), tmp_path / "local", detector)
    paths = [*find_images("s3://bucket/photos/"), "s3://bucket/photos/absent.jpg"]
    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, "s3://bucket/out", detector, progress=stop_after(3))
    # Nothing is there that could be taken for results.
    assert s3.names("s3://bucket/out") == []
    summary = detect_batch(paths, "s3://bucket/out", detector)
    assert (summary.pictures, summary.failed, summary.retryable) == (5, 2, 1)
    assert summary.resumed > 0
    expected, found = contents(tmp_path / "local"), fetched(s3, "s3://bucket/out")
    assert {name for name in found if name.startswith("pictures/")} == {
        f"pictures/{name}" for name in ("a.jpg", "b.png.jpg", "c.JPG", "sub/a.jpg", "sub/d.jpeg.jpg")
    }
    for name in {*expected} - {"errors.jsonl"}:
        assert found[name] == expected[name], name
    errors = [json.loads(line) for line in found["errors.jsonl"].splitlines()]
    assert [one["file"] for one in errors] == [f"s3://bucket/photos/{name}" for name in ("text.jpg", "absent.jpg")]
    assert errors[1]["message"] == "s3://bucket/photos/absent.jpg: does not exist; check the name"
    assert list(read_detections("s3://bucket/out", "file_name")) == NAMES
    # What is missing comes, and only that is done.
    s3.files.pipe_file("s3://bucket/photos/absent.jpg", (photos / "a.jpg").read_bytes())
    summary = detect_batch(paths, "s3://bucket/out", detector, format="parquet")
    assert (summary.pictures, summary.resumed, summary.retryable) == (6, 5, 0)
    assert not [*(tmp_path / "cache" / "uploads").iterdir()]
    assert "detections.json" not in s3.names("s3://bucket/out")
    assert "pictures/absent.jpg" in s3.names("s3://bucket/out")
    assert len(read_detections("s3://bucket/out/detections.parquet", "file_name")) == 6


@pytest.mark.parametrize("is_listed", [False, True])
def test_only_changed_objects_are_done_again(
    photos: Path, tmp_path: Path, s3, monkeypatch: pytest.MonkeyPatch, is_listed: bool
) -> None:  # type: ignore[no-untyped-def]
    s3.put(photos, "s3://bucket/photos")
    paths, output = find_images("s3://bucket/photos"), tmp_path / "boxes.parquet"
    with pytest.raises(KeyboardInterrupt):
        propose_pictures(paths, output, SEARCH, progress=stop_after(3))
    asked: list[object] = []
    monkeypatch.setattr("inception_rcnn.detect.runs.names.stamp", lambda url: asked.append(url) or stamp(url))
    if is_listed:
        monkeypatch.setattr("inception_rcnn.detect.runs.names.LISTED_FROM", 2)
    changed = write_image(tmp_path / "new.jpg", random_image(9, 77, 66))
    s3.files.pipe_file("s3://bucket/photos/a.jpg", changed.read_bytes())
    summary = propose_pictures(paths, output, SEARCH)
    assert (summary.pictures, summary.resumed) == (5, 2)
    assert len(asked) == (0 if is_listed else 3)
    first = next(read_proposals(output))
    assert (first.file, first.width, first.height) == ("a.jpg", 77, 66)


def test_an_upload_that_fails_is_done_by_the_next_run(photos: Path, tmp_path: Path, s3) -> None:  # type: ignore[no-untyped-def]
    paths, output = find_images(photos), "s3://bucket/boxes.parquet"
    propose_pictures(paths, tmp_path / "local.parquet", SEARCH)
    with (
        s3.forbidding(),
        pytest.raises(OutputError, match=r"^s3://bucket/boxes.parquet: cannot be written \(no permission: .*check its"),
    ):
        propose_pictures(paths, output, SEARCH)
    # A file is written and removed before, by three requests.
    with s3.forbidding(after=3), pytest.raises(OutputError, match=r"the same command uploads them$") as raised:
        propose_pictures(paths, output, SEARCH)
    assert str(tmp_path / "cache") in str(raised.value)
    assert s3.names("s3://bucket") == []
    summary = propose_pictures(paths, output, SEARCH)
    assert (summary.pictures, summary.resumed) == (5, 5)
    assert s3.names("s3://bucket") == ["boxes.errors.jsonl", "boxes.parquet"]
    assert s3.files.cat_file(output) == (tmp_path / "local.parquet").read_bytes()
    assert [one.file for one in read_proposals(output)] == NAMES
    assert not [*(tmp_path / "cache" / "uploads").iterdir()]
    with pytest.raises(OutputError, match=r"^s3://absent/boxes.npz: cannot be written \(there is no such place\)"):
        propose_pictures(paths, "s3://absent/boxes.npz", SEARCH)


def test_results_stay_as_they_are_until_those_of_the_next_run_are_there(photos: Path, s3) -> None:  # type: ignore[no-untyped-def]
    (photos / "text.jpg").write_text("no picture")
    paths, output = find_images(photos), "s3://bucket/boxes.parquet"
    propose_pictures(paths, output, SEARCH)
    before = fetched(s3, "s3://bucket")
    assert b"text.jpg" in before["boxes.errors.jsonl"]
    with pytest.raises(KeyboardInterrupt):
        propose_pictures(paths, output, SEARCH, progress=stop_after(2))
    assert fetched(s3, "s3://bucket") == before


def test_what_was_uploaded_is_not_uploaded_again_unless_it_is_gone(
    tmp_path: Path, s3, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    place = Destination("s3://bucket/out")
    place.begin(place.path / "errors.jsonl")
    (place.path / "pictures").mkdir(parents=True)
    for i in range(3):
        (place.path / "pictures" / f"{i}.jpg").write_text(f"drawing {i}")
    asked: list[str] = []

    def watched(files: Iterable[tuple[str, Path]]) -> Iterator[Path]:
        for path in upload(files):
            asked.append(path.name)
            yield path

    monkeypatch.setattr("inception_rcnn.detect.runs.destination.upload", watched)
    deliver = partial(place.deliver, [place.path / "pictures"])
    deliver()
    assert sorted(asked) == ["0.jpg", "1.jpg", "2.jpg"]
    (place.path / "pictures" / "1.jpg").write_text("another")
    (place.path / "pictures" / "3.jpg").write_text("new")
    asked.clear()
    deliver()
    assert sorted(asked) == ["1.jpg", "3.jpg"]
    s3.files.rm("bucket/out", recursive=True)
    deliver()
    assert s3.names("s3://bucket/out/pictures") == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert s3.files.cat_file("bucket/out/pictures/1.jpg") == b"another"


def test_who_may_not_list_can_write(s3, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    asked: list[str] = []

    def forbidden(path: str) -> bool:
        asked.append(path)
        raise PermissionError("Forbidden")

    place = Destination("s3://bucket/out")
    s3.files.pipe_file("s3://bucket/out/detections.json", b"of an earlier run")
    monkeypatch.setattr(s3.files, "exists", forbidden)
    place.begin(place.path / "errors.jsonl")
    place.path.mkdir()
    (place.path / "run.json").touch()
    place.deliver([place.path / "run.json"], [place.path / "detections.json", place.path / "absent.json"])
    assert asked == [f"bucket/out/{name}" for name in ("errors.writable", "detections.json", "absent.json")]
    assert s3.names("s3://bucket/out") == ["run.json"]


def test_a_local_url_is_an_output(tmp_path: Path, photos: Path, s3) -> None:  # type: ignore[no-untyped-def]
    propose_pictures(find_images(photos), f"file://{tmp_path}/boxes.npz", SEARCH)
    assert (tmp_path / "boxes.npz").exists()


@pytest.fixture
def containers(photos: Path, tmp_path: Path) -> Path:
    """The photographs once more: two in a Parquet file, the others in a tar file."""
    folder = tmp_path / "containers"
    folder.mkdir()
    table = {"file": NAMES[:2], "image": [(photos / name).read_bytes() for name in NAMES[:2]]}
    pq.write_table(pa.table(table), folder / "0.parquet")
    with tarfile.open(folder / "1.tar", "w") as tar:
        for name in NAMES[2:]:
            tar.add(photos / name, name)
    return folder


@pytest.mark.parametrize("workers", [1, 3])
def test_detect_in_containers_is_as_in_files(
    photos: Path, containers: Path, tmp_path: Path, detector: Detector, workers: int
) -> None:
    detect_batch(find_images(photos), tmp_path / "files", detector)
    members, output = find_images_in(containers), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        detect_batch(members, output, detector, workers=workers, progress=stop_after(3))
    summary = detect_batch(members, output, detector, workers=workers)
    assert summary.pictures == 5
    assert summary.resumed > 0
    assert contents(output) == contents(tmp_path / "files")


def test_a_changed_container_is_done_again(containers: Path, tmp_path: Path) -> None:
    members, output = find_images_in(containers), tmp_path / "boxes.parquet"
    with pytest.raises(KeyboardInterrupt):
        propose_pictures(members, output, SEARCH, progress=stop_after(4))
    table = pq.read_table(containers / "0.parquet")
    pq.write_table(table, containers / "0.parquet", compression="zstd")
    summary = propose_pictures(find_images_in(containers), output, SEARCH)
    assert (summary.pictures, summary.resumed) == (5, 2)


def test_propose_in_containers_by_processes(photos: Path, containers: Path, tmp_path: Path) -> None:
    propose_pictures(find_images(photos), tmp_path / "files.npz", SEARCH)
    (containers / "2.parquet").write_bytes(b"PAR1")
    with tarfile.open(containers / "1.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("empty.png"))
    summary = propose_pictures(find_images_in(containers), tmp_path / "boxes.npz", SEARCH, workers=2)
    assert (summary.pictures, summary.failed, summary.retryable) == (5, 2, 0)
    assert (tmp_path / "boxes.npz").read_bytes() == (tmp_path / "files.npz").read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "boxes.errors.jsonl").read_text().splitlines()]
    assert [one["file"] for one in lines] == [f"{containers}/1.tar::empty.png", f"{containers}/2.parquet"]


def test_commands(photos: Path, containers: Path, tmp_path: Path, model_file: Path, s3, capsys) -> None:  # type: ignore[no-untyped-def]
    s3.put(photos, "s3://bucket/photos")
    s3.put(containers, "s3://bucket/containers")
    common = ["--model", model_file, "--method", "selective-search", "--proposals", 12, "--device", "cpu"]
    assert run("detect", "s3://bucket/photos/", "--output", "s3://bucket/out", *common) == 0
    told = capsys.readouterr().err
    assert "results are gathered in" in told
    assert "-> s3://bucket/out\n" in told
    assert run("detect", "--images-in", "s3://bucket/containers", "--output", "s3://bucket/out2/", *common) == 0
    found = fetched(s3, "s3://bucket/out")
    assert found == fetched(s3, "s3://bucket/out2")
    assert json.loads(found["detections.json"])["annotations"]
    # Pictures whose folder gets the results too: what is drawn is no input.
    for _ in range(2):
        assert run("detect", "s3://bucket/photos", "--output", "s3://bucket/photos/out", *common) == 0
    assert fetched(s3, "s3://bucket/photos/out") == found
    assert run("detect", "s3://bucket/photos", "--output", "s3://bucket/photos", *common) == 2
    assert "s3://bucket/photos: is an input of this command" in capsys.readouterr().err
    s3.files.rm("bucket/photos/out", recursive=True)
    boxes = "s3://bucket/boxes.parquet"
    assert (
        run("propose", "s3://bucket/photos", "--output", boxes, "--method", "selective-search", "--mode", "single") == 0
    )
    assert run("detect", photos, "--proposals-from", boxes, "--output", tmp_path / "out", *common[:2]) == 0
    merged = tmp_path / "merged.json"
    assert run("ensemble", "s3://bucket/out", "s3://bucket/out2/detections.parquet", "--output", merged) == 0
    assert len(read_detections(merged, "file_name")) == 5


MISTAKES = {
    "nothing": (["--output", "out"], "name pictures (IMAGES), or files that hold pictures (--images-in)"),
    "both": (["a.jpg", "--images-in", "a.tar", "--output", "out"], "one of the two"),
    "column": (["docs", "--column", "image", "--output", "out"], "--column image: is for --images-in; leave it out"),
    "absent": (["--images-in", "absent.tar", "--output", "out"], "absent.tar: does not exist"),
    "bucket": (["docs", "--output", "s3://bucket/"], "s3://bucket: is a whole bucket; name a folder or a file in it"),
    "protocol": (["nowhere://a.jpg", "--output", "out"], "nowhere://a.jpg: protocol not known"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, reason = MISTAKES[case]
    assert run("detect", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
