"""Who wrote a claim or a temporary file, and whether that process still lives; places for one process."""

import contextlib
import fcntl
import functools
import os
import socket
from pathlib import Path
from typing import NamedTuple

import psutil

from evaluation.core.errors import UserError


class Owner(NamedTuple):
    """A process. Its number is used again after its end, after a reboot, and at once in other containers."""

    host: str
    pid: int
    started: str  # by the machine's own clock
    boot: str  # tells two machines of one name apart
    space: str  # of process numbers: each container has its own

    def text(self) -> str:
        return " ".join(map(str, self))


def myself() -> Owner:
    host = socket.gethostname().replace(" ", "-") or "localhost"
    return Owner(host, os.getpid(), _started(os.getpid()), _boot(), _space())


def parse(text: str) -> Owner | None:
    """What `Owner.text` wrote; None for anything else. A host and a number alone are an owner, too."""
    words = [*text.split(" "), *[""] * 5][:5]
    return Owner(words[0], int(words[1]), *words[2:]) if words[0] and words[1].isdecimal() else None


def alive(owner: Owner) -> bool | None:
    """None if that cannot be told from here: another machine, or other process numbers."""
    me = myself()
    if owner.host != me.host or owner.boot not in ("", me.boot) or owner.space not in ("", me.space):
        return None
    if not psutil.pid_exists(owner.pid):
        return False
    if not owner.started:
        return None
    return _started(owner.pid) == owner.started


def _started(pid: int) -> str:
    try:  # ticks since the boot, which no change of the clock moves
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return f"{psutil.Process(pid).create_time():.0f}" if psutil.pid_exists(pid) else ""


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{psutil.boot_time():.0f}"


@functools.cache
def _space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        return "0"


def alone(folder: str | Path, flag: str = "--out", who: str = "process"):
    """Within, no other process is within the same; UserError if another is. The folder is made."""
    return _locked(Path(folder) / ".lock", f"{flag} {folder}: another {who} is at work here")


def alone_at(file: str | Path):
    """The same for --out, a file that is to be written. Its folder is made."""
    file = Path(file)
    return _locked(file.with_name(f".{file.name}.lock"), f"--out {file}: another process makes this file")


@contextlib.contextmanager
def _locked(path: Path, otherwise: str):
    """The lock is the kernel's: it goes with the process, however that ends. Its file goes too, if it can."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _open_locked(path)
    if lock is None:
        raise UserError(f"{otherwise}; wait for it or stop it")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _open_locked(path: Path) -> int | None:
    """A file descriptor that holds the lock; None if another process has it."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        except OSError:
            return lock  # a file system without locks
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        os.close(lock)  # was removed between the two lines above
