"""The command ``inception-rcnn``: one function per subcommand, each a thin door to a room."""

import contextlib
import signal
import sys
import warnings
from typing import Any

import typer
from PIL import Image

from ...data.errors import DataWarning, UserError
from .classify import classify, evaluate_imagenet
from .detect import detect
from .ensemble import ensemble
from .evaluate import evaluate
from .export import export
from .propose import propose
from .terminal import console, replace_what_cannot_be_shown
from .train import train

app = typer.Typer(
    help="R-CNN style object detection with selective search and GoogLeNet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (detect, propose, ensemble, classify, export):
    app.command()(command)
evaluate.command("imagenet")(evaluate_imagenet)
app.add_typer(evaluate, name="evaluate")
app.add_typer(train, name="train")


def _print_warning(message: Warning | str, category: type[Warning], *where: Any) -> None:
    """Print a warning about the user's data as one line; others as Python does."""
    if issubclass(category, DataWarning):
        console.print(f"warning: {message}", style="yellow")
    else:
        _show_warning(message, category, *where)


_show_warning = warnings.showwarning


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake ends in one line and exit status 2."""
    replace_what_cannot_be_shown()
    with contextlib.suppress(ValueError):  # What a cluster or a container sends before it kills is Ctrl-C to us.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `read_image` has its own limit.
    warnings.filterwarnings("once", category=DataWarning)
    warnings.showwarning = _print_warning
    try:
        app(arguments, standalone_mode=True)
    except (UserError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        console.print(f"inception-rcnn: {text}", style="red")
        sys.exit(2)


if __name__ == "__main__":
    main()
