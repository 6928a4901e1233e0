"""From the torch module to the two ONNX graphs that a model file carries, or to one that stands alone."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from .engine import torch_network
from .model_file import RegionModel
from .regions import RegionNetwork

__all__ = ["Part", "export_graphs", "export_part", "export_trunk", "export_whole", "to_model"]


OUTPUTS = ["probabilities", "deltas"]


class Part(nn.Module):
    """A part of a network that is exported by itself; what it computes, and from what, is its ``forward``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


class _Trunk(Part):
    network: RegionNetwork

    def forward(self, picture: Tensor) -> Tensor:
        return self.network.trunk(picture)


class _Head(Part):
    network: RegionNetwork

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.network.score_regions(features)
        return logits.softmax(1), deltas


class _CropHead(Part):
    network: RegionNetwork

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.network.score_crops(features)
        return logits.softmax(1), deltas


class _Whole(Part):
    network: RegionNetwork

    def forward(self, picture: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.network(picture, boxes)
        return logits.softmax(1), deltas


class _WholeOnCrops(Part):
    network: RegionNetwork

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.network.score_crops(self.network.trunk(picture))
        return logits.softmax(1), deltas


def export_graphs(network: RegionNetwork, scoring: str = "shared") -> tuple[bytes, bytes]:
    """Export a network's structure, without its weights.

    Parameters
    ----------
    network : RegionNetwork
    scoring : {"shared", "crops"}
        See `RegionModel`.

    Returns
    -------
    trunk, head : bytes
        ONNX models. ``trunk``: ``picture`` (N, 3, H, W) -> ``features``; ``head``: ``features`` of N regions, see
        `region_features.read_regions`, or of N crops, -> ``probabilities`` (N, 1 + C), ``deltas`` (N, C, 4). The
        weights are external initializers named as in ``network.state_dict()``.
    """
    network = network.cpu().eval()
    part, side = (_CropHead(network), 14) if scoring == "crops" else (_Head(network), 7)
    head = export_part(part, {"features": torch.zeros(3, 832, side, side)}, OUTPUTS, {"features": (0,)})
    return export_trunk(network), head


def export_trunk(network: RegionNetwork) -> bytes:
    """Export the structure of a network's trunk: ``picture`` (N, 3, H, W) -> ``features``."""
    return export_part(_Trunk(network), {"picture": torch.zeros(2, 3, 96, 128)}, ["features"], {"picture": (0, 2, 3)})


def export_part(
    module: Part, inputs: Mapping[str, Tensor], outputs: Sequence[str], dynamic: Mapping[str, Sequence[int]]
) -> bytes:
    """Export what a part computes, without its weights.

    Parameters
    ----------
    module : Part
    inputs : mapping of str to Tensor
        Names and examples of the inputs, in the order of ``forward``.
    outputs : sequence of str
        Names of the outputs.
    dynamic : mapping of str to sequence of int
        Axes of the inputs that may have any length.

    Returns
    -------
    bytes
        ONNX model; the weights are external initializers named as in ``module.network.state_dict()``.
    """
    shapes = {name: {axis: torch.export.Dim.DYNAMIC for axis in axes} for name, axes in dynamic.items()}
    # The exporter reports each of its steps and reasons aloud about shapes; an error is raised all the same.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=shapes,
            )
    finally:
        logging.disable(disabled)
    assert program is not None
    graph = program.model_proto
    names = {f"network.{name}" for name, _ in module.network.named_parameters()}
    for tensor in graph.graph.initializer:
        if tensor.name in names:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="weights")
    for node in graph.graph.node:
        # Stack traces of the exporting machine: of no use to the runtime, and full of its paths.
        del node.metadata_props[:]
        node.doc_string = ""
        for i, name in enumerate(node.input):
            if name in names:
                node.input[i] = name.removeprefix("network.")
    for tensor in graph.graph.initializer:
        if tensor.name in names:
            tensor.name = tensor.name.removeprefix("network.")
    del graph.graph.value_info[:]
    del graph.graph.metadata_props[:]
    del graph.metadata_props[:]
    return graph.SerializeToString()


def to_model(
    network: RegionNetwork,
    classes: tuple[str, ...],
    *,
    long_side: int,
    box_regression: bool = True,
    scoring: str = "shared",
    trained: Mapping[str, object] | None = None,
) -> RegionModel:
    """Pack a trained network as a model that runs without torch.

    Parameters
    ----------
    network : RegionNetwork
    classes : tuple of str
        Names of its classes.
    long_side : int
        See `RegionModel`.
    box_regression : bool
        See `RegionModel`.
    scoring : {"shared", "crops"}
        See `RegionModel`.
    trained : dict, optional
        How it was trained; must be representable as JSON.

    Returns
    -------
    RegionModel
        Its ``sha256`` is empty until it is written and read.
    """
    trunk, head = export_graphs(network, scoring)
    weights = {name: p.detach().cpu().numpy().astype(np.float16) for name, p in network.named_parameters()}
    return RegionModel(classes, long_side, box_regression, weights, trunk, head, "", dict(trained or {}), scoring)


def export_whole(model: RegionModel) -> bytes:
    """Export a model as one graph with its weights, for whatever runs ONNX.

    Parameters
    ----------
    model : RegionModel

    Returns
    -------
    bytes
        ONNX model in float32. ``shared`` scoring: ``picture`` (1, 3, H, W), as `preprocessing.prepare_picture` makes
        it, and ``boxes`` (N, 4) in its pixels, any N, H and W. ``crops``: ``picture`` (N, 3, 224, 224), as
        `preprocessing.crop_regions` makes them. Both give ``probabilities`` (N, 1 + C), column 0 background, and
        ``deltas`` (N, C, 4), see `preprocessing.decode_boxes`. Its metadata has ``classes``, ``long_side``, ``scoring``
        and ``box_regression`` as JSON.

    Examples
    --------
    >>> from .model_file import read_model
    >>> from .weights import find_model
    >>> graph = onnx.load_from_string(export_whole(read_model(find_model("voc")))).graph
    >>> [value.name for value in graph.input], [value.name for value in graph.output]
    (['picture', 'boxes'], ['probabilities', 'deltas'])
    """
    network = torch_network(model.weights, len(model.classes), "cpu")
    if model.scoring == "crops":
        graph = export_part(
            _WholeOnCrops(network), {"picture": torch.zeros(3, 3, 224, 224)}, OUTPUTS, {"picture": (0,)}
        )
    else:
        boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0]]).repeat(3, 1)
        inputs = {"picture": torch.zeros(1, 3, 96, 128), "boxes": boxes}
        graph = export_part(_Whole(network), inputs, OUTPUTS, {"picture": (2, 3), "boxes": (0,)})
    whole = onnx.load_from_string(graph)
    for tensor in whole.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            weight = model.weights[tensor.name].astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(weight, tensor.name))
    about = {
        "classes": model.classes, "long_side": model.long_side, "scoring": model.scoring,
        "box_regression": model.box_regression,
    }  # fmt: skip
    onnx.helper.set_model_props(whole, {key: json.dumps(value) for key, value in about.items()})
    onnx.checker.check_model(whole)
    return whole.SerializeToString()
