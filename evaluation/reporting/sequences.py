"""The sequential setting: requests that came in turn, what the last model forgot and kept, and what came back

    UA[j, i]  of request T_j after T_i, j <= i (a triangle)
    SR[i]     what is kept after T_i: of styles and objects the mean of IRA and CRA, of pairs FR
    SU = mean over j of UA[j, n],  SR = SR[n],  rebound = UA[1, n] - UA[1, 1]: below zero, T_1 came back

(UnlearnCanvas, sequential unlearning.) None of what was forgotten until then counts as kept.

A chain is a run that went on from others; those others, where they were judged, are its rows before the last.
Orders of the same requests make one row, their mean, as far as they were trained alike.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from evaluation import canvas
from evaluation.metrics import published
from evaluation.metrics.figures import by_seed
from evaluation.reporting.collect import BASE, Result
from evaluation.reporting.rows import above_paper, add_mean, labels

HEADS = ("SU", "SR", "rebound", "at_once_UA", "at_once_SR", "seconds")  # of a row, before its orders


class Chain(NamedTuple):
    label: str  # of its rows
    runs: tuple[Result | None, ...]  # after T_1, ..., T_n; None where there is no judged run

    @property
    def last(self) -> Result:
        return self.runs[-1]

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(request.target for request in self.last.requests)


class Triangle(NamedTuple):
    """Percent; NaN where there is nothing."""

    forgotten: np.ndarray  # [requests, requests, seeds]: UA of the first axis' request after the second's
    kept: np.ndarray  # [requests, seeds]: SR


def chains(results: list[Result]) -> list[Chain]:
    """Those that no other run went on from; a run belongs to all that did."""
    runs = [(label, result) for label, result in zip(labels(results), results) if result.method != BASE]
    known = {(label, result.requests): result for label, result in runs}
    inner = {(label, requests[:count]) for label, requests in known for count in range(1, len(requests))}
    return [
        Chain(label, tuple(known.get((label, asked[: count + 1])) for count in range(len(asked))))
        for label, asked in known
        if len(asked) > 1 and (label, asked) not in inner
    ]


def forgetting(result: Result, request: str) -> np.ndarray:
    """UA of a request, a mean over its targets: [seeds], percent."""
    shared = result.targets, result.predictions, result.protocol
    return 100 * np.mean([by_seed("UA", t, *shared) for t in canvas.parse_targets(request)], 0)


def retention(result: Result) -> np.ndarray:
    """SR, a mean over targets: [seeds], percent; NaN if nothing is left to keep."""
    shared, values = (result.targets, result.predictions, result.protocol), []
    for target in result.targets:
        figures = [by_seed(name, target, *shared) for name in ("IRA", "CRA", "FR")]
        if figures := [figure for figure in figures if figure is not None]:
            values.append(np.mean(figures, 0))
    return 100 * np.mean(values, 0) if values else np.full(len(result.protocol.seeds), np.nan)


def triangle(chain: Chain) -> Triangle:
    count, seeds = len(chain.runs), len(chain.last.protocol.seeds)
    forgotten, kept = np.full((count, count, seeds), np.nan), np.full((count, seeds), np.nan)
    for i, run in enumerate(chain.runs):
        if run:
            kept[i] = retention(run)
            forgotten[: i + 1, i] = [forgetting(run, request) for request in chain.order[: i + 1]]
    return Triangle(forgotten, kept)


def orders(found: list[Chain]) -> dict[tuple[str, ...], int]:
    """Every order of requests -> its number, from 1."""
    return {order: number for number, order in enumerate(dict.fromkeys(c.order for c in found), 1)}


def sequence_rows(results: list[Result]) -> tuple[list[dict], list[str]]:
    """A row for runs made alike and the same requests: the mean over their orders, then every order's own.

    -> rows, and the names of their columns.
    """
    found = chains(results)
    numbers, groups, rows = orders(found), defaultdict(list), []
    for chain in found:
        groups[chain.label, frozenset(chain.order)].append(chain)
    for label in labels_of(found):
        for group in (group for (own, _), group in groups.items() if own == label):
            count = {"method": label, "requests": len(group[0].order)}
            rows.append(count | at_the_end(group, results, numbers))
    names = [f"order{number}_{figure}" for number in numbers.values() for figure in ("SU", "SR")]
    rows = with_bases(found, results) + with_paper(rows, above_paper(labels_of(found)))
    return rows, ["method", "requests", *HEADS, *names]


def labels_of(found: list[Chain]) -> dict[str, Result]:
    """Every label once, with a run of it."""
    return {chain.label: chain.last for chain in found}


def at_the_end(group: list[Chain], results: list[Result], numbers: dict) -> dict:
    """Figures after the last request of chains of the same requests."""
    row, triangles = {}, [triangle(chain) for chain in group]
    add(row, "SU", [forgotten[:, -1].mean(0) for forgotten, _ in triangles])
    add(row, "SR", [kept[-1] for _, kept in triangles])
    add(row, "rebound", [forgotten[0, -1] - forgotten[0, 0] for forgotten, _ in triangles])
    if together := at_once(group[0], results):
        add(row, "at_once_UA", [100 * together.seeds["UA"]])
        add(row, "at_once_SR", [retention(together)])
    costs = [[run.costs.get("seconds", np.nan) if run else np.nan for run in chain.runs] for chain in group]
    add(row, "seconds", [[sum(seconds)] for seconds in costs])
    for chain, (forgotten, kept) in zip(group, triangles):
        add(row, f"order{numbers[chain.order]}_SU", forgotten[:, -1])
        add(row, f"order{numbers[chain.order]}_SR", kept[-1:])
    return row


def add(row: dict, name: str, values) -> None:
    """`add_mean` of [orders or requests, seeds], those without a value left out."""
    add_mean(row, name, [line for line in values if not np.isnan(line).any()])


def at_once(chain: Chain, results: list[Result]) -> Result | None:
    """The run that forgot the same targets together."""
    for label, result in zip(labels(results), results):
        same = label == chain.label and set(result.targets) == set(chain.last.targets)
        if same and not result.chain and result.method != BASE:
            return result
    return None


def with_bases(found: list[Chain], results: list[Result]) -> list[dict]:
    """A row of the base model for every set of requests."""
    rows = {}
    for label, base in zip(labels(results), results):
        for chain in found if base.method == BASE else ():
            key = label, frozenset(chain.order)
            if (base.targets, base.origin) == (chain.last.targets, chain.last.origin) and key not in rows:
                rows[key] = row = {"method": label, "requests": len(chain.order)}
                add(row, "SU", [np.mean([forgetting(base, request) for request in chain.order], 0)])
                add(row, "SR", [retention(base)])
    return list(rows.values())


def with_paper(rows: list[dict], below: dict[str, str]) -> list[dict]:
    """The paper's row below the last of the label that `below` names it for."""
    last, paper, result = {row["method"]: row for row in rows}, published.sequences(), []
    for row in rows:
        result.append(row)
        theirs = paper.get(below.get(row["method"]))
        if theirs and row is last[row["method"]]:
            name, forgotten, kept = theirs
            figures = {"SU": forgotten[:, -1].mean(), "SR": kept[-1]}
            figures["rebound"] = forgotten[0, -1] - forgotten[0, 0]
            figures = {key: round(float(value), 6) for key, value in figures.items()}
            result.append({"method": name, "requests": len(kept)} | figures)
            row |= published.differences(row, figures)
    return result


def triangle_rows(results: list[Result]) -> tuple[list[dict], list[str]]:
    """A row for every chain and request, its UA after each request, and one for SR; below them the paper's.

    -> rows, and the names of their columns.
    """
    found, rows, paper = chains(results), [], published.sequences()
    numbers, below = orders(found), above_paper(labels_of(found))
    for label in labels_of(found):
        for chain in (chain for chain in found if chain.label == label):
            names = {"method": label, "order": numbers[chain.order]}
            rows += lines_of(names, [f"UA of {request}" for request in chain.order], *triangle(chain))
        if theirs := paper.get(below.get(label)):
            name, forgotten, kept = theirs
            figures = [f"UA of T{number + 1}" for number in range(len(kept))]
            rows += lines_of({"method": name}, figures, forgotten[..., None], kept[:, None])
    most = max(map(len, [*(chain.runs for chain in found), *(kept for _, _, kept in paper.values())]))
    return rows, ["method", "order", "figure", *(f"after_T{number + 1}" for number in range(most))]


def lines_of(names: dict, figures: list[str], forgotten: np.ndarray, kept: np.ndarray) -> list[dict]:
    rows = []
    for figure, values in zip([*figures, "SR"], [*forgotten, kept]):
        rows.append(names | {"figure": figure})
        for number, seeds in enumerate(values, 1):
            add(rows[-1], f"after_T{number}", [seeds])
    return rows
