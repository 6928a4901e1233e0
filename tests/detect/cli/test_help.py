"""What ``--help`` shows of every command, ``--version``, and what a shell completes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
from typer.main import get_command

from inception_rcnn.detect.cli.app import app, main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Standard output of a command that succeeds."""
    with pytest.raises(SystemExit) as caught:
        main([*arguments])
    assert not caught.value.code
    return capsys.readouterr().out


def all_commands(command: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every command and group by its words."""
    found = {" ".join(path): command}
    for name, inner in getattr(command, "commands", {}).items():
        found |= all_commands(inner, (*path, name))
    return found


COMMANDS = all_commands(get_command(app))


@pytest.mark.parametrize("words", COMMANDS)
def test_the_help_of_a_command_ends_with_two_examples_that_it_takes(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = run(capsys, *words.split(), "--help").splitlines()
    assert lines[-5:-2] == ["", "  Examples:", ""]
    for line in lines[-2:]:
        program, *arguments = shlex.split(line)
        assert program == "inception-rcnn"
        assert " ".join(arguments).startswith(words)
        command = COMMANDS[""]
        while hasattr(command, "commands"):
            name, *arguments = arguments
            command = command.commands[name]
        command.make_context(name, arguments)  # What it does not take is an exception.


@pytest.mark.parametrize("words", COMMANDS)
def test_the_help_of_an_option_takes_two_lines_at_most(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = run(capsys, *words.split(), "--help")
    assert max(map(len, text.splitlines())) <= 100
    options = text.partition("\nOptions:\n")[2].partition("\n\n")[0]
    for option in re.split(r"\n  (?=-)", f"\n{options}")[1:]:
        # A long option has a line of its own.
        first, *others = option.splitlines()
        own = "  " not in first.strip()
        assert len(others) in ((1, 2) if own else (0, 1)), option
        assert not own or others, f"{option} has no help"


def test_the_version_is_that_of_the_installation(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        installed = version("inception-rcnn")
    except PackageNotFoundError:
        installed = "not installed"
    assert run(capsys, "--version") == f"inception-rcnn {installed}\n"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("trai", ["train"]),
        ("train m", ["multibox"]),
        ("detect --no-r", ["--no-report"]),
        ("detect --nms ", ["soft", "greedy"]),
        ("detect --precision f", ["float32", "float16"]),
        ("evaluate voc --classes ", ["voc", "coco", "ilsvrc"]),
        ("train detector --freeze st", ["stem"]),
        ("train detector --method m", ["merged"]),
        ("detect --model voc-", ["voc-2", "voc-2007", "voc-crops"]),
        ("propose --multibox v", ["voc", "voc-2007"]),
        ("propose --multibox a", ["any"]),
        ("train detector --weights googlenet-b", ["googlenet-bvlc"]),
        ("detect --model ./", []),
    ],
)
def test_what_bash_completes(
    words: str, offered: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if any(option in words for option in ("--model", "--multibox", "--weights")):
        pytest.importorskip("safetensors")
    line = f"inception-rcnn {words}"
    monkeypatch.setenv("_INCEPTION_RCNN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1 + line.endswith(" ")))
    assert run(capsys).split() == offered


def test_the_script_for_the_shell_is_shown() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "inception_rcnn.detect.cli.app", "--show-completion", "bash"],
        env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "complete -o default -F _inception_rcnn_completion inception-rcnn" in done.stdout
