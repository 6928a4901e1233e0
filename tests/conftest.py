"""What the tests of all rooms share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings
from servers import http, s3, s3_server  # noqa: F401 - fixtures

# Some tests import ONNX Runtime before the package does; see `inception_rcnn.backbone`.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# The same examples on every run, and no deadline: the first call of a kernel compiles it.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data, not part of the repository; tests that need it are skipped without it."""
    repository = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("INCEPTION_RCNN_SHARED", repository.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no reference data: set INCEPTION_RCNN_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written region model with random weights."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from random_model import random_model

    from inception_rcnn.backbone.weights.model_file import write_model

    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    write_model(path, random_model())
    return path
