"""The benchmarks' scripts can be started: their imports exist, and they say what they take."""

import os
import runpy
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
def test_a_benchmark_says_what_it_takes(
    script: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("torch", "torchvision", "onnxruntime", "skimage"):
        pytest.importorskip(package)
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))  # Scripts set it.
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert not ended.value.code
    assert script.name in capsys.readouterr().out


def test_there_are_benchmarks() -> None:
    assert len(SCRIPTS) >= 8
