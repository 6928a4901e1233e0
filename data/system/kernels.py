"""Functions compiled by numba: they run without the interpreter's lock, and are compiled once on a machine.

The first call waits for the compiler, so kernels are plain loops over scalars and over arrays that their callers
allocate. Inside a kernel, each ``numpy.empty``, slice assignment or built-in ``min`` adds a tenth of a second to
compiling, a text for an exception adds two. `benchmarks/cold_start.py` measures each kernel. Where time counts, indices
are unsigned (`numpy.uintp`): of a signed one the compiled code tests at every use whether it counts from the end.

Compiled code is kept in files of this package's cache folder (or ``$NUMBA_CACHE_DIR``). The name of a file is a hash of
everything that its code follows from: the function's name and bytecode, the constants and kernels that it uses, the
types, the processor, numba's settings, and the versions of numba and Python. So another copy of the same code finds the
file, and changed code does not. A damaged file counts as missing. Where the folder cannot be written, the code is kept
in a temporary folder until the process ends, for it and the processes that it starts.
"""

import atexit
import gc
import hashlib
import logging
import math
import os
import pickle
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any, cast

import llvmlite
import numba
import numpy as np
from numba.core import caching, sigutils
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from .atomic_files import atomic_write, cache_folder

# A module whose attributes numba sets from the environment.
config: Any = numba.config
_SETTINGS = ("BOUNDSCHECK", "OPT", "DEBUGINFO_DEFAULT", "USING_SVML")
_log = logging.getLogger(__name__)
NOTICE_AFTER = 2.0  # seconds
_compiling = threading.Lock()
_signatures: dict[Any, str] = {}
_warned: list[str] = []
# Whether it takes longer than `NOTICE_AFTER`; a kernel is compiled, and not read from a file; and that was told.
_due, _missed, _told = threading.Event(), threading.Event(), threading.Event()
# Environment variable by which worker processes find the temporary folder of the process that started them.
_TEMPORARY = "_INCEPTION_RCNN_KERNELS"


def kernel(signature: str | None = None, *, fastmath: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with numba: without holding the interpreter's lock, by NumPy's rules for division.

    Parameters
    ----------
    signature : str, optional
        Types of its arguments and result in numba's notation, for `compile_all`. Without a signature the kernel is a
        helper: only other kernels can call it, and its code becomes part of theirs.
    fastmath : bool
        Let the compiler change the order of additions.

    Returns
    -------
    callable
        A decorator. With ``NUMBA_DISABLE_JIT=1`` it returns the function itself.

    Examples
    --------
    >>> @kernel("float64(float64, float64)")
    ... def add(a, b):
    ...     return a + b
    >>> add(1.0, 2.0)
    3.0
    """

    def compiled(function: Callable[..., Any]) -> Any:
        made = cast(Any, numba.njit)(
            function,
            nogil=True,
            error_model="numpy",
            fastmath=fastmath,
            no_cfunc_wrapper=True,
            no_cpython_wrapper=signature is None,
            # Without numba's reference counting, which slows compiling down. So a kernel may not allocate anything.
            _nrt=False,
        )
        if signature is not None and not config.DISABLE_JIT:
            _signatures[made] = signature
            made._cache = _KernelFiles(made)
        return made

    return compiled


def compile_all(*kernels: Any) -> None:
    """Make kernels ready to be called: compile them for their signatures, or read their code from files.

    Logs a warning when it takes longer than `NOTICE_AFTER`.

    Parameters
    ----------
    *kernels : callable
        Functions that were decorated with `kernel`.

    Examples
    --------
    >>> @kernel("int64(int64)")
    ... def double(a):
    ...     return 2 * a
    >>> compile_all(double)
    """
    _compile(kernels, threading.Event())


def _compile(kernels: Sequence[Any], stop: threading.Event) -> None:
    """Make kernels ready, until `stop` is set."""
    if all(one.overloads for one in kernels if one in _signatures):
        return
    notice = threading.Timer(NOTICE_AFTER, _be_due)
    notice.daemon = True
    with _compiling:
        notice.start()
        # Compiling makes hundreds of thousands of long-lived objects; collecting garbage adds a twelfth to its time.
        collecting = gc.isenabled()
        gc.disable()
        try:
            for one in kernels:
                if one in _signatures and not one.overloads and not stop.is_set():
                    one.compile(_signatures[one])
        finally:
            notice.cancel()
            _due.clear()
            if collecting:
                gc.enable()


def _be_due() -> None:
    _due.set()
    _tell()


def _miss() -> None:
    _missed.set()
    _tell()


def _tell() -> None:
    # A worker process reads what the process that started it has compiled, and told.
    # On a busy machine reading the files may take as long as compiling elsewhere.
    if _due.is_set() and _missed.is_set() and not _told.is_set() and (_warned or _temporary_folder() is None):
        _told.set()
        _log.warning("compiling%s (some seconds) ...", ", once on this machine" if _can_keep() else "")


def _can_keep() -> bool:
    """Tell whether the folder of the compiled code is there and can be written; make it if it is missing."""
    folder = kernel_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return not _warned and os.access(folder, os.W_OK)


@contextmanager
def compiling(*kernels: Any) -> Iterator[None]:
    """Make kernels ready in a thread while the ``with`` block runs; wait for them at its end.

    Parameters
    ----------
    *kernels : callable
        Functions that were decorated with `kernel`.

    Examples
    --------
    >>> with compiling():
    ...     pass
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="compile") as pool:
        ready = pool.submit(_compile, kernels, stop)
        try:
            yield
        except BaseException:
            stop.set()  # After an error nobody uses the remaining kernels.
            raise
    ready.result()


def kernel_folder() -> Path:
    """Folder of the compiled code: ``$NUMBA_CACHE_DIR``, or ``kernels`` in the cache folder of this package.

    Examples
    --------
    >>> kernel_folder().is_absolute()
    True
    """
    return Path(config.CACHE_DIR).absolute() if config.CACHE_DIR else cache_folder() / "kernels"


def _temporary_folder() -> Path | None:
    """Return the folder that this process or the one that started it has made, if it is there and only this user's."""
    folder = Path(os.environ.get(_TEMPORARY, ""))
    if not folder.is_absolute() or not folder.is_dir():
        return None
    # Code is run from there.
    status = folder.lstat()
    return folder if status.st_uid == os.getuid() and not status.st_mode & 0o077 else None


def _make_temporary_folder() -> Path:
    """Make that folder, with a name that nobody can know before, and remove it when this process ends."""
    folder, owner = tempfile.mkdtemp(prefix="inception-rcnn-"), os.getpid()
    os.environ[_TEMPORARY] = folder
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    return Path(folder)


class _KernelFiles(caching._Cache):
    """The cache that numba reads compiled code from and writes it to: a file for each kernel, types and processor."""

    def __init__(self, made: Any) -> None:
        self.made = made

    @property
    def cache_path(self) -> str:
        return str(kernel_folder())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        for find_folder in (_temporary_folder, kernel_folder):
            try:
                content = self._file(find_folder(), sig, target_context.codegen()).read_bytes()
            except OSError:
                continue
            if hashlib.sha256(content[32:]).digest() == content[:32]:
                break
        else:
            _miss()
            return None
        try:
            return CompileResult._rebuild(target_context, *pickle.loads(content[32:]))
        except Exception as error:
            _log.debug("%s cannot be used here and is compiled again: %r", self.made.__name__, error)
            _miss()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if data.library.has_dynamic_globals:
            raise TypeError(f"{self.made.__name__} uses addresses of this process and cannot be kept")
        packed = dumps(data._reduce())
        content = hashlib.sha256(packed).digest() + packed
        try:
            file = self._file(_temporary_folder() or kernel_folder(), sig, data.codegen)
            file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(file, content)
        except OSError as error:
            # This process has the code in memory, whatever happens here.
            kept = "until this program ends it is in a temporary folder"
            try:
                atomic_write(self._file(_temporary_folder() or _make_temporary_folder(), sig, data.codegen), content)
            except OSError:  # The disk is full.
                kept = "every process will compile for some seconds"
            if not _warned:
                _warned.append(str(error))
                _log.warning(
                    "compiled code cannot be kept (%s): %s; set NUMBA_CACHE_DIR to a folder that can be written",
                    error, kept,
                )  # fmt: skip

    def enable(self) -> None:
        pass

    def disable(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def _file(self, folder: Path | None, sig: Any, codegen: Any) -> Path:
        if folder is None:
            raise FileNotFoundError
        function = self.made.py_func
        made_of = [
            function.__module__, function.__qualname__, _identity(self.made),
            # numba passes a tuple of types from a call, and the signature's text from `compile_all`.
            _signatures[self.made], sigutils.normalize_signature(sig)[0],
            codegen.magic_tuple(), [getattr(config, name, None) for name in _SETTINGS],
            numba.__version__, llvmlite.__version__, sys.implementation.cache_tag,
        ]  # fmt: skip
        name = function.__name__.strip("_")
        return folder / f"{name}-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:32]}.kernel"


def _identity(made: Any) -> str:
    """Describe everything that compiled code follows from: bytecode, options, and the values of the names in it."""
    function = made.py_func
    code = function.__code__
    if code.co_freevars or function.__defaults__ or any(isinstance(one, CodeType) for one in code.co_consts):
        raise TypeError(f"kernel {function.__name__} has a closure, a default or a function inside; leave them out")
    used = {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    values = {name: _value(name, value) for name, value in sorted(used.items())}
    return repr((code.co_code, code.co_consts, code.co_varnames, code.co_names, made.targetoptions, values))


def _value(name: str, value: Any) -> str:
    if hasattr(value, "py_func"):
        return _identity(value)
    if value in (np, math):
        return value.__name__
    if isinstance(value, (bool, int, float, np.generic)):
        return repr(value)
    raise TypeError(
        f"a kernel uses {name}, a {type(value).__name__}; it may use numbers, numpy, math and other kernels"
    )
