"""Run scripts in one process or, by torchrun, in two that train together."""

import os
import subprocess
import sys
from pathlib import Path

import torch

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run_script(folder: Path, text: str, launch: list[str]) -> None:
    """Run a script's text, with the folder as its argument and the tests' modules importable."""
    script = folder / "together.py"
    script.write_text(text)
    tests = Path(__file__).parent
    paths = str(tests / "detect" / "train"), str(tests), os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, str(script), str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def compare_runs(folder: Path, text: str, *, rtol: float, atol: float) -> None:
    """Check that a script which saves ``<rank>.of.<world>.pt`` learns the same in one process and in two."""
    for launch in ([sys.executable], TORCHRUN):
        run_script(folder, text, launch)
        (folder / "checkpoint").unlink()
    alone, first, second = (torch.load(folder / f"{name}.pt") for name in ("0.of.1", "0.of.2", "1.of.2"))
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, rtol=rtol, atol=atol)
        assert torch.equal(first[name], second[name])
