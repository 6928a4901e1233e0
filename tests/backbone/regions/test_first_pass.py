"""The first pass: fitted to the scores of the whole network, read the same by both engines."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from builders import random_boxes
from random_model import CLASSES, random_network

from inception_rcnn.backbone.export.graphs import to_model
from inception_rcnn.backbone.preprocessing import prepare_picture
from inception_rcnn.backbone.regions.features import PictureFeatures
from inception_rcnn.backbone.regions.first_pass import fit_first_pass
from inception_rcnn.backbone.regions.network import RegionNetwork, roi_align
from inception_rcnn.backbone.regions.placement import choose_placement
from inception_rcnn.backbone.regions.roi_align import PARTS, read_first_pass, read_regions
from inception_rcnn.backbone.regions.scorer import RegionScorer
from inception_rcnn.backbone.weights.model_file import RegionModel
from inception_rcnn.data.errors import ModelError


def sample(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture of some flat patches, and regions of it."""
    rng = np.random.default_rng(seed)
    image = np.full((96, 128, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(8):
        y, x = rng.integers(0, 80, 2)
        image[y : y + rng.integers(8, 50), x : x + rng.integers(8, 50)] = rng.integers(0, 256, 3)
    return image, random_boxes(count, 128, 96, rng)


SAMPLES = [sample(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def model() -> RegionModel:
    return to_model(random_network(), CLASSES, long_side=128, samples=SAMPLES)


def odds(network: RegionNetwork, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the network says of regions, and what its first pass does."""
    array, scale = prepare_picture(image, 128)
    places = torch.from_numpy(boxes * np.float32(scale))
    with torch.inference_mode():
        maps = network.trunk_maps(torch.from_numpy(array))
        logits = network.region_head(maps, places).logits
        told = network.first_pass_logits(maps.features, places)
        return (logits[:, 1:].logsumexp(1) - logits[:, 0]).numpy(), told.numpy()


@pytest.mark.slow
def test_it_tells_what_the_network_would_say_of_regions_that_it_has_not_seen() -> None:
    network = random_network()
    assert not network.first_pass.weight.any()
    fit_first_pass(network, SAMPLES, long_side=128)
    correlation = [np.corrcoef(*odds(network, *sample(seed)))[0, 1] for seed in range(100, 106)]
    assert np.median(correlation) > 0.7


def test_nothing_to_fit_leaves_it_as_it_is() -> None:
    network = random_network()
    fit_first_pass(network, [(SAMPLES[0][0], np.zeros((0, 4), np.float32))], long_side=128)
    assert not network.first_pass.weight.any()


def test_reading_scores_is_scoring_what_is_read() -> None:
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(9, 12, 20)).astype(np.float32), rng.normal(size=(9, 20)).astype(np.float32)
    boxes = sample(3)[1]
    expected = np.einsum("nyxc,pyx,pc->n", read_regions(features, boxes), PARTS, weights)
    np.testing.assert_allclose(read_first_pass(features @ weights.T, boxes), expected, rtol=1e-3, atol=1e-4)
    parts = torch.nn.functional.avg_pool2d(roi_align(torch.ones(1, 1, 9, 12), torch.from_numpy(boxes)), 3, 2)
    assert parts.flatten(1).shape[1] == len(PARTS)
    np.testing.assert_allclose(PARTS.sum((1, 2)), 1, rtol=1e-6)


@pytest.mark.slow
def test_both_engines_rank_alike(model: RegionModel) -> None:
    assert model.has_first_pass
    image, boxes = sample(200, 90)
    ranks = [
        RegionScorer(model, choose_placement("cpu", engine=engine)).first_pass_logits(PictureFeatures(image), boxes)
        for engine in ("onnxruntime", "torch")
    ]
    assert ranks[0].std() > 0.01
    np.testing.assert_allclose(ranks[0], ranks[1], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_eight_bits_say_about_the_same(model: RegionModel) -> None:
    image, boxes = sample(300, 150)
    exact = RegionScorer(model, choose_placement("cpu", threads=1))(image, boxes)
    bits = RegionScorer(model, choose_placement("cpu", threads=1, precision="int8"))(image, boxes)
    for ours, theirs in zip(bits, exact, strict=True):
        assert (ours.dtype, ours.shape) == (np.float32, theirs.shape)
        assert 0 < np.abs(ours - theirs).mean() < 0.1 * theirs.std()
    assert len(model.graphs["head.int8"]) < 100_000  # The weights are outside.


def difference_in_eight_bits(model: RegionModel) -> float:
    exact, bits = (
        RegionScorer(model, choose_placement("cpu", threads=1, precision=precision))(*sample(300, 20))[0]
        for precision in ("float32", "int8")
    )
    return float(np.abs(bits - exact).mean())


@pytest.mark.slow
def test_eight_bits_of_crops() -> None:
    samples = [(image, boxes[:8]) for image, boxes in SAMPLES[:4]]
    model = to_model(random_network(), CLASSES, long_side=128, scoring="crops", samples=samples)
    assert 0 < difference_in_eight_bits(model) < 0.02


@pytest.mark.slow
@pytest.mark.filterwarnings("error:invalid value encountered in cast")
def test_eight_bits_of_a_channel_without_weights() -> None:
    network = random_network()
    with torch.no_grad():
        convolution = network.googlenet.inception_5b.one.conv
        convolution.weight[0] = 0
        convolution.bias[0] = 50.0
    model = to_model(network, CLASSES, long_side=128, samples=SAMPLES)
    assert 0 < difference_in_eight_bits(model) < 0.02


@pytest.mark.slow
def test_samples_without_a_box_are_none() -> None:
    model = to_model(random_network(), CLASSES, long_side=128, samples=[(SAMPLES[0][0], np.zeros((0, 4), np.float32))])
    assert not model.has_first_pass
    assert not any(name.endswith("int8") for name in model.graphs)


def test_models_without_samples_say_so(region_model: RegionModel) -> None:
    assert not region_model.has_first_pass
    with pytest.raises(ModelError, match="cannot run in 8 bits"):
        RegionScorer(region_model, choose_placement("cpu", precision="int8"))
