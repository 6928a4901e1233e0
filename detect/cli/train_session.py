"""Parts that the commands of ``train`` share: checks before the training, its files, what is printed."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ...data import MAX_PIXELS, VOC_CLASSES
from ...data.classes.reading import read_class_list
from ...data.errors import CommandError, first_names, needs_packages
from ...data.system.atomic_files import only_writer
from ..train.data import check_folder, classes_to_learn
from .terminal import console, print_problem
from .termination import INTERRUPTED

if TYPE_CHECKING:
    from ...backbone.weights.model_file import RegionModel
    from ...proposals.multibox.file import MultiBoxModel
    from ..train.loop import RunSettings
    from ..train.process_group import ProcessGroup

# How the columns of a training's log are printed.
_COLUMNS = {
    "step": "step {:.0f}", "steps": "of {:.0f}", "epoch": "epoch {:.2f}", "loss": "loss {:.3f}",
    "classification": "classification {:.3f}", "regression": "regression {:.3f}", "location": "location {:.3f}",
    "confidence": "confidence {:.3f}", "accuracy": "foreground right {:.2f}", "training_error": "wrong {:.1%}",
    "top_1_error": "top-1 error {:.1%}", "top_5_error": "top-5 error {:.1%}", "unreadable": "{:.0f} unreadable",
    "mAP": "mAP {:.3f} on those set aside", "recall_50": "recall {:.1%} of the first 50",
    "recall_200": "{:.1%} of the first 200",
}  # fmt: skip


def print_once(text: str) -> None:
    """Print a line, in the first of several processes that train together."""
    if os.environ.get("RANK", "0") == "0":
        console.print(text)


def warn_once(text: str) -> None:
    """Print a line in the first process, whatever ``--quiet`` says."""
    if os.environ.get("RANK", "0") == "0":
        print_problem(text)


def read_classes(classes: str | None, data: Sequence[Path], split: str) -> tuple[str, ...]:
    """Read the classes to learn, or choose them by the data, and tell which."""
    for folder in data:
        check_folder(folder)
    if classes is not None:
        return read_class_list(classes)
    names = classes_to_learn(data, split)
    if names != VOC_CLASSES:
        print_once(f"classes, all that are labelled: {first_names(names, 10)}")
    return names


@contextmanager
def training_session(device: str, *outputs: Path, suffix: str = ".safetensors") -> Iterator[ExitStack]:
    """Check outputs, packages and device before a training; turn interruptions and bad losses into one line.

    Yields
    ------
    ExitStack
        What is entered there lasts as long as the training.
    """
    for output in outputs:
        if not output.parent.is_dir():
            raise OSError(2, "no such folder", str(output.parent))
        if output.is_dir():
            raise CommandError(f"{output}: is a folder; name a file")
        if output.suffix != suffix:
            raise CommandError(f"{output}: what is trained is written as {suffix}; name the file so")
    if len({output.absolute() for output in outputs}) < len(outputs):
        raise CommandError(f"{outputs[0]}: --output and --multibox-output are two files; name another")
    with needs_packages("training", "train"):
        from ...backbone.export import graphs as export  # noqa: F401 - needed after the training
        from ...backbone.regions.placement import choose_device
    choose_device(device)
    try:
        with ExitStack() as session:
            yield session
    except FloatingPointError as error:
        raise CommandError(str(error)) from None
    except KeyboardInterrupt:
        warn_once("interrupted; add --resume to the same command, and it goes on: at most a minute's work is lost")
        raise typer.Exit(INTERRUPTED) from None


def usual_multibox(classes: Sequence[str], start: str | None, before: RegionModel | None) -> str:
    """Name the MultiBox of a training: that of the detector to go on from, if it has the same classes and one."""
    from ...proposals.multibox.file import default_multibox

    same = before is not None and before.classes == tuple(classes)
    return default_multibox(classes, start if same else None)


def proposer_settings(
    multibox: str, head: MultiBoxModel, start: str | None, before: RegionModel | None
) -> dict[str, Any]:
    """Return what `load_proposer` takes to merge the boxes of a MultiBox with those of selective search.

    Parameters
    ----------
    multibox : str
        Its name or file.
    head : MultiBoxModel
        What was read there.
    start : str, optional
        Name or file of a detector to go on from.
    before : RegionModel, optional
        What was read there.
    """
    # A detector to go on from may have left behind the trunk that the MultiBox stands on.
    fits = before is not None and before.trunk_sha256 == head.trunk_sha256
    return {"multibox": multibox, "detector": start if fits else "voc", "device": "cpu", "threads": 1}


def prepare_run(
    session: ExitStack,
    cache: Path,
    name: str,
    *,
    resume: bool,
    time_limit: float | None,
    group: ProcessGroup,
    max_pixels: int = MAX_PIXELS,
    meaning: str = "",
) -> RunSettings:
    """Make the settings of a run that keeps its checkpoint and log in the cache, and prints the log.

    Without `resume`, files of an earlier training of the name are renamed. No other training of the name can begin in
    this cache until the session ends.

    Parameters
    ----------
    session : ExitStack
        See `training_session`.
    cache : Path
    name : str
        Of the checkpoint and the log.
    resume : bool
    time_limit : float, optional
        Minutes.
    group : ProcessGroup
    max_pixels : int
        See `inception_rcnn.data.read_image`.
    meaning : str
        What the columns of the log are, which is printed first.
    """
    from ..train.log import open_log
    from ..train.loop import RunSettings

    checkpoint, log = cache / f"{name}.checkpoint.safetensors", cache / f"{name}.jsonl"
    seconds = math.inf if time_limit is None else time_limit * 60
    run = RunSettings(group, checkpoint, resume, seconds, max_pixels=max_pixels)
    if group.rank > 0:
        return run
    cache.mkdir(parents=True, exist_ok=True)
    session.enter_context(only_writer(checkpoint))
    if not resume:
        _move_aside(checkpoint, log, log.with_suffix(""))
    elif checkpoint.exists():
        print_once(f"goes on from {checkpoint}")
    else:
        print_once(f"{checkpoint}: no such checkpoint, so from the beginning")
    print_once(f"{cache}: has the proposals, checkpoints and log of this training; delete it when all is trained")
    if meaning:
        print_once(f"a line of progress has:\n{meaning}")
    write = open_log(log)

    def report(row: dict[str, float]) -> None:
        write(row)
        columns = [text.format(row[column]) for column, text in _COLUMNS.items() if column in row]
        # Rounded up: no minute is left when it ends, and not before.
        print_once("  ".join([*columns, f"{math.ceil(row['seconds_left'] / 60)} min left"]))

    return replace(run, report=report)


def _move_aside(checkpoint: Path, *others: Path) -> None:
    if checkpoint.exists():
        print_once(
            f"{checkpoint}: of an earlier training, kept as {checkpoint.name}.before; --resume would go on with it"
        )
    for path in (checkpoint, *others):
        before = path.with_name(f"{path.name}.before")
        if path.is_dir():
            shutil.rmtree(before, ignore_errors=True)
        if path.exists():
            path.replace(before)


def leave_unless_done(finished: bool, group: ProcessGroup) -> None:
    """End the command if time was up, and in all processes but the first, which writes the model."""
    if not finished:
        warn_once("time is up; the same command with --resume goes on")
    if not finished or group.rank > 0:
        raise typer.Exit
