"""Compiled code is found again, wherever the source lies, and what is wrong with its files is nobody's problem."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import make_picture

import inception_rcnn.data.system.kernels as kernels

ROOT = Path(__file__).resolve().parents[3]
NMS = "from inception_rcnn.eval import nms; print(nms([[0, 0, 9, 9], [0, 0, 9, 8], [20, 0, 30, 10]], [.8, .9, .7], .5))"


def run(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process that keeps its compiled code in a folder."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def answer(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the code that `NMS` needs."""
    folder = tmp_path_factory.mktemp("kernels")
    assert answer(run(NMS, folder)) == "[1 2]"
    return folder


DAMAGE = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "one bit of the machine code": lambda content: content[:-2000] + bytes([content[-2000] ^ 1]) + content[-1999:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_made_again(damage, filled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    shutil.copytree(filled, folder)
    files = sorted(folder.iterdir())
    assert len(files) >= 2
    for file in files:
        file.write_bytes(damage(file.read_bytes()))
    process = run(NMS, folder)
    assert answer(process) == "[1 2]"
    assert "Error" not in process.stderr
    assert "cannot be kept" not in process.stderr
    assert sorted(folder.iterdir()) == files
    for file in files:
        content = file.read_bytes()
        assert content[:32] == kernels.hashlib.sha256(content[32:]).digest()


def test_files_of_something_else_are_left_alone(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.nbi").write_bytes(b"somebody else's")
    assert answer(run(NMS, tmp_path)) == "[1 2]"
    assert (tmp_path / "notes.nbi").read_bytes() == b"somebody else's"


def test_another_copy_of_the_code_finds_it(filled: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for room in ("data", "eval"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "inception_rcnn").symlink_to(copy)
    # A line more moves all others.
    source = copy / "data" / "nms.py"
    source.write_text("# moved\n" + source.read_text(encoding="utf-8"), encoding="utf-8")
    script = f"import inception_rcnn.data as d; assert d.__file__.startswith({str(tmp_path)!r}), d.__file__\n{NMS}"
    before = {file: file.stat().st_mtime_ns for file in filled.iterdir()}
    assert answer(run(script, filled, PYTHONPATH=str(tmp_path))) == "[1 2]"
    assert {file: file.stat().st_mtime_ns for file in filled.iterdir()} == before
    # Other code is another file: IoU is compared with half of the threshold.
    source.write_text(source.read_text(encoding="utf-8").replace("- inter) > threshold", "- inter) > threshold / 4"))
    far = NMS.replace("[0, 0, 9, 8]", "[0, 0, 9, 2]")
    assert answer(run(far, filled)) == "[1 0 2]"
    assert answer(run(far, filled, PYTHONPATH=str(tmp_path))) == "[1 2]"


def test_the_same_code_under_another_name_is_another_kernel(tmp_path: Path) -> None:
    (tmp_path / "vendored").symlink_to(ROOT)
    folder = tmp_path / "kernels"
    assert answer(run(NMS.replace("inception_rcnn", "vendored"), folder, PYTHONPATH=str(tmp_path))) == "[1 2]"
    assert answer(run(NMS, folder)) == "[1 2]"


def test_calls_and_compiling_ahead_share_files(filled: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in filled.iterdir()}
    script = (
        "from inception_rcnn.data.nms import NMS_KERNELS; from inception_rcnn.data.system.kernels import compile_all; "
        "compile_all(*NMS_KERNELS)"
    )
    assert answer(run(script, filled)) == ""
    assert {file: file.stat().st_mtime_ns for file in filled.iterdir()} == before


@pytest.mark.parametrize("kind", ["a file", "no home", "full"])
def test_a_folder_that_cannot_be_written_is_done_without(kind: str, tmp_path: Path) -> None:
    script, environment, folder = NMS, {"TMPDIR": str(tmp_path / "tmp")}, tmp_path / "kernels"
    (tmp_path / "tmp").mkdir()
    if kind == "a file":
        folder.write_text("in the way")
    elif kind == "no home":
        script = f"import pwd; pwd.getpwuid = lambda uid: (_ for _ in ()).throw(KeyError(uid))\n{NMS}"
        environment |= {"NUMBA_CACHE_DIR": "", "INCEPTION_RCNN_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "~"}
    else:
        script = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n{NMS}"
    process = run(script, folder, **environment)
    assert answer(process) == "[1 2]"
    assert process.stderr.count("compiled code cannot be kept") == 1
    assert "NUMBA_CACHE_DIR" in process.stderr
    kept = "every process will compile" if kind == "full" else "until this program ends it is in a temporary folder"
    assert kept in process.stderr
    assert not list(tmp_path.glob("**/*.tmp"))
    # The temporary folder is gone.
    assert not list((tmp_path / "tmp").iterdir())
    assert not Path("~").exists()


def test_without_a_folder_the_kernels_are_compiled_once_for_all_processes(tmp_path: Path) -> None:
    """Each process tells its folder, how private that is, and how often it compiled."""
    (tmp_path / "in the way").touch()
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys\n"
        "from numba.core import event\n"
        "from inception_rcnn.data.nms import NMS_KERNELS\n"
        "from inception_rcnn.data.system import kernels\n"
        "from inception_rcnn.data.system.processes import map_processes\n"
        "compiled = event.RecordingListener()\n"
        "event.register('numba:compile', compiled)\n"
        "def work(n):\n"
        "    kernels.compile_all(*NMS_KERNELS)\n"
        "    folder = kernels._temporary_folder()\n"
        "    return str(folder), oct(folder.stat().st_mode), len(compiled.buffer) > 0\n"
        "if __name__ == '__main__':\n"
        "    print([work(0), *(result for _, result in map_processes(work, range(4), 2))])\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "in the way")}
    process = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    first, *others = ast.literal_eval(answer(process))
    assert first[1:] == ("0o40700", True)
    assert set(map(tuple, others)) == {(*first[:2], False)}
    assert not Path(first[0]).exists()
    assert process.stderr.count("compiled code cannot be kept") == 1
    assert "once on this machine" not in process.stderr


@pytest.mark.slow
def test_without_compiling_the_same_comes_out(tmp_path: Path) -> None:
    script = """
import sys
import numpy as np
from inception_rcnn.proposals import SelectiveSearch
from inception_rcnn.data.nms import nms_per_class, soft_nms, soft_nms_per_class
from inception_rcnn.eval import weighted_box_fusion
from inception_rcnn.backbone.regions.roi_align import read_regions

rng = np.random.default_rng(0)
image = np.kron(rng.integers(0, 256, (3, 4, 3)), np.ones((4, 5, 1))).astype(np.uint8)
corners = rng.random((20, 2)).astype(np.float32) * 50
boxes = np.concatenate([corners, corners + 20], axis=1)
scores = rng.random((20, 3)).astype(np.float32)
SelectiveSearch.__call__.__globals__["WIDTH"] = 20
np.savez(sys.argv[1], *SelectiveSearch("single", min_side=0)(image), *nms_per_class(boxes, scores),
         *soft_nms(boxes, scores[:, 0], "linear"), *soft_nms_per_class(boxes, scores),
         *weighted_box_fusion([boxes], [scores[:, 0]], [np.arange(20) % 3]),
         read_regions(scores[:, None] * np.ones((20, 5, 3), np.float32), boxes[:3]))
"""
    results = []
    for flag in "01":
        file = tmp_path / f"{flag}.npz"
        assert answer(run(script.replace("sys.argv[1]", repr(str(file))), tmp_path, NUMBA_DISABLE_JIT=flag)) == ""
        results.append(np.load(file))
    assert len(results[0].files) == 14
    for name in results[0].files:
        # Sums may be in another order, and the exponential another library's.
        np.testing.assert_allclose(results[1][name], results[0][name], rtol=1e-5, atol=1e-6)


def test_kernels_have_the_one_version_that_they_declare() -> None:
    """Read-only arrays, views and other numbers are brought to it instead of compiling for seconds again."""
    from inception_rcnn.data.nms import nms_per_class, soft_nms, soft_nms_per_class
    from inception_rcnn.eval import evaluate_proposals, weighted_box_fusion
    from inception_rcnn.proposals import SelectiveSearch

    boxes = np.tile(np.array([[0, 0, 10, 10], [1, 0, 11, 10]], np.float64), (3, 1))[::2]
    scores = np.linspace(0.1, 0.9, 6, dtype=np.float32).reshape(3, 2)
    for array in (boxes, scores):
        array.flags.writeable = False
    for dtype in (np.float32, np.float64):
        nms_per_class(boxes, scores.astype(dtype))
        soft_nms_per_class(boxes.astype(dtype), scores)
        soft_nms(boxes, scores[:, 0].astype(dtype))
        weighted_box_fusion([boxes.astype(dtype)], [scores[:, 0]], [[0, 1, 0]])
    evaluate_proposals([make_picture(boxes)], {"a": boxes})
    image = np.zeros((30, 40, 3), np.uint8)
    image[10:20, 10:20] = 200
    image.flags.writeable = False
    SelectiveSearch("quality")(image[:, ::-1])
    for picture in (image, np.zeros_like(image)):  # the second is one region, without a merge
        regions = SelectiveSearch("single").regions(picture)
        assert regions.run_lengths(0)["counts"]
    used = [one for one in kernels._signatures if one.overloads]
    assert used
    assert {one.__name__: len(one.overloads) for one in used if len(one.overloads) > 1} == {}


def test_kernels_may_not_allocate() -> None:
    @kernels.kernel("int64(int64)")
    def allocate(count):  # type: ignore[no-untyped-def]
        return len(np.empty(count))

    with pytest.raises(Exception, match="array passed into the function"):
        allocate(3)


def test_what_a_kernel_uses_must_be_known() -> None:
    with pytest.raises(TypeError, match="may use numbers, numpy, math and other kernels"):
        kernels._value("table", {"a": 1})


def make_closure(number: int):  # type: ignore[no-untyped-def]
    @kernels.kernel("int64(int64)")
    def add(a):  # type: ignore[no-untyped-def]
        return a + number

    return add


def test_kernels_have_no_closures() -> None:
    with pytest.raises(TypeError, match="has a closure"):
        make_closure(1)(10)
