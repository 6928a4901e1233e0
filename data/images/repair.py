"""Bytes of JPEG and PNG files: is everything there that pixels are made of, and what can be left out.

Sources: ITU-T T.81 (JPEG), the markers and the passes of a progressive file; PNG specification, third edition, chunks.
"""

import io
import struct
import zlib
from typing import BinaryIO

END_OF_JPEG = b"\xff\xd9"
_START_OF_SCAN = b"\xff\xda"
_PNG = b"\x89PNG\r\n\x1a\n"


def has_all_passes(data: bytes) -> bool:
    """Whether a progressive JPEG has every pass over its brightness, the first component, down to the last bit.

    A file that was cut and got an end mark shows a blurred picture: the passes that would sharpen it are missing. What
    the last pass lacks is not seen here.
    """
    lowest_bit = [1] * 64  # of each coefficient, as it was last sent
    first = None
    # A thumbnail in the header has marks of its own; the frame's mark stands behind it.
    at = data.find(_START_OF_SCAN, max(data.rfind(b"\xff\xc2"), 0))
    while at >= 0:
        components = data[at + 4]
        scan = data[at + 5 : at + 8 + 2 * components]
        if len(scan) == 3 + 2 * components:
            first = scan[0] if first is None else first
            if first in scan[: 2 * components : 2]:
                begin, end, bits = scan[-3:]
                lowest_bit[begin : end + 1] = [bits & 15] * (end + 1 - begin)
        at = data.find(_START_OF_SCAN, at + 2)
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
