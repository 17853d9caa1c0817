"""The rows of tables: means over targets with their statistics, for a method, a target or a figure

A row is of runs made alike. Runs of one method with another variant, other settings or another training seed
have rows of their own, and the label says what sets them apart.
"""

from collections import Counter, defaultdict

import numpy as np

from evaluation import canvas
from evaluation.core.errors import UserError, closest
from evaluation.metrics import published
from evaluation.metrics.bootstrap import interval
from evaluation.metrics.figures import FIGURES, image_count
from evaluation.reporting.collect import BASE, Result
from evaluation.reporting.formats import COSTS, KINDS, STATISTICS, columns, plain

WORST = 5  # targets named by `method_rows`
DEFAULTS = ("published", "canvas", "mini")  # variants whose row the paper's stands below, the first there is


def grouped(results: list[Result]) -> dict[str, list[Result]]:
    """Label of a row of the main table -> its results."""
    groups = defaultdict(list)
    for result, label in zip(results, labels(results)):
        groups[label].append(result)
    return dict(groups)


def labels(results: list[Result]) -> list[str]:
    """Of every result: the method's name, and whatever else sets its row apart from the others.

    A setting is told where it differs from what most runs of that method, variant and kind of target have;
    of a chain, what its last run itself was asked for.
    """
    kinds = [own_kind(result) for result in results]
    values, settings = defaultdict(set), defaultdict(Counter)
    for result, kind in zip(results, kinds):
        for what in ("variant", "seed"):
            values[result.method, what].add(getattr(result, what))
        for what, value in result.comparable.items():
            values[what].add(value)
        settings[result.method, result.variant, kind][frozenset(result.settings.items())] += 1
    usual = {made: dict(count.most_common(1)[0][0]) for made, count in settings.items()}

    def label(result: Result, kind: str) -> str:
        normal = usual[result.method, result.variant, kind]
        differing = [key for key in normal | result.settings if normal.get(key) != result.settings.get(key)]
        marks = [result.variant] * (len(values[result.method, "variant"]) > 1)
        marks += [f"seed {result.seed}"] * (len(values[result.method, "seed"]) > 1)
        marks += [f"{key}={result.settings.get(key)}" for key in sorted(differing)]
        comparable = result.comparable.items()
        marks += [f"{what} {value[:6]}" for what, value in comparable if len(values[what]) > 1]
        return plain(f"{result.method} ({', '.join(marks)})" if marks else result.method)

    return [label(result, kind) for result, kind in zip(results, kinds)]


def own_kind(result: Result) -> str:
    """Of what the run itself was asked to forget, whatever those before it forgot."""
    targets = canvas.parse_targets(result.requests[-1].target) if result.chain else result.targets
    return targets[0].kind if len(targets) == 1 else "several"


def by_setting(results: list[Result]) -> list[list[Result]]:
    """Styles and objects, then pairs, then several at once, as far as there are any.

    Each is a table of its own: they have other figures, and a mean cost over them would be of nothing.
    """
    kinds = (("style", "object"), ("pair",), ("several",))
    parts = [[result for result in results if result.kind in own] for own in kinds]
    return [part for part in parts if part]


def means(results: list[Result], split: bool = True, figures=FIGURES) -> dict[str, float]:
    """Means over targets, figures in percent; statistics of each follow it, as `_sd` and `_low`, `_high`.

    With `split`, the names of figures begin with the kind of target, and each kind has its number of targets.
    """
    row = {}
    for kind in KINDS:
        chosen = [result for result in results if result.kind == kind]
        prefix = f"{kind}_" if split else ""
        for figure in figures:
            add_mean(row, prefix + figure, [100 * r.seeds[figure] for r in chosen if figure in r.seeds])
        if chosen and split:
            row[f"{kind}_targets"] = len(chosen)
    for cost in COSTS:
        add_mean(row, cost, [[result.costs[cost]] for result in results if cost in result.costs])
    return row


def add_mean(row: dict, name: str, values: list) -> None:
    """`values` [targets, seeds]: a target's own value is the mean over its seeds."""
    if not values:
        return
    table = np.array(values)
    targets = table.mean(1)
    row[name] = rounded(targets.mean())
    if len(targets) > 1:
        row[name + "_sd"] = rounded(targets.std(ddof=1))
        row[name + "_median"] = rounded(np.median(targets))
    if span := interval(table):
        row[name + "_low"], row[name + "_high"] = map(rounded, span)


def rounded(value: float) -> float:
    """To 6 decimals, and never -0.0."""
    return round(float(value), 6) + 0.0


def main_rows(results: list[Result]) -> list[dict]:
    """A row for each group, and a last row with Spearman's correlation between ours and the paper's.

    The paper's row of a method, of styles and objects, stands below ours of such targets, and so does what
    later papers claim. Training seeds have a row each, and below them their mean with its spread over seeds.
    """
    groups, rows, seeds = grouped(results), [], defaultdict(list)
    claims, below = published.claims(), above_paper({label: group[0] for label, group in groups.items()})
    for label, group in groups.items():
        seeds[label.replace(f"seed {group[0].seed}", "\0 seeds")].append(label)
    of_label, last = beside_paper(groups, means, published.published_rows())
    for label in groups:
        rows += of_label[label]
        if any(result.kind in canvas.TASKS for result in groups[label]):
            rows += claims.get(below.get(label), [])
        name, own = next((name, own) for name, own in seeds.items() if label in own)
        if len(own) > 1 and label == own[-1]:
            rows.append(
                mean_of_seeds(name.replace("\0", str(len(own))), [r for r in rows if r["method"] in own])
            )
    return rows + last


def beside_paper(groups: dict, figures, paper: dict[str, dict]) -> tuple[dict[str, list[dict]], list[dict]]:
    """-> label -> a group's row, of `figures(group)`, and the paper's below it if it has one of such targets;
    and the row of their rank correlation, if there are three or more."""
    rows, below = {}, above_paper({label: group[0] for label, group in groups.items()})
    for label, group in groups.items():
        rows[label] = [{"method": label} | figures(group)]
        theirs = paper.get(below.get(label))
        if theirs and any(result.kind in ("style", "object") for result in group):
            rows[label][0] |= published.differences(rows[label][0], theirs)
            rows[label].append(theirs)
    pairs = [pair for pair in rows.values() if len(pair) == 2]
    count = {"method": f"rank correlation ({len(pairs)})"}
    return rows, [count | published.agreement(pairs)] if len(pairs) > 2 else []


def above_paper(results: dict[str, Result]) -> dict[str, str]:
    """Label above the paper's row -> lower-case method; `results` has one of every label.

    It is that of the `published` variant where that was run, else of the default.
    """
    of_method = defaultdict(list)
    for label, result in results.items():
        of_method[result.method].append(label)
    first = lambda label: (rank(results[label]), len(label))  # noqa: E731
    return {min(own, key=first): method.lower() for method, own in of_method.items()}


def rank(result: Result) -> int:
    """The paper's row belongs to the variant of the lowest rank."""
    return DEFAULTS.index(result.variant) if result.variant in DEFAULTS else len(DEFAULTS)


def mean_of_seeds(name: str, rows: list[dict]) -> dict:
    """The mean of the rows of several training seeds, with its spread over them."""
    row = {"method": name}
    for column in columns(rows, statistics=False)[1:]:
        if all(column in of_seed for of_seed in rows) and not column.endswith("_targets"):
            add_mean(row, column, [[of_seed[column]] for of_seed in rows])
    return row


def target_rows(results: list[Result]) -> list[dict]:
    return [
        {"method": label, "target": result.name} | means([result], split=False)
        for result, label in zip(results, labels(results))
    ]


def with_differences(rows: list[dict]) -> list[dict]:
    """The rows, and below every published one a row of ours minus it."""
    result = []
    for before, row in zip([{}, *rows], rows):
        result.append(row)
        if row["method"].endswith(published.MARK):
            gaps = {key[:-5]: f"{value:+.2f}" for key, value in before.items() if key.endswith("_diff")}
            result.append({"method": "  difference"} | gaps)
    return result


def method_rows(name: str, results: list[Result]) -> list[dict]:
    """One row for every figure and cost of a method: its statistics, counts and worst targets."""
    group, rows = find(name, results, "--method"), []
    row = main_rows(group)[0]
    for key in columns([row], statistics=False):
        kind, _, figure = key.partition("_")
        if key in COSTS:
            values = {r: r.costs[key] for r in group if key in r.costs}
        else:
            values = {r: 100 * r.figures[figure] for r in group if r.kind == kind and figure in r.figures}
        if not values:
            continue
        rows.append({"figure": key, "mean": row[key], "targets": len(values)})
        if key not in COSTS:
            rows[-1]["images"] = sum(images_of(result, figure) for result in values)
        rows[-1] |= {what: row[f"{key}_{what}"] for what in STATISTICS if f"{key}_{what}" in row}
        worst = sorted(values, key=values.get, reverse=key in COSTS)[:WORST]
        rows[-1]["worst"] = [f"{result.target} {values[result]:.1f}" for result in worst]
    return rows


def images_of(result: Result, figure: str) -> int:
    """How many images a figure counts, once for each of the targets forgotten at once."""
    return sum(image_count(figure, target, result.targets, result.protocol) for target in result.targets)


def find(name: str, results: list[Result], flag: str) -> list[Result]:
    """The group of that label, or of that method if it is the only one."""
    groups = grouped(results)
    fitting = [label for label, group in groups.items() if name in (label, group[0].method)]
    if len(fitting) != 1:
        raise UserError(f"{flag} {name}: no single row of that name; {closest(name, fitting or groups)}")
    return groups[fitting[0]]


def paired_rows(names: list[str], results: list[Result]) -> list[dict]:
    """Two rows of the main table, a figure a row: their difference over the targets that both forgot.

    Targets and noise are the same for both, so the interval is that of the difference itself.
    """
    ours, theirs = ({r.targets: r for r in find(name, results, "--compare")} for name in names)
    if next(iter(ours.values())).origin != next(iter(theirs.values())).origin:
        raise UserError(f"--compare {' '.join(names)}: of different protocols, models or judges")
    rows = []
    for kind in KINDS:
        shared = [targets for targets, result in ours.items() if targets in theirs and result.kind == kind]
        for figure in FIGURES:
            pairs = [
                [100 * side[targets].seeds[figure] for side in (ours, theirs)]
                for targets in shared
                if figure in ours[targets].seeds
            ]
            if not pairs:
                continue
            table = np.array(pairs)  # [targets, 2, seeds]
            difference = table[:, 0] - table[:, 1]
            low, high = interval(difference) or (None, None)
            first, second = (float(mean) for mean in table.mean((0, 2)))
            rows.append({"figure": f"{kind}_{figure}", names[0]: first, names[1]: second})
            rows[-1] |= {"difference": float(difference.mean()), "low": low, "high": high}
            rows[-1] |= {"targets": len(pairs)}
    if not rows:
        raise UserError(f"--compare {' '.join(names)}: they forgot no target in common")
    return rows


def partly_measured(results: list[Result]) -> list[str]:
    """Which means over a row's runs are of some of them only, in sentences."""
    labels_of = defaultdict(list)
    for label, group in grouped(results).items():
        for cost in COSTS:
            count = sum(cost in result.costs for result in group)
            if 0 < count < len(group):
                labels_of[cost, count, len(group)].append(label)
    return [
        f"{cost} of {count} runs of {total} alone: {', '.join(partial)}."
        for (cost, count, total), partial in labels_of.items()
    ]


def unequal_targets(results: list[Result]) -> list[str]:
    """What a row lacks of the targets that others have, in sentences."""
    groups = {label: group for label, group in grouped(results).items() if group[0].method != BASE}
    sets = {label: {result.target for result in group} for label, group in groups.items()}
    everything = dict.fromkeys(result.target for group in groups.values() for result in group)
    return [
        f"Targets differ: {label} has no {', '.join(t for t in everything if t not in targets)}."
        for label, targets in sets.items()
        if len(targets) < len(everything)
    ]
