"""From finished runs to their figures: the base model once, then every run, is sampled, judged and scored

    python -m machine_unlearning.evaluate esd Sketch Cats --model checkpoints/mini --runs runs

What is done is skipped. Whatever would end this after hours of sampling is refused before it begins.
"""

import argparse
from pathlib import Path

from diffusion_model_finetuning.core.card import read_card
from evaluation import protocol
from evaluation.answers.answer_set import protocol_of
from evaluation.answers.claims import MANIFEST
from evaluation.canvas import parse_targets
from evaluation.core import flags
from evaluation.core.errors import UserError, command, early
from evaluation.core.record import read_record
from evaluation.metrics.figures import check_targets
from evaluation.mini.dataset import check_drawn


def parse(argv=None) -> argparse.Namespace:
    """The flags, or what the model's card says; `world`, the protocol; `base`, its answer set; `folders`, the
    runs. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog="python -m machine_unlearning.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("method", metavar="METHOD", help="folder of its runs in RUNS")
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="folders of runs in RUNS/METHOD")
    parser.add_argument("--model", default="checkpoints/mini", help="base model: folder or CompVis file")
    parser.add_argument("--config", help="for a file: folder with its sizes and tokenizer")
    parser.add_argument(
        "--runs", type=flags.new_folder, default="runs", help="holds {method}/{target} and base"
    )
    parser.add_argument(
        "--data",
        type=flags.data_set,
        help="real images: folder {theme}/{object}/{n}.jpg, or mini (the model's)",
    )
    parser.add_argument("--protocol", help="canvas, canvas-lite, mini, ..., or a YAML file (the model's)")
    flags.add_device(parser)
    args = parser.parse_args(argv)
    card = read_card(args.model, args.config)
    args.protocol, args.data = args.protocol or card.get("protocol", "canvas"), args.data or card.get("data")
    args.world = protocol.load(args.protocol)
    if not args.data:
        raise UserError("--data is missing: name the folder of the data set, {theme}/{object}/{n}.jpg")
    check_drawn(args.data, args.world)
    args.base = Path(args.runs) / "base" / "answers"
    args.folders = [Path(args.runs) / args.method / name for name in dict.fromkeys(args.targets)]
    for run in args.folders:
        check_targets(parse_targets(read_record(run)["target"]), args.world)
    for answers in [args.base, *(run / "answers" for run in args.folders)]:
        if (answers / MANIFEST).exists() and protocol_of(answers).hash != args.world.hash:
            raise UserError(
                f"{answers}: was sampled with protocol {protocol_of(answers).name}, not {args.world.name}; "
                "name that one with --protocol or choose another folder with --runs"
            )
    return args


early(__name__, parse)  # before the slow imports

from diffusion_model_finetuning.core.sd import load_sd
from evaluation import accuracy, fid, predict
from evaluation.core.environment import find_device
from evaluation.data.images import CanvasImages
from evaluation.judges.judging import find_files
from machine_unlearning import sample


def check(args) -> None:
    """UserError if images or judges are not there, or a run is another base model's."""
    real = [(theme, obj) for theme in args.world.themes for obj in args.world.objects]
    CanvasImages(args.data, real, args.world.fid_images, args.world.size)
    find_files(args.world, (None, None))
    model = load_sd(args.model, config=args.config).fingerprint()
    for run in args.folders:
        if read_record(run)["model"] not in (model, None):
            raise UserError(f"{run}: made from another base model than --model {args.model} ({model})")


@command
def main(argv=None):
    args = parse(argv)
    device = ["--device", find_device(args.device)]
    check(args)
    model = ["--model", args.model, *(["--config", args.config] if args.config else [])]
    for run in (None, *args.folders):
        answers = run / "answers" if run else args.base
        if not (run and read_record(run).get("foreign")):
            drawn = [*model, "--protocol", args.protocol, "--out", str(answers), *device]
            sample.main(drawn + (["--run", str(run)] if run else []))
        predict.main([str(answers), *device])
        fid.main([str(answers), "--data", args.data, *device])
        if run:
            accuracy.main([str(answers), "--base", str(args.base)])


if __name__ == "__main__":
    main()
