"""Errors for people: one sentence that names the flag or file and what to do, and exit code 2."""

import contextlib
import difflib
import errno
import functools
import sys


class UserError(Exception):
    """A mistake the user can mend. Its text is the whole message: what is wrong, where, what to do."""


class Finished(Exception):
    """Nothing is left to do. Its text says what is there already."""


@contextlib.contextmanager
def refused(sentence: str, *kinds: type[Exception]):
    """An error of these kinds inside becomes a UserError: the sentence, then the error's text on one line."""
    try:
        yield
    except kinds as error:
        raise UserError(f"{sentence} ({' '.join(str(error).split())[:160]})") from error


def closest(name: str, known) -> str:
    """The end of an error message: what the user may have meant."""
    lower = {str(k).lower(): str(k) for k in known}
    near = [lower[k] for k in difflib.get_close_matches(name.lower().replace(" ", "_"), lower, 3, 0.5)]
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(map(str, known))}"


def command(main):
    """Wrap a `main(argv=None)`: a UserError, missing file or full disk ends in a sentence and exit code 2."""

    @functools.wraps(main)
    def run(argv=None):
        try:
            return main(argv)
        except Finished as done:
            print(done)
            return None
        except UserError as error:
            # one raised in a worker process arrives wrapped in that process's traceback
            message = str(error).rpartition("UserError: ")[2].strip()
        except FileNotFoundError as error:
            message = f"{error.filename}: no such file or folder"
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            place = error.filename or "output"
            message = f"{place}: the disk is full; free some space and run the same command again"
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2)

    return run
