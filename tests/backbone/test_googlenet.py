"""The network is the one of the paper: its sizes, its costs, and the weights that others publish for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn import functional as F

from inception_rcnn.backbone.googlenet import (
    INCEPTION_WIDTHS,
    GoogLeNet,
    LocalResponseNorm,
    state_from_caffe,
    state_from_torchvision,
)
from inception_rcnn.backbone.weights.published import load_imagenet

MODULES = [f"inception_{name}" for name in INCEPTION_WIDTHS]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def multiply_adds(network: nn.Module, side: int = 224) -> int:
    """Count those of convolutions and linear layers in one forward pass, the normalisation's left out."""
    total = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return total


def module_shapes(network: GoogLeNet) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name in MODULES:
        network.get_submodule(name).register_forward_hook(
            lambda module, _, output, name=name: shapes.__setitem__(name, tuple(output.shape[1:]))
        )
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, 224, 224))
    return shapes


def test_modules_have_the_widths_and_sizes_of_table_1() -> None:
    shapes = module_shapes(GoogLeNet(classes=10))
    assert [shape[0] for shape in shapes.values()] == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    assert [shape[1:] for shape in shapes.values()] == [(28, 28)] * 2 + [(14, 14)] * 5 + [(7, 7)] * 2


def test_parameters_are_those_of_the_published_network() -> None:
    network = GoogLeNet()
    assert parameters(network) == 6_998_552
    assert parameters(network) - parameters(network.classifier) == 5_973_552


def test_a_crop_costs_at_most_1_6_billion_multiply_adds() -> None:
    assert 1.4e9 < multiply_adds(GoogLeNet()) < 1.6e9


def test_naive_modules_grow_wider_and_cost_more() -> None:
    network = GoogLeNet(classes=10, naive=True)
    widths = [network.get_submodule(name).outputs for name in MODULES]
    expected, channels = [], 192
    for width in INCEPTION_WIDTHS.values():
        channels += width.one + width.three + width.five
        expected.append(channels)
    assert widths == expected
    assert [shape[0] for shape in module_shapes(network).values()] == expected
    assert multiply_adds(network) > 5 * multiply_adds(GoogLeNet(classes=10))


def test_stages_joined_are_the_network() -> None:
    network = GoogLeNet(classes=10).eval()
    picture = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 50
    with torch.no_grad():
        trunk = network.trunk(picture)
        assert trunk.shape == (1, 832, 14, 14)
        assert network.top(torch.zeros(2, 832, 7, 7)).shape == (2, 1024, 7, 7)
        assert network.features(picture).shape == (1, 1024)
        torch.testing.assert_close(network.classifier(network.features(picture)), network(picture))


@pytest.mark.parametrize("channels", [3, 64, 192])
def test_local_response_norm_is_the_stock_operator(channels: int) -> None:
    x = torch.randn(2, channels, 5, 6, generator=torch.Generator().manual_seed(channels)) * 300
    expected = F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)
    torch.testing.assert_close(LocalResponseNorm(channels)(x), expected, rtol=1e-5, atol=1e-5)


def test_auxiliary_classifiers_speak_in_training_only() -> None:
    network = GoogLeNet(classes=7, auxiliary=True)
    pictures = torch.zeros(2, 3, 224, 224)
    outputs = network.train()(pictures)
    assert [tuple(output.shape) for output in outputs] == [(2, 7)] * 3
    sum(output.sum() for output in outputs).backward()
    assert network.auxiliary_4a.conv.conv.weight.grad is not None
    with torch.no_grad():
        assert network.eval()(pictures).shape == (2, 7)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_batch_norm_form_is_torchvisions(auxiliary: bool) -> None:
    torchvision = pytest.importorskip("torchvision")
    generator = torch.Generator().manual_seed(1)
    theirs = torchvision.models.googlenet(aux_logits=auxiliary, transform_input=False, init_weights=False)
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.2, generator=generator)
            nn.init.normal_(module.running_mean, std=0.2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 1.5, generator=generator)
    ours = GoogLeNet(batch_norm=True, auxiliary=auxiliary)
    ours.load_state_dict(state_from_torchvision(theirs.state_dict()))
    pictures = torch.randn(2, 3, 224, 224, generator=generator)
    with torch.no_grad():
        expected, found = theirs.eval()(pictures), ours.eval()(pictures)
        assert expected.std() > 0.01
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        if auxiliary:
            x4a = ours.module_4a(ours.modules_3a_to_3b(ours.stem(pictures)))
            their_4a = theirs.inception4a(
                theirs.maxpool3(theirs.inception3b(theirs.inception3a(_their_stem(theirs, pictures))))
            )
            torch.testing.assert_close(ours.auxiliary_4a(x4a), theirs.aux1(their_4a), rtol=1e-5, atol=1e-5)


def _their_stem(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = network.maxpool1(network.conv1(x))
    return network.maxpool2(network.conv3(network.conv2(x)))


def test_torchvisions_unknown_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'layer1\.weight' is not a layer of torchvision's GoogLeNet"):
        state_from_torchvision({"layer1.weight": torch.zeros(1)})


def caffe_names(slash: str) -> dict[str, str]:
    """Caffe's name of every layer -> ours."""
    names = {
        f"conv1{slash}7x7_s2": "conv1.conv",
        f"conv2{slash}3x3_reduce": "conv2_reduce.conv",
        f"conv2{slash}3x3": "conv2.conv",
        f"loss3{slash}classifier": "classifier",
    }
    branches = {
        "1x1": "one",
        "3x3_reduce": "three_reduce",
        "3x3": "three",
        "5x5_reduce": "five_reduce",
        "5x5": "five",
        "pool_proj": "pool",
    }
    for name in INCEPTION_WIDTHS:
        for theirs, ours in branches.items():
            names[f"inception_{name}{slash}{theirs}"] = f"inception_{name}.{ours}.conv"
    for theirs, ours in (("loss1", "auxiliary_4a"), ("loss2", "auxiliary_4d")):
        names[f"{theirs}{slash}conv"] = f"{ours}.conv.conv"
        names[f"{theirs}{slash}fc"] = f"{ours}.hidden"
        names[f"{theirs}{slash}classifier"] = f"{ours}.classifier"
    return names


@pytest.mark.parametrize("slash", ["/", "_"])
def test_every_layer_of_caffes_network_finds_its_place(slash: str) -> None:
    network = GoogLeNet(classes=11, auxiliary=True)
    state = network.state_dict()
    rng = np.random.default_rng(0)
    values = {name: rng.random(tuple(value.shape)).astype(np.float16) for name, value in state.items()}
    arrays = {
        f"{theirs}.{kind}": values[f"{ours}.{kind}"]
        for theirs, ours in caffe_names(slash).items()
        for kind in ("weight", "bias")
    }
    assert len(arrays) == len(state)
    network.load_state_dict(state_from_caffe(arrays))
    for name, value in network.state_dict().items():
        assert value.dtype == torch.float32
        np.testing.assert_array_equal(value.numpy(), values[name].astype(np.float32))


@pytest.mark.parametrize("name", ["fc8.weight", "inception_3a_7x7.weight", "loss1_pool.bias", "loss4_fc.bias", ""])
def test_other_layers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a layer of BVLC's GoogLeNet"):
        state_from_caffe({name: np.zeros(1)})


@pytest.mark.slow
def test_published_weights_classify_imagenet(shared: Path) -> None:
    weights = shared / "weights" / "googlenet_bvlc_fp16.npz"
    labels = shared / "data" / "imagenet" / "labels.txt"
    if not weights.is_file() or not labels.is_file():
        pytest.skip("no ImageNet weights or pictures in the reference data")
    cv2 = pytest.importorskip("cv2")
    from inception_rcnn.backbone.preprocessing import MEAN_BGR
    from inception_rcnn.data import read_image

    state, batch_norm = load_imagenet(weights)
    assert not batch_norm
    network = GoogLeNet().eval()
    network.load_state_dict(state)
    lines = labels.read_text().split("\n")
    rows = [line.split() for line in lines if line.strip()][::7]
    first = among_five = 0
    for name, label in rows:
        image = read_image(labels.parent / name)
        height, width = image.shape[:2]
        scale = 256 / min(height, width)
        size = round(width * scale), round(height * scale)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        x, y = (size[0] - 224) // 2, (size[1] - 224) // 2
        crop = image[y : y + 224, x : x + 224, ::-1].astype(np.float32) - MEAN_BGR
        with torch.inference_mode():
            logits = network(torch.from_numpy(crop.transpose(2, 0, 1)[None].copy()))[0]
        best = logits.topk(5).indices.tolist()
        first += best[0] == int(label)
        among_five += int(label) in best
    assert len(rows) >= 50
    assert first / len(rows) >= 0.6
    assert among_five / len(rows) >= 0.8


def test_read_only_weights_are_taken_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    array = np.frombuffer(np.zeros(4, np.float32).tobytes(), np.float32)
    state_from_caffe({"conv1/7x7_s2.bias": array})
    assert not recwarn.list
