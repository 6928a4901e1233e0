"""Compiled functions: numba without the interpreter's lock, compiled once on a machine for all copies of the code.

Compiling is what a first call waits for, so kernels are plain loops over scalars and arrays that their callers made:
each ``numpy.empty``, slice assignment or built-in ``min`` inside costs a tenth of a second, a text for an exception
two. `benchmarks/cold_start.py` tells what each kernel takes.

Compiled code is kept in files of this package's cache folder (or ``$NUMBA_CACHE_DIR``). A file is found by what it was
made from: the function's name and bytecode, the constants and kernels that it uses, the types, the processor, numba's
settings, and the versions of numba and Python. So another copy of the same code finds it, and changed code never does.
A damaged file counts as missing.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import math
import pickle
import sys
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

# numba sets what this module holds from the environment.
config: Any = numba.config
_SETTINGS = ("BOUNDSCHECK", "OPT", "DEBUGINFO_DEFAULT", "USING_SVML")
_log = logging.getLogger(__name__)
NOTICE_AFTER = 2.0  # seconds
_compiling = threading.Lock()
_signatures: dict[Any, str] = {}
_told: list[str] = []


def kernel(signature: str | None = None, *, fastmath: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with numba: without holding the interpreter's lock, by NumPy's rules for division.

    Parameters
    ----------
    signature : str, optional
        The one that it is called with, in numba's words, for `compile_all`. Without one the kernel is a helper: only
        other kernels can call it, and its code is kept in theirs.
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
            # Without the runtime that counts references: it would slow compiling down, and nothing may be allocated.
            _nrt=False,
        )
        if signature is not None and not config.DISABLE_JIT:
            _signatures[made] = signature
            made._cache = _KernelFiles(made)
        return made

    return compiled


def compile_all(*kernels: Any) -> None:
    """Make kernels ready for the types that they declare: compiled, or read from their files.

    Says through `logging` what is going on when it takes long.

    Parameters
    ----------
    *kernels : callable
        What `kernel` returned.

    Examples
    --------
    >>> @kernel("int64(int64)")
    ... def double(a):
    ...     return 2 * a
    >>> compile_all(double)
    """
    _compile(kernels, threading.Event())


def _compile(kernels: Sequence[Any], stop: threading.Event) -> None:
    """Make kernels ready, until there is a reason to stop."""
    if all(one.overloads for one in kernels if one in _signatures):
        return
    notice = threading.Timer(NOTICE_AFTER, _log.warning, ["compiling, once on this machine (some seconds) ..."])
    notice.daemon = True
    with _compiling:
        notice.start()
        # Compiling makes hundreds of thousands of objects that live on; collecting garbage adds a twelfth to its time.
        collecting = gc.isenabled()
        gc.disable()
        try:
            for one in kernels:
                if one in _signatures and not one.overloads and not stop.is_set():
                    one.compile(_signatures[one])
        finally:
            notice.cancel()
            if collecting:
                gc.enable()


@contextmanager
def compiling(*kernels: Any) -> Iterator[None]:
    """Make kernels ready in a thread while the block does something else.

    Parameters
    ----------
    *kernels : callable
        What `kernel` returned.

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
            stop.set()  # An error is not to wait for kernels that nobody will use.
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


class _KernelFiles(caching._Cache):
    """What numba asks for compiled code, and hands it to: a file for each kernel, types and processor."""

    def __init__(self, made: Any) -> None:
        self.made = made

    @property
    def cache_path(self) -> str:
        return str(kernel_folder())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        try:
            content = self._file(sig, target_context.codegen()).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            return None
        try:
            return CompileResult._rebuild(target_context, *pickle.loads(content[32:]))
        except Exception as error:
            _log.debug("%s cannot be used here and is made again: %r", self.made.__name__, error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if data.library.has_dynamic_globals:
            raise TypeError(f"{self.made.__name__} uses addresses of this process and cannot be kept")
        packed = dumps(data._reduce())
        try:
            file = self._file(sig, data.codegen)
            file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(file, hashlib.sha256(packed).digest() + packed)
        except OSError as error:
            # A folder that cannot be written, a full disk: the code is there, and the next process makes it again.
            if not _told:
                _told.append(str(error))
                _log.warning(
                    "compiled code cannot be kept (%s): every start will compile for some seconds; "
                    "set NUMBA_CACHE_DIR to a folder that can be written",
                    error,
                )

    def enable(self) -> None:
        pass

    def disable(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def _file(self, sig: Any, codegen: Any) -> Path:
        function = self.made.py_func
        made_of = [
            function.__module__, function.__qualname__, _identity(self.made),
            # A call asks with a tuple of types, `compile_all` with the declared text.
            _signatures[self.made], sigutils.normalize_signature(sig)[0],
            codegen.magic_tuple(), [getattr(config, name, None) for name in _SETTINGS],
            numba.__version__, llvmlite.__version__, sys.implementation.cache_tag,
        ]  # fmt: skip
        name = function.__name__.strip("_")
        return kernel_folder() / f"{name}-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:32]}.kernel"


def _identity(made: Any) -> str:
    """Describe what compiled code follows from: bytecode, options, and the values of the names that it uses."""
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
