"""COCO's average precision and recall, counted by pycocotools.

Here annotations and detections that do not know of each other are joined. A list of results has the annotation file's
own ids. Documents, and what is in memory, are matched by the names of pictures and classes.
"""

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data import COCO_TO_VOC, DetectionError, Detections, Picture, read_detection_entries
from ..data.arguments import check_choice, check_names
from ..data.boxes import corners_to_sides
from ..data.errors import DataWarning, EvaluationError, SettingError, did_you_mean, first_names
from ..data.formats.by_suffix import detections_file
from ..data.formats.records import (
    check_annotation_ids,
    check_distinct,
    names_by_id,
    read_json,
    record_list,
    record_problem,
    records_by_id,
    shorten_record,
    sorted_ids,
)
from ..data.picture_names import forward_slashes, match_picture_names, without_suffix
from .agreement import count_beyond_edges, warn_of_classes, warn_of_edges, warn_of_sizes
from .bootstrap import Bootstrap, mean_over_classes, summarise_draws
from .matching import (
    FALSE,
    HIT,
    IGNORED,
    Matches,
    check_detections,
    check_pictures,
    class_names,
    evaluated_classes,
    renumber_labels,
)
from .precision import weighted_average_precision

# Of each picture and category; COCO's largest number.
_MAX_DETECTIONS = 100

# As pycocotools prints them.
_SUMMARY = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)


class _Ids(NamedTuple):
    """What a file's ids of pictures or categories are in the annotation file, and what they are called."""

    known: Mapping[Any, Any]
    called: Mapping[Any, str]


def evaluate_coco(
    annotations: str | Path | Sequence[Picture],
    detections: str | Path | Mapping[str, Detections],
    *,
    classes: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = COCO_TO_VOC,
    engine: Literal["pycocotools", "faster-coco-eval"] = "pycocotools",
    bootstrap: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the metrics of the COCO detection challenge.

    Parameters
    ----------
    annotations : str, Path or sequence of Picture
        COCO document with ``images``, ``categories`` and ``annotations``. All its pictures are evaluated. An area that
        is missing is the box's, a missing ``iscrowd`` is 0. Or the annotated pictures themselves, whose areas are their
        boxes', and whose difficult objects are ordinary ones.
    detections : str, Path or mapping of str to Detections
        A COCO result file: a list of ``{"image_id": ..., "category_id": ..., "bbox": [x, y, width, height],
        "score": ...}`` with the ids of the annotation file. Or a file that `write_detections` wrote, or the folder
        in which it is called ``detections.json`` or ``detections.parquet``: its pictures are matched by ``file_name``
        (without folders, if need be) and its classes by name. Or detections by ``image_id``, which is the name of a
        file without its suffix.
    classes : sequence of str, or None
        Of an annotation file: the categories to evaluate, by their names in either file; None for all. Of pictures: the
        names of their labels, all of which are evaluated; None for those that they were read with. A detector that does
        not know some has an average precision of 0 in those. Detections of categories that the annotations do not have
        are left out.
    rename : mapping of str to str, or None
        What categories of the annotations may also be called; by default VOC's names of COCO's categories.
    engine : {"pycocotools", "faster-coco-eval"}
        The program that counts. "faster-coco-eval", which has to be installed besides, gives the same numbers sooner.
    bootstrap, seed : int
        As for `evaluate_voc`; the engine is then "pycocotools".

    Returns
    -------
    dict
        ``"AP"``: average precision, the mean over the categories with objects and IoU 0.5, 0.55, ..., 0.95;
        ``"AP50"`` and ``"AP75"`` at one IoU; ``"AP_small"``, ``"AP_medium"`` and ``"AP_large"`` of objects with an
        area below 32 ** 2 px, up to 96 ** 2 px and above; ``"AR_1"``, ``"AR_10"`` and ``"AR_100"``: average recall with
        so many detections a picture; ``"AR_small"``, ``"AR_medium"`` and ``"AR_large"``: with 100, of such objects;
        ``"mAP"``: the same as AP, by the name that other protocols have for it; ``"per_class"``: category, as the
        annotations call it, to AP. Where there are no objects, a number is nan (pycocotools says -1).
        ``"intervals"``, if there is a `bootstrap`: of 95 %, see `bootstrap.summarise_draws`; besides, ``"AP"`` to
        ``"AP_large"``.

    Raises
    ------
    EvaluationError
        If a file is missing or malformed, the detections are in no picture that the annotations have, or of no
        category that they have, or two pictures or categories have the same id or are, by their names, the same one.
    SettingError
        If `engine` is unknown or has no intervals, a number is out of range, `classes` is not a list of names, or
        pictures have no classes and none are given.
    ImportError
        If `engine` is not installed.

    Warns
    -----
    DataWarning
        If detections are left out, or pictures are not among them or have another size there; if many detections are
        far outside their pictures, or the detections do not know a class that has objects; if a picture has more
        objects of a category than the 100 detections that count.

    References
    ----------
    https://cocodataset.org/#detection-eval; Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.

    Examples
    --------
    >>> import numpy as np
    >>> box, label, no = np.float32([[2, 3, 42, 53]]), np.array([0]), np.array([False])
    >>> pictures = [Picture("a", Path("a.jpg"), 60, 60, box, label, no, no)]
    >>> found = Detections(box, np.float32([0.9]), label, ("airplane",))
    >>> result = evaluate_coco(pictures, {"a": found}, classes=["airplane"])
    >>> round(result["AP"], 3), result["AP_small"], {name: round(ap, 3) for name, ap in result["per_class"].items()}
    (1.0, nan, {'airplane': 1.0})
    """
    if bootstrap is not None and engine == "faster-coco-eval":
        raise SettingError("intervals follow from the matches of pycocotools; leave out bootstrap, or engine")
    programs = _programs(engine)
    records = _read_records(annotations, detections, classes, rename)
    evaluation = _count(programs, records)
    # IoU x recall x category x area x detections; the first area is all, the last number of detections is 100.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    stats = evaluation.stats[: len(_SUMMARY)]
    result: dict[str, Any] = {name: _nan_if_negative(value) for name, value in zip(_SUMMARY, stats, strict=True)}
    result["mAP"] = result["AP"]
    result["per_class"] = {name: _nan_if_negative(precision[:, :, i].mean()) for i, name in enumerate(records.chosen)}
    if bootstrap is not None:
        result["intervals"] = _intervals(evaluation, [*records.chosen], Bootstrap(len(records.images), bootstrap, seed))
    return result


def match_coco(
    pictures: Sequence[Picture], detections: Mapping[str, Detections], classes: Sequence[str] | None = None
) -> dict[str, list[Matches]]:
    """Match detections with objects, class by class, as pycocotools does for COCO's average precision.

    Parameters
    ----------
    pictures : sequence of Picture
        The annotated pictures; their labels are indices into `classes`. Difficult objects are ordinary ones.
    detections : mapping of str to Detections
        As for `match_voc`. Of each picture and class the 100 best count.
    classes : sequence of str, or None
        Names of the classes; None for those that the pictures were read with.

    Returns
    -------
    dict of str to list of Matches
        By class, the matches at IoU 0.5, 0.55, ..., 0.95. What matches a crowd is `IGNORED`. `Matches.object` is that
        of a hit or a crowd, -1 for what is false, and `Matches.overlap` is 0.

    Raises
    ------
    EvaluationError, SettingError
        As for `evaluate_coco`.

    Examples
    --------
    >>> box, label, no = np.float32([[0, 0, 20, 10]]), np.array([0]), np.array([False])
    >>> picture = Picture("a", Path("a.jpg"), 60, 60, box, label, no, no)
    >>> found = Detections(np.float32([[0, 0, 20, 7]]), np.float32([0.9]), label, ("cat",))
    >>> [one.outcome.tolist() for one in match_coco([picture], {"a": found}, ["cat"])["cat"]][:6]
    [[1], [1], [1], [1], [1], [0]]
    """
    classes = evaluated_classes(pictures, classes, ())
    check_detections(detections)
    kept = {name: np.flatnonzero(renumber_labels(one, classes) >= 0) for name, one in detections.items()}
    records = _read_records(pictures, {name: detections[name][rows] for name, rows in kept.items()}, classes, None)
    evaluation = _count(_programs("pycocotools"), records)
    rows = [kept.get(picture.image_id, np.zeros(0, np.int64)) for picture in pictures]
    start, row = np.cumsum([0, *map(len, rows)]), np.concatenate([np.zeros(0, np.int64), *rows])
    return {
        name: [one._replace(detection=row[start[one.picture] + one.detection]) for one in matches]
        for name, matches in zip(records.chosen, _matches_by_category(evaluation, 0), strict=True)
    }


class _Records(NamedTuple):
    """What is counted: objects, results, ids of pictures and of categories, and the id of each category evaluated."""

    objects: list[dict[str, Any]]
    results: list[dict[str, Any]]
    images: list[Any]
    categories: list[Any]
    chosen: dict[str, Any]


def _read_records(
    annotations: str | Path | Sequence[Picture],
    detections: str | Path | Mapping[str, Detections],
    classes: Sequence[str] | None,
    rename: Mapping[str, str] | None,
) -> _Records:
    """Join annotations and detections; see `evaluate_coco`."""
    from_file = isinstance(annotations, (str, Path)), isinstance(detections, (str, Path))
    truth_source, truth = _annotation_document(annotations, classes)
    source, found = _detection_document(detections)
    images = records_by_id(truth, "images", truth_source, EvaluationError)
    names = names_by_id(truth, "categories", truth_source, EvaluationError)
    image_ids = sorted_ids(images, "images", truth_source, EvaluationError)
    category_ids = _by_name(names, rename or {}, truth_source)
    chosen = sorted_ids(names, "categories", truth_source, EvaluationError)
    if classes is not None:
        classes = check_names("classes", classes)
        unknown = [name for name in classes if name not in category_ids]
        if unknown:
            there = f"{did_you_mean(unknown[0], names.values())}; it has {', '.join(names.values())}"
            raise EvaluationError(f"{truth_source}: has no category {unknown[0]!r}{there}")
        chosen = sorted({category_ids[name] for name in classes})

    own = _Ids({one: one for one in images}, {}), _Ids({one: one for one in names}, {})
    annotated = record_list(truth, "annotations", truth_source, EvaluationError)
    check_annotation_ids(annotated, truth_source, EvaluationError)
    objects = [_checked(one, *own, truth_source, truth_source) for one in annotated]
    evaluated = set(chosen)
    per_category = Counter((one["image_id"], one["category_id"]) for one in objects if not one["iscrowd"])
    per_category = Counter({key: count for key, count in per_category.items() if key[1] in evaluated})
    if isinstance(found, list) and from_file[0]:  # Pictures in memory have no ids that a list could mean.
        theirs, claims = own, found
    else:
        claims = record_list(found, "annotations", source, EvaluationError)
        # In memory pictures are called by their ids, which have no suffix.
        known = _picture_names(truth, truth_source, strip=from_file == (True, False))
        called = _picture_names(found, source, strip=from_file == (False, True))
        meant = match_picture_names(called.values(), known.values())
        by_file = {name: one for one, name in known.items()}
        pictures = {one: by_file[meant[name][0]] for one, name in called.items() if len(meant[name]) == 1}
        categories = names_by_id(found, "categories", source, EvaluationError)
        same = {one: category_ids[name] for one, name in categories.items() if name in category_ids}
        theirs = (
            _distinct_ids(pictures, called, "images", source, truth_source),
            _distinct_ids(same, categories, "categories", source, truth_source),
        )
        if from_file[1]:
            _compare_pictures(truth, found, pictures, truth_source, source)
        with_objects = {names[one] for _, one in per_category}
        # By either name.
        warn_of_classes({*categories.values(), *(names[one] for one in same.values())}, sorted(with_objects))
    for kind, key, ids in zip(("picture", "category"), ("image_id", "category_id"), theirs, strict=True):
        claims = _without_foreign(claims, kind, key, ids, source, truth_source)
    results = [_checked(one, *theirs, source, truth_source, scored=True) for one in claims]
    _warn_of_boxes(per_category, results, images)

    return _Records(objects, results, image_ids, [*names], {names[one]: one for one in chosen})


def _count(programs: tuple[Any, Any], records: _Records) -> Any:
    """Have one of the programs evaluate, and return its evaluation."""
    index, evaluator = programs
    # Both programs print what they do.
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = (
            _indexed(index(), records.images, records.categories, one) for one in (records.objects, records.results)
        )
        evaluation = evaluator(truth, found, "bbox")
        evaluation.params.catIds = [*records.chosen.values()]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _intervals(evaluation: Any, names: Sequence[str], bootstrap: Bootstrap) -> dict[str, Any]:
    """Compute the intervals of the six average precisions and of each category."""
    # Of the areas all, small, medium and large: category to the average precision at each IoU (IoU, rows of weights).
    values = [
        {
            name: np.stack([weighted_average_precision(one, bootstrap.weights, "coco") for one in matches])
            for name, matches in zip(names, _matches_by_category(evaluation, area), strict=True)
        }
        for area in range(4)
    ]
    result = summarise_draws({name: one.mean(axis=0) for name, one in values[0].items()}, bootstrap)
    figures = {"AP": values[0], "AP50": values[0], "AP75": values[0]}
    figures |= dict(zip(_SUMMARY[3:6], values[1:], strict=True))
    at = {"AP50": slice(0, 1), "AP75": slice(5, 6)}
    for figure, of_area in figures.items():
        means = {name: one[at.get(figure, slice(None))].mean(axis=0) for name, one in of_area.items()}
        result[figure] = list(bootstrap.interval(mean_over_classes(means)))
    return result


def _matches_by_category(evaluation: Any, area: int) -> Iterator[list[Matches]]:
    """Yield for each category what pycocotools matched of objects in an area range, at each IoU.

    `Matches.detection` and `Matches.object` are positions among the picture's records. The object is told of hits and
    of what is ignored, and no overlap.
    """
    images = evaluation.params.imgIds
    place = [_places(index, images) for index in (evaluation.cocoDt, evaluation.cocoGt)]
    count = len(images)
    for category in range(len(evaluation.params.catIds)):
        first = (category * len(evaluation.params.areaRng) + area) * count
        found = [(i, one) for i, one in enumerate(evaluation.evalImgs[first : first + count]) if one is not None]
        lengths = [len(one["dtScores"]) for _, one in found]
        picture = np.repeat(np.array([i for i, _ in found], np.int64), lengths)
        score = np.concatenate([np.zeros(0), *(one["dtScores"] for _, one in found)])
        ids = np.concatenate([np.zeros(0, np.int64), *(one["dtIds"] for _, one in found)]).astype(np.int64)
        order = np.argsort(-score, kind="stable")
        positives = np.zeros(count, np.int64)
        for i, one in found:
            positives[i] = (one["gtIgnore"] == 0).sum()
        steps = len(evaluation.params.iouThrs)
        taken, ignored = (
            np.concatenate([np.zeros((steps, 0)), *(one[key] for _, one in found)], axis=1)[:, order].astype(np.int64)
            for key in ("dtMatches", "dtIgnore")
        )
        outcome = np.where(ignored, IGNORED, np.where(taken, HIT, FALSE)).astype(np.int8)
        yield [
            Matches(
                picture[order], place[0][ids[order]], score[order], outcome[step], place[1][taken[step]],
                np.zeros(len(order)), int(positives.sum()), positives,
            )
            for step in range(steps)
        ]  # fmt: skip


def _places(index: Any, images: Sequence[Any]) -> NDArray[np.int64]:
    """Position of each record among those of its picture, by its id, which counts from 1; -1 for 0, which is none."""
    place = np.full(len(index.anns) + 1, -1)
    for one in images:
        own = [record["id"] for record in index.imgToAnns[one]]
        place[own] = np.arange(len(own))
    return place


def _annotation_document(given: str | Path | Sequence[Picture], classes: Sequence[str] | None) -> tuple[str, Any]:
    """Return the source of annotations, for errors, and their COCO document."""
    if isinstance(given, (str, Path)):
        return str(given), read_json(Path(given), EvaluationError)
    classes = evaluated_classes(given, classes, ())
    if not classes:
        raise SettingError("classes must be the names of the pictures' labels; give those that they were read with")
    check_pictures(given, classes)
    annotations = [
        {"image_id": i, "category_id": label, "bbox": box, "iscrowd": int(crowd)}
        for i, picture in enumerate(given, start=1)
        for label, box, crowd in zip(
            picture.labels.tolist(), corners_to_sides(picture.boxes).tolist(), picture.crowd.tolist(), strict=True
        )
    ]
    return "the annotations", {
        "images": [
            {"id": i, "file_name": picture.image_id, "width": picture.width, "height": picture.height}
            for i, picture in enumerate(given, start=1)
        ],
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes)],
        "annotations": annotations,
    }


def _detection_document(given: str | Path | Mapping[str, Detections]) -> tuple[str, Any]:
    """Return the source of detections, for errors, and their COCO document or list of results."""
    if not isinstance(given, (str, Path)):
        check_detections(given)
        return "the detections", _document_of([(name, 0, 0, found) for name, found in given.items()])
    path = detections_file(given)
    if path.suffix.lower() != ".parquet":
        return str(path), read_json(path, EvaluationError)
    try:
        return str(path), _document_of(read_detection_entries(path))
    except DetectionError as error:
        raise EvaluationError(str(error)) from error


def _document_of(entries: Sequence[tuple[str, int, int, Detections]]) -> dict[str, Any]:
    """Return the COCO document of detections, in which names are ids; a width or height of 0 is not known."""
    annotations = [
        {"image_id": name, "category_id": category, "bbox": box, "score": score}
        for name, _, _, found in entries
        for category, box, score in zip(
            found.names, corners_to_sides(found.boxes).tolist(), found.scores.tolist(), strict=True
        )
    ]
    return {
        "images": [
            {"id": name, "file_name": name, "width": width, "height": height} for name, width, height, _ in entries
        ],
        "categories": [{"id": name, "name": name} for name in class_names({name: one for name, _, _, one in entries})],
        "annotations": annotations,
    }


def _compare_pictures(truth: Any, found: Any, pictures: Mapping[Any, Any], truth_source: str, source: str) -> None:
    """Warn of pictures that are not among the detections, or have another size there; `pictures` maps their ids."""
    missing = len(truth["images"]) - len(pictures)
    if missing:
        warnings.warn(
            f"{missing} of {len(truth['images'])} pictures of {truth_source} are not in {source}: "
            "their objects count as missed",
            DataWarning,
            stacklevel=3,
        )
    sizes = {one["id"]: _size(one) for one in truth["images"]}
    called = {pictures[one["id"]]: one["file_name"] for one in found["images"] if one["id"] in pictures}
    warn_of_sizes(
        {called[pictures[one["id"]]]: _size(one) for one in found["images"] if one["id"] in pictures},
        {called[one]: size for one, size in sizes.items() if one in called},
    )


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height of an image's record, which need not be there; 0 where they are not."""
    width, height = (image.get(side) for side in ("width", "height"))
    return (width if isinstance(width, int) else 0, height if isinstance(height, int) else 0)


def _without_foreign(claims: list[Any], kind: str, key: str, ids: _Ids, source: str, truth: str) -> list[Any]:
    """Leave out detections of categories or pictures that the annotations do not have, and warn of them."""
    known = [record for record in claims if not _is_foreign(record, key, ids)]
    count = len(claims) - len(known)
    if not count:
        return claims
    foreign = (record[key] for record in claims if _is_foreign(record, key, ids))
    left_out = dict.fromkeys(ids.called.get(one, one) for one in foreign)
    which = first_names([shorten_record(one) for one in left_out], 10)
    if count == len(claims):
        raise EvaluationError(f"{source}: no {kind} {which} in {truth}, and all {count} detections are of such")
    kinds = {"picture": "in pictures", "category": "of categories"}[kind]
    warnings.warn(
        f"{count} of {len(claims)} detections are {kinds} that {truth} does not have, and are left out: {which}",
        DataWarning,
        stacklevel=3,
    )
    return known


def _warn_of_boxes(
    objects: Counter[tuple[Any, Any]], results: list[dict[str, Any]], images: Mapping[Any, dict[str, Any]]
) -> None:
    """Warn of more objects of a picture and category than detections count, and of detections far outside."""
    many = [count for count in objects.values() if count > _MAX_DETECTIONS]
    if many:
        warnings.warn(
            f"{len(many)} times a picture has more than {_MAX_DETECTIONS} objects of a category, up to {max(many)}; "
            f"COCO counts the {_MAX_DETECTIONS} best detections of each picture and category: not all can be found",
            DataWarning,
            stacklevel=3,
        )
    position = {one: i for i, one in enumerate(images)}
    boxes = np.array([one["bbox"] for one in results], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    owners = np.array([position[one["image_id"]] for one in results], np.int64)
    sizes = np.array([_size(image) for image in images.values()], np.float64).reshape(-1, 2)
    warn_of_edges(count_beyond_edges(boxes, owners, sizes), len(boxes))


def _is_foreign(record: Any, key: str, ids: _Ids) -> bool:
    """Whether a detection's picture or category is one that the annotations lack; not one that no document defines."""
    one = record.get(key) if isinstance(record, dict) else None
    return isinstance(one, (int, float, str)) and one not in ids.known and (one in ids.called or not ids.called)


def _programs(engine: str) -> tuple[Any, Any]:
    """Return the classes that index a document and that evaluate."""
    if check_choice("engine", engine, ("pycocotools", "faster-coco-eval")) == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    from faster_coco_eval import COCO, COCOeval_faster

    return COCO, COCOeval_faster


def _nan_if_negative(value: float) -> float:
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


def _by_name(names: Mapping[Any, str], rename: Mapping[str, str], source: str) -> dict[str, Any]:
    """Id of each category by its name, and by its other name where no category is called that."""
    check_distinct(names, "categories", source, EvaluationError)
    ids = {rename.get(name, name): one for one, name in names.items()}
    return ids | {name: one for one, name in names.items()}


def _picture_names(document: Any, source: str, strip: bool) -> dict[Any, str]:
    """Names of a document's pictures by their ids, without suffixes if these are to be stripped."""
    names = {
        one: forward_slashes(without_suffix(name) if strip else name)
        for one, name in names_by_id(document, "images", source, EvaluationError).items()
    }
    check_distinct(names, "images", source, EvaluationError)
    return names


def _distinct_ids(known: Mapping[Any, Any], called: Mapping[Any, str], kind: str, source: str, truth: str) -> _Ids:
    """Return the ids of a document's pictures or categories, of which no two may be the same in the annotations."""
    first: dict[Any, Any] = {}
    for one, other in known.items():
        if first.setdefault(other, one) != one:
            raise EvaluationError(
                f"{source}: its {kind} {called[first[other]]!r} and {called[one]!r} are the same one of {truth}; "
                "leave one out"
            )
    return _Ids(known, called)


def _checked(
    record: Mapping[str, Any], pictures: _Ids, categories: _Ids, source: str, truth: str, scored: bool = False
) -> dict[str, Any]:
    """Return what counts of an annotation or detection, with the annotation file's ids."""
    problem = ""
    for kind, key, ids in (("picture", "image_id", pictures), ("category", "category_id", categories)):
        if _is_foreign(record, key, ids):
            problem = problem or f"no {kind} {shorten_record(ids.called.get(record[key], record[key]))} in {truth}"
    problem = problem or record_problem(record, pictures.known, categories.known, scored)
    if problem:
        kind = "detection" if scored else "annotation"
        raise EvaluationError(f"{source}: {problem}, in the {kind} {shorten_record(record)}")
    x, y, width, height = map(float, record["bbox"])
    area = record.get("area")
    return {
        "image_id": pictures.known[record["image_id"]],
        "category_id": categories.known[record["category_id"]],
        "bbox": [x, y, width, height],
        "area": width * height if area is None or scored else float(area),
        "score": float(record["score"]) if scored else 0.0,
        "iscrowd": 0 if scored else int(record.get("iscrowd", 0)),
    }
