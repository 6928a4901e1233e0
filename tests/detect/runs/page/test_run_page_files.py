"""The pages of runs, of proposals and of classes as files: what is in them, and what can run in them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import resource
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from builders import make_picture, random_boxes, random_image, write_image
from finished_run import CLASSES, FOUND, HOSTILE, make_run

from inception_rcnn.data import Detections, Proposals, read_detections, write_detections, write_proposals
from inception_rcnn.data.errors import OutputError
from inception_rcnn.detect.cli.app import main
from inception_rcnn.detect.runs.page import writing
from inception_rcnn.detect.runs.page.classes import write_classes_page
from inception_rcnn.detect.runs.page.detections import compare_detections, write_comparison_page, write_run_page
from inception_rcnn.detect.runs.page.proposals import write_proposals_page


def test_the_scripts_of_a_page_share_no_name() -> None:
    """They become one script: a name that two declare would leave the page blank, which only a browser shows."""
    declared = re.compile(r"^(?:const|let|var|class|function\*?|async function)\s+(.+?)(?:[=({;]|$)", re.M)
    names: list[str] = []
    for script in sorted(Path(writing.__file__).parent.glob("*.js")):
        for line in declared.findall(script.read_text(encoding="utf-8")):
            names += [one.strip() for one in line.split(",")]
    assert len(names) > 50
    assert sorted(names) == sorted(set(names))


class Page(HTMLParser):
    """A page's elements, its scripts and styles, and what its scripts are given."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: tuple[str, dict[str, str | None]] = ("", {})
        self.contents: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.data = [json.loads(text) for _, attributes, text in self.contents if attributes.get("type")]
        self.scripts = [text for tag, attributes, text in self.contents if tag == "script" and not attributes]
        self.styles = [text for tag, _, text in self.contents if tag == "style"]
        self.page, *self.blocks, self.rest = self.data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag, dict(attrs)
        self.elements.append(self.inside)

    def handle_data(self, data: str) -> None:
        if self.inside[0] in ("script", "style"):
            self.contents.append((*self.inside, data))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ("", {})

    def column(self, run: int, name: str, kind: str) -> np.ndarray:
        parts = [np.frombuffer(base64.b64decode(block["runs"][run][name]), kind) for block in self.blocks]
        return np.concatenate(parts)

    @property
    def names(self) -> list[str]:
        return [name for block in self.blocks for name in block["names"]]


def test_a_page_has_what_the_run_found(run: Path) -> None:
    page = Page(write_run_page(run))
    assert page.names == list(FOUND)
    assert page.blocks[0]["runs"][0]["counts"] == [3, 2, 0, 1, 0]
    assert page.page["classes"] == list(CLASSES)
    expected = [row for rows in FOUND.values() for row in rows]
    assert page.column(0, "boxes", "<f4").reshape(-1, 4).tolist() == [box for box, _, _ in expected]
    assert page.column(0, "scores", "<f4").tolist() == np.float32([score for _, score, _ in expected]).tolist()
    assert page.column(0, "labels", "<u2").tolist() == [label for _, _, label in expected]
    assert all(base64.b64decode(one)[:2] == b"\xff\xd8" for one in page.blocks[0]["thumbnails"])
    assert page.page["command"] == {
        "images": ["photos"], "options": ["--model", "voc", "--model", "<b>mine</b>", "--nms", "greedy"],
        "only": ["dog"],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["detections.json", "detections.parquet"])
def test_the_page_is_the_same_from_both_files(tmp_path: Path, name: str) -> None:
    other = make_run(tmp_path / "other" / "run", photos=tmp_path / "photos")
    run = make_run(tmp_path / "this" / "run", photos=tmp_path / "photos", name=name)
    assert write_run_page(run).read_text().replace("/this/", "/other/") == write_run_page(other).read_text()


def test_only_the_pages_own_scripts_run(run: Path) -> None:
    page = Page(write_run_page(run))
    policy = next(a["content"] or "" for tag, a in page.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    for texts, directive in ((page.scripts, "script-src"), (page.styles, "style-src")):
        (text,) = texts
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    for tag, attributes in page.elements:
        assert tag not in ("img", "link", "iframe", "object", "embed", "base")
        assert not any(name.startswith("on") or name in ("style", "src") for name in attributes)


def test_names_are_text_and_never_markup(run: Path) -> None:
    text = write_run_page(run).read_text()
    assert "<img src" not in text
    assert "<b>mine" not in text
    # Two scripts are the page's data, one is what is different about some pictures, the last is the page's own.
    assert text.count("<script") == text.count("</script>") == 4
    assert "&lt;img src=x" in text


def test_links_lead_to_the_files(run: Path) -> None:
    page = Page(write_run_page(run))
    originals = run / unquote_to_bytes(page.page["originals"]).decode()
    drawings = run / page.page["runs"][0]["drawings"]
    assert originals.samefile(run.parent / "photos")
    assert all((originals / name).is_file() for name in page.names)
    assert page.rest == {"originals": {}, "drawn": [{}, {}]}
    assert drawings.samefile(run / "pictures")
    (drawings / "a.jpg").unlink()
    assert Page(write_run_page(run)).rest["drawn"][0] == {"0": ""}
    errors = [a["href"] for tag, a in page.elements if tag == "a" and "bad.jpg" in str(a.get("href"))]
    assert errors == ["../photos/bad.jpg"]


def test_only_what_a_browser_can_open_is_linked(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.parent / "there.jpg").touch()
    monkeypatch.chdir(run.parent)
    files = [
        "s3://bucket/a.jpg",
        "https://host/a.jpg",
        "shards/0.tar::a.jpg",
        "/x/0.tar::a.jpg",
        "gone.jpg",
        "there.jpg",
    ]
    lines = [json.dumps({"file": file, "kind": "ImageError", "message": "is empty"}) + "\n" for file in files]
    (run / "errors.jsonl").write_text("".join(lines))

    def linked(page: Path) -> list[str | None]:
        return [a["href"] for tag, a in Page(page).elements if tag == "a" and not str(a["href"]).startswith("#")]

    assert linked(write_run_page(run)) == ["https://host/a.jpg", "../there.jpg"]
    # At the URL to which it goes, there is nothing of this machine.
    page = write_run_page(run, uploaded=True)
    assert linked(page) == ["https://host/a.jpg"]
    assert Page(page).page["originals"] is None
    for folder, address in (("s3://bucket/", None), ("https://host/", "https://host/")):
        other = make_run(run.parent / folder[:4] / "run", {"a.jpg": []}, recorded={"folder": folder})
        assert Page(write_run_page(other, sources=[Path("gone.jpg")])).page["originals"] == address


def test_pictures_in_containers(tmp_path: Path) -> None:
    recorded = {"folder": f"{tmp_path}/shards/", "settings": {"images_in": ["shards/*.tar"], "column": None}}
    run = make_run(tmp_path / "run", {"a.jpg": FOUND["a.jpg"]}, recorded=recorded)
    (run / "errors.jsonl").write_text("")
    page = Page(write_run_page(run))
    assert (page.page["originals"], page.page["folder"]) == (None, None)
    assert page.rest == {"originals": {}, "drawn": [{}, {}]}
    # No file has the names that these would give.
    assert not {"list", "command", "command-text"} & {attributes.get("id") for _, attributes in page.elements}
    drawn = "with boxes in them"
    assert drawn in (run / "report.html").read_text()
    assert drawn not in write_run_page(run, sources=[run / "pictures" / "a.jpg"]).read_text()


def test_without_drawings_nothing_is_noted_of_each_picture(run: Path) -> None:
    shutil.rmtree(run / "pictures")
    page = Page(write_run_page(run))
    assert page.page["runs"][0]["drawings"] is None
    assert page.rest == {"originals": {}, "drawn": [{}, {}]}


@pytest.mark.parametrize("name", ["detections.json", "detections.parquet"])
def test_names_that_are_not_unicode(tmp_path: Path, name: str) -> None:
    odd = os.fsdecode(b"caf\xe9.jpg")
    try:
        (tmp_path / odd).touch()
    except (OSError, UnicodeError):
        pytest.skip("the file system takes Unicode only")
    run = make_run(tmp_path / "run", {odd: FOUND["a.jpg"]}, name=name)
    page = Page(write_run_page(run))
    assert page.rest["originals"] == {"0": "caf%E9.jpg"}
    assert page.rest["drawn"][0] == {"0": "caf%E9.jpg"}
    assert page.blocks[0]["thumbnails"][0]


def test_a_picture_that_is_gone_or_another_is_a_grey_tile(run: Path) -> None:
    photos = run.parent / "photos"
    (photos / "a.jpg").unlink()
    write_image(photos / "b 50 % #1?.png", random_image(0, 60, 45))
    assert [bool(one) for one in Page(write_run_page(run)).blocks[0]["thumbnails"]] == [False, False, True, True, True]


def test_of_many_pictures_the_small_ones_are_files(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "EMBEDDED", 4)
    (run / "report-thumbnails" / "0000").mkdir(parents=True)
    (run / "report-thumbnails" / "0000" / "0000099.jpg").touch()  # of an earlier page
    (run / "report-thumbnails" / "mine.txt").touch()
    page = Page(write_run_page(run))
    assert page.page["thumbnails"] == "report-thumbnails/"
    assert page.blocks[0]["thumbnails"] == [1] * 5
    files = sorted(path.name for path in (run / "report-thumbnails").rglob("*") if path.is_file())
    assert files == [*(f"{i:07d}.jpg" for i in range(5)), "mine.txt"]
    monkeypatch.undo()
    write_run_page(run)
    assert [path.name for path in (run / "report-thumbnails").iterdir()] == ["mine.txt"]


def test_blocks_are_written_as_pictures_come(tmp_path: Path) -> None:
    # Many links to one picture: what a page keeps of them must not be their small pictures.
    source = write_image(tmp_path / "source.jpg", random_image(0))
    (tmp_path / "photos").mkdir()
    names = [f"{i:05d}.jpg" for i in range(2000)]
    for name in names:
        (tmp_path / "photos" / name).symlink_to(source)
    found = Detections(random_boxes(20, 120, 90), np.linspace(0.9, 0.1, 20), np.zeros(20, np.int64), ("cat",))
    run = tmp_path / "run"
    run.mkdir()
    write_detections(run / "detections.parquet", ((name, 120, 90, found) for name in names), ("cat",))
    (run / "run.json").write_text(json.dumps({"folder": f"{tmp_path}/photos/"}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    page = write_run_page(run)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 60e6
    parsed = Page(page)
    assert len(parsed.blocks) == 20
    assert parsed.names == names


def test_a_run_of_no_pictures(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_detections(run / "detections.json", [], ("cat",))
    (run / "run.json").write_text('{"folder": ""}')
    assert Page(write_run_page(run)).blocks == []


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OutputError, match=r"has no run\.json; name the folder of a finished run"):
        write_run_page(tmp_path)
    for text, told in (("[]", "is not what a run"), ("{", "is damaged"), ("{}", "has no detections")):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(OutputError, match=told):
            write_run_page(tmp_path)
    (tmp_path / "some.txt").touch()
    for words, told in (
        (["nowhere"], "nowhere: does not exist"),
        ([tmp_path / "some.txt"], "is no file of proposals or classes"),
        ([tmp_path, "--images", tmp_path], "are for a file of proposals"),
        ([tmp_path, tmp_path, tmp_path], "name one folder of a run, two of them"),
        ([tmp_path, "--output", "page.txt"], r"name a file *.html"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["report", *map(str, words)])
        assert stop.value.code == 2
        assert told in capsys.readouterr().err


def test_the_command_makes_the_page_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["report", str(run)])
    assert stop.value.code == 0
    assert (run / "report.html").is_file()
    assert f"report -> {run / 'report.html'}" in capsys.readouterr().err.replace("\n", "")


def reference_partners(own: Detections, other: Detections) -> list[float]:
    """Best score of the boxes of the other run on each box, one pair at a time."""
    best = []
    for box, name in zip(own.boxes, own.names, strict=True):
        scores = [0.0]
        for box2, name2, score in zip(other.boxes, other.names, other.scores, strict=True):
            corner, end = np.maximum(box[:2], box2[:2]), np.minimum(box[2:], box2[2:])
            shared = np.prod(np.maximum(end - corner, 0))
            union = np.prod(box[2:] - box[:2]) + np.prod(box2[2:] - box2[:2]) - shared
            if name == name2 and shared >= 0.5 * union:
                scores.append(float(score))
        best.append(max(scores))
    return best


def test_boxes_that_only_one_run_has() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        runs = []
        for classes in (("cat", "dog"), ("dog", "cow", "cat")):
            boxes = np.tile(random_boxes(8, seed=3), (3, 1)) + rng.normal(0, 6, (24, 4)).astype(np.float32)
            boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
            scores = np.sort(rng.random(24, np.float32))[::-1]
            runs.append(Detections(boxes, scores, rng.integers(0, len(classes), 24), classes))
        columns = compare_detections(*runs, ("cat", "dog", "cow"))
        for own, other, column in zip(runs, runs[::-1], columns, strict=True):
            np.testing.assert_allclose(column["partners"], reference_partners(own, other), rtol=1e-6)
            assert [("cat", "dog", "cow")[label] for label in column["labels"]] == own.names


def test_the_pictures_that_differ_most_come_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = make_run(tmp_path / "one")
    changed = {**FOUND, "a.jpg": FOUND["a.jpg"][:1], "b 50 % #1?.png": [([1, 0, 40, 40], 0.55, 2)]}
    changed["sub/9\nnewline.jpg"] = [([0, 0, 50, 50], 0.95, 0)]
    second = make_run(tmp_path / "two", changed)
    differences, left_out = write_comparison_page(first, second, tmp_path / "page.html")
    assert [(one.name, round(one.weight, 3), one.first_only, one.second_only) for one in differences] == [
        ("sub/9\nnewline.jpg", 0.95, 0, 1), ("a.jpg", 0.6, 1, 0)
    ]  # fmt: skip
    assert left_out == 0
    page = Page(tmp_path / "page.html")
    assert [one["name"] for one in page.page["runs"]] == ["one", "two"]
    assert [block["counts"] for block in page.blocks[0]["runs"]] == [[3, 2, 0, 1, 0], [1, 1, 0, 1, 1]]
    with pytest.raises(SystemExit) as stop:
        main(["report", str(first), str(second), "--output", str(tmp_path / "again.html")])
    assert stop.value.code == 0
    assert "2 pictures differ" in capsys.readouterr().err
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "page.html").read_bytes()
    with pytest.raises(OutputError, match="have no picture of the same name"):
        write_comparison_page(first, make_run(tmp_path / "three", {"z.jpg": []}), tmp_path / "page.html")


def test_proposals_and_what_they_cover(tmp_path: Path) -> None:
    boxes = np.float32([[0, 0, 10, 10], [20, 20, 60, 60], [0, 0, 120, 90], [20, 20, 64, 60]])
    entries = [
        Proposals("a.jpg", 120, 90, boxes, np.float32([4, 3, 2, 1])),
        Proposals("b.jpg", 120, 90, boxes[:1], np.float32([1])),
    ]
    for one in entries:
        write_image(tmp_path / "photos" / one.file, random_image(0))
    write_proposals(tmp_path / "p.parquet", entries)
    page = Page(write_proposals_page(tmp_path / "p.parquet", tmp_path / "photos", tmp_path / "p.html"))
    assert page.names == ["a.jpg", "b.jpg"]
    sides = np.float32([120, 90, 120, 90])
    found = page.column(0, "boxes", "<u2").reshape(-1, 4) / 65535 * sides
    np.testing.assert_allclose(found, np.concatenate([boxes, boxes[:1]]), atol=0.002)
    objects = [[22, 20, 62, 60], [0, 0, 118, 90], [90, 60, 110, 80], [0, 0, 10, 9]]
    annotated = [make_picture(objects, image_id="a", size=(120, 90), difficult=[3])]
    page = Page(write_proposals_page(tmp_path / "p.parquet", tmp_path / "photos", tmp_path / "p.html", annotated))
    assert page.names == ["a.jpg"]
    assert page.column(1, "ranks", "<u4").tolist() == [2, 3, 0]
    with pytest.raises(OutputError, match="has none of the annotated pictures"):
        write_proposals_page(
            tmp_path / "p.parquet", tmp_path / "photos", tmp_path / "p.html", [make_picture([], image_id="z")]
        )


def test_classes_of_whole_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "photos" / "a.jpg", random_image(0))
    answers = [
        {"file": "photos/a.jpg", "classes": [{"class": "tabby", "score": 0.5}, {"class": HOSTILE, "score": 0.25}]},
        {"file": "photos/b.jpg", "error": "photos/b.jpg: does not exist"},
    ]
    (tmp_path / "classes.json").write_text(json.dumps(answers))
    monkeypatch.chdir(tmp_path)
    page = Page(write_classes_page(Path("classes.json"), Path("classes.html")))
    assert page.names == ["a.jpg"]
    assert page.page["classes"] == ["tabby", HOSTILE]
    assert page.column(0, "scores", "<f4").tolist() == [0.5, 0.25]
    for text in ("[3]", '[{"file": "a"}]', "[]", "["):
        Path("classes.json").write_text(text)
        with pytest.raises(OutputError, match=r"classes\.json: "):
            write_classes_page(Path("classes.json"), Path("classes.html"))


def test_what_the_page_of_a_detection_shows_is_what_was_written(run: Path) -> None:
    # The reader of evaluations finds the same boxes.
    page, found = Page(write_run_page(run)), read_detections(run, "file_name")
    counts = page.blocks[0]["runs"][0]["counts"]
    assert dict(zip(page.names, counts, strict=True)) == {name: len(one) for name, one in found.items()}
    assert re.fullmatch(r"#[0-9a-f]{6}", page.page["colours"][0])
