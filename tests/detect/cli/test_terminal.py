"""What commands show while they work."""

import pytest

from inception_rcnn.detect.cli import terminal


def test_without_a_terminal_a_line_a_minute_tells_the_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with terminal.progress_bar("detect", 400) as report:
        for done in range(401):
            report(done, "slowest: neural network")
            now[0] += 0.5
    lines = [line for line in capsys.readouterr().err.splitlines() if " of 400" in line]
    assert [line.partition(",")[0] for line in lines] == [f"detect: {done} of 400" for done in (120, 240, 360)]
    assert all(line.endswith("slowest: neural network") for line in lines)
