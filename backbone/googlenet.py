"""GoogLeNet, the 22-layer Inception network that won ILSVRC 2014.

Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, Table 1. The network has two forms. One is as published:
biases, local response normalisation, no batch norm. The other has batch norm; torchvision publishes its weights.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Widths(NamedTuple):
    """Output channels of the convolutions of one Inception module (Table 1 of the paper)."""

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int


INCEPTION_WIDTHS: dict[str, Widths] = {
    "3a": Widths(64, 96, 128, 16, 32, 32),
    "3b": Widths(128, 128, 192, 32, 96, 64),
    "4a": Widths(192, 96, 208, 16, 48, 64),
    "4b": Widths(160, 112, 224, 24, 64, 64),
    "4c": Widths(128, 128, 256, 24, 64, 64),
    "4d": Widths(112, 144, 288, 32, 64, 64),
    "4e": Widths(256, 160, 320, 32, 128, 128),
    "5a": Widths(256, 160, 320, 32, 128, 128),
    "5b": Widths(384, 192, 384, 48, 128, 128),
}


class ConvReLU(nn.Module):
    """Convolution, batch norm if asked for, ReLU: (N, C, H, W) -> (N, C', H', W')."""

    def __init__(
        self, inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int = 0, batch_norm: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3) if batch_norm else None

    def linear(self, x: Tensor) -> Tensor:
        """Convolve and normalise, without the ReLU: (N, C, H, W) -> (N, C', H', W')."""
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.relu(self.linear(x))


class LocalResponseNorm(nn.Module):
    """Normalisation across five neighbouring channels: (N, C, H, W) -> (N, C, H, W).

    ``x / (1 + 1e-4 / 5 * sum(x ** 2)) ** 0.75`` (Krizhevsky et al., NIPS 2012, section 3.3), equal to
    ``torch.nn.functional.local_response_norm(x, 5, 1e-4, 0.75, 1.0)``. The operators of that function take more time
    than the convolution before it. So here the power is two square roots, and the sum over channels is a 1x1
    convolution with a banded matrix. In an exported graph the sum is a pooling over channels: it takes ONNX Runtime 0.4
    of the convolution's time, but torch twice that time.
    """

    band: Tensor
    one: Tensor
    zero: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        distance = torch.arange(channels)[:, None] - torch.arange(channels)[None, :]
        band = (distance.abs() <= 2).float() * (1e-4 / 5)
        self.register_buffer("band", band[:, :, None, None], persistent=False)
        self.register_buffer("one", torch.ones(channels), persistent=False)
        self.register_buffer("zero", torch.zeros(channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if torch.compiler.is_exporting():
            # The axis is added before squaring: otherwise ONNX Runtime changes the memory layout of both x and x * x.
            planes = x.unsqueeze(1)
            mean = F.avg_pool3d(planes * planes, (5, 1, 1), 1, (2, 0, 0)).squeeze(1)
            # The root of 1 + 1e-4 * mean; as a batch norm it is one pass over memory instead of two.
            root = F.batch_norm(mean, self.zero, self.one, 1e-4 * self.one, self.one, eps=0.0).sqrt()
        else:
            band, small = self.band, x
            # float16 ends at 65,504, which squares of activations exceed; scaled before squaring, x may reach 26,000.
            if x.dtype == torch.float16:
                band, small = (band > 0).half(), x * (1e-4 / 5) ** 0.5
            root = F.conv2d(small * small, band.to(x.dtype), self.one.to(x.dtype)).sqrt()
        return x / (root * root.sqrt())


class Inception(nn.Module):
    """Inception module, figure 2 of the paper: (N, inputs, H, W) -> (N, self.outputs, H, W).

    Three of its four branches begin with a 1x1 convolution. `begin` runs these alone.

    Parameters
    ----------
    inputs : int
        Channels of the input.
    widths : Widths
        Channels of the six convolutions.
    batch_norm : bool
        Batch norm after each convolution; torchvision's form, whose "5x5" branch is in fact 3x3.
    naive : bool
        Figure 2(a): no 1x1 reductions and no projection after the pooling, so that every module has more channels
        than the one before. For comparing costs.
    """

    def __init__(self, inputs: int, widths: Widths, *, batch_norm: bool = False, naive: bool = False) -> None:
        super().__init__()
        wide = 3 if batch_norm else 5
        self.one = ConvReLU(inputs, widths.one, 1, batch_norm=batch_norm)
        self.three_reduce: nn.Module = nn.Identity()
        self.five_reduce: nn.Module = nn.Identity()
        self.pool: nn.Module = nn.Identity()
        three_inputs = five_inputs = pool_outputs = inputs
        if not naive:
            self.three_reduce = ConvReLU(inputs, widths.three_reduce, 1, batch_norm=batch_norm)
            self.five_reduce = ConvReLU(inputs, widths.five_reduce, 1, batch_norm=batch_norm)
            self.pool = ConvReLU(inputs, widths.pool, 1, batch_norm=batch_norm)
            three_inputs, five_inputs, pool_outputs = widths.three_reduce, widths.five_reduce, widths.pool
        self.three = ConvReLU(three_inputs, widths.three, 3, padding=1, batch_norm=batch_norm)
        self.five = ConvReLU(five_inputs, widths.five, wide, padding=wide // 2, batch_norm=batch_norm)
        self.outputs = widths.one + widths.three + widths.five + pool_outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, self.outputs, H, W)."""
        return self.finish(x, self.begin(x))

    def begin(self, x: Tensor) -> list[Tensor]:
        """Run the 1x1 convolutions that three branches begin with: (N, inputs, H, W) -> three maps, before the ReLU."""
        firsts = (self.one, self.three_reduce, self.five_reduce)
        return [first.linear(x) if isinstance(first, ConvReLU) else x for first in firsts]

    def finish(self, x: Tensor, begun: Sequence[Tensor]) -> Tensor:
        """Run the rest of the module: the input and what `begin` made of it -> (N, self.outputs, H, W)."""
        one, three, five = (F.relu(branch) for branch in begun)
        pooled = F.max_pool2d(x, 3, stride=1, padding=1, ceil_mode=True)
        return torch.cat([one, self.three(three), self.five(five), self.pool(pooled)], dim=1)


class AuxiliaryClassifier(nn.Module):
    """Classifier on an intermediate module, for training only: (N, C, 14, 14) -> (N, classes) logits."""

    def __init__(self, inputs: int, classes: int, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.batch_norm = batch_norm
        self.conv = ConvReLU(inputs, 128, 1, batch_norm=batch_norm)
        self.hidden = nn.Linear(2048, 1024)
        self.classifier = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        # The paper averages 5x5 windows with stride 3; torchvision adapts to 4x4, which overlaps differently.
        x = F.adaptive_avg_pool2d(x, 4) if self.batch_norm else F.avg_pool2d(x, 5, 3)
        x = F.relu(self.hidden(self.conv(x).flatten(1)))
        return self.classifier(F.dropout(x, 0.7, self.training))


class GoogLeNet(nn.Module):
    """GoogLeNet: (N, 3, 224, 224) -> (N, classes) logits.

    Parameters
    ----------
    classes : int
        Number of classes of the classifier.
    batch_norm : bool
        False: as published; the input is BGR, 0..255, minus the mean (104, 117, 123). True: torchvision's
        form; the input is RGB in [0, 1], normalised as its weights say.
    auxiliary : bool
        Two auxiliary classifiers (on 4a and 4d). In training mode ``forward`` then returns
        ``(logits, logits of 4a, logits of 4d)``; the paper adds their losses with weight 0.3.
    naive : bool
        Naive Inception modules, see `Inception`.

    References
    ----------
    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 5.

    Examples
    --------
    >>> network = GoogLeNet(classes=10).eval()
    >>> network(torch.zeros(1, 3, 224, 224)).shape
    torch.Size([1, 10])
    >>> sum(p.numel() for p in GoogLeNet().parameters())
    6998552
    """

    inception_3a: Inception
    inception_3b: Inception
    inception_4a: Inception
    inception_4b: Inception
    inception_4c: Inception
    inception_4d: Inception
    inception_4e: Inception
    inception_5a: Inception
    inception_5b: Inception

    def __init__(
        self, classes: int = 1000, *, batch_norm: bool = False, auxiliary: bool = False, naive: bool = False
    ) -> None:
        super().__init__()
        self.batch_norm = batch_norm
        self.conv1 = ConvReLU(3, 64, 7, stride=2, padding=3, batch_norm=batch_norm)
        self.norm1 = nn.Identity() if batch_norm else LocalResponseNorm(64)
        self.conv2_reduce = ConvReLU(64, 64, 1, batch_norm=batch_norm)
        self.conv2 = ConvReLU(64, 192, 3, padding=1, batch_norm=batch_norm)
        self.norm2 = nn.Identity() if batch_norm else LocalResponseNorm(192)
        channels = 192
        module_outputs = {}
        for name, widths in INCEPTION_WIDTHS.items():
            module = Inception(channels, widths, batch_norm=batch_norm, naive=naive)
            self.add_module(f"inception_{name}", module)
            module_outputs[name] = channels = module.outputs
        self.auxiliary_4a = self.auxiliary_4d = None
        if auxiliary:
            self.auxiliary_4a = AuxiliaryClassifier(module_outputs["4a"], classes, batch_norm=batch_norm)
            self.auxiliary_4d = AuxiliaryClassifier(module_outputs["4d"], classes, batch_norm=batch_norm)
        self.dropout = nn.Dropout(0.2 if batch_norm else 0.4)
        self.classifier = nn.Linear(channels, classes)

    def stem(self, x: Tensor) -> Tensor:
        """Layers before the first Inception module: (N, 3, H, W) -> (N, 192, ~H/8, ~W/8)."""
        x = self.norm1(F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True))
        x = self.norm2(self.conv2(self.conv2_reduce(x)))
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def modules_3a_to_3b(self, x: Tensor) -> Tensor:
        """(N, 192, H, W) -> (N, 480, H, W)."""
        return self.inception_3b(self.inception_3a(x))

    def module_4a(self, x: Tensor) -> Tensor:
        """(N, 480, H, W) -> (N, 512, ~H/2, ~W/2)."""
        return self.inception_4a(F.max_pool2d(x, 3, 2, ceil_mode=True))

    def modules_4b_to_4d(self, x: Tensor) -> Tensor:
        """(N, 512, H, W) -> (N, 528, H, W)."""
        return self.inception_4d(self.inception_4c(self.inception_4b(x)))

    def trunk(self, x: Tensor) -> Tensor:
        """Layers up to inception 4e, which run once for a picture: (N, 3, H, W) -> (N, 832, ~H/16, ~W/16)."""
        return self.trunk_levels(x)[1]

    def trunk_levels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the outputs of 3b and of the trunk: (N, 3, H, W) -> (N, 480, ~H/8, ~W/8), (N, 832, ~H/16, ~W/16)."""
        x3b = self.modules_3a_to_3b(self.stem(x))
        return x3b, self.inception_4e(self.modules_4b_to_4d(self.module_4a(x3b)))

    def top(self, x: Tensor) -> Tensor:
        """Inception 5a and 5b, which run once for each region: (N, 832, h, w) -> (N, 1024, h, w)."""
        return self.inception_5b(self.inception_5a(x))

    def features(self, x: Tensor) -> Tensor:
        """Average of the last module's maps: (N, 3, 224, 224) -> (N, 1024)."""
        return self._average_top(self.trunk(x))

    def _average_top(self, x: Tensor) -> Tensor:
        size = 2 if self.batch_norm else 3
        return self.top(F.max_pool2d(x, size, 2, ceil_mode=True)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) -> (N, classes) logits; see the class for training with auxiliary classifiers."""
        x4a = self.module_4a(self.modules_3a_to_3b(self.stem(x)))
        x4d = self.modules_4b_to_4d(x4a)
        logits = self.classifier(self.dropout(self._average_top(self.inception_4e(x4d))))
        if self.training and self.auxiliary_4a is not None and self.auxiliary_4d is not None:
            return logits, self.auxiliary_4a(x4a), self.auxiliary_4d(x4d)
        return logits


# Layers of BVLC's network -> ours.
_CAFFE_LAYERS = {
    "conv1_7x7_s2": "conv1.conv", "conv2_3x3_reduce": "conv2_reduce.conv", "conv2_3x3": "conv2.conv",
    "loss3_classifier": "classifier",
} | {
    f"inception_{module}_{theirs}": f"inception_{module}.{ours}.conv"
    for module in INCEPTION_WIDTHS
    for theirs, ours in [
        ("1x1", "one"), ("3x3_reduce", "three_reduce"), ("3x3", "three"),
        ("5x5_reduce", "five_reduce"), ("5x5", "five"), ("pool_proj", "pool"),
    ]
} | {
    f"{loss}_{theirs}": f"auxiliary_{module}.{ours}"
    for loss, module in [("loss1", "4a"), ("loss2", "4d")]
    for theirs, ours in [("conv", "conv.conv"), ("fc", "hidden"), ("classifier", "classifier")]
}  # fmt: skip


def state_from_caffe(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Turn the arrays of the published Caffe network into a state dict of ``GoogLeNet()``.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        ``<layer>.weight`` and ``<layer>.bias`` of any float type, layers named as in BVLC's
        ``bvlc_googlenet`` prototxt (a ``/`` in a name may also be a ``_``).

    Returns
    -------
    dict of str to Tensor
        float32, for ``GoogLeNet.load_state_dict``.

    Raises
    ------
    ValueError
        If a layer's name is not one of the network's.
    """
    state = {}
    for key, array in arrays.items():
        layer, _, kind = key.replace("/", "_").rpartition(".")
        if layer not in _CAFFE_LAYERS:
            raise ValueError(f"{key!r} is not a layer of BVLC's GoogLeNet")
        # A copy: arrays that were read from a file are read-only, which torch complains of.
        state[f"{_CAFFE_LAYERS[layer]}.{kind}"] = torch.from_numpy(np.array(array, dtype=np.float32))
    return state


def state_to_caffe(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Turn a state dict of ``GoogLeNet()`` into the arrays of the published Caffe network; undoes `state_from_caffe`.

    Parameters
    ----------
    state : mapping of str to Tensor
        Of the form without batch norm; with or without the auxiliary classifiers.

    Returns
    -------
    dict of str to ndarray
        ``<layer>.weight`` and ``<layer>.bias`` of the tensors' type.

    Raises
    ------
    ValueError
        If a key is not one of that form's.

    Examples
    --------
    >>> arrays = state_to_caffe(GoogLeNet(classes=10).state_dict())
    >>> arrays["inception_3a_5x5_reduce.weight"].shape, arrays["loss3_classifier.bias"].shape
    ((16, 192, 1, 1), (10,))
    """
    theirs = {ours: layer for layer, ours in _CAFFE_LAYERS.items()}
    arrays = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        if layer not in theirs:
            raise ValueError(f"{key!r} is not a layer that BVLC's GoogLeNet has")
        arrays[f"{theirs[layer]}.{kind}"] = value.detach().cpu().numpy()
    return arrays


_TORCHVISION_PREFIXES = [
    ("conv1", "conv1"), ("conv2", "conv2_reduce"), ("conv3", "conv2"), ("fc", "classifier"),
    ("aux1.conv", "auxiliary_4a.conv"), ("aux1.fc1", "auxiliary_4a.hidden"), ("aux1.fc2", "auxiliary_4a.classifier"),
    ("aux2.conv", "auxiliary_4d.conv"), ("aux2.fc1", "auxiliary_4d.hidden"), ("aux2.fc2", "auxiliary_4d.classifier"),
] + [
    (f"inception{module}.{theirs}", f"inception_{module}.{ours}")
    for module in INCEPTION_WIDTHS
    for theirs, ours in [
        ("branch1", "one"), ("branch2.0", "three_reduce"), ("branch2.1", "three"),
        ("branch3.0", "five_reduce"), ("branch3.1", "five"), ("branch4.1", "pool"),
    ]
]  # fmt: skip


def state_from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the state dict of ``torchvision.models.googlenet`` to ``GoogLeNet(batch_norm=True)``'s names.

    Parameters
    ----------
    state : mapping of str to Tensor
        As read from ``googlenet-1378be20.pth``; with or without the auxiliary classifiers.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    ValueError
        If a key is not one of torchvision's.
    """
    renamed = {}
    for key, value in state.items():
        for theirs, ours in _TORCHVISION_PREFIXES:
            if key.startswith(theirs + "."):
                renamed[ours + key[len(theirs) :].replace(".bn.", ".norm.")] = value
                break
        else:
            raise ValueError(f"{key!r} is not a layer of torchvision's GoogLeNet")
    return renamed
