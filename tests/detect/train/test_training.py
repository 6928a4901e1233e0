"""Training: what is learned from, the loss by hand, and that an interruption changes nothing."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from builders import make_picture, random_boxes
from PIL import Image
from random_model import random_network

from inception_rcnn.backbone.preprocessing import decode_boxes
from inception_rcnn.data import Picture, box_iou
from inception_rcnn.data.errors import CheckpointError, SettingError
from inception_rcnn.detect.postprocessing import refine_best
from inception_rcnn.detect.settings import DetectorSettings
from inception_rcnn.detect.train.detector import detection_loss, train_detector
from inception_rcnn.detect.train.loop import RunSettings
from inception_rcnn.detect.train.recipes import DetectorRecipe
from inception_rcnn.detect.train.sampling import refine_regions, repeat_factors, sample_regions
from inception_rcnn.detect.train.validation import measure_map
from inception_rcnn.proposals.multibox.network import GridHead

OBJECTS = [[20, 20, 90, 80], [100, 30, 160, 150], [10, 100, 60, 140]]


def share_covered(boxes: np.ndarray, by: np.ndarray) -> np.ndarray:
    low, high = np.maximum(boxes[:, :2], by[:2]), np.minimum(boxes[:, 2:], by[2:])
    return np.clip(high - low, 0, None).prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)


@pytest.mark.parametrize("seed", range(5))
def test_foreground_overlaps_an_object_and_background_none(seed: int) -> None:
    picture = make_picture(OBJECTS, [4, 0, 2])
    regions = sample_regions(picture, random_boxes(300), np.random.default_rng(seed), number=40, foreground=0.3)
    assert regions.boxes.shape == (40, 4)
    assert regions.boxes.dtype == regions.targets.dtype == np.float32
    assert regions.labels.dtype == np.int64
    assert (regions.boxes >= 0).all()
    assert (regions.boxes <= [200, 160, 200, 160]).all()
    overlap = box_iou(regions.boxes, picture.boxes)
    foreground = regions.labels > 0
    assert 0 < foreground.sum() <= 12
    assert (overlap[foreground].max(1) >= 0.5).all()
    assert (overlap[~foreground].max(1) < 0.5).all()
    np.testing.assert_array_equal(regions.labels[foreground], picture.labels[overlap[foreground].argmax(1)] + 1)
    assert not regions.targets[~foreground].any()
    decoded = decode_boxes(regions.boxes[foreground], regions.targets[foreground][:, None])[:, 0]
    np.testing.assert_allclose(decoded, picture.boxes[overlap[foreground].argmax(1)], rtol=1e-3, atol=0.02)


def test_most_background_is_hard() -> None:
    regions = sample_regions(
        make_picture(OBJECTS, [4, 0, 2]), random_boxes(3000), np.random.default_rng(0), number=100, foreground=0.3
    )
    background = regions.boxes[regions.labels == 0]
    hard = box_iou(background, np.float32(OBJECTS)).max(1) >= 0.1
    assert len(background) == 70
    assert hard.sum() == round(0.75 * 70)


def test_small_objects_are_drawn_as_often_as_large_ones() -> None:
    small, large = [5.0, 5, 25, 25], [60.0, 20, 190, 150]
    picture = make_picture([small, large], [0, 1])
    near_large = (np.float32(large) + np.random.default_rng(0).uniform(-5, 5, (500, 4))).astype(np.float32)
    labels = np.concatenate(
        [
            sample_regions(picture, near_large, np.random.default_rng(seed), number=32, foreground=0.25).labels
            for seed in range(30)
        ]
    )
    ratio = (labels == 1).sum() / (labels == 2).sum()
    assert 0.4 < ratio < 1.5


@pytest.mark.parametrize("kind", ["difficult", "crowd"])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_learned_from_difficult_objects_and_crowds(kind: str, seed: int) -> None:
    picture = make_picture(OBJECTS, [4, 0, 2], **{kind: [1]})
    regions = sample_regions(picture, random_boxes(300), np.random.default_rng(seed), number=60, foreground=0.25)
    assert 1 not in regions.labels
    background = regions.boxes[regions.labels == 0]
    assert len(background) > 20
    assert (share_covered(background, np.float32(OBJECTS[1])) < 0.5).all()
    assert (box_iou(background, np.float32(OBJECTS[1:2])) < 0.3).all()


@pytest.mark.parametrize("seed", range(3))
def test_no_easy_background_where_not_everything_is_labelled(seed: int) -> None:
    picture = make_picture(OBJECTS, [4, 0, 2], labelled=(0, 2, 4), exhaustive=False)
    regions = sample_regions(picture, random_boxes(300), np.random.default_rng(seed), number=64, foreground=0.25)
    overlap = box_iou(regions.boxes, picture.boxes).max(1)
    assert (regions.labels == 0).any()
    assert (overlap >= 0.1).all()
    # Where every object of some classes is, the rest is known to be none of those.
    picture = dataclasses.replace(picture, exhaustive=True)
    regions = sample_regions(picture, random_boxes(300), np.random.default_rng(seed), number=64, foreground=0.25)
    assert (box_iou(regions.boxes, picture.boxes).max(1) < 0.1).any()


def test_pictures_without_objects() -> None:
    rng = np.random.default_rng(0)
    regions = sample_regions(make_picture([], []), random_boxes(300), rng, number=20, foreground=0.25)
    assert regions.labels.tolist() == [0] * 20
    for picture, proposals in (
        (make_picture([], [], labelled=(3,), exhaustive=False), random_boxes(300)),
        (make_picture([], []), np.zeros((0, 4), np.float32)),
        (make_picture(OBJECTS[:1], [0], difficult=[0]), np.float32(OBJECTS[:1])),
    ):
        regions = sample_regions(picture, proposals, rng, number=32, foreground=0.25)
        assert (regions.boxes.shape, regions.labels.shape, regions.targets.shape) == ((0, 4), (0,), (0, 4))


def test_sampling_follows_its_generator() -> None:
    def sample(seed: int) -> np.ndarray:
        picture, rng = make_picture(OBJECTS, [4, 0, 2]), np.random.default_rng(seed)
        return sample_regions(picture, random_boxes(300), rng, number=32, foreground=0.25).boxes

    np.testing.assert_array_equal(sample(1), sample(1))
    assert (sample(1) != sample(2)).any()


def test_a_second_look_moves_regions_as_detection_does() -> None:
    picture, rng = make_picture(OBJECTS, [4, 0, 2]), np.random.default_rng(0)
    boxes = random_boxes(40)
    logits = rng.normal(size=(40, 6)).astype(np.float32)
    deltas = rng.normal(size=(40, 5, 4)).astype(np.float32)
    refined = refine_regions(picture, boxes, logits, deltas, np.random.default_rng(1), number=40)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    settings = DetectorSettings(second_look=40)
    _, moved = refine_best(boxes, probabilities, deltas, (picture.width, picture.height), settings)
    assert 10 < len(refined.boxes) <= 40
    assert {*map(tuple, refined.boxes.tolist())} <= {*map(tuple, moved.tolist())}
    iou = box_iou(refined.boxes, picture.boxes)
    expected = np.where(iou.max(1) >= 0.5, picture.labels[iou.argmax(1)] + 1, 0)
    np.testing.assert_array_equal(refined.labels, expected)
    assert len(refine_regions(picture, boxes, logits, deltas, rng, number=3).boxes) <= 3


def test_what_a_second_look_learns_from() -> None:
    # Regions that are exactly on an object stay there, with deltas of zero: all are foreground, and nothing is to move.
    picture = make_picture(OBJECTS, [4, 0, 2])
    logits, still = np.eye(3, 6, dtype=np.float32), np.zeros((3, 5, 4), np.float32)
    refined = refine_regions(picture, picture.boxes, logits, still, np.random.default_rng(0), number=3)
    assert sorted(refined.labels.tolist()) == [1, 3, 5]
    assert not refined.targets.any()
    # Background is not learned from where objects may be unlabelled.
    partly = make_picture(OBJECTS[:1], [4], labelled=(4,), exhaustive=False)
    refined = refine_regions(partly, picture.boxes, logits, still, np.random.default_rng(0), number=3)
    assert refined.labels.tolist() == [5]


def test_loss_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.5, 0.0, 3.0]])
    deltas = torch.zeros(2, 2, 4)
    deltas[1, 1] = torch.tensor([0.5, -0.5, 3.0, 0.0])
    deltas[1, 0] = 100.0  # another class's
    deltas[0] = 100.0  # background has none
    targets = torch.tensor([[0.0] * 4, [0.0, 0.0, 0.0, 0.25]])
    classification, regression = detection_loss(logits, deltas, torch.tensor([0, 2]), targets)
    first = -math.log(math.e / (math.e + math.e**2 + 1))
    second = -math.log(math.e**3 / (math.e**0.5 + 1 + math.e**3))
    assert classification.item() == pytest.approx((first + second) / 2, rel=1e-5)
    assert regression.item() == pytest.approx((0.125 + 0.125 + 2.5 + 0.25**2 / 2) / 2, rel=1e-5)


def test_background_may_be_a_class_that_nobody_labelled() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0]])
    allowed = torch.tensor([[True, False, True], [True, False, True]])
    classification, regression = detection_loss(
        logits, torch.zeros(2, 2, 4), torch.tensor([0, 1]), torch.zeros(2, 4), allowed
    )
    total = math.e + math.e**2 + 1
    background, foreground = -math.log((math.e + 1) / total), -math.log(math.e**2 / total)
    assert classification.item() == pytest.approx((background + foreground) / 2, rel=1e-5)
    assert regression.item() == 0


def test_where_only_background_is_allowed_the_loss_is_the_usual_one() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 1, 2, 3, 0])
    arguments = logits, torch.zeros(6, 3, 4), labels, torch.zeros(6, 4)
    allowed = torch.zeros(6, 4, dtype=torch.bool)
    allowed[:, 0] = True
    torch.testing.assert_close(detection_loss(*arguments, allowed)[0], detection_loss(*arguments)[0])


def test_loss_of_nothing_is_zero() -> None:
    empty = torch.zeros(0, 3), torch.zeros(0, 2, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)
    assert [part.item() for part in detection_loss(*empty)] == [0.0, 0.0]


def test_gradients_of_the_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    deltas = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 3, 1, 0, 2])
    allowed = torch.rand(5, 4, generator=generator) < 0.5
    allowed[:, 0] = True
    assert torch.autograd.gradcheck(lambda a, b: detection_loss(a, b, labels, targets, allowed), (logits, deltas))


def test_thin_classes_are_shown_more_often() -> None:
    common = [make_picture(OBJECTS[:1], [0]) for _ in range(36)]
    rare = [make_picture(OBJECTS[:2], [0, 1])]
    empty = [make_picture([], []) for _ in range(3)]
    factors = repeat_factors(common + rare + empty, 3, 0.1)
    np.testing.assert_allclose(factors, [1.0] * 36 + [math.sqrt(0.1 / (1 / 40))] + [1.0] * 3)
    np.testing.assert_array_equal(repeat_factors(common + rare, 3, rare_share=1e-6), 1)


@pytest.fixture
def two_pictures(tmp_path: Path, picture: Callable[..., np.ndarray]) -> list[Picture]:
    made = []
    for seed, (boxes, labels) in enumerate([(OBJECTS[:2], [0, 1]), (OBJECTS[1:], [1, 2])]):
        path = tmp_path / f"{seed}.png"
        Image.fromarray(picture(seed, 200, 160)).save(path)
        made.append(dataclasses.replace(make_picture(boxes, labels, path=path), image_id=str(seed)))
    return made


def train(
    pictures: list[Picture], validation: Sequence[Picture] = (), **changes: object
) -> tuple[bool, dict[str, torch.Tensor], list[dict[str, float]]]:
    network = random_network(1)
    prepare = changes.pop("prepare", lambda network: None)
    prepare(network)  # type: ignore[operator]
    rows: list[dict[str, float]] = []
    run = {name: changes.pop(name) for name in ("checkpoint", "resume", "time_limit") if name in changes}
    multibox = changes.pop("multibox", None)
    proposals = changes.pop("proposals", lambda picture: (random_boxes(40), None))
    settings = {
        "epochs": 2.0,
        "batch": 1,
        "regions": 8,
        "scales": (1.0,),
        "long_side": 64,
        # Large enough that four steps move every weight, small enough that random weights stay finite anywhere.
        "learning_rate": 0.01,
    }
    finished = train_detector(
        network,
        pictures,
        proposals,  # type: ignore[arg-type]
        validation,
        DetectorRecipe(**(settings | changes)),  # type: ignore[arg-type]
        multibox=multibox,  # type: ignore[arg-type]
        run=RunSettings(report=rows.append, **run),  # type: ignore[arg-type]
    )
    return finished, {name: value.clone() for name, value in network.state_dict().items()}, rows


@pytest.mark.parametrize("scoring", ["shared", pytest.param("crops", marks=pytest.mark.slow)])
def test_interrupted_and_resumed_is_uninterrupted(two_pictures: list[Picture], tmp_path: Path, scoring: str) -> None:
    # A crop goes through the whole network by itself, so that fewer do.
    regions = 8 if scoring == "shared" else 4
    run = functools.partial(train, two_pictures, two_pictures, scoring=scoring, regions=regions, second_look=4)
    finished, whole, rows = run()
    assert finished
    assert rows[-1]["step"] == rows[-1]["steps"] == 4
    told = {
        "step",
        "steps",
        "epoch",
        "classification",
        "regression",
        "accuracy",
        "learning_rate",
        "seconds_left",
        "mAP",
    }
    assert [(row["step"], set(row)) for row in rows] == [(2, told), (4, told)]
    assert all(math.isfinite(value) for value in rows[-1].values())

    checkpoint = tmp_path / "run.checkpoint"
    runs = 0
    finished = False
    while not finished:
        finished, pieces, _ = run(checkpoint=checkpoint, resume=True, time_limit=0)
        runs += 1
    assert runs == 4
    assert list(pieces) == list(whole)
    for name, value in whole.items():
        assert torch.equal(pieces[name], value), name
    assert [path.name for path in tmp_path.glob("run*")] == ["run.checkpoint"]

    with pytest.raises(ValueError, match="made with other settings") as caught:
        run(checkpoint=checkpoint, resume=True, learning_rate=0.1)
    assert str(checkpoint) in str(caught.value)


# AdamW moves each weight by the rate, whatever its gradient: at 0.3 a network of random weights overflows.
@pytest.mark.parametrize(("optimizer", "rate"), [pytest.param("sgd", 0.01, marks=pytest.mark.slow), ("adamw", 0.001)])
def test_a_multibox_learns_along(two_pictures: list[Picture], tmp_path: Path, optimizer: str, rate: float) -> None:
    def run(**changes: object) -> tuple[bool, dict[str, torch.Tensor], list[dict[str, float]]]:
        head = GridHead(np.full((2, 1, 2), 30, np.float32), channels=4)
        settings = {"learning_rate": rate, **changes}
        finished, state, rows = train(two_pictures, multibox=head, optimizer=optimizer, **settings)
        return finished, state | {f"head.{name}": value for name, value in head.state_dict().items()}, rows

    _, begun, _ = run(learning_rate=0.0)
    finished, whole, rows = run()
    assert finished
    assert {"location", "confidence"} <= set(rows[-1])
    moved = {name for name in whole if not torch.equal(whole[name], begun[name])}
    assert {"head.reduce.weight", "score.weight", "googlenet.inception_4a.one.conv.weight"} <= moved
    # The trunk hears of it.
    _, alone, _ = train(two_pictures, optimizer=optimizer, learning_rate=rate)
    assert not torch.equal(
        alone["googlenet.inception_4e.one.conv.weight"], whole["googlenet.inception_4e.one.conv.weight"]
    )
    # The layers above it do only through the trunk.
    settings = {"learning_rate": 0.001, "freeze": "trunk", "epochs": 0.5}
    _, along, _ = run(**settings)
    for name, value in train(two_pictures, optimizer=optimizer, **settings)[1].items():
        torch.testing.assert_close(along[name], value)

    finished = False
    while not finished:
        finished, pieces, _ = run(checkpoint=tmp_path / "checkpoint", resume=True, time_limit=0)
    for name, value in whole.items():
        assert torch.equal(pieces[name], value), name
    with pytest.raises(CheckpointError, match=r"made with other settings .*multibox"):
        train(two_pictures, optimizer=optimizer, learning_rate=rate, checkpoint=tmp_path / "checkpoint", resume=True)


def test_regions_of_the_multibox_that_learns_along(two_pictures: list[Picture], tmp_path: Path) -> None:
    def run(**changes: object) -> tuple[bool, dict[str, torch.Tensor], list[dict[str, float]]]:
        head = GridHead(np.full((2, 1, 2), 30, np.float32), channels=4)
        settings = {"optimizer": "adamw", "learning_rate": 0.001, "proposals": None, **changes}
        return train(two_pictures, two_pictures, multibox=head, **settings)

    finished, whole, rows = run()
    assert finished
    assert 0 <= rows[-1]["mAP"] <= 1
    # They are not those that were given.
    assert not torch.equal(
        whole["score.weight"], run(proposals=lambda picture: (random_boxes(40), None))[1]["score.weight"]
    )
    finished = False
    while not finished:
        finished, pieces, _ = run(checkpoint=tmp_path / "checkpoint", resume=True, time_limit=0)
    for name, value in whole.items():
        assert torch.equal(pieces[name], value), name
    with pytest.raises(SettingError, match="no regions to learn from; give proposals, or a MultiBox"):
        train(two_pictures, proposals=None)


def test_a_training_ends_with_the_average_of_its_weights(two_pictures: list[Picture]) -> None:
    stages = [train(two_pictures, epochs=0.5 * steps, averaging=0.0, schedule="step")[1] for steps in (1, 2)]
    finished, averaged, _ = train(two_pictures, epochs=1.0, averaging=0.5, schedule="step")
    assert finished
    first, second = (stage["score.weight"] for stage in stages)
    # After the first step the average is the weights. The decay of the second is 2 / 11, as it is less than 0.5.
    torch.testing.assert_close(averaged["score.weight"], first + (1 - 2 / 11) * (second - first))


def test_a_multibox_does_not_learn_from_crops(two_pictures: list[Picture]) -> None:
    with pytest.raises(ValueError, match="cannot learn along with crops"):
        train(two_pictures, multibox=GridHead(np.full((2, 1, 2), 30, np.float32), channels=4), scoring="crops")


@pytest.mark.parametrize("freeze", ["stem", "trunk", "googlenet"])
def test_what_is_frozen_stays_and_the_others_learn(two_pictures: list[Picture], freeze: str) -> None:
    before: dict[str, torch.Tensor] = {}
    _, after, _ = train(
        two_pictures,
        prepare=lambda network: before.update({k: v.clone() for k, v in network.state_dict().items()}),
        epochs=1.0,
        freeze=freeze,
    )
    stem = ("googlenet.conv1.", "googlenet.conv2_reduce.", "googlenet.conv2.")
    trunk = (*stem, "googlenet.inception_3", "googlenet.inception_4")
    stays = {"stem": stem, "trunk": trunk, "googlenet": ("googlenet.",)}[freeze]
    for name, value in before.items():
        frozen = name.startswith((*stays, "first_pass."))
        if frozen or name.endswith("weight"):
            assert torch.equal(after[name], value) == frozen, name


def test_the_loss_falls(two_pictures: list[Picture]) -> None:
    def loss(learning_rate: float) -> float:
        settings = {"epochs": 6.0, "box_regression": False, "learning_rate": learning_rate}
        return train(two_pictures, **settings)[2][-1]["classification"]

    # Both see the same regions in the same order.
    assert loss(0.00002) < 0.5 * loss(0.0)


def test_a_loss_that_is_not_finite_ends_the_run(two_pictures: list[Picture]) -> None:
    with pytest.raises(FloatingPointError, match=r"step 0 \([01].png\); lower the learning rate"):
        train(two_pictures, prepare=lambda network: network.score.bias.data.fill_(math.nan))


def test_a_step_with_no_regions_at_all_is_no_error(two_pictures: list[Picture]) -> None:
    nothing = make_picture([], [], path=two_pictures[0].path, labelled=(0,), exhaustive=False)
    finished, after, _ = train([nothing, nothing], epochs=1.0)
    assert finished
    assert all(torch.isfinite(value).all() for value in after.values())


def test_the_step_schedule_is_another_training(two_pictures: list[Picture]) -> None:
    _, cosine, _ = train(two_pictures)
    _, step, rows = train(two_pictures, schedule="step")
    assert any(not torch.equal(cosine[name], step[name]) for name in cosine)
    assert rows[-1]["learning_rate"] == pytest.approx(0.001)


@pytest.mark.parametrize("scoring", ["shared", pytest.param("crops", marks=pytest.mark.slow)])
def test_map_of_a_network_that_knows_the_answer(two_pictures: list[Picture], scoring: str) -> None:
    network = random_network(1)
    with torch.no_grad():
        network.score.weight.zero_()
        network.score.bias.copy_(torch.tensor([0.0, 0.0, 5.0, 0.0]))
        network.delta.weight.zero_()
        network.delta.bias.zero_()
    everything = functools.partial(
        measure_map, network, scoring=scoring, box_regression=True, long_side=64, device="cpu"
    )
    # Proposals are the objects of class 1, which the second and the first picture have one of each.
    ones = lambda picture: (picture.boxes[picture.labels == 1], None)  # noqa: E731
    assert everything(two_pictures, ones) == pytest.approx(1 / 3)  # classes 0 and 2 are never said
    # As readers return them, with the names of their classes.
    named = [dataclasses.replace(picture, classes=("ant", "bee", "cat")) for picture in two_pictures]
    assert everything(named, ones) == pytest.approx(1 / 3)

    # Objects behind many boxes that are surely none, all said to be of class 1.
    def behind(picture: Picture) -> tuple[np.ndarray, np.ndarray]:
        boxes = np.concatenate([random_boxes(20), picture.boxes[picture.labels == 1]])
        return boxes, np.repeat(np.array([1e-6, 1], np.float32), [20, len(boxes) - 20])

    assert everything(two_pictures, behind) == pytest.approx(1 / 3)
    assert everything(two_pictures, lambda picture: (behind(picture)[0], None)) < 0.1
    assert network.training
    # A class that is not boxed in a picture does not count there, and nothing does if not all objects are boxed.
    nothing = dataclasses.replace(make_picture([], path=two_pictures[0].path), image_id="0")
    same = lambda picture: (two_pictures[1].boxes[:1], None)  # noqa: E731
    alone = everything(two_pictures[1:], same)
    assert everything([nothing, two_pictures[1]], same) < alone
    assert everything([dataclasses.replace(nothing, labelled=(0, 2)), two_pictures[1]], same) == alone
    assert math.isnan(everything([dataclasses.replace(two_pictures[0], exhaustive=False)], ones))
