"""The page of `evaluation.report`: what its template shows"""

import dataclasses
import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.core.record import read_record
from evaluation.drawing.gallery import gallery
from evaluation.drawing.tabs import (
    adversarial,
    finer_scale,
    probes,
    sequential,
    side_effects,
    style_transfer,
    table,
)
from evaluation.protocol import Protocol
from evaluation.reporting import formats
from evaluation.reporting.asked import Asked
from evaluation.reporting.collect import BASE, Result, without_chains
from evaluation.reporting.formats import printed, shown
from evaluation.reporting.matrices import Matrix, interference
from evaluation.reporting.probes import ATTACK
from evaluation.reporting.remarks import STATISTICS, remarks
from evaluation.reporting.rows import by_setting, grouped, main_rows, target_rows, with_differences

WORST = 5  # collateral cells named for each method
MADE_BY = ("seed", "commit", "finished", "device", "data", "versions", "settings")  # shown of a record


def provenance(results: list[Result]) -> dict:
    """Every run's own figures, and what its record says of how it was made."""
    rows = target_rows(results)
    names = [name for name in printed(rows) if name != "CRA_kept"]
    for result, row in zip(results, rows):
        record = {} if result.method == BASE else read_record(result.path)
        for key in MADE_BY:
            value = record.get(key, "-")
            row[key] = value if isinstance(value, str) else json.dumps(value)
        row |= {"base_model": result.origin.model, "judges": result.origin.judges}
        row["path"] = result.path.as_posix()
    return table(rows, [*names, *MADE_BY, "base_model", "judges", "path"])


def images_behind(protocol: Protocol, column: int) -> int:
    """Images in a cell of the matrix; `column` counts themes first, as its columns do."""
    others = protocol.objects if column < len(protocol.themes) else protocol.counted
    return len(others) * len(protocol.seeds)


def panel(matrix: Matrix, protocol: Protocol) -> dict:
    """A matrix's rows of cells: value, images, the base model's value or None, whether it is the target."""
    base = list(matrix.values[0]) if matrix.rows[0] == BASE else [None] * len(matrix.columns)
    rows = []
    for target, values, own in zip(matrix.rows, matrix.values, matrix.marked):
        cells = [
            (value, images_behind(protocol, i), base[i], name in own)
            for i, (name, value) in enumerate(zip(matrix.columns, values))
        ]
        rows.append((target, cells))
    return {"title": matrix.title, "columns": matrix.columns, "split": matrix.split, "rows": rows}


def collateral(label: str, matrix: Matrix) -> list[dict]:
    """The cells, the targets' own aside, that lost most against the base model."""
    if matrix.rows[0] != BASE:
        return []
    lost = matrix.values[0] - matrix.values
    cells = [
        {"method": label, "target": target, "name": name, "lost": lost[y, x], "value": matrix.values[y, x]}
        | {"base": matrix.values[0, x], "domain": "theme" if x < matrix.split else "object"}
        for y, target in enumerate(matrix.rows)
        for x, name in enumerate(matrix.columns)
        if lost[y, x] > 0 and name not in matrix.marked[y]
    ]
    return sorted(cells, key=lambda cell: -cell["lost"])[:WORST]


def render(
    results: list[Result],
    idle: list[Path],
    asked: dict[str, list[Asked]],
    transfer: Path | None = None,
    sheet: Path | None = None,
) -> str:
    """The page; `idle` are runs without predictions, `asked` are attacks and probes by name, `sheet` is the
    probes' picture, `transfer` is of style_transfer.table."""
    main = without_chains(results)
    matrices, groups = interference(main), grouped(main)
    rows = [main_rows(part) for part in by_setting([result for result in main if result.kind != "pair"])]
    tabs = (
        side_effects(results, idle),
        adversarial(asked.get(ATTACK, [])),
        probes(asked, sheet),
        sequential(results, idle),
        finer_scale([result for result in main if result.kind == "pair"]),
        style_transfer(transfer),
    )
    protocols = {result.origin: result.protocol for result in results}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"spoken": shown, "plain": lambda name: name.replace("_", " ")}
    return environment.get_template("report.html.j2").render(
        main=[table(part, printed(part)) for part in rows],
        intervals=[table(with_differences(part), printed(part), intervals=True) for part in rows],
        tabs=[tab for tab in tabs if tab],
        runs=provenance(main + [result for result in results if result.chain]),
        panels={label: panel(matrix, groups[label][0].protocol) for label, matrix in matrices.items()},
        worst=[cell for label, matrix in matrices.items() for cell in collateral(label, matrix)],
        gallery=gallery(main),
        statistics_note=STATISTICS,
        palette=formats,
        remarks=remarks(results, idle, [row for part in rows for row in part]),
        protocols=[(origin, dataclasses.asdict(protocol)) for origin, protocol in protocols.items()],
    )
