"""Trains a method of style transfer, by the losses and the loop in METHOD/train.py

    python -m style_transfer.train sanet --out runs/train/sanet                           the miniature
    python -m style_transfer.train sanet --data DATA --encoder vgg_normalised.pth --out DIR [steps=1000 ...]
    python -m style_transfer.train sanet --contents COCO --styles WIKIART --encoder vgg_normalised.pth --out
    DIR

A stopped command goes on when it is run again, as if it had not been stopped. Settings are those of
METHOD/config.yaml and train.yaml: `canvas`, the published ones, or `mini`, what is otherwise for the
miniature; `limits` are theirs.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from omegaconf import OmegaConf

from evaluation import canvas
from evaluation.core import flags
from evaluation.core.config import check_limits, override, read_settings
from evaluation.core.errors import UserError, command, early
from style_transfer import protocol as protocols
from style_transfer.core import cli

METHODS = sorted(path.parent.name for path in cli.PACKAGE.glob("*/train.py"))
ENCODER = "checkpoints/mini/style_transfer/vgg_normalised.pth"
MIRROR = "decoder.pth"  # beside the miniature's encoder: gives back the image from its relu4_1
LIMIT_OF_WEIGHTS = (0, 1e9)  # of losses
MULTIPLE = 16  # of pixels, that sides of crops must be: what the networks make of them is compared with them


def parse(argv=None) -> argparse.Namespace:
    """The flags, `settings` and `world`, the protocol that names styles and objects. Raises UserError for an
    unknown setting, or one out of its limits."""
    parser = cli.new_parser("train", __doc__)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--out", type=flags.new_folder, required=True, help="folder of the weights to write")
    parser.add_argument("--data", type=flags.data_set, help=f"{cli.DATA_SET} (the default)")
    parser.add_argument("--contents", metavar="DIR", help="instead: any folder of photos, such as COCO's")
    parser.add_argument("--styles", metavar="DIR", help="and one of paintings, such as WikiArt's")
    parser.add_argument(
        "--hold-out", nargs="+", metavar="STYLE", help="styles or folders in --styles left out"
    )
    parser.add_argument("--encoder", help="normalised VGG-19 (default: the miniature's for its data)")
    parser.add_argument("--init", help=f"decoder to begin with, or none (mini: {MIRROR} beside --encoder)")
    parser.add_argument("--variant", choices=["canvas", "mini"], help="default: mini for --data mini")
    flags.add_seed(parser)
    parser.add_argument("--workers", type=flags.whole(0, 1024), default=2, help="that read images (2)")
    flags.add_device(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of config.yaml to change")
    args = parser.parse_intermixed_args(argv)
    cli.free_overrides(args, "hold_out")
    args.out = Path(args.out)
    check_data(args)
    mini = cli.is_mini(args.data)
    args.variant = args.variant or ("mini" if mini else "canvas")
    args.world = protocols.load("transfer-mini" if mini else "transfer")
    if args.data:
        protocols.chosen(args.hold_out, args.world.styles, "--hold-out")
    config, common = (read_settings(cli.PACKAGE / f) for f in (f"{args.method}/config.yaml", "train.yaml"))
    sections = (common["canvas"], common[args.variant], config["canvas"], config[args.variant])
    settings = OmegaConf.merge(*map(OmegaConf.create, sections))
    OmegaConf.set_struct(settings, True)  # no loss is added to the weights
    args.settings = override(settings, args.overrides)
    check_settings(args, config.get("limits", {}))
    find_files(args, config.get("looks_with_vgg", "always"), config.get("has_decoder", True))
    return args


def check_data(args) -> None:
    folders = {"--contents": args.contents, "--styles": args.styles}
    if not any(folders.values()):
        args.data = args.data or "mini"
        return
    if args.data or not all(folders.values()):
        raise UserError("--contents and --styles go together, without --data")
    for flag, folder in folders.items():
        if not Path(folder).is_dir():
            raise UserError(f"{flag} {folder}: no such folder")
    for name in args.hold_out or []:
        if not Path(args.styles, name).is_dir():
            raise UserError(f"--hold-out {name}: no such folder in --styles {args.styles}")


def check_settings(args, limits: Mapping) -> None:
    settings = OmegaConf.to_container(args.settings)
    weights = {f"weights.{name}": weight for name, weight in settings.pop("weights").items()}
    check_limits(settings | weights, cli.LIMITS | dict.fromkeys(weights, LIMIT_OF_WEIGHTS) | dict(limits))
    crop, load, batch = settings["crop"], settings["load"], settings["batch"]
    if crop > load or crop % MULTIPLE:
        raise UserError(f"crop={crop}: expected a multiple of {MULTIPLE}, and no more than load={load}")
    photos = len(args.world.objects) * len(canvas.TRAIN)
    if args.data and batch > photos:
        raise UserError(f"batch={batch}: there are {photos} photos to train on")


def find_files(args, looks_with_vgg: str, has_decoder: bool) -> None:
    """--encoder and --init, None where there is none."""
    args.encoder = args.encoder or (ENCODER if args.variant == "mini" else None)
    if args.encoder and not Path(args.encoder).is_file():
        raise UserError(
            f"--encoder {args.encoder}: no such file; give vgg_normalised.pth, or train the miniature's with "
            "python -m style_transfer.train_encoder"
        )
    if args.init not in (None, "none") and not has_decoder:
        raise UserError(f"--init {args.init}: {args.method} has no decoder that could begin so")
    usual = str(Path(args.encoder).with_name(MIRROR)) if args.variant == "mini" and has_decoder else None
    args.init = None if args.init == "none" else args.init or usual
    if args.init and not Path(args.init).is_file():
        raise UserError(f"--init {args.init}: no such file; give one, or none")
    if not args.encoder and (looks_with_vgg == "always" or args.init):
        raise UserError("--encoder: name the file vgg_normalised.pth that the method's authors released")


early(__name__, parse)

import importlib

from evaluation.core.owner import alone
from style_transfer.core.training import Training


@command
def main(argv=None):
    args = parse(argv)
    method = importlib.import_module(f"style_transfer.{args.method}.train")
    run = Training(args)
    with alone(args.out):
        method.train(run)


if __name__ == "__main__":
    main()
