"""Classification of whole pictures: GoogLeNet's probabilities, averaged over crops of the picture and over networks.

Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 7: 1, 10 or 144 crops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data import IMAGENET_CLASSES
from ..data.errors import ModelError, SettingError
from ..data.images.reading import as_rgb, check_image
from .preprocessing import CROP_SIDE, MEAN_BGR
from .regions.placement import choose_device

if TYPE_CHECKING:
    from .googlenet import GoogLeNet


CROPS = (1, 10, 144)
# Pixels that the short side of a picture is resized to for 1 and 10 crops, and for 144.
SHORT_SIDE = 256
SHORT_SIDES = (256, 288, 320, 352)


def check_crops(number: int) -> None:
    """Refuse a number of crops that is not in `CROPS`.

    Raises
    ------
    SettingError
        If it is not.

    Examples
    --------
    >>> check_crops(10)
    """
    if number not in CROPS:
        raise SettingError(f"crops must be one of {', '.join(map(str, CROPS))}, not {number}")


def _cut_square(image: NDArray[np.uint8], position: float, side: int) -> NDArray[np.uint8]:
    """Cut the largest square out of a picture, and resize it to `side` pixels.

    `position` is 0 for the start of the longer side, 1 for its end. The square is cut before it is resized: a strip of
    one row of pixels, resized first, would become 256 times as wide.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    y, x = (int((length - short) * position) for length in (height, width))
    interpolation = cv2.INTER_AREA if side < short else cv2.INTER_LINEAR
    return cv2.resize(image[y : y + short, x : x + short], (side, side), interpolation=interpolation)  # type: ignore


def _cut_five(square: NDArray[np.uint8], size: int) -> list[NDArray[np.uint8]]:
    """Cut crops of `size` pixels out of a square: its four corners, then its middle."""
    end, middle = len(square) - size, (len(square) - size) // 2
    corners = [(0, 0), (0, end), (end, 0), (end, end), (middle, middle)]
    return [square[y : y + size, x : x + size] for y, x in corners]


def centre_crop(image: NDArray[np.uint8], size: int = CROP_SIDE) -> NDArray[np.uint8]:
    """Resize a picture to a short side of 256 pixels and cut the middle out.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        RGB.
    size : int
        Width and height of the result in pixels; for other sizes than 224 the 256 pixels change in proportion.

    Returns
    -------
    ndarray, shape (size, size, 3), uint8
        RGB.

    Examples
    --------
    >>> centre_crop(np.zeros((60, 80, 3), np.uint8)).shape
    (224, 224, 3)
    """
    return _cut_five(_cut_square(image, 0.5, round(size * SHORT_SIDE / CROP_SIDE)), size)[4]


def cut_crops(image: NDArray[np.uint8], number: int = 1) -> NDArray[np.uint8]:
    """Cut the crops out of a picture that are to be classified.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        RGB.
    number : {1, 10, 144}
        1: the middle of the picture, which is resized to a short side of 256 pixels. 10: of the square in the middle of
        that picture the corners and the middle, and their mirror images (Krizhevsky et al.). 144: short sides of 256,
        288, 320 and 352 pixels; at each the squares at both ends and in the middle; of each square the corners, the
        middle and the whole square; and all mirror images.

    Returns
    -------
    ndarray, shape (number, 224, 224, 3), uint8
        RGB.

    Raises
    ------
    SettingError
        If `number` is not one of these.

    References
    ----------
    Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012, section 4.1;
    Szegedy et al., CVPR 2015, section 7.

    Examples
    --------
    >>> [cut_crops(np.zeros((60, 80, 3), np.uint8), number).shape[0] for number in (1, 10, 144)]
    [1, 10, 144]
    """
    check_crops(number)
    if number == 1:
        return centre_crop(image)[None]
    if number == 10:
        crops = _cut_five(_cut_square(image, 0.5, SHORT_SIDE), CROP_SIDE)
    else:
        crops = []
        for side in SHORT_SIDES:
            for position in (0.0, 0.5, 1.0):
                square = _cut_square(image, position, side)
                crops += [*_cut_five(square, CROP_SIDE), _cut_square(square, 0.0, CROP_SIDE)]
    return np.stack([*crops, *(crop[:, ::-1] for crop in crops)])


class Classifier:
    """Classifies whole pictures: picture -> probability of each class.

    Parameters
    ----------
    networks : sequence of GoogLeNet
        Several form an ensemble: their probabilities are averaged.
    classes : sequence of str
        Their names, in the order of the networks' outputs.
    crops : {1, 10, 144}
        See `cut_crops`.
    device : {"auto", "cpu", "cuda"}

    Raises
    ------
    ModelError
        If the networks differ in their number of classes, or the number of names is another.
    DeviceError
        If the device is not there.
    SettingError
        If the number of crops is not one of these.
    """

    def __init__(
        self, networks: Sequence[GoogLeNet], classes: Sequence[str], *, crops: int = 1, device: str = "auto"
    ) -> None:
        import torch

        check_crops(crops)
        numbers = {network.classifier.out_features for network in networks}
        if numbers != {len(classes)}:
            counts = " and ".join(map(str, sorted(numbers))) or "no"
            raise ModelError(
                f"the networks have {counts} classes, and there are {len(classes)} names; give networks of the same "
                "classes, and their names"
            )
        self.classes, self.crops = tuple(classes), crops
        self.device = choose_device(device)
        self.networks = [
            network.eval().to(torch.device(self.device)).to(memory_format=torch.channels_last) for network in networks
        ]

    @classmethod
    def load(
        cls,
        *models: str | Path,
        classes: Sequence[str] | None = None,
        crops: int = 1,
        device: str = "auto",
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> Classifier:
        """Make a classifier from weights by name or file.

        Parameters
        ----------
        *models : str or Path
            See `weights.published.load_imagenet`; default ``"googlenet-bvlc"``.
        classes : sequence of str, optional
            Names of the classes. By default those that ``inception-rcnn train classifier`` wrote beside the first file,
            and without such a file ImageNet's.
        crops, device
            See the class.
        report : callable
            See `weights.published.fetch`.

        Raises
        ------
        ModelError
            If weights cannot be found, downloaded or read, or do not fit together.
        """
        from .googlenet import GoogLeNet
        from .weights.published import load_imagenet

        networks = []
        for name in models or ("googlenet-bvlc",):
            state, batch_norm = load_imagenet(name, report)
            state = {key: value for key, value in state.items() if not key.startswith("auxiliary")}
            network = GoogLeNet(len(state["classifier.bias"]), batch_norm=batch_norm)
            network.load_state_dict(state, strict=False)
            networks.append(network)
        if classes is None:
            beside = Path(models[0]).with_suffix(".classes.txt") if models else Path()
            if beside.is_file():
                classes = beside.read_text(encoding="utf-8").splitlines()
            else:
                classes = tuple(IMAGENET_CLASSES.values())
        return cls(networks, classes, crops=crops, device=device)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify a picture.

        Parameters
        ----------
        image : ndarray, shape (H, W, 3), uint8
            RGB. Greyscale (H, W) or (H, W, 1) and RGBA (H, W, 4), laid on white, are taken too.

        Returns
        -------
        ndarray, shape (C,), float32
            Probabilities, in the order of `classes`.

        Raises
        ------
        SettingError
            If the picture is not uint8, is empty or has not 1, 3 or 4 channels.
        """
        check_image(image)
        return self.score(cut_crops(as_rgb(image), self.crops))

    def score(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Average the probabilities over crops (N, 224, 224, 3) uint8 RGB and over the networks: (C,) float32."""
        import torch

        from .regions.torch_engine import survive_forks

        survive_forks()
        pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(self.device).permute(0, 3, 1, 2).float()
        half = torch.autocast("cuda", torch.float16) if self.device == "cuda" else nullcontext()
        mean = torch.zeros(len(self.classes), dtype=torch.float64, device=self.device)
        with torch.inference_mode(), half:
            for network in self.networks:
                if network.batch_norm:  # torchvision trained it on RGB from -1 to 1.
                    inputs = pixels / 127.5 - 1
                else:
                    inputs = pixels.flip(1) - torch.from_numpy(MEAN_BGR).to(self.device)[:, None, None]
                inputs = inputs.contiguous(memory_format=torch.channels_last)
                for part in inputs.split(16 if self.device == "cpu" else 256):
                    mean += network(part).double().softmax(1).sum(0)
        mean /= len(crops) * len(self.networks)
        return mean.float().cpu().numpy()
