import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import scipy.io
import skimage
from PIL import Image

from inception_rcnn.data import ProposalFileError, atomic_file, read_image, read_proposals
from inception_rcnn.data.errors import DataWarning, JournalError, OutputError, SettingError
from inception_rcnn.data.system.processes import ProcessStartError
from inception_rcnn.detect.cli.app import main
from inception_rcnn.detect.runs.proposing import propose_pictures
from inception_rcnn.proposals import SelectiveSearch, load_proposer

SEARCH = SelectiveSearch("single", limit=100)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve photographs in two folders, two files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    samples = Path(skimage.__file__).parent / "data"
    cat, garage = (read_image(samples / f"{name}.png") for name in ("chelsea", "motorcycle_left"))
    for number in range(12):
        target = folder / ("a" if number % 2 else "b") / f"{number:03}.jpg"
        target.parent.mkdir(exist_ok=True)
        part = (cat if number % 3 else garage)[10 * number :: 2, ::2]
        Image.fromarray(part).save(target, quality=90)
    (folder / "a" / "001b.jpg").write_bytes(b"not a picture")
    (folder / "b" / "empty.jpg").touch()
    return folder


def paths_of(folder):
    return sorted(folder.rglob("*.jpg"))


@pytest.fixture(scope="module")
def reference(photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("reference") / "all.parquet"
    summary = propose_pictures(paths_of(photos), output, SEARCH)
    assert (summary.pictures, summary.failed, summary.resumed) == (12, 2, 0)
    return output


def test_every_picture_is_there_with_its_own_boxes(photos, reference):
    entries = list(read_proposals(reference))
    good = [path for path in paths_of(photos) if path.stat().st_size > 100]
    assert [entry.file for entry in entries] == [path.relative_to(photos).as_posix() for path in good]
    for entry, path in zip(entries, good, strict=True):
        image = read_image(path)
        boxes, scores = SEARCH(image)
        assert (entry.width, entry.height) == image.shape[1::-1]
        assert entry.boxes.tobytes() == boxes.tobytes()
        assert entry.scores.tobytes() == scores.tobytes()
    errors = [json.loads(line) for line in reference.with_suffix(".errors.jsonl").read_text().splitlines()]
    assert [Path(error["file"]).name for error in errors] == ["001b.jpg", "empty.jpg"]
    assert {error["kind"] for error in errors} == {"ImageError"}
    assert not reference.with_suffix(".journal").exists()


@pytest.mark.parametrize(
    ("workers", "threads"),
    [(1, 3), (3, 3), *(pytest.param(*both, marks=pytest.mark.slow) for both in [(1, 1), (2, 1), (2, 3), (3, 1)])],
)
def test_workers_and_threads_change_nothing(photos, reference, tmp_path, workers, threads):
    search = SelectiveSearch("single", limit=100, threads=threads)
    propose_pictures(paths_of(photos), tmp_path / "all.parquet", search, workers=workers)
    assert (tmp_path / "all.parquet").read_bytes() == reference.read_bytes()


class Stop(Exception):
    pass


@pytest.mark.parametrize("damage", [b"", b"\x00" * 4096, b"\xf0IRC\x30\0\0\0\xff\xff\xff\xff1234{", None])
def test_an_interrupted_run_goes_on(photos, reference, tmp_path, damage):
    def stop_after_seven(done):
        if done == 7:
            raise Stop

    output = tmp_path / "all.parquet"
    with pytest.raises(Stop):
        propose_pictures(paths_of(photos), output, SEARCH, progress=stop_after_seven)
    assert not output.exists()
    journal = tmp_path / "all.journal"
    content = journal.read_bytes()
    journal.write_bytes(content[:-1] if damage is None else content + damage)
    seen = []
    summary = propose_pictures(paths_of(photos), output, SEARCH, progress=seen.append)
    assert summary.resumed == seen[0] == (5 if damage is None else 6)  # one of the seven is no picture
    assert output.read_bytes() == reference.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.errors.jsonl", "all.parquet"]


def interrupted(paths, output, after):
    """Leave the journal of a run that was interrupted after so many files."""

    def stop(done):
        if done == after:
            raise Stop

    with pytest.raises(Stop):
        propose_pictures(paths, output, SEARCH, progress=stop)
    return output.with_suffix(".journal")


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_record_costs_only_its_picture(photos, reference, tmp_path, seed):
    output = tmp_path / "all.parquet"
    journal = interrupted(paths_of(photos), output, after=14)
    content = bytearray(journal.read_bytes())
    draw = random.Random(seed)
    content[draw.randrange(120, len(content))] ^= 1 << draw.randrange(8)
    journal.write_bytes(content)
    summary = propose_pictures(paths_of(photos), output, SEARCH)
    assert summary.resumed == 11
    assert output.read_bytes() == reference.read_bytes()


@pytest.mark.parametrize(("suffix", "workers"), [(".parquet", 1), (".json", 2)])
def test_the_regions_behind_the_boxes(photos, reference, tmp_path, suffix, workers):
    output, paths = tmp_path / f"masks{suffix}", paths_of(photos)

    def stop_after_four(done):
        if done == 4:
            raise Stop

    with pytest.raises(Stop):
        propose_pictures(paths, output, SEARCH, masks=True, progress=stop_after_four)
    with pytest.raises(JournalError, match="other settings"):
        propose_pictures(paths, output, SEARCH)
    assert propose_pictures(paths, output, SEARCH, masks=True, workers=workers).resumed == 3
    for entry, plain in zip(read_proposals(output), read_proposals(reference), strict=True):
        assert (entry.file, entry.boxes.tolist()) == (plain.file, plain.boxes.tolist())
        regions = SEARCH.regions(read_image(photos / entry.file))
        assert entry.masks == [regions.run_lengths(i)["counts"] for i in range(len(regions))]


def test_regions_that_there_are_none_of(photos, tmp_path, capsys):
    with pytest.raises(ProposalFileError, match="have a place for masks"):
        propose_pictures(paths_of(photos), tmp_path / "a.npz", SEARCH, masks=True)
    multibox = load_proposer("multibox")
    with pytest.raises(SettingError, match="only the boxes of selective search have regions"):
        propose_pictures(paths_of(photos), tmp_path / "a.json", multibox, masks=True)
    assert run_command("propose", photos, "--masks", "--output", tmp_path / "a.json") == 2
    assert "give --method selective-search" in capsys.readouterr().err
    search = ("--method", "selective-search", "--mode", "single", "--limit", 9, "--workers", 1)
    assert run_command("propose", photos, *search, "--masks", "--output", tmp_path / "a.pkl") == 2
    assert "have a place for masks" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
    assert run_command("propose", photos, *search, "--masks", "--output", tmp_path / "a.parquet") == 0
    assert all(len(entry.masks) == 9 for entry in read_proposals(tmp_path / "a.parquet"))


def test_what_stands_in_the_journals_place_is_left_alone(photos, tmp_path):
    for notes in (b"my notes", b"my notes\n" * 100):
        (tmp_path / "x.journal").write_bytes(notes)
        with pytest.raises(JournalError, match="no journal of this program"):
            propose_pictures(paths_of(photos), tmp_path / "x.npz", SEARCH)
        assert (tmp_path / "x.journal").read_bytes() == notes


def test_a_journal_of_version_0_1_is_refused(photos, tmp_path):
    (tmp_path / "x.journal").write_bytes(b"inception-rcnn proposals journal, settings " + b"0" * 64 + b"\n")
    with pytest.raises(JournalError, match="another version; repeat it with those, name another output, or delete"):
        propose_pictures(paths_of(photos), tmp_path / "x.npz", SEARCH)


def test_a_file_system_without_locks_will_do(photos, tmp_path, monkeypatch):
    def refuse(file, flags):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(DataWarning, match="cannot be locked .* start no second run"):
        assert propose_pictures(paths_of(photos)[:1], tmp_path / "x.npz", SEARCH).pictures == 1


def test_another_list_of_pictures_does_not_end_an_unfinished_run(photos, tmp_path):
    paths = paths_of(photos)
    journal = interrupted(paths[:4], tmp_path / "x.npz", after=4)
    before = journal.read_bytes()
    with pytest.raises(JournalError, match="3 other pictures"):
        propose_pictures(paths[5:], tmp_path / "x.npz", SEARCH)
    assert journal.read_bytes() == before
    assert propose_pictures(paths, tmp_path / "x.npz", SEARCH).resumed == 3


def test_a_picture_that_was_briefly_gone_is_tried_again(photos, tmp_path):
    shutil.copytree(photos / "a", tmp_path / "a")
    paths = sorted((tmp_path / "a").iterdir())
    paths[2].rename(tmp_path / "away")
    summary = propose_pictures(paths, tmp_path / "x.npz", SEARCH)
    assert (summary.pictures, summary.failed, summary.retryable) == (5, 2, 1)
    (tmp_path / "away").rename(paths[2])
    summary = propose_pictures(paths, tmp_path / "x.npz", SEARCH)
    assert (summary.pictures, summary.resumed, summary.failed, summary.retryable) == (6, 5, 1, 0)
    assert not (tmp_path / "x.journal").exists()


def test_what_a_killed_run_left_is_cleared_away(photos, tmp_path):
    with contextlib.suppress(Stop), atomic_file(tmp_path / "x.npz"):
        left = next(tmp_path.glob(".*.tmp"))
        copy = left.with_name(left.name.replace(".tmp", "0.tmp"))
        copy.write_bytes(b"half")
        raise Stop
    assert copy.exists()
    propose_pictures(paths_of(photos)[:1], tmp_path / "x.npz", SEARCH)
    assert not copy.exists()


def test_a_name_that_is_no_text(photos, tmp_path):
    source = paths_of(photos)[0]
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))
    try:
        shutil.copy(source, odd)
    except OSError:
        pytest.skip("the file system takes no such names")
    propose_pictures([odd], tmp_path / "x.parquet", SEARCH)
    assert next(read_proposals(tmp_path / "x.parquet")).file == "caf\\xe9.jpg"


def test_mistakes_are_told_before_the_work(photos, tmp_path):
    paths = paths_of(photos)[:3]
    with pytest.raises(ProposalFileError, match="must end in"):
        propose_pictures(paths, tmp_path / "x.csv", SEARCH)
    names = [path.name for path in paths]
    with pytest.raises(ProposalFileError, match="no image id"):
        propose_pictures(paths, tmp_path / "x.pkl", SEARCH, image_ids=dict.fromkeys(names[1:], 1))
    with pytest.raises(ProposalFileError, match="the same image id"):
        propose_pictures(paths, tmp_path / "x.pkl", SEARCH, image_ids=dict.fromkeys(names, 1))
    assert not [*tmp_path.iterdir()]


def test_a_script_without_a_guard_is_told(photos, tmp_path):
    script = tmp_path / "noguard.py"
    script.write_text(
        "from pathlib import Path\n"
        "from inception_rcnn.detect.runs.proposing import propose_pictures\n"
        "from inception_rcnn.proposals import SelectiveSearch\n"
        f"files = sorted(Path({str(photos / 'a')!r}).iterdir())\n"
        "propose_pictures(files, 'x.npz', SelectiveSearch('single'), workers=2)\n"
    )
    run = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "ProcessStartError: processes cannot be started here" in run.stderr


def test_a_daemon_is_told(photos, tmp_path):
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(ProcessStartError, match="workers=1"):
        pool.apply(propose_pictures, (paths_of(photos), tmp_path / "x.npz", SEARCH), {"workers": 2})


def test_a_picture_that_changed_is_done_again(photos, tmp_path):
    shutil.copytree(photos / "b", tmp_path / "b")
    paths = sorted((tmp_path / "b").iterdir())

    def stop_at_the_end(done):
        if done == len(paths):
            raise Stop

    with pytest.raises(Stop):
        propose_pictures(paths, tmp_path / "b.npz", SEARCH, progress=stop_at_the_end)
    Image.fromarray(np.zeros((50, 70, 3), np.uint8)).save(paths[0])
    summary = propose_pictures(paths, tmp_path / "b.npz", SEARCH)
    assert summary.resumed == 5
    assert next(read_proposals(tmp_path / "b.npz")).boxes.tolist() == [[0, 0, 70, 50]]


def test_other_settings_do_not_mix(photos, tmp_path):
    def stop(done):
        if done:
            raise Stop

    with pytest.raises(Stop):
        propose_pictures(paths_of(photos), tmp_path / "x.npz", SEARCH, progress=stop)
    before = (tmp_path / "x.journal").read_bytes()
    with pytest.raises(JournalError, match="other settings"):
        propose_pictures(paths_of(photos), tmp_path / "x.npz", SelectiveSearch("single", limit=99))
    assert (tmp_path / "x.journal").read_bytes() == before


def test_two_runs_into_one_file_are_refused(photos, tmp_path):
    with open(tmp_path / "x.journal", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another run"):
            propose_pictures(paths_of(photos), tmp_path / "x.npz", SEARCH)


def test_settings_that_differ_between_processes_are_refused(photos, tmp_path):
    class Own(SelectiveSearch):
        @property
        def settings(self):
            return {**super().settings, "by": object()}

    with pytest.raises(SettingError, match="settings of the run hold a object"):
        propose_pictures(paths_of(photos)[:1], tmp_path / "x.npz", Own("single"))
    assert list(tmp_path.iterdir()) == []


def test_what_a_format_refuses_is_not_lost(photos, reference, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise ProposalFileError("too large for .mat")

    monkeypatch.setattr("inception_rcnn.detect.runs.proposing.write_proposals", refuse)
    with pytest.raises(ProposalFileError):
        propose_pictures(paths_of(photos), tmp_path / "all.mat", SEARCH)
    monkeypatch.undo()
    summary = propose_pictures(paths_of(photos), tmp_path / "all.parquet", SEARCH)
    assert summary.resumed == 12
    assert (tmp_path / "all.parquet").read_bytes() == reference.read_bytes()


@pytest.mark.parametrize("suffix", ["mat", "pkl"])
def test_positions_are_those_of_the_list(photos, tmp_path, suffix):
    paths = paths_of(photos)
    output = tmp_path / f"voc.{suffix}"
    propose_pictures(paths, output, SEARCH)
    boxes = scipy.io.loadmat(output)["boxes"].ravel() if suffix == "mat" else pickle.loads(output.read_bytes())["boxes"]
    assert len(boxes) == len(paths)
    assert [len(rows) > 0 for rows in boxes] == [path.stat().st_size > 100 for path in paths]


def deadly(image):
    if image.shape[1] == 33:
        os.kill(os.getpid(), signal.SIGKILL)
    return SEARCH(image)


class Deadly:
    settings = {}  # noqa: RUF012

    def search(self, image, name=None):
        return deadly(image)

    def propose(self, features, searched, name=None):
        return searched

    def has_objectness(self, classes):
        return False


def test_a_picture_that_kills_its_process_is_reported(photos, tmp_path):
    shutil.copytree(photos / "a", tmp_path / "a")
    Image.fromarray(np.zeros((50, 33, 3), np.uint8)).save(tmp_path / "a" / "004.png")
    paths = sorted((tmp_path / "a").iterdir())
    summary = propose_pictures(paths, tmp_path / "a.npz", Deadly(), workers=2)
    assert (summary.pictures, summary.failed, summary.retryable) == (6, 2, 1)
    lines = (tmp_path / "a.errors.jsonl").read_text().splitlines()
    assert [(Path(json.loads(line)["file"]).name, json.loads(line)["kind"]) for line in lines] == [
        ("001b.jpg", "ImageError"),
        ("004.png", "ProcessDied"),
    ]


@pytest.mark.slow
def test_killed_at_any_moment_the_file_ends_the_same(photos, reference, tmp_path):
    """The command itself, killed with its processes running, again and again."""
    draw = random.Random(0)
    command = [sys.executable, "-m", "inception_rcnn.detect.cli.app", "propose", str(photos), "--mode", "single"]
    command += ["--method", "selective-search"]
    command += ["--limit", "100", "--workers", "2", "--output", str(tmp_path / "all.parquet")]
    for _ in range(2):
        run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        journal = tmp_path / "all.journal"
        deadline = time.monotonic() + 60
        size = journal.stat().st_size if journal.exists() else 100
        while run.poll() is None and time.monotonic() < deadline:
            if journal.exists() and journal.stat().st_size > size + draw.randrange(5000):
                run.kill()
                run.wait()
        if run.returncode == 0:
            break
        assert not (tmp_path / "all.parquet").exists()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert list(read_proposals(tmp_path / "all.parquet"))[3].file == list(read_proposals(reference))[3].file
    assert (tmp_path / "all.parquet").read_bytes() == reference.read_bytes()


@pytest.mark.slow
def test_a_scheduler_that_terminates_the_command_gets_what_is_in_hand(photos, reference, tmp_path):
    """SIGTERM to the command and its processes: status 143, the journal has what was begun, the next run the rest."""
    output, journal = tmp_path / "all.parquet", tmp_path / "all.journal"
    options = ["--method", "selective-search", "--mode", "single", "--limit", "100", "--workers", "2"]
    command = [sys.executable, "-m", "inception_rcnn.detect.cli.app", "propose", photos, "--output", output, *options]
    run = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while run.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\xf0IRC")):
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGTERM)
    told = run.communicate(timeout=60)[1]
    assert run.returncode == 143, told
    assert "files; the same command goes on from here" in told
    assert "stopped by SIGTERM after " in told
    assert not output.exists()
    done = subprocess.run([*map(str, command)], check=True, stderr=subprocess.PIPE, text=True).stderr
    assert "of them by an earlier run" in done
    assert output.read_bytes() == reference.read_bytes()


def run_command(*arguments):
    try:
        main([*map(str, arguments)])
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize("suffix", ["parquet", "json", "mat", "pkl", "npz"])
def test_the_command_writes_every_format(photos, tmp_path, suffix, capsys):
    output = tmp_path / f"out.{suffix}"
    options = ["--mode", "single", "--limit", 20, "--workers", 1]
    assert run_command("propose", photos / "a", "--output", output, *options) == 0
    assert "6 pictures, 20 boxes each" in capsys.readouterr().err
    assert [len(entry.boxes) for entry in read_proposals(output) if len(entry.boxes)] == [20] * 6
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".journal"]


def test_image_ids_come_from_the_annotations(photos, tmp_path, capsys):
    images = [{"id": 900 + n, "file_name": path.name} for n, path in enumerate(sorted((photos / "a").iterdir()))]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images}))
    options = ["--mode", "single", "--workers", 1, "--annotations", tmp_path / "coco.json"]
    assert run_command("propose", photos / "a", "--output", tmp_path / "a.pkl", *options) == 0
    with open(tmp_path / "a.pkl", "rb") as file:
        assert pickle.load(file)["ids"] == [900, 901, 902, 903, 904, 905, 906]
    assert run_command("propose", photos / "a", "--output", tmp_path / "a.npz", *options) == 2
    assert "only .json and .pkl" in capsys.readouterr().err
    assert run_command("propose", photos, "--output", tmp_path / "b.pkl", *options) == 2
    assert "has no image called 'b/000.jpg'" in capsys.readouterr().err


def test_a_program_says_what_its_ids_are(photos, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    source = next(path for path in sorted((photos / "a").iterdir()) if path.name != "001b.jpg")
    for name in ("000.jpg", "002.jpg"):
        (folder / name).write_bytes(source.read_bytes())
    options = ["--mode", "single", "--method", "selective-search", "--workers", 1, "--for", "detreg"]
    for _ in range(2):
        assert run_command("propose", folder, "--output", tmp_path / "cache", *options) == 0
        assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["000.npy", "002.npy"]
    for program, ids in {"detectron2": ["000", "002"], "wetectron": [0, 2], "pcl": [0, 2]}.items():
        options = ["--mode", "single", "--method", "selective-search", "--workers", 1, "--for", program]
        assert run_command("propose", folder, "--output", tmp_path / "a.pkl", *options) == 0
        with open(tmp_path / "a.pkl", "rb") as file:
            assert pickle.load(file)["ids"] == ids
    (folder / "000.jpg").rename(folder / "cat.jpg")
    assert run_command("propose", folder, "--output", tmp_path / "b.pkl", "--for", "pcl") == 2
    assert "'cat.jpg' is no whole number (1 such in all)" in capsys.readouterr().err
    assert not [*tmp_path.glob("b.*")]


def test_the_file_that_a_program_reads(photos, reference, tmp_path):
    """Read by what the programs' own loaders do; those that go by position have the files that are no pictures."""
    paths = paths_of(photos)
    plain = {entry.file: entry for entry in read_proposals(reference)}
    names = [path.relative_to(photos).as_posix() for path in paths]

    def written(program, name, some=paths):
        propose_pictures(some, tmp_path / name, SEARCH, program=program)
        return tmp_path / name

    with open(written("mmdetection", "a.pkl"), "rb") as file:
        proposals = pickle.load(file)
    assert len(proposals) == len(paths)
    for path, name in zip(paths, names, strict=True):
        own = proposals[os.path.join(path.parent.name, path.name)]
        expected = plain[name].boxes if name in plain else np.zeros((0, 4))
        assert own["bboxes"].tolist() == expected.tolist()
        assert own["bboxes"].dtype == own["scores"].dtype == np.float32
        assert len(own["scores"]) == len(own["bboxes"])

    with open(written("mmdetection2", "b.pkl"), "rb") as file:
        proposals = pickle.load(file)
    for own, name in zip(proposals, names, strict=True):
        assert own.shape[1] == 5
        assert own[:, :4].tolist() == (plain[name].boxes.tolist() if name in plain else [])

    soco = json.loads(written("soco", "c.json").read_text())
    assert list(soco) == [path.name.split(".")[0] for path in paths]
    for path, name in zip(paths, names, strict=True):
        boxes = np.array(soco[path.name.split(".")[0]])
        if name in plain:
            boxes[:, 2:] += boxes[:, :2]
            assert np.abs(boxes - plain[name].boxes).max() <= 1
            assert boxes.dtype.kind == "i"

    with pytest.raises(ProposalFileError, match="has no box, and ORL needs one"):
        written("orl", "d.json")
    good = [path for path, name in zip(paths, names, strict=True) if name in plain]
    orl = json.loads(written("orl", "e.json", good).read_text())["bbox"]
    assert orl == [soco[path.name.split(".")[0]] for path in good]

    folder = written("detreg", "cache")
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{path.stem}.npy" for path in good)
    for path in good:
        boxes = np.load(folder / f"{path.stem}.npy")
        assert boxes.dtype == np.float32
        assert boxes.tolist() == plain[path.relative_to(photos).as_posix()].boxes.tolist()


def test_names_that_a_program_would_confuse(photos, tmp_path):
    folder = tmp_path / "photos"
    for name in ("x/1.a.jpg", "x/1.b.jpg", "y/x/1.a.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / "a" / "001.jpg", folder / name)
    for program, name in (("soco", "a.json"), ("detreg", "cache"), ("mmdetection", "a.pkl")):
        with pytest.raises(ProposalFileError, match="would both be"):
            propose_pictures(paths_of(folder), tmp_path / name, SEARCH, program=program)
    with pytest.raises(SettingError, match="program 'mmdet' is unknown"):
        propose_pictures(paths_of(folder), tmp_path / "a.pkl", SEARCH, program="mmdet")
    (tmp_path / "file").touch()
    with pytest.raises(ProposalFileError, match="and this is a file"):
        propose_pictures(paths_of(folder), tmp_path / "file", SEARCH, program="detreg")


def test_regions_of_any_size(photos, tmp_path):
    output = tmp_path / "all.parquet"
    assert run_command("propose", photos, "--output", output, "--method", "selective-search", "--min-side", "0") == 0
    for one in read_proposals(output):
        boxes, scores = SelectiveSearch("fast", min_side=0)(read_image(photos / one.file))
        np.testing.assert_array_equal(one.boxes, boxes)
        np.testing.assert_array_equal(one.scores, scores)
        assert (boxes[:, 2:] - boxes[:, :2]).min() * 500 / one.width < 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x.csv"], "must end in"),
        (
            ["--output", "x.pkl", "--for", "mmdet"],
            "--for 'mmdet' is unknown (did you mean 'mmdetection'?); use detectron2,",
        ),
        (["--output", "x.npz", "--for", "pcl"], "--for pcl: it reads a .pkl; name the file so"),
        (["--output", "x.pkl", "--for", "soco"], "x.pkl: soco reads a .json; name the file so"),
        (["--output", "x.json", "--for", "orl", "--masks", "--method", "selective-search"], "orl reads no masks"),
        (["--output", "/proc/x.npz"], "inception-rcnn: /proc/x.npz: "),
        (["--output", "."], "folder that exists"),
        (["--output", "missing/x.npz"], "folder that exists"),
        (["--output", "x.npz", "--mode", "slow"], "mode 'slow' is unknown; use single, fast or quality"),
        (["--output", "x.npz", "--superpixel-scale", "0"], "superpixel_scale"),
        (["--output", "x.npz", "--method", "edges"], "use merged, selective-search or multibox"),
        (["--output", "x.npz", "--multibox", "absent"], "absent: no such model or file; bundled models: any, coco"),
        (["--output", "x.npz", "--model", "absent"], "name --multibox FILE too"),
    ],
)
def test_mistakes_end_in_one_line(photos, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run_command("propose", photos, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("method", ["merged", pytest.param("multibox", marks=pytest.mark.slow)])
def test_methods_with_a_network_do_not_depend_on_the_workers(photos, tmp_path, method):
    pytest.importorskip("onnxruntime")
    for workers in (1, 2):
        output = tmp_path / f"{workers}.npz"
        options = ["--method", method, "--limit", 150, "--workers", workers, "--output", output]
        assert run_command("propose", photos / "a", *options) == 0
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    proposer = load_proposer(method, limit=150, threads=1)
    entry = next(iter(read_proposals(tmp_path / "1.npz")))
    np.testing.assert_allclose(entry.boxes, proposer(read_image(photos / "a" / entry.file))[0], atol=1e-3)


def test_a_network_without_its_packages_is_one_line(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert run_command("propose", photos, "--output", tmp_path / "x.npz") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "detection on a CPU needs onnxruntime" in line
    assert "--method selective-search" in line
    assert run_command("propose", photos / "a", "--output", tmp_path / "x.npz", "--method", "selective-search") == 0


def test_nothing_but_bad_files(photos, tmp_path, capsys):
    output = tmp_path / "x.parquet"
    assert run_command("propose", photos / "a" / "001b.jpg", "--output", output) == 1
    assert "1 file could not be processed" in capsys.readouterr().err
    assert pyarrow.parquet.read_table(output).num_rows == 0
    assert not multiprocessing.active_children()


def test_a_proposer_that_cannot_be_pickled_is_told(photos, tmp_path):
    class Local(SelectiveSearch):
        """Python finds no class by this name again."""

    paths = sorted(photos.rglob("*.jpg"))
    with pytest.raises(SettingError, match=r"the proposer cannot be sent to worker processes \(.*\); make it pick"):
        propose_pictures(paths, tmp_path / "x.npz", Local("single"), workers=2)
