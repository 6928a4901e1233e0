"""The training loop, the same for detector, MultiBox and classifier. A `Task` defines the steps of one of them.

Every step draws from a seed of its own, so that a training that was interrupted and resumed ends with the weights of
one that was not.
"""

from __future__ import annotations

import functools
import math
import pickle
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...data import MAX_PIXELS, ImageError
from ...data.errors import CheckpointError, SettingError, first_names, reason_of
from ...data.system.processes import ProcessDied, ProcessStartError, map_processes, prefetch, usable_cores
from .checkpoint import load_checkpoint, save_checkpoint
from .device import thread_pool
from .process_group import SINGLE_PROCESS, ProcessGroup
from .recipes import GRADIENT_NORM, WARM_UP_STEPS, Decay, Recipe

# Seconds between checkpoints: so much work is lost at most when a training is killed.
SAVE_SECONDS = 60.0
# Steps between two rows of the log.
ROW_STEPS = 50

Example = TypeVar("Example")
ExampleOut = TypeVar("ExampleOut", covariant=True)
Batches = Generator[tuple[int, list[Example]], None, None]


@dataclass(frozen=True)
class RunSettings:
    """Where a training runs, what it writes and where it reports. Nothing here changes the weights.

    Attributes
    ----------
    group : ProcessGroup
        The device, and the other processes that train with this one. bfloat16 is used where it is faster.
    checkpoint : Path, optional
        Where to keep the state, saved every minute and at the end of every epoch by the first process, and read by all.
    resume : bool
        Go on from `checkpoint` if it exists. On a CPU with as many cores the weights are, bit for bit, those of a
        training without interruption.
    time_limit : float
        Seconds after which to save and stop.
    report : callable
        Called in the first process every 50 steps, when time is up and at the end of every epoch, with a row of the
        log: ``{"step", "steps", "epoch", "learning_rate", "seconds_left"}`` and the columns of the task.
    max_pixels : int
        See `inception_rcnn.data.read_image`.
    readers : int, optional
        Processes that read and augment pictures, started anew: a script needs ``if __name__ == "__main__":``, and what
        it gives to the training must be picklable. 0 for threads of this process. Default: on a GPU one a core, on a
        CPU, whose cores are busy, a thread.
    """

    group: ProcessGroup = SINGLE_PROCESS
    checkpoint: Path | None = None
    resume: bool = False
    time_limit: float = math.inf
    report: Callable[[dict[str, float]], None] = lambda row: None
    max_pixels: int = MAX_PIXELS
    readers: int | None = None


NOTHING_KEPT = RunSettings()


@dataclass(frozen=True)
class Schedule:
    """Learning rate of every step: it rises linearly for 200 steps, or a tenth of all if that is less, then falls.

    Attributes
    ----------
    peak : float
    steps : int
        Of the whole training.
    decay : {"cosine", "step"}
        How it falls: by half a cosine to 1 % of the peak, or to a tenth of it for the last quarter of the steps.
    """

    peak: float
    steps: int
    decay: Decay = "cosine"

    def rate(self, step: int) -> float:
        """Learning rate of a step.

        Examples
        --------
        >>> [Schedule(1.0, 1000, "step").rate(step) for step in (49, 100, 749, 750)]
        [0.5, 1.0, 1.0, 0.1]
        """
        warm_up = min(WARM_UP_STEPS, self.steps // 10)
        if step < warm_up:
            return self.peak * (step + 1) / warm_up
        if self.decay == "step":
            return self.peak if step < 0.75 * self.steps else self.peak / 10
        fallen = (step - warm_up) / max(1, self.steps - warm_up)
        return self.peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fallen)))


class Order:
    """Indices of the pictures that each step of a training shows.

    Parameters
    ----------
    of_epoch : callable
        Number of an epoch -> indices of its pictures in their order, ndarray of intp.
    lengths : sequence of int
        Number of pictures of each epoch; the last one counts in full.
    shown : int
        Number of pictures of the whole training.
    batch : int
        Pictures a step.

    Attributes
    ----------
    steps : int
    epoch_ends : set of int
        Numbers of steps after which an epoch ends.

    Examples
    --------
    >>> order = Order(lambda epoch: np.arange(5), [5, 5], 8, 2)
    >>> [order.pictures(step).tolist() for step in range(order.steps)], sorted(order.epoch_ends)
    ([[0, 1], [2, 3], [4, 0], [1, 2]], [2, 4, 5])
    """

    def __init__(
        self, of_epoch: Callable[[int], NDArray[np.intp]], lengths: Sequence[int], shown: int, batch: int
    ) -> None:
        self.of_epoch = functools.lru_cache(2)(of_epoch)  # A step can have pictures of two epochs.
        self.ends = np.cumsum([0, *lengths])
        self.batch = batch
        self.steps = shown // batch
        self.epoch_ends = {int(end) // batch for end in self.ends[1:]} | {self.steps}

    @classmethod
    def shuffled(cls, pictures: int, recipe: Recipe) -> Order:
        """Make the order that shows every picture once an epoch, in an order drawn for each."""
        return cls(
            lambda epoch: np.random.default_rng([recipe.seed, epoch]).permutation(pictures),
            [pictures] * math.ceil(recipe.epochs), round(pictures * recipe.epochs), recipe.batch,
        )  # fmt: skip

    def pictures(self, step: int) -> NDArray[np.intp]:
        """Return the indices of the pictures of a step."""
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs = np.searchsorted(self.ends, places, side="right") - 1
        return np.array([self.of_epoch(int(e))[i - self.ends[e]] for i, e in zip(places, epochs, strict=True)], np.intp)


class Loader(Protocol[ExampleOut]):
    """What makes examples of pictures; picklable, as pictures and examples are, so that worker processes can do it."""

    def __call__(self, picture: Any, rng: np.random.Generator, /) -> ExampleOut:
        """Read a picture and augment it by random numbers."""


class Task(Protocol[Example]):
    """The steps of one kind of training.

    Attributes
    ----------
    recipe : Recipe
    settings : dict of str to object
        What a checkpoint must have been made with: the recipe, hashes of the first weights and of the pictures.
    modules : Module
        Saved in checkpoints.
    optimizer : Optimizer
        A group of its parameters with a ``factor`` learns at that times the rate.
    parameters : list of Parameter
        Those of the optimizer, in its order, which is also that of the gradients.
    order : Order
    items : sequence
        The pictures, as `load` takes them.
    paths : list of Path
        Files of the pictures, for messages.
    by_picture : bool
        Whether each thread of a CPU takes some of a batch's pictures. Otherwise the batch goes through as a whole.
    averaging : float
        Share of the old average in a running average of the weights, which the training ends with; 0 for none.
    """

    settings: dict[str, object]
    modules: nn.Module
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    order: Order
    items: Sequence[Any]
    paths: list[Path]
    by_picture: bool
    averaging: float

    @property
    def recipe(self) -> Recipe:
        """Its hyper-parameters."""

    def rate(self, step: int) -> float:
        """Learning rate of a step."""

    @property
    def load(self) -> Loader[Example]:
        """What reads a picture, one of `items`, and makes it ready for the network."""

    def gradients(
        self, batch: Sequence[list[Example]], pool: Executor
    ) -> tuple[Sequence[Tensor], NDArray[np.float64] | Tensor]:
        """Compute gradients and figures of a batch, which comes in a part for each thread of the pool.

        Returns
        -------
        gradients : sequence of Tensor
            One for each parameter, not yet divided by `divisor`.
        figures : ndarray or Tensor, shape (F,), float64
            Sums over the pictures: losses, and whatever is counted. A tensor can stay on the device.
        """

    def divisor(self, figures: Tensor) -> float:
        """Return what gradients are divided by, from all processes' figures; 0 if there is nothing to learn from."""

    def row(self, figures: NDArray[np.float64]) -> dict[str, float]:
        """Columns of the log, from the figures (S, F) of the steps since the last row."""

    def validate(self, row: dict[str, float]) -> None:
        """Measure on the pictures set aside, and add to a row; called in all processes."""


class TrainingLoop(Generic[Example]):
    """The training of one task."""

    def __init__(self, task: Task[Example], run: RunSettings) -> None:
        self.task, self.settings = task, run

    def run(self) -> bool:
        """Train in place. Return True if all steps were done, False if the time limit came first.

        Raises
        ------
        FloatingPointError
            If the loss is not finite.
        CheckpointError
            If the checkpoint was made with other settings or pictures, or there are fewer pictures than one batch.
        """
        task, order, (_, _, device) = self.task, self.task.order, self.settings.group
        self.check_length()
        start = self.resume_or_start()
        workers, threads = self.count_threads()
        # Two parts a thread: the one that is done first takes the next. Pictures differ in size.
        parts = min(2 * workers, task.recipe.batch) if workers > 1 else 1
        began = saved = time.monotonic()
        figures: list[list[float]] = []
        waiting: list[Tensor] = []  # Figures that are still on the device.
        with (
            thread_pool(workers, threads) as pool,
            # Dropout draws from torch's generator, which the caller has a use for too.
            torch.random.fork_rng([] if device == "cpu" else [device]),
            closing(self.batches(range(start, order.steps))) as batches,
        ):
            for step, batch in batches:
                gradients, own = task.gradients([batch[i::parts] for i in range(parts)], pool)
                late, done = time.monotonic() - began > self.settings.time_limit, step + 1
                sums = self.sum_over_processes(gradients, own, late)
                waiting.append(sums)
                # To look at figures is to wait for a GPU. Processes look at them together, to stop in the same step.
                together = device == "cpu" or done in order.epoch_ends or done % ROW_STEPS == 0
                alone = late and self.settings.group.world == 1
                saves = time.monotonic() - saved > SAVE_SECONDS
                late_processes = 0.0
                if together or alone or saves:
                    fetched = torch.stack(waiting).tolist()
                    waiting.clear()
                    for i, row in enumerate(fetched, start=done - len(fetched)):
                        self.check_finite(i, row)
                    late_processes = fetched[-1][-1] if together or alone else 0.0
                    figures += [row[:-1] for row in fetched]
                if divisor := task.divisor(sums):
                    self.optimizer_step(step, [gradient / divisor for gradient in gradients])
                stops = done in order.epoch_ends or late_processes > 0
                if stops or saves:
                    self.save(done)
                    saved = time.monotonic()
                if stops or done % ROW_STEPS == 0:
                    self.report(start, done, np.array(figures), began)
                    figures.clear()
                if late_processes and done < order.steps:
                    return False
        self.take_averages()  # Again after a resumed training that had no step left.
        return True

    def check_length(self) -> None:
        """Refuse a training that would do nothing."""
        if not self.task.order.steps:
            raise CheckpointError(
                f"{len(self.task.paths)} pictures give no step of {self.task.recipe.batch}; give more pictures or "
                "epochs, or less --batch"
            )

    def resume_or_start(self) -> int:
        """Go on from a checkpoint, if asked for and there is one; return how many steps are done in all processes."""
        path, group, start = self.settings.checkpoint, self.settings.group, 0
        if self.settings.resume and path is not None and path.exists():
            defaults = asdict(type(self.task.recipe)())
            start = load_checkpoint(path, self.task.modules, self.task.optimizer, self.task.settings, defaults)
        if not group.agree((start, self.task.settings)):
            raise CheckpointError(
                f"{path}: not all processes have the same checkpoint and settings; give them a folder that all share"
            )
        return start

    def count_threads(self) -> tuple[int, int]:
        """Return numbers of threads: those that take a part of a batch, and those inside an operation."""
        cores, by_picture = usable_cores(), self.task.by_picture
        if self.settings.group.device != "cpu":
            return 1, torch.get_num_threads()
        # With one thread a picture, no thread waits for the others within an operation, a thousand times a step.
        return (min(self.task.recipe.batch, cores), 1) if by_picture else (1, cores)

    def batches(self, steps: range) -> Batches[Example]:
        """Yield steps with this process's examples, which threads or processes read ahead."""
        readers = self.settings.readers
        if readers is None:
            # A GPU is faster than one thread reads, and Python's threads wait for each other.
            readers = 0 if self.settings.group.device == "cpu" else usable_cores()
        with closing(self.read_in_processes(readers, steps) if readers else self.read_in_thread(steps)) as batches:
            for step, examples in batches:
                seeds = [self.task.recipe.seed, step, self.settings.group.rank]
                torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
                yield step, examples

    def read_in_thread(self, steps: range) -> Batches[Example]:
        """Yield steps with this process's examples, of which a thread reads four batches ahead."""

        def load(step: int) -> list[Example]:
            return [_load_seeded(self.task.load, item) for item in self.own_items(step)]

        with ThreadPoolExecutor(1) as reader:
            for step, future in prefetch(reader, load, steps, limit=4):
                yield step, future.result()

    def read_in_processes(self, readers: int, steps: range) -> Batches[Example]:
        """Yield steps with this process's examples, which processes read ahead, a picture at a time."""
        work = functools.partial(_load_seeded, self.task.load)
        try:
            pickle.dumps(work)
        except Exception as error:  # Whatever an object of somebody else does when it is pickled.
            reason = reason_of(error)
            text = f"the proposals cannot be sent to worker processes ({reason}); make them picklable, or use readers=0"
            raise SettingError(text) from error
        items = (item for step in steps for item in self.own_items(step))
        rank, world, _ = self.settings.group
        number = len(range(rank, self.task.recipe.batch, world))  # of pictures in each step
        limit = max(4 * readers, 2 * number)
        try:
            with closing(map_processes(work, items, readers, limit)) as results:
                for step in steps:
                    examples: list[Example] = []
                    for _ in range(number):
                        (_, (_, _, slot)), result = next(results)
                        if isinstance(result, ProcessDied):
                            path = self.task.paths[self.task.order.pictures(step)[slot]]
                            raise ImageError(f"{path}: a process ended while it read that; remove the picture")
                        examples.append(result)
                    yield step, examples
        except ProcessStartError as error:
            raise ProcessStartError(str(error).replace("workers=1", "readers=0")) from None

    def own_items(self, step: int) -> list[tuple[Any, list[int]]]:
        """List this process's pictures of a step, each with its seed, which no number of processes changes."""
        rank, world, _ = self.settings.group
        places = [*enumerate(self.task.order.pictures(step))][rank::world]
        return [(self.task.items[int(i)], [self.task.recipe.seed, step, slot]) for slot, i in places]

    def sum_over_processes(
        self, gradients: Sequence[Tensor], figures: NDArray[np.float64] | Tensor, late: bool
    ) -> Tensor:
        """Sum gradients over all processes, in place, and figures with them, of which the last says who is late."""
        device = self.settings.group.device
        own = [torch.as_tensor(values, dtype=torch.float64).to(device) for values in (figures, [late])]
        together = torch.cat(own)
        self.settings.group.all_reduce([*gradients, together])
        return together

    def check_finite(self, step: int, figures: Sequence[float]) -> None:
        """End a training whose loss is not finite."""
        if not np.isfinite(figures).all():
            names = first_names([self.task.paths[i].name for i in self.task.order.pictures(step)])
            raise FloatingPointError(f"the loss is not finite at step {step} ({names}); lower the learning rate")

    def optimizer_step(self, step: int, gradients: Sequence[Tensor]) -> None:
        """Set the learning rate, clip the gradients and take a step of the optimizer."""
        for group in self.task.optimizer.param_groups:
            group["lr"] = self.task.rate(step) * group.get("factor", 1.0)
        for parameter, gradient in zip(self.task.parameters, gradients, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.task.parameters, GRADIENT_NORM)
        self.task.optimizer.step()
        if self.task.averaging:
            self.average_weights(step)

    @torch.no_grad()
    def average_weights(self, step: int) -> None:
        """Move the weights' running averages, which checkpoints hold with the optimizer's state, towards the weights.

        In the first steps the averages follow faster, so that they forget the weights that the training began with.
        """
        decay = min(self.task.averaging, (1 + step) / (10 + step))
        for parameter in self.task.parameters:
            state = self.task.optimizer.state[parameter]
            if "average" in state:
                state["average"].lerp_(parameter, 1 - decay)
            else:
                state["average"] = parameter.detach().clone()

    @torch.no_grad()
    def take_averages(self) -> None:
        """Give the network the averages of its weights."""
        for parameter in self.task.parameters:
            if (average := self.task.optimizer.state[parameter].get("average")) is not None:
                parameter.copy_(average)

    def save(self, done: int) -> None:
        """Write the checkpoint, in the first process."""
        if self.settings.group.rank == 0 and self.settings.checkpoint is not None:
            task = self.task
            save_checkpoint(self.settings.checkpoint, task.modules, task.optimizer, done, task.settings)

    def report(self, start: int, done: int, figures: NDArray[np.float64], began: float) -> None:
        """Report a row in the first process; at the end of an epoch with measurements on the pictures set aside.

        `start` is the step, and `began` the time, at which this process began: from the steps since then, the
        measurements with them, follows how long the others take.
        """
        order = self.task.order
        row = {
            "step": done,
            "steps": order.steps,
            "epoch": self.task.recipe.epochs * done / order.steps,
            **self.task.row(figures),
            "learning_rate": self.task.rate(done - 1),
        }
        if done == order.steps:
            self.take_averages()
        if done in order.epoch_ends:
            self.task.validate(row)
        row["seconds_left"] = (time.monotonic() - began) / (done - start) * (order.steps - done)
        if self.settings.group.rank == 0:
            self.settings.report(row)


def _load_seeded(load: Callable[[Any, np.random.Generator], Example], item: tuple[Any, list[int]]) -> Example:
    """Make an example by random numbers of its own."""
    return load(item[0], np.random.default_rng(item[1]))
