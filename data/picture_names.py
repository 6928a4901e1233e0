"""Which name means which picture."""

from __future__ import annotations

import os


def without_suffix(file_name: str) -> str:
    """Return the name of a file without its suffix, which is the id of a picture of COCO's."""
    return os.path.splitext(file_name)[0]
