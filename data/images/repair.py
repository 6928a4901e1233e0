"""Bytes of JPEG and PNG files: is everything there that pixels are made of, and what can be left out.

Sources: ITU-T T.81 (JPEG), the markers and the passes of a progressive file; PNG specification, third edition, chunks.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

END_OF_JPEG = b"\xff\xd9"
MAX_PASSES = 100  # of a progressive JPEG; encoders write about ten
_START_OF_SCAN, _END = 0xDA, 0xD9
# Of the next segment. Within the data of a scan, 0xFF is followed by 0 or by a restart mark.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
_PNG = b"\x89PNG\r\n\x1a\n"


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Kind and position of the segments of a JPEG up to its end mark, which is the last; not those of a thumbnail."""
    at = 2
    while found := _MARKER.search(data, at):
        start = found.start()
        yield data[start + 1], start
        if data[start + 1] == _END:
            return
        at = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")


def end_of_data(data: bytes) -> int:
    """Position behind the data of a JPEG that has no end mark: where it should stand.

    Examples
    --------
    >>> end_of_data(bytes.fromhex("ffd8 ffda0003 01 12 ff00 0000"))
    10
    """
    # A file that was not copied to its end may have zeros to its full length, which decoders take for pixels. 0xFF and
    # 0 are one byte of the data.
    kept = data.rstrip(b"\0")
    return len(kept) + 1 if kept.endswith(b"\xff") and len(kept) < len(data) else len(kept.rstrip(b"\xff"))


def end_of_scans(data: bytes) -> int:
    """Position of the end mark of a JPEG, or where it should stand.

    Examples
    --------
    >>> end_of_scans(bytes.fromhex("ffd8 ffda0003 01 1234 ffd9 0000"))
    9
    """
    return next((start for kind, start in _segments(data) if kind == _END), end_of_data(data))


def next_restart_mark(data: bytes, end: int) -> bytes:
    """Restart mark that a decoder expects next behind the data of a JPEG; behind another one it may not go on.

    Examples
    --------
    >>> next_restart_mark(bytes.fromhex("ffda0003 01 12 ffd6 34 ffd7 56"), 13).hex()
    'ffd0'
    """
    marks = re.findall(rb"\xff[\xd0-\xd7]", data[max(data.rfind(bytes([0xFF, _START_OF_SCAN]), 0, end), 0) : end])
    return bytes([0xFF, 0xD0 + (marks[-1][1] + 1) % 8 if marks else 0xD0])


def count_passes(data: bytes) -> int:
    """Count the passes of a JPEG, also of a sequential one. Each may take as long as a picture, and only 30 bytes.

    Examples
    --------
    >>> count_passes(bytes.fromhex("ffd8 ffda0003 01 12 ffda0003 01 34 ffd9"))
    2
    """
    return sum(kind == _START_OF_SCAN for kind, _ in _segments(data))


def has_all_passes(data: bytes) -> bool:
    """Whether a progressive JPEG has every pass over its brightness, the first component, down to the last bit.

    A file that was cut and got an end mark shows a blurred picture: the passes that would sharpen it are missing. What
    the last pass lacks is not seen here.
    """
    lowest_bit = [1] * 64  # of each coefficient, as it was last sent
    first = None
    for kind, start in _segments(data):
        if kind == _START_OF_SCAN:
            components = data[start + 4] if len(data) > start + 4 else 0
            scan = data[start + 5 : start + 8 + 2 * components]
            if len(scan) == 3 + 2 * components:
                first = scan[0] if first is None else first
                if first in scan[: 2 * components : 2]:
                    begin, end, bits = scan[-3:]
                    lowest_bit[begin : end + 1] = [bits & 15] * (end + 1 - begin)
    return not any(lowest_bit)


def without_descriptions(file: BinaryIO) -> io.BytesIO | None:
    """Copy of a PNG without what does not make pixels, or None if there is nothing to leave out."""
    file.seek(0)
    data = file.read()
    if not data.startswith(_PNG):
        return None
    kept, at = [_PNG], len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, chunk = data[at + 4 : at + 8], data[at : at + 12 + length]
        is_whole = zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]
        # A capital first letter: needed for the pixels. tRNS is their transparency, eXIf has the orientation.
        if name[:1].isupper() or name == b"tRNS" or (name == b"eXIf" and is_whole):
            kept.append(chunk)
        at += 12 + length
    cleaned = b"".join(kept)
    return io.BytesIO(cleaned) if len(cleaned) < len(data) else None
