"""Training GoogLeNet itself on folders of classes as ImageNet has them: what a detector starts from.

The recipe of Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6: auxiliary classifiers, crops of
every size, momentum SGD. Every step draws from its own seed, dropout too, so that a run that was interrupted and
resumed gives the weights of one that was not.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbone.googlenet import GoogLeNet, state_to_caffe
from ...data import atomic_write
from ...data.errors import SettingError
from ...data.formats.imagenet import Sample
from ...data.system.processes import prefetch, usable_cores
from .checkpoint import begin_at, save_checkpoint, weights_hash
from .loop import SAVE_SECONDS, add_up, bfloat16_is_faster, enough_steps, learning_rate_at, take_step, torch_threads
from .process_group import SINGLE_PROCESS, ProcessGroup
from .validation import crops_to_input, measure_errors, read_crops, reading_threads

AUXILIARY_WEIGHT = 0.3
PATCH_AREA = (0.08, 1.0)
LARGEST_ASPECT = 4 / 3
INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC)


def draw_patch(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a patch of 8 to 100 % of a picture's area, of aspect ratio 3/4 to 4/3.

    Parameters
    ----------
    height, width : int
        Of the picture, in pixels.
    rng : numpy.random.Generator

    Returns
    -------
    x, y, w, h : int
        To the pixel; of a picture so long that such a patch is not found, the largest of that aspect in its middle.

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


def augment_crop(image: NDArray[np.uint8], rng: np.random.Generator, size: int = 224) -> NDArray[np.uint8]:
    """Cut a patch out of a picture, resize it one way or another, mirror every second, distort its light and colour.

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
    >>> augment_crop(np.zeros((60, 80, 3), np.uint8), np.random.default_rng(0)).shape
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
        # What stays as it is: black, or the mean grey, or each pixel's own grey.
        fixed = (np.float32(0), grey.mean(), grey[:, :, None])[change]
        crop = np.clip(fixed + (crop - fixed) * np.float32(rng.uniform(0.5, 1.5)), 0, 255)
    return np.rint(crop).astype(np.uint8)


def first_weights(network: GoogLeNet, seed: int = 0) -> None:
    """Draw a network's first weights, those of BVLC's training.

    torch's own let the signal die out on the way through so many layers without batch norm.

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
    """Give a network the weights that fit it, and leave the other layers as they are.

    Parameters
    ----------
    network : Module
        Changed in place.
    state : mapping of str to Tensor
        See `inception_rcnn.backbone.weights.published.load_imagenet`.

    Returns
    -------
    list of str
        The layers that were left: a classifier of other classes, auxiliary classifiers that are not in `state`.

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
    """Write a network's weights as arrays of Caffe's names, what ``train detector --weights`` reads for example.

    The auxiliary classifiers, which only training needs, are left out.

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


def classifier_loss(logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """Cross-entropy, summed over the pictures; that of auxiliary classifiers weighs 0.3.

    Parameters
    ----------
    logits : Tensor, shape (N, C), or tuple of them
        Of the classifier, or of it and the auxiliary ones.
    labels : Tensor, shape (N,), int64

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
    >>> round(classifier_loss((logits, logits, logits), torch.tensor([3, 4])).item() / math.log(10), 4)
    3.2
    """
    main, *auxiliary = (logits,) if isinstance(logits, Tensor) else logits
    loss = F.cross_entropy(main.float(), labels, reduction="sum")
    for other in auxiliary:
        loss = loss + AUXILIARY_WEIGHT * F.cross_entropy(other.float(), labels, reduction="sum")
    return loss


def stepped_learning_rate(epoch: int, peak: float) -> float:
    """4 % less every 8 epochs (Szegedy et al., CVPR 2015, section 6).

    Examples
    --------
    >>> [stepped_learning_rate(epoch, 1.0) for epoch in (0, 7, 8, 16)]
    [1.0, 1.0, 0.96, 0.9216]
    """
    return peak * 0.96 ** (epoch // 8)


def train_classifier(
    network: nn.Module,
    samples: Sequence[Sample],
    validation: Sequence[Sample] = (),
    *,
    epochs: float = 60.0,
    batch: int = 32,
    learning_rate: float = 0.01,
    schedule: str = "cosine",
    momentum: float = 0.9,
    weight_decay: float = 2e-4,
    size: int = 224,
    seed: int = 0,
    group: ProcessGroup = SINGLE_PROCESS,
    checkpoint: Path | None = None,
    resume: bool = False,
    time_limit: float | None = None,
    report: Callable[[dict[str, float]], None] = lambda row: None,
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
    epochs : float
        Passes over the pictures.
    batch : int
        Pictures a step, of all processes together.
    learning_rate : float
        Its peak.
    schedule : {"cosine", "step"}
        Warm-up and a half cosine, or the paper's: 4 % less every 8 epochs.
    momentum, weight_decay : float
        Of SGD.
    size : int
        Pixels of a crop's sides; auxiliary classifiers need 224.
    seed : int
    group : ProcessGroup
        The device, and the other processes that train with this one; each draws its own dropout. bfloat16 is used
        where it is faster.
    checkpoint : Path, optional
        Where to keep the state, saved every minute and at the end of every epoch by the first process, and read by all.
    resume : bool
        Go on from `checkpoint` if it exists: on a CPU, with as many cores, bit for bit what would have been.
    time_limit : float, optional
        Seconds after which to save and stop.
    report : callable
        Gets, in the first process, ``{"step", "steps", "epoch", "loss", "training_error", "unreadable",
        "learning_rate", "seconds_left"}`` every 50 steps, when time is up and at the end of every epoch, then with
        ``"top_1_error"`` and ``"top_5_error"`` of `validation` too. ``"unreadable"`` counts how often, since the last
        row, a picture was passed over because it cannot be read.
    warn : callable
        Gets one line for every such picture, once, in the process that met it.

    Returns
    -------
    bool
        True if all steps were done, False if `time_limit` came first.

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    CheckpointError
        If `checkpoint` was made with other settings or pictures, or there are fewer pictures than one batch.
    ValueError
        If the schedule is unknown.

    References
    ----------
    Szegedy et al., CVPR 2015, sections 5 and 6. The defaults of `epochs`, `batch` and `learning_rate` are those of
    BVLC's ``quick_solver.prototxt``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.png"
    ...     _ = cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
    ...     train_classifier(GoogLeNet(classes=2), [(path, 0), (path, 1)], epochs=1, batch=2, size=64)
    True
    """
    if schedule not in ("cosine", "step"):
        raise SettingError(f"schedule {schedule!r} is unknown; use cosine or step")
    steps = round(len(samples) * epochs) // batch
    ends = {len(samples) * (epoch + 1) // batch for epoch in range(math.ceil(epochs))} | {steps}
    settings = {
        "pictures": _fingerprint(samples), "epochs": epochs, "batch": batch, "learning_rate": learning_rate,
        "schedule": schedule, "momentum": momentum, "weight_decay": weight_decay, "size": size, "seed": seed,
        "start": weights_hash(network),
    }  # fmt: skip
    enough_steps(range(steps), len(samples), batch)
    device, readers = group.device, reading_threads(group)
    network.to(device).to(memory_format=torch.channels_last).train()
    parameters = list(network.parameters())
    optimizer = torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    start = begin_at(checkpoint, network, optimizer, settings, group, resume=resume)
    began = saved = time.monotonic()
    told: set[str] = set()

    def tell(text: str) -> None:
        if text not in told:
            told.add(text)
            warn(text)

    @functools.lru_cache(2)  # A step can have pictures of two epochs.
    def order(epoch: int) -> NDArray[np.intp]:
        return np.random.default_rng([seed, epoch]).permutation(len(samples))

    def examples(step: int) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64], list[str]]:
        # The slots of a step that are this process's own; a picture's seed does not depend on how many processes.
        slots = range(group.rank, batch, group.world)
        places = (divmod(step * batch + slot, len(samples)) for slot in slots)
        own = [samples[order(epoch)[index]] for epoch, index in places]
        return read_crops(
            own, lambda i, image: augment_crop(image, np.random.default_rng([seed, step, slots[i]]), size)
        )

    # Crops are of one size, so that a batch goes through as a whole: large products, in which threads wait little.
    # Dropout draws in the order of the work, which threads with a share of the pictures each would not keep.
    threads = usable_cores() if device == "cpu" else torch.get_num_threads()
    half = bfloat16_is_faster(device)
    totals = np.zeros(4)
    with (
        torch_threads(threads),
        torch.random.fork_rng([] if device == "cpu" else [device]),
        ThreadPoolExecutor(readers) as reader,
    ):
        for step, future in prefetch(reader, examples, range(start, steps), limit=readers + 3):
            crops, array, errors = future.result()
            for error in errors:
                tell(error)
            if crops:
                labels = torch.from_numpy(array).to(device)
                torch.manual_seed(int(np.random.SeedSequence([seed, step, group.rank]).generate_state(1)[0]))
                with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
                    logits = network(crops_to_input(crops, device))
                loss = classifier_loss(logits, labels)
                gradients = list(torch.autograd.grad(loss, parameters))
                main = logits if isinstance(logits, Tensor) else logits[0]
                figures = [loss.item(), (main.argmax(1) != labels).sum().item()]
            else:
                gradients, figures = [torch.zeros_like(parameter) for parameter in parameters], [0.0, 0.0]
            late = time_limit is not None and time.monotonic() - began > time_limit
            *figures_of_all, any_late = add_up(group, gradients, [*figures, len(crops), len(errors), late])
            if not math.isfinite(figures_of_all[0]):
                raise FloatingPointError(f"the loss is not finite at step {step}; lower the learning rate")
            totals += figures_of_all
            if schedule == "step":
                rate = stepped_learning_rate(step * batch // len(samples), learning_rate)
            else:
                rate = learning_rate_at(step, steps, learning_rate, min(200, steps // 10))
            if number := figures_of_all[2]:  # Without one picture there is nothing to learn.
                take_step(optimizer, parameters, [gradient / number for gradient in gradients], rate)
            done = step + 1
            due = time.monotonic() - saved > SAVE_SECONDS or done in ends or any_late
            if group.rank == 0 and checkpoint is not None and due:
                save_checkpoint(checkpoint, network, optimizer, done, settings)
                saved = time.monotonic()
            if done % 50 == 0 or done in ends or any_late:
                row = {
                    "step": done,
                    "steps": steps,
                    "epoch": epochs * done / steps,
                    "loss": totals[0] / max(1, totals[2]),
                    "training_error": totals[1] / max(1, totals[2]),
                    "unreadable": totals[3],
                    "learning_rate": rate,
                    "seconds_left": (time.monotonic() - began) / (done - start) * (steps - done),
                }
                if done in ends and validation:
                    found = measure_errors(network, validation, batch=batch, size=size, group=group, warn=tell)
                    row |= found | {"unreadable": row["unreadable"] + found["unreadable"]}
                if group.rank == 0:
                    report({name: float(value) for name, value in row.items()})
                totals[:] = 0
            if any_late and done < steps:
                return False
    return True


def _fingerprint(samples: Sequence[Sample]) -> str:
    """Short hash of the pictures' names, order and classes; the folder that has them may move."""
    digest = hashlib.sha256()
    for path, label in samples:
        digest.update(f"{path.parent.name}/{path.name} {label}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
