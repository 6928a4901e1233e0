"""Run the numeric tests as other processors would: with fewer instructions, other libraries' choices, other threads.

python tests/cpus.py [arguments of pytest]

What a processor has cannot be added, but it can be taken away: torch, oneDNN, OpenCV, NumPy, OpenBLAS and numba each
read a variable that keeps them from instructions that are there. (ONNX Runtime reads none.) bfloat16 is used in
training where oneDNN may use it, so the settings that stop below AVX512-BF16 forbid it. Tests that hold under all of
these do not assert the luck of one of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parent
NUMERIC = [
    "data/test_nms.py", "data/test_boxes.py", "data/system/test_kernels.py", "eval/test_ensemble.py",
    "eval/test_voc_protocol.py", "eval/test_ilsvrc_protocol.py", "proposals", "backbone", "detect/test_detector.py",
    "detect/test_voc_model.py", "detect/train/test_augmentation.py",
    "detect/train/test_training.py", "detect/train/test_training_multibox.py",
    "detect/train/test_training_classifier.py", "detect/train/test_fine_tuning.py",
]  # fmt: skip
AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
SETTINGS = {
    "SSE 4.1, one thread": {
        "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "", "OPENCV_CPU_DISABLE": "AVX,AVX2,AVX512_SKX", "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": f"AVX2 FMA3 {AVX512}", "OMP_NUM_THREADS": "1",
    },
    "AVX2, all threads": {
        "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "", "OPENCV_CPU_DISABLE": "AVX512_SKX", "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": AVX512,
    },
    "this processor without bfloat16, one thread": {
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI", "OMP_NUM_THREADS": "1",
    },
    "this processor, all threads": {},
}  # fmt: skip


def main() -> int:
    """Run the tests under each setting; the exit status says whether all passed."""
    results = {}
    for name, variables in SETTINGS.items():
        print(f"== {name}", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, **variables, "NUMBA_CACHE_DIR": folder, "PYTHONWARNINGS": "ignore:.*CPU feat"}
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--durations", "3", *sys.argv[1:]]
            if "OMP_NUM_THREADS" in variables:  # One thread leaves a core for another process.
                command += ["--numprocesses", "2", "--dist", "worksteal"]
            done = subprocess.run([*command, *(str(TESTS / name) for name in NUMERIC)], env=environment, check=False)
        results[name] = (done.returncode, time.monotonic() - began)
    for name, (status, seconds) in results.items():
        print(f"{'passed' if status == 0 else 'FAILED'}  {seconds:5.0f} s  {name}")
    return int(any(status for status, _ in results.values()))


if __name__ == "__main__":
    sys.exit(main())
