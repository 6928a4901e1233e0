"""A picture file, or an array, to pixels in 8-bit RGB."""

import os
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import ImageError, SettingError

MAX_PIXELS = 150_000_000
"""The largest picture that `read_image` decodes unless told otherwise: 450 MB of pixels."""


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a picture as 8-bit RGB, upright.

    The EXIF orientation is applied. Greyscale, palette and CMYK pictures become RGB; 16 bits a channel are
    scaled to 8; transparent pictures are laid on white, as a browser shows them; of an animation the first
    frame counts.

    Parameters
    ----------
    path : str or Path
        The file: JPEG, PNG, BMP, GIF, WebP, TIFF or another format that Pillow reads.
    max_pixels : int
        A picture of more pixels is refused before it is decoded: a file of a few kilobytes can unfold to many
        gigabytes. Pillow's own limit, twice ``PIL.Image.MAX_IMAGE_PIXELS``, stays in force.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB, contiguous and writable.

    Raises
    ------
    ImageError
        If the file is missing, empty, truncated, not a picture or too large.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (4, 3), color=7).save(f"{folder}/grey.png")
    ...     image = read_image(f"{folder}/grey.png")
    >>> image.shape, image.dtype, image[0, 0].tolist()
    ((3, 4, 3), dtype('uint8'), [7, 7, 7])
    """
    path = Path(path)
    try:
        if not path.is_file():
            if path.is_dir():
                raise ImageError(f"{path}: is a folder, not a picture; name a file in it")
            if path.exists():
                raise ImageError(f"{path}: is not a regular file; copy the picture to a file")
            raise ImageError(f"{path}: does not exist; check the name")
        with open(path, "rb") as file:
            return _decode(file, path, max_pixels)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check its name and permissions") from error


def _decode(file: BinaryIO, path: Path, max_pixels: int) -> NDArray[np.uint8]:
    if os.fstat(file.fileno()).st_size == 0:
        raise ImageError(f"{path}: is empty; copy or download it again")
    try:
        # Reads the header only, so a video of many gigabytes is refused at once.
        with Image.open(file) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise ImageError(
                    f"{path}: has {width} x {height} pixels, more than the limit of {max_pixels}; "
                    "make it smaller or raise the limit"
                )
            if picture.format in ("JPEG", "MPO") and picture.mode in ("RGB", "L"):
                file.seek(0)
                image = _decode_jpeg(file.read())
                if image is not None:
                    return image
            return _to_rgb(_upright(picture), path)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: is not a picture in a known format; convert it to JPEG or PNG") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: is larger than Pillow's limit on pixels; make it smaller") from error
    # A damaged file makes Pillow's decoders raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path}: is damaged or truncated ({reason}); copy or download it again") from error


def _decode_jpeg(data: bytes) -> NDArray[np.uint8] | None:
    """Decode a JPEG, faster than Pillow and to the same pixels, or return None to leave it to Pillow.

    OpenCV fills the missing part of a truncated file with grey and says nothing, so it only gets files that
    end as they should; Pillow tells a truncated file from one with something appended.
    """
    if not data[-256:].rstrip(b"\0").endswith(b"\xff\xd9"):
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)  # type: ignore[return-value]


def _upright(picture: Image.Image) -> Image.Image:
    picture.load()
    try:
        return ImageOps.exif_transpose(picture)
    # The pixels are whole at this point; only the description of the camera is not.
    except Exception:
        return picture


def _to_rgb(picture: Image.Image, path: Path) -> NDArray[np.uint8]:
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"{path}: has 32 bits a pixel; convert it to 8 or 16 bits")
        grey = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode == "F":
        raise ImageError(f"{path}: has floating-point pixels of unknown range; convert it to 8 or 16 bits")
    if "transparency" in picture.info or picture.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        return _on_white(picture)
    return np.array(picture.convert("RGB"))


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
