"""SIGTERM, which a scheduler or a container sends some seconds before it kills."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

# Exit status of a command that Ctrl-C ended, and of one that SIGTERM ended, as shells tell them.
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

_received = False
_is_awaited = False


def received() -> bool:
    """Whether SIGTERM has come."""
    return _received


def handle_sigterm() -> None:
    """Take SIGTERM for Ctrl-C, but the first one inside `awaited` only noted."""
    global _received
    _received = False
    with contextlib.suppress(ValueError):  # Only a program's main thread may ask for signals.
        signal.signal(signal.SIGTERM, _note)


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    is_first, _received = not _received, True
    if not (is_first and _is_awaited):
        raise KeyboardInterrupt


@contextlib.contextmanager
def awaited() -> Iterator[None]:
    """Let the block end by itself after SIGTERM: it asks `received`. A second SIGTERM interrupts it."""
    global _is_awaited
    _is_awaited = True
    try:
        yield
    finally:
        _is_awaited = False
