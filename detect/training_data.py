"""What training reads: folders of labelled pictures in any known layout, and their proposals, computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data import COCO_TO_VOC, AnnotationError, Picture, atomic_write, read_coco, read_image, read_voc
from ..data.parallel import ProcessDied, map_processes
from ..proposals import Proposer, compile_kernels

__all__ = ["ProposalCache", "read_labelled_folder", "split_validation"]


def read_labelled_folder(folder: Path, classes: Sequence[str]) -> list[Picture]:
    """Read every labelled picture for training below a folder, in VOC or COCO layout.

    Parameters
    ----------
    folder : Path
        VOC: has ``ImageSets/Main/trainval.txt``. COCO: has ``annotations.json`` or
        ``annotations/instances_*train*.json``, and ``images/`` or ``train2017/``.
    classes : sequence of str
        Objects of other classes are left out.

    Returns
    -------
    list of Picture

    Raises
    ------
    AnnotationError
        If the folder is in neither layout.
    """
    if (folder / "ImageSets" / "Main" / "trainval.txt").is_file():
        return read_voc(folder, "trainval", classes)
    files = [folder / "annotations.json", *sorted(folder.glob("annotations/instances_*train*.json"))]
    roots = [root for root in (folder / "images", folder / "train2017") if root.is_dir()]
    pictures: list[Picture] = []
    for file in files:
        if file.is_file() and roots:
            pictures += read_coco(file, roots[0], classes, rename=COCO_TO_VOC)
    if not pictures:
        raise AnnotationError(
            f"{folder}: neither VOC layout (ImageSets/Main/trainval.txt) nor COCO layout (annotations.json or "
            "annotations/instances_*train*.json, with images/); name a folder that has one of them"
        )
    return pictures


def split_validation(pictures: Iterable[Picture], one_in: int = 30) -> tuple[list[Picture], list[Picture]]:
    """Set aside one exhaustively labelled picture in `one_in` for tuning, by a hash of its name.

    The same pictures on every machine and whatever else is trained on.

    Returns
    -------
    training, validation : list of Picture
    """
    training: list[Picture] = []
    validation: list[Picture] = []
    for picture in pictures:
        digest = hashlib.sha256(picture.image_id.encode()).digest()
        aside = picture.labelled is None and int.from_bytes(digest[:4], "big") % one_in == 0
        (validation if aside else training).append(picture)
    return training, validation


class ProposalCache:
    """Proposals of pictures, kept in a folder: ``cache(picture)`` -> boxes (N, 4) float32.

    Parameters
    ----------
    folder : Path
        Made if it does not exist. One file a picture, named by a hash of its path, size and time of change and of
        the proposer's settings, so that a changed picture is computed anew.
    proposer : SelectiveSearch or MergedProposals
    """

    def __init__(self, folder: Path, proposer: Proposer) -> None:
        self.folder = folder
        self.proposer = proposer
        self.settings = json.dumps(dict(proposer.settings), sort_keys=True, default=repr)
        folder.mkdir(parents=True, exist_ok=True)

    def _file(self, picture: Picture) -> Path:
        status = picture.path.stat()
        key = f"{picture.path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{self.settings}"
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.boxes"

    def __call__(self, picture: Picture) -> NDArray[np.float32]:
        """Boxes (N, 4) float32 of a picture, best first, from the folder or computed now."""
        file = self._file(picture)
        if not file.exists():
            boxes, _ = self.proposer(read_image(picture.path))
            atomic_write(file, boxes.astype("<f4").tobytes())
        return np.frombuffer(file.read_bytes(), dtype="<f4").reshape(-1, 4)

    def fill(self, pictures: Sequence[Picture], workers: int, report: Callable[[int], None] = lambda n: None) -> None:
        """Compute what is missing, in `workers` processes; `report` gets the number done."""
        missing = [picture for picture in pictures if not self._file(picture).exists()]
        done = len(pictures) - len(missing)
        report(done)
        compile_kernels()
        for _, result in map_processes(self._touch, missing, workers):
            if isinstance(result, ProcessDied):
                raise result
            done += 1
            report(done)

    def _touch(self, picture: Picture) -> None:
        self(picture)
