"""The command ``inception-rcnn``: one function per subcommand, each a thin door to a room."""

import contextlib
import functools
import inspect
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.models import OptionInfo

from ...data import IMAGE_SUFFIXES
from ...data.errors import OutputError, UserError, print_data_warnings
from ...data.system.atomic_files import only_writer
from ...data.system.remote import is_url
from ..runs.names import RESULT_FILES, package_version
from . import termination
from .classes import classes
from .classify import classify, evaluate_imagenet
from .compare import compare
from .detect import detect
from .draw import draw
from .ensemble import ensemble
from .evaluate import evaluate
from .examples import examples
from .export import export
from .info import info
from .options import offer
from .pack import pack
from .propose import propose
from .report import report
from .terminal import chosen_output, output, print_problem, replace_what_cannot_be_shown
from .train import train

app = typer.Typer(
    help="R-CNN style object detection with selective search and GoogLeNet.",
    epilog=examples(""),
    context_settings={"max_content_width": 100},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# Options of all commands that name what is written. Whatever else names a file or a folder is read.
FOLDERS = ("crop", "save_yolo", "save_voc")
OUTPUTS = ("output", "multibox_output", "json_file", "report", "results", *FOLDERS)
# A report is one file, which may be added to the folder of the detections, and labels may stand beside the pictures.
ADDED = ("report", "save_voc")


def _print_version(asked: bool) -> None:
    if asked:
        output.print(f"inception-rcnn {package_version()}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options before the name of a command."""


def _complete_choices(command: Callable[..., None]) -> None:
    """Have the shell complete the choices that an option's metavar lists, such as ``auto|cpu|cuda``."""
    # Kept, since annotations that are texts give new options each time they are evaluated.
    command.__annotations__ = inspect.get_annotations(command, eval_str=True)
    for hint in command.__annotations__.values():
        for option in getattr(hint, "__metadata__", ()):
            if isinstance(option, OptionInfo) and option.autocompletion is None and "|" in (option.metavar or ""):
                option.autocompletion = offer(word for word in str(option.metavar).split("|") if word == word.lower())


def _guard_outputs(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command refuse an output that is one of its inputs, or that another process is writing at the moment."""

    @functools.wraps(command)
    def guarded(**options: Any) -> None:
        named = {name: path for name in OUTPUTS if (path := options.get(name)) and str(path) != "-"}
        read = (value for name, value in options.items() if name not in (*OUTPUTS, "only"))
        inputs = [one for value in read for one in _paths(value)]
        if same := [one for one in named.values() if is_url(one) and one in inputs]:
            raise OutputError(f"{same[0]}: is an input of this command; name another output")
        outputs = {name: Path(path) for name, path in named.items() if not is_url(path)}
        option_of: dict[str, str] = {}
        for name, path in outputs.items():
            option = "--" + name.removesuffix("_file").replace("_", "-")
            if (other := option_of.setdefault(os.path.realpath(path), option)) != option:
                raise OutputError(f"{path}: {other} and {option} are two outputs; name another")
            for one in inputs if name not in ADDED else ():
                if os.path.exists(one) and os.path.exists(path) and os.path.samefile(one, path):
                    raise OutputError(f"{path}: is an input of this command; name another output")
            if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
                raise OutputError(f"{option} {path}: is a picture; name another output")
        with chosen_output(options), contextlib.ExitStack() as locks:
            # What is written into a folder is locked there, by the journal. torchrun's first process writes.
            if os.environ.get("RANK", "0") == "0":
                folders = {*FOLDERS, "output"} if command in (detect, draw) else set(FOLDERS)
                files = {path for name, path in outputs.items() if name not in folders}
                for output in sorted(files):
                    if output.parent.is_dir() and (output.is_file() or not output.exists()):
                        locks.enter_context(only_writer(output))
            command(**options)

    return guarded


def _paths(value: Any) -> Iterable[str]:
    """List what the value of an option may name: files, folders, and a list of files after "@"."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, (str, Path)):
            # A folder of detections stands for the file in it.
            yield from (str(one), str(one).removeprefix("@"), *(os.path.join(one, name) for name in RESULT_FILES))


for command in (detect, draw, propose, compare, ensemble, classify, report, export, pack, classes, info):
    app.command(epilog=examples(command.__name__))(command)
evaluate.command("imagenet", epilog=examples("evaluate imagenet"))(evaluate_imagenet)
app.add_typer(evaluate, name="evaluate")
app.add_typer(train, name="train")
for group in (app, evaluate, train):
    for registered in group.registered_commands:
        assert registered.callback is not None
        _complete_choices(registered.callback)
        registered.callback = _guard_outputs(registered.callback)


def _with_address(arguments: Sequence[str]) -> list[str]:
    """Give --cluster its address where the user named none; typer has no options whose value may be left out."""
    full = []
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue="--"):
        full.append(argument)
        if argument == "--cluster" and following.startswith("-"):
            full.append("local")
    return full


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake ends in one line and exit status 2, SIGTERM in status 143."""
    replace_what_cannot_be_shown()
    termination.handle_sigterm()
    print_data_warnings(functools.partial(print_problem, style="yellow"))
    try:
        app(_with_address(sys.argv[1:] if arguments is None else arguments), prog_name="inception-rcnn")
    except SystemExit as end:
        if end.code == termination.INTERRUPTED and termination.received():
            sys.exit(termination.TERMINATED)
        raise
    except (UserError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print_problem(f"inception-rcnn: {text}", style="red")
        sys.exit(2)


if __name__ == "__main__":
    main()
