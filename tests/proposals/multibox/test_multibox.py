"""MultiBox: priors, matching, the loss by hand, from the network's numbers to ranked boxes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors")
torch = pytest.importorskip("torch")

from builders import noise_image, random_boxes
from random_model import random_network

from inception_rcnn.backbone.preprocessing import decode_boxes, encode_boxes, prepare_picture
from inception_rcnn.backbone.regions.features import PictureFeatures, TrunkFeatures
from inception_rcnn.backbone.regions.network import RegionNetwork
from inception_rcnn.backbone.regions.placement import Placement, choose_placement
from inception_rcnn.backbone.regions.roi_align import FIRST_CENTRE, STRIDE
from inception_rcnn.backbone.regions.scorer import RegionScorer
from inception_rcnn.backbone.weights.model_file import read_model
from inception_rcnn.data import box_iou
from inception_rcnn.data.errors import ModelError
from inception_rcnn.proposals.calibration import RankingCalibration
from inception_rcnn.proposals.multibox.file import read_multibox, write_multibox
from inception_rcnn.proposals.multibox.loss import ALPHA, match_objects, multibox_loss, set_targets
from inception_rcnn.proposals.multibox.network import GridHead, VectorHead, head_for, to_model
from inception_rcnn.proposals.multibox.priors import (
    FINEST_STRIDE,
    SHIFT,
    cluster_boxes,
    cluster_sides,
    place_priors,
)
from inception_rcnn.proposals.multibox.proposer import MultiBox, MultiBoxHead, load_head, rank_boxes, tile_picture

NONE = np.zeros((0, 4), np.float32)
SIDES = np.array([[[8, 8], [12, 20]], [[40, 40], [60, 30]], [[90, 90], [50, 120]]], np.float32)
BOXES = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 1], [0.1, 0.2, 0.9, 0.8]], np.float32)


@pytest.fixture(scope="module")
def network() -> RegionNetwork:
    return random_network()


def test_importing_proposals_imports_no_torch() -> None:
    code = "import sys, inception_rcnn.proposals as p; p.SelectiveSearch; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Priors


def test_clusters_are_the_groups_that_are_there() -> None:
    groups = np.array([[0, 0, 10, 10], [0, 0, 40, 20], [0, 0, 20, 80]], np.float32)
    scatter = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 40, 4)) * [0, 0, 1, 1]
    found = cluster_boxes((groups[:, None] + scatter).reshape(-1, 4).astype(np.float32), 3)
    np.testing.assert_allclose(found, groups, atol=0.3)


def test_clusters_are_the_means_of_the_boxes_nearest_to_them() -> None:
    boxes = random_boxes(200, 100, 100, seed=0)
    found = cluster_boxes(boxes, 6)
    nearest = box_iou(boxes, found).argmax(1)
    np.testing.assert_allclose(found, [boxes[nearest == i].mean(0) for i in range(6)], rtol=1e-5)
    areas = (found[:, 2:] - found[:, :2]).prod(1)
    assert (np.diff(areas) >= 0).all()
    np.testing.assert_array_equal(cluster_boxes(boxes, 6), found)


def test_as_many_clusters_as_boxes_and_more() -> None:
    boxes = np.repeat(random_boxes(3, 100, 100, seed=1), 4, axis=0)
    np.testing.assert_allclose(np.sort(cluster_boxes(boxes, 3)[:, 0]), np.unique(boxes[:, 0]))
    with pytest.raises(ValueError, match="4 clusters of 3 different boxes"):
        cluster_boxes(boxes, 4)


def test_every_grid_has_the_priors_of_its_size() -> None:
    sizes = cluster_sides(random_boxes(4000, 700, 700, seed=0), levels=5, each=4)
    assert sizes.shape == (5, 4, 2)
    length = np.sqrt(sizes.prod(2))
    for level in range(5):
        low, high = 20 * 2**level, 40 * 2**level
        assert (length[level] > (0 if level == 0 else 0.9 * low)).all()
        assert (length[level] < (math.inf if level == 4 else 1.1 * high)).all()


def test_cells_are_where_the_trunk_looks() -> None:
    priors = place_priors(SIDES, (3, 5), (80, 48))
    centres = (priors[:, :2] + priors[:, 2:]) / 2
    own = slice(2 * 6 * 10, 2 * 6 * 10 + 2 * 3 * 5)  # the grid of the trunk's own cells
    x, y = np.meshgrid(FIRST_CENTRE + STRIDE * np.arange(5), FIRST_CENTRE + STRIDE * np.arange(3))
    np.testing.assert_array_equal(centres[own][::2], np.stack([x.ravel(), y.ravel()], axis=1))
    # Four cells of the finest grid around each of them, and one of the next around four.
    assert centres[0].tolist() == [FIRST_CENTRE - 4, FIRST_CENTRE - 4]
    assert centres[-2 * 3 * 2].tolist() == [FIRST_CENTRE + 8, FIRST_CENTRE + 8]
    assert FINEST_STRIDE / 2 + SHIFT == FIRST_CENTRE - 4


@pytest.mark.parametrize("cells", [(1, 1), (2, 3), (7, 4), (30, 40)])
def test_one_output_for_each_prior(cells: tuple[int, int]) -> None:
    features = torch.rand(2, 832, *cells)
    for head in (GridHead(SIDES, channels=8), VectorHead(BOXES, channels=4, hidden=8)):
        residuals, logits = head(features)
        placed = place_priors(head.priors, cells, (16 * cells[1], 16 * cells[0]))
        assert residuals.shape == (2, len(placed), 4)
        assert logits.shape == (2, len(placed))


def test_outputs_stand_in_the_order_of_the_priors() -> None:
    head = GridHead(SIDES, channels=6)
    with torch.no_grad():
        for output in head.outputs:
            output.weight.zero_()
        # The number of the prior in its cell as the first residual, and in the finest grid the cell's as the second.
        head.outputs[0].bias.copy_(
            torch.tensor([[[p] * 4, range(4), [0] * 4, [0] * 4, [0] * 4] for p in (0, 1)]).flatten()
        )
        head.outputs[1].bias.copy_(torch.tensor([[p, 9, 0, 0, 0] for p in (0, 1)]).flatten())
    residuals, _ = head(torch.zeros(1, 832, 3, 5))
    finest = residuals[0, : 2 * 6 * 10].reshape(6, 10, 2, 4)
    assert (finest[..., 0] == torch.tensor([0.0, 1.0])).all()
    for row, column in itertools.product(range(6), range(10)):
        assert (finest[row, column, :, 1] == 2 * (row % 2) + column % 2).all()
    own = residuals[0, 2 * 6 * 10 :][: 2 * 3 * 5].reshape(3, 5, 2, 4)
    assert (own[..., 0] == torch.tensor([0.0, 1.0])).all()
    assert (own[..., 1] == 9).all()


def test_a_head_moves_with_the_picture() -> None:
    """What is 4 of the trunk's cells further right comes out 4 cells further right in the grids that go that far."""
    head = GridHead(SIDES[:2], channels=8, seed=3)
    features = torch.zeros(1, 832, 12, 24)
    features[:, :, 4:7, 6:9] = torch.rand(1, 832, 3, 3, generator=torch.Generator().manual_seed(0))
    first, second = head(features)[1], head(features.roll(4, dims=3))[1]
    for start, rows, columns, step in ((0, 24, 48, 8), (2 * 24 * 48, 12, 24, 4)):
        a, b = (logits[0, start : start + 2 * rows * columns].reshape(rows, columns, 2) for logits in (first, second))
        torch.testing.assert_close(a[:, : -step - 2], b[:, step:-2])


def test_a_new_head_says_the_priors_and_rarely() -> None:
    for head in (head_for(SIDES, channels=8), head_for(BOXES)):
        residuals, logits = head(torch.zeros(1, 832, 4, 4))
        assert not residuals.any()
        torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.001))
        again = head_for(head.priors, channels=head.channels)
        assert all(torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters(), strict=True))


# Matching and loss


def test_matching_is_the_best_of_all() -> None:
    cost = np.random.default_rng(0).uniform(0, 1, (6, 3))
    best = min(itertools.permutations(range(6), 3), key=lambda chosen: sum(cost[p, n] for n, p in enumerate(chosen)))
    matched = match_objects(cost)
    assert [int(np.flatnonzero(matched == n)[0]) for n in range(3)] == list(best)
    assert (matched >= 0).sum() == 3
    assert (match_objects(cost.T) >= 0).all()  # more objects than priors


def test_every_object_gets_a_prior_however_little_they_overlap() -> None:
    priors = place_priors(SIDES, (4, 4), (64, 64))
    objects = np.array([[3, 3, 6, 6], [3, 3, 6, 6.5], [0, 0, 64, 5]], np.float32)
    targets = set_targets(priors, objects, NONE)
    assert targets.matched.sum() == 3
    assert (targets.weights == 1).all()
    back = decode_boxes(priors[targets.matched], targets.residuals[targets.matched][:, None])[:, 0]
    np.testing.assert_allclose(np.sort(back, 0), np.sort(objects, 0), atol=1e-3)


def test_what_overlaps_by_half_is_matched_too_and_what_nearly_does_counts_neither_way() -> None:
    objects = np.array([[0, 0, 100, 100], [200, 0, 300, 100]], np.float32)
    priors = np.array([[0, 0, 100, y] for y in (100, 60, 50, 49, 40, 39)] + [[200, 0, 300, 90]], np.float32)
    targets = set_targets(priors, objects, NONE)
    assert targets.matched.tolist() == [True, True, True, False, False, False, True]
    assert targets.weights.tolist() == [1, 1, 1, 0, 0, 1, 1]
    np.testing.assert_allclose(targets.residuals[1], encode_boxes(priors[1:2], objects[:1])[0])
    assert not targets.residuals[3:6].any()
    # As published, where the network predicts the priors themselves.
    published = set_targets(priors, objects, NONE, predicted=(np.zeros((7, 4), np.float32), np.zeros(7, np.float32)))
    assert published.matched.tolist() == [True, False, False, False, False, False, True]
    assert (published.weights == 1).all()


def test_doubtful_objects_and_unlabelled_ones_are_no_background() -> None:
    priors = np.array([[0, 0, 100, 100], [10, 10, 20, 20], [0, 0, 100, 29], [200, 200, 300, 300]], np.float32)
    crowd = priors[:1]
    assert set_targets(priors, NONE, crowd).weights.tolist() == [0, 0, 0, 1]
    assert set_targets(priors, priors[1:2], crowd).weights.tolist() == [0, 1, 0, 1]
    assert set_targets(priors, priors[1:2], NONE, exhaustive=False).weights.tolist() == [0, 1, 0, 0]
    assert not set_targets(priors, NONE, NONE).matched.any()


def test_background_far_from_all_objects_weighs_less() -> None:
    objects = np.array([[0, 0, 100, 100]], np.float32)
    priors = np.array([[0, 0, 100, y] for y in (60, 45, 11, 9)] + [[200, 0, 300, 90]], np.float32)
    assert set_targets(priors, objects, NONE, far_background=0.25).weights.tolist() == [1, 0, 1, 0.25, 0.25]
    assert set_targets(priors, NONE, objects, far_background=0.25).weights.tolist() == [0, 0, 0, 0, 0.25]
    assert set_targets(priors, NONE, NONE, far_background=0.25).weights.tolist() == [0.25] * 5
    nothing = set_targets(priors, objects, NONE, exhaustive=False, far_background=0.25)
    assert nothing.weights.tolist() == [1, 0, 0, 0, 0]


def test_matching_by_predictions_weighs_location_and_confidence() -> None:
    priors = np.array([[0, 0, 10, 10], [1, 0, 11, 10]], np.float32)
    wanted = encode_boxes(priors, priors[[0, 0]])
    off = np.array([1, 1, 1, 1], np.float32)  # costs 0.3 / 2 * 4 = 0.6

    def chosen(first_logit: float) -> list[bool]:
        predicted = wanted + off * [[1], [0]], np.array([first_logit, 0], np.float32)
        return set_targets(priors, priors[:1], NONE, predicted=predicted).matched.tolist()

    assert chosen(0.59) == [False, True]
    assert chosen(0.61) == [True, False]


def test_loss_by_hand() -> None:
    residuals = torch.tensor([[1.0, 0, 0, 2], [9, 9, 9, 9], [0, 0, 0, 0], [9, 9, 9, 9]])
    targets = torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 0]])
    logits = torch.tensor([0.0, math.log(3), math.log(1 / 4), 5.0])
    matched = torch.tensor([True, False, True, False])
    weights = torch.tensor([1, 0.5, 1, 0])
    location, confidence = multibox_loss(residuals, logits, targets, matched, weights)
    assert ALPHA == 0.3
    assert location.item() == pytest.approx(0.15 * (1 + 4) + 0.15 * 9)
    # c = 1/2 matched, c = 3/4 background, c = 1/5 matched, the last not counted, background by half.
    assert confidence.item() == pytest.approx(math.log(2) + math.log(4) / 2 + math.log(5))
    assert multibox_loss(residuals, logits, targets, matched, weights, alpha=1.0)[0].item() == pytest.approx(7)


def test_gradients_of_the_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    residuals, targets = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    logits = torch.randn(6, generator=generator, dtype=torch.float64)
    matched = torch.tensor([True, False, True, False, False, True])
    weights = torch.tensor([1, 0.25, 1, 0, 1, 1], dtype=torch.float64)
    residuals.requires_grad_()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: multibox_loss(a, b, targets, matched, weights), (residuals, logits))


def test_gradients_of_the_heads() -> None:
    features = torch.rand(1, 832, 3, 4, dtype=torch.float64)
    for head in (GridHead(SIDES, channels=2), VectorHead(BOXES, channels=2, hidden=3)):
        residuals, logits = head.double()(features)
        (residuals.square().sum() + logits.sum()).backward()
        assert all(parameter.grad is not None for parameter in head.parameters())
        output = head.outputs[0] if isinstance(head, GridHead) else head.output
        weight = output.weight.detach().clone()

        def run(bias: torch.Tensor, head: torch.nn.Module = head, output: torch.nn.Module = output) -> torch.Tensor:
            name = next(name for name, value in head.named_parameters() if value is output.bias)
            return torch.cat([x.flatten() for x in torch.func.functional_call(head, {name: bias}, (features,))])

        assert weight.isfinite().all()
        assert torch.autograd.gradcheck(run, output.bias.detach().clone().requires_grad_())


# From numbers to boxes


def test_coding_round_trip() -> None:
    priors, boxes = random_boxes(50, 100, 100, seed=0), random_boxes(50, 100, 100, seed=1)
    found, _ = rank_boxes(priors, encode_boxes(priors, boxes), np.linspace(5, -5, 50), (1000, 1000), iou_threshold=1.0)
    np.testing.assert_allclose(found, boxes, rtol=1e-3, atol=0.02)


def test_boxes_are_ranked_clipped_and_suppressed() -> None:
    boxes = np.array(
        [[10, 10, 50, 50], [12, 10, 52, 50], [-20, -20, 30, 30], [90, 10, 130, 60], [200, 0, 240, 40]], np.float32
    )
    logits = np.array([1, 3, 2, -4, 5], np.float32)
    found, scores = rank_boxes(boxes, np.zeros((5, 4), np.float32), logits, (100, 80))
    assert found.tolist() == [[12, 10, 52, 50], [0, 0, 30, 30], [90, 10, 100, 60]]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp([-3.0, -2, 4])), rtol=1e-5)
    assert found.dtype == scores.dtype == np.float32
    found, _ = rank_boxes(boxes, np.zeros((5, 4), np.float32), logits, (100, 80), iou_threshold=0.95, limit=3)
    assert found.tolist() == [[12, 10, 52, 50], [0, 0, 30, 30], [10, 10, 50, 50]]


def test_wild_residuals_stay_finite() -> None:
    priors = random_boxes(20, 100, 100, seed=0)
    boxes, scores = rank_boxes(priors, np.full((20, 4), 1e4, np.float32), np.full(20, -1e4, np.float32), (100, 100))
    assert np.isfinite(boxes).all()
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (500, 500), (37, 900), (1, 1), (3, 2)])
@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_squares_cover_the_picture_and_overlap(size: tuple[int, int], tiles: int) -> None:
    made = tile_picture(*size, tiles)
    seen = np.zeros(size[::-1], bool)
    for x1, y1, x2, y2 in made:
        assert 0 <= x1 < x2 <= size[0]
        assert 0 <= y1 < y2 <= size[1]
        assert x2 - x1 == y2 - y1
        seen[y1:y2, x1:x2] = True
    assert seen.all()
    steps = np.diff(np.unique(made[:, 0]))
    assert (steps <= (made[0, 2] - made[0, 0]) / 2 + 1).all()


# Files and the door


@pytest.mark.parametrize("priors", [SIDES, BOXES])
def test_a_head_is_read_as_it_was_written(tmp_path: Path, priors: np.ndarray, network: RegionNetwork) -> None:
    head = head_for(priors, channels=4, seed=1)
    path = tmp_path / "head.safetensors"
    calibration = RankingCalibration((-1.5, 0.5), (-2.0, -0.25))
    write_multibox(
        path,
        to_model(head, network, long_side=320, calibration=calibration, classes=("cat", "dog"), trained={"epochs": 2}),
    )
    model = read_multibox(path)
    write_multibox(path, model)
    first = path.read_bytes()
    write_multibox(path, read_multibox(path))
    assert path.read_bytes() == first
    assert (model.long_side, model.calibration, model.trained) == (320, calibration, {"epochs": 2})
    assert model.classes == ("cat", "dog")
    np.testing.assert_allclose(model.priors, priors)
    again = head_for(model.priors, channels=model.channels)
    again.load_state_dict({name: torch.from_numpy(value.astype(np.float32)) for name, value in model.weights.items()})
    for a, b in zip(head.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_files_that_are_no_heads(tmp_path: Path, model_file: Path, network: RegionNetwork) -> None:
    for path, reason in (
        (tmp_path / "absent", "cannot be read"),
        (tmp_path, "cannot be read"),
        (model_file, r"not a MultiBox head \(format None\)"),
    ):
        with pytest.raises(ModelError, match=reason) as caught:
            read_multibox(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    good = tmp_path / "good"
    write_multibox(good, to_model(head_for(BOXES, channels=4), network))
    data = good.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    description = json.loads(header["__metadata__"]["multibox"])
    for change in (
        {"priors": [1]},
        {"priors": "no"},
        {"long_side": 1},
        {"channels": None},
        {"trained": 3},
        {"worth": [[0, 1], [0, 1]]},
        {"worth": [0, 1]},
        {"worth": [[0, 10**400], [0, -1]]},
        {"priors": [[0, 0, 1, 10**400]]},
        {"priors": [[0, 0, 1, 1e39]]},
        {"format": 7},
    ):
        header["__metadata__"]["multibox"] = json.dumps(description | change)
        text = json.dumps(header).encode()
        (tmp_path / "bad").write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ModelError, match="not a MultiBox head"):
                read_multibox(tmp_path / "bad")
    for cut in (0, 7, 20, len(data) // 2):
        (tmp_path / "bad").write_bytes(data[:cut])
        with pytest.raises(ModelError, match="not a safetensors file"):
            read_multibox(tmp_path / "bad")


def test_a_head_on_another_trunk_is_refused(tmp_path: Path, model_file: Path) -> None:
    path = tmp_path / "head.safetensors"
    write_multibox(path, to_model(head_for(SIDES, channels=4), random_network(7)))
    with pytest.raises(ModelError, match="trained on another trunk") as caught:
        MultiBox.load(path, detector=model_file, device="cpu")
    assert str(path) in str(caught.value)
    assert str(model_file) in str(caught.value)


def test_a_head_with_a_trunk_of_its_own_needs_no_detector(tmp_path: Path) -> None:
    own, path = random_network(7), tmp_path / "own.safetensors"
    write_multibox(path, to_model(head_for(SIDES, channels=4), own, own_trunk=True, long_side=128))
    image = noise_image(0, 100, 60)
    made = MultiBox.load(path, detector="absent", device="cpu", threads=1)
    array, scale = prepare_picture(image, 128)
    with torch.no_grad():
        expected = own.trunk(torch.from_numpy(array))
    maps, found_scale, _ = made.trunk(image, 128)
    assert found_scale == scale
    np.testing.assert_allclose(maps, expected, rtol=1e-2, atol=1e-2 * expected.abs().max())
    assert made(image)[0].shape == (200, 4)


@pytest.mark.parametrize("priors", [SIDES, BOXES])
@pytest.mark.parametrize("cells", [(1, 1), (3, 5), (30, 40), (7, 12)])
def test_onnx_runtime_and_torch_run_the_same_head(priors: np.ndarray, cells: tuple[int, int]) -> None:
    head = head_for(priors, channels=8, seed=4)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model = to_model(head, random_network())
    maps = torch.rand(1, 832, *cells, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = [value[0].numpy() for value in head(maps)]
    for engine, given in (("onnxruntime", maps.numpy()), ("torch", maps)):
        run = MultiBoxHead(model, Placement(engine=engine, threads=1))
        for again in (run, pickle.loads(pickle.dumps(run))):
            for one, other in zip(again(given), expected, strict=True):
                assert one.dtype == np.float32
                np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("size", [(7, 7), (1, 1), (30, 40), (9, 3), (14, 21)])
def test_the_original_head_pools_adaptively(size: tuple[int, int]) -> None:
    head = VectorHead(BOXES, channels=4, hidden=8)
    with torch.no_grad():
        head.output.weight.normal_(generator=torch.Generator().manual_seed(0))
    features = torch.rand(2, 832, *size, generator=torch.Generator().manual_seed(1))
    pooled = torch.nn.functional.adaptive_avg_pool2d(head.reduce(features).relu(), 7)
    numbers = head.output(head.hidden(pooled.flatten(1)).relu()).reshape(2, len(BOXES), 5)
    assert numbers.std() > 0.1
    residuals, logits = head(features)
    torch.testing.assert_close(torch.cat([residuals, logits[..., None]], dim=2), numbers, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("tiles", [0, 1])
def test_a_picture_in_ranked_boxes_out(tmp_path: Path, model_file: Path, tiles: int) -> None:
    path = tmp_path / "head.safetensors"
    write_multibox(path, to_model(head_for(SIDES, channels=8), random_network(), long_side=128))
    multibox = MultiBox.load(path, detector=model_file, device="cpu", limit=60, iou_threshold=0.5, tiles=tiles)
    image = noise_image(0, 100, 60)
    boxes, scores = multibox(image)
    assert boxes.shape == (60, 4)
    assert boxes.dtype == scores.dtype == np.float32
    assert (np.diff(scores) <= 0).all()
    assert (boxes >= 0).all()
    assert (boxes <= [100, 60, 100, 60]).all()
    overlap = box_iou(boxes, boxes)
    assert overlap[np.triu_indices(60, 1)].max() <= 0.5 + 1e-5
    np.testing.assert_array_equal(multibox(image)[0], boxes)


def white_finder(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A head that finds what is white in what it is shown, the larger there the surer."""
    shown = np.argwhere(maps[0, 0] > 20)
    low, high = shown.min(0), shown.max(0) + 1
    box = np.array([[low[1], low[0], high[1], high[0]]], np.float32)
    whole = np.array([[0, 0, maps.shape[3], maps.shape[2]]], np.float32)
    return encode_boxes(whole, box), np.array([(high - low).max() / 10], np.float32)


class Glass:
    """A trunk that shows the picture itself."""

    key = ("glass",)

    def __call__(self, image: np.ndarray, long_side: int) -> TrunkFeatures:
        return TrunkFeatures(*prepare_picture(image, long_side))


def test_squares_show_small_objects_larger_and_parts_of_objects_are_no_objects() -> None:
    priors = np.array([[0, 0, 1, 1]], np.float32)
    model = to_model(VectorHead(priors, channels=2, hidden=2), random_network(), long_side=128)
    image = np.zeros((64, 128, 3), np.uint8)
    image[24:40, 60:68] = 255
    _, alone = MultiBox(model, Glass(), white_finder)(image)
    boxes, scores = MultiBox(model, Glass(), white_finder, tiles=1)(image)
    assert scores[0] > alone[0]
    assert box_iou(boxes[:1], [[60, 24, 68, 40]])[0, 0] > 0.8
    image[24:40, 10:118] = 255
    boxes, _ = MultiBox(model, Glass(), white_finder, tiles=1)(image)
    np.testing.assert_allclose(boxes, [[10, 24, 118, 40]], atol=0.5)


def test_pictures_and_settings_are_checked(tmp_path: Path, model_file: Path) -> None:
    path = tmp_path / "head.safetensors"
    write_multibox(path, to_model(head_for(SIDES, channels=4), random_network(), long_side=128))
    multibox = MultiBox.load(path, detector=model_file, device="cpu", threads=1)
    image = noise_image(0, 100, 60)
    grey = np.ascontiguousarray(image[..., 0])
    np.testing.assert_array_equal(multibox(grey)[0], multibox(np.repeat(grey[..., None], 3, 2))[0])
    rgba = np.concatenate([image, np.full_like(image[..., :1], 255)], axis=2)
    np.testing.assert_array_equal(multibox(rgba)[0], multibox(image)[0])
    for wrong in (image / 255, image.astype(np.uint16), image[:0], image[..., :2]):
        with pytest.raises(ValueError, match="the picture"):
            multibox(wrong)
    for setting, message in (
        ({"limit": 0}, "limit"),
        ({"iou_threshold": -1}, "iou_threshold"),
        ({"tiles": -3}, "tiles"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(multibox, **setting)
    with pytest.raises(ValueError, match="engine 'foo' is unknown"):
        MultiBox.load(path, detector=model_file, device="cpu", engine="foo")
    broken = dataclasses.replace(multibox, model=dataclasses.replace(multibox.model, priors=multibox.model.priors[:2]))
    with pytest.raises(ModelError, match="its file is damaged"):
        broken(image)


def test_features_of_one_engine_are_not_given_to_another(tmp_path: Path, model_file: Path) -> None:
    path = tmp_path / "head.safetensors"
    write_multibox(path, to_model(head_for(SIDES, channels=4), random_network(), long_side=128))
    other = RegionScorer(read_model(model_file), choose_placement("cpu", engine="torch"))
    one, own = (
        MultiBox(*load_head(path, placement, detector=model_file, loaded_trunks=[other.trunk]))
        for placement in (other.placement, Placement(threads=1))
    )
    assert one.trunk is other.trunk
    assert own.trunk is not other.trunk
    view = PictureFeatures(noise_image(0, 100, 60))
    np.testing.assert_allclose(one.propose(view)[1], own.propose(view)[1], rtol=1e-3)
