"""A region model with random weights, for the tests of two rooms: exporting one takes seconds."""

from functools import cache

import torch
from torch import nn

from inception_rcnn.backbone.export import graphs as export
from inception_rcnn.backbone.export.graphs import to_model
from inception_rcnn.backbone.regions.network import RegionNetwork
from inception_rcnn.backbone.weights.model_file import RegionModel, read_model
from inception_rcnn.backbone.weights.published import BUNDLED

CLASSES = ("cat", "dog", "person")


def random_network(
    seed: int = 0, classes: int = len(CLASSES), *, parts: bool = True, class_agnostic: bool = False
) -> RegionNetwork:
    """Network whose outputs differ between regions; with torch's own initial weights signals die out on the way.

    `parts` are finer features and context.
    """
    network = RegionNetwork(classes, finer=parts, context=parts, class_agnostic=class_agnostic, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for module in network.googlenet.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            nn.init.normal_(module.bias, std=0.1, generator=generator)
    with torch.no_grad():
        network.score.weight.mul_(0.03)
        network.delta.weight.mul_(0.1)
        if network.finer is not None and network.context is not None:  # These begin with zeros.
            nn.init.normal_(network.finer.weight, std=0.03, generator=generator)
            nn.init.normal_(network.context.weight, std=0.0003, generator=generator)
        # As trained networks have them: the exporter drops what is zero.
        for layer in (network.score, network.delta):
            nn.init.normal_(layer.bias, std=0.1, generator=generator)
    return network.eval()


real_export_common = export.export_common


@cache
def stored_graph(name: str, *, finer: bool = False) -> bytes:
    """Return a graph that is the same in all models from a bundled one, or a new one where there is none."""
    stored = BUNDLED / "voc.safetensors"
    model = read_model(stored) if stored.is_file() else None
    if model is None or (finer if name == "project" else True) != model.parts["finer"]:
        return real_export_common(name, finer=finer)
    return model.graphs[name]


# Exporting takes seconds; `test_exported_models` proves that what is stored is what would be exported.
export.export_common = stored_graph


@cache
def random_model() -> RegionModel:
    """Return that network as a model file holds it."""
    return to_model(random_network(), CLASSES, long_side=128, trained={"epochs": 0})
