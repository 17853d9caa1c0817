"""What must be known to read a table: where its numbers are from, what they lack, what looks like a fault"""

from pathlib import Path

from evaluation.metrics.bootstrap import LEVEL
from evaluation.metrics.distances import WEIGHTS
from evaluation.metrics.published import CLAIM, CLAIMED, MARK
from evaluation.metrics.suspicions import suspicions
from evaluation.reporting.collect import BASE, FOREIGN, Result, next_command, without_chains
from evaluation.reporting.rows import labels, partly_measured, unequal_targets
from evaluation.reporting.sequences import chains, orders

INTERVAL = f"[low, high]: {LEVEL} % bootstrap interval"
STATISTICS = f"{INTERVAL} over targets and seeds; difference: ours - published."
PAIRED = f"{INTERVAL} of the difference over targets and seeds, the same for both."
SEQUENTIAL = (
    "SU: mean UA of the requests, after the last. SR: what is kept then, of styles and objects the mean of "
    "IRA and CRA, of pairs that of SC, OC and UP. rebound: UA of the first request after the last, minus "
    "that after itself; below zero, it came back. at once: a run that forgot the same together. seconds: of "
    "all runs in a chain. ±: over orders; of an order, over its requests. The paper's SR is its RA."
)


def remarks(results: list[Result], idle: list[Path], table: list[dict]) -> list[str]:
    """What must be known to read the main table, or that of single targets; `results` may have chains."""
    lines, left_out = origins(results, table), in_turn(results)
    results = without_chains(results)
    lines += unequal_targets(results)
    if foreign := sorted({result.method for result in results if result.variant == FOREIGN}):
        lines.append(f"Made elsewhere, from the base model as far as is known: {', '.join(foreign)}.")
    lines += distances(results) + partly_measured(results)
    return lines + not_judged(idle) + left_out + suspicious(results)


def sequence_remarks(results: list[Result], idle: list[Path], table: list[dict]) -> list[str]:
    """What must be known to read a table of runs that went on from others."""
    found, lines = chains(results), [*origins(results, table), SEQUENTIAL]
    numbers = orders(found)
    lines += [f"Order {number}: {', then '.join(order)}." for order, number in numbers.items()]
    for chain in found:
        lacking = [number for number, run in enumerate(chain.runs, 1) if run is None]
        if lacking:
            after = ", ".join(f"T{number} ({chain.order[number - 1]})" for number in lacking)
            lines.append(f"No judged run: {chain.label}, order {numbers[chain.order]}, after {after}.")
    bases = [result for result in results if result.method == BASE]
    return lines + not_judged(idle) + suspicious(bases + [chain.last for chain in found])


def origins(results: list[Result], table: list[dict]) -> list[str]:
    """Where the numbers are from."""
    lines = []
    for name, origin in dict.fromkeys((result.protocol.name, result.origin) for result in results):
        lines.append(
            f"Protocol {name} ({origin.protocol}), base model {origin.model}, judges {origin.judges}."
        )
        if not any(result.method == BASE and result.origin == origin for result in results):
            lines.append(f"No row of the base model: ROOT/{BASE}/answers has no such predictions.")
    if any(row["method"].endswith(MARK) for row in table):
        lines.append(
            f"{MARK}: the paper's numbers. Protocol and model differ: for orientation, not comparison."
        )
    if any(row["method"].endswith(CLAIM) for row in table):
        where = f"evaluation/metrics/{CLAIMED.name}"
        lines.append(f"{CLAIM}: each measured in a way of its own, told in {where}: no two of them compare.")
    return lines


def not_judged(idle: list[Path]) -> list[str]:
    return [f"not judged: {path}; {next_command(path)}" for path in idle]


def in_turn(results: list[Result]) -> list[str]:
    """How many runs a table of those that started from the base model leaves out."""
    count = sum(result.chain for result in results)
    where = "runs that went on from another; see evaluation.tables --sequential."
    return [f"Not above: {count} {where}"] * bool(count)


def distances(results: list[Result]) -> list[str]:
    """What FID and KID are of, and where they were not measured."""
    lines, measured = [], [result for result in results if result.reference]
    for extractor in sorted({result.reference["extractor"] for result in measured}):
        lines.append(f"FID and KID are those of the {extractor} extractor; other extractors' do not compare.")
    for data in sorted({result.reference["data"] for result in measured if result.reference.get("prepared")}):
        lines.append(f"FID and KID are of {data}, a prepared copy of the data set; the originals' differ.")
    for name in sorted({result.protocol.fid_extractor for result in results if not result.reference}):
        without = {r.path for r in results if not r.reference and r.protocol.fid_extractor == name}
        some = f" for {len(without)} answer sets" if measured else ""
        needed = [file for file in WEIGHTS[name] if not Path(file).exists()]
        remedy = f"needs {' and '.join(needed)}" if needed else "run python -m evaluation.fid"
        lines.append(f"FID not measured{some} ({remedy})")
    return lines


def suspicious(results: list[Result]) -> list[str]:
    """What looks like a fault rather than a finding, run by run; of the base model it is said once."""
    bases, lines = {}, []
    for result, label in zip(results, labels(results)):
        if result.method == BASE:
            if result.origin in bases:
                continue
            bases[result.origin] = result.predictions
            name, sentences = label, suspicions(result.predictions, result.protocol)
        else:
            base = bases.get(result.origin)
            name = f"{label}/{result.name}"
            sentences = suspicions(result.predictions, result.protocol, result.targets, base)
        lines += [f"suspicious: {name}: {sentence}" for sentence in sentences]
    return lines
