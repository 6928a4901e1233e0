"""What a proposer is."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..data.errors import SettingError

Ranked: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]


def check_ranking(limit: int | None, iou: float) -> None:
    """Refuse a number of boxes or a threshold of suppression that is out of range.

    Examples
    --------
    >>> check_ranking(0, 0.5)
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: limit must be at least 1 or None, not 0
    """
    if limit is not None and limit < 1:
        raise SettingError(f"limit must be at least 1 or None, not {limit}")
    if not 0 <= iou <= 1:
        raise SettingError(f"iou must be 0 to 1, not {iou}")


class Proposer(Protocol):
    """What proposes boxes: `SelectiveSearch`, `MultiBox`, both merged."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the boxes depend on."""

    def __call__(self, image: NDArray[np.uint8]) -> Ranked:
        """Picture (H, W, 3) uint8 RGB -> boxes (N, 4) and scores (N,), best first."""
