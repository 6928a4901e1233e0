"""One exported model in every program that runs ONNX and is installed here: how far its numbers are from ours.

python benchmarks/onnx_runtimes.py [--model voc] [--regions 100] [--scale 1] [--fixed] [--markdown]

The picture is scikit-image's "chelsea", the regions are the first proposals of selective search. Each runtime gets all
of them, one, and none, in a process of its own, since some end the process when something fails. A cell is the largest
difference of any probability from `RegionScorer`, and of any box delta; of no regions, "yes" if the results have the
right shape. After "fails", whose reason is on stderr, no more is tried. ONNX Runtime for Node and for browsers:
``npm install onnxruntime-node onnxruntime-web``, then NODE_PATH names the folder ``node_modules``.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tables import show

from inception_rcnn.backbone.preprocessing import crop_regions, prepare_picture
from inception_rcnn.backbone.regions.placement import Placement
from inception_rcnn.backbone.regions.scorer import RegionScorer
from inception_rcnn.backbone.weights.model_file import read_model
from inception_rcnn.backbone.weights.published import find_model

OUTPUTS = ["probabilities", "deltas"]
# Inputs of a model by name, and what it gives for them: probabilities, deltas.
Inputs = dict[str, np.ndarray]
Run = Callable[[Inputs], list[np.ndarray]]


def _load_onnxruntime(path: str) -> Run:
    # Loads a model as a function of its inputs; so do the others.
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return partial(session.run, OUTPUTS)


def _load_reference(path: str) -> Run:
    import onnx.reference

    return partial(onnx.reference.ReferenceEvaluator(path).run, OUTPUTS)


def _load_openvino(path: str) -> Run:
    import openvino

    # Its default is bfloat16 where the CPU has it.
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: [compiled(inputs)[name] for name in OUTPUTS]


def _load_opencv(path: str) -> Run:
    import cv2

    network = cv2.dnn.readNetFromONNX(path)

    def run(inputs: Inputs) -> list[np.ndarray]:
        for name, array in inputs.items():
            network.setInput(array, name)
        return network.forward(OUTPUTS)

    return run


def _load_tract(path: str) -> Run:
    import tract

    runnable = tract.onnx().load(path).into_model().into_runnable()
    return lambda inputs: [tensor.to_numpy() for tensor in runnable.run(list(inputs.values()))]


def _load_tvm(path: str) -> Run:
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    machine = relax.VirtualMachine(tvm.compile(from_onnx(onnx.load(path)), target="llvm"), tvm.cpu())

    def run(inputs: Inputs) -> list[np.ndarray]:
        return [tensor.numpy() for tensor in machine["main"](*map(tvm.runtime.tensor, inputs.values()))]

    return run


# What the table calls a runtime -> the package to look for, and how to load a model with it.
PYTHON: dict[str, tuple[str, Callable[[str], Run]]] = {
    "onnxruntime": ("onnxruntime", _load_onnxruntime),
    "OpenVINO": ("openvino", _load_openvino),
    "OpenCV": ("cv2", _load_opencv),
    "tract": ("tract", _load_tract),
    "TVM": ("tvm", _load_tvm),
    "onnx.reference": ("onnx", _load_reference),
}
NODE = ("onnxruntime-node", "onnxruntime-web")


def fix_sizes(path: str, sizes: dict[str, int]) -> None:
    """Fix the dimensions of a model, and compute ahead what follows from them, as docs/onnx.md says."""
    for name, size in sizes.items():
        _tool("make_dynamic_shape_fixed", "--dim_param", name, "--dim_value", str(size), path, path)
    _tool("optimize_onnx_model", "--opt_level", "basic", path, path)


def _tool(name: str, *words: str) -> None:
    subprocess.run([sys.executable, "-m", f"onnxruntime.tools.{name}", *words], check=True, capture_output=True)


def compare(found: list[np.ndarray], expected: list[np.ndarray]) -> str:
    """Say how far results are from those that are expected."""
    # OpenCV gives None for an array of nothing.
    found = [np.empty(b.shape) if a is None and not b.size else a for a, b in zip(found, expected, strict=True)]
    if [array.shape for array in found] != [array.shape for array in expected]:
        return "wrong shape"
    if not len(expected[0]):
        return "yes"
    return ", ".join(f"{np.abs(a - b).max():.0e}" for a, b in zip(found, expected, strict=True))


def run_python(pipe: Any, package: str, load: Callable[[str], Run], path: str, cases: list[tuple[Inputs, Any]]) -> None:
    """Send the version and then a cell for each case into a pipe."""
    pipe.send(getattr(import_module(package), "__version__", "").partition("-")[0] or version(package))
    run = load(path)
    for inputs, expected in cases:
        pipe.send(compare(run(inputs), expected))


def python_row(package: str, load: Callable[[str], Run], path: str, cases: list[tuple[Inputs, Any]]) -> list[str]:
    """Run the cases in a process of their own: version, cells."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_python, args=(theirs, package, load, path, cases))
    process.start()
    theirs.close()
    cells: list[str] = []
    try:
        while len(cells) < 1 + len(cases):
            cells.append(ours.recv())
    except EOFError:  # The process has ended, with its error on stderr.
        cells = [*cells, "fails", "", "", ""][: 1 + len(cases)]
    process.join()
    return cells


def node_row(package: str, path: str, cases: list[tuple[Inputs, Any]]) -> list[str]:
    """Run the cases in Node: version, cells."""
    sent = [
        {name: {"dims": a.shape, "data": base64.b64encode(a.tobytes()).decode()} for name, a in inputs.items()}
        for inputs, _ in cases
    ]
    script = Path(__file__).with_suffix(".cjs")
    done = subprocess.run(
        ["node", str(script), package, path], input=json.dumps(sent), capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return ["", "fails", "", ""][: 1 + len(cases)]
    reply = json.loads(done.stdout)
    found = [
        [np.frombuffer(base64.b64decode(one["data"]), np.float32).reshape(one["dims"]) for one in outputs]
        for outputs in reply["results"]
    ]
    return [reply["version"], *(compare(one, expected) for one, (_, expected) in zip(found, cases, strict=True))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", default="voc")
    parser.add_argument("--regions", type=int, default=100)
    parser.add_argument("--scale", type=float, default=1.0, help="of the picture; the reference evaluator is slow")
    parser.add_argument("--fixed", action="store_true", help="fix the sizes in the model, so only one is tried")
    parser.add_argument("--only", nargs="+", default=[*PYTHON, *NODE], metavar="RUNTIME")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    from skimage.data import chelsea

    from inception_rcnn.backbone.export.graphs import export_whole
    from inception_rcnn.proposals import SelectiveSearch

    model, image = read_model(find_model(options.model)), chelsea()
    regions = SelectiveSearch()(image)[0][: options.regions]
    scorer = RegionScorer(model, Placement(threads=1), scale=options.scale)
    cases: list[tuple[Inputs, Any]] = []
    for boxes in (regions, regions[:1], regions[:0]):
        if model.scoring == "crops":
            inputs = {"picture": crop_regions(image, boxes)}
        else:
            array, scale = prepare_picture(image, scorer.long_side)
            inputs = {"picture": array, "boxes": boxes * np.float32(scale)}
        cases.append((inputs, scorer(image, boxes)))
    if options.fixed:
        del cases[1:]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.onnx")
        Path(path).write_bytes(export_whole(model))
        if options.fixed:
            sizes = {"regions": len(regions)}
            if model.scoring == "shared":
                sizes |= dict(zip(("height", "width"), cases[0][0]["picture"].shape[2:], strict=True))
            fix_sizes(path, sizes)
        for name, (package, load) in PYTHON.items():
            if name in options.only and find_spec(package):
                rows.append([name, *python_row(package, load, path, cases)])
        for package in NODE:
            if package in options.only and shutil.which("node"):
                rows.append([package, *node_row(package, path, cases)])
    columns = ["runtime", "version", f"{len(regions)} regions", "1 region", "no regions"][: 2 + len(cases)]
    show(f"{options.model}: largest difference of a probability, of a delta", columns, rows, options.markdown)


if __name__ == "__main__":
    main()
