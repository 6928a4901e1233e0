"""RoIAlign against torchvision's, the one without torch against it, and the network that stands on both."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import numpy as np

from inception_rcnn.backbone.regions.network import RegionNetwork, roi_align
from inception_rcnn.backbone.regions.roi_align import read_regions


def reference(features: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Torchvision's, on boxes with R-CNN's context and on the grid of three unpadded poolings."""
    ops = pytest.importorskip("torchvision.ops")
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * 7 / 6
    moved = torch.cat([centre - half, centre + half], 1) - 6.5
    return ops.roi_align(features, [moved], 7, spatial_scale=1 / 16, sampling_ratio=2, aligned=True)


def test_roi_align_is_torchvisions_inside_the_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 16, 22, 30, generator=generator)  # of a picture of about 480 x 352
    corner = torch.rand(60, 2, generator=generator) * torch.tensor([220.0, 140.0]) + 50
    side = torch.rand(60, 2, generator=generator) * torch.tensor([160.0, 110.0]) + 4
    boxes = torch.cat([corner, corner + side], 1)
    torch.testing.assert_close(roi_align(features, boxes), reference(features, boxes), rtol=1e-4, atol=1e-4)


def test_roi_align_outside_repeats_the_border() -> None:
    features = torch.arange(12.0).reshape(1, 1, 3, 4)
    regions = roi_align(features, torch.tensor([[-900.0, -900.0, -500.0, -500.0], [500.0, 500.0, 900.0, 900.0]]))
    assert regions.shape == (2, 1, 7, 7)
    torch.testing.assert_close(regions[0], torch.zeros(1, 7, 7))
    torch.testing.assert_close(regions[1], torch.full((1, 7, 7), 11.0))


def test_roi_align_reads_a_ramp_where_the_cells_look() -> None:
    # A feature map that holds the x of the pixel under each cell's centre.
    x = 14.5 + 16 * torch.arange(20.0)
    features = x.expand(1, 1, 20, 20).contiguous()
    region = roi_align(features, torch.tensor([[100.0, 100.0, 184.0, 184.0]]))[0, 0]
    length = 84 * 7 / 6
    expected = 142 - length / 2 + length * (torch.arange(7) + 0.5) / 7
    torch.testing.assert_close(region, expected.expand(7, 7), rtol=0, atol=1e-3)


def test_roi_align_of_no_boxes() -> None:
    assert roi_align(torch.zeros(1, 8, 5, 6), torch.zeros(0, 4)).shape == (0, 8, 7, 7)


def test_places_that_are_no_numbers_read_no_other_memory() -> None:
    features = np.ones((5, 6, 3), np.float32)
    boxes = np.array([[np.nan] * 4, [0, np.nan, np.inf, 3], [-np.inf, 0, np.inf, 9], [1e30, 0, 2e30, 1]], np.float32)
    np.testing.assert_allclose(read_regions(features, boxes), 1, rtol=1e-6)


def test_memory_of_another_shape_is_refused() -> None:
    features, boxes = np.ones((5, 6, 3), np.float32), np.array([[0, 0, 9, 9]] * 4, np.float32)
    for shape in ((3, 7, 7, 3), (4, 7, 7, 2)):
        with pytest.raises(ValueError, match="must hold 4 x 7 x 7 x 3"):
            read_regions(features, boxes, np.empty(shape, np.float32))
    np.testing.assert_allclose(read_regions(features, boxes, np.empty((9, 7, 7, 3), np.float32)), 1, rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(30, 40), (1, 1), (1, 7), (9, 2), (13, 21)])
def test_the_one_without_torch_reads_the_same(height: int, width: int) -> None:
    rng = np.random.default_rng([height, width])
    features = rng.normal(size=(height, width, 17)).astype(np.float32)
    size = 16 * np.array([width, height])
    # Some reach out of the picture, some are of no size, some are all of it.
    corners = np.sort(rng.uniform(-0.2 * size, 1.2 * size, (200, 2, 2)), axis=1).reshape(-1, 4)
    corners[:20, 2:] = corners[:20, :2] + rng.uniform(0, 3, (20, 2))
    corners[20:22] = [[0, 0, *size], [5, 5, 5, 5]]
    boxes = corners.astype(np.float32)
    expected = roi_align(torch.from_numpy(features.transpose(2, 0, 1)[None].copy()), torch.from_numpy(boxes)).numpy()
    expected = expected.transpose(0, 2, 3, 1)
    found = read_regions(features, boxes)
    assert (found.shape, found.dtype) == ((200, 7, 7, 17), np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert read_regions(features, boxes[:0]).shape == (0, 7, 7, 17)


def test_gradients_reach_the_features() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[5.0, 3.0, 60.0, 50.0], [20.0, 10.0, 40.0, 60.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: roi_align(f, boxes), (features,))


def test_network_scores_every_box() -> None:
    network = RegionNetwork(5).eval()
    boxes = torch.tensor([[0.0, 0.0, 90.0, 70.0], [10.0, 10.0, 40.0, 60.0]])
    with torch.no_grad():
        logits, deltas = network(torch.zeros(1, 3, 96, 128), boxes)
    assert logits.shape == (2, 6)
    assert deltas.shape == (2, 5, 4)


def test_new_layers_follow_the_seed() -> None:
    one, same, other = (RegionNetwork(2, seed=seed).score.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
