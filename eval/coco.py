"""COCO's average precision and recall, counted by pycocotools; here files that do not know of each other are joined.

A list of results has the annotation file's own ids. A document of detections has ids of its own; there pictures are
matched by file name and classes by name.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..data import COCO_TO_VOC
from ..data.errors import EvaluationError, SettingError
from ..data.formats.records import is_finite_number, record_problem, shorten_record

# As pycocotools prints them.
_SUMMARY = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)


def evaluate_coco(
    annotation_file: str | Path,
    detections: str | Path,
    *,
    classes: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = COCO_TO_VOC,
    engine: Literal["pycocotools", "faster-coco-eval"] = "pycocotools",
) -> dict[str, Any]:
    """Compute the metrics of the COCO detection challenge.

    Parameters
    ----------
    annotation_file : str or Path
        COCO document with ``images``, ``categories`` and ``annotations``. All its pictures are evaluated. An area that
        is missing is the box's, a missing ``iscrowd`` is 0.
    detections : str or Path
        Either a COCO result file, a list of ``{"image_id": ..., "category_id": ..., "bbox": [x, y, width, height],
        "score": ...}`` with the ids of `annotation_file`, or a document that `write_detections` wrote, or the folder
        in which it is called ``detections.json``: its pictures are matched by ``file_name`` (without folders, if need
        be) and its classes by name.
    classes : sequence of str, or None
        Categories to evaluate, by their names in either file; None for all of `annotation_file`. A detector that does
        not know some has an average precision of 0 in those.
    rename : mapping of str to str, or None
        What categories of `annotation_file` may also be called; by default VOC's names of COCO's categories.
    engine : {"pycocotools", "faster-coco-eval"}
        The program that counts. "faster-coco-eval", which has to be installed besides, gives the same numbers sooner.

    Returns
    -------
    dict
        ``"AP"``: average precision, the mean over the categories with objects and IoU 0.5, 0.55, ..., 0.95;
        ``"AP50"`` and ``"AP75"`` at one IoU; ``"AP_small"``, ``"AP_medium"`` and ``"AP_large"`` of objects with an
        area below 32 ** 2 px, up to 96 ** 2 px and above; ``"AR_1"``, ``"AR_10"`` and ``"AR_100"``: average recall with
        so many detections a picture; ``"AR_small"``, ``"AR_medium"`` and ``"AR_large"``: with 100, of such objects;
        ``"mAP"``: the same as AP, by the name that other protocols have for it; ``"per_class"``: category, as
        `annotation_file` calls it, to AP. Where there are no objects, a number is nan (pycocotools says -1).

    Raises
    ------
    EvaluationError
        If a file is missing or malformed, there are detections in a picture or of a category that `annotation_file`
        does not have, or two pictures or categories have the same id or are, by their names, the same one.
    ValueError
        If `engine` is unknown.
    ImportError
        If `engine` is not installed.

    References
    ----------
    https://cocodataset.org/#detection-eval; Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.

    Examples
    --------
    >>> import tempfile
    >>> truth = {
    ...     "images": [{"id": 7, "file_name": "a.jpg"}],
    ...     "categories": [{"id": 5, "name": "airplane"}],
    ...     "annotations": [{"id": 1, "image_id": 7, "category_id": 5, "bbox": [2, 3, 40, 50]}],
    ... }
    >>> found = [{"image_id": 7, "category_id": 5, "bbox": [2, 3, 40, 50], "score": 0.9}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, content in (("truth", truth), ("found", found)):
    ...         _ = Path(folder, name).write_text(json.dumps(content))
    ...     result = evaluate_coco(f"{folder}/truth", f"{folder}/found")
    >>> round(result["AP"], 3), result["AP_small"], {name: round(ap, 3) for name, ap in result["per_class"].items()}
    (1.0, nan, {'airplane': 1.0})
    """
    coco, evaluator = _programs(engine)
    truth_path, path = Path(annotation_file), Path(detections)
    path = path / "detections.json" if path.is_dir() else path
    truth, found = _read(truth_path), _read(path)

    images, categories = (
        _by_id(record_list(truth, kind, truth_path), kind, truth_path) for kind in ("images", "categories")
    )
    names = {one: str(record_field(record, "name", truth_path)) for one, record in categories.items()}
    category_ids = _by_name(names, rename or {}, truth_path)
    chosen = sorted(names)
    if classes is not None:
        unknown = [name for name in classes if name not in category_ids]
        if unknown:
            raise EvaluationError(f"{truth_path}: has no category {unknown[0]!r}; it has {', '.join(names.values())}")
        chosen = sorted({category_ids[name] for name in classes})

    own = _Ids({one: one for one in images}, {}), _Ids({one: one for one in names}, {})
    objects = [_checked(one, *own, truth_path, truth_path) for one in record_list(truth, "annotations", truth_path)]
    if isinstance(found, list):
        theirs, records = own, found
    else:
        records = record_list(found, "annotations", path)
        theirs = (
            _joined(
                record_list(found, "images", path),
                "images",
                "file_name",
                _by_file(images, truth_path),
                path,
                truth_path,
            ),
            _joined(record_list(found, "categories", path), "categories", "name", category_ids, path, truth_path),
        )
    claims = [_checked(one, *theirs, path, truth_path, scored=True) for one in records]

    # Both programs talk about what they do.
    with contextlib.redirect_stdout(io.StringIO()):
        sides = [_indexed(coco(), list(images), list(names), annotations) for annotations in (objects, claims)]
        evaluation = evaluator(*sides, "bbox")
        evaluation.params.catIds = chosen
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # IoU x recall x category x area x detections; the first area is all, the last number of detections is 100.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    result: dict[str, Any] = {
        name: _parse_coordinate(value) for name, value in zip(_SUMMARY, evaluation.stats[: len(_SUMMARY)], strict=True)
    }
    result["mAP"] = result["AP"]
    result["per_class"] = {names[one]: _parse_coordinate(precision[:, :, i].mean()) for i, one in enumerate(chosen)}
    return result


def _programs(engine: str) -> tuple[Any, Any]:
    """Return the classes that index a document and that evaluate."""
    if engine == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    if engine == "faster-coco-eval":
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster
    raise SettingError(f"engine must be 'pycocotools' or 'faster-coco-eval', not {engine!r}")


def _parse_coordinate(value: float) -> float:
    # What there are no objects for is -1, everywhere in its row.
    return float("nan") if value < 0 else float(value)


def _indexed(index: Any, images: list[Any], categories: list[Any], annotations: list[dict[str, Any]]) -> Any:
    # Ids count from 1: to pycocotools a match with the object 0 is none.
    index.dataset = {
        "images": [{"id": one} for one in images],
        "categories": [{"id": one} for one in categories],
        "annotations": [{"id": i, **one} for i, one in enumerate(annotations, start=1)],
    }
    index.createIndex()
    return index


class _Ids(NamedTuple):
    """What a file's ids of pictures or categories are in the annotation file, and what they are called."""

    known: Mapping[Any, Any]
    called: Mapping[Any, str]


def _by_name(names: Mapping[Any, str], rename: Mapping[str, str], source: Path) -> dict[str, Any]:
    """Id of each category by its name, and by its other name where no category is called that."""
    _check_names(names, "categories", source)
    ids = {rename.get(name, name): one for one, name in names.items()}
    return ids | {name: one for one, name in names.items()}


def _check_names(names: Mapping[Any, str], kind: str, source: Path) -> None:
    (most, times), *_ = [*Counter(names.values()).most_common(1), ("", 0)]
    if times > 1:
        raise EvaluationError(f"{source}: two of its {kind} are called {most[:80]!r}; give each its own name")


def _by_id(records: Sequence[dict[str, Any]], kind: str, source: Path) -> dict[Any, dict[str, Any]]:
    """Pictures or categories by their ids, which can be sorted."""
    found: dict[Any, dict[str, Any]] = {}
    for record in records:
        one = record_field(record, "id", source)
        if one in found:
            raise EvaluationError(f"{source}: two of its {kind} have the id {shorten_record(one)}; give each its own")
        found[one] = record
    if len({isinstance(one, str) for one in found}) > 1:
        raise EvaluationError(f"{source}: the ids of its {kind} are numbers as well as texts; use one of the two")
    return found


def _by_file(images: Mapping[Any, Mapping[str, Any]], source: Path) -> dict[str, Any]:
    """Id of each picture by its file's name, and by that without folders where only one is called so."""
    files = {one: str(record_field(record, "file_name", source)).replace("\\", "/") for one, record in images.items()}
    _check_names(files, "images", source)
    short = {one: file.rsplit("/", 1)[-1] for one, file in files.items()}
    times = Counter(short.values())
    ids = {file: one for one, file in short.items() if times[file] == 1}
    return ids | {file: one for one, file in files.items()}


def _joined(
    records: Sequence[dict[str, Any]], kind: str, key: str, ids: Mapping[str, Any], source: Path, truth: Path
) -> _Ids:
    """Match a document's pictures or categories by name, no two with the same one."""
    called = {
        one: str(record_field(record, key, source)).replace("\\", "/")
        for one, record in _by_id(records, kind, source).items()
    }
    known: dict[Any, Any] = {}
    taken: dict[Any, str] = {}
    for one, name in called.items():
        other = ids.get(name, ids.get(name.rsplit("/", 1)[-1]))
        if other is None:
            continue
        if other in taken:
            raise EvaluationError(
                f"{source}: its {kind} {taken[other]!r} and {name!r} are the same one of {truth}; leave one out"
            )
        known[one], taken[other] = other, name
    return _Ids(known, called)


def _checked(
    record: Mapping[str, Any], pictures: _Ids, categories: _Ids, source: Path, truth: Path, scored: bool = False
) -> dict[str, Any]:
    """Return what counts of an annotation or detection, with the annotation file's ids."""
    problem = ""
    for kind, key, ids in (("picture", "image_id", pictures), ("category", "category_id", categories)):
        one = record.get(key) if isinstance(record, dict) else None
        # What a document does not define itself is another problem.
        if isinstance(one, (int, float, str)) and one not in ids.known and (one in ids.called or not ids.called):
            problem = problem or f"{truth} has no {kind} {shorten_record(ids.called.get(one, one))}"
    problem = problem or record_problem(record, pictures.known, categories.known, scored)
    area, crowd = None, 0
    if not problem and not scored:
        area, crowd = record.get("area"), record.get("iscrowd", 0)
        if area is not None and not (isinstance(area, (int, float)) and is_finite_number(area)):
            problem = "area is not a finite number"
        elif crowd not in (0, 1):
            problem = "iscrowd is neither 0 nor 1"
    if problem:
        kind = "detection" if scored else "annotation"
        raise EvaluationError(f"{source}: {problem}, in the {kind} {shorten_record(record)}")
    x, y, width, height = map(float, record["bbox"])
    return {
        "image_id": pictures.known[record["image_id"]],
        "category_id": categories.known[record["category_id"]],
        "bbox": [x, y, width, height],
        "area": width * height if area is None else float(area),
        "score": float(record["score"]) if scored else 0.0,
        "iscrowd": int(crowd),
    }


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({error.strerror}); check its name") from error
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path}: is not well-formed JSON ({error})") from error


def record_list(document: Any, key: str, source: Path) -> list[dict[str, Any]]:
    """Return the list of records that a document has under a key."""
    records = document.get(key) if isinstance(document, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise EvaluationError(f"{source}: has no list of objects {key!r}; a COCO document is expected")
    return records


def record_field(record: Mapping[str, Any], key: str, source: Path) -> int | str:
    """Return a field of a record, which must be a number or a text."""
    value = record.get(key)
    if not isinstance(value, (int, str)):
        raise EvaluationError(f"{source}: an image or category has no {key!r}: {shorten_record(record)}")
    return value
