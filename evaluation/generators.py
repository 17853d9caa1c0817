"""One table of fine-tuned models, each judged by an answer set: accuracies, FID, KID and CLIP similarities

    python -m evaluation.generators runs/base/answers runs/ip2p/answers

A row reads what evaluation.predict, evaluation.fid and evaluation.clip_score left in the folder; what was not
measured is a dash. Accuracies are unweighted means over styles and over objects, in percent, of the themes
that count in the protocol. Rows of different protocols answer different questions.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean

from evaluation.answers.answer_set import protocol_of
from evaluation.answers.predictions import read_predictions
from evaluation.core.errors import command
from evaluation.core.files import digest
from evaluation.metrics.distances import read_distances
from evaluation.metrics.figures import score

CLIP = "clip.json"  # what evaluation.clip_score leaves
DECIMALS = {"style": 2, "object": 2, "FID": 2, "KID": 4, "text": 4, "photo": 4, "direction": 4}
COLUMNS = ("answers", "images", *DECIMALS, "protocol")


def measured(folder: Path) -> dict:
    """The row of an answer set; raises UserError if it has no predictions."""
    (rows, _), protocol = read_predictions(folder), protocol_of(folder)
    seen = score(rows, protocol, [])["accuracy"]
    styles = [seen["theme"][theme]["value"] for theme in protocol.counted]
    row = {
        "answers": str(folder),
        "images": len(rows),
        "style": 100 * fmean(styles),
        "object": 100 * fmean(each["value"] for each in seen["object"].values()),
        "protocol": f"{protocol.name} ({protocol.hash[:6]})",
    }
    if distances := read_distances(folder, digest([row.sha256 for row in rows])):
        value = distances["values"].get("", {})
        row |= {name: value[name.lower()] for name in ("FID", "KID") if name.lower() in value}
    if (folder / CLIP).exists():
        row |= json.loads((folder / CLIP).read_text())["mean"]
    return row


def markdown(rows: list[dict]) -> str:
    lines = [list(COLUMNS)]
    for row in rows:
        numbers = {name: f"{row[name]:.{places}f}" for name, places in DECIMALS.items() if name in row}
        lines.append([str((row | numbers).get(name, "-")) for name in COLUMNS])
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(text.ljust(width) for text, width in zip(line, widths))} |" for line in lines
    )


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.generators", description="One table of fine-tuned models."
    )
    parser.add_argument("answers", type=Path, nargs="+", help="judged answer sets")
    print(markdown([measured(folder) for folder in parser.parse_args(argv).answers]))


if __name__ == "__main__":
    main()
