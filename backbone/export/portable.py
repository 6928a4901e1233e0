"""What an exported graph must have so that many programs run it, whatever they support of ONNX."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# torch exports opset 18. Of the operators that it uses, only ReduceMean differs in 17: its axes are an attribute there.
OPSET, IR_VERSION = 17, 8
REGIONS = "regions"


def make_portable(graph: bytes, dimensions: Mapping[str, Mapping[int, str]]) -> bytes:
    """Change a graph so that more programs run it. Its numbers stay the same to the last bit.

    It gets opset 17, names of its dimensions, and runs with zero regions. Poolings of stride 1 lose ``ceil_mode``: it
    changes nothing there, but ONNX's reference evaluator then gives maps that are too large.

    Parameters
    ----------
    graph : bytes
        ONNX in opset 18. The first axis of each output counts the regions.
    dimensions : mapping of str to mapping of int to str
        For each input the names of its axes that may have any length. One axis is called ``regions``, the first of its
        input.

    Returns
    -------
    bytes
        ONNX.
    """
    model = onnx.load_from_string(graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MaxPool" and _attributes(node)["strides"] == [1, 1]:
            _set_attributes(node, ceil_mode=None)
        elif node.op_type == "ReduceMean":
            _set_attributes(node, noop_with_empty_axes=None, axes=numpy_helper.to_array(constants[node.input[1]]))
            del node.input[1:]
    model.opset_import[0].version, model.ir_version = OPSET, IR_VERSION
    names = {name: dict(axes) for name, axes in dimensions.items()}
    names |= {value.name: {0: REGIONS} for value in model.graph.output}
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in names[value.name].items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    (by_region,) = (value for value in model.graph.input if REGIONS in names[value.name].values())
    _allow_zero_regions(model.graph, by_region)
    return model.SerializeToString()


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _set_attributes(node: onnx.NodeProto, **changed: Any) -> None:
    """Set attributes of a node; None removes one."""
    attributes = _attributes(node) | changed
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items() if value is not None)


def _allow_zero_regions(graph: onnx.GraphProto, regions: onnx.ValueInfoProto) -> None:
    """Compute one region of zeros if there are none, and leave it out of the outputs.

    Some programs refuse poolings and reshapes of nothing. Equal and Where, rather than Max, since TVM computes shapes
    with these only.
    """
    outputs = [value.name for value in graph.output]
    inside = {name: f"{name}_or_one" for name in (regions.name, *outputs)}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [inside.get(name, name) for name in names]
    rank = len(regions.type.tensor_type.shape.dim)
    pads = np.eye(1, 2 * rank, rank, dtype=np.int64)[0]  # One more row at the end.
    for name, values in {"no_regions": [0], "one_region": [1], "region_padding": pads}.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    computed = ["padded_regions", "no_regions", "computed_count", "no_regions"]
    before = [
        helper.make_node("Shape", [regions.name], ["region_count"], start=0, end=1),
        helper.make_node("Equal", ["region_count", "no_regions"], ["is_empty"]),
        helper.make_node("Where", ["is_empty", "one_region", "region_count"], ["computed_count"]),
        helper.make_node("Pad", [regions.name, "region_padding"], ["padded_regions"]),
        helper.make_node("Slice", computed, [inside[regions.name]]),
    ]
    wanted = ["no_regions", "region_count", "no_regions"]
    after = [helper.make_node("Slice", [inside[name], *wanted], [name]) for name in outputs]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
