"""Quantization: a graph in float32 -> a graph whose convolutions compute in 8 bits, for ONNX Runtime.

It is static and per channel: the ranges of activations are measured on pictures, and each output channel of weights has
its own range. The weights stay outside the graph, in float16. The graph gets pairs of QuantizeLinear and
DequantizeLinear where numbers are rounded. The runtime makes integer kernels of them when it loads the graph.

ONNX Runtime has a tool for this too. But the tool also rounds the inputs of poolings that come before any convolution,
and these poolings then take five times as long as in float32. For the head of this network that is half of the gain.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ..preprocessing import crop_regions, prepare_picture
from ..regions.network import RegionNetwork
from ..regions.roi_align import FINE_STRIDE, read_regions

# Inputs of the graph ``head``: the trunk's features, and the first convolutions of three branches of inception 5a.
PROJECTIONS = ("features", "one", "three", "five")
# Numbers of pictures that ranges are measured on, and of regions in each.
PICTURES, REGIONS = 16, 32
# Percentile of an activation's values that ends its range. A few values are far larger than all others; a range with
# them in it would have too few steps for the others.
WITHIN = 99.999
# Most values of an activation in one batch that this percentile is taken of.
MAX_VALUES = 500_000


def with_weights(graph: bytes, weights: Mapping[str, NDArray[np.float16]]) -> onnx.ModelProto:
    """Load a graph and put its external weights into it, as float32.

    Parameters
    ----------
    graph : bytes
        ONNX.
    weights : mapping of str to ndarray
        float16, named as the initializers.

    Returns
    -------
    onnx.ModelProto
    """
    model = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].astype(np.float32), tensor.name))
    return model


def calibration_inputs(
    network: RegionNetwork,
    samples: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]],
    *,
    long_side: int,
    scoring: str = "shared",
) -> list[dict[str, NDArray[np.float32]]]:
    """Compute inputs of the layers that run once for each region, from pictures and regions.

    Parameters
    ----------
    network : RegionNetwork
        On a CPU.
    samples : sequence of (ndarray, shape (H, W, 3), uint8; ndarray, shape (N, 4), float32)
        Pictures, RGB, and regions in their pixels. Of the first 16 pictures with regions, the first 32 regions are
        taken.
    long_side : int
        Pictures are resized to this many pixels on their longer side.
    scoring : {"shared", "crops"}

    Returns
    -------
    list of dict of str to ndarray, float32
        Inputs by name of the graph ``head`` or ``crops``, see `graphs.export_graphs`.
    """
    inputs = []
    for image, boxes in [(image, boxes[:REGIONS]) for image, boxes in samples if len(boxes)][:PICTURES]:
        if scoring == "crops":
            inputs.append({"crops": crop_regions(image, boxes)})
            continue
        array, scale = prepare_picture(image, long_side)
        with torch.inference_mode():
            maps, fine = network.trunk_maps(torch.from_numpy(array))
            projected = [maps, *network.googlenet.inception_5a.begin(maps)]
            reduced = [] if network.lateral is None else [network.reduce_fine(fine)]
        last = [channels[0].permute(1, 2, 0).contiguous().numpy() for channels in projected]
        places = boxes * np.float32(scale)
        regions = {name: read_regions(array, places) for name, array in zip(PROJECTIONS, last, strict=True)}
        for channels in reduced:
            regions["fine"] = read_regions(
                channels[0].permute(1, 2, 0).contiguous().numpy(), places, stride=FINE_STRIDE
            )
        inputs.append(regions)
    return inputs


def quantize(
    graph: bytes,
    weights: Mapping[str, NDArray[np.float16]],
    inputs: Sequence[Mapping[str, NDArray[np.float32]]],
    step: Callable[[], None] = lambda: None,
) -> bytes:
    """Quantize a graph: its convolutions, and the operators between them, compute in 8 bits.

    Parameters
    ----------
    graph : bytes
        ONNX, its weights external.
    weights : mapping of str to ndarray
        float16, named as the initializers.
    inputs : sequence of mapping of str to ndarray, float32
        Inputs by name, to measure the ranges on.
    step : callable
        Called before each of the inputs.

    Returns
    -------
    bytes
        ONNX, its weights external too; the biases of the convolutions are inside, as integers.

    References
    ----------
    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR
    2018.
    """
    model = with_weights(graph, weights)
    nodes = list(model.graph.node)
    maker = {output: node for node in nodes for output in node.output}
    # Not the first convolution, of 3 channels: in 8 bits it is not faster, and its rounding changes scores the most.
    convolutions = [
        node for node in nodes if node.op_type == "Conv" and weights.get(node.input[1], np.zeros((0, 0))).shape[1] > 3
    ]
    joins = [node for node in nodes if node.op_type == "Concat"]
    pools: list[onnx.NodeProto] = []
    for node in nodes:
        if node.op_type == "MaxPool" and maker.get(node.input[0]) in (*joins, *pools):
            pools.append(node)
    rounding = [*convolutions, *joins, *pools]
    # ONNX Runtime computes a convolution in 8 bits only if its result, after the ReLU, is rounded too.
    activated = [
        node.output[0] for node in nodes if node.op_type == "Relu" and maker.get(node.input[0]) in convolutions
    ]
    rounded = dict.fromkeys(
        [node.input[0] for node in (*convolutions, *pools)]
        + [name for node in joins for name in (*node.input, *node.output)]
        + [node.output[0] for node in pools]
        + activated
    )
    ranges = _measure_ranges(model, list(rounded), inputs, step)
    for node in pools:  # A maximum of rounded numbers is one of them, so input and output have the same range.
        ranges[node.output[0]] = ranges[node.input[0]]
    constants: list[onnx.TensorProto] = []
    # In an order that the graph may have: before each node the nodes that round its inputs.
    made: list[onnx.NodeProto] = []

    def constant(array: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(array, f"constant_{len(constants)}"))
        return constants[-1].name

    def round_trip(name: str, scale: NDArray[np.float32], zero: NDArray[Any]) -> str:
        parameters = constant(scale), constant(zero)
        axis: dict[str, Any] = {"axis": 0} if scale.ndim else {}
        bits, back = f"bits_{len(made)}", f"rounded_{len(made)}"
        made.append(helper.make_node("QuantizeLinear", [name, *parameters], [bits], **axis))
        made.append(helper.make_node("DequantizeLinear", [bits, *parameters], [back], **axis))
        return back

    scales = {name: np.float32(high - low) / np.float32(255) for name, (low, high) in ranges.items()}
    trips: dict[str, str] = {}

    def rounded_of(name: str) -> str:
        if name not in trips:
            zero = np.uint8(np.clip(np.rint(-ranges[name][0] / scales[name]), 0, 255))
            trips[name] = round_trip(name, np.asarray(scales[name], np.float32), np.asarray(zero))
        return trips[name]

    for node in nodes:
        if node in convolutions:
            scale = scales[node.input[0]]
            weight = weights[node.input[1]].astype(np.float32)
            steps = np.maximum(np.abs(weight).max((1, 2, 3)), 1e-8) / np.float32(127)
            bias = weights[node.input[2]].astype(np.float32)
            # Larger steps where weights are nearly 0, so that the bias, counted in them, fits 32 bits.
            steps = np.maximum(steps, np.abs(bias) / (scale * np.float32(2**30)))
            bias = np.rint(bias / (steps * scale)).astype(np.int32)
            node.input[0] = rounded_of(node.input[0])
            node.input[1] = round_trip(node.input[1], steps, np.zeros(len(steps), np.int8))
            unscaled = f"bias_{len(made)}"
            made.append(
                helper.make_node("DequantizeLinear", [constant(bias), constant(steps * scale)], [unscaled], axis=0)
            )
            node.input[2] = unscaled
        elif node in rounding:
            for i, name in enumerate(node.input):
                node.input[i] = rounded_of(name)
        made.append(node)
    # All that read these results read them rounded.
    pooled_or_joined = [name for node in (*joins, *pools) for name in node.output]
    results = {name: rounded_of(name) for name in (*pooled_or_joined, *activated)}
    for node in nodes:
        if node not in rounding:
            for i, name in enumerate(node.input):
                node.input[i] = results.get(name, name)
    quantized = helper.make_graph(_in_order(made), model.graph.name, model.graph.input, model.graph.output)
    read = {name for node in made for name in node.input}
    external = onnx.load_from_string(graph).graph.initializer
    quantized.initializer.extend([*(tensor for tensor in external if tensor.name in read), *constants])
    model.graph.CopyFrom(quantized)
    return model.SerializeToString()


def _measure_ranges(
    model: onnx.ModelProto,
    names: Sequence[str],
    inputs: Sequence[Mapping[str, NDArray[np.float32]]],
    step: Callable[[], None],
) -> dict[str, tuple[float, float]]:
    """Measure the ranges of a graph's tensors; each contains zero."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in watched.graph.input}
    extra = [name for name in names if name not in known]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    ranges = dict.fromkeys(names, (0.0, 1e-6))
    for batch in inputs:
        step()
        found = dict(zip(extra, session.run(extra, batch), strict=True)) | dict(batch)
        for name in names:
            values = found[name].ravel()
            # A part of the values of a whole picture is enough, and sorts in a tenth of the time.
            low, high = np.percentile(values[:: 1 + len(values) // MAX_VALUES], [100 - WITHIN, WITHIN])
            ranges[name] = min(ranges[name][0], float(low)), max(ranges[name][1], float(high))
    return ranges


def _in_order(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Sort nodes so that each comes after those that it reads from."""
    makers = {output: node for node in nodes for output in node.output}
    ordered: dict[int, onnx.NodeProto] = {}

    def add(node: onnx.NodeProto) -> None:
        if id(node) not in ordered:
            for name in node.input:
                if name in makers:
                    add(makers[name])
            ordered[id(node)] = node

    for node in nodes:
        add(node)
    return list(ordered.values())
