"""Detectors of other people, run as their authors run them: the pictures' preparation, the boxes, the suppression.

MODELS names the files, their SHA-256 and the public repository on GitHub that each is from; none is part of this
project. They run in the packages ncnn, onnxruntime, ai-edge-litert and, for Darknet's files, opencv-python-headless
below 5.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from inception_rcnn.data import COCO_CLASSES, COCO_TO_VOC, VOC_CLASSES, Detections
from inception_rcnn.data.nms import nms_per_class

Pixels: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]
Network: TypeAlias = Callable[[Pixels], tuple[Floats, Floats]]
"""RGB (H, W, 3) -> boxes (N, 4), ``x1 y1 x2 y2`` in pixels, and scores (N, 80); of VOC's classes (N, 20)."""

# COCO's category ids: ten of the numbers from 1 to 90 are none.
COCO_IDS = np.setdiff1d(np.arange(1, 91), [12, 26, 29, 30, 45, 66, 68, 69, 71, 83])
MIN_SCORE, MOST = 0.01, 300  # of a detection; detections of a picture


class Fitted(NamedTuple):
    """A picture resized without distortion and padded."""

    pixels: Pixels
    scale: float
    left: int
    top: int

    def undo(self, boxes: Floats) -> Floats:
        """Return boxes of the padded picture in pixels of the original."""
        return (boxes - np.array([self.left, self.top] * 2, np.float32)) / np.float32(self.scale)


def fit(image: Pixels, size: int, fill: int, centred: bool = True, multiple: int = 0) -> Fitted:
    """Make the longer side `size`, and pad to a square, or to a multiple of so many pixels."""
    scale = size / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    full = [-(-side // multiple) * multiple if multiple else size for side in (height, width)]
    top, left = ((full[0] - height) // 2, (full[1] - width) // 2) if centred else (0, 0)
    canvas = np.full((*full, 3), fill, np.uint8)
    canvas[top : top + height, left : left + width] = cv2.resize(image, (width, height))
    return Fitted(canvas, scale, left, top)


def planes(image: NDArray[Any]) -> Floats:
    """Return the channels of (H, W, 3) first: (1, 3, H, W)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)


def corners(boxes: Floats) -> Floats:
    """Return ``x1 y1 x2 y2`` of centres, widths and heights."""
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def sigmoid(logits: Floats) -> Floats:
    """Return probabilities."""
    return 1 / (1 + np.exp(-logits))


def best_only(scores: Floats) -> Floats:
    """Keep the score of each box's best class: the detector gives a box one class."""
    return np.where(scores == scores.max(axis=1, keepdims=True), scores, np.float32(0))


def sides(image: Pixels) -> Floats:
    """Return width, height, width, height: what relative corners are multiplied by."""
    return np.array([image.shape[1], image.shape[0]] * 2, np.float32)


def ncnn_network(weights: Path, parameters: str) -> Callable[[Floats, str, Sequence[str]], list[Floats]]:
    """Return a function from an input and the names of its blob and of those wanted to these."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    net.load_param_mem(parameters)
    net.load_model(str(weights))

    def run(planes: Floats, entry: str, exits: Sequence[str]) -> list[Floats]:
        with net.create_extractor() as extractor:
            extractor.input(entry, ncnn.Mat(planes))
            outputs = [extractor.extract(name)[1] for name in exits]
            # NumPy crashes on an empty one.
            return [np.zeros(0, np.float32) if output.empty() else np.array(output) for output in outputs]

    return run


def onnx_network(path: Path) -> Callable[[Floats], Floats]:
    """Return a function from the network's input to its first output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    return lambda planes: session.run(None, {entry: planes})[0]


def tflite_network(path: Path) -> Callable[[NDArray[Any]], list[NDArray[Any]]]:
    """Return a function from the network's input to its outputs."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    exits = [output["index"] for output in interpreter.get_output_details()]

    def run(values: NDArray[Any]) -> list[NDArray[Any]]:
        interpreter.set_tensor(entry, values)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in exits]

    return run


def nanodet(files: Sequence[Path], size: int, plus: bool = False) -> Network:
    """NanoDet and NanoDet-Plus: a distribution over 8 distances for each side of a box."""
    network = ncnn_network(files[0], files[1].read_text())
    mean, deviation = np.array([103.53, 116.28, 123.675]), np.array([57.375, 57.12, 58.395])
    strides = (8, 16, 32, 64) if plus else (8, 16, 32)
    exits = ["out0"] if plus else [f"{part}_pred_stride_{stride}" for part in ("cls", "dis") for stride in strides]

    def find(image: Pixels) -> tuple[Floats, Floats]:
        fitted = fit(image, size, 0, multiple=32)
        outputs = network(planes((fitted.pixels[..., ::-1] - mean) / deviation)[0], "in0" if plus else "input.1", exits)
        if plus:
            logits, sides = np.split(outputs[0].T, [len(COCO_CLASSES)], axis=1)
            scores = sigmoid(logits)
        else:
            scores, sides = np.concatenate(outputs[:3]), np.concatenate(outputs[3:])
        rows = np.flatnonzero(scores.max(axis=1) >= MIN_SCORE)
        powers = np.exp(sides[rows].reshape(-1, 4, 8))
        distances = (powers @ np.arange(8) / powers.sum(axis=2)).astype(np.float32)
        points = grid(fitted.pixels.shape[0], fitted.pixels.shape[1], strides, 0.0 if plus else 0.5)[rows]
        centres, stride = points[:, :2] * points[:, 2:], points[:, 2:]
        boxes = np.concatenate([centres - distances[:, :2] * stride, centres + distances[:, 2:] * stride], axis=1)
        return fitted.undo(boxes), scores[rows]

    return find


def grid(height: int, width: int, strides: Sequence[int], offset: float = 0.0) -> Floats:
    """Return column, row and stride of every cell of every level, the level of the first stride first."""
    levels = []
    for stride in strides:
        y, x = np.mgrid[: -(-height // stride), : -(-width // stride)].reshape(2, -1) + offset
        levels.append(np.stack([x, y, np.full(len(x), stride)], axis=1))
    return np.concatenate(levels).astype(np.float32)


def yolox(files: Sequence[Path], size: int) -> Network:
    """YOLOX: centres and logarithms of sides, in cells."""
    network, cells = onnx_network(files[0]), grid(size, size, (8, 16, 32))

    def find(image: Pixels) -> tuple[Floats, Floats]:
        fitted = fit(image, size, 114, centred=False)
        output = network(planes(fitted.pixels[..., ::-1]))[0]
        boxes = np.concatenate([output[:, :2] + cells[:, :2], np.exp(output[:, 2:4])], axis=1) * cells[:, 2:]
        return fitted.undo(corners(boxes)), output[:, 4:5] * best_only(output[:, 5:])

    return find


def ultralytics(files: Sequence[Path], size: int, objectness: bool = False) -> Network:
    """YOLOv5, with an objectness, YOLOv8 and YOLO11: relative centres and sides."""
    network = tflite_network(files[0])

    def find(image: Pixels) -> tuple[Floats, Floats]:
        fitted = fit(image, size, 114)
        (output,) = network(fitted.pixels[None].astype(np.float32) / 255)
        rows = output[0] if objectness else output[0].T
        scores = rows[:, 4:5] * rows[:, 5:] if objectness else rows[:, 4:]
        return fitted.undo(corners(rows[:, :4] * size)), scores

    return find


def yolo_fastest(files: Sequence[Path], size: int) -> Network:
    """YOLO-Fastest 1.1: two levels of three anchors. The suppression in its file mixes classes; it is not run."""
    text = files[1].read_text()
    network = ncnn_network(files[0], text)
    exits = re.findall(r"Yolov3DetectionOutput +\S+ +2 +1 +(\S+) +(\S+)", text)[0]
    anchors = np.array([[[115, 73], [119, 199], [242, 238]], [[12, 18], [37, 49], [52, 132]]], np.float32)

    def find(image: Pixels) -> tuple[Floats, Floats]:
        outputs = network(planes(cv2.resize(image, (size, size)) / np.float32(255))[0], "data", exits)
        boxes, scores = [], []
        for output, stride, own in zip(outputs, (32, 16), anchors, strict=True):
            rows = output.reshape(3, 85, -1).transpose(0, 2, 1)
            centres = (grid(size, size, (stride,))[:, :2] + sigmoid(rows[..., :2])) * stride
            extents = np.exp(rows[..., 2:4]) * own[:, None]
            boxes.append(np.concatenate([centres, extents], axis=2).reshape(-1, 4))
            scores.append((sigmoid(rows[..., 4:5]) * sigmoid(rows[..., 5:])).reshape(-1, 80))
        return corners(np.concatenate(boxes)) / size * sides(image), np.concatenate(scores)

    return find


def ssd(files: Sequence[Path], size: int) -> Network:
    """SSD of TensorFlow's detection API: its last layer decodes, suppresses and gives 10 detections."""
    network = tflite_network(files[0])

    def find(image: Pixels) -> tuple[Floats, Floats]:
        boxes, labels, scores, _ = network(cv2.resize(image, (size, size))[None])
        of_class = np.where(labels[0][:, None] + 1 == COCO_IDS, scores[0][:, None], np.float32(0))
        return boxes[0][:, [1, 0, 3, 2]] * sides(image), of_class

    return find


def darknet(files: Sequence[Path], size: int) -> Network:
    """MobileNetV2-YOLOv3, trained on VOC: OpenCV decodes."""
    # As OpenCV has it, that layer keeps scores from 0.2 up.
    text = files[1].read_text().replace("[yolo]", f"[yolo]\nthresh={MIN_SCORE}")
    parts = text.encode(), files[0].read_bytes()
    net = cv2.dnn.readNetFromDarknet(*(np.frombuffer(part, np.uint8) for part in parts))
    exits = net.getUnconnectedOutLayersNames()

    def find(image: Pixels) -> tuple[Floats, Floats]:
        net.setInput(planes(cv2.resize(image, (size, size)) / np.float32(255)))
        rows = np.concatenate(net.forward(exits))
        return corners(rows[:, :4]) * sides(image), rows[:, 5:]

    return find


class Model(NamedTuple):
    """A detector: the side of its input, the IoU of its suppression (1: its network suppresses), how it is loaded."""

    name: str
    trained_on: str
    size: int
    iou: float
    load: Callable[..., Network]
    repository: str
    files: dict[str, str]  # path in the repository: SHA-256; in FILES they have no folders
    settings: dict[str, Any] = {}  # noqa: RUF012 (of `load`)


COCO, VOC = "COCO train 2017", "VOC"
ANDROID, NCNN, NANO = "app/src/main/assets/", "sample/ncnn/model/", "MobileNetV2-YOLOv3-Nano/VOC/"
# Weights first.
MODELS = (
    Model("YOLO-Fastest 1.1", COCO, 320, 0.45, yolo_fastest, "dog-qiuqiu/Yolo-Fastest", {
        NCNN + "yolo-fastest-1.1.bin": "ffc755fd530847c96926d3e675c5c1bf63b392e2c034773acd89921447edbc5b",
        NCNN + "yolo-fastest-1.1.param": "3924d5c7e1945ae3b86e958f7335b730828659be9bc6355784823974a92793c9",
    }),
    Model("YOLO-Fastest 1.1 XL", COCO, 320, 0.45, yolo_fastest, "dog-qiuqiu/Yolo-Fastest", {
        NCNN + "yolo-fastest-1.1-xl.bin": "4be232ae9b45a9ce5f8afa002a84c2b061a3e5e5049ecf98fb6d3bad57da6a8c",
        NCNN + "yolo-fastest-1.1-xl.param": "f8f08ade6474c2a91699242973bef359616df52053d55b01b94eea42fbb8410e",
    }),
    Model("MobileNetV2-YOLOv3-Nano", VOC, 320, 0.45, darknet, "dog-qiuqiu/MobileNet-Yolo", {
        NANO + "MobileNetV2-YOLOv3-Nano-voc.weights":
            "3dc752a0dee830fb974bfd518d88df924d1eef03868e551786d606cd0f81c210",
        NANO + "MobileNetV2-YOLOv3-Nano-voc.cfg": "671b726a719f21cb72d80326195be8ab6862361479ee5d1d4528ed68ae9d6a6b",
    }),
    Model("SSD MobileNetV1, 8 bits", COCO, 300, 1, ssd, "SPEAR22/odcr", {
        ANDROID + "detect.tflite": "cbdecd08b44c5dea3821f77c5468e2936ecfbf43cde0795a2729fdb43401e58b",
    }),
    Model("NanoDet-m", COCO, 416, 0.6, nanodet, "nihui/ncnn-android-nanodet", {
        ANDROID + "nanodet-m-416.bin": "87e4e78c6ecaf94cfffc3f7c8dd73f85beb0b185cd14962fb4d05dd8b1249571",
        ANDROID + "nanodet-m-416.param": "c1e7f51fd49b90b275cb6d585ea93c7d915cbfbe17874054abb57403afb9043b",
    }),
    Model("NanoDet-Plus-m", COCO, 416, 0.6, nanodet, "nihui/ncnn-webassembly-nanodet", {
        "assets/coco.torchscript.ncnn.bin": "1942dede585c2163c888e34295fffffdf73841ca8e79b2a548042393510fb9ae",
        "assets/coco.torchscript.ncnn.param": "1c0ddf1e8009a6ff55032deda21b97e221ebdfe68d820faa68999790d5e972f9",
    }, {"plus": True}),
    Model("YOLOX-Nano", COCO, 416, 0.65, yolox, "Kazuhito00/YOLOX-ONNX-TFLite-Sample", {
        "model/yolox_nano.onnx": "695e750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14",
    }),
    Model("YOLOv5n", COCO, 640, 0.6, ultralytics, "tjahjoe/detection_tflite", {
        "yolov5n-fp16.tflite": "bc680bd089a37f168449cc3ad41de12936bd6c1008ad5be40cfb84b5ce70c21d",
    }, {"objectness": True}),
    Model("YOLOv8n, 8 bits", COCO, 640, 0.7, ultralytics, "anu4619/General-purpose-object-detector-app", {
        "yolov8_saved_model/yolov8n_int8.tflite": "6de6b552cd27047138893b9181cae8a9c77b3a4c0aca827d1b126e5a4784dd14",
    }),
    Model("YOLO11n, 8 bits", COCO, 640, 0.7, ultralytics, "MishrajiAryan/cv_counter", {
        "yolo11n_int8.tflite": "cd49cd708633a6a2378c433d9c55f9212485b5042dbddcead02eb2563ea387b7",
    }),
)  # fmt: skip


def load(model: Model, folder: Path, classes: Sequence[str]) -> Callable[[Pixels], Detections]:
    """Return a function from a picture to its detections, of VOC's or COCO's classes.

    Refuses files that are not those of the table, and classes that the model does not know.
    """
    paths = [folder / Path(name).name for name in model.files]
    for path, digest in zip(paths, model.files.values(), strict=True):
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise ValueError(f"{path} is another file than that of {model.repository}")
    names = list(VOC_CLASSES if model.trained_on == VOC else COCO_CLASSES)
    if tuple(classes) == VOC_CLASSES:
        names = [COCO_TO_VOC.get(name, name) for name in names]
    if unknown := set(classes) - set(names):
        raise ValueError(f"it knows no {min(unknown)}")
    columns = [names.index(name) for name in classes]
    network = model.load(paths, model.size, **model.settings)

    def detect(image: Pixels) -> Detections:
        boxes, scores = network(image)
        boxes = np.clip(boxes, 0, sides(image))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        return Detections(*nms_per_class(boxes, scores[:, columns], model.iou, MIN_SCORE, MOST), classes)

    return detect
