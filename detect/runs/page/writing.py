"""A page of pictures, written as they come: their boxes and small pictures in blocks, never all of them in memory.

Up to `EMBEDDED` pictures, the small pictures are in the page, which then is one file to mail and to keep. Of more
pictures they are files in a folder beside it, which the browser loads when they come into sight. Files of pictures need
nothing that the page's security policy would have to allow to scripts, and nothing else can be loaded by a page that is
opened from the disk.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from ....data import ImageError, atomic_write
from ....data.images.reading import decode_image
from ....data.images.sources import Source
from ....data.system.processes import prefetch, usable_cores
from ....data.system.remote import is_url
from ....eval.report.template import page_environment
from ...drawing import class_colour

EMBEDDED = 1000
_SIDE = 360  # pixels: a row of the gallery is about 190 high, and screens have up to two pixels for one
_QUALITY = 75
_BLOCK = 100  # pictures
_OPENED = ("http://", "https://")  # what browsers open of all URLs
_PLACE = "<!--pictures-->"  # in the template; what is put into it is escaped


class Row(NamedTuple):
    """A picture of a page.

    Attributes
    ----------
    name : str
        As it is shown and exported.
    width, height : int
        In pixels.
    path : Path, str or Member
        The picture.
    runs : sequence of mapping of str to ndarray
        The columns of its boxes in each run: ``boxes`` (N, 4) and what else the page has of them, best first.
    original : str, optional
        The address of the picture below that of all originals, "" for none; by default it follows from the name.
    drawn : sequence of str, optional
        The address of the drawing below that of all drawings in each run, "" for none.
    """

    name: str
    width: int
    height: int
    path: Source
    runs: Sequence[Mapping[str, NDArray[Any]]]
    original: str | None = None
    drawn: Sequence[str] | None = None


def write_page(
    path: Path,
    values: Mapping[str, Any],
    rows: Iterable[Row],
    count: int,
    *,
    max_pixels: int,
) -> None:
    """Write a page of pictures, and where there are many the folder of small pictures beside it.

    Parameters
    ----------
    path : Path
        The page, ``*.html``.
    values : mapping of str to object
        What the template needs. ``page`` is what its scripts need.
    rows : iterable of Row
        The pictures, read once, a few at a time.
    count : int
        How many there are.
    max_pixels : int
        See `inception_rcnn.data.read_image`. A picture that cannot be read is a grey tile.
    """
    folder = thumbnail_folder(path)
    page = {
        "colours": [
            "#{:02x}{:02x}{:02x}".format(*class_colour(label)) for label in range(len(values["page"]["classes"]))
        ],
        "thumbnails": address(folder.name) + "/" if count > EMBEDDED else "",
        **values["page"],
    }
    environment = page_environment(Path(__file__).parent)
    text = environment.get_template("page.html").render({**values, "page": page})
    # File names are bytes to the system: one that is not UTF-8 has no place in a page.
    before, after = (part.encode("utf-8", "replace") for part in text.split(_PLACE))
    remove_thumbnails(folder)
    pictures = _picture_pieces(rows, folder if count > EMBEDDED else None, max_pixels)
    atomic_write(path, (piece for pieces in ([before], pictures, [after]) for piece in pieces))


def thumbnail_folder(path: Path) -> Path:
    """Return the folder of a page's small pictures.

    Examples
    --------
    >>> thumbnail_folder(Path("out/report.html")).name
    'report-thumbnails'
    """
    return path.with_name(f"{path.stem}-thumbnails")


def address(path: str | Path) -> str:
    """Write a path as a part of an address, whatever bytes it has.

    Examples
    --------
    >>> address("a/50 % #1?.jpg")
    'a/50%20%25%20%231%3F.jpg'
    """
    return quote(os.fsencode(path))


def address_between(page: Path, folder: str | Path) -> str:
    """Write the address of a folder as seen from a page, so that both can be moved together.

    Examples
    --------
    >>> address_between(Path("/out/report.html"), "/my photos")
    '../my%20photos/'
    """
    return address(os.path.relpath(folder, page.absolute().parent)) + "/"


def link(page: Path, file: str) -> str:
    """Return the address of a file as seen from a page, "" if no browser can open it from there.

    Examples
    --------
    >>> page = Path("/out/report.html")
    >>> link(page, "/photos/a b.jpg"), link(page, "https://host/a.jpg"), link(page, "s3://bucket/a.jpg")
    ('../photos/a%20b.jpg', 'https://host/a.jpg', '')
    """
    if is_url(file):
        return file if file.startswith(_OPENED) else ""
    # Nothing else tells a picture in a container from a file, or from where a relative name was given.
    if not os.path.lexists(file) and ("::" in file or not os.path.isabs(file)):
        return ""
    return address(os.path.relpath(file, page.absolute().parent))


def remove_thumbnails(folder: Path) -> None:
    """Remove what an earlier page left, and nothing that is not named as it names files."""
    for inner in folder.glob("[0-9]" * 4) if folder.is_dir() else ():
        for file in inner.glob("[0-9]" * 7 + ".jpg"):
            file.unlink()
        if not any(inner.iterdir()):
            inner.rmdir()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _picture_pieces(rows: Iterable[Row], folder: Path | None, max_pixels: int) -> Iterator[bytes]:
    """Yield the blocks of pictures, then what is different about some of them."""
    rest: dict[str, Any] = {"originals": {}, "drawn": [{}, {}]}
    workers = usable_cores()
    block: list[tuple[Row, Any]] = []
    with ThreadPoolExecutor(workers, thread_name_prefix="thumbnail") as pool:
        work = partial(_thumbnail, max_pixels=max_pixels)
        for i, (row, future) in enumerate(prefetch(pool, work, rows, limit=2 * workers)):
            small: Any = future.result()
            if folder is not None and small:
                target = folder / f"{i // 1000:04d}" / f"{i:07d}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(small)
            block.append((row, base64.b64encode(small).decode() if folder is None else int(bool(small))))
            _note_exceptions(rest, i, row)
            if len(block) == _BLOCK:
                yield _block_script(block)
                block = []
    if block:
        yield _block_script(block)
    yield _script('id="rest"', rest)


def _note_exceptions(rest: dict[str, Any], i: int, row: Row) -> None:
    """Note the addresses that the page's scripts cannot work out from the name."""
    plain = _plain_address(row.name)
    if row.original is not None and row.original != plain:
        rest["originals"][i] = row.original
    for run, drawn in enumerate(row.drawn or ()):
        if plain is None or drawn != plain + ("" if row.name.lower().endswith(".jpg") else ".jpg"):
            rest["drawn"][run][i] = drawn


def _plain_address(name: str) -> str | None:
    try:
        return quote(name.encode())
    except UnicodeEncodeError:
        return None


def _thumbnail(row: Row, max_pixels: int) -> bytes:
    """Picture of a row as a small JPEG; nothing if it cannot be read."""
    try:
        image = decode_image(row.path, max_pixels).image
    except ImageError:
        return b""
    height, width = image.shape[:2]
    if (width, height) != (row.width, row.height):  # another picture has taken its place
        return b""
    scale = min(1.0, _SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return bytes(
        simplejpeg.encode_jpeg(cv2.resize(image, size, interpolation=cv2.INTER_AREA), _QUALITY, colorsubsampling="420")
    )


def _block_script(block: Sequence[tuple[Row, Any]]) -> bytes:
    runs = []
    for parts in zip(*(row.runs for row, _ in block), strict=True):
        columns: dict[str, Any] = {"counts": [len(part["boxes"]) for part in parts]}
        for name in parts[0]:
            table = np.concatenate([part[name].ravel() for part in parts])
            columns[name] = base64.b64encode(table.astype(table.dtype.newbyteorder("<")).tobytes()).decode()
        runs.append(columns)
    rows = [row for row, _ in block]
    content = {
        "names": [row.name for row in rows],
        "sizes": [side for row in rows for side in (row.width, row.height)],
        "runs": runs,
        "thumbnails": [small for _, small in block],
    }
    return _script('class="block"', content)


def _script(attribute: str, content: Any) -> bytes:
    from jinja2.utils import htmlsafe_json_dumps

    text = htmlsafe_json_dumps(content, dumps=json.dumps, allow_nan=False, separators=(",", ":"))
    return f'<script type="application/json" {attribute}>{text}</script>\n'.encode()
