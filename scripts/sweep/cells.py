"""The cells of a sweep, read off their files: what is finished, what is missing, what that will cost

A cell is `ROOT/{method}/{target}`: a run, the base model (`ROOT/base`) or a method of style transfer
(`ROOT/style_transfer/{method}`). Its job's notes are in `ROOT/.sweep/{method}/{target}`.
"""

import json
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from evaluation.answers.predictions import PREDICTIONS
from evaluation.core.record import RECORD
from evaluation.metrics.distances import FID
from evaluation.protocol import Protocol
from scripts.sweep.jobs import SECONDS, last

BASE, TRANSFER, SCORES = "base", "style_transfer", "accuracy.json"


class Cell(NamedTuple):
    root: Path
    method: str
    target: str  # "" for the base model

    def __str__(self) -> str:
        return str(Path(self.method, self.target))

    @property
    def folder(self) -> Path:
        return self.root / self.method / self.target

    @property
    def answers(self) -> Path:
        """Where images appear."""
        return self.folder if self.method == TRANSFER else self.folder / "answers"

    @property
    def notes(self) -> Path:
        return self.root / ".sweep" / self.method / self.target

    @property
    def judged(self) -> bool:
        return (self.answers / PREDICTIONS).exists()

    def missing(self, protocol: Protocol) -> dict[str, float]:
        """Stage -> the share of it that is still to be done; what is finished is left out."""
        ended = (self.notes / SECONDS).exists()
        if self.method == TRANSFER:
            return {} if ended and (self.folder / "manifest.json").exists() else {"transfer": 1.0}
        if (self.answers / SCORES).exists():
            return {}
        left = {} if self.method == BASE or (self.folder / RECORD).exists() else {"train": 1.0}
        if not self.judged:
            made, wanted = sum(1 for _ in images(self.answers)), size(protocol)
            left |= {"sample": 1 - made / wanted} if made < wanted else {}
            left["predict"] = 1.0
        measured = ended or (self.answers / FID).exists()  # without the extractor's weights there is no FID
        # predictions whose images were removed are as far as one gets
        if not measured and (not self.judged or any(images(self.answers))):
            left["fid"] = 1.0
        return left if self.method == BASE else left | {"score": 1.0}


def size(protocol: Protocol) -> int:
    """Images in an answer set."""
    return len(protocol.themes) * len(protocol.objects) * len(protocol.seeds)


def images(folder: Path):
    return (path for path in folder.glob("*") if path.suffix in (".png", ".jpg") and path.name[0] != ".")


def read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


class Costs:
    """Seconds and bytes as the finished cells had them: means of (method, stage), else of a stage."""

    def __init__(self, cells: list[Cell], probed: dict[str, float]):
        """`probed`: "method/stage" -> seconds, for what no cell has finished."""
        seconds, stored, sizes = defaultdict(list), defaultdict(list), []
        for cell in cells:
            if record := read(cell.folder / RECORD):
                seconds[cell.method, "train"].append(sum(record["seconds"].values()))
                stored[cell.method].append(record["stored_bytes"])
            for stage, value in read(cell.notes / SECONDS).items():
                if stage != "train":  # the record has it, also if the job only found it finished
                    seconds[cell.method, stage].append(value)
                    seconds["", stage].append(value)
            sizes += [path.stat().st_size for path in islice(images(cell.answers), 50)]
        self.seconds = {tuple(key.split("/")): value for key, value in probed.items()} | {("", "score"): 1.0}
        self.seconds |= {key: fmean(values) for key, values in seconds.items()}
        self.stored = {method: fmean(values) for method, values in stored.items()}
        self.image = fmean(sizes) if sizes else None

    def hours(self, cell: Cell, missing: dict[str, float]) -> tuple[float, list[str]]:
        """-> hours of what is missing, and the stages of it that nothing is known of."""
        total, unknown = 0.0, []
        for stage, share in missing.items():
            key = (cell.method, stage)
            each = self.seconds.get(key, self.seconds.get(("", stage)))
            if each is None:
                unknown.append(stage)
            total += share * (each or 0) / 3600
        return total, unknown

    def disk(self, cell: Cell, missing: dict[str, float], protocol: Protocol) -> float:
        """Bytes of what is missing, as far as known."""
        pictures = missing.get("sample", 0) * size(protocol) * (self.image or 0)
        return pictures + self.stored.get(cell.method, 0) * ("train" in missing)


def work(missing: dict[str, float]) -> set[str]:
    """The stages that need a job: scores are made here, once the base model is judged."""
    return missing.keys() - {"score"}


def describe(cells: list[Cell], protocol: Protocol, costs: Costs, running: set[Path], at_once: int):
    """-> the plan in lines: one for each method, what failed and its log, hours and disk."""
    left = {cell: cell.missing(protocol) for cell in cells}
    cost = {cell: costs.hours(cell, missing) for cell, missing in left.items()}
    lines = []
    for method in dict.fromkeys(cell.method for cell in cells):
        own = [cell for cell in cells if cell.method == method]
        done, busy = sum(not left[cell] for cell in own), sum(cell.notes in running for cell in own)
        stages = ", ".join(f"{n} to {s}" for s, n in Counter(s for cell in own for s in left[cell]).items())
        hours = sum(cost[cell][0] for cell in own)
        lines.append(
            f"{method:16}{done:4} of {len(own):3} finished,{busy:3} running{hours:9.2f} h   {stages}"
        )
    for cell in cells:
        if work(left[cell]) and cell.notes not in running and (job := last(cell.notes)):
            lines.append(f"{cell}: ended unfinished, is tried again; log {job['log']}")
    hours = sum(each for each, _ in cost.values())
    disk = sum(costs.disk(cell, missing, protocol) for cell, missing in left.items())
    lines.append(
        f"missing: {hours:.2f} hours, {hours / at_once:.2f} with {at_once} at once; {disk / 1e9:.3f} GB"
    )
    if unknown := dict.fromkeys(f"{cell.method} {s}" for cell in cells for s in cost[cell][1]):
        lines.append(f"not counted, since not measured (--probe: training, drawing): {', '.join(unknown)}")
    return lines
