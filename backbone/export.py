"""From the torch module to the two ONNX graphs that a model file carries."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from .model_file import RegionModel
from .regions import RegionNetwork

__all__ = ["export_graphs", "to_model"]


class _Part(nn.Module):
    """A part of a network that is exported by itself."""

    network: RegionNetwork

    def __init__(self, network: RegionNetwork) -> None:
        super().__init__()
        self.network = network


class _Trunk(_Part):
    def forward(self, picture: Tensor) -> Tensor:
        return self.network.trunk(picture)


class _Head(_Part):
    def forward(self, features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.network.head(features, boxes)
        return logits.softmax(1), deltas


def export_graphs(network: RegionNetwork) -> tuple[bytes, bytes]:
    """Export a network's structure, without its weights.

    Parameters
    ----------
    network : RegionNetwork

    Returns
    -------
    trunk, head : bytes
        ONNX models. ``trunk``: ``picture`` (1, 3, H, W) -> ``features``; ``head``: ``features``, ``boxes`` (N, 4) in
        resized pixels -> ``probabilities`` (N, 1 + C), ``deltas`` (N, C, 4). The weights are external initializers
        named as in ``network.state_dict()``.
    """
    network = network.cpu().eval()
    dynamic = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        picture = torch.zeros(1, 3, 96, 128)
        features = network.trunk(picture)
    trunk = _structure(_Trunk(network), (picture,), ["picture"], ["features"], {"picture": {2: dynamic, 3: dynamic}})
    head = _structure(
        _Head(network),
        (features, torch.tensor([[0.0, 0.0, 64.0, 64.0]]).repeat(3, 1)),
        ["features", "boxes"],
        ["probabilities", "deltas"],
        {"features": {2: dynamic, 3: dynamic}, "boxes": {0: dynamic}},
    )
    return trunk, head


def _structure(
    module: _Part,
    example: tuple[Tensor, ...],
    inputs: list[str],
    outputs: list[str],
    dynamic: dict[str, dict[int, object]],
) -> bytes:
    # The exporter reports each of its steps and reasons aloud about shapes; an error is raised all the same.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(),
                example,
                dynamo=True,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=dynamic,
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
    trained : dict, optional
        How it was trained; must be representable as JSON.

    Returns
    -------
    RegionModel
        Its ``sha256`` is empty until it is written and read.
    """
    trunk, head = export_graphs(network)
    weights = {name: p.detach().cpu().numpy().astype(np.float16) for name, p in network.named_parameters()}
    return RegionModel(classes, long_side, box_regression, weights, trunk, head, "", dict(trained or {}))
