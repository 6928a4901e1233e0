"""``inception-rcnn draw``: what a run of detect found, drawn, cut out or labelled, without scoring again."""

from pathlib import Path
from typing import Annotated

import typer

from ...data.errors import CommandError
from .options import DEFAULT_MAX_PIXELS, Crops, MaxPixels, NoDrawings, Only, Quiet, SaveVoc, SaveYolo, derived_option
from .terminal import console, print_problem, progress_bar
from .termination import INTERRUPTED

_NAMED = 10  # pictures that cannot be read


def draw(
    finished: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder of a finished run of detect.", show_default=False)
    ],
    output: Annotated[
        Path | None, derived_option("DIR", "Folder for the drawn pictures, new or empty.", "OUT/pictures")
    ] = None,
    draw_score: Annotated[
        float | None, derived_option("S", "Weaker ones are left out.", "as in the run", min=0, max=1)
    ] = None,
    only: Only = None,
    no_drawings: NoDrawings = False,
    crop: Crops = None,
    save_yolo: SaveYolo = None,
    save_voc: SaveVoc = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Draw what a run of detect found with another score or other classes; nothing is scored again."""
    from ..runs.finished import FinishedRun
    from ..runs.labels import Exports, export_run

    drawings = None if no_drawings else output or finished / "pictures"
    exports = Exports(drawings, crop, save_yolo, save_voc)
    if not exports or (no_drawings and output is not None):
        raise CommandError("--no-drawings: leave out --output, and name --crop, --save-yolo or --save-voc")
    # A drawing has the name of its picture: it must take the place neither of that nor of a copy.
    if output is not None and output.is_dir() and any(output.iterdir()):
        raise CommandError(f"--output {output}: has files already; name a new or empty folder")
    run, begun = FinishedRun(finished), 0
    total = len(run.names)

    def progress(done: int) -> None:
        nonlocal begun
        begun = done
        report(done)

    try:
        with progress_bar("draw", total) as report:
            summary, failures = export_run(
                run, exports, draw_score, only or (), max_pixels=max_pixels, progress=progress
            )
    except KeyboardInterrupt:
        print_problem(f"interrupted after {begun} of {total} pictures")
        raise typer.Exit(INTERRUPTED) from None
    if drawings is not None and output is None:
        console.print(f"these take the place of the run's drawings; {finished / 'report.html'} is as it was")
    least = (run.record.get("settings") or {}).get("min_score")
    if draw_score is not None and isinstance(least, float) and draw_score < least:
        print_problem(f"the run has no detections below {least:g}, its --min-score")
    for one in failures[:_NAMED]:
        print_problem(f"passed over: {one.line['message']}")
    written = ", ".join(str(folder) for folder in vars(exports).values() if folder is not None)
    for line in summary.closing_lines(written):
        console.print(line)
    if failures:
        print_problem(f"{len(failures)} of {total} pictures could not be read or written")
        raise typer.Exit(1)
