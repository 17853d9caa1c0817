"""What folders of runs hold: one `Judged` for every run and target, computed from its predictions

{root}/base/answers            the base model's answer set
{root}/{method}/{target}       record.json, and answers/ with predictions and fid.json
"""

import json
from pathlib import Path
from typing import NamedTuple

from evaluation import canvas
from evaluation.answers.answer_set import protocol_of, read_manifest
from evaluation.answers.predictions import PREDICTIONS, Origin, origin, read_predictions
from evaluation.core.errors import UserError
from evaluation.core.record import RECORD, read_record
from evaluation.metrics.distances import FID
from evaluation.metrics.figures import score
from evaluation.protocol import Protocol

BASE = "base"  # the folder, and the method's name in tables, of the model that nothing was unlearned from


class Judged(NamedTuple):
    """One answer set's figures for one target, in [0,1], and its costs; what was not measured is absent."""

    path: Path
    method: str
    variant: str
    target: str
    kind: str  # of target: style, object, pair, or several
    protocol: Protocol
    origin: Origin
    figures: dict[str, float]
    costs: dict[str, float]  # FID, seconds, memory_GB, storage_MB
    extractor: str | None  # of FID


def collect(roots: list[Path], mixed: bool = False) -> tuple[list[Judged], list[Path]]:
    """-> the base model (once for every target of its runs) and the runs; and runs without predictions.

    Raises UserError if `roots` hold no runs, or what must not be compared (`mixed` allows that).
    """
    paths = sorted(path.parent for root in roots for path in root.glob(f"*/*/{RECORD}"))
    if not paths:
        raise UserError(f"{', '.join(map(str, roots))}: no runs; expected METHOD/TARGET/{RECORD} inside")
    done = [path for path in paths if (path / "answers" / PREDICTIONS).exists()]
    bases = [root / BASE for root in roots if (root / BASE / "answers" / PREDICTIONS).exists()]
    origins = {path: origin(path / "answers") for path in [*bases, *done]}
    check_same(origins, mixed)
    runs, judged = [read_run(path) for path in done], {}
    for path in bases:
        for target in dict.fromkeys(run.target for run in runs if run.origin == origins[path]):
            judged[origins[path], target] = judge(path, BASE, "", target, {})
    for run in runs:
        key = (run.method, run.variant, run.target, run.origin)
        if key in judged:
            raise UserError(f"{judged[key].path} and {run.path} are of one method and target; leave one out")
        judged[key] = run
    return list(judged.values()), [path for path in paths if path not in done]


def check_same(origins: dict[Path, Origin], mixed: bool) -> None:
    for path in origins:
        first = next(iter(origins))
        for what, its, ours in zip(Origin._fields, origins[first], origins[path]):
            if ours != its and not mixed:
                raise UserError(
                    f"{first} has {what} {its}, but {path} has {what} {ours}, so their numbers do not "
                    "compare; name other folders, or add --any-protocol, which marks the rows"
                )


def read_run(path: Path) -> Judged:
    record, made_by = read_record(path), read_manifest(path / "answers")["run"] or {}
    for key in ("method", "target", "settings", "seed"):
        if key in made_by and made_by[key] != record[key]:
            raise UserError(
                f"{path}/answers: made by a run of another {key} than {RECORD} says; sample it again"
            )
    costs = {"seconds": sum(record["seconds"].values()), "storage_MB": record["stored_bytes"] / 1e6}
    if record["peak_memory_bytes"]:
        costs["memory_GB"] = record["peak_memory_bytes"] / 1e9
    return judge(path, record["method"], record["variant"], record["target"], costs)


def judge(path: Path, method: str, variant: str, target: str, costs: dict[str, float]) -> Judged:
    """The figures of `path`/answers for a target as typed."""
    answers, targets = path / "answers", canvas.parse_targets(target)
    fid = json.loads((answers / FID).read_text()) if (answers / FID).exists() else None
    return Judged(
        path=path,
        method=method,
        variant=variant,
        target=",".join(map(str, targets)),
        kind=targets[0].kind if len(targets) == 1 else "several",
        protocol=protocol_of(answers),
        origin=origin(answers),
        figures=score_folder(answers, target)["mean"],
        costs=costs | ({"FID": fid["fid"]} if fid else {}),
        extractor=fid["extractor"] if fid else None,
    )


def next_command(path: Path) -> str:
    """What makes the predictions that a run lacks."""
    answers = path / "answers"
    if (answers / "manifest.json").exists():
        return f"python -m evaluation.predict {answers}"
    model = read_record(path)["model_path"]
    return f"python -m machine_unlearning.sample --model {model} --run {path} --protocol NAME --out {answers}"


def score_folder(folder: str | Path, target: str) -> dict:
    """`score` of an answer set on disk, with the target and the judges it was read with."""
    rows, source = read_predictions(folder)
    try:
        result = score(rows, protocol_of(folder), canvas.parse_targets(target))
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    return {"target": target, "judged": source} | result
