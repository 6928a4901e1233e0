"""The network that a training begins with: an earlier detector's weights, ImageNet's, or some of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ...backbone.regions.network import RegionNetwork
from ...backbone.regions.torch_engine import torch_network
from ...backbone.weights.model_file import RegionModel, in_trunk
from ...data.classes.spelling import labels_in
from .recipes import DetectorRecipe
from .teacher import Teacher


def first_detector(
    names: Sequence[str],
    before: RegionModel | None,
    imagenet: Mapping[str, Tensor] | None,
    recipe: DetectorRecipe,
    teacher: Teacher | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> RegionNetwork:
    """Make the network that a training begins with.

    Parameters
    ----------
    names : sequence of str
        The classes to learn.
    before : RegionModel, optional
        The detector to go on from; it may have other classes.
    imagenet : mapping of str to Tensor, optional
        Weights of a classifier, see `inception_rcnn.backbone.weights.published.load_imagenet`: of all layers, or with
        `before` of the upper ones.
    recipe : DetectorRecipe
    teacher : Teacher, optional
        If the upper layers are a teacher's, so are the scores of the classes that it knows.
    tell : callable
        Gets a line if the detector before has other classes.

    Returns
    -------
    RegionNetwork

    Examples
    --------
    >>> from inception_rcnn.backbone.googlenet import GoogLeNet
    >>> state = GoogLeNet(1000).state_dict()
    >>> first_detector(("cat", "dog"), None, state, DetectorRecipe()).classes
    2
    """
    network = RegionNetwork(
        len(names), finer=recipe.finer, context=recipe.context, class_agnostic=recipe.class_agnostic, seed=recipe.seed
    )
    if imagenet is not None:
        network.googlenet.load_state_dict({layer: imagenet[layer] for layer in network.googlenet.state_dict()})
    if before is not None:
        own = network.state_dict()
        state = torch_network(before.weights, len(before.classes), "cpu").state_dict()
        if imagenet is not None:
            state = {name: value for name, value in state.items() if in_trunk(name)}
        else:
            state = _for_classes(state, own, before.classes, names, tell, class_agnostic=recipe.class_agnostic)
        network.load_state_dict({**own, **{name: value for name, value in state.items() if name in own}})
    if teacher is not None:
        _begin_as_taught(network, teacher)
    return network


def _begin_as_taught(network: RegionNetwork, teacher: Teacher) -> None:
    """Give the scores of classes the weights that a teacher has for them, where the upper layers are the teacher's.

    Each of a region's nine parts has a ninth of them.
    """
    own, its = (one.inception_5b.state_dict() for one in (network.googlenet, teacher.network))
    if not all(torch.equal(value.cpu(), its[name].cpu()) for name, value in own.items()):
        return
    weight, bias, known = teacher.class_weights()
    rows = 1 + known.nonzero()[:, 0]
    parts = network.score.in_features // weight.shape[1]
    with torch.no_grad():
        network.score.weight[rows] = weight[known].repeat(1, parts) / parts
        network.score.bias[rows] = bias[known]


def _for_classes(
    state: dict[str, Tensor],
    first: Mapping[str, Tensor],
    before: Sequence[str],
    names: Sequence[str],
    tell: Callable[[str], None],
    *,
    class_agnostic: bool,
) -> dict[str, Tensor]:
    """Turn weights of a detector into those of one for other classes, or for the same in another order.

    Classes that both have keep their scores and deltas. The scores of the others are left out, and their deltas begin
    as the mean of all; so do deltas that all classes share.
    """
    order = labels_in(names, before)
    known = torch.from_numpy(order >= 0)
    if not known.all():
        new = f"the scores of {(~known).sum()} of {len(names)}" if known.any() else "their scores"
        tell(f"the detector of --start has other classes: {new} are learned from nothing, the layers below go on")
    found = {name: value for name, value in state.items() if not name.startswith(("score.", "context.", "delta."))}
    rows = torch.from_numpy(np.concatenate([[0] if known.any() else [], 1 + order[order >= 0]]).astype(np.int64))
    kept = torch.cat([known.any()[None], known])
    for name, value in state.items():
        if name.startswith(("score.", "context.")) and name in first:
            found[name] = first[name].clone()
            found[name][kept] = value[rows]
    for name in ("delta.weight", "delta.bias"):
        deltas = state[name].unflatten(0, (-1, 4))
        mean = deltas.mean(0)
        each = [deltas[label] if 0 <= label < len(deltas) else mean for label in order]
        found[name] = mean if class_agnostic else torch.cat(each)
    return found
