import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest

from inception_rcnn.data.errors import DataWarning
from inception_rcnn.data.system import processes
from inception_rcnn.data.system.processes import ProcessDied, map_processes, usable_cores


def double_unless_deadly(item):
    if item in (3, 4, 17):
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item


def refuse(item):
    raise ValueError(f"not {item}")


def test_results_come_in_order_whatever_takes_longer():
    items = [0.2, 0.0, 0.1, 0.0]
    assert list(map_processes(time.sleep, items, workers=2)) == [(item, None) for item in items]


def test_a_process_that_dies_costs_only_its_item():
    results = dict(map_processes(double_unless_deadly, range(20), workers=2))
    assert list(results) == list(range(20))
    died = [item for item, result in results.items() if isinstance(result, ProcessDied)]
    assert died == [3, 4, 17]
    assert all(results[item] == 2 * item for item in results if item not in died)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_raised_here_and_the_processes_end(workers):
    with pytest.raises(ValueError, match="not 1"):
        list(map_processes(refuse, [1, 2], workers))
    assert not multiprocessing.active_children()


def warn(item):
    warnings.warn("3 pictures are rotated", DataWarning, stacklevel=2)
    return item


def test_warnings_of_workers_are_one_line_each(capfd):
    assert len(list(map_processes(warn, range(8), workers=2))) == 8
    lines = capfd.readouterr().err.splitlines()
    assert set(lines) == {"warning: 3 pictures are rotated"}
    assert len(lines) <= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_items_are_taken_as_they_are_needed(workers):
    taken = []

    def endless():
        number = 0
        while True:
            taken.append(number)
            yield number
            number += 1

    results = map_processes(abs, endless(), workers)
    assert [next(results) for _ in range(3)] == [(0, 0), (1, 1), (2, 2)]
    results.close()
    assert len(taken) < 20


def terminate_itself(item):
    if item == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return item


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="this system does not tell who sent a signal")
def test_a_scheduler_that_terminates_all_processes_costs_no_item():
    assert list(map_processes(terminate_itself, range(6), workers=2)) == [(item, item) for item in range(6)]


def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, time\n"
        "from inception_rcnn.data.system.processes import map_processes\n"
        "def work(n):\n"
        "    os.write(1, f'{os.getpid()}\\n'.encode())\n"
        "    time.sleep(0.1)\n"
        "if __name__ == '__main__':\n"
        "    list(map_processes(work, range(10**6), 2))\n"
    )
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    workers = {int(parent.stdout.readline()) for _ in range(6)}
    assert workers
    assert parent.pid not in workers
    parent.kill()
    parent.wait()
    parent.stdout.read()  # ends when the last worker has ended
    parent.stdout.close()


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_a_container_may_have_a_share_of_the_machine(files, cores, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores() == cores
