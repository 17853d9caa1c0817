"""The two files every number comes from: a run's `record.json` and an answer set's `predictions.csv.gz`."""

import csv
import gzip
import io
import json
import zlib
from pathlib import Path
from typing import NamedTuple

from evaluation.answers.answer_set import read_manifest
from evaluation.core.errors import UserError
from evaluation.core.files import atomic

PREDICTIONS = "predictions.csv.gz"


class Prediction(NamedTuple):
    """What both classifiers say of one image."""

    theme: str  # asked for
    object: str
    seed: int
    theme_seen: str  # the most probable label
    object_seen: str
    theme_prob: float  # probability of the theme asked for
    object_prob: float
    theme_seen_prob: float  # probability of the label seen: low everywhere for an image of nothing
    object_seen_prob: float
    sha256: str  # of the image file, 16 digits


def write_predictions(folder: str | Path, rows: list[Prediction], source: dict) -> None:
    """`source` says what was judged and by whom; it becomes the file's first line. Same rows, same bytes."""
    text = io.StringIO()
    text.write(f"# {json.dumps(source)}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Prediction._fields)
    for row in rows:
        writer.writerow([f"{value:.6f}" if isinstance(value, float) else value for value in row])
    with atomic(Path(folder) / PREDICTIONS) as temporary:
        temporary.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def read_predictions(folder: str | Path) -> tuple[list[Prediction], dict]:
    """-> rows, source."""
    path = Path(folder) / PREDICTIONS
    if not path.exists():
        raise UserError(f"{folder}: no {PREDICTIONS}; make it with: python -m evaluation.predict {folder}")
    kinds = Prediction.__annotations__.values()
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        source = json.loads(lines[0][2:])
        rows = [
            Prediction(*(kind(value) for kind, value in zip(kinds, row, strict=True)))
            for row in csv.reader(lines[2:])
        ]
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it and repeat evaluation.predict") from error
    return rows, source


class Origin(NamedTuple):
    """What answer sets must have in common for their figures to be compared."""

    protocol: str  # hash
    model: str  # fingerprint of the base model
    judges: str  # fingerprints of both classifiers


def origin(folder: str | Path) -> Origin:
    """Of an answer set with predictions."""
    manifest, (_, source) = read_manifest(folder), read_predictions(folder)
    judges = f"{source['style_classifier']}+{source['object_classifier']}"
    return Origin(manifest["protocol"]["hash"], manifest["model"], judges)
