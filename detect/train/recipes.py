"""The recipes of training: every hyper-parameter and its default, once. Imports no torch."""

import math
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args, get_type_hints

from ...data.arguments import check_choice, check_number, check_numbers

Scoring: TypeAlias = Literal["shared", "crops"]
Optimizer: TypeAlias = Literal["sgd", "adamw"]
Decay: TypeAlias = Literal["cosine", "step"]
Frozen: TypeAlias = Literal["stem", "trunk", "googlenet"]
Head: TypeAlias = Literal["grid", "vector"]

# Pictures are shown at one of these shares of the size that the network is used at.
SCALES = (0.65, 0.8, 0.95, 1.1)
# Peak of a detector's learning rate, and its weight decay. AdamW moves a weight by the rate, whatever its gradient.
LEARNING_RATES: dict[Optimizer, float] = {"sgd": 0.003, "adamw": 0.0001}
WEIGHT_DECAYS: dict[Optimizer, float] = {"sgd": 5e-4, "adamw": 0.01}
# Priors of a cell, or of the whole vector.
PRIORS: dict[Head, int] = {"grid": 5, "vector": 200}
# Steps in which the learning rate rises to its peak; a tenth of all steps if that is less.
WARM_UP_STEPS = 200
# Largest norm of the gradients of all weights together.
GRADIENT_NORM = 10.0


class Between(NamedTuple):
    """The range of a number, both ends included."""

    low: float
    high: float = math.inf


Seed: TypeAlias = Annotated[int, Between(0)]
Epochs: TypeAlias = Annotated[float, Between(0.01, 10_000)]
# What a model file can hold.
LongSide: TypeAlias = Annotated[int, Between(32, 10_000)]
Count: TypeAlias = Annotated[int, Between(1)]
Share: TypeAlias = Annotated[float, Between(0, 1)]
Weight: TypeAlias = Annotated[float, Between(0)]
Scales: TypeAlias = Annotated[tuple[float, ...], Between(0.05, 4)]


@dataclass(frozen=True)
class DetectorRecipe:
    """How a detector is trained.

    Attributes
    ----------
    scoring : {"shared", "crops"}
        Read regions out of the picture's features (Fast R-CNN), or crop each (R-CNN).
    epochs : float
        Passes over the pictures; each time that one is shown counts.
    batch : int
        Pictures a step, of all processes together.
    regions : int
        Regions of a picture in each step.
    second_look : int
        Regions of a step that are read again where their box regression has moved them; not with crops.
    optimizer : {"sgd", "adamw"}
        Momentum SGD as R-CNN's, or AdamW, which is better for a MultiBox that learns along.
    learning_rate : float, optional
        Its peak; default 0.003 for SGD, 0.0001 for AdamW.
    schedule : {"cosine", "step"}
        How the learning rate falls: smoothly to 1 % of its peak, or to a tenth for the last quarter.
    finer, context : bool
        Parts that the network has, see `inception_rcnn.backbone.regions.network.RegionNetwork`; not with crops.
    box_regression : bool
        Learn to correct the proposals; the GoogLeNet team did not.
    class_agnostic : bool
        Correct the proposals alike for all classes; smaller files where there are many.
    freeze : {"stem", "trunk", "googlenet"}
        Layers that are not trained: before inception 3a; up to 4e, so that a MultiBox fits; or all but the new.
    scales : tuple of float
        Pictures are resized to one of these shares of `long_side`, drawn for each showing; not with crops.
    long_side : int
        Pixels of the longer side of pictures when the network is used.
    seed : int
        Of all random numbers.
    candidates : int
        Number of a picture's best proposals from which regions are drawn.
    foreground : float
        Largest share of foreground among the regions.
    dropout : float
        Share of inception 5b's channels that a region loses.
    rare_share : float
        Classes in less than this share of the pictures are shown more often, see
        `inception_rcnn.detect.train.sampling.repeat_factors`.
    momentum : float
        Of SGD.
    new_layer_rate, multibox_rate : float
        Learning rates of the new layers, and of a MultiBox that learns along, as multiples of the others'.
    multibox_weight : float
        Weight of the loss of a MultiBox that learns along. With 0.2 its gradients in the trunk are about as large as
        those of the regions.
    averaging : float
        Share of the old average in the running average of the weights, which is what a training ends with (Polyak and
        Juditsky, 1992); 0 ends with the last weights.

    Raises
    ------
    SettingError
        If a choice is unknown or a number out of range.

    Examples
    --------
    >>> DetectorRecipe(optimizer="adamw").learning_rate
    0.0001
    >>> DetectorRecipe(freeze="head")
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: freeze 'head' is unknown; use stem, trunk or googlenet
    """

    scoring: Scoring = "shared"
    epochs: Annotated[float, Between(0, 10_000)] = 2.5
    batch: Count = 4
    regions: Annotated[int, Between(4)] = 48
    second_look: Annotated[int, Between(0)] = 8
    optimizer: Optimizer = "sgd"
    learning_rate: Weight | None = None
    schedule: Decay = "cosine"
    finer: bool = True
    context: bool = True
    box_regression: bool = True
    class_agnostic: bool = False
    freeze: Frozen = "stem"
    scales: Scales = SCALES
    long_side: LongSide = 640
    seed: Seed = 0
    candidates: Count = 300
    foreground: Share = 0.25
    dropout: Annotated[float, Between(0, 0.99)] = 0.4
    rare_share: Share = 0.1
    momentum: Share = 0.9
    new_layer_rate: Weight = 2.0
    multibox_rate: Weight = 5.0
    multibox_weight: Weight = 0.2
    averaging: Annotated[float, Between(0, 0.99999)] = 0.999

    def __post_init__(self) -> None:
        check_recipe(self)
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", LEARNING_RATES[self.optimizer])
        if self.scoring == "crops":
            vars(self).update(finer=False, context=False, second_look=0)


@dataclass(frozen=True)
class MultiBoxRecipe:
    """How a MultiBox is trained, by AdamW.

    Attributes
    ----------
    train_trunk : bool
        Train the trunk too, from inception 3a up.
    epochs : float
        Passes over the pictures.
    batch : int
        Pictures a step, of all processes together.
    learning_rate : float
        Its peak; a trunk learns at a tenth of it.
    scales : tuple of float
        Pictures are resized to one of these shares of `long_side`, drawn for each showing.
    long_side : int
        Pixels of the longer side of pictures when the head is used.
    seed : int
        Of all random numbers.
    trunk_rate : float
        The trunk's learning rate as a multiple of the head's.
    weight_decay : float
    far_background : float
        Weight of background that no object is near; below 1, unlabelled objects are proposed more often.

    Raises
    ------
    SettingError
        If a number is out of range.

    Examples
    --------
    >>> MultiBoxRecipe(batch=0)
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: batch must be a whole number, 1 or more, not 0
    """

    train_trunk: bool = False
    epochs: Epochs = 2.3
    batch: Count = 4
    learning_rate: Weight = 0.001
    scales: Scales = SCALES
    long_side: LongSide = 640
    seed: Seed = 0
    trunk_rate: Weight = 0.1
    weight_decay: Weight = 0.01
    far_background: Share = 1.0

    def __post_init__(self) -> None:
        check_recipe(self)


@dataclass(frozen=True)
class ClassifierRecipe:
    """How a classifier is trained, by momentum SGD.

    The defaults of `epochs`, `batch` and `learning_rate` are those of BVLC's ``quick_solver.prototxt``.

    Attributes
    ----------
    epochs : float
        Passes over the pictures.
    batch : int
        Pictures a step, of all processes together.
    learning_rate : float
        Its peak.
    schedule : {"cosine", "step"}
        How the learning rate falls: smoothly to 1 % of its peak, or by 4 % every 8 epochs (the paper).
    momentum, weight_decay : float
    size : int
        Pixels of a crop's sides; auxiliary classifiers need 224.
    seed : int
        Of all random numbers.
    auxiliary_weight : float
        Weight of the loss of each auxiliary classifier.

    Raises
    ------
    SettingError
        If a choice is unknown or a number out of range.

    References
    ----------
    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, sections 5 and 6.

    Examples
    --------
    >>> ClassifierRecipe(batch=256).epochs
    60.0
    """

    epochs: Epochs = 60.0
    batch: Count = 32
    learning_rate: Weight = 0.01
    schedule: Decay = "cosine"
    momentum: Share = 0.9
    weight_decay: Weight = 2e-4
    size: Count = 224
    seed: Seed = 0
    auxiliary_weight: Weight = 0.3

    def __post_init__(self) -> None:
        check_recipe(self)


Recipe: TypeAlias = DetectorRecipe | MultiBoxRecipe | ClassifierRecipe


def allowed_values(hint: Any) -> tuple[tuple[object, ...], Between]:
    """Read the allowed values of a field from its type: the choices, if there are any, and the range of a number.

    Examples
    --------
    >>> allowed_values(Decay)
    (('cosine', 'step'), Between(low=-inf, high=inf))
    >>> allowed_values(Weight | None)
    ((), Between(low=0, high=inf))
    """
    parts = _parts(hint)
    limits = next((part for part in parts if isinstance(part, Between)), Between(-math.inf))
    return ((True, False) if bool in parts else tuple(part for part in parts if isinstance(part, str))), limits


def _parts(hint: Any) -> set[Any] | list[Any]:
    """List what a type is made of: types, choices, ranges."""
    inner = () if isinstance(hint, Between) else get_args(hint)
    return [part for one in inner for part in _parts(one)] if inner else [hint]


def check_setting(name: str, value: Any, hint: Any) -> Any:
    """Return a value that is one of the choices, or in the range, of its type; numbers as Python's own.

    Raises
    ------
    SettingError
        If it is not.

    Examples
    --------
    >>> check_setting("head", "tree", Head)
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: head 'tree' is unknown; use grid or vector
    """
    choices, (low, high) = allowed_values(hint)
    if choices:
        return check_choice(name, value, choices)
    parts, most = _parts(hint), None if high == math.inf else high
    if Ellipsis in parts:
        return check_numbers(name, value, low, most)
    return check_number(name, value, low, most, whole=int in parts, optional=NoneType in parts)


def check_recipe(recipe: object) -> None:
    """Check every field of a recipe by `check_setting`."""
    for name, hint in get_type_hints(type(recipe), include_extras=True).items():
        vars(recipe)[name] = check_setting(name, getattr(recipe, name), hint)
