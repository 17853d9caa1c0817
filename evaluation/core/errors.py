"""Errors for people: one sentence that names the flag or file and what to do, and exit code 2."""

import atexit
import contextlib
import difflib
import errno
import functools
import gc
import multiprocessing
import os
import re
import select
import signal
import sys
import threading
from pathlib import Path

STOPPED = "stopped; the same command, run again, goes on"
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}  # of a command that was stopped
AGAIN = "and run the same command again"
OF_SEVERAL = "UNLEARN_CANVAS_ENDED"  # names the place where a launched training's processes tell of their end
OF_DISKS = {
    errno.ENOSPC: f"the disk is full; free some space {AGAIN}",
    errno.EDQUOT: f"your quota of this disk is used up; free some space {AGAIN}",
    errno.EROFS: "lies on a read-only disk; name another place",
    errno.EACCES: "you may not read or write it; change its permissions or name another",
    errno.EPERM: "you may not change it; change its permissions or name another",
    errno.EIO: f"the disk does not answer; look at it {AGAIN}",
    errno.ESTALE: f"was changed by another machine meanwhile; wait a moment {AGAIN}",
}
OF_PATHS = OF_DISKS | {
    errno.ENOENT: "no such file or folder",
    errno.EISDIR: "is a folder; a file was expected",
    errno.ENODEV: "is no file; a file was expected",
    errno.ENOTDIR: "is a file, or lies below one; a folder was expected",
    errno.EEXIST: "is there already; a folder was expected",
    errno.ENOTEMPTY: "is a folder that is not empty; remove it or name another",
    errno.ELOOP: "is a link that leads to itself; remove it",
    errno.ENAMETOOLONG: "is too long a name; choose a shorter one",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n) or use fewer workers",
}


class UserError(Exception):
    """A mistake the user can mend. Its text is the whole message: what is wrong, where, what to do."""


class Finished(Exception):
    """Nothing is left to do. Its text says what is there already."""


class Stopped(KeyboardInterrupt):
    """SIGTERM, as what Ctrl-C raises."""


@contextlib.contextmanager
def refused(sentence: str, *kinds: type[Exception]):
    """An error of these kinds inside becomes a UserError: the sentence, then what the error says."""
    try:
        yield
    except kinds as error:
        raise UserError(f"{sentence} ({brief(error)})") from error


def brief(error: Exception) -> str:
    """The first sentence of an error's text, on one line: libraries go on with advice of their own."""
    return " ".join(str(error).split()).partition(". ")[0][:160] or type(error).__name__


def closest(name: str, known) -> str:
    """The end of an error message: what the user may have meant."""
    lower = {str(k).lower(): str(k) for k in known}
    near = [lower[k] for k in difflib.get_close_matches(name.lower().replace(" ", "_"), lower, 3, 0.5)]
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(map(str, known))}"


def printable(text: str) -> str:
    """Without the codes that move a terminal's cursor or change its colours; lines stay lines."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "?", text)


def command(main):
    """Wrap a `main(argv=None)`: what a user can mend ends in a sentence and exit code 2, never a traceback.

    Ctrl-C and SIGTERM end it with a sentence too, and 130 or 143; nobody reading its output any more is no
    error. Of several processes of a launched training the first speaks for all.
    """

    @functools.wraps(main)
    def run(argv=None):
        code = 2
        if not gc.isenabled():  # since `early`; what the imports made stays
            gc.freeze()
            gc.enable()
        try:
            with _terminable():
                result = main(argv)
                sys.stdout.flush()
            return result
        except Finished as done:
            if _speaks(0):
                print(printable(str(done)))
            return None
        except (KeyboardInterrupt, Exception) as error:
            if stop := _stop(error):
                message = str(stop) or STOPPED
                code = CODES[signal.SIGTERM if isinstance(stop, Stopped) else signal.SIGINT]
                for child in multiprocessing.active_children():  # torch would wait for each to end its work
                    child.kill()
            elif isinstance(error, BrokenPipeError) and _unread():
                _drop_output()
                raise SystemExit(0) from None
            else:
                message = _sentence(error)
                if message is None:
                    if _speaks(1):
                        raise
                    raise SystemExit(1) from None
                message = f"error: {message}"
        if _speaks(code):
            print(printable(message), file=sys.stderr)
        raise SystemExit(code)

    return run


def early(name: str, parse, *args) -> None:
    """For a command's module, called `name`, before its slow imports: a wrong word is answered at once.

    Interrupted while they last, the command ends as `command` would end it. Until it starts, no garbage is
    collected: it would be looked for again and again in all that they make, a fifth of their time.
    """
    if name != "__main__":
        return
    command(lambda argv: parse(*args))()

    def stop(number, frame):
        if _speaks(CODES[number]):
            print(STOPPED, file=sys.stderr)
        os._exit(CODES[number])

    for number in CODES:
        signal.signal(number, stop)
    atexit.register(_end)
    gc.disable()


def _end() -> None:
    """At a process's end: nothing is left to stop, and what torch made is not looked through for seconds."""
    for number in CODES:
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()


@contextlib.contextmanager
def _terminable():
    """SIGTERM within raises Stopped, and Ctrl-C KeyboardInterrupt. Handlers of others than ours stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's raises an error for workers that end now, too
        raise Stopped if number == signal.SIGTERM else KeyboardInterrupt

    ours = dict.fromkeys(CODES, stop)
    before = {number: signal.getsignal(number) for number in ours}
    taken = [
        number
        for number, handler in before.items()
        if handler in (signal.SIG_DFL, signal.default_int_handler)
        or getattr(handler, "__module__", None) == __name__
    ]
    for number in taken:
        signal.signal(number, ours[number])
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def _stop(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt that an error is, or in whose wake it was raised, as by a library that cleans up.

    Losing another process of a launched training is one, too: it has to end.
    """
    lost = ("by peer", "remote process exit")  # what gloo (closed, reset) and NCCL say
    if OF_SEVERAL in os.environ and any(words in str(error) for words in lost):
        return Stopped()
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _speaks(code: int) -> bool:
    """Whether a process that ends early, with this exit code, tells why: of a launched training's, the first.

    Of a stop the launcher tells: it stops the others, too, where one has gone. A link holds the code: it is
    made whole or not at all, and needs no room on a full disk.
    """
    place = os.environ.get(OF_SEVERAL)
    if place is None:
        return True
    if code in CODES.values():
        return False
    try:
        Path(place).symlink_to(str(code))
    except FileExistsError:
        return False
    except OSError:  # where it cannot be left, rather twice than not at all
        pass
    return True


def _unread() -> bool:
    """Whether standard output or the error messages go into a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(1, 0)
    poll.register(2, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop_output() -> None:
    """What is still to be printed goes nowhere: at its end, Python would fail to print it once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sentence(error: Exception) -> str | None:
    """What the user is told of an error; None for one of ours to mend."""
    text = str(error)
    if isinstance(error, UserError):
        # one raised in a worker process arrives wrapped in that process's traceback
        return text.rpartition("UserError: ")[2].strip()
    if isinstance(error, OSError) and error.errno:
        if error.filename is None:
            _drop_output()
        path = error.filename2 or error.filename  # of a temporary, the file whose place it was to take
        return f"{path or 'output'}: {OF_PATHS.get(error.errno) or error.strerror}"
    short = ("out of memory", "can't allocate memory", "not enough memory")
    short += ("terminated abruptly", "is killed by signal")  # workers, which the system ends for want of it
    if isinstance(error, MemoryError) or any(words in text for words in short):
        reason = text.splitlines()[0][:120] if text else "RAM"
        return f"the memory does not suffice ({reason}); make the batch or the images smaller"
    return None
