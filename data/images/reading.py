"""A picture file, or an array, to pixels in 8-bit RGB; docs/pictures.md has the rules as tables."""

import io
import math
import os
import re
import struct
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..arguments import check_number
from ..errors import DataWarning, ImageError, SettingError, reason_of
from ..system.remote import is_url, url_suffix
from .containers import Member
from .finding import RAW_SUFFIXES, TGA_SUFFIXES, how_to_read_video
from .repair import (
    END_OF_JPEG,
    MAX_PASSES,
    count_passes,
    end_of_data,
    end_of_scans,
    has_all_passes,
    next_restart_mark,
    without_descriptions,
)
from .sources import Source, open_source

MAX_PIXELS = 150_000_000
"""The largest picture that `read_image` decodes unless told otherwise: 450 MB of pixels."""

_ORIENTATION = 0x0112  # of EXIF
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339  # of TIFF
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# What libjpeg says of a JPEG from which pixels are missing or wrong (jerror.h). Its other warnings are of what stands
# between the pixels.
_NO_END = "Premature end of JPEG file"
_BAD_PIXELS = re.compile(f"{_NO_END}|premature end of data|bad Huffman code|bad arithmetic code|instead of RST")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8")
_BAD_HEADER = "its header is damaged or of an unknown kind; copy or download it again, or convert it to PNG"
_SIGNED = "has signed pixels, of unknown range; convert it to 8 or 16 bits without sign"
_TRUNCATED = "is truncated, some of its pixels are missing; copy or download it again"
_BEHIND_THE_END = bytes(range(1, 128)) * 8  # decodes to anything but a flat grey


class DecodedImage(NamedTuple):
    """What `decode_image` finds in a file.

    Attributes
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB, upright, contiguous and writable.
    repair : str
        One line that names the file, if it is damaged where no pixel is; else "".
    more_frames : bool
        Whether the file has more frames or pages than this first one.
    """

    image: NDArray[np.uint8]
    repair: str
    more_frames: bool


def read_image(path: Source, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a picture as 8-bit RGB, upright.

    The orientation of EXIF or XMP is applied. Greyscale, palette and CMYK pictures become RGB; 9 to 16 bits a channel
    are scaled to 8; transparent pictures are laid on white, as a browser shows them; of several frames or pages the
    first counts.

    Parameters
    ----------
    path : str, Path or Member
        The file: JPEG, PNG, BMP, GIF, WebP, TIFF or another format that Pillow reads; HEIC and HEIF if pillow-heif is
        installed. Or a URL that fsspec reads, or a picture in a Parquet or tar file, see `find_images_in`.
    max_pixels : int
        A picture of more pixels is refused before it is decoded: a file of a few kilobytes can unfold to many
        gigabytes. It counts alone: ``PIL.Image.MAX_IMAGE_PIXELS`` is not asked. What is not a file of this machine may
        have 8 bytes a pixel of this limit, and 16 MiB.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB, contiguous and writable.

    Raises
    ------
    ImageError
        If the file is missing, empty, not a picture, too large, or lacks pixels; or if its values have no defined
        black and white (floating point, signed, 32 bits).
    SettingError
        If `max_pixels` is no number, or negative.

    Warns
    -----
    DataWarning
        If the file is damaged, but all of its pixels are there.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (4, 3), color=7).save(f"{folder}/grey.png")
    ...     image = read_image(f"{folder}/grey.png")
    >>> image.shape, image.dtype, image[0, 0].tolist()
    ((3, 4, 3), dtype('uint8'), [7, 7, 7])
    """
    decoded = decode_image(path, max_pixels)
    if decoded.repair:
        warnings.warn(decoded.repair, DataWarning, stacklevel=2)
    return decoded.image


def decode_image(path: Source, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Read a picture as `read_image` does, and return what there is to say of the file instead of warning of it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pages = [Image.new("L", (4, 3), color=grey) for grey in (7, 8)]
    ...     pages[0].save(f"{folder}/pages.tif", save_all=True, append_images=pages[1:])
    ...     decode_image(f"{folder}/pages.tif").more_frames
    True
    """
    return read_stamped(path, max_pixels)[1]


def read_stamped(source: Source, max_pixels: int = MAX_PIXELS) -> tuple[list[int], DecodedImage]:
    """Read a picture as `decode_image` does; return what tells it from a changed one, see `sources.stamp`, with it."""
    check_number("max_pixels", max_pixels, 0, math.inf)
    with open_source(source, _max_bytes(max_pixels)) as (stamp, file):
        return stamp, _decode(file, str(source), max_pixels)


def read_size(path: str | Path) -> tuple[int, int]:
    """Width and height of the picture that `read_image` returns, from the header of its file if that tells.

    Raises
    ------
    ImageError
        If the picture cannot be read.

    Examples
    --------
    >>> import skimage
    >>> read_size(Path(skimage.__file__).parent / "data" / "chelsea.png")
    (451, 300)
    """
    try:
        with open(path, "rb") as file, _open(file, str(path)) as picture:
            width, height = picture.size
            return (height, width) if _orientation(picture) >= 5 else (width, height)
    except Exception:  # Whatever a damaged header makes Pillow raise: then the pixels decide.
        height, width = decode_image(path).image.shape[:2]
        return width, height


def _max_bytes(max_pixels: float) -> int:
    """Largest file, of those that are read as a whole, that may hold a picture of so many pixels."""
    return int(min(8 * max_pixels + 2**24, 2**62))  # four channels of 16 bits, and a description


def loaded(source: Source, max_pixels: int = MAX_PIXELS) -> Source:
    """Return where a picture lies, with its bytes if one process reads them better than several, see `Member.loaded`.

    Examples
    --------
    >>> loaded("a.jpg")
    'a.jpg'
    """
    return source.loaded(_max_bytes(max_pixels)) if isinstance(source, Member) else source


def _suffix(path: str) -> str:
    return url_suffix(path) if is_url(path) else os.path.splitext(path)[1].lower()


def _decode(file: BinaryIO, path: str, max_pixels: int) -> DecodedImage:
    if file.seek(0, os.SEEK_END) == 0:
        raise ImageError(f"{path}: is empty; copy or download it again")
    file.seek(0)
    if _suffix(path) in RAW_SUFFIXES:  # Pillow would read the thumbnail of many.
        raise ImageError(f"{path}: is a camera's raw file, which is not read; develop it to JPEG, PNG or TIFF")
    if how := how_to_read_video(path):
        raise ImageError(f"{path}: {how}")
    try:
        try:
            return _decode_opened(_open(file, path), file, path, max_pixels)
        except ImageError:
            raise
        except Exception:
            # Pillow refuses a PNG for a damaged or large text in it; its pixels may be good.
            cleaned = without_descriptions(file)
            if cleaned is None:
                raise
            repair = f"{path}: a text or a colour profile in it is damaged or very large; the pixels were read"
            return _decode_opened(_open(cleaned, path), cleaned, path, max_pixels)._replace(repair=repair)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        file.seek(0)
        start = file.read(8)
        text = "is not a picture in a known format; convert it to JPEG or PNG"
        if start.startswith(_TIFF):
            text = "is TIFF of a kind that is not read, or damaged; convert it to 8 bits a channel, or to PNG"
        elif start.startswith(_SIGNATURES):
            text = _BAD_HEADER
        raise ImageError(f"{path}: {text}") from error
    # A damaged file makes Pillow's decoders raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise ImageError(f"{path}: is damaged or truncated ({reason_of(error)}); copy or download it again") from error


def _open(file: BinaryIO, path: str) -> Image.Image:
    """Open a picture as ``PIL.Image.open`` does, without its limit on pixels, which is one for the whole process."""
    prefix = file.read(16)
    tried = 0
    for load_plugins in (Image.preinit, Image.init, lambda: _add_plugin(prefix, path)):
        load_plugins()  # Each adds to the list.
        names, tried = Image.ID[tried:], len(Image.ID)
        for name in names:
            factory, accept = Image.OPEN[name]
            # Anything can look like a TGA, which has no signature.
            if (accept is None or accept(prefix) is True) and (name != "TGA" or _suffix(path) in TGA_SUFFIXES):
                file.seek(0)
                with suppress(SyntaxError, IndexError, TypeError, struct.error):
                    return factory(file, "")
    raise UnidentifiedImageError


def _add_plugin(prefix: bytes, path: str) -> None:
    """Load the plugin of a format that Pillow itself does not read, or say what to do."""
    if prefix.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        raise ImageError(f"{path}: is JPEG XL, which is not read; convert it to PNG or JPEG")
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS:
        try:
            import pillow_heif
        except ImportError:
            text = "is HEIC; to read it, in a clone of the project: pip install '.[heif]', or convert it to JPEG"
            raise ImageError(f"{path}: {text}") from None
        pillow_heif.register_heif_opener()


def check_pixel_count(name: str, width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture of more pixels than the limit.

    Raises
    ------
    ImageError
        Its text begins with `name`.
    """
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} pixels, more than the limit of {max_pixels}; make it smaller or raise the "
            "limit (--max-pixels)"
        )


def _decode_opened(picture: Image.Image, file: BinaryIO, path: str, max_pixels: int) -> DecodedImage:
    with picture:
        check_pixel_count(f"{path}:", *picture.size, max_pixels)
        if picture.format in ("JPEG", "MPO"):
            return _decode_jpeg(picture, file, path)
        more_frames = False
        with suppress(Exception):  # What is wrong behind the first frame does not matter here.
            more_frames = getattr(picture, "is_animated", False)
        image = _to_rgb(picture, file, path)
        return DecodedImage(_turn(image, _orientation(picture)), "", more_frames)


def _decode_jpeg(picture: Image.Image, file: BinaryIO, path: str) -> DecodedImage:
    """Decode a JPEG by libjpeg-turbo, which is stopped by the first thing that it would warn of."""
    file.seek(0)
    data, repair = file.read(), ""
    if "progressive" in picture.info:
        if (passes := count_passes(data)) > MAX_PASSES:
            text = f"is a progressive JPEG of {passes} passes, over {MAX_PASSES}, which may take hours to decode"
            raise ImageError(f"{path}: {text}; save it anew")
        if not has_all_passes(data):
            raise ImageError(f"{path}: {_TRUNCATED}")
    image, problem = _decode_strictly(data)
    if problem == _NO_END:
        data = data[: end_of_data(data)] + END_OF_JPEG
        repair = "its end mark is missing; all of its pixels are there and were read"
        image, problem = _decode_strictly(data)
    if _BAD_PIXELS.search(problem):
        raise ImageError(f"{path}: is damaged or truncated ({problem}); copy or download it again")
    is_strict = image is not None
    # What else libjpeg-turbo refuses it warns of, or does not support; and of CMYK there are several.
    if image is None or picture.mode not in ("RGB", "L"):
        whole = io.BytesIO(data)
        image = _to_rgb(_open(whole, path), whole, path)
    # The first warning may hide that the data end too early.
    if not is_strict and not _has_all_pixels(data):
        raise ImageError(f"{path}: {_TRUNCATED}")
    if problem.startswith("Corrupt JPEG data"):
        repair = f"is damaged between its pixels, which were read ({problem})"
    return DecodedImage(_turn(image, _orientation(picture)), repair and f"{path}: {repair}", picture.format == "MPO")


def _decode_strictly(data: bytes) -> tuple[NDArray[np.uint8] | None, str]:
    """Return the pixels of a JPEG and "", or None and what libjpeg-turbo first says against it."""
    try:
        return simplejpeg.decode_jpeg(data), ""
    except ValueError as error:
        return None, str(error)


def _has_all_pixels(data: bytes) -> bool:
    """Whether the data of a JPEG reach to its last pixel: then it does not matter what stands behind them."""
    end = end_of_scans(data)
    decoded = []
    for behind in (b"", _BEHIND_THE_END + next_restart_mark(data, end) + _BEHIND_THE_END):
        try:
            picture = _open(io.BytesIO(data[:end] + behind + END_OF_JPEG), "")
            decoded.append(picture.tobytes())
        except Exception:
            return False
    return decoded[0] == decoded[1]


def _orientation(picture: Image.Image) -> int:
    """Orientation of a loaded picture, 1 to 8 as in EXIF, from its EXIF or XMP."""
    try:
        return picture.getexif().get(_ORIENTATION, 1) if _is_described(picture) else 1
    # The pixels are whole at this point; only the description of the camera is not.
    except Exception:
        return 1


def _is_described(picture: Image.Image) -> bool:
    # Looked up first, since most JPEGs of data sets have neither, and parsing nothing takes longer.
    return picture.format not in ("JPEG", "MPO") or "exif" in picture.info or "xmp" in picture.info


def _turn(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn a picture upright."""
    if orientation in (5, 6, 7, 8):
        image = cv2.transpose(image)  # type: ignore[assignment]
    # Axis to mirror then, as OpenCV counts them: 0 for y, 1 for x, -1 for both.
    axis = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if axis is None else cv2.flip(image, axis)  # type: ignore[return-value]


def _to_rgb(picture: Image.Image, file: BinaryIO, path: str) -> NDArray[np.uint8]:
    """Pixels of an opened picture, before it is turned upright."""
    if reason := _why_no_range(picture):
        raise ImageError(f"{path}: {reason}")
    if picture.format == "PNG" and "transparency" in picture.info and picture.mode in ("L", "RGB"):
        file.seek(24)
        depth = file.read(1)[0]
        if depth == 16:
            return _deep_colour(file, path, depth, rounded=False)
        if depth < 8:  # Pillow scales the grey pixels, but not this.
            picture.info["transparency"] *= 255 // (2**depth - 1)
    if picture.format == "JPEG2000":
        file.seek(0)
        data = file.read()
        bits = data[data.find(b"\xff\x4f\xff\x51") + 42]  # SIZ, behind SOC: of the first channel
        if bits & 128:
            raise ImageError(f"{path}: {_SIGNED}")
        depth = bits + 1
        if depth > 8 and picture.mode != "I;16":
            return _deep_colour(file, path, depth, rounded=True)
    picture.load()
    if picture.mode.startswith("I"):
        return _deep_grey(picture)
    if "transparency" in picture.info or picture.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        return _on_white(picture)
    return np.array(picture.convert("RGB"))


def _why_no_range(picture: Image.Image) -> str:
    """Say why it is not defined which values are black and white, whatever values there are; "" if it is."""
    tags: Any = getattr(picture, "tag_v2", {})  # of a TIFF
    if 2 in tags.get(_SAMPLE_FORMAT, ()):
        return _SIGNED
    # Some versions of Pillow keep the 16-bit grey of a PNG or PGM as 32 bits.
    if picture.mode == "I" and picture.format not in ("PNG", "PPM"):
        return "has 32 bits a pixel; convert it to 8 or 16 bits"
    # Pillow takes the bytes of uncompressed channels for pixels of 8 bits.
    is_apart = tags.get(_PLANES) == 2 and not picture.mode.startswith("I")
    if is_apart and max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8 and picture.tile[0][0] == "raw":  # type: ignore[attr-defined]
        return "has channels of 16 bits, one after the other and uncompressed, which are not read; convert it to 8 bits"
    if picture.mode == "F":
        return "has floating-point pixels of unknown range; convert it to 8 or 16 bits"
    return "has CIELAB colours, which are not read; convert it to RGB" if picture.mode == "LAB" else ""


def _deep_grey(picture: Image.Image) -> NDArray[np.uint8]:
    """Scale the 12 or 16 bits of a loaded grey picture to 8."""
    tags: Any = getattr(picture, "tag_v2", {})  # of a TIFF
    white = 2 ** tags[_BITS_PER_SAMPLE][0] - 1 if tags else 65535
    values = np.asarray(picture)
    grey = ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero
        grey = 255 - grey
    if "transparency" in picture.info:
        grey[values == picture.info["transparency"]] = 255
    return np.repeat(grey[..., None], 3, axis=2)


def _deep_colour(file: BinaryIO, path: str, depth: int, rounded: bool) -> NDArray[np.uint8]:
    """Decode colours of 9 to 16 bits by OpenCV; Pillow loses their low bits or turns white to black."""
    file.seek(0)
    values: Any = None
    if depth <= 16:
        with suppress(cv2.error):
            values = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise ImageError(f"{path}: cannot be read with its {depth} bits a channel; convert it to 8 bits")
    colours = values >> (depth - 8)
    if rounded:
        colours = np.minimum(colours + (values >> (depth - 9) & 1), 255)
    colours = colours.astype(np.uint8)
    if colours.ndim == 3:
        colours = cv2.cvtColor(colours, cv2.COLOR_BGRA2RGBA if colours.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return as_rgb(colours)


def check_image(image: NDArray[np.uint8]) -> None:
    """Refuse an array that is no picture, and say how to make it one.

    Parameters
    ----------
    image : ndarray, shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8

    Raises
    ------
    SettingError
        If it is of another type or shape, or empty.

    Examples
    --------
    >>> check_image(np.zeros((2, 2, 7), np.uint8))
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: the picture must have shape (H, W), (H, W, 3) or (H, W, 4), not (2, 2, 7)
    """
    if not isinstance(image, np.ndarray):
        raise SettingError(f"the picture must be a numpy array of uint8, not {type(image).__name__}")
    if image.dtype != np.uint8:
        # How to convert only the caller knows: 12 bits in a uint16 divided by 257 would be nearly black.
        advice = {
            "f": "if its values lie in [0, 1]: (255 * image).round().astype(np.uint8)",
            "u": "if it uses all of its 16 bits: (image // 257).astype(np.uint8)",
            "b": "for black and white: 255 * image.astype(np.uint8)",
        }.get(image.dtype.kind, "convert it with .astype(np.uint8)")
        raise SettingError(f"the picture must be uint8 with values 0..255, not {image.dtype}; {advice}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise SettingError(f"the picture must have shape (H, W), (H, W, 3) or (H, W, 4), not {image.shape}")
    if image.size == 0:
        raise SettingError(f"the picture has no pixels: its shape is {image.shape}")


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture that passes `check_image` with three channels: grey repeated, RGBA laid on white.

    Examples
    --------
    >>> as_rgb(np.full((2, 3), 7, np.uint8)).shape
    (2, 3, 3)
    >>> as_rgb(np.array([[[200, 0, 0, 0]]], np.uint8)).tolist()
    [[[255, 255, 255]]]
    """
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    if image.shape[2] == 4:
        return _on_white(Image.fromarray(image))
    return np.ascontiguousarray(image)


def _on_white(picture: Image.Image) -> NDArray[np.uint8]:
    """Lay a transparent picture on white, as a browser shows it."""
    picture = picture.convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB"))
