"""Pictures with their proposals for a training loop in PyTorch: what is done to a picture is done to its boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import ImageError, find_images, read_image, read_proposals
from ..data.errors import ProposalFileError, SettingError, needs_packages
from .proposer import Ranked, check_limit

if TYPE_CHECKING:
    from torch import Tensor


class ProposalDataset:
    """A data set for `torch.utils.data.DataLoader`: pictures with the boxes of a file, or computed as they are read.

    Parameters
    ----------
    folder : str or Path
        Folder of the pictures, with all folders inside.
    proposals : str, Path, or callable
        A file of `inception-rcnn propose`, whose pictures these are; or what proposes boxes of a picture (H, W, 3),
        such as `SelectiveSearch`. A file is read whole, 20 bytes a box.
    transform : callable, optional
        Gets a picture and a dict, see below, and returns both: transforms of ``torchvision.transforms.v2``, which
        flip, crop and resize boxes with their picture.
    limit : int, optional
        Keep at most this many boxes of a picture, the best.

    Raises
    ------
    ProposalFileError
        If the file is missing or malformed, or does not tell the files of the pictures (``.mat``, ``.pkl``).
    ImageError
        If there is no picture in the folder; from an item, if its picture cannot be read.
    MissingPackageError
        From an item, if torchvision is not there.

    Notes
    -----
    An item is a picture, ``torchvision.tv_tensors.Image`` (3, H, W) of uint8, and a dict: ``"boxes"``,
    ``tv_tensors.BoundingBoxes`` (N, 4) x1 y1 x2 y2 in pixels of the picture as it is returned; ``"scores"``, float32
    (N,); ``"file"``, its name below the folder. After a transform boxes are clipped to the picture, and those under a
    pixel wide or high, of which nothing is left in it, are dropped with their scores.

    Examples
    --------
    >>> import tempfile
    >>> import cv2
    >>> from inception_rcnn.proposals import SelectiveSearch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = cv2.imwrite(f"{folder}/a.png", np.zeros((20, 30, 3), np.uint8))
    ...     dataset = ProposalDataset(folder, SelectiveSearch("single"))
    ...     image, target = dataset[0]
    >>> len(dataset), tuple(image.shape), target["boxes"].tolist(), target["file"]
    (1, (3, 20, 30), [[0.0, 0.0, 30.0, 20.0]], 'a.png')
    """

    def __init__(
        self,
        folder: str | Path,
        proposals: str | Path | Callable[[Any], Ranked],
        transform: Callable[[Any, dict[str, Any]], tuple[Any, dict[str, Any]]] | None = None,
        *,
        limit: int | None = None,
    ) -> None:
        self.folder, self.transform, self.limit = Path(folder), transform, check_limit(limit)
        self.propose = proposals if callable(proposals) else None
        if self.propose is not None:
            self.files = [Path(path).relative_to(self.folder).as_posix() for path in find_images(self.folder)]
            if not self.files:
                raise ImageError(f"{self.folder}: no pictures there; name the folder that they are in")
            return
        path = Path(str(proposals))
        entries = [(one.file, one.boxes[: self.limit], one.scores[: self.limit]) for one in read_proposals(path)]
        self.files = [file for file, _, _ in entries]
        # Arrays of all pictures: worker processes share their memory, which they would not with an object a picture.
        self.ends = np.cumsum([0, *(len(boxes) for _, boxes, _ in entries)])
        self.boxes = np.concatenate([np.zeros((0, 4), np.float32), *(boxes for _, boxes, _ in entries)])
        self.scores = np.concatenate([np.zeros(0, np.float32), *(scores for _, _, scores in entries)])
        if self.files and not (self.folder / self.files[0]).is_file():
            raise ProposalFileError(
                f"{path}: its picture {self.files[0]!r} is not in {self.folder}; name the folder that `propose` was "
                "given (.mat and .pkl do not keep names of files: use .parquet)"
            )

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        """Return a picture and its boxes, scores and file."""
        with needs_packages("ProposalDataset", "train"):
            import torch
            from torchvision import tv_tensors
            from torchvision.transforms.v2 import functional

        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        pixels = read_image(self.folder / self.files[index])
        if self.propose is not None:
            boxes, scores = self.propose(pixels)
            boxes, scores = boxes[: self.limit], scores[: self.limit]
        else:
            own = slice(self.ends[index], self.ends[index + 1])
            boxes, scores = self.boxes[own], self.scores[own]
        image: Any = tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))))
        form: Any = {"format": "XYXY", "canvas_size": pixels.shape[:2]}
        target: dict[str, Any] = {
            "boxes": tv_tensors.BoundingBoxes(torch.tensor(boxes), **form),
            "scores": torch.tensor(scores),
            "file": self.files[index],
        }
        if self.transform is None:
            return image, target
        image, target = self.transform(image, target)
        if not isinstance(target.get("boxes"), tv_tensors.BoundingBoxes):
            raise SettingError("transform: returns boxes of another type; use those of torchvision.transforms.v2")
        moved = functional.clamp_bounding_boxes(target["boxes"])
        kept = ((moved[:, 2:] - moved[:, :2]) >= 1).all(1)
        target["boxes"] = tv_tensors.wrap(moved[kept], like=moved)
        if len(target["scores"]) == len(kept):
            target["scores"] = target["scores"][kept]
        return image, target
