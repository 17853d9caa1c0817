"""A folder that several processes fill: a manifest says what with, claims say who is at work on which block.

A block is claimed by a file that names its process while it is made. The process touches the file every few
seconds; a claim untouched for minutes, or of a process that is known to be gone, is taken over. Whoever loses
a claim so, since it was held up, lets go of what it has made, and every cell is written once.
"""

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from evaluation.core import owner
from evaluation.core.errors import UserError
from evaluation.core.files import read_json, temporary

MANIFEST = "manifest.json"
BEAT_SECONDS = 10  # between touches
STALE_SECONDS = 180  # a network disk may show a touch a minute late
UNREADABLE_SECONDS = 60  # for a claim that names nobody
PATIENCE_SECONDS = 30  # at the end, for others to finish a block


def agree(folder: str | Path, wanted: dict, holds: str, **first) -> dict:
    """The folder's manifest: `wanted` and `first` if there is none yet; else what is there.

    Raises UserError if that differs in a key of `wanted`; what has a hash, as protocols, is compared by it.
    What the folder `holds` is for the message. `first`: what the first process decides for all.
    """
    path = Path(folder) / MANIFEST
    wanted = json.loads(json.dumps(wanted))
    if not path.exists():
        _write_first(path, wanted | first)
    counts = {key: int for key, value in first.items() if isinstance(value, int)}
    manifest = read_json(path, **counts)  # older ones may lack the rest
    if odd := [f"{key} {manifest[key]}" for key in counts if manifest[key] < 1]:
        raise UserError(f"{path}: damaged ({odd[0]}); remove the folder and run the same command again")
    for key, value in wanted.items():
        there = manifest.get(key)
        if isinstance(value, dict) and "hash" in value and isinstance(there, dict):
            value, there = value["hash"], there.get("hash")
        if value != there:
            raise UserError(f"--out {folder}: holds {holds} of another {key}; choose another or remove this")
    return manifest


def _write_first(path: Path, content: dict) -> None:
    """Leaves alone what another process has written in the meantime."""
    with temporary(path) as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            os.replace(draft, path)


class Claim(NamedTuple):
    """This process's, as long as it is `held`: to be asked once more before what was made is written."""

    path: Path
    file: int  # an open descriptor of the claim's file, locked
    release: contextlib.ExitStack | None = None  # lets go of it; `pop_all()` leaves that to the caller

    def held(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(self.path.stat(), os.fstat(self.file))
        return False


def claimed(folder: str | Path, blocks: Iterable[tuple], done: Callable) -> Iterator[tuple]:
    """Yields (claim, block) of the `blocks`, pairs of a key and a block, that are not `done(block)`.

    Blocks of other processes come last, if these are gone: while they get on, this one waits for them. A
    claim is let go of when the next is asked for, unless its `release` was taken, to write in the background.
    """
    waiting, patience, moved = list(blocks), PATIENCE_SECONDS, time.monotonic()
    while waiting:
        later = []
        for key, block in waiting:
            if done(block):
                continue
            if (claim := _take(Path(folder) / f".claim-{key}")) is None:
                later.append((key, block))
                continue
            began = time.monotonic()
            with contextlib.ExitStack() as release:
                release.enter_context(_beating(claim))
                if not done(block):  # another process may have finished it just before the claim
                    yield claim._replace(release=release), block
            patience = max(patience, 3 * (time.monotonic() - began))
        if len(later) < len(waiting):
            moved = time.monotonic()
        elif time.monotonic() - moved > patience:
            return
        else:
            time.sleep(0.3)
        waiting = later


@contextlib.contextmanager
def _beating(claim: Claim):
    """Touches the claim while its block is made, then lets go of it."""
    over = threading.Event()

    def beat():
        while not over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(claim.file)  # by the clock of the disk

    try:
        threading.Thread(target=beat, daemon=True).start()
        yield
    finally:
        over.set()
        if claim.held():
            claim.path.unlink(missing_ok=True)
        os.close(claim.file)


def _take(path: Path) -> Claim | None:
    """A claim of this process; None if another has it."""
    if path.exists():
        # one process at a time, or it would remove a new claim
        with open(path.with_name(MANIFEST), "rb+") as lock:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not abandoned(path):
                return None
            path.unlink(missing_ok=True)
    with temporary(path) as draft:
        file = _write_claim(draft)
        try:
            os.link(draft, path)
            return Claim(path, file)
        except OSError as error:
            os.close(file)
            if isinstance(error, FileExistsError):
                return None
        try:  # a file system without hard links
            return Claim(path, _write_claim(path))
        except FileExistsError:
            return None


def _write_claim(path: Path) -> int:
    """A new file that names this process -> its descriptor, with a lock that ends when this process does."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(file, owner.myself().text().encode())
    except BaseException:
        os.close(file)
        path.unlink()
        raise
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def abandoned(path: Path) -> bool:
    """Whether the process that a claim names is gone or held up; if it names none, whether it is old."""
    try:
        process = owner.parse(path.read_bytes().decode(errors="replace"))
        age = _disk_time(path) - path.stat().st_mtime
        if process is None:
            return abs(age) > UNREADABLE_SECONDS  # one just being written is empty for a moment
        if age < -UNREADABLE_SECONDS:  # of a clock that is ahead: from now on it ages, or is touched
            os.utime(path)
        living = owner.alive(process)
        if living is None and process.boot == owner.myself().boot:  # in another container of this machine
            living = _is_locked(path) and None
        return age > STALE_SECONDS or living is False
    except FileNotFoundError:
        return False  # let go of, or just taken over


def _disk_time(path: Path) -> float:
    """Now, by the clock that gives files in this folder their times."""
    with temporary(path) as probe:
        probe.touch()
        return probe.stat().st_mtime


def _is_locked(path: Path) -> bool:
    """Whether a living process of this machine holds the lock of a claim, or cannot hold one."""
    with open(path, "rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
