"""A proposer of boxes in a file that another program computed: the original selective search, EdgeBoxes, an RPN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data import Proposals, clip_boxes, read_proposals
from ..data.errors import ProposalFileError
from ..data.picture_names import as_text, forward_slashes, picture_name, without_folders
from ..data.proposals import name_as_number
from ..data.system.atomic_files import hash_file
from .proposer import Ranked, check_limit

if TYPE_CHECKING:
    from ..backbone.regions.features import PictureFeatures


@dataclass(frozen=True)
class FileProposals:
    """Proposes the boxes that a file has for a picture's name; see `Proposer`.

    Names are compared without suffixes, because ``.mat`` and ``.pkl`` files hold ids such as ``000005``. Folders are
    compared only if the file has several pictures of that name. An id that is a whole number, such as 12, is that of
    the picture 000012 if the file has no other boxes for it.

    Parameters
    ----------
    path : Path
        The file's path, for errors.
    sha256 : str
        SHA-256 of the file, for `settings`.
    limit : int, optional
        Return at most this many boxes of a picture, the best.
    pictures : dict of str to list of Proposals
        Boxes of the pictures, by name without folders and suffix.

    Examples
    --------
    >>> import tempfile
    >>> from inception_rcnn.data import write_proposals
    >>> boxes, scores = np.array([[0, 0, 20, 10], [3, 3, 9, 9]], np.float32), np.array([2, 1], np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_proposals(f"{folder}/boxes.mat", [Proposals("train/000005.jpg", 20, 10, boxes, scores)])
    ...     proposer = FileProposals.load(f"{folder}/boxes.mat", limit=1)
    >>> proposer(np.zeros((10, 20, 3), np.uint8), "train/000005.jpg")[0].tolist()
    [[0.0, 0.0, 20.0, 10.0]]
    """

    path: Path
    sha256: str
    limit: int | None = None
    pictures: dict[str, list[Proposals]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        vars(self).update(limit=check_limit(self.limit))

    @classmethod
    def load(cls, path: str | Path, *, limit: int | None = None) -> FileProposals:
        """Read a file of proposals.

        Parameters
        ----------
        path : str or Path
            In any of the formats that `inception_rcnn.data.read_proposals` reads: ``.mat`` of Fast R-CNN, ``.pkl`` of
            Detectron, ``.parquet``, ``.json`` or ``.npz``.
        limit : int, optional
            Keep at most this many boxes of a picture, the best. They need 20 bytes of memory each.

        Raises
        ------
        ProposalFileError
            If the file is missing or malformed.
        """
        path = Path(path)
        pictures: dict[str, list[Proposals]] = {}
        for one in read_proposals(path):
            kept = one._replace(boxes=one.boxes[:limit].copy(), scores=one.scores[:limit].copy())
            pictures.setdefault(without_folders(picture_name(one.file)), []).append(kept)
        return cls(path, hash_file(path), limit, pictures)

    @property
    def settings(self) -> dict[str, Any]:
        """All that the boxes depend on."""
        return {"proposals": self.sha256, "limit": self.limit}

    def __call__(self, image: NDArray[np.uint8], name: str | None = None) -> Ranked:
        """Return the boxes (N, 4) and scores (N,) of the picture of that name, best first.

        Raises
        ------
        ProposalFileError
            If no name is given, the file has no boxes or several lists of boxes for it, or they are for a picture of
            another size.
        """
        if name is None:
            raise ProposalFileError(f"{self.path}: its boxes are found by the picture's name; give the name")
        found = self._find(name)
        height, width = image.shape[:2]
        if found.width and (found.width, found.height) != (width, height):
            raise ProposalFileError(
                f"{self.path}: has boxes for {found.file!r} at {found.width} x {found.height} pixels, and the picture "
                f"{name!r} has {width} x {height}; compute them anew"
            )
        boxes = clip_boxes(found.boxes, width, height)
        large = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
        return boxes[large][: self.limit], found.scores[large][: self.limit]

    def _find(self, name: str) -> Proposals:
        name = as_text(name)
        key = without_folders(picture_name(name))
        # Public .pkl files have 12 as the id of 000012. A name with a suffix is no such number.
        number = str(name_as_number(name))
        candidates = self.pictures.get(key) or [one for one in self.pictures.get(number, []) if one.file == number]
        # The same name, the same but for the suffix, or the same but for the folders.
        for found in (
            [one for one in candidates if forward_slashes(one.file) == forward_slashes(name)],
            [one for one in candidates if picture_name(one.file) == picture_name(name)],
            candidates,
        ):
            if len(found) == 1:
                return found[0]
        problem = f"several names that may be {name!r}" if candidates else f"no boxes for {name!r}"
        there = f", such as {candidates[0].file!r} and {candidates[1].file!r}" if candidates else ""
        raise ProposalFileError(f"{self.path}: has {problem}{there}; name pictures as the file does")

    def search(self, image: NDArray[np.uint8], name: str | None = None) -> Ranked:
        """Return the boxes of the file; see `Proposer`."""
        return self(image, name)

    def propose(self, features: PictureFeatures, searched: Ranked | None = None, name: str | None = None) -> Ranked:
        """Return the result of `search`; see `Proposer`."""
        return searched or self(features.image, name)

    def has_objectness(self, classes: Sequence[str]) -> bool:
        """Return False: a file does not say whether its scores are probabilities."""
        return False
