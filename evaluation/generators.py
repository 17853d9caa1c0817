"""One table of fine-tuned models, each judged by an answer set: accuracies, FID, KID and CLIP similarities

    python -m evaluation.generators runs/base/answers runs/ip2p/answers

A row reads what evaluation.predict, evaluation.fid and evaluation.clip_score left in the folder; what was not
measured is a dash. Accuracies are unweighted means over styles and over objects, in percent, of the themes
that count in the protocol. Rows of different protocols answer different questions.
"""

import argparse
from pathlib import Path
from statistics import fmean

from evaluation.answers.predictions import JudgedAnswers
from evaluation.core.errors import command
from evaluation.core.files import check_keys, read_json
from evaluation.metrics.distances import read_distances
from evaluation.metrics.figures import accuracy
from evaluation.reporting.formats import markdown

CLIP = "clip.json"  # what evaluation.clip_score leaves
COLUMNS = ("answers", "images", "style", "object", "FID", "KID", "text", "photo", "direction", "protocol")


def row_of(folder: Path) -> dict:
    """The row of an answer set; raises UserError if it has no predictions."""
    answers = JudgedAnswers(folder)
    predictions, protocol = answers.predictions, answers.protocol
    seen = accuracy(predictions, protocol)
    row = {
        "answers": str(folder),
        "images": predictions.sha256.size,
        "style": 100 * fmean(seen["theme"][theme]["value"] for theme in protocol.counted),
        "object": 100 * fmean(right["value"] for right in seen["object"].values()),
        "protocol": f"{protocol.name} ({protocol.hash[:6]})",
    }
    if distances := read_distances(folder, predictions.images):
        values = distances["values"].get("", {})
        row |= {name.upper(): values[name] for name in ("fid", "kid") if name in values}
    if (folder / CLIP).exists():
        mean = read_json(folder / CLIP, mean=dict)["mean"]
        check_keys(folder / CLIP, mean, dict.fromkeys(mean, float))
        row |= {name: f"{value:.4f}" for name, value in mean.items()}
    return row


@command
def main(argv=None):
    parser = argparse.ArgumentParser("python -m evaluation.generators", description="A table of models.")
    parser.add_argument("answers", type=Path, nargs="+", help="judged answer sets")
    print(markdown([row_of(folder) for folder in parser.parse_args(argv).answers], list(COLUMNS)))


if __name__ == "__main__":
    main()
