"""Files written whole or not at all, and fingerprints of what is in them."""

import contextlib
import hashlib
import io
import json
import os
from pathlib import Path

UMASK = os.umask(0)  # can only be read by setting it
os.umask(UMASK)


@contextlib.contextmanager
def atomic(path: str | Path):
    """Yields a temporary path beside `path`, which takes its place if the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.chmod(0o666 & ~UMASK)  # safetensors makes files that only their owner may read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def digest(content) -> str:
    """16 hexadecimal digits that stand for any JSON-like value: the same on every machine and run."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(source: str | Path | bytes, digits: int = 16) -> str:
    """The first digits, of 64, of the SHA-256 of a file or of the bytes it holds."""
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:digits]
