"""Files written whole or not at all, read with a sentence for what is damaged; fingerprints of contents."""

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from evaluation.core import owner
from evaluation.core.errors import OF_DISKS, Finished, UserError

UMASK = os.umask(0)  # can only be read by setting it
os.umask(UMASK)
ABANDONED_SECONDS = 86_400  # a temporary of another machine, untouched for so long, is nobody's any more
TEMPORARY = re.compile(r"\..*~(?P<place>\w{8})-(?P<pid>\d+)-(?P<started>\d*)-\w{8}(\.\w+)?")


@contextlib.contextmanager
def atomic(path: str | Path):
    """Yields a temporary path beside `path`, which takes its place if the block ends without an error.

    The block may write a file or make a folder. Whatever library writes there: an error of the disk is an
    OSError that names `path`.
    """
    with temporary(path) as draft:
        yield draft
        if draft.is_file():
            draft.chmod(0o666 & ~UMASK)  # safetensors makes files that only their owner may read
        os.replace(draft, path)


@contextlib.contextmanager
def temporary(path: str | Path):
    """Yields a name beside `path` that no process has; what is there at the end is removed.

    What dead processes left so in the folder is removed, too.
    """
    path, me = Path(path), owner.myself()
    with named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        clear(path.parent)
    token = f"{place(me)}-{me.pid}-{me.started}-{uuid.uuid4().hex[:8]}"
    draft = path.with_name(f".{path.stem[:100]}~{token}{path.suffix}")
    try:
        with named_errors(path, draft):
            yield draft
    finally:
        remove(draft)


@contextlib.contextmanager
def named_errors(path: Path, written: Path | None = None):
    """An error of the disk inside is an OSError that names `path`.

    A library's own error tells little of why it could not write the file `written`, so the disk is asked.
    """
    try:
        yield
    except (UserError, Finished):
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None  # NumPy's own has none
        if number is None:
            stated = re.search(r"os error (\d+)", str(error))
            number = int(stated[1]) if stated else written and _fault(written)
        elif number not in OF_DISKS:
            raise
        if number:
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def _fault(path: Path) -> int | None:
    """The number of the error that a megabyte more, written beside `path`, ends in."""
    try:
        with open(path.with_name(path.name[:120] + ".more"), "wb") as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        return error.errno
    finally:
        remove(path.with_name(path.name[:120] + ".more"))
    return None


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def place(process: owner.Owner) -> str:
    """Stands for where a process's number means it."""
    return digest([process.host, process.boot, process.space])[:8]


@functools.cache  # once a process: its own need no clearing
def clear(folder: Path) -> None:
    """Removes the temporaries of dead processes."""
    me = owner.myself()
    for entry in os.scandir(folder):
        if not (match := TEMPORARY.fullmatch(entry.name)):
            continue
        with contextlib.suppress(OSError):
            if match["place"] == place(me):
                writer = me._replace(pid=int(match["pid"]), started=match["started"])
                gone = owner.alive(writer) is False
            else:
                gone = time.time() - entry.stat().st_mtime > ABANDONED_SECONDS
            if gone:
                remove(Path(entry.path))


def write_json(path: str | Path, content) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def read_json(path: str | Path, **kinds) -> dict:
    """What a JSON file holds: an object, `kinds` of whose keys (name -> type, or types) must be there. All of
    its numbers are finite.

    Raises UserError, with the file's name, for anything else; FileNotFoundError if there is no file.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({str(error)[:100]}); remove it and make it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged (holds no JSON object); remove it and make it again")
    check_keys(path, content, kinds)
    return content


def _refuse_constant(word: str):
    raise ValueError(f"{word} is no number")


def check_keys(where, content: Mapping, kinds: Mapping) -> None:
    """UserError, which the file's name `where` begins, unless `content` has all `kinds` (name -> type)."""
    for name, kind in kinds.items():
        value = content.get(name)
        if (
            name not in content
            or not isinstance(value, kind)
            or (isinstance(value, bool) and kind is not bool)
        ):
            fault = f"its {name!r} is {value!r:.60}" if name in content else f"it lacks {name!r}"
            raise UserError(f"{where}: damaged ({fault}); remove it and make it again")


def append_json(path: str | Path, line: dict) -> None:
    """One more line of a log, in one piece even if several processes write at once."""
    path = Path(path)
    with named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as file:
            # what a killed process or a full disk cut short stays a line of its own
            whole = not file.tell() or os.pread(file.fileno(), 1, file.tell() - 1) == b"\n"
            file.write(b"\n" * (not whole) + json.dumps(line).encode() + b"\n")


def read_json_lines(path: str | Path) -> list[dict]:
    """The lines of a log, none without a file; without those that were cut short."""
    lines = []
    with contextlib.suppress(FileNotFoundError):
        for line in Path(path).read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                if isinstance(content := json.loads(line), dict):
                    lines.append(content)
    return lines


def keep_json_lines(path: str | Path, keep) -> None:
    """Forgets those lines of a log for which `keep(line)` is not true."""
    kept = [json.dumps(line) + "\n" for line in read_json_lines(path) if keep(line)]
    with atomic(path) as temporary:
        temporary.write_text("".join(kept))


def digest(content) -> str:
    """16 hexadecimal digits that stand for any JSON-like value: the same on every machine and run."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(source: str | Path | bytes, digits: int = 16) -> str:
    """The first digits, of 64, of the SHA-256 of a file or of the bytes it holds."""
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:digits]
