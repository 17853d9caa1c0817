"""What two classifiers say of every image of an answer set: `predictions.csv.gz`, a row an image

Written as rows, read as arrays over the grid [seeds, themes, objects]: every figure is arithmetic on them.
"""

import contextlib
import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import csv as arrow_csv

from evaluation import canvas
from evaluation.answers.answer_set import Cell, grid, protocol_of, read_manifest
from evaluation.canvas import answer_name
from evaluation.core.errors import UserError, brief
from evaluation.core.files import atomic, check_keys, digest
from evaluation.protocol import Protocol

PREDICTIONS = "predictions.csv.gz"
DOMAINS = ("theme", "object")
# labels of judges whose file does not state them
KNOWN = {"theme": [*canvas.THEMES, *canvas.UNUSED_STYLES], "object": canvas.OBJECTS}
SOURCE = {"protocol": dict, "model": str | None, "run": dict | None}
SOURCE |= {"style_classifier": str, "object_classifier": str}
UNREADABLE = (gzip.BadGzipFile, EOFError, zlib.error, ValueError, RecursionError, pa.ArrowException)
UNREADABLE += (LookupError, TypeError)
LARGEST = 1 << 26  # bytes of a file, unpacked: half a million rows


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


def prediction_of(texts: list[str]) -> Prediction:
    """The row that was written so; raises ValueError, also for what no judge says and for no hash."""
    kinds = Prediction.__annotations__.values()
    row = Prediction(*(kind(text) for kind, text in zip(kinds, texts, strict=True)))
    if odd := [value for value in row if isinstance(value, float) and not 0 <= value <= 1]:
        raise ValueError(f"{odd[0]} is no probability in [0,1]")
    for domain in DOMAINS:
        if (seen := getattr(row, f"{domain}_seen")) not in KNOWN[domain]:
            raise ValueError(f"{seen!r:.60} is no label of the judges")
    if not re.fullmatch("([0-9a-f]{16})?", row.sha256):
        raise ValueError("sha256 is not of 16 digits")
    return row


class Labels(NamedTuple):
    """What one classifier sees, beside what was asked for; arrays are [seeds, themes, objects]."""

    names: list[str]  # the protocol's themes or objects, then whatever else was seen
    asked: np.ndarray  # numbers of names
    seen: np.ndarray
    prob: np.ndarray  # float32: of the name asked for
    seen_prob: np.ndarray  # of the name seen

    @property
    def right(self) -> np.ndarray:
        return self.asked == self.seen


class Predictions(NamedTuple):
    """Both classifiers on a whole answer set."""

    theme: Labels
    object: Labels
    sha256: np.ndarray  # [seeds, themes, objects], 16 bytes: of the image files

    def labels(self, domain: str) -> Labels:
        """`domain` is "theme" or "object"."""
        return getattr(self, domain)

    @property
    def images(self) -> str:
        """Stands for the image files, in the order of the grid."""
        return digest([sha.decode() for sha in self.sha256.flat])


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


def summary(rows: list[Prediction]) -> str:
    style, shape = (fmean(getattr(row, d) == getattr(row, f"{d}_seen") for row in rows) for d in DOMAINS)
    return f"{len(rows)} images; asked style seen in {style:.1%}, object in {shape:.1%}"


@contextlib.contextmanager
def opened(folder: str | Path):
    """The file of predictions, as bytes; a UserError if there is none, or for what reading it raises."""
    path = Path(folder) / PREDICTIONS
    if not path.exists():
        raise UserError(f"{folder}: no {PREDICTIONS}; make it with: python -m evaluation.predict {folder}")
    try:
        with gzip.open(path) as file:
            yield file
    except UNREADABLE as error:
        raise UserError(
            f"{path}: damaged ({brief(error)}); remove it and repeat evaluation.predict"
        ) from error


def read_source(folder: str | Path) -> dict:
    """The first line of the predictions: what was judged, and by whom; without the judges' labels."""
    with opened(folder) as file:
        source = source_in(file)
    source.pop("labels", None)
    return source


def source_in(file) -> dict:
    if not isinstance(source := json.loads(file.readline(LARGEST)[2:]), dict):
        raise ValueError("its first line does not say what was judged")
    return source


def read_table(folder: str | Path) -> pa.Table:
    """All rows, a column for every field of `Prediction`; probabilities are float32 in [0,1], labels those of
    the judges."""
    kinds = {str: pa.dictionary(pa.int32(), pa.string()), int: pa.int64(), float: pa.float32()}
    types = {name: kinds[kind] for name, kind in Prediction.__annotations__.items()} | {"sha256": pa.string()}
    how = arrow_csv.ReadOptions(use_threads=False)
    what = arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=False)
    with opened(folder) as file:
        labels = source_in(file).get("labels", KNOWN)
        if len(rows := file.read(LARGEST)) == LARGEST:
            raise ValueError("longer than the predictions of any answer set")
        table = arrow_csv.read_csv(pa.py_buffer(rows), how, convert_options=what)
        if table.column_names != list(types) or any(column.null_count for column in table.columns):
            raise ValueError("not the columns of a file of predictions, or empty cells in them")
        for name in (name for name, kind in Prediction.__annotations__.items() if kind is float):
            if not ((probs := table[name].to_numpy()) >= 0).all() or (probs > 1).any():
                raise ValueError(f"{name} is no probability in [0,1]")
        for domain in DOMAINS:
            if odd := {*table[f"{domain}_seen"].unique().to_pylist()} - {*labels[domain]}:
                raise ValueError(f"{min(odd)!r:.60} is no label of the judges")
        if not pc.all(pc.match_substring_regex(table["sha256"], "^[0-9a-f]{16}$")).as_py():
            raise ValueError("sha256 is not of 16 digits")
    return table


def read_predictions(folder: str | Path) -> tuple[list[Prediction], dict]:
    """-> rows, source."""
    return [Prediction(**row) for row in read_table(folder).to_pylist()], read_source(folder)


def arrays(table: pa.Table, protocol: Protocol, where: str = "") -> Predictions:
    """Rows in any order -> arrays over the grid; a UserError (`where` begins it) unless they are that."""
    table = table.unify_dictionaries()
    shape = len(protocol.seeds), len(protocol.themes), len(protocol.objects)
    axes = np.broadcast_arrays(*np.meshgrid(*map(np.arange, shape), indexing="ij", sparse=True))
    asked = dict(zip(("seed", *DOMAINS), axes))
    names = {"theme": protocol.themes, "object": protocol.objects}
    in_order = len(table) == asked["seed"].size and (
        (table["seed"].to_numpy() == np.array(protocol.seeds)[asked["seed"].ravel()]).all()
        and all((numbers(table[domain], names[domain]) == asked[domain].ravel()).all() for domain in DOMAINS)
    )
    if not in_order:
        table = sorted_rows(table, protocol, where)

    def labels(domain: str) -> Labels:
        column = table[f"{domain}_seen"]
        known = [*names[domain], *sorted({*column.unique().to_pylist()} - {*names[domain]})]
        probs = (table[f"{domain}{suffix}"].to_numpy().reshape(shape) for suffix in ("_prob", "_seen_prob"))
        return Labels(known, asked[domain].astype(np.int16), numbers(column, known).reshape(shape), *probs)

    files = np.array(table["sha256"].to_pylist(), "S16").reshape(shape)
    return Predictions(labels("theme"), labels("object"), files)


def numbers(column: pa.ChunkedArray, names) -> np.ndarray:
    """Places of a column's texts in `names`, int16; -1 for others."""
    column = column.combine_chunks()
    place = {name: i for i, name in enumerate(names)}
    codes = np.array([place.get(text, -1) for text in column.dictionary.to_pylist()], np.int16)
    return codes[column.indices.to_numpy()]


def sorted_rows(table: pa.Table, protocol: Protocol, where: str) -> pa.Table:
    """The rows as the grid has them; a UserError names the first that is missing, doubled or unknown."""
    wanted = grid(protocol)
    cells = list(map(Cell, *(table[name].to_pylist() for name in Cell._fields)))
    count, known = Counter(cells), set(wanted)
    faults = {
        "is judged twice": [cell for cell, times in count.items() if times > 1],
        "has no prediction": [cell for cell in wanted if cell not in count],
        "does not belong to the protocol": [cell for cell in count if cell not in known],
    }
    for fault, at_fault in faults.items():
        if at_fault:
            raise UserError(
                f"{where}predictions: {answer_name(*at_fault[0])} {fault} ({len(at_fault)} such; "
                f"{len(wanted)} images in protocol {protocol.name}); complete the answer set and repeat "
                "evaluation.predict"
            )
    place = {cell: row for row, cell in enumerate(cells)}
    return table.take([place[cell] for cell in wanted])


class Origin(NamedTuple):
    """What answer sets must have in common for their figures to be compared."""

    protocol: str  # hash
    model: str | None  # fingerprint of the base model
    judges: str  # fingerprints of both classifiers


class JudgedAnswers:
    """An answer set with predictions: its manifest at once, the predictions when they are asked for.

    Raises UserError if the predictions are of another model, run or protocol than the manifest states.
    """

    def __init__(self, folder: str | Path):
        self.folder, self.manifest, self.source = Path(folder), read_manifest(folder), read_source(folder)
        self.protocol = protocol_of(folder)
        check_keys(self.folder / PREDICTIONS, self.source, SOURCE)
        for key in ("protocol", "model", "run"):
            judged, stated = (content[key] for content in (self.source, self.manifest))
            if key == "protocol":
                judged, stated = judged.get("hash"), self.protocol.hash
            if judged != stated:
                raise UserError(
                    f"{folder}: its predictions are of another {key} than its manifest.json states; "
                    f"judge it again: python -m evaluation.predict {folder}"
                )

    @property
    def origin(self) -> Origin:
        judges = f"{self.source['style_classifier']}+{self.source['object_classifier']}"
        return Origin(self.protocol.hash, self.manifest["model"], judges)

    @cached_property
    def predictions(self) -> Predictions:
        return arrays(read_table(self.folder), self.protocol, f"{self.folder}: ")
