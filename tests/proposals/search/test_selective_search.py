import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from builders import noise_image
from skimage import data

from inception_rcnn.data.images.reading import as_rgb
from inception_rcnn.proposals import SelectiveSearch, Strategy, selective_search
from inception_rcnn.proposals.search.grouping import (
    COLOUR_BINS,
    TEXTURE_RANGE,
    SegmentGraph,
    describe_regions,
    group_regions,
    texture_codes,
)
from inception_rcnn.proposals.search.segmentation import LEVELS, pixel_graph, segment
from inception_rcnn.proposals.search.selective_search import STRATEGIES, convert_colour, hierarchies


@pytest.fixture(scope="module")
def cat():
    return data.chelsea()


@pytest.fixture(scope="module")
def proposals(cat):
    return selective_search(cat)


def rounded(weights):
    """The weights as the 16-bit levels of the sort leave them."""
    return (np.floor(np.sqrt(np.float32(weights)) * np.float32(LEVELS) + np.float32(0.5)) / LEVELS) ** 2


def naive_segment(image, k, min_size, rounding=lambda weight: weight):
    """Felzenszwalb & Huttenlocher's Algorithm 1, word for word, without smoothing."""
    height, width = image.shape[:2]
    values = image.astype(np.float64)
    edges = []
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):
                if y + dy < height and 0 <= x + dx < width:
                    weight = np.sqrt(((values[y, x] - values[y + dy, x + dx]) ** 2).sum())
                    edges.append((rounding(weight), y * width + x, (y + dy) * width + x + dx))
    edges.sort(key=lambda edge: edge[0])  # stable
    component = np.arange(height * width)
    internal = {}
    for weight, p, q in edges:
        a, b = component[p], component[q]
        size_a, size_b = (component == a).sum(), (component == b).sum()
        if a != b and weight <= min(internal.get(a, 0) + k / size_a, internal.get(b, 0) + k / size_b):
            component[component == b] = a
            internal[a] = weight
    for _, p, q in edges:
        a, b = component[p], component[q]
        if a != b and min((component == a).sum(), (component == b).sum()) < min_size:
            component[component == b] = a
    return component.reshape(height, width)


def same_partition(a, b):
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1).shape[1]
    return pairs == len(np.unique(a)) == len(np.unique(b))


def rand_index(a, b):
    same_a = a.ravel()[:, None] == a.ravel()
    same_b = b.ravel()[:, None] == b.ravel()
    return (same_a == same_b).mean()


@pytest.mark.parametrize(("k", "min_size"), [(20, 1), (100, 8), (400, 20)])
@pytest.mark.parametrize("channels", [1, 3])
def test_segmentation_is_the_papers_algorithm(cat, k, min_size, channels):
    image = np.ascontiguousarray(cat[60:220:6, 100:280:6, :channels])
    labels, count = segment(pixel_graph(image, sigma=0), k, min_size)
    assert same_partition(labels, naive_segment(image, k, min_size, rounded))
    assert count == len(np.unique(labels)) == labels.max() + 1
    assert np.bincount(labels.ravel()).min() >= min_size
    first_seen = labels.ravel()[np.sort(np.unique(labels, return_index=True)[1])]
    assert (first_seen == np.arange(count)).all()


def test_rounding_the_weights_costs_little(cat):
    image = np.ascontiguousarray(cat[60:220:6, 100:280:6])
    labels, count = segment(pixel_graph(image, sigma=0), 100, 8)
    exact = naive_segment(image, 100, 8)
    assert abs(count - len(np.unique(exact))) <= 1
    assert rand_index(labels, exact) > 0.99


def test_every_edge_is_listed_once_in_order():
    image = noise_image(0, 9, 7)
    graph = pixel_graph(image, sigma=0)
    assert len(graph.edges) == len(np.unique(graph.edges)) == 7 * 8 + 6 * 9 + 2 * 6 * 8
    pixel, direction = np.divmod(graph.edges.astype(int), 4)
    other = pixel + np.array([1, 8, 9, 10])[direction]
    flat = image.reshape(-1, 3).astype(float)
    weight = np.sqrt(((flat[pixel] - flat[other]) ** 2).sum(axis=1))
    level = np.repeat(np.arange(len(graph.starts) - 1), np.diff(graph.starts))
    np.testing.assert_allclose(level, np.sqrt(weight) * LEVELS, atol=0.51)


def random_regions(rng, count):
    """A grid of regions with random sizes, boxes and histograms; no picture behind it."""
    corner = rng.integers(0, 80, (count, 2))
    box = np.concatenate([corner, corner + rng.integers(1, 20, (count, 2))], axis=1).astype(np.int32)
    size = rng.integers(1, 100, count).astype(np.int32)
    colour, texture = (rng.random((count, n)).astype(np.float32) ** 4 for n in (75, 240))
    colour /= colour.sum(axis=1, keepdims=True)
    texture /= texture.sum(axis=1, keepdims=True)
    chain = {(i, i + 1) for i in range(count - 1)}
    extra = {tuple(sorted(rng.choice(count, 2, replace=False).tolist())) for _ in range(2 * count)}
    return SegmentGraph(size, box, colour, texture, np.array(sorted(chain | extra), np.int32))


def naive_group(regions, picture_size, measures):
    """Algorithm 1 of the paper with a full scan for the best pair in every round."""
    node = {
        i: (float(regions.size[i]), regions.box[i].tolist(), regions.colour[i], regions.texture[i])
        for i in range(len(regions.size))
    }
    pairs = {tuple(pair): rank for rank, pair in enumerate(regions.pairs.tolist())}

    def similarity(pair):
        (size_a, box_a, colour_a, texture_a), (size_b, box_b, colour_b, texture_b) = (node[i] for i in pair)
        width = max(box_a[2], box_b[2]) - min(box_a[0], box_b[0])
        height = max(box_a[3], box_b[3]) - min(box_a[1], box_b[1])
        terms = {
            "C": np.minimum(colour_a, colour_b).sum(),
            "T": np.minimum(texture_a, texture_b).sum(),
            "S": 1 - (size_a + size_b) / picture_size,
            "F": 1 - (width * height - size_a - size_b) / picture_size,
        }
        return sum(terms[letter] for letter in measures)

    merges = []
    while pairs:
        a, b = max(pairs, key=lambda pair: (np.float32(similarity(pair)), -pairs[pair]))
        (size_a, box_a, *hists_a), (size_b, box_b, *hists_b) = node[a], node[b]
        new = len(regions.size) + len(merges)
        box = [*map(min, box_a[:2], box_b[:2]), *map(max, box_a[2:], box_b[2:])]
        hists = [(size_a * x + size_b * y) / (size_a + size_b) for x, y in zip(hists_a, hists_b, strict=True)]
        node[new] = (size_a + size_b, box, *hists)
        merges.append((min(a, b), max(a, b)))
        renamed = {}
        for pair, rank in pairs.items():
            ends = tuple(sorted(new if end in (a, b) else end for end in pair))
            if ends[0] != ends[1]:
                renamed[ends] = min(rank, renamed.get(ends, rank))
        pairs = renamed
    return np.array([node[i][1] for i in range(len(node))]), np.array(merges)


@pytest.mark.parametrize("measures", ["CTSF", "TSF", "F", "S", "C"])
def test_grouping_merges_the_same_pairs_as_a_full_scan(measures):
    regions = random_regions(np.random.default_rng(3), 40)
    before = [array.copy() for array in regions]
    boxes, merges = group_regions(regions, 10000, measures)
    expected_boxes, expected_merges = naive_group(regions, 10000, measures)
    assert merges.tolist() == expected_merges.tolist()
    assert boxes.tolist() == expected_boxes.tolist()
    assert all((a == b).all() for a, b in zip(before, regions, strict=True))


def test_equal_similarities_are_merged_in_the_order_of_the_pairs():
    count = 6
    regions = SegmentGraph(
        np.full(count, 4, np.int32),
        np.tile(np.array([0, 0, 2, 2], np.int32), (count, 1)),
        np.full((count, 25), 1 / 25, np.float32),
        np.full((count, 80), 1 / 80, np.float32),
        np.array([[0, 1], [0, 2], [1, 2], [2, 3], [3, 4], [4, 5]], np.int32),
    )
    _, merges = group_regions(regions, 24, "C")
    assert merges.tolist() == [[0, 1], [2, 6], [3, 7], [4, 8], [5, 9]]


def test_grouping_without_neighbours():
    one = SegmentGraph(
        np.array([6], np.int32),
        np.array([[0, 0, 3, 2]], np.int32),
        np.ones((1, 25), np.float32),
        np.ones((1, 80), np.float32),
        np.empty((0, 2), np.int32),
    )
    assert group_regions(one, 6)[0].tolist() == [[0, 0, 3, 2]]
    two = SegmentGraph(*(np.repeat(array, 2, axis=0) for array in one[:4]), one.pairs)
    assert len(group_regions(two, 12)[0]) == 2  # not connected: the two leaves and no root


def test_regions_are_described_as_a_loop_over_regions_would(cat):
    image = np.ascontiguousarray(cat[100:160, 150:240])
    labels, count = segment(pixel_graph(image), 50, 30)
    codes = texture_codes(image)
    regions = describe_regions(labels, count, image, codes)
    smooth = np.exp(-(np.arange(-4, 5) ** 2) / 2)
    smooth /= smooth.sum()
    derive = smooth * np.arange(-4, 5)
    values = image.astype(np.float64)
    dx = cv2.sepFilter2D(values, -1, derive, smooth, borderType=cv2.BORDER_REPLICATE)
    dy = cv2.sepFilter2D(values, -1, smooth, derive, borderType=cv2.BORDER_REPLICATE)
    for region in range(count):
        inside = labels == region
        y, x = np.nonzero(inside)
        assert regions.size[region] == len(y)
        assert regions.box[region].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        colour = [np.histogram(image[inside, c], COLOUR_BINS, (0, 256))[0] for c in range(3)]
        np.testing.assert_allclose(regions.colour[region], np.ravel(colour) / (3 * len(y)), atol=1e-6)
        texture = []
        for c in range(3):
            for angle in np.deg2rad([0, 180, 45, 225, 90, 270, 135, 315]):
                response = np.maximum(np.cos(angle) * dx[inside, c] + np.sin(angle) * dy[inside, c], 0)
                bins = np.minimum(response * 10 / TEXTURE_RANGE, 9).astype(int)
                texture.append(np.bincount(bins, minlength=10))
        # a response may fall on the other side of a bin border in float32
        assert np.abs(regions.texture[region] * 24 * len(y) - np.ravel(texture)).sum() <= 2
    touching = set()
    for a, b in (
        (labels[:, 1:], labels[:, :-1]),
        (labels[1:], labels[:-1]),
        (labels[1:, 1:], labels[:-1, :-1]),
        (labels[1:, :-1], labels[:-1, 1:]),
    ):
        touching |= {(min(p, q), max(p, q)) for p, q in zip(a.flat, b.flat, strict=True) if p != q}
    assert regions.pairs.tolist() == sorted([p, q] for p, q in touching)


def test_colour_channels_fill_their_range():
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(len(steps), -1, 3)
    for space, channels in (("HSV", 3), ("Lab", 3), ("rgI", 3), ("H", 1), ("I", 1)):
        values = convert_colour(cube, space)
        assert values.shape == (*cube.shape[:2], channels)
        assert values.dtype == np.uint8
        low, high = values.reshape(-1, channels).min(axis=0), values.reshape(-1, channels).max(axis=0)
        assert (low <= 2).all()
        assert (high >= 250).all(), (space, high)
    hue = convert_colour(cube, "H").astype(int) * COLOUR_BINS >> 8
    assert len(np.unique(hue)) == COLOUR_BINS
    grey = np.full((1, 1, 3), 90, np.uint8)
    assert convert_colour(grey, "rgI").tolist() == [[[85, 85, 90]]]
    assert convert_colour(0 * grey, "rgI").tolist() == [[[85, 85, 0]]]
    with pytest.raises(ValueError, match="unknown colour space"):
        convert_colour(grey, "CMYK")


def test_proposals(cat, proposals):
    boxes, scores = proposals
    height, width = cat.shape[:2]
    assert boxes.dtype == scores.dtype == np.float32
    assert boxes.shape == (len(scores), 4)
    assert 800 < len(boxes) < 5000
    assert (np.diff(scores) < 0).all()
    assert scores.max() < 1
    assert scores.min() > 0
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert (boxes >= 0).all()
    assert (boxes[:, [0, 2]] <= width).all()
    assert (boxes[:, [1, 3]] <= height).all()
    sides = (boxes[:, 2:] - boxes[:, :2]) * [500 / width, round(height * 500 / width) / height]
    assert sides.min() >= 20 - 1e-3
    whole = (boxes == [0, 0, width, height]).all(axis=1)
    assert whole[:20].any()
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert area[:100].mean() > 2 * area[-100:].mean()


def test_the_cats_head_is_among_the_first_boxes(proposals):
    head = np.array([64, 0, 300, 290])  # ears to chin
    boxes = proposals[0][:200]
    sides = np.minimum(boxes[:, 2:], head[2:]) - np.maximum(boxes[:, :2], head[:2])
    inner = np.clip(sides, 0, None).prod(axis=1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (head[2:] - head[:2]).prod() - inner
    assert (inner / union).max() > 0.5


def test_same_seed_same_boxes(cat, proposals):
    again = SelectiveSearch(mode="fast")(cat)
    assert (again[0] == proposals[0]).all()
    assert (again[1] == proposals[1]).all()
    other = SelectiveSearch(mode="fast", seed=1)(cat)[0]
    assert not np.array_equal(other, proposals[0])
    assert {*map(tuple, other.tolist())} == {*map(tuple, proposals[0].tolist())}


def test_limit_takes_the_first(cat, proposals):
    boxes, scores = SelectiveSearch(mode="fast", limit=50)(cat)
    assert (boxes == proposals[0][:50]).all()
    assert (scores == proposals[1][:50]).all()


def test_larger_superpixels_halve_the_boxes(cat, proposals):
    astronaut = data.astronaut()
    normal = len(proposals[0]) + len(selective_search(astronaut)[0])
    larger = SelectiveSearch(mode="fast", superpixel_scale=2.0)
    assert 0.4 < (len(larger(cat)[0]) + len(larger(astronaut)[0])) / normal < 0.6


def test_one_channel_is_smoothed_like_three(cat):
    grey = np.ascontiguousarray(cat[..., :1])
    _, one = segment(pixel_graph(grey), 100, 50)
    _, rough = segment(pixel_graph(grey, sigma=0), 100, 50)
    # three equal channels are sqrt(3) times as far apart, and so is k
    _, three = segment(pixel_graph(grey.repeat(3, axis=2)), 100 * np.sqrt(3), 50)
    assert abs(one - three) <= 0.05 * one < abs(one - rough)


def test_modes_build_their_hierarchies(cat):
    small = np.ascontiguousarray(cat[::4, ::4])
    counts = {mode: len(hierarchies(small, [strategy])) for mode, strategy in STRATEGIES.items()}
    assert counts == {"single": 1, "fast": 8, "quality": 80}
    for _, boxes, _ in hierarchies(small, [STRATEGIES["quality"]]):
        assert boxes[-1].tolist() == [0, 0, small.shape[1], small.shape[0]]


def test_own_strategies(cat, proposals):
    small = np.ascontiguousarray(cat[::4, ::4])
    fast = STRATEGIES["fast"]
    by_space = [fast._replace(spaces=(space,)) for space in fast.spaces]
    assert (selective_search(cat, "single", strategies=by_space)[0] == proposals[0]).all()
    # what two grids share is built once, at the first one's place
    overlapping = [Strategy(("I",), (100,), ("CTSF",)), Strategy(("I", "H"), (100, 90.5), ("CTSF", "F"))]
    assert len(hierarchies(small, overlapping)) == 8
    assert len(SelectiveSearch(strategies=overlapping[:1])(cat)[0]) < len(
        SelectiveSearch(strategies=overlapping)(cat)[0]
    )


@pytest.mark.parametrize("mode", ["single", "fast", "quality"])
def test_threads_change_nothing(cat, mode):
    small = np.ascontiguousarray(cat[::2, ::2])
    one = selective_search(small, mode)
    for threads in (2, 5):
        many = SelectiveSearch(mode, threads=threads)(small)
        assert one[0].tobytes() == many[0].tobytes()
        assert one[1].tobytes() == many[1].tobytes()


def test_boxes_are_in_the_pictures_own_pixels():
    image = np.ascontiguousarray(data.astronaut()[100:420, :500])
    boxes, scores = selective_search(image, "single")
    assert (boxes == np.rint(boxes)).all()  # 500 pixels wide: nothing is scaled
    doubled = selective_search(image.repeat(2, axis=0).repeat(2, axis=1), "single")
    assert (doubled[0] == 2 * boxes).all()
    assert (doubled[1] == scores).all()


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 3), (1, 500, 3), (500, 1, 3), (5000, 2, 3), (2, 5000), (30, 40), (30, 40, 1), (60, 50, 4)],
)
@pytest.mark.parametrize("mode", ["single", "fast"])
def test_odd_pictures_get_at_least_one_box(shape, mode):
    noise = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    for image in (np.full(shape, 7, np.uint8), noise):
        boxes, scores = selective_search(image, mode)
        assert len(boxes) == len(scores) >= 1
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert (boxes[:, 2:] <= [shape[1], shape[0]]).all()
    constant = selective_search(np.full(shape, 7, np.uint8), mode)[0]
    assert constant.tolist() == [[0, 0, shape[1], shape[0]]]


def test_greyscale_and_alpha_are_the_rgb_they_stand_for(cat):
    grey = np.ascontiguousarray(cat[::2, ::2, 1])
    expected = selective_search(np.stack([grey] * 3, axis=2), "single")[0]
    assert np.array_equal(selective_search(grey, "single")[0], expected)
    opaque = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    assert np.array_equal(selective_search(opaque, "single")[0], expected)
    alpha = np.dstack([cat[::2, ::2], 255 - grey])
    expected = selective_search(as_rgb(alpha), "single")[0]
    assert np.array_equal(selective_search(alpha, "single")[0], expected)
    assert np.array_equal(selective_search(np.asfortranarray(alpha), "single")[0], expected)
    assert not np.array_equal(selective_search(alpha[..., :3], "single")[0], expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((9, 9, 3)), r"255 \* image"),
        (np.zeros((9, 9, 3), np.uint16), "image // 257"),
        (np.zeros((9, 9), bool), r"255 \* image"),
        (np.zeros((9, 9), int), "astype"),
        ([[1, 2], [3, 4]], "uint8"),
        (np.zeros((9, 9, 2), np.uint8), "shape"),
        (np.zeros(9, np.uint8), "shape"),
        (np.zeros((1, 9, 9, 3), np.uint8), "shape"),
        (np.zeros((0, 9, 3), np.uint8), "no pixels"),
    ],
)
def test_bad_pictures(image, message):
    with pytest.raises(ValueError, match=message) as error:
        selective_search(image)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "slow"},
        {"superpixel_scale": 0},
        {"limit": 0},
        {"min_side": -1},
        {"min_side": np.nan},
        {"seed": -1},
        {"seed": 1.5},
        {"limit": "5"},
        {"superpixel_scale": "2"},
        {"superpixel_scale": 1e18},
        {"mode": ["fast"]},
        {"threads": 0},
        {"strategies": []},
        {"strategies": [Strategy("HSV", (100,), ("CTSF",))]},
        {"strategies": [Strategy(("HSV",), (), ("CTSF",))]},
        {"strategies": [Strategy(("CMYK",), (100,), ("CTSF",))]},
        {"strategies": [Strategy(("HSV",), (0,), ("CTSF",))]},
        {"strategies": [Strategy(("HSV",), (100,), ("CX",))]},
    ],
)
def test_bad_settings(settings):
    with pytest.raises(ValueError, match=r"must be|is unknown|empty"):
        SelectiveSearch(**settings)


def test_a_very_large_picture_takes_no_more_memory_than_its_pixels():
    script = """
import resource, numpy as np
from inception_rcnn.proposals import compile_kernels, selective_search
compile_kernels()
image = np.zeros((9000, 12000, 3), np.uint8)
image[2000:5000, 3000:9000] = 200
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
boxes, _ = selective_search(image)
print(len(boxes), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    count, megabytes = run.stdout.split()
    assert int(count) >= 2
    assert float(megabytes) < 60


def test_the_first_call_says_that_it_compiles(tmp_path):
    script = (
        "import numpy, inception_rcnn.data.system.kernels as k, inception_rcnn.proposals as p\n"
        "k.NOTICE_AFTER = 0.001\n"
        "p.selective_search(numpy.zeros((9, 9), 'u1'))\n"
        "p.MultiBox.load('voc')(numpy.zeros((64, 64, 3), 'u1'))"
    )
    fresh = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=fresh).stderr
        for _ in range(2)
    )
    assert first.count("compiling, once on this machine") == 1
    assert "compiling" not in second


def test_torch_is_not_imported():
    script = "import sys, inception_rcnn.proposals; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
