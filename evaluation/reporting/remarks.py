"""What must be known to read a table: where its numbers are from, what they lack, what looks like a fault"""

from pathlib import Path

from evaluation.metrics.bootstrap import LEVEL
from evaluation.metrics.distances import WEIGHTS
from evaluation.metrics.published import MARK
from evaluation.metrics.suspicions import suspicions
from evaluation.reporting.collect import BASE, FOREIGN, Result, next_command
from evaluation.reporting.rows import labels, unequal_targets

INTERVAL = f"[low, high]: {LEVEL} % bootstrap interval"
STATISTICS = f"{INTERVAL} over targets and seeds; difference: ours - published."
PAIRED = f"{INTERVAL} of the difference over targets and seeds, the same for both."


def remarks(results: list[Result], idle: list[Path], table: list[dict]) -> list[str]:
    """What must be known to read the table."""
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
    lines += unequal_targets(results)
    if foreign := sorted({result.method for result in results if result.variant == FOREIGN}):
        lines.append(f"Made elsewhere, from the base model as far as is known: {', '.join(foreign)}.")
    lines += distances(results)
    lines += [f"not judged: {path}; {next_command(path)}" for path in idle]
    return lines + suspicious(results)


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
            name = f"{label}/{result.target}"
            sentences = suspicions(result.predictions, result.protocol, result.targets, base)
        lines += [f"suspicious: {name}: {sentence}" for sentence in sentences]
    return lines
