"""Training of GoogLeNet as a classifier, on folders of classes as ImageNet has them.

The recipe of Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6: auxiliary classifiers, crops of
every size, momentum SGD.
"""

import hashlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbone.googlenet import GoogLeNet, state_to_caffe
from ...data import ImageError, atomic_write
from ...data.formats.imagenet import Sample
from .checkpoint import weights_hash
from .device import mixed_precision
from .loop import NOTHING_KEPT, Order, RunSettings, Schedule, TrainingLoop
from .recipes import ClassifierRecipe
from .validation import crops_to_input, measure_errors, read_crop, readable_crops

# The smallest and the largest patch that is cut out of a picture, as shares of its area.
PATCH_AREA = (0.08, 1.0)
LARGEST_ASPECT = 4 / 3
INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC)


def draw_patch(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a patch with 8 to 100 % of a picture's area and an aspect ratio of 3/4 to 4/3.

    Parameters
    ----------
    height, width : int
        Of the picture, in pixels.
    rng : numpy.random.Generator

    Returns
    -------
    x, y, w, h : int
        Left and upper side, width and height in pixels. If ten draws do not fit into the picture: the largest patch of
        these aspect ratios in its middle.

    References
    ----------
    Szegedy et al., CVPR 2015, section 6.

    Examples
    --------
    >>> draw_patch(10, 1000, np.random.default_rng(0))
    (493, 0, 13, 10)
    """
    for _ in range(10):
        area = height * width * rng.uniform(*PATCH_AREA)
        aspect = LARGEST_ASPECT ** rng.uniform(-1, 1)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
    w = min(width, max(1, int(height * LARGEST_ASPECT)))
    h = min(height, max(1, int(width * LARGEST_ASPECT)))
    return (width - w) // 2, (height - h) // 2, w, h


def augment_crop(image: NDArray[np.uint8], rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Cut a patch out of a picture, resize it with a drawn interpolation, mirror half of them, change light and colour.

    Brightness, contrast and saturation change by factors of 0.5 to 1.5, in random order.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        RGB.
    rng : numpy.random.Generator
    size : int
        Pixels of the result's sides.

    Returns
    -------
    ndarray, shape (size, size, 3), uint8
        RGB.

    References
    ----------
    Szegedy et al., CVPR 2015, section 6; Howard, "Some Improvements on Deep Convolutional Neural Network Based Image
    Classification", arXiv 1312.5402, section 2.

    Examples
    --------
    >>> augment_crop(np.zeros((60, 80, 3), np.uint8), np.random.default_rng(0), 224).shape
    (224, 224, 3)
    """
    height, width = image.shape[:2]
    x, y, w, h = draw_patch(height, width, rng)
    patch = image[y : y + h, x : x + w]
    crop = cv2.resize(patch, (size, size), interpolation=int(rng.choice(INTERPOLATIONS))).astype(np.float32)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    for change in rng.permutation(3):
        grey = crop @ np.array([0.299, 0.587, 0.114], np.float32)
        # Values that stay: black (brightness), the mean grey (contrast), each pixel's own grey (saturation).
        fixed = (np.float32(0), grey.mean(), grey[:, :, None])[change]
        crop = np.clip(fixed + (crop - fixed) * np.float32(rng.uniform(0.5, 1.5)), 0, 255)
    return np.rint(crop).astype(np.uint8)


def first_weights(network: GoogLeNet, seed: int = 0) -> None:
    """Draw a network's first weights as BVLC's training did.

    With torch's own first weights the activations vanish after so many layers without batch norm.

    Parameters
    ----------
    network : GoogLeNet
        Changed in place.
    seed : int

    References
    ----------
    Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010; Caffe's
    ``bvlc_googlenet/train_val.prototxt``.

    Examples
    --------
    >>> network = GoogLeNet(classes=10)
    >>> first_weights(network)
    >>> network.conv2.conv.bias[0].item(), network.classifier.bias[0].item()
    (0.20000000298023224, 0.0)
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, layer in network.named_modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                bound = math.sqrt(3 / layer.weight[0].numel())
                layer.weight.uniform_(-bound, bound, generator=generator)
                if layer.bias is not None:
                    layer.bias.fill_(0.0 if name.endswith("classifier") else 0.2)


def adopt_weights(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Load the weights that fit a network, and leave its other layers as they are.

    Parameters
    ----------
    network : Module
        Changed in place.
    state : mapping of str to Tensor
        See `inception_rcnn.backbone.weights.published.load_imagenet`.

    Returns
    -------
    list of str
        The other layers: a classifier of other classes, auxiliary classifiers that are not in `state`.

    Examples
    --------
    >>> adopt_weights(GoogLeNet(classes=10), GoogLeNet(classes=11).state_dict())
    ['classifier']
    """
    own = network.state_dict()
    fitting = {name: state[name] for name in own if name in state and state[name].shape == own[name].shape}
    network.load_state_dict(fitting, strict=False)
    return list(dict.fromkeys(name.rpartition(".")[0] for name in own if name not in fitting))


def write_weights(path: Path, network: GoogLeNet) -> None:
    """Write a network's weights as arrays with Caffe's names, which ``train detector --weights`` reads.

    The auxiliary classifiers are left out: only training needs them.

    Parameters
    ----------
    path : Path
        Ends in ``.npz``.
    network : GoogLeNet

    Examples
    --------
    >>> import tempfile
    >>> from inception_rcnn.backbone.weights.published import load_imagenet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_weights(Path(folder, "net.npz"), GoogLeNet(classes=10))
    ...     load_imagenet(Path(folder, "net.npz"))[0]["classifier.weight"].shape
    torch.Size([10, 1024])
    """
    state = {name: value for name, value in network.state_dict().items() if not name.startswith("auxiliary")}
    data = io.BytesIO()
    np.savez(data, **state_to_caffe(state))  # type: ignore[arg-type]
    atomic_write(path, data.getvalue())


def classifier_loss(logits: Tensor | tuple[Tensor, ...], labels: Tensor, auxiliary_weight: float) -> Tensor:
    """Compute the cross-entropy, summed over the pictures, with those of the auxiliary classifiers by their weight.

    Parameters
    ----------
    logits : Tensor, shape (N, C), or tuple of them
        Of the classifier, or of it and the auxiliary ones.
    labels : Tensor, shape (N,), int64
    auxiliary_weight : float

    Returns
    -------
    Tensor
        A scalar.

    References
    ----------
    Szegedy et al., CVPR 2015, section 5.

    Examples
    --------
    >>> logits = torch.zeros(2, 10)
    >>> round(classifier_loss((logits, logits, logits), torch.tensor([3, 4]), 0.3).item() / math.log(10), 4)
    3.2
    """
    main, *auxiliary = (logits,) if isinstance(logits, Tensor) else logits
    loss = F.cross_entropy(main.float(), labels, reduction="sum")
    for other in auxiliary:
        loss = loss + auxiliary_weight * F.cross_entropy(other.float(), labels, reduction="sum")
    return loss


# A crop, or what is wrong with its picture; and its label.
ClassifierExample: TypeAlias = tuple[NDArray[np.uint8] | ImageError, int]


class ClassifierLoader(NamedTuple):
    """Makes examples of pictures, in worker processes too."""

    size: int
    max_pixels: int

    def __call__(self, sample: Sample, rng: np.random.Generator) -> ClassifierExample:
        """Cut a crop out of a picture."""
        path, label = sample
        return read_crop(path, lambda image: augment_crop(image, rng, self.size), self.max_pixels), label


class ClassifierTask:
    """The steps of a classifier's training, see `inception_rcnn.detect.train.loop.Task`.

    Crops are of one size, so a batch goes through as a whole. Dropout needs that too: threads would draw in any order.
    """

    by_picture = False
    averaging = 0.0

    def __init__(
        self,
        network: nn.Module,
        samples: Sequence[Sample],
        validation: Sequence[Sample],
        recipe: ClassifierRecipe,
        run: RunSettings,
        warn: Callable[[str], None],
    ) -> None:
        self.items, self.validation, self.recipe, self.group = samples, validation, recipe, run.group
        self.load = ClassifierLoader(recipe.size, run.max_pixels)
        self.warn, self.warned = warn, set[str]()
        self.paths, self.max_pixels = [path for path, _ in samples], run.max_pixels
        self.settings: dict[str, object] = {
            "pictures": _fingerprint(samples), **asdict(recipe), "start": weights_hash(network),
        }  # fmt: skip
        self.order = Order.shuffled(len(samples), recipe)
        self.modules = network.to(run.group.device).to(memory_format=torch.channels_last).train()
        self.parameters = [*network.parameters()]
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(
            self.parameters, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        if self.recipe.schedule == "step":
            epoch = step * self.recipe.batch // len(self.items)
            return self.recipe.learning_rate * 0.96 ** (epoch // 8)
        return Schedule(self.recipe.learning_rate, self.order.steps).rate(step)

    def warn_once(self, text: str) -> None:
        """Warn of a picture that cannot be read, once."""
        if text not in self.warned:
            self.warned.add(text)
            self.warn(text)

    def loss(self, crops: Sequence[NDArray[np.uint8]], labels: Tensor) -> tuple[Tensor, float]:
        """Compute the loss of some crops, summed, and count those that are classified wrong."""
        with mixed_precision(self.group.device):
            logits = self.modules(crops_to_input(crops, self.group.device))
        main = logits if isinstance(logits, Tensor) else logits[0]
        loss = classifier_loss(logits, labels, self.recipe.auxiliary_weight)
        return loss, (main.argmax(1) != labels).sum().item()

    def gradients(
        self, batch: Sequence[list[ClassifierExample]], pool: Executor
    ) -> tuple[Sequence[Tensor], NDArray[np.float64]]:
        """Compute gradients of the summed loss.

        The figures are the loss, and the numbers of crops that are classified wrong, of all crops, and of pictures that
        cannot be read.
        """
        (examples,) = batch
        crops, labels = readable_crops(examples, self.warn_once)
        if not crops:
            return [torch.zeros_like(parameter) for parameter in self.parameters], np.array([0.0, 0, 0, len(examples)])
        loss, wrong = self.loss(crops, labels.to(self.group.device))
        gradients = torch.autograd.grad(loss, self.parameters)
        return gradients, np.array([loss.item(), wrong, len(crops), len(examples) - len(crops)])

    def divisor(self, figures: Tensor) -> float:
        """Return the number of crops."""
        return float(figures[2])

    def row(self, figures: NDArray[np.float64]) -> dict[str, float]:
        """Return the mean loss, the share that is classified wrong, and how often a picture could not be read."""
        loss, wrong, number, unreadable = figures.sum(0).tolist()
        return {"loss": loss / max(1, number), "training_error": wrong / max(1, number), "unreadable": unreadable}

    def validate(self, row: dict[str, float]) -> None:
        """Add the errors, measured by all processes together, and the number of pictures that cannot be read."""
        if self.validation:
            found = measure_errors(
                self.modules, self.validation, batch=self.recipe.batch, size=self.recipe.size, group=self.group,
                warn=self.warn_once, max_pixels=self.max_pixels,
            )  # fmt: skip
            row |= found | {"unreadable": row["unreadable"] + found["unreadable"]}


def train_classifier(
    network: nn.Module,
    samples: Sequence[Sample],
    validation: Sequence[Sample],
    recipe: ClassifierRecipe,
    *,
    run: RunSettings = NOTHING_KEPT,
    warn: Callable[[str], None] = lambda text: None,
) -> bool:
    """Train a classifier in place.

    Parameters
    ----------
    network : Module
        `GoogLeNet`, with auxiliary classifiers or without, or another that maps (N, 3, size, size), BGR, 0..255, minus
        the mean, to logits (N, C), or a tuple of such in training; with its first weights.
    samples : sequence of (Path, int)
        Pictures to learn from and their classes, see `read_class_folders`.
    validation : sequence of (Path, int)
        To measure errors on after every epoch.
    recipe : ClassifierRecipe
    run : RunSettings
        Its ``report`` gets ``"loss"``, ``"training_error"`` and ``"unreadable"`` too, and at the end of every epoch
        ``"top_1_error"`` and ``"top_5_error"`` of `validation`. ``"unreadable"`` counts how often, since the last row,
        a picture was passed over because it cannot be read. Each process of its ``group`` draws its own dropout.
    warn : callable
        Gets a line for each picture that cannot be read, once, in the process that read it.

    Returns
    -------
    bool
        True if all steps were done, False if the time limit came first.

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    CheckpointError
        If the checkpoint was made with other settings or pictures, or there are fewer pictures than one batch.

    References
    ----------
    Szegedy et al., CVPR 2015, sections 5 and 6.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.png"
    ...     _ = cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
    ...     recipe = ClassifierRecipe(epochs=1, batch=2, size=64)
    ...     train_classifier(GoogLeNet(classes=2), [(path, 0), (path, 1)], [], recipe)
    True
    """
    return TrainingLoop(ClassifierTask(network, samples, validation, recipe, run, warn), run).run()


def _fingerprint(samples: Sequence[Sample]) -> str:
    """Hash the pictures' names, order and classes, but not the folder that has them."""
    digest = hashlib.sha256()
    for path, label in samples:
        digest.update(f"{path.parent.name}/{path.name} {label}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
