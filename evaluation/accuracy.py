"""UA, IRA and CRA of one answer set, beside the base model's

    python -m evaluation.accuracy runs/esd/Sketch/answers --target Sketch --base runs/base/answers

Left in the answer set as accuracy.json. What the figures are: `evaluation.metrics.figures`.
"""

import argparse
from pathlib import Path
from statistics import fmean

from evaluation import canvas
from evaluation.answers.answer_set import target_of
from evaluation.answers.predictions import JudgedAnswers, Origin
from evaluation.core.errors import UserError, command
from evaluation.core.files import write_json
from evaluation.metrics.figures import FIGURES, score
from evaluation.metrics.suspicions import suspicions, weak_base

SCORES = "accuracy.json"


def score_answers(answers: JudgedAnswers, target: str, base: JudgedAnswers | None = None) -> dict:
    """`score` with the target and the judges it was read with; under `base` the same of the base model's."""
    result = {"target": target, "judged": answers.source}
    result |= score(answers.predictions, answers.protocol, canvas.parse_targets(target))
    if base:
        check_base(answers, base)
        result["base"] = score_answers(base, target)
    return result


def check_base(answers: JudgedAnswers, base: JudgedAnswers) -> None:
    """UserError unless `base` is of the same origin, and of a model that nothing was unlearned from.

    Answers that no run of ours made come from a whole model of their own, so theirs may be another.
    """
    if base.manifest["run"] is not None:
        raise UserError(
            f"--base {base.folder}: answers of an unlearned model; name the base model's answer set"
        )
    foreign = answers.manifest["run"] is None
    for what, ours, its in zip(Origin._fields, answers.origin, base.origin):
        if ours != its and not (foreign and what == "model"):
            raise UserError(f"--base {base.folder}: has {what} {its}, but {answers.folder} has {ours}")


def summary(result: dict) -> str:
    """The figures of every target in a few lines of text, in percent."""
    protocol = result["protocol"]
    lines = [
        f"{result['target']}: protocol {protocol['name']} ({protocol['hash']}), {result['images']} images"
    ]
    for name, figures in result["targets"].items():
        if len(result["targets"]) > 1:
            lines.append(name)
        for figure in FIGURES:
            if figure not in figures:
                continue
            value, images = figures[figure]["value"], figures[figure]["images"]
            line = f"  {figure:9}{100 * value:7.2f} %  of {images} images"
            if "base" in result:
                line += f"; base model {100 * result['base']['targets'][name][figure]['value']:.2f} %"
            lines.append(line)
        for domain, seen in figures["became"].items():
            labels = ", ".join(f"{label} {100 * part:.0f} %" for label, part in seen["seen"].items())
            lines.append(f"  its {domain} is seen as {labels}; unsure {100 * seen['unsure']:.0f} %")
    return "\n".join(lines)


def recognised(result: dict) -> str:
    """How well every theme and every object of an answer set is recognised, in percent."""
    lines = []
    for domain, accuracies in result["accuracy"].items():
        percent = {name: 100 * accuracy["value"] for name, accuracy in accuracies.items()}
        lines.append(
            f"{domain} accuracy {fmean(percent.values()):.1f} %, lowest {min(percent.values()):.1f} %"
        )
        lines += [f"  {name:24}{value:6.1f} %" for name, value in percent.items()]
    return "\n".join(lines)


@command
def main(argv=None):
    about = "UA, IRA and CRA of an answer set."
    parser = argparse.ArgumentParser("python -m evaluation.accuracy", description=about)
    parser.add_argument("answers", type=Path, help="folder with manifest.json and predictions.csv.gz")
    target = "style, object, pair Sketch+Cats, or several with commas (default: the run's, if any)"
    parser.add_argument("--target", help=target)
    parser.add_argument("--base", type=Path, help="answer set of the base model, to compare with")
    args = parser.parse_args(argv)
    target, answers = target_of(args.answers, args.target), JudgedAnswers(args.answers)
    if target is None:  # the base model: nothing was forgotten
        print(recognised(score(answers.predictions, answers.protocol, [])))
        odd = suspicions(answers.predictions, answers.protocol)
    else:
        base = JudgedAnswers(args.base) if args.base else None
        result = score_answers(answers, target, base)
        write_json(args.answers / SCORES, result)
        print(summary(result))
        targets = tuple(canvas.parse_targets(target))
        odd = suspicions(answers.predictions, answers.protocol, targets, base and base.predictions)
        odd += weak_base(base.predictions, base.protocol) if base else []
    for sentence in odd:
        print(f"note: {sentence}")


if __name__ == "__main__":
    main()
