"""A run's `record.json`: what was asked, by what it was made, and what it cost."""

import json
import time
from pathlib import Path

from evaluation.core.errors import UserError
from evaluation.core.files import write_json

RECORD = "record.json"


def write_record(folder: str | Path, record: dict) -> None:
    """Written last and atomically: a folder with a record holds a finished run."""
    write_json(Path(folder) / RECORD, record)


def read_record(folder: str | Path) -> dict:
    path = Path(folder) / RECORD
    if not path.exists():
        absent = f"{folder}: no {RECORD}, so no finished run"
        raise UserError(f"{absent}; run the method's train.py with --out {folder}")
    return json.loads(path.read_text())


def now() -> str:
    """When a run was finished, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
