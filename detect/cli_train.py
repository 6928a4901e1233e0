"""``inception-rcnn train``: from labelled pictures to a model file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ..data import VOC_CLASSES, Picture
from ..proposals import load_proposer
from .terminal import CommandError, console, progress_bar

if TYPE_CHECKING:
    from ..backbone.regions import RegionNetwork

__all__ = ["train"]

train = typer.Typer(help="Train models on labelled pictures.", no_args_is_help=True, rich_markup_mode=None)

Data = Annotated[list[Path], typer.Option(metavar="DIR", help="Folder in VOC or COCO layout; repeat for more.")]
Output = Annotated[Path, typer.Option(metavar="FILE", help="The model, .safetensors.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda")]
Cache = Annotated[Path, typer.Option(metavar="DIR", help="For proposals, checkpoints and curves.")]
TimeLimit = Annotated[float | None, typer.Option(metavar="MIN", help="Save and stop after that long.")]
Resume = Annotated[bool, typer.Option(help="Go on from the checkpoint in the cache.")]


def _load_weights(network: RegionNetwork, name: str, what: str) -> None:
    """Give a network ImageNet weights, with a progress bar if there is something to download."""
    from ..backbone.weights import load_imagenet

    bar = Progress(TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console)
    task = bar.add_task(name, total=None)

    def report(done: int, total: int) -> None:
        if not bar.live.is_started:
            bar.start()
        bar.update(task, completed=done, total=total or None)

    try:
        state, batch_norm = load_imagenet(name, report)
    finally:
        if bar.live.is_started:
            bar.stop()
    if batch_norm:
        raise CommandError(f"{name}: {what} is built on the published form; give BVLC's weights")
    network.googlenet.load_state_dict({layer: state[layer] for layer in network.googlenet.state_dict()})


def _read_pictures(data: list[Path]) -> tuple[list[Picture], list[Picture]]:
    """Pictures to train on, and those set aside; what is wrong with them is told before the work."""
    from .training_data import read_labelled_folder, split_validation

    folders: dict[str, Path] = {}
    pictures: list[Picture] = []
    for folder in data:
        for picture in read_labelled_folder(folder, VOC_CLASSES):
            if not picture.path.is_file():
                raise CommandError(f"{picture.path}: there is no such picture, but {folder} has labels for it")
            if (other := folders.get(picture.image_id)) is not None:
                raise CommandError(f"picture {picture.image_id!r} is in {other} and again in {folder}; give it once")
            folders[picture.image_id] = folder
            pictures.append(picture)
    training, validation = split_validation(pictures)
    _tell(f"{len(training)} pictures to train on, {len(validation)} set aside")
    return training, validation


def _tell(text: str) -> None:
    """Print, once where several processes train together."""
    if os.environ.get("RANK", "0") == "0":
        console.print(text)


@contextmanager
def _training(output: Path, device: str) -> Iterator[None]:
    """Turn what a user can do about a training's end into a line, and check before the work what is needed after it."""
    if not output.parent.is_dir():
        raise OSError(2, "no such folder", str(output.parent))
    if output.is_dir():
        raise CommandError(f"--output {output}: is a folder; name a file")
    try:
        from ..backbone import export  # noqa: F401 - to say at once what is missing
        from ..backbone.engine import choose_device
        from .training import CheckpointError
    except ImportError as error:
        raise CommandError(f"training needs {error.name}; in a clone of the project: pip install '.[train]'") from None
    choose_device(device)
    try:
        yield
    except (CheckpointError, FloatingPointError) as error:
        raise CommandError(str(error)) from None
    except KeyboardInterrupt:
        _tell("interrupted; the same command with --resume goes on from what the cache holds, a minute's work less")
        raise typer.Exit(130) from None


@train.command("detector")
def train_detector_command(
    data: Data,
    output: Output,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="ImageNet weights: BVLC's, by name, .caffemodel or .npz.  [default: googlenet-bvlc]",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[float, typer.Option(min=0.01, help="Passes over the pictures.")] = 2.5,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step.")] = 4,
    regions: Annotated[int, typer.Option(min=4, help="Regions of a picture in each step.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=0, help="Its peak.")] = 0.003,
    start: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="A detector to go on from instead of ImageNet weights.")
    ] = None,
    freeze_trunk: Annotated[
        bool, typer.Option(help="Leave the layers as they are that a MultiBox or an ensemble shares.")
    ] = False,
    method: Annotated[
        str, typer.Option(metavar="merged|selective-search", help="Where the regions come from.")
    ] = "merged",
    multibox: Annotated[str, typer.Option(metavar="NAME|FILE", help="A MultiBox, for merged.")] = "voc",
    box_regression: Annotated[bool, typer.Option(help="Learn to correct the proposals.")] = True,
    long_side: Annotated[int, typer.Option(min=64, help="Size of pictures when the model is used.")] = 640,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Processes that compute proposals.")] = 2,
    cache: Cache = Path("cache"),
    time_limit: TimeLimit = None,
    resume: Resume = False,
) -> None:
    """Fine-tune a detector on labelled pictures, on VOC's 20 classes."""
    with _training(output, device):
        from ..backbone.engine import choose_device, torch_network
        from ..backbone.export import to_model
        from ..backbone.model_file import read_model, write_model
        from ..backbone.regions import RegionNetwork
        from ..backbone.weights import find_model
        from .training import train_detector
        from .training_data import ProposalCache

        if start is not None and weights is not None:
            raise CommandError("--weights and --start: a detector to go on from has its weights; give one of them")
        if start is None:
            network = RegionNetwork(len(VOC_CLASSES), seed=seed)
            _load_weights(network, weights or "googlenet-bvlc", "the detector")
        else:
            before = read_model(find_model(start))
            if before.classes != VOC_CLASSES:
                raise CommandError(f"--start {start}: has other classes than the labels are read for, VOC's 20")
            network = torch_network(before.weights, len(before.classes), "cpu")
        if method == "multibox":
            raise CommandError("--method multibox: its 200 boxes are too few to learn from; use merged")
        network_settings: dict[str, Any] = {} if method == "selective-search" else {
            "multibox": multibox, "trunk": start or "voc", "device": "cpu", "threads": 1,
        }  # fmt: skip
        try:
            proposer = load_proposer(method, **network_settings)
        except ValueError as error:
            raise CommandError(str(error)) from None
        training, _ = _read_pictures(data)
        proposals = ProposalCache(cache / "proposals", proposer)

        def report(row: dict[str, float]) -> None:
            with (cache / f"{output.stem}.detector.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            console.print(
                f"step {row['step']:.0f}/{row['steps']:.0f}  epoch {row['epoch']:.2f}  "
                f"loss {row['classification']:.3f} + {row['regression']:.3f}  "
                f"foreground right {row['accuracy']:.2f}  {row['seconds_left'] / 60:.0f} min left"
            )

        with progress_bar("proposals", len(training)) as report_proposals:
            proposals.fill(training, workers, report_proposals)
        finished = train_detector(
            network,
            training,
            proposals,
            epochs=epochs,
            batch=batch,
            regions_per_picture=regions,
            learning_rate=learning_rate,
            box_regression=box_regression,
            freeze_trunk=freeze_trunk,
            seed=seed,
            device=choose_device(device),
            checkpoint=cache / f"{output.stem}.detector.checkpoint.safetensors",
            resume=resume,
            time_limit=None if time_limit is None else time_limit * 60,
            report=report,
        )
        if not finished:
            console.print("time is up; the same command with --resume goes on")
            return
        trained = {
            "pictures": len(training), "epochs": epochs, "batch": batch, "regions": regions,
            "learning_rate": learning_rate, "seed": seed, "method": method, "freeze_trunk": freeze_trunk,
        }  # fmt: skip
        if start is not None:
            trained |= {"start_sha256": before.sha256, "start": before.trained}
        model = to_model(network, VOC_CLASSES, long_side=long_side, box_regression=box_regression, trained=trained)
        write_model(output, model)
        console.print(f"wrote {output}")


@train.command("multibox")
def train_multibox_command(
    data: Data,
    output: Output,
    model: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="The detector on whose trunk it stands; that is not trained.")
    ] = "voc",
    weights: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="ImageNet weights instead (googlenet-bvlc): train a trunk of its own."),
    ] = None,
    head: Annotated[str, typer.Option(metavar="grid|vector", help="Boxes at every place, or one vector.")] = "grid",
    number: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Priors of a cell, or boxes.  [default: 5, 200]", show_default=False),
    ] = None,
    epochs: Annotated[float, typer.Option(min=0.01, help="Passes over the pictures.")] = 2.3,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step, of all processes together.")] = 4,
    learning_rate: Annotated[float, typer.Option(min=0, help="Its peak; a trunk learns at a tenth of it.")] = 0.001,
    long_side: Annotated[
        int | None,
        typer.Option(
            min=64, max=2000, help="Size of pictures when it is used.  [default: the detector's]", show_default=False
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    cache: Cache = Path("cache"),
    time_limit: TimeLimit = None,
    resume: Resume = False,
) -> None:
    """Train a MultiBox that proposes boxes for objects of any class; torchrun starts it on several GPUs."""
    with _training(output, device):
        from ..backbone.engine import torch_network
        from ..backbone.model_file import read_model
        from ..backbone.regions import RegionNetwork
        from ..backbone.weights import find_model
        from ..proposals.multibox_file import write_multibox
        from ..proposals.multibox_network import head_for, to_model
        from .ranks import join_ranks
        from .training_multibox import find_priors, measure_worth, open_log, propose_all, train_multibox

        if head not in ("grid", "vector"):
            raise CommandError(f"--head {head}: unknown; use grid or vector")
        if weights is None:
            detector = read_model(find_model(model))
            network = torch_network(detector.weights, len(detector.classes), "cpu")
            side = long_side or detector.long_side
        else:
            network, side = RegionNetwork(1), long_side or 640
            _load_weights(network, weights, "MultiBox")
        ranks = join_ranks(device)
        training, validation = _read_pictures(data)
        cache.mkdir(parents=True, exist_ok=True)
        try:
            priors = find_priors(
                training, head=head, number=number or (5 if head == "grid" else 200), long_side=side, seed=seed
            )
        except ValueError as error:
            raise CommandError(
                f"there are too few objects, or of too few sizes at {side} pixels, to find priors in ({error})"
            ) from None
        trained_head = head_for(priors, seed=seed)
        log = open_log(cache / f"{output.stem}.multibox.jsonl") if ranks.rank == 0 else lambda row: None

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
            ranks=ranks,
            checkpoint=cache / f"{output.stem}.multibox.checkpoint.safetensors",
            resume=resume,
            time_limit=None if time_limit is None else time_limit * 60,
            report=report,
        )
        if ranks.rank > 0:
            return
        if not finished:
            console.print("time is up; the same command with --resume goes on")
            return
        found = propose_all(trained_head, network.trunk, validation, long_side=side, device=ranks.device)
        try:
            worth = measure_worth(validation, found)
        except ValueError as error:
            console.print(f"how to merge its boxes with selective search's could not be measured: {error}")
            worth = None
        record = {
            "pictures": len(training), "head": head, "weights": weights, "epochs": epochs, "batch": batch,
            "learning_rate": learning_rate, "seed": seed,
        }  # fmt: skip
        packed = to_model(
            trained_head, network, own_trunk=weights is not None, long_side=side, worth=worth, trained=record
        )
        write_multibox(output, packed)
        console.print(f"wrote {output}")
