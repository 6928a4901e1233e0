"""What an installation puts into site-packages, and what it says meanwhile."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from builders import write_image

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


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` makes: a source distribution, and a wheel that was built from that."""
    try:
        version("build")  # The repository may have a folder of that name, which Python would import.
    except PackageNotFoundError:
        pytest.skip("needs build, of the extra dev")
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("made")
    others = (
        "pyproject.toml",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "constraints.txt",
    )
    for name in (*shipped_files(), *others, "tests/test_packaging.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", made, source]
    subprocess.run(command, cwd=made, capture_output=True, check=True)
    return made


@pytest.mark.slow
def test_both_distributions_have_every_file_of_the_package(distributions: Path) -> None:
    (archive,), (wheel,) = distributions.glob("*.tar.gz"), distributions.glob("*.whl")
    files = shipped_files()
    with tarfile.open(archive) as members:
        names = {name.partition("/")[2] for name in members.getnames()}
    assert files | {"CITATION.cff", "constraints.txt"} <= names
    assert not any(name.startswith("tests") for name in names)
    with zipfile.ZipFile(wheel) as members:
        names = {name for name in members.namelist() if ".dist-info/" not in name}
    assert names == {f"inception_rcnn/{name}" for name in files}


@pytest.mark.slow
def test_the_wheel_detects_without_the_repository(distributions: Path, tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data")
    pytest.importorskip("onnxruntime")
    (wheel,) = distributions.glob("*.whl")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    # What the package needs is in this environment; an editable installation of the package in it is not seen there.
    folder = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    needed = dict.fromkeys(map(sysconfig.get_path, ("purelib", "platlib")))
    Path(folder, "needed.pth").write_text("".join(f"{path}\n" for path in needed))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, env=environment, check=True)
    write_image(tmp_path / "photos" / "cat.jpg", data.chelsea(), quality=95)
    command = [tmp_path / "venv" / "bin" / "inception-rcnn", "detect", "photos", "--output", "out", "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ": cat 1\n" in done.stderr
    assert (tmp_path / "out" / "report.html").is_file()
    where = subprocess.run(
        [python, "-c", "import inception_rcnn.detect; print(inception_rcnn.detect.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert where.startswith(folder)


def test_versions_are_the_same_everywhere() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project]")[2]
    (number,) = re.findall(r'^version = "(.*)"', project, re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {number}\n" in citation
    assert f"## {number}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_images_run_as_no_root_and_have_what_they_copy(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert re.findall(r"^USER (\d+)", text, re.MULTILINE)[-1] != "0"
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    # All that a build needs is let through, and nothing else.
    assert ignored[0] == "*"
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert kept == {*ROOMS, "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    assert all((ROOT / path).exists() for path in kept)
