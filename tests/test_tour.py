"""The notebook docs/tour.ipynb runs as it stands there, and is stored with what it shows."""

import json
import os
import sys
from pathlib import Path

import pytest

TOUR = Path(__file__).resolve().parents[1] / "docs" / "tour.ipynb"


def test_the_tour_is_stored_with_small_outputs() -> None:
    text = TOUR.read_text(encoding="utf-8")
    assert len(text) < 500_000
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert 10 <= len(cells) <= 15
    # Executed from top to bottom.
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) >= 5
    # Where it was executed is nobody's concern.
    assert "/home/" not in text
    assert "/tmp/" not in text


@pytest.mark.slow
def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torch", "onnxscript", "skimage", "matplotlib", "ipykernel"):
        pytest.importorskip(package)
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(TOUR, as_version=4)
    claims = [
        "found['cat'].names[0] == 'cat' and found['astronaut'].names[0] == 'person'",
        "coin_precision > 0.8",
        "len(proposed) > len(regions) == 200",
        "steps[1]['soft-NMS'] < steps[1]['second look']",  # It overlaps a better one.
    ]
    notebook.cells += [nbformat.v4.new_code_cell(f"assert {claim}") for claim in claims]
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=folder).execute()
