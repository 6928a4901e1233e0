"""TIDE's types by hand, and beside the authors' package where it is installed."""

from dataclasses import replace

import numpy as np
import pytest
from builders import CLASSES, make_detections, make_picture, random_scene

from inception_rcnn.data.errors import SettingError
from inception_rcnn.eval import precision, tide_errors

CAT, DOG = 0, 1
A, B, FAR = [0, 0, 20, 10], [40, 0, 60, 10], [150, 100, 170, 110]


def counts(objects: list, labels: list, boxes: list, claimed: list, **flags: list) -> dict[str, int]:
    picture = make_picture(objects, labels, **flags)
    found = {"a": make_detections(boxes, np.linspace(0.9, 0.1, len(boxes)), claimed)}
    return {name: count for name, count in tide_errors([picture], found, CLASSES)["counts"].items() if count}


def test_each_type_by_hand() -> None:
    assert counts([A], [CAT], [A], [CAT]) == {}
    assert counts([A], [CAT], [[0, 0, 20, 4]], [CAT]) == {"localisation": 1}
    assert counts([A], [CAT], [A], [DOG]) == {"classification": 1}
    assert counts([A], [CAT], [[0, 0, 20, 4]], [DOG]) == {"both": 1, "missed": 1}
    assert counts([A], [CAT], [A, A], [CAT, CAT]) == {"duplicate": 1}
    assert counts([A], [CAT], [FAR], [CAT]) == {"background": 1, "missed": 1}
    assert counts([], [], [FAR], [CAT]) == {"background": 1}
    assert counts([A], [CAT], [], []) == {"missed": 1}
    # An object that is found takes no error that could be put right; one that is not takes the best.
    assert counts([A, B], [CAT, CAT], [A, [0, 0, 20, 4]], [CAT, CAT]) == {"localisation": 1, "missed": 1}


def test_difficult_objects_are_ignored() -> None:
    assert counts([A], [CAT], [[2, 0, 10, 10]], [CAT], difficult=[0]) == {"background": 1}
    result = tide_errors([make_picture([A, B], [CAT, CAT], difficult=[0])], {"a": make_detections([A, B])}, CLASSES)
    assert (result["mAP"], sum(result["gains"].values())) == (1, 0)


def test_gains_by_hand() -> None:
    # A dog's box on a cat comes first; then the cat is found.
    picture = make_picture([A, B], [CAT, DOG])
    found = make_detections([B, A, B], [0.9, 0.8, 0.7], [CAT, CAT, DOG])
    result = tide_errors([picture], {"a": found}, CLASSES, metric="voc12")
    assert result["mAP"] == pytest.approx((0.5 + 1) / 2)
    assert {name: gain for name, gain in result["gains"].items() if gain} == {
        "classification": 0.25,
        "false positives": 0.25,
    }


def test_thresholds_that_are_refused() -> None:
    with pytest.raises(SettingError):
        tide_errors([make_picture([A])], {}, CLASSES, iou_threshold=1.5)


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_tidecv(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tidecv = pytest.importorskip("tidecv")
    from tidecv.data import Data

    pictures, found = random_scene(seed, count=60)
    # Of equal scores `tidecv` takes the false ones first once it puts errors right.
    order = iter(np.random.default_rng(seed).permutation(10_000))
    found = {
        name: replace(one, scores=np.array([next(order) for _ in one.scores]) / 1e4) for name, one in found.items()
    }
    truth, claims = Data("truth", max_dets=1000), Data("claims", max_dets=1000)
    for picture in pictures:
        corners = picture.boxes.astype(np.float64)
        for box, label, ignore in zip(corners, picture.labels, picture.difficult, strict=True):
            sides = [*box[:2], *(box[2:] - box[:2])]
            (truth.add_ignore_region if ignore else truth.add_ground_truth)(picture.image_id, int(label), sides)
        truth._make_default_image(picture.image_id)
        one = found[picture.image_id]
        for box, label, score in zip(one.boxes.astype(np.float64), one.labels, one.scores, strict=True):
            claims.add_detection(picture.image_id, int(label), float(score), [*box[:2], *(box[2:] - box[:2])])
    run = tidecv.TIDE().evaluate(truth, claims)
    gains = {kind.short_name: gain / 100 for kind, gain in (run.fix_main_errors() | run.fix_special_errors()).items()}
    # Its recall levels are quotients, those of pycocotools products: they differ in the last bit of some.
    monkeypatch.setitem(precision.RECALL_LEVELS, "coco", np.arange(101) / 100)
    result = tide_errors(pictures, found, CLASSES)
    assert result["mAP"] == pytest.approx(run.ap / 100, abs=1e-12)
    names = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FalsePos", "FalseNeg")
    assert [*result["gains"].values()] == pytest.approx([gains[name] for name in names], abs=1e-12)
    numbers = {kind.short_name: len(errors) for kind, errors in run.error_dict.items()}
    assert [*result["counts"].values()] == [numbers[name] for name in names[:6]]
