"""A region model with random weights, for the tests of two rooms: exporting one takes seconds."""

from functools import cache

import torch
from torch import nn

from inception_rcnn.backbone.export import to_model
from inception_rcnn.backbone.model_file import RegionModel
from inception_rcnn.backbone.regions import RegionNetwork

CLASSES = ("cat", "dog", "person")


def random_network(seed: int = 0) -> RegionNetwork:
    """Network whose outputs differ between regions; with torch's own initial weights signals die out on the way."""
    network = RegionNetwork(len(CLASSES), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for module in network.googlenet.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            nn.init.normal_(module.bias, std=0.1, generator=generator)
    with torch.no_grad():
        network.score.weight.mul_(0.03)
        network.delta.weight.mul_(0.1)
    return network.eval()


@cache
def random_model() -> RegionModel:
    """Return that network as a model file holds it."""
    return to_model(random_network(), CLASSES, long_side=128, trained={"epochs": 0})
