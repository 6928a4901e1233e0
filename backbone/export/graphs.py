"""Export of networks: torch module -> the ONNX graphs of a model file, or one ONNX model with its weights."""

import contextlib
import io
import itertools
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.system.processes import Progress
from ..preprocessing import CROP_SIDE, prepare_picture
from ..regions.first_pass import fit_first_pass
from ..regions.network import PROJECTED, RegionNetwork
from ..regions.roi_align import BINS, FINE_CHANNELS, FINE_INPUTS, TRUNK_CHANNELS
from ..weights.model_file import GRAPHS, RegionModel, in_trunk, network_parts
from .portable import REGIONS, make_portable
from .quantization import PICTURES, PROJECTIONS, calibration_inputs, quantize, with_weights

OUTPUTS = ["logits", "deltas", "context"]
Module = TypeVar("Module", bound=nn.Module)


class Part(nn.Module):
    """A function of a network and tensors, as a module: torch exports only modules.

    Parameters
    ----------
    network : Module
        Its weights are those that the graph names.
    compute : callable
        Network, Tensor... -> Tensor or tuple of Tensor.
    """

    def __init__(self, network: nn.Module, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.network, self.compute = network, compute

    def forward(self, *inputs: Tensor) -> Any:
        """See the class."""
        return self.compute(self.network, *inputs)


def _first_pass_maps(network: RegionNetwork, features: Tensor) -> Tensor:
    return network.first_pass(features)[0].permute(1, 2, 0)


def _project_channels(network: RegionNetwork, features: Tensor, *fine: Tensor) -> tuple[Tensor, ...]:
    maps = [features, *network.googlenet.inception_5a.begin(features), *map(network.reduce_fine, fine)]
    return tuple(channels[0].permute(1, 2, 0) for channels in maps)


def _score_regions(
    network: RegionNetwork, features: Tensor, one: Tensor, three: Tensor, five: Tensor, *fine: Tensor
) -> tuple[Tensor, ...]:
    begun = [one, three, five]
    if network.finer is not None:
        # As `RegionNetwork.score_parts` does it, but before the axes are exchanged: the ReLU must come last.
        added = F.linear(fine[0], network.finer.weight.flatten(1)).split(PROJECTED[1:], dim=3)
        begun = [branch + more for branch, more in zip(begun, added, strict=True)]
    # After a ReLU, ONNX Runtime exchanges the axes while it reads the regions, without a pass over memory for it. The
    # network's own ReLU comes later and changes nothing.
    parts = [features, *(F.relu(branch) for branch in begun)]
    features, *begun_ = (part.permute(0, 3, 1, 2) for part in parts)
    return network.score_parts(features, begun_).present


def _score_crops(network: RegionNetwork, crops: Tensor) -> tuple[Tensor, ...]:
    return network.score_crops(network.trunk(crops)).present


def _score_crop(network: RegionNetwork, crops: Tensor) -> tuple[Tensor, Tensor]:
    logits, deltas, _ = network.score_crops(network.trunk(crops))
    return logits.softmax(1), deltas


def _score_picture(network: RegionNetwork, picture: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    logits, deltas = network(picture, boxes)
    return logits.softmax(1), deltas


def export_graphs(
    classes: int,
    scoring: str = "shared",
    *,
    finer: bool = True,
    context: bool = True,
    class_agnostic: bool = False,
    before: RegionModel | None = None,
) -> dict[str, bytes]:
    """Export the graphs of a model file, without weights: they depend only on the shape of the network.

    Parameters
    ----------
    classes : int
    scoring : {"shared", "crops"}
        See `RegionModel`.
    finer, context, class_agnostic : bool
        See `RegionNetwork`.
    before : RegionModel, optional
        A model whose graphs are taken where they are the same for any classes, which saves most of the time.

    Returns
    -------
    dict of str to bytes
        ONNX models by name. Their weights are external initializers, named as in the network's ``state_dict()``.

        - ``trunk``: ``picture`` (N, 3, H, W) -> ``features`` (N, 832, h, w), ``fine`` (N, 480, ~2h, ~2w); see
          `regions.network.TrunkMaps`.
        - ``first_pass``: ``features`` (1, 832, h, w) -> ``parts`` (h, w, 9), see `roi_align.read_first_pass`.
        - ``project``, for shared scoring: ``features`` (1, 832, h, w), ``fine`` (1, 480, ~2h, ~2w) -> the four maps
          (h, w, ...) of `RegionNetwork.project_channels`, and that of `RegionNetwork.reduce_fine`.
        - ``head``, for shared scoring: these four and ``fine``, read for each region by `roi_align.read_regions`
          (N, 7, 7, ...) -> ``logits`` (N, 1 + C), ``deltas`` (N, C, 4), ``context`` (N, 1 + C), see
          `regions.network.RegionOutputs`.
        - ``crops``, for scoring crops: ``crops`` (N, 3, 224, 224) -> the same three.
    """
    *common, last = GRAPHS[scoring]
    known = before.graphs if before is not None and finer and before.parts["finer"] else {}
    graphs = {name: known.get(name) or export_common(name, finer=finer and name == "project") for name in common}
    by_region = _export_by_region(classes, scoring, finer=finer, context=context, class_agnostic=class_agnostic)
    return graphs | {last: by_region}


@cache
def _export_by_region(classes: int, scoring: str, *, finer: bool, context: bool, class_agnostic: bool) -> bytes:
    """Export the graph that runs once for each region: ``head`` or ``crops``."""
    network = _network(classes, finer=finer, context=context, class_agnostic=class_agnostic)
    outputs = OUTPUTS if context else OUTPUTS[:2]
    if scoring == "crops":
        crops = {"crops": torch.zeros(3, 3, CROP_SIDE, CROP_SIDE)}
        return export_part(Part(network, _score_crops), crops, outputs, {"crops": (0,)})
    regions = {n: torch.zeros(3, BINS, BINS, size) for n, size in zip(PROJECTIONS, PROJECTED, strict=True)}
    if finer:
        regions["fine"] = torch.zeros(3, BINS, BINS, FINE_CHANNELS)
    return export_part(Part(network, _score_regions), regions, outputs, dict.fromkeys(regions, (0,)))


def _network(
    classes: int, *, finer: bool = False, context: bool = False, class_agnostic: bool = False
) -> RegionNetwork:
    """Build a network to export, without changing the state of torch's random numbers."""
    with torch.random.fork_rng(devices=[]):
        return with_all_weights(RegionNetwork(classes, finer=finer, context=context, class_agnostic=class_agnostic))


def with_all_weights(module: Module) -> Module:
    """Give every weight different values, and return the module.

    The exporter would leave out a bias of zeros, and a tensor that equals another.

    Examples
    --------
    >>> bool((with_all_weights(nn.Linear(2, 3)).bias != 0).all())
    True
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.01, generator=generator)
    return module


@cache
def export_common(name: str, *, finer: bool = False) -> bytes:
    """Export a graph that is the same for any classes: ``trunk``, ``first_pass`` or ``project``."""
    network = _network(1, finer=finer)
    if name == "trunk":
        picture = {"picture": torch.zeros(2, 3, 96, 128)}
        return export_part(
            Part(network, RegionNetwork.trunk_maps), picture, ["features", "fine"], {"picture": (0, 2, 3)}
        )
    features, dynamic = {"features": torch.zeros(1, TRUNK_CHANNELS, 6, 8)}, {"features": (2, 3)}
    if name == "first_pass":
        return export_part(Part(network, _first_pass_maps), features, ["parts"], dynamic)
    names: tuple[str, ...] = PROJECTIONS
    if finer:
        # Of a size of its own: rounded up twice, it is not always twice that of `features`.
        features["fine"], dynamic["fine"], names = torch.zeros(1, FINE_INPUTS, 11, 15), (2, 3), (*PROJECTIONS, "fine")
    return export_part(Part(network, _project_channels), features, [f"all_{name}" for name in names], dynamic)


def export_part(
    module: Part, inputs: Mapping[str, Tensor], outputs: Sequence[str], dynamic: Mapping[str, Sequence[int]]
) -> bytes:
    """Export the graph of a part, without its weights.

    Parameters
    ----------
    module : Part
    inputs : mapping of str to Tensor
        Inputs by name, in order; the values are only examples.
    outputs : sequence of str
        Names of the outputs.
    dynamic : mapping of str to sequence of int
        Axes of the inputs that may have any length.

    Returns
    -------
    bytes
        ONNX model; the weights are external initializers named as in ``module.network.state_dict()``.
    """
    shapes = tuple({axis: torch.export.Dim.DYNAMIC for axis in dynamic.get(name, ())} for name in inputs)
    # The exporter prints and logs its steps and its conclusions about shapes. Errors are raised nevertheless.
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
                dynamic_shapes=(shapes,),
                # From opset 19 on, ONNX Runtime's average pooling over three dimensions takes ten times as long.
                opset_version=18,
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
            tensor.name = tensor.name.removeprefix("network.")
    for node in graph.graph.node:
        # Stack traces of the exporting machine, with its paths, which the runtime does not need.
        del node.metadata_props[:]
        node.doc_string = ""
        for i, name in enumerate(node.input):
            if name in names:
                node.input[i] = name.removeprefix("network.")
    del graph.graph.value_info[:]
    del graph.graph.metadata_props[:]
    del graph.metadata_props[:]
    return graph.SerializeToString()


@contextlib.contextmanager
def _untold(name: str, steps: int) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


def to_model(
    network: RegionNetwork,
    classes: tuple[str, ...],
    *,
    long_side: int,
    box_regression: bool = True,
    scoring: str = "shared",
    trained: Mapping[str, object] | None = None,
    samples: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]] = (),
    before: RegionModel | None = None,
    progress: Progress = _untold,
) -> RegionModel:
    """Pack a trained network as a model, which runs without torch.

    Parameters
    ----------
    network : RegionNetwork
        It is changed: its first pass is fitted, if there are samples.
    classes : tuple of str
        Names of its classes.
    long_side : int
        See `RegionModel`.
    box_regression : bool
        See `RegionModel`.
    scoring : {"shared", "crops"}
        See `RegionModel`.
    trained : dict, optional
        Settings and results of the training, for the record, as JSON can hold them.
    samples : sequence of (ndarray, shape (H, W, 3), uint8; ndarray, shape (N, 4), float32)
        Pictures, RGB, and proposals in their pixels, like those that the model will get; 100 pictures are enough. Do
        not take pictures that the model is evaluated on. Without samples the model has no first pass and no graphs in 8
        bits.
    before : RegionModel, optional
        The model that the training began with. Graphs that are the same for both are taken from it, the trunk in 8 bits
        too if its weights have not changed.
    progress : callable
        Name and number of steps -> context manager that yields a function; that gets the number of steps done.

    Returns
    -------
    RegionModel
        Its ``sha256`` is empty until it is written and read.
    """
    # Each sample for the first pass, and some of them for the ranges of the upper layers and of the trunk.
    steps = len(samples) + (1 + (scoring == "shared")) * min(len(samples), PICTURES)
    with progress("first pass and ranges of 8 bits", steps) as report:
        done = itertools.count()
        graphs, weights = _derive(
            network.cpu().eval(), long_side, scoring, samples, before, lambda: report(min(next(done), steps))
        )
        report(steps)
    return RegionModel(classes, long_side, box_regression, weights, graphs, "", dict(trained or {}), scoring)


def _derive(
    network: RegionNetwork,
    long_side: int,
    scoring: str,
    samples: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]],
    before: RegionModel | None,
    step: Callable[[], None],
) -> tuple[dict[str, bytes], dict[str, NDArray[np.float16]]]:
    """Fit the first pass; return graphs by name, those in 8 bits too if there are samples, and the weights."""
    if samples:
        fit_first_pass(network, samples, long_side=long_side, scoring=scoring, step=step)
    weights = {name: p.detach().numpy().astype(np.float16) for name, p in network.named_parameters()}
    graphs = export_graphs(network.classes, scoring, **network_parts(weights), before=before)
    if samples:
        inputs = calibration_inputs(network, samples, long_side=long_side, scoring=scoring)
        if inputs:  # There are none if no picture has a proposal.
            by_region = GRAPHS[scoring][-1]
            graphs[f"{by_region}.int8"] = quantize(graphs[by_region], weights, inputs, step)
        if inputs and scoring == "shared":
            if before is not None and _same_trunk(before, weights):
                graphs["trunk.int8"] = before.graphs["trunk.int8"]
            else:
                pictures = [{"picture": prepare_picture(image, long_side)[0]} for image, _ in samples[:PICTURES]]
                graphs["trunk.int8"] = quantize(graphs["trunk"], weights, pictures, step)
    return graphs, weights


def _same_trunk(before: RegionModel, weights: Mapping[str, NDArray[np.float16]]) -> bool:
    """Tell whether a model has a trunk in 8 bits that is of these weights."""
    same = (np.array_equal(weight, before.weights.get(name, 0)) for name, weight in weights.items() if in_trunk(name))
    return "trunk.int8" in before.graphs and before.parts["finer"] == ("lateral.weight" in weights) and all(same)


def export_whole(model: RegionModel) -> bytes:
    """Export a model as one graph with its weights, for any program that runs ONNX.

    Parameters
    ----------
    model : RegionModel

    Returns
    -------
    bytes
        ONNX model in float32, opset 17. For shared scoring its inputs are ``picture`` (1, 3, H, W), see
        `preprocessing.prepare_picture`, and ``boxes`` (N, 4) in pixels of ``picture``, with any H, W and N, 0 too. For
        scoring crops its input is ``picture`` (N, 3, 224, 224), see `preprocessing.crop_regions`. The outputs are
        ``probabilities`` (N, 1 + C), column 0 background, and ``deltas`` (N, C, 4), see `preprocessing.decode_boxes`.
        The metadata has ``classes``, ``long_side``, ``scoring`` and ``box_regression`` as JSON.

    Examples
    --------
    >>> from inception_rcnn.backbone.weights.model_file import read_model
    >>> from inception_rcnn.backbone.weights.published import find_model
    >>> graph = onnx.load_from_string(export_whole(read_model(find_model("voc")))).graph
    >>> [value.name for value in graph.input], [value.name for value in graph.output]
    (['picture', 'boxes'], ['probabilities', 'deltas'])
    """
    whole = with_weights(_export_whole(len(model.classes), model.scoring, **model.parts), model.weights)
    metadata = {
        "classes": model.classes, "long_side": model.long_side, "scoring": model.scoring,
        "box_regression": model.box_regression,
    }  # fmt: skip
    onnx.helper.set_model_props(whole, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(whole)
    return whole.SerializeToString()


@cache
def _export_whole(classes: int, scoring: str, **parts: bool) -> bytes:
    """Export the graph of `export_whole` without its weights."""
    network = _network(classes, **parts)
    dimensions: dict[str, dict[int, str]]
    if scoring == "crops":
        part = Part(network, _score_crop)
        inputs = {"picture": torch.zeros(3, 3, CROP_SIDE, CROP_SIDE)}
        dimensions = {"picture": {0: REGIONS}}
    else:
        part = Part(network, _score_picture)
        boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0]]).repeat(3, 1)
        inputs = {"picture": torch.zeros(1, 3, 96, 128), "boxes": boxes}
        dimensions = {"picture": {2: "height", 3: "width"}, "boxes": {0: REGIONS}}
    axes = {name: tuple(names) for name, names in dimensions.items()}
    return make_portable(export_part(part, inputs, ["probabilities", "deltas"], axes), dimensions)
