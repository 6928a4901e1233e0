"""The benchmarks' scripts can be started: their imports exist, and they say what they take."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted(
    path
    for path in (Path(__file__).resolve().parents[1] / "benchmarks").glob("*.py")
    if "ArgumentParser" in path.read_text(encoding="utf-8")
)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_says_what_it_takes(script: Path) -> None:
    for package in ("torch", "torchvision", "onnxruntime", "skimage"):
        pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, str(script), "--help"], env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert script.name in done.stdout


def test_there_are_benchmarks() -> None:
    assert len(SCRIPTS) >= 8
