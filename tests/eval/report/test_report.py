import html
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from builders import make_detections, make_picture
from PIL import Image

from inception_rcnn.data import Detections, Picture
from inception_rcnn.eval import EvaluationError, evaluate_ilsvrc, evaluate_thresholds, evaluate_voc
from inception_rcnn.eval.errors import ERROR_TYPES, count_false_positives, false_positives
from inception_rcnn.eval.matching import HIT, IGNORED, Matches, match_voc
from inception_rcnn.eval.report.mistakes import _cut_around
from inception_rcnn.eval.report.page import _class_row, write_report

HOSTILE = "</script><script>window.hacked = 1</script><b>&amp;\"'"
CLASSES = ("cat", "person", "cup", HOSTILE, "bird")
HOSTILE_FILE = "<img src=x onerror='window.hacked = 1'>"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Picture], dict[str, Detections]]:
    """Three photographs, one of them missing, each with a few objects; detections near them, right and wrong."""
    from skimage import data

    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    pictures, found = [], {}
    for name, image in (("chelsea", data.chelsea()), (HOSTILE_FILE, data.astronaut()), ("absent", data.coffee())):
        path = folder / f"{name}.jpg"
        if name != "absent":
            Image.fromarray(image).save(path)
        height, width = image.shape[:2]
        start = rng.uniform(0, 0.5, (8, 2)) * (width, height)
        boxes = np.concatenate([start, start + rng.uniform(0.1, 0.5, (8, 2)) * (width, height)], axis=1)
        labels = rng.integers(0, 4, 8)
        flags = rng.random(8) < 0.1
        pictures.append(make_picture(boxes, labels, name, path=path, size=(width, height), difficult=flags))
        moved = np.tile(boxes, (3, 1)) + rng.normal(0, 12, (24, 4))
        wrong = np.where(rng.random(24) < 0.7, np.tile(labels, 3), rng.integers(0, 5, 24))
        found[name] = make_detections(moved, rng.random(24, np.float32), wrong, CLASSES)
    return pictures, found


@pytest.fixture(scope="module")
def page(scene, tmp_path_factory) -> Path:
    pictures, found = scene
    proposals = {name: one.boxes for name, one in found.items()}
    folder = tmp_path_factory.mktemp("report") / "new"
    return write_report(
        folder, pictures, found, CLASSES, similar=[("cat", "person")], proposals=proposals, title="Cats & <dogs>"
    )


class Elements(HTMLParser):
    """Every element's name and attributes; the text of scripts, styles and everything else."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {"script": [], "style": [], "": []}
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = tag if tag in ("script", "style") else ""
        if self.inside:
            self.text[tag].append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside:
            self.text[self.inside][-1] += data
        else:
            self.text[""].append(data)


def figures_of(path: Path) -> dict:
    return json.loads(Elements(path.read_text(encoding="utf-8")).text["script"][1])


def test_one_file_that_loads_nothing(page):
    assert page.name == "report.html"
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]
    assert page.stat().st_size < 8e6
    parsed = Elements(page.read_text(encoding="utf-8"))
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "data", "poster", "action", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/jpeg;base64,")), (tag, value[:80])
    assert "url(" not in parsed.text["style"][0]
    assert "@import" not in parsed.text["style"][0]
    policy = next(a["content"] for tag, a in parsed.elements if "content-security-policy" in str(a).lower())
    assert policy.startswith("default-src 'none'")


def test_names_are_text(page):
    parsed = Elements(page.read_text(encoding="utf-8"))
    # plotly.js, the figures, the page's own.
    assert len(parsed.text["script"]) == 3
    assert not any("hacked" in text for text in parsed.text["script"][::2])
    assert not any(tag == "img" for tag, _ in parsed.elements)
    assert HOSTILE in parsed.text[""]
    assert any(HOSTILE_FILE in text for text in parsed.text[""])
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "Cats & <dogs>" in parsed.text[""]
    figures = figures_of(page)
    traces = [*figures["curves"]["data"], *figures["sizes"]["data"], *figures["kinds"]["data"]]
    escaped = html.escape(HOSTILE, quote=False)
    assert escaped == "&lt;/script&gt;&lt;script&gt;window.hacked = 1&lt;/script&gt;&lt;b&gt;&amp;amp;\"'"
    whole = [trace["text"] for trace in traces if isinstance(trace.get("text"), str)]
    whole += [name for trace in figures["kinds"]["data"] for name in trace["customdata"]]
    lines = [re.sub("<br>| ", "", name) for name in whole]
    assert lines.count(escaped.replace(" ", "")) == 2 + len(figures["kinds"]["data"])
    labels = [trace["name"] for trace in traces] + figures["kinds"]["layout"]["yaxis"]["ticktext"]
    assert {label for label in labels if "<" in label} == {"<b>mean</b>"}


def test_the_figures_are_plotlys(page):
    graph_objects = pytest.importorskip("plotly.graph_objects")
    figures = figures_of(page)
    of_boxes = {"overlap", "number", "kinds", "gains", "sizes"}
    assert set(figures) == {"curves", "calibration", "scores", "thresholds", "confusion", "tide"} | of_boxes
    for figure in figures.values():
        assert figure["data"]
        # It refuses attributes and values that plotly.js does not know.
        graph_objects.Figure(json.loads(re.sub(r"var\(--\w+\)", "#000", json.dumps(figure))))
    shares = np.array([trace["x"] for trace in figures["kinds"]["data"]])
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=3e-4)


@pytest.mark.parametrize("metric", ["voc07", "voc12", "ilsvrc"])
def test_numbers_are_those_of_the_evaluation(scene, tmp_path, metric):
    pictures, found = scene
    blacklist = [("chelsea", "cat")] if metric == "ilsvrc" else []
    path = write_report(tmp_path, pictures, found, CLASSES, metric=metric, blacklist=blacklist)
    if metric == "ilsvrc":
        expected = evaluate_ilsvrc(pictures, found, CLASSES, blacklist)
    else:
        expected = evaluate_voc(pictures, found, CLASSES, metric)
    text = [one.strip() for one in Elements(path.read_text(encoding="utf-8")).text[""] if one.strip()]
    assert text[text.index("mAP") + 1] == f"{expected['mAP']:.3f}"
    for name, ap in expected["per_class"].items():
        # The name is in the list to choose from, then in the table.
        row = len(text) - 1 - text[::-1].index("Precision and recall")
        row = [i for i in range(row) if text[i] == name][-1]
        assert text[row + 1] == ("–" if np.isnan(ap) else f"{ap:.3f}")


def test_intervals_and_the_chosen_score_are_shown(scene, tmp_path):
    pictures, found = scene
    result = evaluate_voc(pictures, found, CLASSES, bootstrap=100)
    matches = match_voc(pictures, found, CLASSES)
    chosen = evaluate_thresholds(matches, "precision=0.5", bootstrap=100)
    path = write_report(tmp_path, pictures, found, CLASSES, result={**result, "thresholds": chosen})
    text = " ".join(" ".join(Elements(path.read_text(encoding="utf-8")).text[""]).split())
    low, high = result["intervals"]["mAP"]
    assert f"95 % interval {low:.3f} to {high:.3f}" in text
    for name in ("cat", "person", "cup"):
        low, high = result["intervals"]["per_class"][name]
        assert f"{low:.3f} to {high:.3f}" in text
    own = chosen["together"]
    low, high = own["intervals"]["precision"]
    assert f"Chosen at precision=0.5: a score of {own['score']:.3f}" in text
    assert f"precision is {own['precision']:.3f} ({low:.3f} to {high:.3f})" in text
    plain = write_report(tmp_path, pictures, found, CLASSES).read_text(encoding="utf-8")
    assert "95 % interval" not in plain
    assert "The best F1 is reached at a score of" in plain
    never = write_report(
        tmp_path, pictures, found, CLASSES, result={"thresholds": evaluate_thresholds(matches, "recall=1")}
    )
    assert "No score reaches recall=1." in never.read_text(encoding="utf-8")


def test_what_was_evaluated_is_said(scene, tmp_path):
    pictures, found = scene
    settings = {"Detections": "out/<b>/detections.json", "Set": "VOC2007, test"}
    first = write_report(tmp_path / "a", pictures, found, CLASSES, settings=settings).read_bytes()
    assert write_report(tmp_path / "b", pictures, found, CLASSES, settings=settings).read_bytes() == first
    text = [one.strip() for one in Elements(first.decode()).text[""] if one.strip()]
    start = text.index("Detections")
    assert text[start : start + 4] == ["Detections", "out/<b>/detections.json", "Set", "VOC2007, test"]
    # The number of detections is still there.
    assert "72" in [after for one, after in pairwise(text) if one == "Detections"]
    assert '<dl class="settings">' not in write_report(tmp_path, pictures, found, CLASSES).read_text("utf-8")


def test_long_names_are_short_where_there_is_little_room(scene, tmp_path):
    pictures, found = scene
    # The same until far behind what is shown.
    classes = ("x" * 200 + "a", "x" * 200 + "b", "cup or mug", "dog, domestic dog, Canis familiaris", "bird")
    found = {name: Detections(one.boxes, one.scores, one.labels, classes) for name, one in found.items()}
    path = write_report(tmp_path, pictures, found, classes)
    figures = figures_of(path)
    shown = {trace["name"] for trace in figures["curves"]["data"]}
    assert shown == {"x" * 27 + "…", "cup or mug", "dog, domestic dog, Canis fa…", "<b>mean</b>"}
    bars = figures["kinds"]
    assert set(bars["layout"]["yaxis"]["ticktext"]) <= shown
    assert all(len(set(trace["y"])) == len(trace["x"]) == len(trace["customdata"]) for trace in bars["data"])
    for whole in [figures["curves"]["data"][1]["text"], bars["data"][0]["customdata"][2]]:
        assert whole.replace("<br>", "") == classes[1]
        assert max(map(len, whole.split("<br>"))) <= 48
    parsed = Elements(path.read_text(encoding="utf-8"))
    assert parsed.text[""].count(classes[1]) == 1  # in the table
    assert {tag for tag, attributes in parsed.elements if attributes.get("title") == classes[1]} >= {"button", "option"}
    assert not any(attributes.get("title") == "cup or mug" for _, attributes in parsed.elements)


@pytest.mark.parametrize("count", [20, 21])
def test_many_classes_have_no_legend(scene, tmp_path, count):
    pictures, found = scene
    classes = (*CLASSES, *(f"class {i}" for i in range(count - 5)))
    path = write_report(tmp_path, pictures, found, classes)
    assert figures_of(path)["curves"]["layout"]["showlegend"] == (count == 20)
    text = path.read_text(encoding="utf-8")
    assert ("in the legend" in text) == (count == 20)
    assert "“Highlight”" in text


@pytest.mark.parametrize(
    ("similar", "shown"), [(None, False), ([], False), ([("cat",)], False), ([("cat", "person")], True)]
)
def test_similar_only_where_there_are_groups(scene, tmp_path, similar, shown):
    pictures, found = scene
    path = write_report(tmp_path, pictures, found, CLASSES, similar=similar)
    figures = figures_of(path)
    kinds = [kind for kind in ERROR_TYPES if shown or kind != "similar"]
    assert [trace["name"] for trace in figures["kinds"]["data"]] == figures["gains"]["data"][0]["y"] == kinds
    assert ("Similar: " in path.read_text(encoding="utf-8")) == shown


def test_counts_stand_beside_percentages(scene, tmp_path):
    pictures, found = scene
    path = write_report(tmp_path, pictures, found, CLASSES)
    text = " ".join(" ".join(Elements(path.read_text(encoding="utf-8")).text[""]).split())
    matches = match_voc(pictures, found, CLASSES)
    objects = sum(one.positives for one in matches.values())
    hits = sum(int((one.outcome == HIT).sum()) for one in matches.values())
    assert f"{hits} of {objects}, at any score" in text
    counts = count_false_positives(matches, false_positives(pictures, found, matches))
    top = np.sum([*counts.values()], axis=0)
    assert f"{top.max() / top.sum():.0%} of all classes' ({top.max()})" in text
    for trace in figures_of(path)["kinds"]["data"]:
        kind = ERROR_TYPES.index(trace["name"])
        numbers = [one for one in counts.values() if one.any()]
        assert trace["text"] == ["", *(str(one[kind] or "") for one in numbers)]
        assert trace["hovertext"][1:] == [f", {one[kind]} of {one.sum()}" for one in numbers]


def test_no_best_class_where_all_are_alike(scene, tmp_path):
    pictures, found = scene
    perfect = {p.image_id: Detections(p.boxes, np.ones(8, np.float32), p.labels, CLASSES) for p in pictures}
    for one, shown in ((found, True), ({}, False), (perfect, False)):
        text = write_report(tmp_path, pictures, one, CLASSES).read_text(encoding="utf-8")
        assert ("Best class" in text) == ("Weakest class" in text) == shown


def test_the_mean_is_of_the_lines(page):
    *lines, mean = figures_of(page)["curves"]["data"]
    assert mean["name"] == "<b>mean</b>"
    for recall, precision in zip(mean["x"], mean["y"], strict=True):
        # The first point at or beyond, as the step is drawn; where the line has ended, 0.
        at = [next((y for x, y in zip(line["x"], line["y"], strict=True) if x >= recall - 1e-4), 0) for line in lines]
        assert precision == pytest.approx(np.mean(at), abs=2e-4)


@pytest.mark.parametrize(
    ("metric", "end", "before"),
    [("ilsvrc", 20, True), ("ilsvrc", 21, False), ("voc12", 15, False), ("voc12", 14, True)],
)
def test_found_before_by_the_threshold_of_the_object(tmp_path, metric, end, before):
    # IoU 0.25, 0.23, 0.44, 0.51. The threshold of 10 x 10 pixels is 0.25 for ILSVRC.
    boxes = np.float32([[0, 0, 10, 10], [0, 0, end, end]])
    picture = make_picture(boxes[:1], path=tmp_path / "a.jpg")
    found = {"a": make_detections(boxes, classes=("ant",))}
    text = write_report(tmp_path, [picture], found, ("ant",), metric=metric).read_text(encoding="utf-8")
    assert ("that has been found before" in text) == before
    assert ("with an object of the class" in text) != before


def test_a_file_where_the_folder_should_be(scene, tmp_path):
    pictures, found = scene
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to("nowhere")
    for folder, named in (("file", "file"), ("file/new/er", "file"), ("link", "link")):
        with pytest.raises(NotADirectoryError, match="not a folder; name one for the report") as caught:
            write_report(tmp_path / folder, pictures, found, CLASSES)
        assert caught.value.filename == str(tmp_path / named)
    assert (tmp_path / "file").read_text() == "kept"


def test_reliability_of_scores(scene, tmp_path):
    pictures, found = scene
    expected = evaluate_voc(pictures, found, CLASSES)["calibration"]
    path = write_report(tmp_path, pictures, found, CLASSES)
    assert f"<strong>{expected['expected_calibration_error']:.3f}</strong>" in path.read_text(encoding="utf-8")
    figures = figures_of(path)
    false, right = (np.array(trace["y"]) for trace in figures["scores"]["data"][::-1])
    assert (false + right).tolist() == [one["count"] for one in expected["bins"]]
    points = figures["calibration"]["data"][-1]
    np.testing.assert_allclose(
        np.array(points["y"], float), [one["share_right"] for one in expected["bins"]], atol=1e-4
    )
    assert points["text"][4].endswith(f"of {expected['bins'][4]['count']} detections")


def test_scores_that_are_no_probabilities(scene, tmp_path):
    pictures, found = scene
    distances = {name: replace(one, scores=4 * one.scores - 2) for name, one in found.items()}
    path = write_report(tmp_path, pictures, distances, CLASSES)
    assert "they are no probabilities" in path.read_text(encoding="utf-8")
    assert not figures_of(path)["calibration"]["data"]
    assert evaluate_voc(pictures, distances, CLASSES)["calibration"] is None


def test_a_row_of_the_table():
    score = np.array([0.9, 0.8, 0.8, 0.3, 0.2])
    none = np.zeros(5, np.int64)
    outcome = np.array([HIT, HIT, 0, IGNORED, 0], np.int8)
    row = _class_row("cat", Matches(none, none, score, outcome, none, score, 3), "voc12")
    # Not after the second detection, where F1 would be 0.8: no threshold lies between equal scores.
    assert (row.f1, row.score) == (pytest.approx(2 * 2 / (3 + 3)), 0.8)
    assert row.recall == pytest.approx(2 / 3)
    assert row.detections == 5


def test_a_missing_picture_is_a_grey_card(page):
    text = page.read_text(encoding="utf-8")
    assert "absent.jpg cannot be read" in text
    assert text.count('<svg class="blank"') == text.count("cannot be read")
    assert text.count("data:image/jpeg") > 0


@pytest.mark.parametrize("case", ["no detections", "no pictures", "no objects", "one class", "perfect"])
def test_sets_with_little_in_them(scene, tmp_path, case):
    pictures, found = scene
    classes = CLASSES
    if case == "no detections":
        found = {}
    elif case == "no pictures":
        pictures, found = [], {}
    elif case == "no objects":
        flags = np.zeros(0, bool)
        pictures = [Picture(p.image_id, p.path, 9, 9, p.boxes[:0], p.labels[:0], flags, flags) for p in pictures]
    elif case == "one class":
        classes = ("cat",)
        pictures = [Picture(p.image_id, p.path, p.width, p.height, p.boxes, p.labels * 0, p.difficult, p.crowd)
                    for p in pictures]  # fmt: skip
    else:
        found = {p.image_id: Detections(p.boxes, np.ones(8, np.float32), p.labels, CLASSES) for p in pictures}
    path = write_report(tmp_path, pictures, found, classes)
    assert "nan" not in "".join(Elements(path.read_text(encoding="utf-8")).text[""]).lower()
    assert all(set(figure) == {"data", "layout"} for figure in figures_of(path).values())


def test_pictures_of_unknown_size_are_shown_as_others(scene, tmp_path):
    pictures, found = scene
    unknown = [replace(picture, width=0, height=0) for picture in pictures]
    # Of one whose file is missing too, nothing but the objects tells the size.
    for some in (slice(2), slice(3)):
        known, other = (
            write_report(tmp_path / name, own[some], {p.image_id: found[p.image_id] for p in own[some]}, CLASSES)
            for name, own in (("known", pictures), ("unknown", unknown))
        )
        assert "inf" not in "".join(Elements(other.read_text(encoding="utf-8")).text[""]).lower().split()
        if some.stop == 2:
            assert Elements(other.read_text()).elements == Elements(known.read_text()).elements


def test_wrong_arguments_are_refused(scene, tmp_path):
    pictures, found = scene
    with pytest.raises(ValueError, match="'coco'"):
        write_report(tmp_path, pictures, found, CLASSES, metric="coco")
    with pytest.raises(ValueError, match="blacklist belongs to the metric 'ilsvrc'"):
        write_report(tmp_path, pictures, found, CLASSES, blacklist=[("chelsea", "cat")])
    with pytest.raises(EvaluationError, match="has detections but no annotations"):
        write_report(tmp_path, pictures, {"nowhere": found[pictures[0].image_id]}, CLASSES)
    with pytest.raises(EvaluationError, match="has proposals but no annotations"):
        write_report(tmp_path, pictures, found, CLASSES, proposals={"nowhere": np.zeros((1, 4))})
    assert not list(tmp_path.iterdir())


def test_an_unknown_picture_without_detections_does_no_harm(scene, tmp_path):
    pictures, found = scene
    nothing = make_detections([], classes=CLASSES)
    assert write_report(tmp_path, pictures, {**found, "nowhere": nothing}, CLASSES).is_file()


def test_a_picture_above_the_limit_is_a_grey_card(tmp_path):
    # Of no known size: that is read too.
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    picture = make_picture([[0, 0, 10, 10]], path=tmp_path / "a.png", size=(0, 0))
    found = {"a": make_detections([[30, 20, 50, 30]], classes=("ant",))}
    for limit, cards, share in ((2399, 0, "100%"), (2400, 2, "4%")):
        path = write_report(tmp_path, [picture], found, ("ant",), max_pixels=limit)
        text = path.read_text(encoding="utf-8")
        assert text.count("data:image/jpeg;base64,") == cards
        assert f"{share} of the picture" in text


def test_a_file_name_that_is_not_utf8(scene, tmp_path):
    pictures, found = scene
    lost = Picture("absent", Path("caf\udce9.jpg"), *list(vars(pictures[2]).values())[2:])
    path = write_report(tmp_path, [*pictures[:2], lost], found, CLASSES)
    assert "caf?.jpg" in path.read_text(encoding="utf-8")


def test_plotly_and_jinja_are_imported_only_to_write(tmp_path):
    code = "import sys, inception_rcnn.eval.report.page; print({'plotly', 'jinja2', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("boxes", [[[0, 0, 600, 400]], [[590, 390, 600, 400]], [[0, 0, 10, 400]], [[-20, 50, 40, 900]]])
def test_what_is_seen_of_a_picture(boxes):
    boxes, size = np.array(boxes, np.float64), np.array([600.0, 400.0])
    low, high = _cut_around(boxes, size)
    np.testing.assert_allclose((high - low)[0] / (high - low)[1], 4 / 3)
    inside = np.clip(boxes, 0, np.tile(size, 2))
    assert (low <= inside[0, :2] + 1e-9).all()
    assert (high >= inside[0, 2:] - 1e-9).all()
    # Beyond the border only where the part is larger than the picture.
    outside = (low < -1e-9) | (high > size + 1e-9)
    assert not (outside & (high - low < size)).any()


@pytest.fixture
def opened(browser, page):
    browser.get_log("browser")
    browser.get(page.as_uri())
    yield browser
    # plotly.js warns of what it cannot draw.
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert browser.execute_script("return window.hacked") is None


def column(browser, number):
    return browser.execute_script(
        "return [...document.querySelectorAll('#table tbody tr')].map(row => row.cells[arguments[0]].innerText.trim())",
        number,
    )


def test_plots_are_drawn(opened):
    for name in ("curves", "overlap", "number", "kinds", "gains", "sizes"):
        size = opened.find_element("css selector", f"#{name} .main-svg").size
        assert size["width"] > 300
        assert size["height"] > 100
    # Four classes that have objects, and their mean.
    lines = opened.find_elements("css selector", "#curves .scatterlayer .trace path.js-line")
    assert len(lines) == 5
    assert all(line.get_attribute("d") for line in lines)
    assert len(opened.find_elements("css selector", "#kinds .barlayer .trace")) == 4


def test_shares_are_written_in_the_confusions(opened):
    written: list[str] = []
    for _ in range(100):  # plotly.js writes them after the rest.
        written = opened.execute_script(
            "return [...document.querySelectorAll('#confusion .heatmap-label text')].map(one => one.textContent)"
        )
        if written:
            break
        time.sleep(0.1)
    assert len([cell for cell in written if cell]) > 4
    assert all(not cell or 0 <= int(cell) <= 100 for cell in written)


def test_nothing_is_asked_of_the_network(opened):
    asked = opened.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert not [name for name in asked if not name.startswith(("data:", "blob:"))]


def test_a_click_on_a_header_sorts(opened):
    header = opened.find_elements("css selector", "#table thead th")[1]
    button = header.find_element("css selector", "button")
    assert header.get_attribute("aria-sort") is None
    button.click()
    assert header.get_attribute("aria-sort") == "descending"
    values = column(opened, 1)
    assert values[:-1] == sorted(values[:-1], key=float, reverse=True)
    assert values[-1] == "–"
    # With the keyboard; what has no number stays at the end.
    button.send_keys("\ue007")
    assert header.get_attribute("aria-sort") == "ascending"
    values = column(opened, 1)
    assert values[:-1] == sorted(values[:-1], key=float)
    assert values[-1] == "–"
    opened.find_elements("css selector", "#table thead button")[0].click()
    assert len(opened.find_elements("css selector", "[aria-sort]")) == 1
    assert [name for name in column(opened, 0) if name != HOSTILE] == ["cat", "cup", "person", "bird"]


def test_classes_without_objects_are_folded_away(opened):
    rows = [row for row in opened.find_elements("css selector", "#table tbody tr") if row.is_displayed()]
    assert len(rows) == 4
    fold = opened.find_element("id", "fold")
    assert (fold.text, fold.get_attribute("aria-expanded")) == ("1 class without objects", "false")
    fold.send_keys("\ue007")
    assert fold.get_attribute("aria-expanded") == "true"
    assert [row.text.split()[0] for row in opened.find_elements("css selector", "#without tr")] == ["bird"]
    assert opened.find_element("id", "without").is_displayed()


def test_a_class_can_be_highlighted(opened):
    opened.find_element("css selector", "[data-class='1']").click()
    assert opened.find_element("id", "highlight").get_attribute("value") == "1"
    assert opened.find_element("css selector", "[data-class='1']").get_attribute("aria-pressed") == "true"
    widths = opened.execute_script("return document.getElementById('curves').data.map(trace => trace.line.width)")
    assert widths == [1.5, 4, 1.5, 1.5, 3.5]
    opened.find_element("css selector", "[data-class='1']").click()
    assert opened.find_element("id", "highlight").get_attribute("value") == ""


def test_the_whole_name_is_at_the_pointer(opened):
    shown = opened.execute_async_script(
        """const done = arguments[arguments.length - 1];
        Plotly.Fx.hover("curves", [{curveNumber: 3, pointNumber: 1}]);
        Plotly.Fx.hover("kinds", [{curveNumber: 0, pointNumber: 4}]);
        setTimeout(() => done(["curves", "kinds"].map(
            id => document.querySelector(`#${id} .hoverlayer`).textContent.replace(/\\s+/g, ""))), 300);"""
    )
    assert all(HOSTILE.replace(" ", "") in one for one in shown)


def test_the_key_of_a_gallery_is_not_broken(opened):
    # Each swatch is on the line of its label, however narrow the window.
    for width in range(100, 700, 50):
        heights = opened.execute_script(
            """document.querySelector("#worst > p").style.width = arguments[0] + "px";
            return [...document.querySelectorAll("#worst .entry")].map(one => one.getClientRects().length);""",
            width,
        )
        assert heights == [1, 1, 1]


def test_light_and_dark(opened):
    def seen(scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        return opened.execute_async_script(
            """const done = arguments[arguments.length - 1];
            setTimeout(() => done([
                getComputedStyle(document.body).backgroundColor,
                getComputedStyle(document.querySelector("#curves .xtick text")).fill,
                document.getElementById("curves").data.at(-1).line.color,
            ]), 300);"""
        )

    light, dark = seen("light"), seen("dark")
    assert all(a != b for a, b in zip(light, dark, strict=True))
