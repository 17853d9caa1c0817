"""From finished runs to their figures: the base model once, then every run, is sampled, judged and scored

    python -m machine_unlearning.evaluate esd Sketch Cats --model checkpoints/mini --runs runs

What is done is skipped. Whatever would end this after hours of sampling is refused before it begins.
"""

import argparse
from pathlib import Path

import torch

from diffusion_model_finetuning.core.card import read_card
from diffusion_model_finetuning.core.sd import load_sd
from evaluation import accuracy, fid, predict, protocol
from evaluation.answers.answer_set import protocol_of
from evaluation.canvas import parse_targets
from evaluation.core.errors import UserError, command
from evaluation.core.record import read_record
from evaluation.data.images import CanvasImages
from evaluation.judges.judging import find_files
from evaluation.metrics.figures import check_targets
from evaluation.mini.dataset import check_drawn
from machine_unlearning import sample


def check(args, base: Path, runs: list[Path]) -> None:
    """Completes `protocol` and `data` by the model's card; a UserError for what cannot be evaluated."""
    card = read_card(args.model, args.config)
    args.protocol, args.data = args.protocol or card.get("protocol", "canvas"), args.data or card.get("data")
    world = protocol.load(args.protocol)
    if not args.data:
        raise UserError("--data is missing: name the folder of the data set, {theme}/{object}/{n}.jpg")
    check_drawn(args.data, world)
    real = [(theme, obj) for theme in world.themes for obj in world.objects]
    CanvasImages(args.data, real, world.fid_images, world.size)
    find_files(world, (None, None))
    for answers in [base, *(run / "answers" for run in runs)]:
        if (answers / "manifest.json").exists() and protocol_of(answers).hash != world.hash:
            raise UserError(
                f"{answers}: was sampled with protocol {protocol_of(answers).name}, not {world.name}; "
                "name that one with --protocol or choose another folder with --runs"
            )
    model = None
    for run in runs:
        record = read_record(run)
        check_targets(parse_targets(record["target"]), world)
        model = model or load_sd(args.model, config=args.config).fingerprint()
        if record["model"] not in (model, None):
            raise UserError(f"{run}: made from another base model than --model {args.model} ({model})")


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m machine_unlearning.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("method", metavar="METHOD", help="folder of its runs in RUNS")
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="folders of runs in RUNS/METHOD")
    parser.add_argument("--model", default="checkpoints/mini", help="base model: folder or CompVis file")
    parser.add_argument("--config", help="for a file: folder with its sizes and tokenizer")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="holds {method}/{target} and base")
    parser.add_argument("--data", help="real images: folder {theme}/{object}/{n}.jpg, or mini (the model's)")
    parser.add_argument("--protocol", help="canvas, canvas-lite, mini, ..., or a YAML file (the model's)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    base, runs = args.runs / "base" / "answers", [args.runs / args.method / name for name in args.targets]
    check(args, base, runs)
    device = ["--device", args.device]
    model = ["--model", args.model, *(["--config", args.config] if args.config else [])]
    for run in (None, *runs):
        answers = run / "answers" if run else base
        if not (run and read_record(run).get("foreign")):
            drawn = [*model, "--protocol", args.protocol, "--out", str(answers), *device]
            sample.main(drawn + (["--run", str(run)] if run else []))
        predict.main([str(answers), *device])
        fid.main([str(answers), "--data", args.data, *device])
        if run:
            accuracy.main([str(answers), "--base", str(base)])


if __name__ == "__main__":
    main()
