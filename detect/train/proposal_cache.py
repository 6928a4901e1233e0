"""Proposals of training pictures, computed once and kept in files."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data import MAX_PIXELS, ImageError, Picture, atomic_write
from ...data.arguments import settings_as_json
from ...data.system.kernels import compile_all
from ...data.system.processes import ProcessDied, map_processes
from ...proposals import Proposer
from ...proposals.proposer import propose_boxes
from .shards import has_packed_proposals, picture_bytes, read_packed_proposals, read_pixels


class ProposalCache:
    """Proposals of pictures, kept in a folder: ``cache(picture)`` -> boxes (N, 4), objectness (N,) or None.

    Parameters
    ----------
    folder : Path
        Made if it does not exist. It has a file for each picture, named by a hash of the picture's file and of the
        proposer's settings: proposals of a changed picture are computed anew, those of a moved or copied one are not.
        Proposals that were packed with a picture need no file.
    proposer : Proposer
    objectness : bool
        Whether the proposer's scores are probabilities of an object, see `Proposer.has_objectness`.
    max_pixels : int
        See `inception_rcnn.data.read_image`.
    """

    def __init__(
        self, folder: Path, proposer: Proposer, *, objectness: bool = False, max_pixels: int = MAX_PIXELS
    ) -> None:
        self.folder = folder
        self.proposer = proposer
        self.settings = settings_as_json("proposer", dict(proposer.settings))
        self.objectness, self.max_pixels = objectness, max_pixels
        folder.mkdir(parents=True, exist_ok=True)

    def _file(self, picture: Picture) -> Path:
        key = picture_bytes(picture) + self.settings.encode()
        return self.folder / f"{hashlib.sha256(key).hexdigest()[:32]}.ranked"

    def __call__(self, picture: Picture) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return the proposals of a picture, best first, from the folder or computed now.

        Boxes (N, 4) float32, and the probability that each is an object (N,) float32, or None.
        """
        if picture.packed is not None and (packed := read_packed_proposals(picture.packed, self.settings)) is not None:
            return packed[0], packed[1] if self.objectness else None
        file = self._file(picture)
        if not file.exists():
            image = read_pixels(picture, self.max_pixels)
            boxes, scores = propose_boxes(self.proposer, image, picture.path.name)
            atomic_write(file, np.concatenate([boxes, scores[:, None]], axis=1).astype("<f4").tobytes())
        rows = np.frombuffer(file.read_bytes(), dtype="<f4").reshape(-1, 5)
        return rows[:, :4], rows[:, 4] if self.objectness else None

    def fill(self, pictures: Sequence[Picture], workers: int, report: Callable[[int], None] = lambda n: None) -> None:
        """Compute the proposals that are missing, in `workers` processes; `report` gets the number of pictures done."""
        missing = [picture for picture in pictures if not self._has(picture)]
        done = len(pictures) - len(missing)
        report(done)
        compile_all(*getattr(self.proposer, "kernels", ()))
        for picture, result in map_processes(self._touch, missing, workers):
            if isinstance(result, ProcessDied):
                raise ImageError(f"{picture.path}: a process ended while it proposed boxes there; remove the picture")
            done += 1
            report(done)

    def _has(self, picture: Picture) -> bool:
        packed = picture.packed is not None and has_packed_proposals(picture.packed, self.settings)
        return packed or self._file(picture).exists()

    def _touch(self, picture: Picture) -> None:
        self(picture)
