"""The page of a run of detections, and that of two runs side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....data import MAX_PIXELS, Detections, box_iou
from ....data.errors import OutputError, reason_of
from ....data.formats.by_suffix import read_detection_names
from ....data.images.sources import Source
from ....data.system.remote import is_url
from ..finished import Entry, FinishedRun
from ..names import REPORT, drawn_names
from .writing import Row, address, address_between, link, write_page

_SAME_BOX = 0.5  # IoU from which boxes of two runs are the same
_MOST_ERRORS = 1000
_DRAWN_HINT = "The pictures are those that were drawn, as the originals are in other files: with boxes in them."
# Stages of run.json in which nothing is computed.
_WAITING = "wait"
# Options of `detect` that run.json has under other names, and what they are where nothing is asked for.
_OPTIONS = {
    "model": ["voc"], "scoring": None, "scales": [1.0], "proposals": None, "first_pass": None, "second_look": 40,
    "method": "merged", "multibox": "voc", "proposals_from": None, "precision": None, "min_score": 0.05, "nms": "soft",
    "device": "auto", "max_pixels": MAX_PIXELS,
}  # fmt: skip


class Difference(NamedTuple):
    """How far two runs differ in a picture: its name, by how much scores are ahead, boxes that one alone has."""

    name: str
    weight: float
    first_only: int
    second_only: int


class _Run(FinishedRun):
    """A finished run, with what a page calls it."""

    def __init__(self, folder: Path, name: str, short: str) -> None:
        super().__init__(folder)
        self.name, self.short = name, short

    def small_source(self, name: str) -> Source:
        """Where the small version of a picture comes from: of one in a container only the drawing is at hand."""
        if self.in_containers:
            (drawn,) = drawn_names([name])
            return self.folder / "pictures" / drawn
        return self.original(name)

    @property
    def has_drawings(self) -> bool:
        folder = self.folder / "pictures"
        return folder.is_dir() and any(folder.iterdir())

    def address_of_drawings(self, page: Path) -> str | None:
        return address_between(page, self.folder / "pictures") if self.has_drawings else None

    def drawing(self, drawn: str) -> str:
        return address(drawn) if (self.folder / "pictures" / drawn).is_file() else ""


def write_run_page(
    folder: Path,
    output: Path | None = None,
    *,
    entries: Iterable[Entry] | None = None,
    sources: Iterable[Source] | None = None,
    uploaded: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Path:
    """Write the page of a finished run: its pictures with the boxes over them, its settings, times and errors.

    Parameters
    ----------
    folder : Path
        Where `inception_rcnn.detect.detect_batch` wrote ``run.json`` and the detections.
    output : Path, optional
        The page, by default ``report.html`` in that folder. Of more than 1,000 pictures the small ones are in a folder
        beside it, ``report-thumbnails``.
    entries : iterable of (file_name, width, height, Detections), optional
        The results, if they are at hand; else they are read.
    sources : iterable of Path, str or Member, optional
        Where their pictures lie; else that follows from the names.
    uploaded : bool
        Whether the folder will be put elsewhere: then files of this machine are not linked.
    max_pixels : int
        See `inception_rcnn.data.read_image`.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    OutputError
        If the folder has no finished run.
    DetectionError
        If the file of detections is damaged.
    OSError
        If the page cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from inception_rcnn.data import write_detections
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_detections(f"{folder}/detections.json", [], ("cat",))
    ...     _ = Path(folder, "run.json").write_text('{"folder": ""}')
    ...     write_run_page(Path(folder)).name
    'report.html'
    """
    run = _Run(folder, folder.absolute().name, "")
    output = output or folder / REPORT
    drawn = drawn_names(run.names) if run.has_drawings else None
    originals = _originals(output, run, uploaded)
    stream = iter(run.entries() if entries is None else entries)
    first = list(islice(stream, 1))
    classes = list(first[0][3].classes) if first else []

    def rows() -> Iterator[Row]:
        known = iter(sources) if sources is not None else None
        for i, (name, width, height, found) in enumerate(chain(first, stream)):
            path = run.small_source(name)
            below = _address_below(run.pictures, path) if originals is not None else None
            shown = [run.drawing(drawn[i])] if drawn is not None else None
            yield Row(name, width, height, path if known is None else next(known), [_columns(found)], below, shown)

    page = {
        "kind": "run",
        "classes": classes,
        "threshold": run.draw_score,
        "hidden": [_hidden(run, classes).tolist()],
        "fractions": False,
        "originals": originals,
        "folder": _folder(run),
        "runs": [{"name": run.name, "short": "", "drawings": run.address_of_drawings(output)}],
        "command": _command(run.settings),
    }
    values = {
        "kind": "run",
        "title": run.name,
        "subtitle": os.path.abspath(folder),
        "shows": [("all", "all pictures"), ("found", "with boxes"), ("nothing", "nothing found")],
        "sorts": [
            ("run", "as in the run"),
            ("name", "name"),
            ("score", "best score"),
            ("lowest", "least best score"),
            ("weakest", "weakest box"),
            ("count", "number of boxes"),
        ],
        "columns": ("Class", "Score", "x1 y1 x2 y2"),
        "hints": (_DRAWN_HINT,) if run.in_containers and sources is None and run.has_drawings else (),
        "reports": [_describe(run)],
        "settings_rows": _setting_rows([run]),
        "errors": _read_errors(folder / "errors.jsonl", output, uploaded),
        "page": page,
    }
    write_page(output, values, rows(), len(read_detection_names(run.results)), max_pixels=max_pixels)
    return output


def write_comparison_page(
    first: Path, second: Path, output: Path, *, max_pixels: int = MAX_PIXELS
) -> tuple[list[Difference], int]:
    """Write a page of two runs over the same pictures, side by side, those first in which they differ most.

    A box that one run shows is alone if the other shows none of its class with an IoU of 0.5 or more. Its weight is its
    score, less that of the best such box below the threshold. The weight of a picture is the sum over the boxes that
    are alone, of both runs.

    Parameters
    ----------
    first, second : Path
        Folders of finished runs. Pictures are the same if their names are.
    output : Path
        The page.
    max_pixels : int
        See `inception_rcnn.data.read_image`.

    Returns
    -------
    list of Difference
        The pictures in which the runs differ at the first one's ``draw_score``, the largest weight first.
    int
        How many pictures only one of the runs has; they are not on the page.

    Raises
    ------
    OutputError
        If a folder has no finished run, or the runs have no picture in common.
    DetectionError
        If a file of detections is damaged.
    OSError
        If the page cannot be written.
    """
    titles = [one.absolute().name for one in (first, second)]
    if titles[0] == titles[1]:
        titles = [str(first), str(second)]
    shorts = titles if max(map(len, titles)) <= 12 else ["A", "B"]
    runs = [_Run(folder, *names) for folder, *names in zip((first, second), titles, shorts, strict=True)]
    # Of two runs one is kept in memory, as its pictures may be in another order.
    others = {name: found for name, _, _, found in runs[1].entries()}
    names = read_detection_names(runs[0].results)
    common = sum(name in others for name in names)
    if not common:
        raise OutputError(
            f"{first} and {second}: have no picture of the same name; compare runs over the same pictures"
        )
    classes = list(dict.fromkeys(name for one in runs for name in one.classes))
    threshold, hidden = runs[0].draw_score, [_hidden(one, classes) for one in runs]
    differences: list[Difference] = []

    def rows() -> Iterator[Row]:
        drawn = drawn_names(runs[0].names), dict(zip(others, drawn_names(runs[1].names), strict=True))
        for i, (name, width, height, found) in enumerate(runs[0].entries()):
            if name in others:
                columns = compare_detections(found, others[name], classes)
                differences.append(_difference(name, columns, threshold, hidden))
                path = runs[0].small_source(name)
                drawings = [runs[0].drawing(drawn[0][i]), runs[1].drawing(drawn[1][name])]
                yield Row(name, width, height, path, columns, _address_below(runs[0].pictures, path), drawings)

    page = {
        "kind": "comparison",
        "classes": classes,
        "threshold": threshold,
        "hidden": [one.tolist() for one in hidden],
        "fractions": False,
        "originals": _originals(output, runs[0]),
        "folder": _folder(runs[0]),
        "runs": [{"name": one.name, "short": one.short, "drawings": one.address_of_drawings(output)} for one in runs],
    }
    values = {
        "kind": "comparison",
        "title": " and ".join(titles),
        "subtitle": f"{os.path.abspath(first)}, {os.path.abspath(second)}",
        "shows": [
            ("all", "all pictures"),
            ("differ", "with a difference"),
            ("first", f"only by {titles[0]}"),
            ("second", f"only by {titles[1]}"),
            ("nothing", "nothing found by both"),
        ],
        "sorts": [
            ("difference", "largest difference"),
            ("name", "name"),
            ("score", "best score"),
            ("count", "number of boxes"),
        ],
        "columns": ("Class", "Score", "Run"),
        "hints": (
            f"Left: {titles[0]}, with bars above the slider. Right: {titles[1]}, with the line.",
            "Coloured: boxes that only one of the two shows. Dashed: boxes that both show (IoU 0.5, same class).",
            *((_DRAWN_HINT,) if runs[0].in_containers and runs[0].has_drawings else ()),
        ),
        "reports": [_describe(one) for one in runs],
        "settings_rows": _setting_rows(runs),
        "errors": {"count": 0, "lines": []},
        "page": page,
    }
    write_page(output, values, rows(), common, max_pixels=max_pixels)
    differences = [one for one in differences if one.first_only or one.second_only]
    differences.sort(key=lambda one: (-one.weight, one.name))
    return differences, len(names) + len(others) - 2 * common


def _hidden(run: FinishedRun, classes: Sequence[str]) -> NDArray[np.bool_]:
    """Tell for each class whether a run does not draw it."""
    hidden = run.rule.hidden
    return np.array([name in hidden for name in classes], bool)


def compare_detections(
    first: Detections, second: Detections, classes: Sequence[str]
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Columns of the boxes of two runs in a picture, each with the score of its best partner in the other.

    Parameters
    ----------
    first, second : Detections
    classes : sequence of str
        All classes of both.

    Returns
    -------
    two dicts of str to ndarray
        ``boxes``, ``scores`` and ``labels``, positions in `classes`, by falling score; ``partners`` is the highest
        score that the other run has in a box of the same class with an IoU of 0.5 or more, 0 if there is none.

    Examples
    --------
    >>> cat = Detections([[0, 0, 10, 10]], [0.5], [0], ["cat"])
    >>> both = Detections([[0, 0, 10, 8], [50, 50, 60, 60]], [0.25, 0.75], [0, 0], ["cat"])
    >>> one, other = compare_detections(cat, both, ["cat"])
    >>> one["partners"].tolist(), other["scores"].tolist(), other["partners"].tolist()
    ([0.25], [0.75, 0.25], [0.0, 0.5])
    """
    place = {name: label for label, name in enumerate(classes)}
    tables = [_columns(found, place) for found in (first, second)]
    same = box_iou(tables[0]["boxes"], tables[1]["boxes"]) >= np.float32(_SAME_BOX)
    same &= tables[0]["labels"][:, None] == tables[1]["labels"]
    for own, other, pairs in ((tables[0], tables[1], same), (tables[1], tables[0], same.T)):
        own["partners"] = np.where(pairs, other["scores"], np.float32(0)).max(axis=1, initial=0).astype(np.float32)
    return tables[0], tables[1]


def _difference(
    name: str, columns: Sequence[Mapping[str, NDArray[Any]]], threshold: float, hidden: Sequence[NDArray[np.bool_]]
) -> Difference:
    level = np.float32(threshold)
    weight, counts = 0.0, []
    for one, own in zip(columns, hidden, strict=True):
        alone = (one["scores"] >= level) & (one["partners"] < level) & ~own[one["labels"]]
        weight += float((one["scores"] - one["partners"])[alone].sum())
        counts.append(int(alone.sum()))
    return Difference(name, weight, *counts)


def _columns(found: Detections, place: Mapping[str, int] | None = None) -> dict[str, NDArray[Any]]:
    """Columns of detections by falling score; `place` has the labels of their classes on the page."""
    order = np.argsort(-found.scores, kind="stable")
    labels = found.labels[order]
    if place is not None:
        labels = np.array([place[name] for name in found.classes], np.int64)[labels] if len(found) else labels
    return {
        "boxes": found.boxes[order],
        "scores": found.scores[order].astype(np.float32),
        "labels": labels.astype(np.uint16),
    }


def _originals(page: Path, run: _Run, uploaded: bool = False) -> str | None:
    """Address of the folder of the original pictures, if they are files that a browser may open."""
    if run.in_containers or not run.pictures or (uploaded and not is_url(run.pictures)):
        return None
    found = link(page, run.pictures)
    return found.rstrip("/") + "/" if found else None


def _folder(run: _Run) -> str | None:
    """Return what the name of a picture follows in a command line, None if it cannot stand there."""
    return None if run.in_containers else run.pictures


def _address_below(folder: str, path: Source) -> str:
    if is_url(path):
        return address(str(path).removeprefix(folder))
    return address(os.path.relpath(path, folder)) if folder and isinstance(path, Path) else ""


def _command(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """Words of the command of the run: its pictures, the options that are not the default, and the classes."""
    options = []
    for key, default in _OPTIONS.items():
        value = settings.get(key, default)
        if value in (None, default):
            continue
        for one in value if isinstance(value, list) else [value]:
            options += ["--" + {"scales": "scale"}.get(key, key).replace("_", "-"), str(one)]
    images, only = settings.get("images"), settings.get("only")
    return {
        "images": list(map(str, images)) if isinstance(images, list) else ["IMAGES"],
        "options": options,
        "only": list(map(str, only)) if isinstance(only, list) else [],
    }


def _describe(run: _Run) -> dict[str, Any]:
    """Figures of a run and its time in each stage."""
    record = run.record
    seconds = {name: float(value) for name, value in dict(record.get("seconds", {})).items()}
    total = seconds.pop("total", 0.0)
    done = max(1, record.get("pictures", 0) - record.get("resumed", 0))
    most = max(seconds.values(), default=0) or 1
    models = record.get("models") or [{}]
    asked = run.settings.get("model") or ["?"]
    facts = [
        ("Pictures", f"{record.get('pictures', 0):,}"),
        ("Boxes", f"{record.get('boxes', 0):,}"),
        ("Model", ", ".join(map(str, asked))),
        ("Device", f"{models[0].get('device', '?')}, {models[0].get('precision', '?')}"),
        ("Seconds", f"{total:,.1f}"),
    ]
    for key, label in (("failed", "Failed"), ("repaired", "Repaired"), ("resumed", "By an earlier run")):
        if record.get(key):
            facts.append((label, f"{record[key]:,}"))
    stages = [
        {
            "name": name,
            "waits": name.startswith(_WAITING),
            "share": f"{100 * value / most:.1f}",
            "seconds": f"{value:,.1f}",
            "each": f"{1000 * value / done:,.0f} ms a picture",
        }
        for name, value in seconds.items()
    ]
    return {"name": run.name, "facts": facts, "stages": stages, "seconds": f"{total:,.1f}"}


def _setting_rows(runs: Sequence[_Run]) -> list[tuple[str, list[str]]]:
    """Names of all settings with their values in each run."""
    tables = [dict(_flat(_settings_of(run.record))) for run in runs]
    keys = dict.fromkeys(key for table in tables for key in table)
    return [(key, [table.get(key, "–") for table in tables]) for key in keys]


def _settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("version", "folder", "draw_score", "hidden_classes", "models", "detector", "proposer", "settings")
    return {"asked for" if key == "settings" else key: record[key] for key in keys if key in record}


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, one in value.items():
            yield from _flat(one, f"{key} · {name}" if key else str(name))
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for i, one in enumerate(value, start=1):
            yield from _flat(one, f"{key} {i}" if len(value) > 1 else key)
    else:
        yield key, ", ".join(map(str, value)) if isinstance(value, list) else "–" if value is None else str(value)


def _read_errors(path: Path, output: Path, uploaded: bool) -> dict[str, Any]:
    """Read the first lines of an errors file, and count all."""
    lines = []
    try:
        with open(path, encoding="utf-8") as file:
            for line in islice(file, _MOST_ERRORS):
                one = json.loads(line)
                told = {key: str(one[key]) for key in ("file", "kind", "message")}
                hidden = uploaded and not is_url(told["file"])
                lines.append({"address": "" if hidden else link(output, told["file"]), **told})
            return {"count": len(lines) + sum(1 for _ in file), "lines": lines}
    except FileNotFoundError:
        return {"count": 0, "lines": []}
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: is damaged ({reason_of(error)}); repeat the run") from None
