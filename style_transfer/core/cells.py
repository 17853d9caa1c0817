"""The rows of a folder of outputs, cell by cell, as they are judged

    judged/{key}/manifest.json              by whom, under which protocol; `key` stands for that
    judged/{key}/{style}/{object}.csv       a row an output, once all outputs of the cell are judged
    judged/{key}/{style}/{object}-part.csv  the same of a cell with faults, which is judged again next time
    judged/{key}/{style}/{object}.npz       features of outputs and references, for FID

Several processes share the cells by claims. A command that is stopped goes on with what is there, and so does
one for more styles or objects. Cells whose outputs were made anew are judged anew.
"""

import gzip
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from evaluation.answers.claims import agree, claimed
from evaluation.core.errors import refused
from evaluation.core.files import atomic, digest
from style_transfer.core.judging import Cell, Judged, Panel

FOLDER = "judged"
WHOLE, PART, FEATURES = ".csv", "-part.csv", ".npz"
UNREADABLE = (OSError, ValueError, EOFError, LookupError)


class Rows(NamedTuple):
    """Of the cells that were asked for, as far as they are judged."""

    table: pd.DataFrame
    outputs: np.ndarray  # features [N,width] for FID
    references: np.ndarray


def open_folder(outputs: Path, identity: dict, **first) -> tuple[Path, dict]:
    """Where rows of this `identity` lie, and its manifest; `first`: what the first process decides."""
    folder = outputs / FOLDER / digest(identity)
    folder.mkdir(parents=True, exist_ok=True)
    return folder, agree(folder, identity, "rows", **first)


def file(folder: Path, cell: Cell, ending: str) -> Path:
    return folder / cell.style / (cell.object + ending)


def newest(cell: Cell) -> int:
    """When the last of its outputs was made, ns."""
    return max((p["output"].stat().st_mtime_ns for p in cell.pairs if p["output"].exists()), default=0)


def done(folder: Path, cell: Cell) -> bool:
    """Whether all outputs are there and were judged since they were made."""
    rows = file(folder, cell, WHOLE)
    there = rows.exists() and all(pair["output"].exists() for pair in cell.pairs)
    return there and newest(cell) <= rows.stat().st_mtime_ns


def judge(folder: Path, cells: list[Cell], panel: Panel, title: str) -> dict[str, str]:
    """Judges the cells that are not done; -> {output: why it has no row}."""
    todo = [(cell.key, cell) for cell in cells if not done(folder, cell)]
    after = dict(zip((key for key, _ in todo), [cell for _, cell in todo[1:]]))
    faults = {}
    count = sum(len(cell.pairs) for _, cell in todo)
    with tqdm(total=count, desc=title, unit="image", disable=None) as bar:
        for claim, cell in claimed(folder, todo, lambda cell: done(folder, cell)):
            panel.begin(cell, *filter(None, [after.get(cell.key)]))
            made = newest(cell)
            judged = panel.judge(cell)
            if claim.held():
                write(folder, cell, judged, made)
            faults |= judged.faults
            bar.update(len(cell.pairs))
    return faults


def write(folder: Path, cell: Cell, judged: Judged, made: int) -> None:
    """The rows last: they say that the cell is judged, and are never older than its outputs, `newest`, were
    before that, whatever clock these are of."""
    with atomic(file(folder, cell, FEATURES)) as temporary, open(temporary, "wb") as target:
        np.savez(target, outputs=judged.outputs, references=judged.references)
    ending, other = (PART, WHOLE) if judged.faults else (WHOLE, PART)
    with atomic(file(folder, cell, ending)) as temporary:
        temporary.write_text(text(pd.DataFrame(judged.rows)))
        stamp = max(made, temporary.stat().st_mtime_ns)
        os.utime(temporary, ns=(stamp, stamp))
    file(folder, cell, other).unlink(missing_ok=True)


def read(folder: Path, cells: list[Cell]) -> Rows:
    """What is judged of the cells, in their order."""
    tables, features = [], {"outputs": [], "references": []}
    for cell in cells:
        rows = next((p for e in (WHOLE, PART) if (p := file(folder, cell, e)).exists()), None)
        if rows is None or not rows.read_text().strip():
            continue
        with refused(f"{rows}: damaged; remove {folder} and judge again", *UNREADABLE):
            tables.append(pd.read_csv(rows))
            with np.load(file(folder, cell, FEATURES)) as arrays:
                for name, parts in features.items():
                    parts.append(arrays[name])
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return Rows(table, *(np.concatenate(parts) if parts else np.empty((0, 0)) for parts in features.values()))


def text(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A compressed CSV file: same rows, same bytes."""
    with atomic(path) as temporary:
        temporary.write_bytes(gzip.compress(text(table).encode(), mtime=0))
