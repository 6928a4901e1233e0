"""Fuzz the readers of files with atheris, each in a process of its own.

python tests/fuzz.py [TARGET ...] [--seconds 60] [--output build/fuzz] [--replay FILE]

It needs ``pip install atheris``, which has wheels for Linux and is no dependency of the package. A reader may return
or raise a `UserError` with one line that names the file. A failure is everything else: another exception, a warning
that is no `DataWarning`, the end of the process, more than 5 seconds of the processor, more than 1 GB of memory. What
atheris learns stays in ``OUTPUT/TARGET/corpus``, so that the next run begins there; what fails is kept in
``OUTPUT/TARGET/failures``. For each failure there is one line: target, what happened, file. The exit status is 1 if
there was any.

``--replay`` reads one such file with one target, and shows the traceback.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

# Seconds of the processor: a busy machine makes nobody slow. libFuzzer, which counts all, ends a process later.
MAX_SECONDS, MAX_MEGABYTES, MAX_INPUT_BYTES = 5, 1024, 1 << 16
MAX_TEXT = 10_000  # letters of an error
MAX_RESTARTS = 5  # of a target whose process ended
# The rooms' files that read, and what of others' is Python. Compiled kernels cannot be instrumented.
INSTRUMENTED = [
    "inception_rcnn.data.formats", "inception_rcnn.data.images", "inception_rcnn.data.proposals",
    "inception_rcnn.data.detections", "inception_rcnn.data.picture_names", "inception_rcnn.backbone.weights",
    "inception_rcnn.proposals.multibox.file", "inception_rcnn.proposals.calibration", "PIL",
]  # fmt: skip


def is_long(text: str) -> bool:
    """Tell whether a text for users is more than a line."""
    return len(text.splitlines()) != 1 or len(text) > MAX_TEXT


def problem_of(error: BaseException, file: Path) -> str:
    """Say what is wrong with an exception of a reader; "" if it is one that users should see."""
    from inception_rcnn.data.errors import DataWarning, UserError

    if isinstance(error, DataWarning):
        return "DataWarning of more than a line"
    if not isinstance(error, UserError):
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} ({place.filename.rpartition('/')[2]}, line {place.lineno})"
    text = str(error)
    if is_long(text) or file.name not in text:
        return f"{type(error).__name__} without the file's name, or not in one line of {MAX_TEXT} letters"
    return ""


def read(target: Any, root: Path, data: bytes) -> BaseException | None:
    """Have a target read an input, and return what it raises."""
    (root / target.file).write_bytes(data)
    from inception_rcnn.data.errors import DataWarning

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("error")
        warnings.simplefilter("always", DataWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")  # as the commands do
        try:
            target.read(root)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # Panics of Rust are no Exceptions.
            return error
    return next((one.message for one in told if is_long(str(one.message))), None)  # type: ignore[misc]


def work(name: str, folder: Path, seconds: int, seed: int) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris
    import numpy as np

    with atheris.instrument_imports(include=INSTRUMENTED):
        from damage import write_files
        from fuzz_targets import TARGETS, write_seeds

    target = TARGETS[name]
    root, corpus, failures = Path(tempfile.mkdtemp()), folder / "corpus", folder / "failures"
    for one in (corpus, failures):
        one.mkdir(parents=True, exist_ok=True)
    write_files(root)
    write_seeds(root)
    for data in [(root / target.file).read_bytes(), *target.seeds()]:
        (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
    read(target, root, (root / target.file).read_bytes())  # Imports what it needs, which may take seconds.
    count = np.memmap(folder / "executions", np.int64, "r+" if (folder / "executions").exists() else "w+", shape=1)
    known: set[str] = set()

    def fail(problem: str, data: bytes) -> None:
        if problem not in known:
            known.add(problem)
            kept = failures / hashlib.sha1(data).hexdigest()[:12]
            kept.write_bytes(data)
            with open(folder / "failures.txt", "a", encoding="utf-8") as file:
                file.write(f"{name}: {problem}: {kept}\n")

    def test(data: bytes) -> None:
        count[0] += 1
        began = time.process_time()
        error = read(target, root, data)
        took = time.process_time() - began
        if error is not None and (problem := problem_of(error, root / target.file)):
            fail(problem, data)
        if took > MAX_SECONDS:
            fail(f"more than {MAX_SECONDS} seconds", data)
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MAX_MEGABYTES * 1024:
            fail(f"more than {MAX_MEGABYTES} MB", data)
            os._exit(1)  # The highest use of memory never falls again.

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        data = bytes(data)
        for _ in range(rng.integers(1, 4)):
            if not data or rng.integers(4) == 0:
                return atheris.Mutate(data, max_size)
            with suppress(Exception):  # The structure is lost.
                data = target.change(data, rng, lambda part: atheris.Mutate(part, max(max_size, len(part))))[:max_size]
        return data

    arguments = [
        f"-max_total_time={seconds}", f"-timeout={4 * MAX_SECONDS}", f"-rss_limit_mb={MAX_MEGABYTES}", f"-seed={seed}",
        f"-max_len={MAX_INPUT_BYTES}", f"-artifact_prefix={failures}/", str(corpus),
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *arguments], test, custom_mutator=change)
    atheris.Fuzz()


def fuzz(name: str, folder: Path, seconds: int) -> list[str]:
    """Fuzz one target in processes of its own, and return a line for each failure."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in ("executions", "failures.txt"):
        (folder / old).unlink(missing_ok=True)
    there = {*folder.glob("failures/*-*")}
    lines, end = [], time.monotonic() + seconds
    # In memory, where there is such a folder: on a disk, writing the input takes longer than reading it.
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as empty, open(folder / "log", "wb") as log:
        for seed in range(1, MAX_RESTARTS + 1):
            left = max(1, round(end - time.monotonic()))
            command = [sys.executable, __file__, name, "--worker", str(seed), "--seconds", str(left)]
            command += ["--output", str(folder.parent)]
            environment = os.environ | {"TMPDIR": empty, "OMP_NUM_THREADS": "1"}
            try:
                status = subprocess.run(
                    command, stdout=log, stderr=log, env=environment, timeout=left + 120, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                status = -9
            new = {*folder.glob("failures/*-*")} - there  # libFuzzer's: crash-, timeout-, oom-
            lines += [f"{name}: {kept.name.partition('-')[0]}: {kept}" for kept in sorted(new)]
            there |= new
            if status == 0:
                break
            if not new and not (folder / "failures.txt").exists():
                lines.append(f"{name}: the process ended with status {status}: {folder / 'log'}")
                break
            if end - time.monotonic() < 1:
                break
    if (folder / "failures.txt").exists():
        lines += (folder / "failures.txt").read_text(encoding="utf-8").splitlines()
    return lines


def executions(folder: Path) -> int:
    """Return how many inputs were read."""
    file = folder / "executions"
    return int.from_bytes(file.read_bytes(), sys.byteorder) if file.exists() else 0


def replay(name: str, file: Path) -> int:
    """Read one input again, and show what happens."""
    from damage import write_files
    from fuzz_targets import TARGETS, write_seeds

    with tempfile.TemporaryDirectory() as folder:
        root, target = Path(folder), TARGETS[name]
        write_files(root)
        write_seeds(root)
        began = time.monotonic()
        error = read(target, root, file.read_bytes())
        print(f"{time.monotonic() - began:.1f} s, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")
        if error is None:
            print("was read")
            return 0
        problem = problem_of(error, root / target.file)
        if problem:
            traceback.print_exception(error)
        print(problem or f"{type(error).__name__}: {error}")
        return int(bool(problem))


def main() -> int:
    """Fuzz the targets one after the other; the exit status says whether all readers held."""
    parser = argparse.ArgumentParser(prog="fuzz.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("build/fuzz"), help="default: %(default)s")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="read this input once, with one target")
    parser.add_argument("--worker", type=int, metavar="SEED", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        (name,) = arguments.targets
        work(name, arguments.output / name, arguments.seconds, arguments.worker)
        return 0
    from fuzz_targets import TARGETS

    names = arguments.targets or [*TARGETS]
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"there is no target {unknown[0]}; targets: {', '.join(TARGETS)}")
    if arguments.replay:
        return replay(names[0], arguments.replay)
    failed, total = [], 0
    print(f"{'target':<20}{'executions':>12}{'seconds':>9}{'failures':>10}", flush=True)
    for name in names:
        began = time.monotonic()
        lines = fuzz(name, arguments.output / name, arguments.seconds)
        failed += lines
        count = executions(arguments.output / name)
        total += count
        print(f"{name:<20}{count:>12,}{time.monotonic() - began:>9.0f}{len(lines):>10}", flush=True)
        for line in lines:
            print(line, flush=True)
    print(f"{total:,} executions, {len(failed)} failures")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
