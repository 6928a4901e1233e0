"""Commands and their worker processes look up no name, connect to nothing, and write only where they were told to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import random_image, voc_xml, write_image, write_voc

from inception_rcnn.data import VOC_CLASSES, write_detections
from inception_rcnn.data.system.kernels import kernel_folder

# Python runs this module when it starts, in worker processes too. It refuses the network, and notes that and what is
# opened for writing. Native code is not audited: the files that it leaves in the user's folders are looked for.
AUDIT = """
import os, sys
LOG = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
LOOK_UPS = {"getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo", "connect", "bind", "sendto", "sendmsg"}

# urllib3, which tensorboard imports if boto3 is there, asks in this way whether the machine has IPv6. Nothing is sent.
HARMLESS = ("socket.bind", ("::1", 0))

def hook(event, arguments):
    if event.startswith("socket.") and event[7:] in LOOK_UPS and (event, arguments[1]) != HARMLESS:
        os.write(LOG, f"network {event} {arguments!r}\\n".encode())
        raise OSError(f"refused: {event}")
    if event == "import" and arguments[0] == "onnxruntime":
        os.write(LOG, f"onnxruntime {os.getpid()} {os.environ.get('ORT_DISABLE_TELEMETRY')}\\n".encode())
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        os.write(LOG, f"write {os.path.abspath(arguments[0])}\\n".encode())
    if event in ("os.mkdir", "sqlite3.connect"):
        os.write(LOG, f"write {os.path.abspath(os.fsdecode(arguments[0]))}\\n".encode())

sys.addaudithook(hook)
"""
USERS_FOLDERS = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TMPDIR")


class Traces:
    """What a command left: lines of the audit, and files in the user's folders."""

    def __init__(self, folder: Path, *arguments: object, **environment: str) -> None:
        site, log = folder / "site", folder / "audit.log"
        site.mkdir()
        (site / "sitecustomize.py").write_text(AUDIT)
        homes = {name: folder / "user" / name for name in USERS_FOLDERS}
        for home in homes.values():
            home.mkdir(parents=True)
        # torch, once imported, keeps its folder for temporary files in the environment.
        own = "ORT_DISABLE_TELEMETRY", "TORCHINDUCTOR_CACHE_DIR"
        inherited = {name: value for name, value in os.environ.items() if name not in own}
        self.process = subprocess.run(
            [sys.executable, "-m", "inception_rcnn.detect.cli.app", *map(str, arguments)],
            env={
                **inherited, **{name: str(home) for name, home in homes.items()},
                # Compiled already, for all tests: its folder is not among the user's.
                "NUMBA_CACHE_DIR": str(kernel_folder()), "AUDIT_LOG": str(log), "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]),
                **environment,
            },
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert self.process.returncode == 0, self.process.stderr
        lines = [line.partition(" ")[::2] for line in log.read_text().splitlines()]
        self.network = [what for kind, what in lines if kind == "network"]
        self.telemetry = [what.split()[1] for kind, what in lines if kind == "onnxruntime"]
        self.processes = {what.split()[0] for kind, what in lines if kind == "onnxruntime"}
        allowed = [folder / "out", kernel_folder(), folder / "user" / "TMPDIR", Path("/dev")]
        self.outside = [
            what for kind, what in lines if kind == "write" and not any(map(Path(what).is_relative_to, allowed))
        ]
        # Folders may be there: torch makes an empty one for temporary files.
        self.left = [path for path in (folder / "user").rglob("*") if path.is_file()]

    def check(self) -> None:
        assert self.network == []
        assert self.outside == []
        assert self.left == []
        assert set(self.telemetry) <= {"1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures in a folder, and a folder for outputs."""
    for seed in range(2):
        write_image(tmp_path / "photos" / f"{seed}.png", random_image(seed))
    (tmp_path / "out").mkdir()
    return tmp_path


def test_detect(folder: Path, model_file: Path) -> None:
    traces = Traces(folder, "detect", "photos", "--model", model_file, "--output", "out/found", "--device", "cpu")
    traces.check()
    assert traces.telemetry
    assert (folder / "out" / "found" / "run.json").is_file()


def test_propose_in_several_processes(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("safetensors")
    traces = Traces(folder, "propose", "photos", "--output", "out/boxes.npz", "--workers", 2, "--device", "cpu")
    traces.check()
    assert len(traces.processes) == 3


def test_the_users_choice_stays(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    code = "import inception_rcnn.backbone, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for chosen in ("0", ""):
        environment = {**os.environ, "ORT_DISABLE_TELEMETRY": chosen}
        assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip() == chosen


def test_evaluate_with_a_report(folder: Path) -> None:
    write_voc(folder / "VOC2007", {"000001": voc_xml(("cat", 1, 1, 20, 10))})
    write_detections(folder / "found.json", [], VOC_CLASSES)
    set_and_results = ["--devkit", "VOC2007", "--detections", "found.json"]
    Traces(folder, "evaluate", "voc", *set_and_results, "--report", "out/page", "--json", "out/result.json").check()


@pytest.mark.slow
def test_train_and_classify(folder: Path) -> None:
    pytest.importorskip("torch")
    for kind in ("cat", "dog"):
        for seed in range(2):
            write_image(folder / "set" / "train" / kind / f"{seed}.png", random_image(seed))
    training = ["--data", "set", "--output", "out/weights.npz", "--cache", "out/cache", "--epochs", 1, "--batch", 2]
    Traces(folder, "train", "classifier", *training).check()
    (folder / "again").mkdir()
    (folder / "again" / "out").mkdir()
    given = ["classify", folder / "photos", "--model", folder / "out" / "weights.npz"]
    Traces(folder / "again", *given, "--json", "out/classes.json").check()
