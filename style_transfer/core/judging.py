"""What the judges say of the outputs of a cell, that is of one style and one object

Images are read ahead while the judges are at the cell before. Ground truths, photos and references are
encoded once for all outputs of a cell. An output that is missing or cannot be read is a fault with a reason,
and the others are judged.
"""

import math
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils._pytree import tree_map

from evaluation.core.errors import UserError
from evaluation.data.pictures import read_picture, square
from evaluation.judges.classifier import preprocess
from style_transfer.core.judges import ROLES, Judge
from style_transfer.core.networks import take
from style_transfer.core.pairs import Benchmark


class Cell(NamedTuple):
    style: str
    object: str
    pairs: list[dict]  # role -> the path of the output, or the row of an image of the data set

    @property
    def key(self) -> str:
        return f"{self.style}_{self.object}"


class Judged(NamedTuple):
    """Of a cell. `outputs` and `references`: features [N,width] for FID, [0,0] where no judge has any."""

    rows: list[dict]
    faults: dict[str, str]  # output -> why it has no row
    outputs: np.ndarray
    references: np.ndarray


def cells(folder: Path, pairs: Benchmark) -> list[Cell]:
    """All styles of an object before the next object, whose photos are kept."""

    def pair(content, reference) -> dict:
        path, truth = pairs.path(content, reference), content._replace(theme=reference.theme)
        return {"output": folder / path, "truth": truth, "photo": content, "reference": reference}

    return [
        Cell(style, obj, [
            pair(content, reference)
            for content in pairs.protocol.rows_of_contents(obj)
            for reference in pairs.protocol.rows_of_references(style, obj)
        ])
        for obj in pairs.objects
        for style in pairs.styles
    ]  # fmt: skip


class Panel:
    """Judges on a device, in a precision, and the images that they see, `batch` at once: central squares at
    the protocol's size, of outputs (paths) and of the data set (rows)."""

    def __init__(self, judges: list[Judge], pairs: Benchmark, pool: Executor, device, dtype, batch: int):
        self.judges, self.pairs, self.pool = judges, pairs, pool
        self.device, self.dtype, self.batch = device, dtype, batch
        self.roles = [role for role in ROLES if any(role in judge.encode for judge in judges)]
        self.photos = (), []  # of the last object: names and features
        self.reading = {}

    def names(self, cell: Cell) -> list:
        """Of all its images, each once."""
        return list(dict.fromkeys(pair[role] for pair in cell.pairs for role in self.roles))

    def begin(self, *cells: Cell) -> None:
        """Starts to read their images, of the cell that is judged next and of those after it."""
        names = dict.fromkeys(name for cell in cells for name in self.names(cell))
        self.reading = {name: self.reading.get(name) or self.pool.submit(self._read, name) for name in names}

    def _read(self, name) -> dict[int, torch.Tensor]:
        """By pixels of a side, as the judges take it: uint8 [3,size,size]."""
        if isinstance(name, Path):
            picture = square(read_picture(name), self.pairs.size)
        else:
            picture = self.pairs.read(name)
        return {size: preprocess(picture, size) for size in {judge.size for judge in self.judges}}

    @torch.inference_mode()
    def judge(self, cell: Cell) -> Judged:
        """After `begin` with this cell."""
        images, unreadable, faults, pairs = {}, {}, {}, []
        for name in self.names(cell):
            try:
                images[name] = self.reading.pop(name).result()
            except UserError as error:
                unreadable[name] = str(error)
        for pair in cell.pairs:
            reason = next((unreadable[pair[role]] for role in self.roles if pair[role] in unreadable), None)
            if reason:
                faults[str(pair["output"])] = reason
            else:
                pairs.append(pair)
        names = {role: list(dict.fromkeys(pair[role] for pair in pairs)) for role in self.roles[1:]}
        others = {role: self._encode(role, names[role], images) for role in names}
        rows, features = [], []
        for part in batches(pairs, self.batch):
            outputs = self._encode("output", [pair["output"] for pair in part], images)
            places = {role: [names[role].index(pair[role]) for pair in part] for role in names}
            columns = self._compare(outputs, others, places)
            features.append(self._frechet(outputs))
            for i, pair in enumerate(part):
                row = {name: column[i] for name, column in columns.items()}
                if odd := [name for name, v in row.items() if isinstance(v, float) and not math.isfinite(v)]:
                    reason = f"its {odd[0]} is {row[odd[0]]}; look at the files of the judges"
                    faults[str(pair["output"])] = f"{pair['output']}: {reason}"
                    continue
                photo, reference = pair["photo"], pair["reference"]
                about = {"style": cell.style, "object": cell.object}
                rows.append(about | {"content": photo.index, "reference": reference.index} | row)
        references = self._frechet(others["reference"]) if pairs and "reference" in others else None
        return Judged(rows, faults, stacked(features), stacked([references]))

    def _encode(self, role: str, names: list, images: dict) -> list:
        """Features of every judge; None of one that does not look at this role."""
        if role == "photo" and self.photos[0] == names:
            return self.photos[1]
        features = []
        for judge in self.judges:
            if role not in judge.encode or not names:
                features.append(None)
                continue
            parts = []
            for part in batches(names, self.batch):
                pixels = torch.stack([images[name][judge.size] for name in part]).to(self.device)
                parts.append(judge.encode[role](pixels.float().div(255).to(self.dtype)))
            features.append(tree_map(lambda *tensors: torch.cat(tensors), *parts))
        if role == "photo":
            self.photos = names, features
        return features

    def _compare(self, outputs: list, others: dict[str, list], places: dict[str, list[int]]) -> dict:
        """{column: values of the outputs}, of all judges."""
        columns = {}
        for number, judge in enumerate(self.judges):
            seen = [role for role in others if role in judge.encode]
            chosen = {role: take(others[role][number], places[role]) for role in seen}
            columns |= judge.compare(output=outputs[number], **chosen)
        return {name: c.float().tolist() if torch.is_tensor(c) else c for name, c in columns.items()}

    def _frechet(self, features: list) -> np.ndarray | None:
        parts = [judge.frechet(f) for judge, f in zip(self.judges, features) if judge.frechet]
        return torch.cat(parts, dim=1).float().cpu().numpy() if parts else None


def batches(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def stacked(parts: list) -> np.ndarray:
    """Features of all parts that there are."""
    return np.concatenate([part for part in parts if part is not None] or [np.empty((0, 0), np.float32)])
