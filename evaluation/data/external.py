"""Which of the files that others publish are here: `checkpoints/checkpoints.csv` against a folder

    python -m evaluation.check --files [DIR] [--hash]

A row names a file, or with a closing slash a folder, by its place in DIR. `sha256` is empty until someone has
seen the file; the first digits of it will do. `--hash` prints them for every file that is there.
"""

import csv
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from evaluation.core.errors import UserError
from evaluation.core.files import file_digest

LIST = Path(__file__).parents[2] / "checkpoints" / "checkpoints.csv"


class External(NamedTuple):
    file: str  # place in the folder of checkpoints; a folder ends with a slash
    source: str  # where its authors publish it
    bytes: int | None
    sha256: str  # its first digits, or nothing
    licence: str
    needed_by: str


def read_list(path: Path = LIST) -> list[External]:
    if not path.exists():
        raise UserError(f"{path}: no such file; it comes with the repository, not with an installed package")
    with open(path, newline="") as file:
        rows = [External(**row) for row in csv.DictReader(file)]
    return [row._replace(bytes=int(row.bytes or 0) or None) for row in rows]


def state(row: External, folder: Path) -> tuple[str, str]:
    """-> present, missing or wrong, and why. A file is hashed only if its hash is known."""
    path = folder / row.file
    if not path.exists():
        return "missing", ""
    if row.file.endswith("/"):
        return ("present", "") if any(path.iterdir()) else ("wrong", "an empty folder")
    if row.bytes and path.stat().st_size != row.bytes:
        return "wrong", f"has {path.stat().st_size} bytes, expected {row.bytes}"
    if not row.sha256:
        return "present", "its hash is not on record"
    sha256 = file_digest(path, 64)
    if not sha256.startswith(row.sha256):
        return "wrong", f"SHA-256 {sha256[:16]}..., expected {row.sha256[:16]}..."
    return "present", "hash agrees"


def report(folder: str | Path, hashes: bool = False) -> None:
    """Prints the state of every file; raises UserError if one is not what it should be."""
    folder, rows = Path(folder), read_list()
    if not folder.is_dir():
        raise UserError(f"--files {folder}: no such folder; name the one that the files are in")
    states = [state(row, folder) for row in rows]
    width = max(len(row.file) for row in rows)
    for row, (what, why) in zip(rows, states):
        size = f"{row.bytes / 1e9:.2f} GB" if row.bytes else ""
        print(f"{what:8} {row.file:{width}} {size:>8}  {why or row.needed_by}")
    for file in [row.file for row in rows if hashes and (folder / row.file).is_file()]:
        print(f"{file_digest(folder / file, 64)}  {file}")
    count = Counter(what for what, _ in states)
    print(*(f"{count[what]} {what}" for what in ("present", "missing", "wrong")), sep=", ")
    print(f"where they are published, and who needs them: {LIST}")
    if count["wrong"]:
        raise UserError(f"{folder}: {count['wrong']} files are not what they should be; download them again")
