"""Scripts that run in one process or, as torchrun starts them, in two that train together."""

import os
import subprocess
import sys
from pathlib import Path

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run_script(folder: Path, text: str, launch: list[str]) -> None:
    """Run a script's text, with the folder as its argument and the tests' modules importable."""
    script = folder / "together.py"
    script.write_text(text)
    tests = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tests / "detect"), str(tests)]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [*launch, str(script), str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
