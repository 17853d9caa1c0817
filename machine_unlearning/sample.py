"""The one sampler: base model, or base model + one run -> answer set.

    python -m machine_unlearning.sample --model checkpoints/mini --run runs/esd/Sketch --out DIR

Every image starts from noise that is a function of (seed, theme, object). Images are drawn in fixed blocks of
the grid; run the command again to go on, or several at once to share the work: the pixels stay the same.
"""

import argparse
import importlib
from contextlib import contextmanager
from pathlib import Path

from diffusion_model_finetuning.core.card import read_card
from evaluation import protocol
from evaluation.core import flags
from evaluation.core.errors import UserError, command, early
from evaluation.core.record import WEIGHTS, read_record


def parse(argv=None) -> argparse.Namespace:
    """The flags, `world`, the protocol, and `record`, the run's or None; raises UserError."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_model(parser)
    parser.add_argument("--run", help="run folder of an unlearning method; without it the base model answers")
    parser.add_argument("--protocol", help="canvas, canvas-published, canvas-lite, mini, or a YAML file")
    parser.add_argument(
        "--out", type=flags.new_folder, help="folder of the answer set (default: RUN/answers)"
    )
    parser.add_argument("--batch", type=flags.whole(1), help="images drawn at once (default: by image size)")
    parser.add_argument("--compile", action="store_true", help="the UNet, once for the whole answer set")
    flags.add_device(parser)
    args = parser.parse_args(argv)
    if not (args.out or args.run):
        raise UserError(
            "--out is missing: name the folder of the base model's answer set, such as runs/base/answers"
        )
    args.out = args.out or str(Path(args.run) / "answers")
    card = read_card(args.model, args.config)
    args.world = protocol.load(args.protocol or card.get("protocol", "canvas"))
    args.record = read_record(args.run) if args.run else None
    if args.run and args.record.get("foreign"):
        raise UserError(f"--run {args.run}: was made elsewhere, and so were its images; judge those")
    if args.run and not (Path(args.run) / WEIGHTS).exists():
        raise UserError(
            f"--run {args.run}: no {WEIGHTS}; remove the folder and run the method's train.py again"
        )
    return args


early(__name__, parse)  # before the slow imports

from diffusion_model_finetuning.core.drawing import drawing, fill, open_answers
from diffusion_model_finetuning.core.intervention import NOTHING, Intervention, compose
from diffusion_model_finetuning.core.sd import load_sd
from evaluation.core.environment import find_device
from machine_unlearning.core import cli, weights


def intervention(sd, run: str | Path, record: dict) -> Intervention:
    """What a run does while its images are sampled: `intervention(sd, folder)` of the `intervene.py` of its
    method and of those that it went on from, as far as they have such a file; else nothing."""
    acts = []
    for method, folder in cli.acting(run, record).items():
        module = importlib.import_module(f"machine_unlearning.{method}.intervene")
        acts.append(module.intervention(sd, folder))
    return compose(acts)


@contextmanager
def unlearned(sd, run: str | Path | None, record: dict | None, model: str):
    """Within, `sd`, the base model of fingerprint `model`, has the weights of a run, if there is one; yields
    what that does while its images are sampled."""
    if run is None:
        yield NOTHING
        return
    with weights.swapped(sd, run, model):
        yield intervention(sd, run, record)


def hasten(sd, precision: str, compiled: bool, runs: dict) -> None:
    """`sd.hasten` for `runs` (folder -> record). A method that acts while sampling may do so in float32,
    whatever the images are drawn in, as SEOT's gradients: then the weights stay float32."""
    acts = any(cli.acting(run, record) for run, record in runs.items())
    sd.hasten("float32" if acts else precision, compiled)


@command
def main(argv=None):
    args = parse(argv)
    runs = {args.run: args.record} if args.run else {}
    sd = load_sd(args.model, find_device(args.device), config=args.config)
    answers = open_answers(args.out, args.world, sd, sd.fingerprint(), args.record, args.batch)
    act = NOTHING
    if args.run:
        weights.load_run(sd, args.run)
        act = intervention(sd, args.run, args.record)
    hasten(sd, args.world.precision, args.compile, runs)
    fill(drawing(sd, answers, act, even=args.compile), answers)
    answers.check_complete()


if __name__ == "__main__":
    main()
