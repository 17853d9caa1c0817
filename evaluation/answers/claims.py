"""A folder that several processes fill: a manifest says what with, claims say who is at work on which block.

A block is claimed by a file while it is made; a claim whose process is gone is taken over.
"""

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from evaluation.core.errors import UserError
from evaluation.core.files import write_json

MANIFEST = "manifest.json"
STALE_SECONDS = 1800  # a claim this old on another machine belongs to a dead process


def agree(folder: str | Path, wanted: dict, holds: str, **first) -> dict:
    """The folder's manifest: `wanted` and `first` if there is none yet; else what is there.

    Raises UserError if that differs in a key of `wanted`; protocols are compared by their hash. What the
    folder `holds` is for the message. `first`: what the first process decides for all.
    """
    path = Path(folder) / MANIFEST
    wanted = json.loads(json.dumps(wanted))
    if not path.exists():
        _write_first(path, wanted | first)
    manifest = json.loads(path.read_text())
    for key, value in wanted.items():
        there = manifest.get(key)
        if key == "protocol" and value and there:
            value, there = value["hash"], there["hash"]
        if value != there:
            raise UserError(f"--out {folder}: holds {holds} of another {key}; choose another or remove this")
    return manifest


def _write_first(path: Path, content: dict) -> None:
    """Leaves alone what another process has written in the meantime."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    write_json(draft, content)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        write_json(path, content)
    finally:
        draft.unlink()


def claimed(folder: str | Path, blocks, done):
    """Yields those (key, block) of `blocks` that are neither `done` nor being made by another process."""
    for key, block in blocks:
        path = Path(folder) / f".claim-{key}"
        if done(block) or not _claim(path):
            continue
        try:
            if not done(block):  # another process may have finished it just before the claim
                yield key, block
        finally:
            path.unlink(missing_ok=True)


def _claim(path: Path) -> bool:
    try:
        with open(path, "x") as file:
            file.write(f"{socket.gethostname()} {os.getpid()}")
        return True
    except FileExistsError:
        return _abandoned(path) and _take_over(path)


def _take_over(path: Path) -> bool:
    """Claims what a dead process left claimed; one process at a time, or it would remove a new claim."""
    with open(path.with_name(MANIFEST), "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _abandoned(path):
            return False  # another process was faster
        path.unlink(missing_ok=True)
    return _claim(path)


def _abandoned(path: Path) -> bool:
    """Whether the process that wrote this claim is gone; if that cannot be told, whether it is too old."""
    try:
        host, _, pid = path.read_text().partition(" ")
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False  # let go of, or just taken over
    if host != socket.gethostname() or not pid.isdecimal():
        return age > (STALE_SECONDS if host else 60)  # one just being written is empty for a moment
    try:
        os.kill(int(pid), 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)  # a PermissionError: another user's, alive
    return False
