"""What a run says at its end, and which side it says is slower."""

from __future__ import annotations

from pathlib import Path

import pytest

from inception_rcnn.detect.runs.summary import RunSummary

OUTPUT, ERRORS = Path("out"), Path("out.errors.jsonl")


@pytest.mark.parametrize(
    ("waiting", "read", "search", "told"),
    [
        (0.0, 5.0, 1.0, "neural network"),
        (0.2, 5.0, 1.0, "neural network"),
        (3.0, 5.0, 1.0, "reading pictures"),
        (3.0, 1.0, 5.0, "selective search"),
    ],
)
def test_the_slower_side(waiting: float, read: float, search: float, told: str) -> None:
    seconds = {"wait for pictures": waiting, "read": read, "search": search, "trunk": 1.0, "score": 2.0}
    summary = RunSummary(seconds=seconds)
    assert summary.waiting_share == pytest.approx(waiting / (waiting + 3))
    assert summary.bottleneck == told


def test_closing_lines_of_a_detection() -> None:
    seconds = {"wait for pictures": 3.0, "read": 2.0, "trunk": 1.0, "total": 4.56}
    summary = RunSummary(12, 2, 3, 1, 100, {"cat": 1, "dog": 4, "bird": 1}, seconds, draw_score=0.4)
    first, *rest = summary.closing_lines(OUTPUT)
    assert first == "12 pictures (2 of them by an earlier run) in 4.6 s -> out"
    assert rest == ["found at 0.4 or more: dog 4, bird 1, cat 1"]
    assert summary.problem_lines(ERRORS) == [
        "3 files could not be processed, see out.errors.jsonl",
        "1 of them may succeed at another try; the same command tries those again",
    ]
    advice = "the neural network waited 75% of its time for reading pictures; more --workers would be faster"
    assert summary.closing_lines(OUTPUT, idle_cores=True) == [first, advice, *rest]
    # Too few pictures to judge by.
    summary.resumed = 3
    assert len(summary.closing_lines(OUTPUT, idle_cores=True)) == 2


@pytest.mark.parametrize(
    ("repaired", "told"), [(1, "1 file is damaged, but not in the p"), (2, "2 files are damaged, b")]
)
def test_repaired_files_are_counted(repaired: int, told: str) -> None:
    summary = RunSummary(pictures=3, repaired=repaired, seconds={"total": 1.0})
    assert summary.problem_lines(ERRORS)[-1].startswith(told)


def test_when_a_run_should_be_repeated() -> None:
    assert not RunSummary(pictures=3, failed=1).should_be_repeated
    assert RunSummary(pictures=3, failed=1, retryable=1).should_be_repeated
    assert RunSummary(failed=1).should_be_repeated
    assert not RunSummary().should_be_repeated
