"""What a GPU runs, on a CPU: the same lines, batches of one size, memory that does not suffice, half precision."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from builders import noise_image, random_boxes

from inception_rcnn.backbone.preprocessing import crop_regions
from inception_rcnn.backbone.regions.features import PictureFeatures
from inception_rcnn.backbone.regions.placement import Placement, choose_placement
from inception_rcnn.backbone.regions.scorer import RegionScorer
from inception_rcnn.backbone.regions.torch_engine import Batches, full_precision, torch_network, warp_regions
from inception_rcnn.backbone.weights.model_file import RegionModel
from inception_rcnn.data.errors import DeviceError


@pytest.mark.parametrize(("height", "width"), [(300, 420), (17, 500), (1, 1), (224, 224)])
def test_regions_are_warped_as_opencv_warps_them(height: int, width: int) -> None:
    image = noise_image(0, width, height)
    # Some of them reach out of the picture.
    boxes = random_boxes(20, 1.2 * width, 1.2 * height) - np.float32(0.1) * np.float32([width, height] * 2)
    boxes[0] = [0, 0, width, height]
    expected = crop_regions(image, boxes)
    found = warp_regions(torch.from_numpy(image), torch.from_numpy(boxes)).numpy()
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    difference = np.abs(found - expected)
    if tuple(int(part) for part in cv2.__version__.split(".")[:2]) < (4, 12):
        # It rounds coordinates to 1/32 px: a part of the step from one pixel to the next, along x and along y.
        assert difference.max() <= 2 * 255 / 32 + 1
        return
    # A whole grey level where one rounds a half up and the other down.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
    assert expected.std() > 10 or height == 1


def test_batches_are_of_one_size_and_in_order() -> None:
    seen = []

    def compute(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(rows))
        return rows * 2, rows.sum(1)

    rows = torch.arange(21.0).reshape(7, 3)
    first, second = Batches(compute, 3)(7, lambda start, stop: rows[start:stop])
    assert seen == [3, 3, 1]
    assert torch.equal(first, rows * 2)
    assert torch.equal(second, rows.sum(1))


def test_a_batch_that_memory_does_not_hold_is_halved_for_good() -> None:
    sizes = []

    def compute(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return rows, rows

    rows = torch.arange(11)
    batches = Batches(compute, 8)
    for _ in range(2):
        found, _ = batches(11, lambda start, stop: rows[start:stop])
        assert found.tolist() == list(range(11))
    assert sizes == [8, 4, *[2] * 5, 1, *[2] * 5, 1]


def test_a_recording_that_memory_ends_is_halved_too(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def ended(size: int, rows: torch.Tensor) -> None:
        sizes.append(size)
        try:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        finally:
            if size > 1:
                raise RuntimeError("operation failed due to a previous error during capture")

    batches = Batches(lambda rows: (rows,), 64, record=True)
    monkeypatch.setattr(batches, "_capture", ended)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        batches(40, lambda start, stop: torch.zeros(stop - start))
    assert sizes == [64, 32, 16, 8, 4, 2, 1]
    assert batches.record


def test_one_row_that_memory_does_not_hold_is_an_error() -> None:
    def compute(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        Batches(compute, 4)(2, lambda start, stop: torch.zeros(stop - start))


def test_what_cannot_be_recorded_runs_unrecorded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(size: int, rows: torch.Tensor) -> None:
        raise RuntimeError("operation failed due to a previous error during capture\nand more")

    batches = Batches(lambda rows: (rows + 1,), 3, record=True)
    monkeypatch.setattr(batches, "_capture", broken)
    rows = torch.arange(7)
    (found,) = batches(7, lambda start, stop: rows[start:stop])
    (record,) = caplog.records
    assert record.name.startswith("inception_rcnn.")
    assert record.message.endswith("unrecorded, and slower: operation failed due to a previous error during capture")
    assert found.tolist() == list(range(1, 8))
    assert not batches.record


def test_full_precision_leaves_settings_as_they_were() -> None:
    places = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [place.fp32_precision for place in places]
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        first = threading.Event()

        def other() -> None:
            first.wait()
            with full_precision():
                inside.append([place.fp32_precision for place in places])

        inside: list[list[str]] = []
        thread = threading.Thread(target=other)
        thread.start()
        with full_precision():
            first.set()
            thread.join(0.2)
            assert not inside  # it waits
            assert [place.fp32_precision for place in places] == ["ieee", "ieee"]
        thread.join()
        assert inside == [["ieee", "ieee"]]
        assert [place.fp32_precision for place in places] == [before[0], "tf32"]
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


@pytest.mark.filterwarnings("error")
def test_pictures_that_are_read_only_or_mirrored(region_model: RegionModel) -> None:
    image, boxes = noise_image(0, 120, 90), random_boxes(9, 120, 90)
    scorer = RegionScorer(region_model, choose_placement("cpu", engine="torch"))
    mirrored, only_read = image[:, ::-1], image.copy()
    only_read.flags.writeable = False
    for picture in (mirrored, only_read):
        for ours, theirs in zip(scorer(picture, boxes), scorer(picture.copy(), boxes), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_half_precision_overflows_nowhere(region_model: RegionModel) -> None:
    image, boxes = noise_image(0, 120, 90), random_boxes(9, 120, 90)
    exact = RegionScorer(region_model, choose_placement("cpu", engine="torch"))
    half = RegionScorer(region_model, choose_placement("cpu", engine="torch", precision="float16"))
    assert half.trunk.placement.precision == "float16"
    for ours, theirs in zip(half(image, boxes), exact(image, boxes), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=0.02 * np.abs(theirs).max())


def test_normalisation_of_what_half_precision_cannot_square() -> None:
    from inception_rcnn.backbone.googlenet import LocalResponseNorm

    norm = LocalResponseNorm(64)
    for most in (0.1, 40, 4000, 20000):
        x = torch.linspace(-most, most, 64 * 9).reshape(1, 64, 3, 3)
        torch.testing.assert_close(norm(x.half()).float(), norm(x), rtol=3e-3, atol=1e-4)


def test_precisions_that_an_engine_has_not(region_model: RegionModel) -> None:
    for engine, precision, told in (
        ("torch", "int8", "int8 is for a CPU and ONNX Runtime"),
        ("onnxruntime", "float16", "float16 is for a GPU"),
        ("torch", "int4", "use float32, float16 or int8"),
    ):
        with pytest.raises(DeviceError, match=told):
            RegionScorer(region_model, choose_placement("cpu", engine=engine, precision=precision))
    with pytest.raises(DeviceError, match="onnxruntime is for a CPU"):
        RegionScorer(region_model, choose_placement("cuda", engine="onnxruntime"))
    trunk = RegionScorer(region_model, choose_placement("cpu", engine="torch")).trunk
    with pytest.raises(DeviceError, match="the given trunk runs with"):
        RegionScorer(region_model, choose_placement("cpu", engine="torch", precision="float16"), trunk=trunk)


def test_onnx_runtime_is_for_a_cpu_where_there_is_a_gpu_too(
    region_model: RegionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    scorer = RegionScorer(region_model, choose_placement(engine="onnxruntime"))
    assert scorer.placement == Placement("cpu", "onnxruntime", "float32")


def test_ranking_takes_what_scoring_takes(region_model: RegionModel) -> None:
    view = PictureFeatures(noise_image(0, 120, 90))
    for engine in ("torch", "onnxruntime"):
        scorer = RegionScorer(region_model, choose_placement("cpu", engine=engine))
        assert scorer.first_pass_logits(view, [[0, 0, 20, 30], [5, 5, 90, 80]]).shape == (2,)  # type: ignore[arg-type]
        assert scorer.first_pass_logits(view, np.zeros((0, 4), np.float32)).shape == (0,)
        for wrong in (np.zeros(4), np.zeros((2, 5)), np.array([[0, 0, np.nan, 9]]), np.array([[0, 0, np.inf, 9]])):
            for call in (scorer.first_pass_logits, scorer.score):
                with pytest.raises(ValueError, match=r"must be \(N, 4\) finite numbers"):
                    call(view, wrong)
    with pytest.raises(ValueError, match="threads must be a whole number, 1 or more"):
        RegionScorer(region_model, choose_placement("cpu", threads=0))
    with pytest.raises(ValueError, match="scale must be a number, above 0"):
        RegionScorer(region_model, choose_placement("cpu"), scale=0)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@needs_gpu
def test_a_recorded_batch_gives_what_it_gives_unrecorded(region_model: RegionModel) -> None:
    network = torch_network(region_model.weights, 3, "cuda", precision="float16")

    def compute(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return network.score_crops(network.trunk(rows))

    crops = torch.randn(11, 3, 224, 224, device="cuda").half().contiguous(memory_format=torch.channels_last) * 50
    with torch.inference_mode():
        for number in (11, 3):
            plain = Batches(compute, 4)(number, lambda start, stop: crops[start:stop])
            recorded = Batches(compute, 4, record=True)(number, lambda start, stop: crops[start:stop])
            for ours, theirs in zip(recorded, plain, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)


@needs_gpu
def test_a_gpu_gives_in_float32_what_the_cpu_gives(region_model: RegionModel) -> None:
    image, boxes = noise_image(0, 300, 200), random_boxes(70, 330, 220) - np.float32(15)
    gpu, cpu = (RegionScorer(region_model, choose_placement(device, precision="float32")) for device in ("cuda", "cpu"))
    for ours, theirs in zip(gpu(image, boxes), cpu(image, boxes), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    np.testing.assert_allclose(
        gpu.first_pass_logits(PictureFeatures(image), boxes),
        cpu.first_pass_logits(PictureFeatures(image), boxes),
        atol=1e-3,
    )
