"""The page of a run in a browser: what its slider, filters and keys do, what it exports, and what it never does."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_picture, write_image
from finished_run import CLASSES, FOUND, HOSTILE, make_run

from inception_rcnn.data import Proposals, write_proposals
from inception_rcnn.detect.runs.page.classes import write_classes_page
from inception_rcnn.detect.runs.page.detections import write_comparison_page, write_run_page
from inception_rcnn.detect.runs.page.proposals import write_proposals_page

ROOT = Path(__file__).resolve().parents[4]
LEFT, RIGHT, DOWN, ENTER, ESCAPE, HOME, END = "\ue012", "\ue014", "\ue015", "\ue007", "\ue00c", "\ue011", "\ue010"


class Opened:
    """A page in the browser, with what a person does to it."""

    def __init__(self, browser: Any, page: Path) -> None:
        self.browser = browser
        browser.get_log("browser"), browser.get_log("performance")
        browser.get("about:blank")
        browser.get(page.as_uri())

    def do(self, script: str, *arguments: object) -> Any:
        return self.browser.execute_script(script, *arguments)

    def one(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def slide(self, value: float) -> None:
        # The page does all of it before the event returns.
        self.do(
            "const s = document.getElementById('level'); s.value = arguments[0]; s.dispatchEvent(new Event('input'));",
            value,
        )

    def choose(self, field: str, value: str) -> None:
        script = """const field = document.getElementById(arguments[0]);
            field.value = arguments[1];
            field.dispatchEvent(new Event(field.tagName === 'SELECT' ? 'change' : 'input'));"""
        self.do(script, field, value)

    @property
    def boxes(self) -> int:
        """Boxes that are drawn over the pictures of the gallery."""
        return self.do(
            """return [...document.querySelectorAll('#gallery .box, #gallery .both, #gallery .proposal')]
            .reduce((count, path) => count + path.getAttribute('d').split('M').length - 1, 0);"""
        )

    @property
    def names(self) -> list[str]:
        return self.do("return [...document.querySelectorAll('.tile .name')].map(one => one.title)")

    @property
    def focused(self) -> str:
        return self.do(
            "return document.activeElement.closest('.tile')?.querySelector('.name').title ?? document.activeElement.id"
        )

    def press(self, keys: str) -> None:
        self.browser.switch_to.active_element.send_keys(keys)

    def status(self) -> str:
        return self.one("#status").text

    def download(self, button: str, name: str) -> str:
        target = Path(self.browser.downloads, name)
        target.unlink(missing_ok=True)
        self.do("document.getElementById(arguments[0]).click()", button)
        for _ in range(100):
            if target.exists():
                return target.read_bytes().decode()
            time.sleep(0.05)
        raise AssertionError(f"{name} was not saved")

    def check(self) -> None:
        """No error, nothing from elsewhere, no markup out of names."""
        assert [entry for entry in self.browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
        assert self.do("return window.hacked") is None


@pytest.fixture
def opened(browser: Any, run: Path) -> Iterator[Opened]:
    page = Opened(browser, write_run_page(run))
    yield page
    page.check()


def accessible(page: Opened) -> None:
    """Whether axe-core finds nothing serious, in light and in dark."""
    axe = ROOT / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
    if not axe.is_file():
        pytest.skip("no axe-core: npm install --prefix build/axe axe-core")
    try:
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            # Evaluated by the browser itself, which no policy of the page forbids.
            page.browser.execute_cdp_cmd("Runtime.evaluate", {"expression": axe.read_text(encoding="utf-8")})
            found = page.browser.execute_async_script(
                """const done = arguments[arguments.length - 1];
                const told = node => `${node.html.slice(0, 120)} ${node.failureSummary.slice(0, 300)}`;
                axe.run().then(found => done(
                  found.violations.map(one => [one.impact, one.id, one.nodes.map(told)])));"""
            )
            assert [one for one in found if one[0] in ("serious", "critical", "moderate")] == [], scheme
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def expected(threshold: float, labels: set[int] | None = None) -> int:
    level = np.float32(threshold)
    return sum(
        np.float32(score) >= level and (labels is None or label in labels)
        for rows in FOUND.values()
        for _, score, label in rows
    )


def test_the_slider_acts_at_once(opened: Opened) -> None:
    assert opened.boxes == expected(0.5) == 3
    for threshold in (0.15, 0, 0.6, 0.61, 0.9, 0.95, 1, 0.3):
        opened.slide(threshold)
        assert opened.boxes == expected(threshold)
        assert f"· {expected(threshold)} box" in opened.status()
        counts = opened.do(
            "return [...document.querySelectorAll('#classes .count')].map(one => Number(one.textContent))"
        )
        assert sum(counts) == expected(threshold)
        assert opened.one("#value").text == f"{threshold:.2f}"
    # By the keyboard too: a step up from 0.3.
    opened.one("#level").send_keys(RIGHT)
    assert (opened.one("#value").text, opened.boxes) == ("0.31", expected(0.31))


def test_filters(opened: Opened) -> None:
    opened.choose("show", "nothing")
    assert set(opened.names) == {name for name, rows in FOUND.items() if not any(score >= 0.5 for _, score, _ in rows)}
    opened.slide(0.25)
    assert set(opened.names) == {name for name, rows in FOUND.items() if not rows}
    opened.choose("show", "found")
    assert set(opened.names) == {name for name, rows in FOUND.items() if rows}
    opened.choose("show", "all")
    opened.choose("text", "SUB/")
    assert set(opened.names) == {name for name in FOUND if name.startswith("sub/")}
    opened.choose("text", "onerror='window.hacked=1'")
    assert len(opened.names) == 1
    opened.choose("text", "no such name")
    assert opened.names == []
    assert opened.one("#empty").is_displayed()
    opened.choose("text", "")
    cat, dog, _ = (
        opened.do("return classButtons.find(one => one.label === arguments[0])", label) for label in range(3)
    )
    opened.slide(0.1)
    cat.click()
    assert (cat.get_attribute("aria-pressed"), opened.boxes) == ("true", expected(0.1, {0}))
    dog.click()
    assert opened.boxes == expected(0.1, {0, 1})
    opened.one("#all-classes").click()
    assert opened.boxes == expected(0.1)


def test_orders(opened: Opened) -> None:
    assert opened.names == list(FOUND)
    opened.choose("sort", "score")
    assert opened.names[:3] == ["a.jpg", "b 50 % #1?.png", 'sub/10 "it\'s".JPG']
    counts = "return [...document.querySelectorAll('.tile .count')].map(one => one.textContent)"
    assert opened.do(counts)[:3] == ["2 · 0.90", "1 · 0.70", "–"]
    opened.choose("sort", "lowest")
    assert opened.names[-2:] == ["b 50 % #1?.png", "a.jpg"]
    opened.choose("sort", "weakest")
    assert opened.names[:2] == ["a.jpg", "b 50 % #1?.png"]
    assert opened.do(counts)[:3] == ["2 · 0.60", "1 · 0.70", "–"]
    opened.choose("sort", "name")
    assert opened.do(counts)[0] == "2"
    opened.slide(0.25)
    opened.choose("sort", "count")
    assert opened.names[0] == "a.jpg"
    opened.choose("sort", "name")
    assert [name for name in opened.names if "9" in name or "10" in name] == [
        "sub/9\nnewline.jpg",
        'sub/10 "it\'s".JPG',
    ]
    before = opened.names
    opened.one("#reverse").click()
    assert opened.names == before[::-1]


def test_the_order_follows_when_the_slider_rests(browser: Any, tmp_path: Path) -> None:
    found = {f"{i}.jpg": [([0, 0, 40, 40], 0.9, 0)] * i + [([9, 9, 60, 60], 0.5, 0)] * (9 - 2 * i) for i in range(5)}
    page = Opened(browser, write_run_page(make_run(tmp_path / "run", found)))
    page.choose("sort", "count")
    page.choose("show", "found")
    assert page.names == [f"{i}.jpg" for i in range(5)]
    page.slide(0.8)
    assert page.names == [f"{i}.jpg" for i in (1, 2, 3, 4)]
    # Then the pictures change places, also for the keyboard and for screen readers.
    for _ in range(100):
        tiles = page.do(
            """return [...gallery.children].map(tile => [
              tile.picture, tile.ariaPosInSet, tile.ariaSetSize, tile.open.ariaLabel, tile.open.tabIndex]);"""
        )
        if tiles[0][0] == 4:
            break
        time.sleep(0.05)
    assert tiles == [[i, str(5 - i), "4", f"{i}.jpg: {i} cat", 0 if i == 4 else -1] for i in (4, 3, 2, 1)]
    page.check()


def test_a_picture_without_an_original_is_shown_as_it_was_drawn(browser: Any, tmp_path: Path) -> None:
    recorded = {"settings": {"images_in": ["shards/0.tar"]}}
    page = Opened(browser, write_run_page(make_run(tmp_path / "run", recorded=recorded)))
    (tmp_path / "run" / "pictures" / "b 50 % #1?.png.jpg").unlink()
    for k, told in ((0, "Shown is the drawn picture, boxes included"), (1, "Shown is the thumbnail")):
        page.do("openPicture(arguments[0])", k)
        for _ in range(100):
            if page.one("#note").text.startswith(told):
                break
            time.sleep(0.05)
        assert page.one("#note").text.startswith(told)
    page.browser.get_log("browser")  # one that was removed
    page.check()


def test_a_pointer_that_rests_picks_no_box_out(opened: Opened) -> None:
    from selenium.webdriver import ActionChains

    opened.slide(0.05)
    tile = opened.all(".open")[0]
    ActionChains(opened.browser).move_to_element(tile).click().perform()
    # It rests where it clicked, on whatever appears there.
    assert opened.do("return document.querySelectorAll('#viewer .lit').length") == 0
    assert not opened.do("return document.getElementById('stage').classList.contains('dimmed')")
    ActionChains(opened.browser).move_to_element(opened.one("#found tr")).perform()
    assert opened.do("return document.querySelectorAll('#viewer .lit').length") > 0
    # The next picture is shown with all of its boxes.
    opened.one("#next").click()
    assert opened.do("return document.querySelectorAll('#viewer .lit').length") == 0


def test_the_keyboard(opened: Opened) -> None:
    names = list(FOUND)
    opened.do("document.querySelector('.open').focus()")
    opened.press(RIGHT)
    assert opened.focused == names[1]
    opened.press(END)
    assert opened.focused == names[-1]
    opened.press(HOME)
    opened.press(DOWN)
    assert opened.focused in names
    opened.press(HOME)
    opened.press(ENTER)
    assert opened.one("#viewed-name").text == "a.jpg"
    assert opened.do("return document.getElementById('viewer').open")
    opened.press(RIGHT)
    opened.press(RIGHT)
    assert names[2].endswith(opened.one("#viewed-name").text)
    opened.press(LEFT)
    assert opened.one("#viewed-name").text == names[1]
    opened.press(ESCAPE)
    assert not opened.do("return document.getElementById('viewer').open")
    assert opened.focused == names[1]
    opened.press("/")
    assert opened.focused == "text"


def test_a_picture_stays_open_whatever_passes(opened: Opened) -> None:
    opened.choose("sort", "count")
    opened.choose("show", "found")
    opened.all(".open")[1].click()
    assert opened.names[1] == opened.one("#viewed-name").text == "b 50 % #1?.png"
    opened.do("setLevel(0.8)")
    assert not opened.all("#found tr")
    opened.do("setLevel(0.65)")
    assert [row.text for row in opened.all("#found tr")] == [f"{CLASSES[2]} 0.700 0 0 40 40"]
    opened.do("setLevel(0.8)")
    opened.press(ESCAPE)
    for _ in range(100):  # the browser tells the page later
        if opened.names == ["a.jpg"]:
            break
        time.sleep(0.05)
    assert opened.names == ["a.jpg"]


def test_one_picture(opened: Opened) -> None:
    opened.all(".open")[0].click()
    table = [[cell.text for cell in row.find_elements("css selector", "th, td")] for row in opened.all("#found tr")]
    assert table == [["cat", "0.900", "10 10 60 50"], ["dog", "0.600", "30 21 90 80"]]
    assert len(opened.all("#stage rect.box")) == 2
    box = opened.do(
        """const r = [...document.querySelectorAll('#stage rect.box')].at(-1).getBoundingClientRect();
        const f = document.querySelector('#stage .frame').getBoundingClientRect();
        const across = x => (x - f.left) / f.width * 120, down = y => (y - f.top) / f.height * 90;
        return [across(r.left), down(r.top), across(r.right), down(r.bottom)];"""
    )
    np.testing.assert_allclose(box, [10, 10, 60, 50], atol=0.2)
    # The picture is the original, at its own size by the button.
    assert opened.browser.execute_async_script(
        """const done = arguments[arguments.length - 1];
        function look() {
          if (document.querySelector('#stage img').src.startsWith('file:')) done(true); else setTimeout(look, 20);
        }
        look();"""
    )
    opened.one("#zoom").click()
    assert opened.do("return document.querySelector('#stage .frame').clientWidth * devicePixelRatio") == 120
    opened.press("l")
    assert opened.do("return getComputedStyle(document.querySelector('.labels span')).opacity") == "0"
    opened.do("setLevel(0.1)")
    assert len(opened.all("#found tr")) == len(opened.all("#stage rect.box")) == 3


@pytest.mark.parametrize("name", ["detections.json", "detections.parquet"])
def test_links_lead_to_the_files(browser: Any, tmp_path: Path, name: str) -> None:
    odd = os.fsdecode(b"caf\xe9.jpg")
    try:
        (tmp_path / odd).touch()
    except (OSError, UnicodeError):
        odd = "café.jpg"
    names = {**FOUND, odd: FOUND["a.jpg"], "http:/x.jpg": [], "\\a\\b.jpg": []}
    opened = Opened(browser, write_run_page(make_run(tmp_path / "run", names, name=name)))
    for k, name in enumerate(names):
        opened.do("if (viewer.open) viewer.close(); openPicture(arguments[0])", k)
        links = [one.get_attribute("href") for one in opened.all("#files a")]
        assert len(links) == 2
        # The browser itself opens them as pictures.
        for href in links:
            size = opened.browser.execute_async_script(
                """const image = new Image(), done = arguments[arguments.length - 1];
                image.onload = () => done(image.naturalWidth);
                image.onerror = () => done(0);
                image.src = arguments[0];""",
                href,
            )
            assert size == 120, (name, href)
    opened.check()


def test_what_is_exported_is_what_is_shown(opened: Opened, run: Path) -> None:
    opened.slide(0.15)
    opened.do("classButtons.find(one => one.label === 0).click()")
    document = json.loads(opened.download("coco", "shown.json"))
    written = [row for rows in FOUND.values() for row in rows if row[1] >= 0.15 and row[2] == 0]
    assert len(document["annotations"]) == len(written) == opened.boxes
    for one, (box, score, label) in zip(document["annotations"], written, strict=True):
        assert one["bbox"] == [box[0], box[1], box[2] - box[0], box[3] - box[1]]
        assert np.float32(one["score"]) == np.float32(score)
        assert one["category_id"] == label + 1
    assert [one["file_name"] for one in document["images"]] == list(FOUND)
    assert [one["name"] for one in document["categories"]] == list(CLASSES)
    # It is a file of detections like that of the run.
    from inception_rcnn.data import read_detections

    saved = run / "shown.json"
    saved.write_text(json.dumps(document))
    assert sum(map(len, read_detections(saved, "file_name").values())) == len(written)
    opened.do("document.getElementById('all-classes').click()")
    rows = list(csv.DictReader(io.StringIO(opened.download("csv", "shown.csv"), newline="")))
    assert len(rows) == expected(0.15) == opened.boxes
    table = {(row["file"], row["class"], float(row["score"]), float(row["y2"])) for row in rows}
    assert table == {
        (name, CLASSES[label], score, box[3])
        for name, found in FOUND.items()
        for box, score, label in found
        if score >= 0.15
    }


def test_the_command_line(opened: Opened, run: Path) -> None:
    opened.slide(0.25)
    opened.one("#command").click()
    words = shlex.split(opened.one("#command-text").get_attribute("value"))
    assert words == [
        "inception-rcnn",
        "detect",
        "photos",
        "--model",
        "voc",
        "--model",
        "<b>mine</b>",
        "--nms",
        "greedy",
        "--only",
        "dog",
        "--draw-score",
        "0.25",
        "--output",
        "shown",
    ]
    opened.do("for (const one of [...document.querySelectorAll('#classes button')].slice(0, 2)) one.click()")
    opened.one("#command").click()
    words = shlex.split(opened.one("#command-text").get_attribute("value"))
    assert [CLASSES.index(name) for name in words[words.index("--nms") + 3 : -4 : 2]] == [0, 1]
    opened.do("document.getElementById('all-classes').click()")
    opened.choose("show", "found")
    opened.one("#command").click()
    words = shlex.split(opened.one("#command-text").get_attribute("value"))
    assert words[2:5] == [
        str(run.parent / "photos" / name) for name, rows in FOUND.items() if any(score >= 0.25 for _, score, _ in rows)
    ]
    assert opened.download("list", "shown.txt").splitlines() == words[2:5]


def test_classes_that_are_not_drawn_are_shown_where_they_are_chosen(browser: Any, tmp_path: Path) -> None:
    settings = {"images": ["photos"], "model": ["ilsvrc"]}
    folder = make_run(tmp_path / "run", recorded={"hidden_classes": [CLASSES[0]], "settings": settings})
    page = Opened(browser, write_run_page(folder))
    assert page.boxes == expected(0.5, {1, 2})
    last = page.do("return classButtons.at(-1)")
    assert last.text.startswith(CLASSES[0])
    last.click()
    assert page.boxes == expected(0.5, {0})
    page.one("#command").click()
    assert "--only cat --draw-score 0.5" in page.one("#command-text").get_attribute("value")
    page.check()


def test_the_other_parts(opened: Opened) -> None:
    opened.one("nav a[href='#run']").click()
    assert "greedy" in opened.one("[data-part=run]").text
    assert not opened.one("#gallery").is_displayed()
    opened.one("nav a[href='#errors']").click()
    assert HOSTILE in opened.one("[data-part=errors]").text
    opened.one("nav a[href='#pictures']").click()
    assert opened.one("#gallery").is_displayed()


def test_everybody_can_use_it(opened: Opened) -> None:
    accessible(opened)
    opened.all(".open")[0].click()
    accessible(opened)
    opened.press(ESCAPE)
    opened.do("location.hash = '#run'")
    accessible(opened)
    opened.do("location.hash = '#errors'")
    accessible(opened)


def test_on_a_phone(opened: Opened) -> None:
    try:
        metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        opened.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        opened.browser.refresh()
        assert opened.do("return document.documentElement.scrollWidth") <= 390
        assert len(opened.names) == 5
        accessible(opened)
        opened.all(".open")[0].click()
        assert opened.do("return document.getElementById('stage').clientHeight") > 300
    finally:
        opened.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_only_tiles_near_the_window_exist(browser: Any, tmp_path: Path) -> None:
    found = {f"{i:04d}.jpg": FOUND["a.jpg"] for i in range(400)}
    page = Opened(browser, write_run_page(make_run(tmp_path / "run", found)))
    assert 10 < len(page.names) < 150
    page.do(
        """document.querySelector('.open').focus({preventScroll: true});
        scrollTo(0, document.body.scrollHeight);
        render(false);"""
    )
    assert page.names[-1] == "0399.jpg"
    # That of the keyboard stays, wherever the window is.
    assert page.focused == page.names[0] == "0000.jpg"
    assert len(page.names) < 150
    page.slide(0.95)
    assert page.boxes == 0
    page.choose("show", "nothing")
    page.choose("sort", "name")
    assert page.names[0] == "0000.jpg"
    page.check()


def test_two_runs_side_by_side(browser: Any, tmp_path: Path) -> None:
    first = make_run(tmp_path / "one")
    changed = {**FOUND, "a.jpg": FOUND["a.jpg"][:1], "sub/9\nnewline.jpg": [([0, 0, 50, 50], 0.95, 0)]}
    write_comparison_page(first, make_run(tmp_path / "two", changed), tmp_path / "page.html")
    page = Opened(browser, tmp_path / "page.html")
    assert page.names[:2] == ["sub/9\nnewline.jpg", "a.jpg"]
    assert page.boxes == 3 + 3
    assert len(page.all(".tile .frame")) == 2 * len(FOUND)
    page.choose("show", "first")
    assert page.names == ["a.jpg"]
    page.choose("show", "second")
    assert page.names == ["sub/9\nnewline.jpg"]
    page.slide(0.96)
    assert page.names == []
    page.choose("show", "differ")
    page.slide(0.5)
    assert len(page.names) == 2
    accessible(page)
    page.all(".open")[1].click()
    assert len(page.all("#stage .frame")) == 2
    assert [one.text for one in page.all("#found tr td:last-child")] == ["one", "one only", "two"]
    page.check()


def test_proposals(browser: Any, tmp_path: Path) -> None:
    boxes = np.float32([[0, 0, 10, 10], [20, 20, 60, 60], [0, 0, 120, 90], [20, 20, 64, 60]])
    write_proposals(tmp_path / "p.parquet", [Proposals("a.jpg", 120, 90, boxes, np.float32([4, 3, 2, 1]))])
    write_image(tmp_path / "photos" / "a.jpg", np.zeros((90, 120, 3), np.uint8))
    annotated = [make_picture([[22, 20, 62, 60], [90, 60, 110, 80]], image_id="a", size=(120, 90))]
    page = Opened(
        browser, write_proposals_page(tmp_path / "p.parquet", tmp_path / "photos", tmp_path / "p.html", annotated)
    )
    steps = page.do("return steps")
    assert steps == [1, 2, 3, 4]
    for i, n in enumerate(steps):
        page.slide(i)
        assert page.boxes == n
        assert f"{int(n >= 2)} of 2 objects covered" in page.status()
        assert page.do(
            "return ['covered', 'missed'].map(kind => document.querySelectorAll(`#gallery .${kind}`).length)"
        ) == [int(n >= 2), 1]
    accessible(page)
    page.all(".open")[0].click()
    assert [row.text for row in page.all("#found tr")] == ["box 2 covered 22 20 62 60", "none missed 90 60 110 80"]
    accessible(page)
    page.check()


def test_classes(browser: Any, tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", np.zeros((90, 120, 3), np.uint8))
    answers = [
        {
            "file": str(tmp_path / "a.jpg"),
            "classes": [{"class": HOSTILE, "score": 0.5}, {"class": "tabby", "score": 0.25}],
        }
    ]
    (tmp_path / "classes.json").write_text(json.dumps(answers))
    page = Opened(browser, write_classes_page(tmp_path / "classes.json", tmp_path / "classes.html"))
    assert page.one(".tile .count").text == f"{HOSTILE} 0.50"
    page.slide(0.3)
    assert "1 answer" in page.status()
    page.all(".open")[0].click()
    assert [row.text for row in page.all("#found tr")] == [f"{HOSTILE} 0.500"]
    accessible(page)
    page.check()
