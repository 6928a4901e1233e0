"""Top-k errors of classifications."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_rcnn.data.errors import SettingError
from inception_rcnn.eval import EvaluationError, evaluate_classification


def naive(probabilities: np.ndarray, label: int, k: int) -> bool:
    """Whether a class is missing among the first k of a stable sort."""
    return label not in sorted(range(len(probabilities)), key=lambda c: -probabilities[c])[:k]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 12))
def test_errors_are_those_of_sorting(seed: int, pictures: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.integers(0, 6, (pictures, classes)) / 5  # with many ties
    labels = rng.integers(0, classes, pictures)
    names = [f"class {c}" for c in range(classes)]
    found = evaluate_classification(probabilities, labels, names, (1, 3))
    for k in (1, 3):
        wrong = np.array([naive(row, label, k) for row, label in zip(probabilities, labels, strict=True)])
        assert found[f"top_{k}_error"] == pytest.approx(wrong.mean())
        for label in np.unique(labels):
            own = found["per_class"][names[label]]
            assert own["pictures"] == (labels == label).sum()
            assert own[f"top_{k}_error"] == pytest.approx(wrong[labels == label].mean())
    assert len(found["per_class"]) == len(np.unique(labels))
    assert found["top_3_error"] <= found["top_1_error"]


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.1, 0.9]], [0, 1], r"shape \(1, 2\) and labels of shape \(2,\)"),
        (np.zeros((0, 2)), [], "are not of pictures and 2 classes"),
        ([[0.1, 0.9, 0.0]], [0], "are not of pictures and 2 classes"),
        ([[0.1, 0.9]], [2], "labels must be whole numbers from 0 to 1"),
        ([[0.1, 0.9]], [0.0], "labels must be whole numbers"),
        ([[np.nan, 0.9]], [0], "a probability is not a number"),
    ],
)
def test_what_cannot_be_measured(probabilities: object, labels: object, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate_classification(probabilities, labels, ["a", "b"])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(SettingError, match="classes must be a list of names"):
        evaluate_classification([[0.1, 0.9]], [0], "ab")
    for k in (0, -1, 1.5):
        with pytest.raises(SettingError, match="a number of guesses must be a whole number, 1 or more"):
            evaluate_classification([[0.1, 0.9]], [0], ["a", "b"], guesses=(k,))
