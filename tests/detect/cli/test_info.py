"""`inception-rcnn info`: what is installed here, and what it can use."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from inception_rcnn.backbone.weights.published import bundled_models
from inception_rcnn.detect.cli.app import main
from inception_rcnn.detect.cli.info import collect


def run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert not caught.value.code


def test_info_tells_models_cache_and_why_there_is_no_gpu(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INCEPTION_RCNN_CACHE", str(tmp_path))
    monkeypatch.setattr("inception_rcnn.backbone.regions.placement.has_gpu_driver", lambda: False)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "net.npz").write_bytes(bytes(1_234_567))
    run("info", "--json", tmp_path / "info.json")
    printed = capsys.readouterr().out
    told = json.loads((tmp_path / "info.json").read_text())
    assert list(told["models"]) == bundled_models()
    assert told["cache"][str(tmp_path)] == 1.2
    assert "voc-2 " in printed
    assert f"{tmp_path} 1.2 MB" in printed
    assert told["gpu"].startswith("none: ") or told["precision"] == "float16"
    run("info", "--json", "-")
    again = json.loads(capsys.readouterr().out)
    assert {**again, "cache": None} == {**told, "cache": None}


def test_a_torchvision_that_does_not_fit_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    assert "does not fit torch" in collect()["packages"]["torchvision"]
