"""What an installation puts into site-packages, and what it says meanwhile."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("data", "backbone", "proposals", "eval", "detect")
KINDS = (".py", ".txt", ".html", ".css", ".js", ".safetensors")


def shipped_files() -> set[str]:
    """Names of the package's files, from the root of the repository."""
    return {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.suffix in KINDS or path.name == "py.typed"
    }


def test_an_installation_has_every_file_and_warns_of_nothing(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    source, built = tmp_path / "fotos für später", tmp_path / "built"
    files = shipped_files()
    for name in (*files, "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            (source / name).touch()
        else:
            shutil.copy(ROOT / name, source / name)
    # Without the variable that lets setuptools warn that it does not compile.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    run = subprocess.run(
        [sys.executable, "-c", "import setuptools; setuptools.setup()", "--quiet", "build_py", "--build-lib", built],
        cwd=source, capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert (run.stdout, run.stderr) == ("", "")
    assert [path.name for path in built.iterdir()] == ["inception_rcnn"]
    made = {path.relative_to(built / "inception_rcnn").as_posix() for path in built.rglob("*") if path.is_file()}
    assert made == files
    assert {
        "backbone/models/voc.safetensors",
        "eval/report/report.html",
        "detect/runs/page/page.js",
        "data/py.typed",
    } <= made
    # The list of what a source distribution holds.
    listed = (source / "inception_rcnn.egg-info" / "SOURCES.txt").read_text(encoding="utf-8").splitlines()
    assert files <= {name.removeprefix("./") for name in listed}
