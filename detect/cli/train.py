"""``inception-rcnn train``: from labelled pictures to a model file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from ...data import ImageError, Picture, read_image
from ...data.errors import CommandError, UserError, needs_packages
from ...data.system.processes import prefetch, usable_cores
from ...proposals import load_proposer
from .terminal import console, download_bar, progress_bar

if TYPE_CHECKING:
    from ...backbone.regions.network import RegionNetwork
    from ...proposals.calibration import RankingCalibration
    from ...proposals.multibox.network import GridHead, VectorHead


train = typer.Typer(help="Train models on labelled pictures.", no_args_is_help=True, rich_markup_mode=None)

Data = Annotated[
    list[Path], typer.Option(metavar="DIR", help="Folder in VOC, COCO or ILSVRC DET layout; repeat for more.")
]
Classes = Annotated[
    str, typer.Option(metavar="voc|coco|ilsvrc|FILE", help="What to learn; a file has one name a line.")
]
Output = Annotated[Path, typer.Option(metavar="FILE", help="The model, .safetensors.")]
Split = Annotated[str, typer.Option(metavar="NAME", help="Which pictures of folders in VOC layout.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda")]
Cache = Annotated[Path, typer.Option(metavar="DIR", help="For proposals, checkpoints and curves.")]
TimeLimit = Annotated[float | None, typer.Option(metavar="MIN", help="Save and stop after that long.")]
Resume = Annotated[bool, typer.Option(help="Go on from the checkpoint in the cache.")]


def _load_weights(network: RegionNetwork, name: str, what: str) -> None:
    """Give a network ImageNet weights, with a progress bar if there is something to download."""
    from ...backbone.weights.published import load_imagenet

    with download_bar(name) as report:
        state, batch_norm = load_imagenet(name, report)
    if batch_norm:
        raise CommandError(f"{name}: {what} is built on the published form; give BVLC's weights")
    network.googlenet.load_state_dict({layer: state[layer] for layer in network.googlenet.state_dict()})


def _read_pictures(
    data: list[Path], classes: tuple[str, ...], split: str = "trainval"
) -> tuple[list[Picture], list[Picture]]:
    """Pictures to train on, and those set aside; what is wrong with them is told before the work."""
    from ..train.data import read_labelled_folder, read_validation, split_validation

    folders: dict[str, Path] = {}
    training: list[Picture] = []
    validation: list[Picture] = []
    for folder in data:
        pictures, kept = read_labelled_folder(folder, classes, split), read_validation(folder, classes)
        for picture in [*pictures, *kept]:
            if not picture.path.is_file():
                raise CommandError(f"{picture.path}: there is no such picture, but {folder} has labels for it")
            if (other := folders.get(picture.image_id)) is not None:
                raise CommandError(
                    f"picture {picture.image_id!r} is in {other} and again in {folder}; give it once, or another name"
                )
            folders[picture.image_id] = folder
        # A layout with pictures for validation has enough of them.
        own = (pictures, kept) if kept else split_validation(pictures)
        training += own[0]
        validation += own[1]
    unreadable = _look_at([*training, *validation])
    training, validation = ([p for p in some if p.image_id not in unreadable] for some in (training, validation))
    absent = set(range(len(classes))).difference(*(picture.labels.tolist() for picture in training))
    if training and len(absent) == len(classes):
        raise CommandError(
            f"none of {len(training)} pictures has an object of {_some(classes)}; spell --classes as the labels do"
        )
    if absent:
        _tell(f"no object to learn from: {_some([classes[label] for label in sorted(absent)])}")
    if training and all(picture.labelled is not None for picture in training):
        _tell("no picture is labelled for all of the classes, so there is little background to learn from")
    _tell(f"{len(training)} pictures to train on, {len(validation)} set aside")
    return training, validation


def _named(name_or_file: str | None) -> str | None:
    """Name something for the record: not in which of its writer's folders it was."""
    return name_or_file and Path(name_or_file).name


def _some(names: Sequence[str]) -> str:
    """Join names, the first five of many."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _look_at(pictures: list[Picture]) -> set[str]:
    """Read every picture once: which cannot be read is told and passed over, not met hours later."""
    unreadable, mistaken = set(), []

    def look(picture: Picture) -> tuple[int, int] | ImageError:
        try:
            height, width = read_image(picture.path).shape[:2]
        except ImageError as error:
            return error
        return width, height

    cores = usable_cores()
    with progress_bar("pictures", len(pictures)) as report, ThreadPoolExecutor(cores) as pool:
        for done, (picture, future) in enumerate(prefetch(pool, look, pictures, limit=2 * cores)):
            seen, labelled = future.result(), (picture.width, picture.height)
            if isinstance(seen, ImageError):
                _tell(f"passed over: {seen}")
                unreadable.add(picture.image_id)
            elif seen != labelled:
                sizes = "{} x {} pixels, its labels are for {} x {}".format(*seen, *labelled)
                mistaken.append(f"{picture.path}: is {sizes}")
            report(done + 1)
    if mistaken:
        raise CommandError(
            f"{mistaken[0]} (a camera's rotation is applied before the labels)"
            + (f"; so it is with {len(mistaken)} pictures" if len(mistaken) > 1 else "")
            + "; correct the labels, or save the picture upright"
        )
    return unreadable


def _begin(cache: Path, name: str, resume: bool) -> tuple[Path, Callable[[dict[str, float]], None]]:
    """Checkpoint and log of a training; what an earlier one of the name left moves aside unless it is gone on with."""
    from ..train.loop import open_log

    checkpoint, log = cache / f"{name}.checkpoint.safetensors", cache / f"{name}.jsonl"
    if os.environ.get("RANK", "0") != "0":
        return checkpoint, lambda row: None
    cache.mkdir(parents=True, exist_ok=True)
    if resume:
        found = checkpoint.exists()
        _tell(f"goes on from {checkpoint}" if found else f"{checkpoint}: no such checkpoint, so from the beginning")
    else:
        if checkpoint.exists():
            _tell(
                f"{checkpoint}: of an earlier training, kept as {checkpoint.name}.before; --resume would go on with it"
            )
        for path in (checkpoint, log, log.with_suffix("")):
            before = path.with_name(f"{path.name}.before")
            if path.is_dir():
                shutil.rmtree(before, ignore_errors=True)
            if path.exists():
                path.replace(before)
    return checkpoint, open_log(log)


def _tell(text: str) -> None:
    """Print, once where several processes train together."""
    if os.environ.get("RANK", "0") == "0":
        console.print(text)


@contextmanager
def _training(device: str, *outputs: Path) -> Iterator[None]:
    """Turn what a user can do about a training's end into a line, and check before the work what is needed after it."""
    for output in outputs:
        if not output.parent.is_dir():
            raise OSError(2, "no such folder", str(output.parent))
        if output.is_dir():
            raise CommandError(f"{output}: is a folder; name a file")
    if len({output.absolute() for output in outputs}) < len(outputs):
        raise CommandError(f"{outputs[0]}: --output and --multibox-output are two files; name another")
    with needs_packages("training", "train"):
        from ...backbone.export import graphs as export  # noqa: F401 - to say at once what is missing
        from ...backbone.regions.placement import choose_device
    choose_device(device)
    try:
        yield
    except FloatingPointError as error:
        raise CommandError(str(error)) from None
    except KeyboardInterrupt:
        _tell("interrupted; the same command with --resume goes on from what the cache holds, a minute's work less")
        raise typer.Exit(130) from None


@train.command("detector")
def train_detector_command(
    data: Data,
    output: Output,
    classes: Classes = "voc",
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="ImageNet weights: BVLC's, by name, .caffemodel or .npz; with --start of its upper layers only, for "
            "another member of an ensemble.  [default: googlenet-bvlc, or none]",
            show_default=False,
        ),
    ] = None,
    scoring: Annotated[
        str | None,
        typer.Option(
            metavar="shared|crops",
            help="Regions of one pass over the picture, or each through the whole network.  [default: that of --start, "
            "or shared]",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        float,
        typer.Option(min=0, max=10_000, help="Passes over the pictures; 0 fits only --start's first pass and 8 bits."),
    ] = 2.5,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step, of all processes together.")] = 4,
    regions: Annotated[int, typer.Option(min=4, help="Regions of a picture in each step.")] = 48,
    optimizer: Annotated[
        str,
        typer.Option(
            metavar="sgd|adamw", help="Momentum SGD, or AdamW, which is better for a MultiBox that learns along."
        ),
    ] = "sgd",
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Its peak.  [default: 0.003, of adamw 0.0001]", show_default=False)
    ] = None,
    schedule: Annotated[
        str, typer.Option(metavar="cosine|step", help="How it falls: smoothly, or to a tenth for the last quarter.")
    ] = "cosine",
    start: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="A detector to go on from instead of ImageNet weights; may have other classes."
        ),
    ] = None,
    freeze: Annotated[
        str,
        typer.Option(
            metavar="stem|trunk|googlenet",
            help="What stays as it is: the first layers, what a MultiBox or an ensemble shares, or all but the scores.",
        ),
    ] = "stem",
    method: Annotated[
        str, typer.Option(metavar="merged|selective-search", help="Where the regions come from.")
    ] = "merged",
    multibox: Annotated[str, typer.Option(metavar="NAME|FILE", help="A MultiBox, for merged.")] = "voc",
    multibox_output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Have its head learn along, so that the trunk serves both, and write it."),
    ] = None,
    box_regression: Annotated[bool, typer.Option(help="Learn to correct the proposals.")] = True,
    long_side: Annotated[
        int | None,
        typer.Option(
            min=64,
            max=2000,
            help="Size of pictures when the model is used.  [default: that of --start, or 640]",
            show_default=False,
        ),
    ] = None,
    split: Split = "trainval",
    seed: Seed = 0,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that compute proposals.  [default: one a core]", show_default=False),
    ] = None,
    cache: Cache = Path("cache"),
    time_limit: TimeLimit = None,
    resume: Resume = False,
) -> None:
    """Fine-tune a detector on labelled pictures; torchrun starts it on several GPUs."""
    with _training(device, output, *([] if multibox_output is None else [multibox_output])):
        from ...backbone.export.graphs import to_model
        from ...backbone.regions.network import RegionNetwork
        from ...backbone.regions.torch_engine import torch_network
        from ...backbone.weights.model_file import SCORINGS, in_trunk, read_model, write_model
        from ...backbone.weights.published import find_model
        from ...data.classes import read_class_list
        from ...proposals.multibox import network as multibox_network
        from ...proposals.multibox.file import find_multibox, read_multibox, write_multibox
        from ..train.detector import LEARNING_RATES, train_detector
        from ..train.process_group import join_process_group
        from ..train.proposal_cache import ProposalCache

        names = read_class_list(classes)
        choices = {
            "scoring": (scoring or "shared", SCORINGS), "schedule": (schedule, ("cosine", "step")),
            "optimizer": (optimizer, tuple(LEARNING_RATES)), "freeze": (freeze, ("stem", "trunk", "googlenet")),
        }  # fmt: skip
        for option, (value, known) in choices.items():
            if value not in known:
                raise CommandError(f"--{option} {value}: unknown; use {' or '.join(known)}")
        learning_rate = LEARNING_RATES[optimizer] if learning_rate is None else learning_rate
        before = None if start is None else read_model(find_model(start))
        scoring = scoring or (before.scoring if before else "shared")
        long_side = long_side or (before.long_side if before else 640)
        network = RegionNetwork(len(names), seed=seed)
        if before is None or weights is not None:
            _load_weights(network, weights or "googlenet-bvlc", "the detector")
        if before is not None:
            begun = torch_network(before.weights, len(before.classes), "cpu").state_dict()
            if weights is not None:
                begun = {name: value for name, value in begun.items() if in_trunk(name)}
            elif before.classes != names:
                begun = {name: value for name, value in begun.items() if name.startswith("googlenet.")}
                _tell(f"{start} has other classes: their scores are learned from nothing, the layers below go on")
            network.load_state_dict({**network.state_dict(), **begun})
        if method == "multibox":
            raise CommandError("--method multibox: its 200 boxes are too few to learn from; use merged")
        if epochs == 0 and (before is None or before.classes != names or weights is not None):
            raise CommandError(
                "--epochs 0: there is nothing trained to write; name a --start of the same classes, and no --weights"
            )
        if multibox_output is not None and (method == "selective-search" or scoring == "crops"):
            raise CommandError(
                "--multibox-output: a MultiBox learns along with merged proposals and shared scoring only"
            )
        network_settings: dict[str, Any] = {}
        if method != "selective-search":
            proposing = read_multibox(find_multibox(multibox))
            # A detector to go on from may have left behind the trunk that the MultiBox stands on.
            fits = before is not None and before.trunk_sha256 == proposing.trunk_sha256
            network_settings = {
                "multibox": multibox, "detector": start if fits else "voc", "device": "cpu", "threads": 1,
            }  # fmt: skip
            if multibox_output is not None and not fits:
                _tell(f"{multibox} was trained on another trunk; its head learns to stand on this one")
        proposer = load_proposer(method, **network_settings)
        group = join_process_group(device)
        training, validation = _read_pictures(data, names, split)
        proposals = ProposalCache(cache / "proposals", proposer, objectness=proposer.has_objectness(names))
        checkpoint, log = _begin(cache, f"{output.stem}.detector", resume)

        def report(row: dict[str, float]) -> None:
            log(row)
            console.print(
                f"step {row['step']:.0f}/{row['steps']:.0f}  epoch {row['epoch']:.2f}  "
                f"loss {row['classification']:.3f} + {row['regression']:.3f}  "
                + (f"MultiBox {row['location']:.3f} + {row['confidence']:.3f}  " if "location" in row else "")
                + f"foreground right {row['accuracy']:.2f}  {row['seconds_left'] / 60:.0f} min left"
                + (f"  mAP {row['mAP']:.3f} on those set aside" if "mAP" in row else "")
            )

        shown = _sample(training, seed)
        share = (shown if epochs == 0 else [*training, *validation])[group.rank :: group.world]
        with progress_bar("proposals", len(share)) as report_proposals:
            proposals.fill(share, workers or usable_cores(), report_proposals)
        head = None if multibox_output is None else multibox_network.from_model(proposing)
        finished = epochs == 0 or train_detector(
            network,
            training,
            proposals,
            validation,
            multibox=head,
            scoring=scoring,
            epochs=epochs,
            batch=batch,
            regions_per_picture=regions,
            optimizer=optimizer,
            learning_rate=learning_rate,
            schedule=schedule,
            box_regression=box_regression,
            freeze=freeze,
            long_side=long_side,
            seed=seed,
            group=group,
            checkpoint=checkpoint,
            resume=resume,
            time_limit=None if time_limit is None else time_limit * 60,
            report=report,
        )
        if group.rank > 0:
            return
        if not finished:
            console.print("time is up; the same command with --resume goes on")
            return
        trained = {
            "pictures": len(training), "epochs": epochs, "batch": batch, "regions": regions,
            "optimizer": optimizer, "learning_rate": learning_rate, "schedule": schedule,
            "seed": seed, "method": method,
            "multibox": None if method == "selective-search" else _named(multibox), "freeze": freeze,
            "weights": _named(weights or (None if before else "googlenet-bvlc")),
        }  # fmt: skip
        if before is not None:
            trained = (
                before.trained if epochs == 0 else trained | {"start_sha256": before.sha256, "start": before.trained}
            )
        if head is not None and multibox_output is not None:
            calibration = _worth(head, network, validation, long_side, group.device)
            packed = multibox_network.to_model(
                head,
                network,
                long_side=long_side,
                calibration=calibration,
                classes=names,
                trained={"along": trained, "start": _named(multibox)},
            )
            write_multibox(multibox_output, packed)
            console.print(f"wrote {multibox_output}")
        console.print(f"fitting the first pass and measuring the ranges of 8 bits on {len(shown)} pictures")
        model = to_model(
            network, names, long_side=long_side, box_regression=box_regression, scoring=scoring, trained=trained,
            samples=[(read_image(picture.path), proposals(picture)[0]) for picture in shown],
        )  # fmt: skip
        write_model(output, model)
        console.print(f"wrote {output}")


def _sample(pictures: list[Picture], seed: int) -> list[Picture]:
    """Draw a hundred of the pictures."""
    chosen = np.random.default_rng(seed).permutation(len(pictures))[:100]
    return [pictures[i] for i in sorted(chosen)]


def _worth(
    head: GridHead | VectorHead, network: RegionNetwork, validation: list[Picture], long_side: int, device: str
) -> RankingCalibration | None:
    """How a MultiBox's boxes are to be merged with selective search's, if the pictures set aside can tell."""
    from ..train.multibox import calibrate
    from ..train.validation import propose_all

    found = propose_all(head, network.trunk, validation, long_side=long_side, device=device)
    try:
        return calibrate(validation, found)
    except UserError as error:
        console.print(f"how to merge its boxes with selective search's could not be measured: {error}")
        return None


@train.command("multibox")
def train_multibox_command(
    data: Data,
    output: Output,
    classes: Classes = "voc",
    model: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="The detector on whose trunk it stands; that is not trained.")
    ] = "voc",
    weights: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="ImageNet weights instead (googlenet-bvlc): train a trunk of its own."),
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="A MultiBox whose head to go on from, on another trunk.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="grid|vector", help="Boxes at every place, or one vector.  [default: grid]", show_default=False
        ),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Priors of a cell, or boxes.  [default: 5, 200]", show_default=False),
    ] = None,
    epochs: Annotated[float, typer.Option(min=0.01, max=10_000, help="Passes over the pictures.")] = 2.3,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step, of all processes together.")] = 4,
    learning_rate: Annotated[float, typer.Option(min=0, help="Its peak; a trunk learns at a tenth of it.")] = 0.001,
    long_side: Annotated[
        int | None,
        typer.Option(
            min=64, max=2000, help="Size of pictures when it is used.  [default: the detector's]", show_default=False
        ),
    ] = None,
    split: Split = "trainval",
    seed: Seed = 0,
    device: Device = "auto",
    cache: Cache = Path("cache"),
    time_limit: TimeLimit = None,
    resume: Resume = False,
) -> None:
    """Train a MultiBox that proposes boxes for objects of any class; torchrun starts it on several GPUs."""
    with _training(device, output):
        from ...backbone.regions.network import RegionNetwork
        from ...backbone.regions.torch_engine import torch_network
        from ...backbone.weights.model_file import read_model
        from ...backbone.weights.published import find_model
        from ...data.classes import read_class_list
        from ...proposals.multibox.file import find_multibox, read_multibox, write_multibox
        from ...proposals.multibox.network import GridHead, from_model, head_for, to_model
        from ..train.multibox import find_priors, train_multibox
        from ..train.process_group import join_process_group

        if start is not None and (head is not None or number is not None):
            raise CommandError("--start: a head to go on from has its priors; leave out --head and --number")
        head = head or "grid"
        if head not in ("grid", "vector"):
            raise CommandError(f"--head {head}: unknown; use grid or vector")
        names = read_class_list(classes)
        if weights is None:
            detector = read_model(find_model(model))
            network = torch_network(detector.weights, len(detector.classes), "cpu")
            side = long_side or detector.long_side
        else:
            network, side = RegionNetwork(1), long_side or 640
            _load_weights(network, weights, "MultiBox")
        if start is not None:
            trained_head = from_model(read_multibox(find_multibox(start)))
            head = "grid" if isinstance(trained_head, GridHead) else "vector"
        group = join_process_group(device)
        training, validation = _read_pictures(data, names, split)
        if start is None:
            number = number or (5 if head == "grid" else 200)
            try:
                priors = find_priors(training, head=head, number=number, long_side=side, seed=seed)
            except UserError as error:
                raise CommandError(
                    f"there are too few objects, or of too few sizes at {side} pixels, to find priors in ({error})"
                ) from None
            trained_head = head_for(priors, seed=seed)
        checkpoint, log = _begin(cache, f"{output.stem}.multibox", resume)

        def report(row: dict[str, float]) -> None:
            log(row)
            recall = "".join(
                f"  recall {100 * share:.1f} % of the first {name.removeprefix('recall_')}"
                for name, share in row.items()
                if name.startswith("recall_")
            )
            console.print(
                f"step {row['step']:.0f}/{row['steps']:.0f}  epoch {row['epoch']:.2f}  "
                f"loss {row['location']:.3f} + {row['confidence']:.3f}  {row['seconds_left'] / 60:.0f} min left{recall}"
            )

        finished = train_multibox(
            trained_head,
            network,
            training,
            validation,
            whole=weights is not None,
            epochs=epochs,
            batch=batch,
            learning_rate=learning_rate,
            many=head == "grid",
            long_side=side,
            seed=seed,
            group=group,
            checkpoint=checkpoint,
            resume=resume,
            time_limit=None if time_limit is None else time_limit * 60,
            report=report,
        )
        if group.rank > 0:
            return
        if not finished:
            console.print("time is up; the same command with --resume goes on")
            return
        calibration = _worth(trained_head, network, validation, side, group.device)
        record = {
            "pictures": len(training), "head": head, "weights": _named(weights), "epochs": epochs, "batch": batch,
            "learning_rate": learning_rate, "seed": seed, "start": _named(start),
        }  # fmt: skip
        packed = to_model(
            trained_head,
            network,
            own_trunk=weights is not None,
            long_side=side,
            calibration=calibration,
            classes=names,
            trained=record,
        )
        write_multibox(output, packed)
        console.print(f"wrote {output}")


@train.command("classifier")
def train_classifier_command(
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Has train/<class>/ or <class>/, and val/<class>/ if there is one.")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The weights, .npz, for train detector --weights.")],
    weights: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Weights to start from, of the layers that fit.  [default: none]"),
    ] = None,
    epochs: Annotated[float, typer.Option(min=0.01, max=10_000, help="Passes over the pictures.")] = 60.0,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step, of all processes together.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=0, help="Its peak.")] = 0.01,
    schedule: Annotated[
        str, typer.Option(metavar="cosine|step", help="How it falls: half a cosine, or 4 % less every 8 epochs.")
    ] = "cosine",
    auxiliary: Annotated[bool, typer.Option(help="Train with the two auxiliary classifiers.")] = True,
    seed: Seed = 0,
    device: Device = "auto",
    cache: Cache = Path("cache"),
    time_limit: TimeLimit = None,
    resume: Resume = False,
) -> None:
    """Train GoogLeNet on folders of classes, as ImageNet has them; torchrun starts it on several GPUs."""
    with _training(device, output):
        from ...backbone.googlenet import GoogLeNet
        from ...backbone.weights.published import load_imagenet
        from ...data import atomic_write
        from ...data.formats.imagenet import read_class_folders
        from ..train.classifier import adopt_weights, first_weights, train_classifier, write_weights
        from ..train.process_group import join_process_group

        if output.suffix != ".npz":
            raise CommandError(f"--output {output}: weights are read from .npz; name the file so")
        if schedule not in ("cosine", "step"):
            raise CommandError(f"--schedule {schedule}: unknown; use cosine or step")
        training, validation, classes = read_class_folders(data)
        _tell(f"{len(training)} pictures of {len(classes)} classes to train on, {len(validation)} to validate on")
        network = GoogLeNet(len(classes), auxiliary=auxiliary)
        first_weights(network, seed)
        if weights is not None:
            state, batch_norm = load_imagenet(weights)
            if batch_norm:
                raise CommandError(f"--weights {weights}: the published form is trained; give BVLC's weights")
            if anew := adopt_weights(network, state):
                _tell(f"not in {weights}, or for other classes, so learned anew: {', '.join(anew)}")
        group = join_process_group(device)
        checkpoint, log = _begin(cache, f"{output.stem}.classifier", resume)

        def report(row: dict[str, float]) -> None:
            log(row)
            errors = "".join(
                f"  {name.removesuffix('_error').replace('_', '-')} error {100 * row[name]:.1f} %"
                for name in ("top_1_error", "top_5_error")
                if name in row
            )
            unreadable = f"  {row['unreadable']:.0f} unreadable" if row["unreadable"] else ""
            console.print(
                f"step {row['step']:.0f}/{row['steps']:.0f}  epoch {row['epoch']:.2f}  loss {row['loss']:.3f}  "
                f"wrong {100 * row['training_error']:.1f} %{errors}{unreadable}  "
                f"{row['seconds_left'] / 60:.0f} min left"
            )

        finished = train_classifier(
            network,
            training,
            validation,
            epochs=epochs,
            batch=batch,
            learning_rate=learning_rate,
            schedule=schedule,
            seed=seed,
            group=group,
            checkpoint=checkpoint,
            resume=resume,
            time_limit=None if time_limit is None else time_limit * 60,
            report=report,
            warn=lambda text: console.print(f"passed over: {text}"),
        )
        if group.rank > 0:
            return
        if not finished:
            console.print("time is up; the same command with --resume goes on")
            return
        write_weights(output, network)
        names = output.with_suffix(".classes.txt")
        atomic_write(names, "".join(f"{name}\n" for name in classes))
        console.print(f"wrote {output}, and the names of its classes to {names.name}")
