"""Threads and processes that end when the command does: what waits is dropped, no worker lives on."""

import contextlib
import ctypes
import functools
import multiprocessing
import os
import signal
import sys
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

PR_SET_PDEATHSIG = 1  # of Linux


@contextlib.contextmanager
def threads(count: int | None = None):
    """A pool of threads; an error within drops what has not begun."""
    with _dropping(ThreadPoolExecutor(count)) as pool:
        yield pool


@contextlib.contextmanager
def processes(count: int | None = None):
    """A pool of processes; an error within ends them in the middle of their work."""
    pool = ProcessPoolExecutor(count, initializer=_begin, initargs=(os.getpid(),))
    with _dropping(pool):
        try:
            yield pool
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            raise


@contextlib.contextmanager
def _dropping(pool: Executor):
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _begin(parent: int, number: int = 0) -> None:
    """In a worker: Ctrl-C is its parent's to answer, whose end, however it comes, is its own. DataLoaders
    give it a number, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(OSError, AttributeError):  # not on other systems
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    sys.excepthook = _say


def _say(kind, error, trace) -> None:
    """In a worker: that its parent is stopped while it fetches a tensor is no error to print."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def loaded(loader):
    """The batches of a DataLoader, whose workers end with this process.

    They hear neither Ctrl-C nor SIGTERM, from their beginning: torch takes an end by a signal for an error.
    """
    loader.worker_init_fn = functools.partial(_begin, os.getpid())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
