"""Recipes of training: they refuse what they cannot be, say what they can, and survive a file."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any, get_type_hints

import numpy as np
import pytest

from inception_rcnn.backbone.weights.model_file import SCORINGS
from inception_rcnn.data.errors import SettingError
from inception_rcnn.detect.train.recipes import (
    ClassifierRecipe,
    DetectorRecipe,
    MultiBoxRecipe,
    Recipe,
    Scoring,
    allowed_values,
)

RECIPES = [DetectorRecipe, MultiBoxRecipe, ClassifierRecipe]
CHOICES = [
    (recipe, field.name, choices)
    for recipe in RECIPES
    for field in dataclasses.fields(recipe)
    if (choices := allowed_values(get_type_hints(recipe, include_extras=True)[field.name])[0])
]


def test_the_choices_are_these() -> None:
    assert {(recipe.__name__, name): choices for recipe, name, choices in CHOICES} == {
        ("DetectorRecipe", "scoring"): ("shared", "crops"),
        ("DetectorRecipe", "optimizer"): ("sgd", "adamw"),
        ("DetectorRecipe", "schedule"): ("cosine", "step"),
        ("DetectorRecipe", "box_regression"): (True, False),
        ("DetectorRecipe", "class_agnostic"): (True, False),
        ("DetectorRecipe", "finer"): (True, False),
        ("DetectorRecipe", "context"): (True, False),
        ("DetectorRecipe", "freeze"): ("stem", "trunk", "googlenet"),
        ("MultiBoxRecipe", "train_trunk"): (True, False),
        ("ClassifierRecipe", "schedule"): ("cosine", "step"),
    }
    assert allowed_values(Scoring)[0] == SCORINGS


@pytest.mark.parametrize(("recipe", "name", "choices"), CHOICES)
def test_other_choices_are_refused_and_these_named(recipe: Any, name: str, choices: tuple[object, ...]) -> None:
    for value in choices:
        assert getattr(recipe(**{name: value}), name) == value
    use = f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"
    for value in (f"{choices[0]}s", "", None, [choices[0]]):
        with pytest.raises(SettingError) as caught:
            recipe(**{name: value})
        meant = f" (did you mean {str(choices[0])!r}?)" if value == f"{choices[0]}s" else ""
        assert str(caught.value) == f"{name} {value!r} is unknown{meant}; use {use}"
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("recipe", "name", "value", "told"),
    [
        (DetectorRecipe, "batch", 0, "batch must be a whole number, 1 or more, not 0"),
        (DetectorRecipe, "batch", 2.5, "a whole number"),
        (DetectorRecipe, "epochs", float("nan"), "0 to 10000, not nan"),
        (DetectorRecipe, "scales", (), "scales must be one or more numbers, 0.05 to 4, not"),
        (DetectorRecipe, "scales", (1.0, -1.0), "one or more numbers"),
        (DetectorRecipe, "scales", 1.0, "one or more numbers"),
        (DetectorRecipe, "learning_rate", -1, "learning_rate must be a number, 0 or more, or None, not -1"),
        (DetectorRecipe, "learning_rate", "fast", "not 'fast'"),
        (DetectorRecipe, "dropout", 1.0, "0 to 0.99"),
        (MultiBoxRecipe, "epochs", 0, "0.01 to 10000"),
        (MultiBoxRecipe, "long_side", 20_000, "32 to 10000"),
        (ClassifierRecipe, "seed", -1, "0 or more"),
        (ClassifierRecipe, "momentum", None, "not None"),
    ],
)
def test_numbers_out_of_range_are_refused(recipe: Any, name: str, value: object, told: str) -> None:
    with pytest.raises(SettingError, match=told):
        recipe(**{name: value})


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_survives_a_file(recipe: type[Recipe]) -> None:
    made = recipe(batch=7, seed=3)
    again = recipe(**json.loads(json.dumps(dataclasses.asdict(made))))
    assert again == made
    assert hash(again) == hash(made)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.batch = 1  # type: ignore[misc]


def test_the_learning_rate_follows_the_optimizer() -> None:
    assert [DetectorRecipe(optimizer=name).learning_rate for name in ("sgd", "adamw")] == [0.003, 0.0001]
    assert DetectorRecipe(optimizer="adamw", learning_rate=0.5).learning_rate == 0.5


def test_recipes_need_no_torch() -> None:
    code = "import sys, inception_rcnn.detect.train.recipes; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("name", "value"), [("batch", True), ("batch", 10**400), ("learning_rate", float("inf"))])
def test_numbers_that_are_none(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        DetectorRecipe(**{name: value})  # type: ignore[arg-type]


def test_numbers_of_numpy_become_json() -> None:
    recipe = DetectorRecipe(batch=np.int64(4), epochs=np.float64(2))
    assert json.loads(json.dumps(dataclasses.asdict(recipe)))["batch"] == 4
