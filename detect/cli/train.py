"""``inception-rcnn train``: from labelled pictures to a model file."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
import typer
from numpy.typing import NDArray

from ...data import Picture
from ...data.class_measures import ClassMeasure
from ...data.errors import CommandError, EvaluationError, ModelError, UserError
from ...data.system.processes import usable_cores
from ...eval import Matches
from ...eval.reliability import fit_score_calibration
from ...eval.voc import summarise_matches
from ...proposals import load_proposer
from ..train.data import read_training_pictures
from ..train.recipes import (
    PRIORS,
    ClassifierRecipe,
    Decay,
    DetectorRecipe,
    Frozen,
    Head,
    MultiBoxRecipe,
    Optimizer,
    Scoring,
    check_setting,
)
from ..train.shards import is_packed, read_pixels
from .evaluate import make_table
from .examples import examples
from .options import DEFAULT_MAX_PIXELS, MaxPixels, Quiet, derived_option, detector_names, multibox_names, weight_names
from .terminal import console, download_bar, print_problem, progress_bar
from .train_options import Cache, Classes, Data, Device, Output, Resume, Split, TimeLimit, recipe_option
from .train_session import (
    leave_unless_done,
    prepare_run,
    print_once,
    proposer_settings,
    read_classes,
    training_session,
    usual_multibox,
    warn_once,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ...backbone.regions.network import RegionNetwork
    from ...backbone.weights.model_file import RegionModel
    from ...proposals.multibox.network import GridHead, VectorHead


# With fewer pictures set aside the scores are not calibrated, and a figure is said to be of so few.
MIN_CALIBRATION_PICTURES = 20
# Pictures on which a class without boxes is measured, at most.
MOST_OF_A_CLASS = 10
# Of --multibox: no file, but a head with weights of its own.
NEW = "new"

train = typer.Typer(
    help="Train models on labelled pictures.", epilog=examples("train"), no_args_is_help=True, rich_markup_mode=None
)


@train.command("detector", epilog=examples("train detector"))
def train_detector_command(
    data: Data,
    output: Output,
    classes: Classes = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            autocompletion=weight_names,
            help="ImageNet weights; with --start of the upper layers only.  [default: googlenet-bvlc, or none]",
        ),
    ] = None,
    scoring: Annotated[Scoring | None, recipe_option(DetectorRecipe, "scoring", instead="that of --start")] = None,
    epochs: Annotated[float, recipe_option(DetectorRecipe, "epochs", "0: write --start anew.")] = DetectorRecipe.epochs,
    batch: Annotated[int, recipe_option(DetectorRecipe, "batch")] = DetectorRecipe.batch,
    regions: Annotated[int, recipe_option(DetectorRecipe, "regions")] = DetectorRecipe.regions,
    second_look: Annotated[int, recipe_option(DetectorRecipe, "second_look")] = DetectorRecipe.second_look,
    optimizer: Annotated[Optimizer, recipe_option(DetectorRecipe, "optimizer")] = DetectorRecipe.optimizer,
    learning_rate: Annotated[float | None, recipe_option(DetectorRecipe, "learning_rate")] = None,
    schedule: Annotated[Decay, recipe_option(DetectorRecipe, "schedule")] = DetectorRecipe.schedule,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            autocompletion=detector_names,
            help="A detector to go on from; may have other classes.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            autocompletion=weight_names,
            help="ImageNet weights that tell what regions of ILSVRC's classes without boxes are.",
        ),
    ] = None,
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Pictures without labels, for a teacher to explain; repeat for more."),
    ] = None,
    localisation: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="ILSVRC 2012's pictures, whose odd half measures the classes that no folder has boxes of.",
        ),
    ] = None,
    freeze: Annotated[Frozen, recipe_option(DetectorRecipe, "freeze")] = DetectorRecipe.freeze,
    method: Annotated[
        str,
        typer.Option(
            metavar="merged|selective-search",
            help="Where the regions come from.",
        ),
    ] = "merged",
    multibox: Annotated[
        str | None,
        derived_option(
            "NAME|FILE|new",
            "A MultiBox; new: a head from nothing learns along.",
            "voc; any, if VOC lacks a class",
            autocompletion=lambda: [*multibox_names(), NEW],
        ),
    ] = None,
    multibox_output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Have its head learn along, and write it."),
    ] = None,
    box_regression: Annotated[bool, recipe_option(DetectorRecipe, "box_regression")] = DetectorRecipe.box_regression,
    class_agnostic: Annotated[
        bool | None, recipe_option(DetectorRecipe, "class_agnostic", instead="as --start")
    ] = None,
    long_side: Annotated[int | None, recipe_option(DetectorRecipe, "long_side", instead="that of --start")] = None,
    split: Split = "trainval",
    seed: Annotated[int, recipe_option(DetectorRecipe, "seed")] = DetectorRecipe.seed,
    device: Device = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes that compute proposals.  [default: one a core]")
    ] = None,
    graphs_apart: Annotated[
        bool, typer.Option("--graphs-apart", help="Write what is derived from the weights to files beside them.")
    ] = False,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    cache: Cache = Path("cache"),
    time_limit: TimeLimit = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a detector on labelled pictures; torchrun starts it on several GPUs."""
    with training_session(device, output, *([] if multibox_output is None else [multibox_output])) as session:
        from ...backbone.weights.model_file import read_model
        from ...backbone.weights.published import find_model
        from ...proposals.multibox.file import default_multibox, find_multibox, read_multibox
        from ...proposals.multibox.network import from_model, head_for
        from ..train.class_measures import learned_from
        from ..train.detector import train_detector
        from ..train.first_weights import first_detector
        from ..train.multibox import LIMITS, find_priors
        from ..train.process_group import join_process_group
        from ..train.proposal_cache import ProposalCache
        from ..train.teacher import Teacher
        from ..train.validation import propose_all

        names = read_classes(classes, data, split)
        before = None if start is None else read_model(find_model(start))
        usual = default_multibox(names)
        if multibox is None:
            multibox = usual_multibox(names, start, before)
        if class_agnostic is None:
            class_agnostic = before is not None and before.parts["class_agnostic"]
        recipe = DetectorRecipe(
            scoring=scoring or (cast(Scoring, before.scoring) if before else DetectorRecipe.scoring),
            long_side=long_side or (before.long_side if before else DetectorRecipe.long_side),
            epochs=epochs, batch=batch, regions=regions, second_look=second_look, optimizer=optimizer,
            learning_rate=learning_rate, schedule=schedule, freeze=freeze, box_regression=box_regression,
            class_agnostic=class_agnostic, seed=seed,
        )  # fmt: skip
        along = multibox_output is not None
        if method == "multibox":
            raise CommandError("--method multibox: its 200 boxes are too few to learn from; use merged")
        if multibox == NEW and (not along or epochs == 0):
            raise CommandError("--multibox new: there is no such MultiBox before it is trained; add --multibox-output")
        if epochs == 0 and (before is None or before.classes != names or weights is not None):
            raise CommandError(
                "--epochs 0: there is nothing trained to write; name a --start of the same classes, and no --weights"
            )
        if along and (method == "selective-search" or recipe.scoring == "crops"):
            raise CommandError(
                "--multibox-output: a MultiBox learns along with shared scoring only, and the regions are its own"
            )
        known = method != "selective-search" and multibox != NEW
        proposing = read_multibox(find_multibox(multibox)) if known else None
        settings: dict[str, Any] = {}
        if proposing is not None:
            settings = proposer_settings(multibox, proposing, start, before)
            if along and (start is None or settings["detector"] != start):
                print_once(f"{multibox} was trained on another trunk; its head learns to stand on this one")
        group = join_process_group(device)
        taught_by = None
        if teacher is not None:
            # Before the pictures are read, and proposals computed for hours: it may know none of the classes.
            with download_bar(teacher) as report:
                taught_by = Teacher.load(teacher, names, group.device, report)
        elif unlabelled:
            raise CommandError("--unlabelled: only a teacher can tell what is in such pictures; add --teacher")
        imagenet = None
        if before is None or weights is not None:
            imagenet = _read_imagenet(weights or "googlenet-bvlc", "the detector")
        network = first_detector(names, before, imagenet, recipe, taught_by, print_once)
        training, validation = read_training_pictures(
            data, names, split, tell=print_once, warn=warn_once, progress=progress_bar,
            max_pixels=max_pixels, unlabelled=unlabelled or (),
        )  # fmt: skip
        boxed = np.bincount([label for picture in training for label in picture.labels.tolist()], minlength=len(names))
        one_class: list[Picture] = []
        if localisation is not None and group.rank == 0:
            one_class = _pictures_of_one_class(localisation, names, training, boxed)
        proposals = None
        if not along:
            proposer = load_proposer(method, **settings)
            objectness = proposer.has_objectness(names)
            proposals = ProposalCache(cache / "proposals", proposer, objectness=objectness, max_pixels=max_pixels)
        run = prepare_run(
            session, cache, f"{output.stem}.detector", resume=resume, time_limit=time_limit, group=group,
            max_pixels=max_pixels, meaning="  losses: should fall\n"
            "  foreground right: share of regions on objects that get their class; may fall to 0 first, then rises\n"
            f"  mAP: from 0 to 1, {_on_set_aside(len(validation))}\n"
            "  min left: until the weights are learned; then comes what makes the model faster",
        )  # fmt: skip
        samples = _sample_pictures(training, seed)
        if proposals is not None:
            share = (samples if epochs == 0 else [*training, *validation])[group.rank :: group.world]
            with progress_bar("proposals", len(share)) as report:
                proposals.fill(share, workers or usable_cores(), report)
        head = None
        if along and proposing is not None:
            head = from_model(proposing)
        elif along:
            priors = find_priors(training, head="grid", number=PRIORS["grid"], long_side=recipe.long_side, seed=seed)
            head = head_for(priors, seed=seed)
        finished = epochs == 0 or train_detector(
            network, training, proposals, validation, recipe, multibox=head, teacher=taught_by, run=run
        )
        leave_unless_done(finished, group)
        trained: dict[str, object] = {
            **asdict(recipe), "pictures": len(training), "method": "multibox" if along else method,
            "multibox": None if proposing is None else _file_name(multibox),
            "weights": _file_name(weights or (None if before else "googlenet-bvlc")),
        }  # fmt: skip
        if teacher is not None:
            trained["teacher"] = _file_name(teacher)
        if before is not None:
            trained |= {"start_sha256": before.sha256, "start": before.trained}
            trained = before.trained if epochs == 0 else trained
        if head is not None and multibox_output is not None:
            record = {"along": trained, "start": _file_name(multibox)}
            _write_head(
                multibox_output, head, network, validation, recipe.long_side, names, record, group.device, max_pixels,
                apart=graphs_apart,
            )  # fmt: skip
        boxes = {}
        if proposals is not None:
            boxes = {picture.image_id: proposals(picture)[0] for picture in samples}
        elif head is not None:
            where: dict[str, Any] = {"long_side": recipe.long_side, "device": group.device, "max_pixels": max_pixels}
            found = propose_all(head, network.trunk, samples, limit=LIMITS[-1], **where)
            boxes = {name: own for name, (own, _) in found.items()}
        multibox_used = multibox if multibox_output is None else multibox_output
        kept = before if weights is None else None
        sources = learned_from(names, boxed, kept, taught=teacher is not None, new=epochs > 0)
        measured = _write_detector(
            output, network, before, names, recipe, trained,
            [(picture, boxes[picture.image_id]) for picture in samples], validation, one_class, sources,
            method=method, multibox=multibox_used, max_pixels=max_pixels, apart=graphs_apart,
        )  # fmt: skip
        options = f" --method {method}" if method != "merged" else ""
        if method == "merged" and str(multibox_used) != usual:
            options = f" --multibox {shlex.quote(str(multibox_used))}"
        devkit, part = _find_unlearned(data[0], split, measured)
        pictures = _folder_of(validation, training) if devkit == data[0] else devkit
        _print_next_commands(output, options, devkit, part, classes, pictures)


def _pictures_of_one_class(
    folder: Path, names: tuple[str, ...], training: Sequence[Picture], boxed: NDArray[np.int64]
) -> list[Picture]:
    """Read pictures to measure the classes without boxes on, without those that the training learns from."""
    from ..train.localisation import read_localisation_pictures

    shown = read_localisation_pictures(folder, names, "odd", MOST_OF_A_CLASS)
    shown = [picture for picture in shown if not boxed[picture.labels[0]]]
    learned = {picture.path.stem for picture in training}
    kept = [picture for picture in shown if picture.path.stem not in learned]
    if len(kept) < len(shown):
        left_out = len(shown) - len(kept)
        are = "picture is" if left_out == 1 else "pictures are"
        print_once(f"--localisation: {left_out} {are} left out, as the training learns from them")
    if not kept:
        print_once("--localisation: has no picture of a class without boxes")
    return kept


def _on_set_aside(pictures: int) -> str:
    if not pictures:
        return "not measured: no picture is set aside"
    few = "; of so few it says little" if pictures < MIN_CALIBRATION_PICTURES else ""
    return f"on {pictures} picture{'s' * (pictures > 1)} set aside{few}"


def _folder_of(pictures: Sequence[Picture], others: Sequence[Picture]) -> Path | None:
    """Return the folder of some pictures, if they are in one that no other is in or below."""
    folders = {picture.path.parent for picture in pictures}
    folder = folders.pop() if len(folders) == 1 else None
    return None if folder is None or any(folder in other.path.parents for other in others) else folder


def _print_next_commands(
    output: Path, options: str, devkit: Path, split: str, classes: str | None, pictures: Path | None = None
) -> None:
    """Print how to detect with a new model in `pictures`, by default all of the folder, and how to evaluate it."""
    model, folder, stem = shlex.quote(str(output)), shlex.quote(str(devkit)), shlex.quote(output.stem)
    chosen = "" if split == "trainval" else f" --split {split}"  # All pictures are the default.
    names = "" if classes in (None, "voc") else f" --classes {shlex.quote(classes)}"
    shown = folder if pictures is None else shlex.quote(str(pictures))
    print_once(f"to detect:   inception-rcnn detect {shown} --model {model}{options} --output out-{stem}")
    print_once(f"to evaluate: inception-rcnn evaluate voc --devkit {folder}{chosen}{names} --detections out-{stem}")


def _find_unlearned(folder: Path, split: str, set_aside: int) -> tuple[Path, str]:
    """Return a folder and a split of it, for `evaluate voc`, from which a training did not learn.

    If it learned from all of its folder, this is one that the user has yet to name.
    """
    lists = folder / "ImageSets" / "Main"
    if (lists / "test.txt").is_file():
        return folder, "test"
    if (lists / "val.txt").is_file():
        return (folder, "val") if split == "train" else (Path("others"), "trainval")
    sets = any(True for name in ("ImageSets", "*/ImageSets") for _ in folder.glob(name))
    evaluable = not is_packed(folder) and (not sets or (split == "trainval" and lists.is_dir()))
    return (folder, "val") if set_aside and evaluable else (Path("others"), "trainval")


def _write_detector(
    output: Path,
    network: RegionNetwork,
    before: RegionModel | None,
    names: tuple[str, ...],
    recipe: DetectorRecipe,
    trained: Mapping[str, object],
    samples: Sequence[tuple[Picture, NDArray[np.float32]]],
    validation: Sequence[Picture],
    one_class: Sequence[Picture],
    sources: Sequence[ClassMeasure],
    *,
    method: str,
    multibox: str | Path,
    max_pixels: int,
    apart: bool,
) -> int:
    """Write a trained detector, with its first pass and 8 bits, and calibrated scores if enough pictures are aside.

    It is measured on the pictures of `validation`, and on those of `one_class` for classes that have no boxes; what is
    measured is printed. `sources` are what the classes were learned from. Returns the number of pictures set aside.
    """
    from ...backbone.export.graphs import to_model
    from ...backbone.weights.model_file import write_model
    from ..detector import Detector
    from ..train.class_measures import measure_classes
    from ..train.localisation import localise
    from ..train.validation import match_set_aside

    settings: dict[str, Any] = {
        "long_side": recipe.long_side, "box_regression": recipe.box_regression, "scoring": recipe.scoring,
        "trained": trained, "before": before,
    }  # fmt: skip
    # What is learned is kept, whatever happens to what only makes it faster.
    write_model(output, to_model(network, names, **settings), apart=apart)
    print_once(
        f"wrote {output}, which can be used; now {len(samples)} pictures go through it up to three times, to make it "
        "faster (a first pass, and numbers of 8 bits)"
    )
    pixels = [(read_pixels(picture, max_pixels), boxes) for picture, boxes in samples]
    model = to_model(network, names, **settings, samples=pixels, progress=progress_bar)
    write_model(output, replace(model, measures=tuple(sources)), apart=apart)
    if not validation and not one_class:
        print_once(f"wrote {output}")
        return 0
    load = functools.partial(Detector.load, output, device="cpu", method=method, multibox=multibox)
    try:
        detector = load()
    except ModelError as error:  # The training has moved the trunk that the MultiBox stands on.
        print_once(f"wrote {output}, with scores as they are: {error}")
        return 0
    matches = None
    if validation:
        print_once(f"measuring the detector on {len(validation)} pictures set aside")
        matches = match_set_aside(detector, validation, max_pixels)
        if len(validation) >= MIN_CALIBRATION_PICTURES:
            try:
                model = replace(model, calibration=fit_score_calibration(matches))
                write_model(output, model, apart=apart)
                detector = load()
            except EvaluationError as error:
                print_once(f"the scores stay as they are: {error}")
        _print_precision(matches, len(validation))
    counts = np.zeros((2, len(names)), np.int64)
    if one_class:
        with progress_bar("pictures of one class", len(one_class)) as report:
            counts = np.stack(localise(detector, one_class, print_problem, report, max_pixels))
        share = counts[0].sum() / max(counts[1].sum(), 1)
        print_once(
            f"without boxes: {share:.3f} of {counts[1].sum()} pictures localised; classes: {(counts[1] > 0).sum()}"
        )
    write_model(output, replace(model, measures=measure_classes(sources, matches, *counts)), apart=apart)
    print_once(f"wrote {output}")
    return len(validation)


def _print_precision(matches: Mapping[str, Matches], pictures: int) -> None:
    """Print the average precision of every class on the pictures set aside, by VOC's 11-point rule."""
    result = summarise_matches(matches, "voc07")
    table = make_table("class", "objects", "AP", title=f"On {pictures} pictures set aside")
    for name, precision in result["per_class"].items():
        table.add_row(name, str(matches[name].positives), "-" if precision != precision else f"{precision:.3f}")
    console.print(table)
    print_once(f"mAP {result['mAP']:.3f} {_on_set_aside(pictures)}")


def _read_imagenet(name: str, what: str) -> Mapping[str, Tensor]:
    """Read ImageNet weights, with a progress bar if there is something to download."""
    from ...backbone.weights.published import load_imagenet

    with download_bar(name) as report:
        state, batch_norm = load_imagenet(name, report)
    if batch_norm:
        raise CommandError(f"{name}: {what} is built on the published form; give BVLC's weights")
    return state


def _file_name(name_or_file: str | None) -> str | None:
    """Name something for the record: not in which of its writer's folders it was."""
    return name_or_file and Path(name_or_file).name


def _sample_pictures(pictures: list[Picture], seed: int) -> list[Picture]:
    """Draw a hundred of the pictures."""
    chosen = np.random.default_rng(seed).permutation(len(pictures))[:100]
    return [pictures[i] for i in sorted(chosen)]


def _write_head(
    output: Path,
    head: GridHead | VectorHead,
    network: RegionNetwork,
    validation: list[Picture],
    long_side: int,
    names: Sequence[str],
    trained: Mapping[str, object],
    device: str,
    max_pixels: int,
    *,
    own_trunk: bool = False,
    apart: bool = False,
) -> None:
    """Write a trained head, with its calibration if the pictures set aside can tell it."""
    from ...proposals.multibox.file import write_multibox
    from ...proposals.multibox.network import to_model
    from ..train.multibox import LIMITS, calibrate
    from ..train.validation import propose_all

    found = propose_all(
        head, network.trunk, validation, long_side=long_side, limit=LIMITS[-1], device=device, max_pixels=max_pixels
    )
    calibration = None
    try:
        # Where classes have no boxes, a proposal of such an object would count as one of background.
        calibration = calibrate([one for one in validation if one.labelled is None], found, max_pixels)
    except UserError as error:
        print_once(f"how to merge its boxes with selective search's could not be measured: {error}")
    write_multibox(
        output,
        to_model(
            head, network, own_trunk=own_trunk, long_side=long_side, calibration=calibration, classes=names,
            trained=trained,
        ),
        apart=apart,
    )  # fmt: skip
    print_once(f"wrote {output}")


@train.command("multibox", epilog=examples("train multibox"))
def train_multibox_command(
    data: Data,
    output: Output,
    classes: Classes = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE", autocompletion=detector_names, help="The detector on whose trunk it stands, untrained."
        ),
    ] = "voc",
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", autocompletion=weight_names, help="ImageNet weights instead: train a trunk of its own."
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            autocompletion=multibox_names,
            help="A MultiBox whose head to go on from, on another trunk.",
        ),
    ] = None,
    head: Annotated[
        Head | None,
        typer.Option(metavar="grid|vector", parser=str, help="Boxes at every place (the default), or a vector."),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Priors of a cell, or boxes.  [default: {grid}, {vector}]".format(**PRIORS)
        ),
    ] = None,
    epochs: Annotated[float, recipe_option(MultiBoxRecipe, "epochs")] = MultiBoxRecipe.epochs,
    batch: Annotated[int, recipe_option(MultiBoxRecipe, "batch")] = MultiBoxRecipe.batch,
    learning_rate: Annotated[float, recipe_option(MultiBoxRecipe, "learning_rate")] = MultiBoxRecipe.learning_rate,
    long_side: Annotated[int | None, recipe_option(MultiBoxRecipe, "long_side", instead="the detector's")] = None,
    far_background: Annotated[float, recipe_option(MultiBoxRecipe, "far_background")] = MultiBoxRecipe.far_background,
    split: Split = "trainval",
    seed: Annotated[int, recipe_option(MultiBoxRecipe, "seed")] = MultiBoxRecipe.seed,
    device: Device = "auto",
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    cache: Cache = Path("cache"),
    time_limit: TimeLimit = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Train a MultiBox that proposes boxes for objects of any class; torchrun starts it on several GPUs."""
    with training_session(device, output) as session:
        from ...backbone.regions.network import RegionNetwork
        from ...backbone.regions.torch_engine import torch_network
        from ...backbone.weights.model_file import read_model
        from ...backbone.weights.published import find_model
        from ...proposals.multibox.file import find_multibox, read_multibox
        from ...proposals.multibox.network import GridHead, from_model, head_for
        from ..train.multibox import find_priors, train_multibox
        from ..train.process_group import join_process_group

        if start is not None and (head is not None or number is not None):
            raise CommandError("--start: a head to go on from has its priors; leave out --head and --number")
        kind: Head = head or "grid"
        check_setting("head", kind, Head)
        names = read_classes(classes, data, split)
        if weights is None:
            detector = read_model(find_model(model))
            network = torch_network(detector.weights, len(detector.classes), "cpu")
            side = long_side or detector.long_side
        else:
            network, side = RegionNetwork(1, finer=False, context=False), long_side or MultiBoxRecipe.long_side
            state = _read_imagenet(weights, "MultiBox")
            network.googlenet.load_state_dict({layer: state[layer] for layer in network.googlenet.state_dict()})
        recipe = MultiBoxRecipe(
            train_trunk=weights is not None, epochs=epochs, batch=batch, learning_rate=learning_rate, long_side=side,
            seed=seed, far_background=far_background,
        )  # fmt: skip
        trained_head = None if start is None else from_model(read_multibox(find_multibox(start)))
        group = join_process_group(device)
        training, validation = read_training_pictures(
            data, names, split, tell=print_once, warn=warn_once, progress=progress_bar,
            max_pixels=max_pixels,
        )  # fmt: skip
        if trained_head is None:
            try:
                priors = find_priors(training, head=kind, number=number or PRIORS[kind], long_side=side, seed=seed)
            except UserError as error:
                raise CommandError(
                    f"there are too few objects, or of too few sizes at {side} pixels, to find priors in ({error})"
                ) from None
            trained_head = head_for(priors, seed=seed)
        run = prepare_run(
            session, cache, f"{output.stem}.multibox", resume=resume, time_limit=time_limit, group=group,
            max_pixels=max_pixels, meaning="  location, confidence: losses of the boxes; should fall\n"
            f"  recall: share of objects covered by the first boxes, {_on_set_aside(len(validation))}",
        )  # fmt: skip
        leave_unless_done(train_multibox(trained_head, network, training, validation, recipe, run), group)
        trained = {
            **asdict(recipe), "pictures": len(training), "weights": _file_name(weights), "start": _file_name(start),
            "head": "grid" if isinstance(trained_head, GridHead) else "vector",
        }  # fmt: skip
        _write_head(
            output, trained_head, network, validation, side, names, trained, group.device, max_pixels,
            own_trunk=weights is not None,
        )  # fmt: skip


@train.command("classifier", epilog=examples("train classifier"))
def train_classifier_command(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Has train/<class>/ or <class>/, and maybe val/<class>/.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The weights, .npz.")],
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            autocompletion=weight_names,
            help="Weights to start from.  [default: none]",
        ),
    ] = None,
    epochs: Annotated[float, recipe_option(ClassifierRecipe, "epochs")] = ClassifierRecipe.epochs,
    batch: Annotated[int, recipe_option(ClassifierRecipe, "batch")] = ClassifierRecipe.batch,
    learning_rate: Annotated[float, recipe_option(ClassifierRecipe, "learning_rate")] = ClassifierRecipe.learning_rate,
    schedule: Annotated[Decay, recipe_option(ClassifierRecipe, "schedule")] = ClassifierRecipe.schedule,
    auxiliary: Annotated[bool, typer.Option(help="Train with the two auxiliary classifiers.")] = True,
    seed: Annotated[int, recipe_option(ClassifierRecipe, "seed")] = ClassifierRecipe.seed,
    device: Device = "auto",
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    cache: Cache = Path("cache"),
    time_limit: TimeLimit = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Train GoogLeNet on folders of classes, as ImageNet has them; torchrun starts it on several GPUs."""
    with training_session(device, output, suffix=".npz") as session:
        from ...backbone.googlenet import GoogLeNet
        from ...backbone.weights.published import load_imagenet
        from ...data import atomic_write
        from ...data.formats.imagenet import read_class_folders
        from ..train.classifier import adopt_weights, first_weights, train_classifier, write_weights
        from ..train.process_group import join_process_group

        recipe = ClassifierRecipe(epochs=epochs, batch=batch, learning_rate=learning_rate, schedule=schedule, seed=seed)
        training, validation, classes = read_class_folders(data)
        print_once(f"{len(training)} pictures of {len(classes)} classes to train on, {len(validation)} to validate on")
        network = GoogLeNet(len(classes), auxiliary=auxiliary)
        first_weights(network, seed)
        if weights is not None:
            state, batch_norm = load_imagenet(weights)
            if batch_norm:
                raise CommandError(f"--weights {weights}: the published form is trained; give BVLC's weights")
            if anew := adopt_weights(network, state):
                print_once(f"not in {weights}, or for other classes, so learned anew: {', '.join(anew)}")
        group = join_process_group(device)
        run = prepare_run(
            session, cache, f"{output.stem}.classifier", resume=resume, time_limit=time_limit, group=group,
            max_pixels=max_pixels, meaning="  loss: should fall\n  wrong: share of pictures given another class\n"
            f"  top-1 and top-5 error: {_on_set_aside(len(validation))}",
        )  # fmt: skip

        def warn(text: str) -> None:  # in the process that met the picture, whichever that is
            print_problem(f"passed over: {text}")

        leave_unless_done(train_classifier(network, training, validation, recipe, run=run, warn=warn), group)
        write_weights(output, network)
        names = output.with_suffix(".classes.txt")
        atomic_write(names, "".join(f"{name}\n" for name in classes))
        print_once(f"wrote {output}, and the names of its classes to {names.name}")
