"""Locks on outputs: one writer at a time, and none that a process which ended could leave."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inception_rcnn.data.errors import OutputError
from inception_rcnn.data.system.atomic_files import only_writer, open_locked

HOLD = """
import sys, time
from pathlib import Path
from inception_rcnn.data.system.atomic_files import only_writer
with only_writer(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_killed_one_is_not_waited_for(tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(output)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(OutputError, match=f"^{output}: another run is writing there"), only_writer(output):
            pass
        with only_writer(tmp_path / "other.json"):
            pass
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
        other.stdout.close()
    assert len(os.listdir(tmp_path)) == 1
    with only_writer(output):
        pass
    assert os.listdir(tmp_path) == []


def test_a_file_that_its_last_user_removed_is_not_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was opened before it was removed, so that its lock would keep nobody out."""
    import fcntl

    path, lock = tmp_path / "journal", fcntl.flock

    def removed_meanwhile(file: object, flags: int) -> None:
        monkeypatch.undo()
        path.unlink()
        lock(file, flags)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with open_locked(path), pytest.raises(OutputError, match="another run"):
        open_locked(path)


def test_a_folder_that_is_not_there_is_named_by_the_output(tmp_path: Path) -> None:
    output = tmp_path / "no" / "found.json"
    with pytest.raises(FileNotFoundError) as caught, only_writer(output):
        pass
    assert caught.value.filename == str(output)
