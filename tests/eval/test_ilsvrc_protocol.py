import json
import tarfile

import numpy as np
import pytest
from builders import inclusive_boxes, make_detections, make_picture
from hypothesis import given
from hypothesis import strategies as st

from inception_rcnn.data import (
    VOC_CLASSES,
    Detections,
    Picture,
    read_ilsvrc,
    read_ilsvrc_blacklist,
    read_ilsvrc_list,
    read_ilsvrc_results,
)
from inception_rcnn.eval import EvaluationError, evaluate_ilsvrc, evaluate_voc

CLASSES = ("ant", "bee")


def picture(corners, image_id="a", labels=None, **flags):
    return make_picture(inclusive_boxes(corners), labels, image_id, **flags)


def detected(corners, scores, labels=None, classes=CLASSES):
    return make_detections(inclusive_boxes(corners), scores, labels, classes)


def ant(pictures, found, **options):
    return evaluate_ilsvrc(pictures, found, CLASSES, **options)["per_class"]["ant"]


BIG, OTHER, FAR = (1, 1, 40, 40), (101, 1, 140, 40), (201, 201, 240, 240)


def test_a_hit_a_miss_and_a_false_detection():
    assert ant([picture([BIG, OTHER])], {"a": detected([BIG], [0.5])}) == 0.5
    assert ant([picture([BIG])], {"a": detected([FAR, BIG], [0.9, 0.5])}) == 0.5
    assert ant([picture([BIG])], {"a": detected([FAR, BIG], [0.5, 0.9])}) == 1


def test_the_threshold_of_a_large_object_is_a_half():
    # 40 x 40 pixels against the upper half of them, and a row less.
    assert ant([picture([BIG])], {"a": detected([(1, 1, 40, 20)], [0.5])}) == 1
    assert ant([picture([BIG])], {"a": detected([(1, 1, 40, 19)], [0.5])}) == 0


def test_the_threshold_of_a_small_object_lets_a_box_be_5_pixels_off():
    # The kit's own example: 10 x 10 pixels in 20 x 20, an IoU of 0.25, which is exactly the threshold.
    small = (11, 11, 20, 20)
    assert ant([picture([small])], {"a": detected([(6, 6, 25, 25)], [0.5])}) == 1
    assert ant([picture([small])], {"a": detected([(6, 6, 25, 26)], [0.5])}) == 0
    # 25 x 25 is where it begins to matter, 1 x 1 the smallest: 1 / 121.
    assert 0.5 < 25 * 25 / 35**2 < 0.52
    assert ant([picture([(1, 1, 25, 25)])], {"a": detected([(1, 1, 25, 12)], [0.5])}) == 0
    assert ant([picture([(6, 6, 6, 6)])], {"a": detected([(1, 1, 11, 11)], [0.5])}) == 1
    assert ant([picture([(6, 6, 6, 6)])], {"a": detected([(1, 1, 11, 12)], [0.5])}) == 0


def test_width_and_height_have_thresholds_of_their_own():
    # 100 x 4: 400 / (110 * 14) = 0.2597.
    assert ant([picture([(1, 1, 100, 4)])], {"a": detected([(1, 1, 100, 15)], [0.5])}) == 1  # 4 / 15
    assert ant([picture([(1, 1, 100, 4)])], {"a": detected([(1, 1, 100, 16)], [0.5])}) == 0  # 4 / 16


def test_an_object_that_is_taken_leaves_the_next_best():
    first, second = (1, 1, 40, 40), (1, 1, 40, 30)
    found = {"a": detected([first, first], [0.9, 0.8])}
    assert ant([picture([first, second])], found) == 1
    # VOC compares with the best object only.
    assert evaluate_voc([picture([first, second])], found, CLASSES, "voc12")["per_class"]["ant"] == 0.5
    # A third finds nothing.
    assert ant([picture([first, second, FAR])], {"a": detected([first] * 3 + [FAR], [0.9, 0.8, 0.7, 0.6])}) == (
        pytest.approx(2 / 3 + 1 / 3 * 3 / 4)
    )


def test_an_object_is_taken_by_its_own_threshold_not_by_the_best_objects():
    # The box overlaps the large object by 234 / 676, which is not its 0.5, and the small one, less, by 36 / 234, which
    # is more than its 36 / 256.
    large, small, box = (1, 1, 26, 26), (12, 1, 17, 6), (1, 1, 26, 9)
    assert ant([picture([large, small])], {"a": detected([box], [0.5])}) == 0.5
    assert ant([picture([large, small])], {"a": detected([(1, 1, 26, 10)], [0.5])}) == 0
    assert evaluate_voc([picture([large, small])], {"a": detected([box], [0.5])}, CLASSES)["per_class"]["ant"] == 0


def test_difficult_objects_are_ordinary_ones():
    difficult = picture([BIG, OTHER], difficult=[True, False])
    assert ant([difficult], {"a": detected([BIG], [0.5])}) == 0.5
    assert ant([difficult], {"a": detected([BIG, OTHER], [0.9, 0.5])}) == 1
    assert ant([difficult], {"a": detected([BIG, BIG, OTHER], [0.9, 0.8, 0.5])}) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_the_blacklist_leaves_out_detections_and_objects():
    pictures = [picture([BIG, OTHER], "a"), picture([BIG], "b")]
    found = {"a": detected([BIG, FAR], [0.9, 0.8]), "b": detected([BIG], [0.7])}
    assert ant(pictures, found) == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    assert ant(pictures, found, blacklist={("a", "ant")}) == 1
    assert ant(pictures, found, blacklist={("b", "ant")}) == 0.5
    # Pairs, not pictures; and pictures that are not evaluated do not matter.
    assert ant(pictures, found, blacklist={("a", "bee"), ("c", "ant")}) == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    everything = evaluate_ilsvrc(pictures, found, CLASSES, {("a", "ant"), ("b", "ant")})
    assert np.isnan(everything["per_class"]["ant"])
    assert np.isnan(everything["mAP"])


def test_equal_scores_keep_the_order_of_the_pictures_then_that_of_the_file():
    pictures = [picture([BIG], "a"), picture([BIG], "b")]
    hit, false = detected([BIG], [0.5]), detected([FAR], [0.5])
    for found in ({"a": hit, "b": false}, {"b": false, "a": hit}):
        assert ant(pictures, found) == 0.5
        assert ant(pictures[::-1], found) == 0.25
    assert ant(pictures, {"a": detected([BIG, FAR], [0.5, 0.5])}) == 0.5
    assert ant(pictures, {"a": detected([FAR, BIG], [0.5, 0.5])}) == 0.25


def test_of_equal_overlaps_the_first_object_is_taken():
    # Which shows in what is left for the second detection: a box that only the second object would fit.
    left, right = (1, 1, 40, 40), (21, 1, 60, 40)
    middle, beside = (11, 1, 50, 40), (25, 1, 64, 40)
    assert ant([picture([left, right])], {"a": detected([middle, beside], [0.9, 0.8])}) == 1
    assert ant([picture([right, left])], {"a": detected([middle, beside], [0.9, 0.8])}) == 0.5


def test_classes_without_objects_or_detections():
    result = evaluate_ilsvrc([picture([BIG])], {"a": detected([BIG, BIG], [0.9, 0.8], [0, 1])}, CLASSES)
    assert result["mAP"] == 1
    assert np.isnan(result["per_class"]["bee"])
    for found in ({}, {"a": detected([], [])}, {"a": detected([BIG], [0.5], [1])}):
        assert ant([picture([BIG])], found) == 0
    assert evaluate_ilsvrc([], {}, CLASSES)["per_class"].keys() == set(CLASSES)


def test_detections_in_an_unknown_picture_are_refused():
    with pytest.raises(EvaluationError, match="picture 'b' has detections but no annotations"):
        ant([picture([BIG])], {"b": detected([BIG], [0.5])})
    with pytest.raises(EvaluationError, match="'a' is among the annotations twice"):
        ant([picture([BIG]), picture([BIG])], {})


def naive_overlap(a, b):
    """Pixels in both boxes by pixels in any."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0
    area = [(x2 - x1 + 1) * (y2 - y1 + 1) for x1, y1, x2, y2 in (a, b)]
    return width * height / (sum(area) - width * height)


def naive_threshold(box):
    width, height = box[2] - box[0] + 1, box[3] - box[1] + 1
    return min(0.5, width * height / ((width + 10) * (height + 10)))


def naive(scene, label, protocol):
    """One class's average precision by the words of the protocols: one detection after the other."""
    detections = [
        (score, i, box)
        for i, one in enumerate(scene)
        for box, score, of in one["detections"]
        if of == label and not (protocol == "ilsvrc" and label in one["blacklist"])
    ]
    detections.sort(key=lambda detection: -detection[0])  # keeps the order of equal ones
    positives, taken, hits = 0, set(), []
    for one in scene:
        for _, of, difficult in one["objects"]:
            left_out = label in one["blacklist"] if protocol == "ilsvrc" else difficult
            positives += of == label and not left_out
    for _, i, box in detections:
        overlaps = [
            (naive_overlap(box, at), j, difficult, naive_threshold(at))
            for j, (at, of, difficult) in enumerate(scene[i]["objects"])
            if of == label
        ]
        if protocol == "ilsvrc":
            overlaps = [o for o in overlaps if o[0] >= o[3] and o[0] > 0 and (i, o[1]) not in taken]
        overlap, j, difficult, _ = max(overlaps, key=lambda o: o[0], default=(0, None, False, 1))
        if protocol == "ilsvrc":
            hits.append(j is not None)
        elif overlap >= 0.5 and difficult:
            continue
        else:
            hits.append(overlap >= 0.5 and (i, j) not in taken)
        if hits[-1]:
            taken.add((i, j))
    if not positives:
        return float("nan")
    recall = [0, *(sum(hits[: n + 1]) / positives for n in range(len(hits))), 1]
    precision = [0, *(sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))), 0]
    for n in range(len(precision) - 2, -1, -1):
        precision[n] = max(precision[n], precision[n + 1])
    return sum((recall[n] - recall[n - 1]) * precision[n] for n in range(1, len(recall)))


def random_scene(rng):
    """A few pictures with crowded boxes, many of them small, and scores of which many are equal."""
    scene = []
    for _ in range(rng.integers(1, 4)):
        objects, detections = rng.integers(0, 5), rng.integers(0, 7)
        start = rng.integers(1, 16, (objects + detections, 2))
        corners = np.concatenate([start, start + rng.integers(0, rng.choice([4, 30]), start.shape)], axis=1)
        for i in range(objects, len(corners)):
            # Most detections are an object, moved a little.
            if objects and rng.random() < 0.7:
                moved = corners[rng.integers(objects)] + rng.integers(-3, 4, 4)
                corners[i] = np.concatenate([moved[:2], np.maximum(moved[:2], moved[2:])])
        labels = rng.integers(0, 2, len(corners)).tolist()
        boxes = corners.tolist()
        scores = (rng.integers(0, 5, len(corners)) / 4).tolist()
        difficult = (rng.random(len(corners)) < 0.2).tolist()
        scene.append(
            {
                "objects": list(zip(boxes, labels, difficult, strict=True))[:objects],
                "detections": list(zip(boxes, scores, labels, strict=True))[objects:],
                "blacklist": [label for label in (0, 1) if rng.random() < 0.1],
            }
        )
    return scene


def pictures_of(scene):
    columns = [[[item[n] for item in one["objects"]] for n in range(3)] for one in scene]
    return [picture(boxes, str(i), labels, difficult=flags) for i, (boxes, labels, flags) in enumerate(columns)]


def test_a_naive_evaluator_gives_the_same():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        scene = random_scene(rng)
        pictures = pictures_of(scene)
        found = {
            str(i): detected(*([d[n] for d in one["detections"]] for n in range(3))) for i, one in enumerate(scene)
        }
        blacklist = {(str(i), CLASSES[label]) for i, one in enumerate(scene) for label in one["blacklist"]}
        by_voc = evaluate_voc(pictures, found, CLASSES, "voc12")["per_class"]
        by_ilsvrc = evaluate_ilsvrc(pictures, found, CLASSES, blacklist)["per_class"]
        for label, name in enumerate(CLASSES):
            assert by_voc[name] == pytest.approx(naive(scene, label, "voc"), abs=1e-12, nan_ok=True), scene
            assert by_ilsvrc[name] == pytest.approx(naive(scene, label, "ilsvrc"), abs=1e-12, nan_ok=True), scene


def voc07(pictures, found):
    return evaluate_voc(pictures, found, CLASSES, "voc07")["per_class"]


def voc12(pictures, found):
    return evaluate_voc(pictures, found, CLASSES, "voc12")["per_class"]


def ilsvrc(pictures, found):
    return evaluate_ilsvrc(pictures, found, CLASSES)["per_class"]


@st.composite
def scenes(draw):
    """Pictures and detections, no two of which have the same score."""
    scene = random_scene(np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    scores = iter(draw(st.permutations(range(100))))
    pictures = pictures_of(scene)
    found = {
        str(i): detected(
            [d[0] for d in one["detections"]],
            [next(scores) for _ in one["detections"]],
            [d[2] for d in one["detections"]],
        )
        for i, one in enumerate(scene)
    }
    return pictures, found


def reordered(found, order):
    return Detections(found.boxes[order], found.scores[order], found.labels[order], found.classes)


evaluators = st.sampled_from([voc07, voc12, ilsvrc])


@given(scenes(), evaluators)
def test_average_precision_is_from_0_to_1(scene, evaluate):
    for value in evaluate(*scene).values():
        assert np.isnan(value) or 0 <= value <= 1


@given(scenes(), evaluators)
def test_perfect_detections_have_1(scene, evaluate):
    # By VOC's rules the second of two equal objects cannot be found.
    pictures = [
        Picture(p.image_id, p.path, 100, 100, p.boxes[keep], p.labels[keep], p.difficult[keep], p.crowd[keep])
        for p in scene[0]
        for keep in [np.unique(np.column_stack([p.boxes, p.labels]), axis=0, return_index=True)[1]]
    ]
    for value in evaluate(
        pictures, {p.image_id: Detections(p.boxes, np.ones(len(p.labels)), p.labels, CLASSES) for p in pictures}
    ).values():
        assert np.isnan(value) or value == pytest.approx(1)


@given(scenes(), evaluators, st.integers(0, 1))
def test_a_false_detection_below_all_others_raises_nothing(scene, evaluate, label):
    pictures, found = scene
    before = evaluate(pictures, found)
    last = found["0"]
    extra = Detections(
        np.concatenate([inclusive_boxes([FAR]), last.boxes]),
        np.concatenate([np.float32([-1]), last.scores]),
        np.concatenate([[label], last.labels]),
        CLASSES,
    )
    after = evaluate(pictures, found | {"0": extra})
    for name in CLASSES:
        assert np.isnan(before[name]) or after[name] <= before[name] + 1e-12


@given(scenes(), evaluators, st.randoms(use_true_random=False))
def test_the_order_of_detections_with_different_scores_does_not_matter(scene, evaluate, random):
    pictures, found = scene
    before = evaluate(pictures, found)
    names = random.sample(sorted(found), len(found))
    shuffled = {
        name: reordered(found[name], random.sample(range(len(found[name])), len(found[name]))) for name in names
    }
    after = evaluate(random.sample(pictures, len(pictures)), shuffled)
    assert after == pytest.approx(before, nan_ok=True)


@pytest.fixture(scope="module")
def reference(shared, tmp_path_factory):
    folder = shared / "reference" / "voc07_detections"
    if not folder.is_dir():
        pytest.skip("no VOC 2007 detections in the folder of reference data")
    root = tmp_path_factory.mktemp("devkit")
    with tarfile.open(folder / "devkit_test_annotations.tar.gz") as archive:
        archive.extractall(root, filter="data")
    # Results have VOC's numbers, and made-up WordNet ids stand for VOC's classes.
    names = (root / "VOC2007/ImageSets/Main/test.txt").read_text().split()
    (root / "val.txt").write_text("".join(f"{name} {int(name)}\n" for name in names))
    pictures = read_ilsvrc(root / "VOC2007/Annotations", root / "val.txt", {name: name for name in VOC_CLASSES})
    classes = {f"n{i:08d}": name for i, name in enumerate(VOC_CLASSES, start=1)}
    numbers = read_ilsvrc_list(root / "val.txt")
    return (
        pictures,
        read_ilsvrc_results(folder / "ilsvrc_predictions.txt", numbers, classes),
        read_ilsvrc_blacklist(folder / "ilsvrc_blacklist.txt", numbers, classes),
        json.loads((folder / "expected_ap.json").read_text()),
    )


@pytest.mark.parametrize("key", ["ilsvrc", "ilsvrc_blacklist"])
def test_the_official_code_gives_the_same(reference, key):
    pictures, found, blacklist, expected = reference
    assert len(pictures) == 4952
    result = evaluate_ilsvrc(pictures, found, VOC_CLASSES, blacklist if key == "ilsvrc_blacklist" else ())
    for name, values in expected.items():
        assert result["per_class"][name] == pytest.approx(values[key], abs=1e-8)
    assert result["mAP"] == pytest.approx(sum(values[key] for values in expected.values()) / 20, abs=1e-8)
