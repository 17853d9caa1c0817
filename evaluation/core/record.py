"""A run's `record.json`: what was asked, by what it was made, and what it cost."""

import re
import time
from pathlib import Path

from evaluation.core.errors import UserError
from evaluation.core.files import read_json, write_json

RECORD = "record.json"
WEIGHTS = "weights.safetensors"  # beside it: the tensors that differ from the base model's
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
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")  # what a method may be called


def write_record(folder: str | Path, record: dict) -> None:
    """Written last and atomically: a folder with a record holds a finished run."""
    write_json(Path(folder) / RECORD, record)


def read_record(folder: str | Path) -> dict:
    path = Path(folder) / RECORD
    if not path.exists():
        absent = f"{folder}: no {RECORD}, so no finished run"
        raise UserError(f"{absent}; run the method's train.py with --out {folder}")
    record = read_json(path, **FIELDS)
    odd = [value for value in record["seconds"].values() if not isinstance(value, int | float)]
    if odd or not NAME.fullmatch(record["method"]):
        fault = (
            f"its seconds are {odd[0]!r:.60}" if odd else f"its method {record['method']!r:.60} is no name"
        )
        raise UserError(f"{path}: damaged ({fault}); remove it and run again")
    return record


def now() -> str:
    """When a run was finished, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
