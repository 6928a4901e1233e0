"""A classifier of pictures as teacher: what regions may show that are of classes without boxes.

ImageNet's classifier knows all of ILSVRC's 200 detection classes, and boxes are known of few. So a detector learns
from boxes where there are some, and elsewhere from what the classifier says of regions that are likely to be objects
(Hoffman et al., "LSDA", NIPS 2014; Redmon and Farhadi, "YOLO9000", CVPR 2017; Gu et al., "ViLD", ICLR 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...backbone.googlenet import GoogLeNet
from ...backbone.regions.network import roi_align
from ...backbone.weights.published import load_imagenet
from ...data import ILSVRC_DET_CLASSES, IMAGENET_CLASSES, TO_ILSVRC_DET
from ...data.classes.spelling import labels_in
from ...data.errors import ModelError, SettingError


def taught_classes(classes: Sequence[str]) -> NDArray[np.int64]:
    """Tell which of the classes to learn each of ImageNet's 1,000 classes is.

    Parameters
    ----------
    classes : sequence of str
        Of ILSVRC's detection challenge by name or WordNet id, of VOC and COCO those that are one of them; and perhaps
        others.

    Returns
    -------
    ndarray, shape (1000,), int64
        Indices into `classes`; -1 for a class of ImageNet that is none of them.

    Examples
    --------
    >>> columns = taught_classes(["zebra", "volleyball", "my cup"])
    >>> [int((columns == i).sum()) for i in range(3)]
    [1, 1, 0]
    """
    detected = dict(zip(ILSVRC_DET_CLASSES, labels_in(ILSVRC_DET_CLASSES, classes).tolist(), strict=True))
    known = TO_ILSVRC_DET["imagenet"]
    return np.array([detected[known[wnid]] if wnid in known else -1 for wnid in IMAGENET_CLASSES])


class Teacher:
    """ImageNet's classifier, asked about regions: ``teacher.reader(picture)(boxes)`` -> probabilities (N, C).

    The picture goes through its trunk once, and RoIAlign reads each region, as in detection.

    Parameters
    ----------
    state : mapping of str to Tensor
        Weights of the classifier, see `load`.
    classes : sequence of str
        The classes to learn; a probability is the sum of those of ImageNet's classes that are one of them.
    device : str

    Raises
    ------
    ModelError
        If the classifier is not one of ImageNet's 1,000 classes.
    SettingError
        If it knows none of the classes.

    Examples
    --------
    >>> teacher = Teacher(GoogLeNet(1000).state_dict(), ["zebra", "volleyball"], "cpu")
    >>> read = teacher.reader(torch.zeros(1, 3, 96, 128))
    >>> read(torch.tensor([[0.0, 0.0, 60.0, 80.0]])).shape
    torch.Size([1, 2])
    """

    def __init__(self, state: Mapping[str, Tensor], classes: Sequence[str], device: str) -> None:
        number = len(state["classifier.bias"])
        if number != len(IMAGENET_CLASSES):
            raise ModelError(f"a teacher knows ImageNet's {len(IMAGENET_CLASSES)} classes, not {number} others")
        columns = taught_classes(classes)
        if (columns < 0).all():
            raise SettingError(
                "the teacher knows none of the classes; it teaches classes of the ILSVRC detection challenge, by name"
            )
        self.network = GoogLeNet(number).eval().requires_grad_(False)
        self.network.load_state_dict({name: state[name] for name in self.network.state_dict()})
        self.network.to(device).to(memory_format=torch.channels_last)
        # (1000, C): a product with it sums the probabilities of the classes that are one.
        sums = np.zeros((number, len(classes)), np.float32)
        sums[columns >= 0, columns[columns >= 0]] = 1
        self.sums = torch.from_numpy(sums).to(device)

    @classmethod
    def load(
        cls,
        weights: str | Path,
        classes: Sequence[str],
        device: str,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> Teacher:
        """Load the weights of a classifier, see `inception_rcnn.backbone.weights.published.load_imagenet`."""
        state, batch_norm = load_imagenet(weights, report)
        if batch_norm:
            raise ModelError(f"{weights}: a teacher has the published form; give BVLC's weights")
        return cls(state, classes, device)

    @torch.no_grad()
    def class_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the classifier's weights (C, 1024) and biases (C,) for the classes, and which it knows (C,).

        Of a class that several of ImageNet's are, their mean. The mean over all of ImageNet's classes, which does not
        matter to a softmax, is taken off, so that a logit of 0 is that of no class.
        """
        numbers = self.sums.sum(0)
        shares = (self.sums / numbers.clamp(min=1)).T.cpu().double()
        layer = self.network.classifier
        # In float64: rounded to float32 the sums are the same on every machine.
        weight, bias = (values.detach().cpu().double() for values in (layer.weight, layer.bias))
        return (
            (shares @ (weight - weight.mean(0))).float(),
            (shares @ (bias - bias.mean())).float(),
            (numbers > 0).cpu(),
        )

    @torch.no_grad()
    def reader(self, picture: Tensor) -> Callable[[Tensor], Tensor]:
        """Return a function of regions (N, 4) of a picture (1, 3, H, W) that returns probabilities (N, C)."""
        features = self.network.trunk(picture)

        @torch.no_grad()
        def read(boxes: Tensor) -> Tensor:
            top = self.network.top(roi_align(features, boxes)).mean((2, 3))
            return self.network.classifier(top).float().softmax(1) @ self.sums

        return read
