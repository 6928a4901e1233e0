"""``inception-rcnn classes``: what a detector knows, and how well."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from .evaluate import JsonFile, check_outputs, make_table, write_json
from .options import detector_names
from .terminal import output


def classes(
    model: Annotated[
        str, typer.Argument(metavar="NAME|FILE", autocompletion=detector_names, help="A detector.")
    ] = "voc",
    json_file: JsonFile = None,
) -> None:
    """List a detector's classes: what each was learned from, and what it reached on pictures set aside."""
    told = collect(model)
    check_outputs(json_file)
    write_json(json_file, told)
    if not any("value" in one for one in told.values()):
        for name in told:
            output.print(name)
        output.print(f"{len(told)} classes; the file does not say what they reached", soft_wrap=True)
        return
    table = make_table("class", "learned from", "AP", "of objects", "localised", "of pictures", "drawn")
    for name, one in told.items():
        value = "-" if one["value"] is None else f"{one['value']:.3f}"
        cells = [value, str(one["number"]), "", ""] if one["boxes"] else ["", "", value, str(one["number"])]
        source = f"{one['boxes']} boxes" if one["boxes"] else "a teacher" if one["taught"] else "nothing"
        table.add_row(name, source, *cells, "yes" if one["drawn"] else "no")
    output.print(table)
    drawn = sum(one["drawn"] for one in told.values())
    output.print(f"{drawn} of {len(told)} classes are drawn by `detect`", soft_wrap=True)


def collect(model: str) -> dict[str, dict[str, Any]]:
    """Collect what `classes` tells.

    Parameters
    ----------
    model : str
        Name of a bundled detector, or a file.

    Returns
    -------
    dict of str to dict
        By class: ``drawn``; and if the file has them, ``boxes``, ``taught``, ``value`` and ``number`` of a
        `inception_rcnn.data.class_measures.ClassMeasure`.

    Raises
    ------
    ModelError
        If there is no such model.

    Examples
    --------
    >>> collect("voc")["cat"]["drawn"]
    True
    """
    from ...backbone.weights.model_file import read_model
    from ...backbone.weights.published import find_model
    from ...data.class_measures import hidden_classes

    read = read_model(find_model(model))
    hidden = hidden_classes(read.classes, read.measures)
    measures = [asdict(one) for one in read.measures] if read.measures is not None else [{}] * len(read.classes)
    return {name: {**one, "drawn": name not in hidden} for name, one in zip(read.classes, measures, strict=True)}
