"""Training of a MultiBox: its head only, on the trunk of a detector, or head and trunk.

The loss of Erhan et al., "Scalable Object Detection using Deep Neural Networks", CVPR 2014, on the networks of
`inception_rcnn.proposals.multibox.network`, by AdamW.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...backbone.preprocessing import resize_picture
from ...backbone.regions.network import RegionNetwork
from ...backbone.weights.model_file import in_trunk
from ...data import MAX_PIXELS, Picture
from ...data.picture import fingerprint
from ...eval import evaluate_proposals
from ...proposals import MergedProposals
from ...proposals.calibration import RankingCalibration, fit_calibration
from ...proposals.multibox.loss import picture_loss
from ...proposals.multibox.network import GridHead, VectorHead
from ...proposals.multibox.priors import cluster_boxes, cluster_sides
from .augmentation import augment
from .checkpoint import weights_hash
from .device import mixed_precision
from .loop import NOTHING_KEPT, Order, RunSettings, Schedule, TrainingLoop
from .recipes import Head, MultiBoxRecipe, check_setting
from .shards import read_pixels
from .validation import crops_to_input, propose_all

# Boxes of a picture at which recall is measured.
LIMITS = (50, 200)


def find_priors(
    pictures: Sequence[Picture], *, head: Head, number: int, long_side: int, seed: int
) -> NDArray[np.float32]:
    """Find the priors of a head by clustering the boxes of some pictures' objects.

    Parameters
    ----------
    pictures : sequence of Picture
    head : {"grid", "vector"}
        For `GridHead` or `VectorHead`.
    number : int
        Priors of a cell (grid), or in all (vector).
    long_side : int
        Pixels of the longer side of the pictures as the network gets them.
    seed : int

    Returns
    -------
    ndarray, shape (5, number, 2) or (number, 4), float32
        Widths and heights in pixels (grid), or boxes as shares of the picture's sides (vector).

    Raises
    ------
    UserError
        If there are fewer different boxes than priors.
    SettingError
        If the head is unknown.

    Examples
    --------
    >>> from pathlib import Path
    >>> box, no = np.array([[0, 0, 20, 10]], np.float32), np.array([False])
    >>> picture = Picture("a", Path("a.jpg"), 40, 20, box, np.array([7]), no, no)
    >>> find_priors([picture], head="vector", number=1, long_side=640, seed=0).tolist()
    [[0.0, 0.0, 0.5, 0.5]]
    """
    check_setting("head", head, Head)
    boxes = []
    for picture in pictures:
        size = np.array([picture.width, picture.height] * 2, np.float32)
        scale = np.float32(long_side / max(picture.width, picture.height)) if head == "grid" else 1 / size
        boxes.append(picture.boxes[~picture.crowd] * scale)
    everything = np.concatenate([np.zeros((0, 4), np.float32), *boxes])
    if head == "grid":
        return cluster_sides(everything, each=number, seed=seed)
    return cluster_boxes(everything, number, seed=seed)


class MultiBoxExample(NamedTuple):
    """A picture as the network gets it."""

    image: NDArray[np.uint8]  # (1, h, w, 3) RGB
    picture: Picture  # boxes in its pixels


class MultiBoxLoader(NamedTuple):
    """Makes examples of pictures, in worker processes too."""

    long_sides: Sequence[int]
    max_pixels: int

    def __call__(self, picture: Picture, rng: np.random.Generator) -> MultiBoxExample:
        """Read a picture and augment it."""
        image, nothing = read_pixels(picture, self.max_pixels), np.zeros((0, 4), np.float32)
        image, picture, _ = augment(image, picture, nothing, rng, self.long_sides)
        return MultiBoxExample(resize_picture(image, max(image.shape[:2]))[0][None], picture)


class MultiBoxTask:
    """The steps of a MultiBox's training, see `inception_rcnn.detect.train.loop.Task`."""

    by_picture = True
    averaging = 0.0

    def __init__(
        self,
        head: GridHead | VectorHead,
        trunk: RegionNetwork,
        pictures: Sequence[Picture],
        validation: Sequence[Picture],
        recipe: MultiBoxRecipe,
        run: RunSettings,
    ) -> None:
        self.head, self.trunk, self.recipe, self.group = head, trunk, recipe, run.group
        self.items, self.validation, self.max_pixels = pictures, validation, run.max_pixels
        self.paths = [picture.path for picture in pictures]
        long_sides = [round(recipe.long_side * scale) for scale in recipe.scales]
        self.load = MultiBoxLoader(long_sides, run.max_pixels)
        self.settings: dict[str, object] = {
            "pictures": fingerprint(pictures), **asdict(recipe), "head": weights_hash(head),
            "trunk": weights_hash(trunk), "priors": hashlib.sha256(head.priors.tobytes()).hexdigest()[:16],
            "many": isinstance(head, GridHead),
        }  # fmt: skip
        self.settings["whole"] = self.settings.pop("train_trunk")  # The name that checkpoints have for it.
        self.order = Order.shuffled(len(pictures), recipe)
        trunk.to(run.group.device).to(memory_format=torch.channels_last).eval()
        head.to(run.group.device).to(memory_format=torch.channels_last).train()
        self.modules: nn.Module = nn.ModuleDict({"head": head})
        self.parameters = [*head.parameters()]
        groups: list[dict[str, Any]] = [{"params": [*self.parameters]}]
        if recipe.train_trunk:
            self.modules["trunk"] = trunk
            for name, parameter in trunk.named_parameters():
                parameter.requires_grad_(in_trunk(name) and "inception" in name)
            trained = [parameter for parameter in trunk.parameters() if parameter.requires_grad]
            groups.append({"params": trained, "factor": recipe.trunk_rate})
            self.parameters += trained
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        return Schedule(self.recipe.learning_rate, self.order.steps).rate(step)

    def loss(self, example: MultiBoxExample) -> tuple[Tensor, Tensor, int]:
        """Compute a picture's location and confidence loss, as sums, and the number of matched predictions."""
        with mixed_precision(self.group.device):
            with torch.set_grad_enabled(self.recipe.train_trunk):
                features = self.trunk.trunk(crops_to_input(example.image, self.group.device))
            return picture_loss(self.head, features, example.picture, far_background=self.recipe.far_background)

    def gradients(
        self, batch: Sequence[list[MultiBoxExample]], pool: Executor
    ) -> tuple[Sequence[Tensor], NDArray[np.float64]]:
        """Compute gradients of the summed loss; the figures are the sums of what `loss` returns."""

        def part_gradients(part: list[MultiBoxExample]) -> tuple[list[Tensor], NDArray[np.float64]]:
            total, figures = [torch.zeros_like(parameter) for parameter in self.parameters], np.zeros(3)
            for example in part:
                location, confidence, matched = self.loss(example)
                figures += [location.item(), confidence.item(), matched]
                computed = torch.autograd.grad(location + confidence, self.parameters)
                for one, gradient in zip(total, computed, strict=True):
                    one += gradient
            return total, figures

        gradients, figures = zip(*pool.map(part_gradients, batch), strict=True)
        # Added in a fixed order, so that the sum is the same every time.
        return [functools.reduce(torch.add, some) for some in zip(*gradients, strict=True)], np.sum(figures, axis=0)

    def divisor(self, figures: Tensor) -> float:
        """Return the number of matched predictions, at least 1."""
        return max(1.0, float(figures[2]))

    def row(self, figures: NDArray[np.float64]) -> dict[str, float]:
        """Return the mean losses."""
        location, confidence = (figures[:, :2] / np.maximum(1, figures[:, 2:])).mean(0).tolist()
        return {"location": location, "confidence": confidence}

    def validate(self, row: dict[str, float]) -> None:
        """Add the recall in the first process."""
        if self.group.rank == 0 and self.validation:
            found = propose_all(
                self.head, self.trunk.trunk, self.validation, long_side=self.recipe.long_side, limit=LIMITS[-1],
                device=self.group.device, max_pixels=self.max_pixels,
            )  # fmt: skip
            boxes = {image_id: boxes for image_id, (boxes, _) in found.items()}
            recall = evaluate_proposals(self.validation, boxes, LIMITS)["recall_at"]
            row |= {f"recall_{limit}": share for limit, share in recall.items()}


def train_multibox(
    head: GridHead | VectorHead,
    trunk: RegionNetwork,
    pictures: Sequence[Picture],
    validation: Sequence[Picture],
    recipe: MultiBoxRecipe,
    run: RunSettings = NOTHING_KEPT,
) -> bool:
    """Train a MultiBox head, and its trunk if the recipe says so, in place.

    Parameters
    ----------
    head : GridHead or VectorHead
    trunk : RegionNetwork
        Its method ``trunk`` gives pictures (1, 3, H, W) -> features (1, 832, h, w).
    pictures : sequence of Picture
        To learn from. Difficult objects and crowds count neither as objects nor as background. Pictures where objects
        may be unlabelled (``labelled`` is not None) have no background.
    validation : sequence of Picture
        To measure recall on after every epoch.
    recipe : MultiBoxRecipe
    run : RunSettings
        Its ``report`` gets ``"location"`` and ``"confidence"`` too, and at the end of every epoch ``"recall_50"`` and
        ``"recall_200"``.

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
    Erhan et al., CVPR 2014, section 3; Szegedy et al., arXiv 1412.1441, section 3.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import cv2
    >>> head = GridHead(np.full((2, 1, 2), 40, np.float32), channels=4)
    >>> box, no = np.array([[10, 10, 50, 50]], np.float32), np.array([False])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.png"
    ...     _ = cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
    ...     picture = Picture("a", path, 64, 64, box, np.array([7]), no, no)
    ...     recipe = MultiBoxRecipe(epochs=1, batch=2, scales=(0.1,))
    ...     train_multibox(head, RegionNetwork(20), [picture] * 2, [], recipe)
    True
    """
    return TrainingLoop(MultiBoxTask(head, trunk, pictures, validation, recipe, run), run).run()


def calibrate(
    pictures: Sequence[Picture],
    found: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]],
    max_pixels: int = MAX_PIXELS,
) -> RankingCalibration:
    """Fit how a head's boxes are merged with those of selective search with superpixels twice as large.

    Parameters
    ----------
    pictures : sequence of Picture
        Not trained on. Difficult objects and crowds are left out.
    found : mapping of str to (ndarray, ndarray)
        Boxes and confidences by image id, see `propose_all`.
    max_pixels : int
        See `inception_rcnn.data.read_image`.

    Returns
    -------
    RankingCalibration

    Raises
    ------
    UserError
        See `inception_rcnn.proposals.calibration.fit_calibration`.
    """
    search = MergedProposals.SEARCH
    searched = [search(read_pixels(picture, max_pixels)) for picture in pictures]
    objects = [picture.boxes[~(picture.difficult | picture.crowd)] for picture in pictures]
    return fit_calibration(objects, searched, [found[picture.image_id] for picture in pictures])
