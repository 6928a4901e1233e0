"""Pictures and crops as input of the network; box deltas from boxes, and boxes from box deltas. No torch."""

import cv2
import numpy as np
from numpy.typing import NDArray

MEAN_BGR = np.array([104.0, 117.0, 123.0], dtype=np.float32)
# R-CNN warps a region so that each edge of its 224-pixel crop has 16 pixels of context (Girshick et al., appendix A).
CROP_SIDE = 224
CONTEXT = CROP_SIDE / (CROP_SIDE - 2 * 16)
# Deltas are divided by these, about their standard deviations, so that all four have the same weight in the loss. The
# values are those of Fast R-CNN's code.
DELTA_SCALE = np.array([0.1, 0.1, 0.2, 0.2], dtype=np.float32)
# Largest natural logarithm of a side's growth, so that exp() of a wrong delta does not overflow. Detectron's value.
MAX_LOG_RATIO = float(np.log(1000.0 / 16.0))
# Pixels. The trunk has a cell for every 16, and needs at least one.
MIN_SIDE = 32


def resize_picture(image: NDArray[np.uint8], long_side: int) -> tuple[NDArray[np.uint8], float]:
    """Resize a picture to the size that the network gets.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        RGB.
    long_side : int
        Length in pixels of the longer side after resizing.

    Returns
    -------
    picture : ndarray, shape (h, w, 3), uint8
        RGB; at least 32 pixels wide and high. A smaller picture is extended by repeating its border.
    scale : float
        Resized pixels per pixel of `image`; boxes times `scale` are boxes on `picture`.

    Examples
    --------
    >>> picture, scale = resize_picture(np.zeros((100, 200, 3), np.uint8), 400)
    >>> picture.shape, scale
    ((200, 400, 3), 2.0)
    """
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, size, interpolation=interpolation)
    if min(size) < MIN_SIDE:
        right, bottom = (max(0, MIN_SIDE - side) for side in size)
        resized = cv2.copyMakeBorder(resized, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    return np.asarray(resized, np.uint8), scale


def normalise_picture(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert a picture to the published network's input: BGR minus the mean, channels first.

    Parameters
    ----------
    picture : ndarray, shape (h, w, 3), uint8
        RGB.

    Returns
    -------
    ndarray, shape (1, 3, h, w), float32
        BGR, 0..255, minus the mean.

    Examples
    --------
    >>> normalise_picture(np.zeros((1, 1, 3), np.uint8)).ravel()
    array([-104., -117., -123.], dtype=float32)
    """
    array = picture[:, :, ::-1].astype(np.float32) - MEAN_BGR
    return np.ascontiguousarray(array.transpose(2, 0, 1)[None])


def prepare_picture(image: NDArray[np.uint8], long_side: int) -> tuple[NDArray[np.float32], float]:
    """Resize a picture and convert it to the network's input: `resize_picture`, then `normalise_picture`.

    Examples
    --------
    >>> array, scale = prepare_picture(np.zeros((100, 200, 3), np.uint8), 400)
    >>> array.shape, scale
    ((1, 3, 200, 400), 2.0)
    """
    picture, scale = resize_picture(image, long_side)
    return normalise_picture(picture), scale


def warp_regions(image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Warp regions of a picture to the size of the network's input, as R-CNN does.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        RGB.
    boxes : ndarray, shape (N, 4), float32
        x1 y1 x2 y2 in pixels of `image`, of positive width and height. Each is enlarged so that 16 pixels of context
        surround it in the crop.

    Returns
    -------
    ndarray, shape (N, 224, 224, 3), uint8
        RGB; outside the picture the mean colour. Bilinear, without antialiasing.

    References
    ----------
    Girshick et al., "Rich feature hierarchies", CVPR 2014, section 2.3 and appendix A.

    Examples
    --------
    >>> warp_regions(np.zeros((80, 60, 3), np.uint8), np.array([[0, 0, 30, 40]], np.float32)).shape
    (1, 224, 224, 3)
    """
    mean = [float(value) for value in MEAN_BGR[::-1]]
    crops = np.empty((len(boxes), CROP_SIDE, CROP_SIDE, 3), np.uint8)
    for crop, box in zip(crops, boxes, strict=True):
        step = (box[2:] - box[:2]) * CONTEXT / CROP_SIDE
        # In the crop and in the picture, pixel i has its centre at i + 0.5.
        start = (box[:2] + box[2:]) / 2 - step * (CROP_SIDE / 2) + step / 2 - 0.5
        matrix = np.array([[step[0], 0, start[0]], [0, step[1], start[1]]], np.float64)
        crop[:] = cv2.warpAffine(
            image, matrix, (CROP_SIDE, CROP_SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT, borderValue=mean,
        )  # fmt: skip
    return crops


def crop_regions(image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Warp regions of a picture by `warp_regions`, and convert them to the published network's input.

    Returns
    -------
    ndarray, shape (N, 3, 224, 224), float32
        BGR, 0..255, minus the mean; outside the picture 0, which is the mean colour.

    Examples
    --------
    >>> crop_regions(np.zeros((80, 60, 3), np.uint8), np.array([[0, 0, 30, 40]], np.float32)).shape
    (1, 3, 224, 224)
    """
    crops = np.empty((len(boxes), 3, CROP_SIDE, CROP_SIDE), np.float32)
    np.subtract(warp_regions(image, boxes)[..., ::-1].transpose(0, 3, 1, 2), MEAN_BGR[:, None, None], out=crops)
    return crops


def encode_boxes(boxes: NDArray[np.float32], targets: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the box deltas that move boxes onto target boxes.

    Parameters
    ----------
    boxes, targets : ndarray, shape (N, 4), float32
        x1 y1 x2 y2.

    Returns
    -------
    ndarray, shape (N, 4), float32
        Shifts of the centre in sides of the box, then natural logarithms of the ratios of the sides; all of them
        divided by `DELTA_SCALE`.

    References
    ----------
    Girshick et al., "Rich feature hierarchies", CVPR 2014, appendix C.

    Examples
    --------
    >>> box = np.array([[0, 0, 10, 10]], np.float32)
    >>> encode_boxes(box, box + np.array([1, 0, 1, 0], np.float32))
    array([[1., 0., 0., 0.]], dtype=float32)
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    target_sides = targets[:, 2:] - targets[:, :2]
    shift = ((targets[:, 2:] + targets[:, :2]) - (boxes[:, 2:] + boxes[:, :2])) / (2 * sides)
    return np.concatenate([shift, np.log(target_sides / sides)], axis=1).astype(np.float32) / DELTA_SCALE


def decode_boxes(boxes: NDArray[np.float32], deltas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move boxes by box deltas: the inverse of `encode_boxes`.

    Parameters
    ----------
    boxes : ndarray, shape (N, 4), float32
        x1 y1 x2 y2.
    deltas : ndarray, shape (N, C, 4), float32
        A row of deltas for each class.

    Returns
    -------
    ndarray, shape (N, C, 4), float32
        x1 y1 x2 y2 of each box for each class.

    Examples
    --------
    >>> box = np.array([[0, 0, 10, 10]], np.float32)
    >>> decode_boxes(box, np.array([[[1, 0, 0, 0]]], np.float32))
    array([[[ 1.,  0., 11., 10.]]], dtype=float32)
    """
    scaled = deltas * DELTA_SCALE
    sides = (boxes[:, 2:] - boxes[:, :2])[:, None, :]
    centres = ((boxes[:, 2:] + boxes[:, :2]) / 2)[:, None, :] + scaled[..., :2] * sides
    half = sides * np.exp(np.minimum(scaled[..., 2:], MAX_LOG_RATIO)) / 2
    return np.concatenate([centres - half, centres + half], axis=-1)
