"""A run's `record.json`: what was asked, by what it was made, and what it cost."""

import re
import time
from pathlib import Path
from typing import NamedTuple

from evaluation.core.errors import UserError, refused
from evaluation.core.files import check_keys, read_json, write_json

RECORD = "record.json"
WEIGHTS = "weights.safetensors"  # beside it: the tensors that differ from the base model's
ACTING = "acting"  # a folder for each method by which runs that it went on from act while images are sampled
FIELDS = {
    "method": str,
    "target": str,
    "variant": str,
    "settings": dict,
    "seed": int | None,
    "model": str | None,  # fingerprint of the base model
    "seconds": dict,
    "peak_memory_bytes": int | None,
    "stored_bytes": int | None,
}
MAKER = ("method", "target", "settings", "seed")  # in which a record and what the run made agree
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")  # what a method may be called


def write_record(folder: str | Path, record: dict) -> None:
    """Written last and atomically: a folder with a record holds a finished run."""
    write_json(Path(folder) / RECORD, record)


def read_record(folder: str | Path) -> dict:
    path = Path(folder) / RECORD
    if not path.exists():
        absent = f"{folder}: no {RECORD}, so no finished run"
        raise UserError(f"{absent}; run the method's train.py with --out {folder}")
    record = read_json(path)
    check_record(path, record)
    return record


def check_record(path: str | Path, record: dict) -> None:
    """UserError unless what the file at `path` holds is a whole record."""
    check_keys(path, record, FIELDS)
    odd = [value for value in record["seconds"].values() if not isinstance(value, int | float)]
    if odd or not NAME.fullmatch(record["method"]):
        fault = (
            f"its seconds are {odd[0]!r:.60}" if odd else f"its method {record['method']!r:.60} is no name"
        )
        raise UserError(f"{path}: damaged ({fault}); remove it and run again")


def check_maker(folder: str | Path, maker: dict, record: dict) -> None:
    """UserError if what a folder holds was made with another run than the record tells of: `maker`, as its
    manifest has it, which may know less."""
    for key in MAKER:
        if key in maker and maker[key] != record[key]:
            raise UserError(
                f"{folder}: made by a run of another {key} than {RECORD} says; remove it and make it again"
            )


class Request(NamedTuple):
    """What a run was asked to forget, and with what."""

    method: str
    target: str  # several with commas


def requests(record: dict, path: str | Path = RECORD) -> list[Request]:
    """Those of the runs that a run went on from, the first first, and its own.

    UserError that begins with `path`, where the record lies, if it cannot tell.
    """
    earlier = record.get("earlier", None if record.get("from") else [])
    with refused(f"{path}: damaged (earlier is {earlier!r:.60}); remove it and run again", TypeError):
        before = [Request(**request) for request in earlier]
        if not all(isinstance(word, str) for request in before for word in request):
            raise TypeError
    return [*before, Request(record["method"], record["target"])]


def now() -> str:
    """When a run was finished, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
