"""UA, IRA and CRA of an answer set"""

import argparse
from pathlib import Path
from statistics import fmean

from evaluation.answers.answer_set import protocol_of, read_manifest, target_of
from evaluation.answers.predictions import Origin, origin, read_predictions
from evaluation.core.errors import UserError, command
from evaluation.core.files import write_json
from evaluation.metrics.figures import FIGURES, score
from evaluation.metrics.suspicions import suspicions
from evaluation.reporting.collect import score_folder


def compare(result: dict, folder: str | Path, base: str | Path) -> dict:
    """The base model's row: the same figures of its own answer set, which must be of the same origin.

    Answers that no run of ours made come from a whole model of their own, so theirs may be another.
    """
    if read_manifest(base)["run"] is not None:
        raise UserError(f"--base {base}: answers of an unlearned model; name the base model's answer set")
    foreign = read_manifest(folder)["run"] is None
    for what, ours, its in zip(Origin._fields, origin(folder), origin(base)):
        if ours != its and not (foreign and what == "model"):
            raise UserError(f"--base {base}: has {what} {its}, but {folder} has {ours}; they do not compare")
    return score_folder(base, result["target"])


def summary(result: dict) -> str:
    """The figures of every target in a few lines of text, in percent."""
    protocol = result["protocol"]
    lines = [
        f"{result['target']}: protocol {protocol['name']} ({protocol['hash']}), {result['images']} images"
    ]
    for name, each in result["targets"].items():
        if len(result["targets"]) > 1:
            lines.append(name)
        for figure in FIGURES:
            if not each.get(figure):
                continue
            line = f"  {figure:9}{100 * each[figure]['value']:7.2f} %  of {each[figure]['images']} images"
            if "base" in result:
                line += f"; base model {100 * result['base']['targets'][name][figure]['value']:.2f} %"
            lines.append(line)
        for domain, seen in each["became"].items():
            labels = ", ".join(f"{label} {100 * part:.0f} %" for label, part in seen["seen"].items())
            lines.append(f"  its {domain} is seen as {labels}; unsure {100 * seen['unsure']:.0f} %")
    return "\n".join(lines)


def accuracies(result: dict) -> str:
    """How well every theme and every object of an answer set is recognised, in percent."""
    lines = []
    for domain, each in result["accuracy"].items():
        shares = {name: 100 * figure["value"] for name, figure in each.items()}
        lines.append(f"{domain} accuracy {fmean(shares.values()):.1f} %, lowest {min(shares.values()):.1f} %")
        lines += [f"  {name:24}{share:6.1f} %" for name, share in shares.items()]
    return "\n".join(lines)


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.accuracy", description="UA, IRA and CRA of an answer set."
    )
    parser.add_argument("answers", type=Path, help="folder with manifest.json and predictions.csv.gz")
    parser.add_argument(
        "--target",
        help="style, object, pair Sketch+Cats, or several with commas (default: the run's, if any)",
    )
    parser.add_argument("--base", type=Path, help="answer set of the base model, to compare with")
    args = parser.parse_args(argv)
    target = target_of(args.answers, args.target)
    (rows, _), base_rows = read_predictions(args.answers), None
    if target is None:  # the base model: nothing was forgotten
        result = score(rows, protocol_of(args.answers), [])
        print(accuracies(result))
    else:
        result = score_folder(args.answers, target)
        if args.base:
            result["base"] = compare(result, args.answers, args.base)
            base_rows, _ = read_predictions(args.base)
        write_json(args.answers / "accuracy.json", result)
        print(summary(result))
    for sentence in suspicions(rows, result, base_rows):
        print(f"note: {sentence}")


if __name__ == "__main__":
    main()
