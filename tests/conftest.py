"""What the tests of all rooms share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from servers import http, s3, s3_server  # noqa: F401 - fixtures

# Some tests import ONNX Runtime before the package does; see `inception_rcnn.backbone`.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# The same examples on every run, and no deadline: the first call of a kernel compiles it.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a browser: `make test-pages` runs them."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.pages)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser without a network, with a log of what its pages ask for."""
    webdriver = pytest.importorskip("selenium.webdriver")
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no chromium or no chromedriver (Debian: chromium, chromium-driver)")
    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync", "window-size=1400,1000",
        f"user-data-dir={tmp_path_factory.mktemp('browser')}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.downloads = downloads
    try:
        chrome.execute_cdp_cmd("Network.enable", {})
        chrome.execute_cdp_cmd(
            "Network.emulateNetworkConditions",
            {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
        )
        chrome.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        yield chrome
    finally:
        chrome.quit()


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
