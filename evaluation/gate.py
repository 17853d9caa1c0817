"""Whether judges and base model are good enough to spend GPU-years on: the gate before a table

    python -m evaluation.gate --base runs/main/base/answers --data DATA

The protocol's judges must recognise 95 % of the real images 19 and 20 of every theme and object, which no
judge of ours is trained on, in style and in object, and so 90 % of the base model's own images. `gate.json`,
beside the base model's predictions, then holds the four figures; otherwise this ends with exit code 2. What
the released judges were trained on is not published: of them, 95 % says less.
"""

import argparse
import os
from itertools import product
from pathlib import Path

from evaluation import canvas
from evaluation.answers.predictions import DOMAINS, JudgedAnswers
from evaluation.canvas import TASKS
from evaluation.core import flags
from evaluation.core.errors import UserError, command, early
from evaluation.core.files import file_digest, write_json
from evaluation.metrics.figures import class_accuracies
from evaluation.metrics.suspicions import BASE_ACCURACY, weak_base
from evaluation.mini.dataset import check_drawn

GATE = "gate.json"
JUDGE_ACCURACY = 0.95  # of real images


def parse(argv=None) -> argparse.Namespace:
    """The flags, and the base model's judged `answers`; UserError if they are a run's."""
    parser = argparse.ArgumentParser("python -m evaluation.gate", description=__doc__.partition("\n")[0])
    parser.add_argument("--base", type=Path, required=True, help="the base model's answer set, judged")
    parser.add_argument(
        "--data", type=flags.data_set, required=True, help="real images: folder, parquet shards, or mini"
    )
    parser.add_argument("--batch", type=flags.whole(1, 4096), default=64, help="images judged at once (64)")
    workers, cores = flags.whole(0, 1024), min(8, os.cpu_count())
    parser.add_argument("--workers", type=workers, default=cores, help="processes that decode (up to 8)")
    flags.add_device(parser)
    args = parser.parse_args(argv)
    args.answers = JudgedAnswers(args.base)
    if args.answers.manifest["run"]:
        raise UserError(f"--base {args.base}: the answers of a run; name those of the base model")
    check_drawn(args.data, args.answers.protocol)
    return args


early(__name__, parse)

from evaluation.core.environment import find_device
from evaluation.data.images import CanvasImages
from evaluation.judges.judging import find_files, open_judges
from evaluation.judges.training_data import Labelled, recognised


def judge_accuracies(sampled, files, args, device: str) -> dict[str, float]:
    """Shares of the held-out real images of a protocol that its judges recognise, by domain."""
    images = CanvasImages(args.data, product(sampled.themes, sampled.objects), canvas.TEST, sampled.size)
    judges, shares = open_judges(sampled, files, device), {}
    for domain, judge, labels in zip(DOMAINS, judges, judges.labels.values()):
        names = {"theme": sampled.themes, "object": sampled.objects} | {domain: labels}
        data = Labelled(images, *names.values(), judge.size)
        shares[domain] = recognised(judge, data, args.workers, args.batch, device).mean().item()
    return shares


def weak_judges(shares: dict[str, float]) -> list[str]:
    """One sentence for every judge that recognises too few real images."""
    return [
        f"the judges recognise the {domain} of only {share:.1%} of held-out real images, below "
        f"{JUDGE_ACCURACY:.0%}: figures by them say little; check --data and the judges"
        for domain, share in shares.items()
        if share < JUDGE_ACCURACY
    ]


@command
def main(argv=None):
    args = parse(argv)
    answers, sampled = args.answers, args.answers.protocol
    files, device = find_files(sampled, (None, None)), find_device(args.device)
    if answers.origin.judges != "+".join(map(file_digest, files)):
        raise UserError(f"--base {args.base}: judged by others than {' and '.join(files)}; judge it again")
    real = judge_accuracies(sampled, files, args, device)
    means = class_accuracies(answers.predictions, sampled).items()
    base = {domain: float(values.mean()) for domain, values in means}
    for name, shares, least in (("real images", real, JUDGE_ACCURACY), ("base model", base, BASE_ACCURACY)):
        words = ", ".join(f"{domain} {share:.1%}" for domain, share in shares.items())
        print(f"{name}: {words} recognised, at least {least:.0%} wanted", flush=True)
    if weak := weak_judges(real) + weak_base(answers.predictions, sampled):
        raise UserError(weak[0])
    judges = {f"{task}_classifier": answers.source[f"{task}_classifier"] for task in TASKS}
    write_json(args.base / GATE, {"real": real, "base": base, "data": args.data} | judges)


if __name__ == "__main__":
    main()
