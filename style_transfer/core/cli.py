"""The command lines that all methods share, read and checked before anything slow is imported

    python -m style_transfer.METHOD.transfer --weights DIR --content IMG|DIR --style IMG|DIR --out DIR
    python -m style_transfer.METHOD.transfer --weights DIR --data DATA|mini --protocol transfer --out DIR
    python -m style_transfer.METHOD.train --data DATA|mini --out DIR [--variant canvas|mini] [steps=1000 ...]

Of a method's `config.yaml`, `options` are what transfer.py takes as key=value, with the defaults of the
network's functions; `canvas` are the settings of train.py, and `mini` what it does otherwise for the
miniature; `limits` says between what numbers, or of what words, those of the method's own may be. The outputs
are `OUT/{style}/{content}.png`, or the benchmark's.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf
from PIL import Image

from evaluation import canvas
from evaluation.core import flags
from evaluation.core.config import check_limits, override, read_settings
from evaluation.core.errors import UserError
from style_transfer import protocol as protocols

ENCODER = "checkpoints/mini/style_transfer/vgg_normalised.pth"
LIMITS = {  # of what means the same in several methods
    "strength": (0, 1),
    "load": (32, 4096),
    "crop": (32, 4096),
    "decay": (0, 1),
    "cooldown": (0, 1),
}
LIMIT_OF_WEIGHTS = (0, 1e9)  # of losses
MULTIPLE = 16  # of pixels, that sides of crops must be: what the networks make of them is compared with them


def is_mini(data: str) -> bool:
    return data.partition(":")[0] == "mini"


def parse_transfer(doc: str, transfer_file: str, argv=None) -> argparse.Namespace:
    """Of the transfer.py with this __doc__ and __file__; see `check_transfer`."""
    parser = transfer_parser(doc)
    parser.add_argument("--weights", required=True, help="folder of the files that its authors released")
    folder = Path(transfer_file).parent
    config = read_settings(folder / "config.yaml")
    return check_transfer(parser, argv, folder.name, config.get("options", {}), config.get("limits", {}))


def transfer_parser(doc: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--content", help="picture to paint, or a folder of them")
    parser.add_argument("--style", help="picture to take the style from, or a folder: every pair is made")
    parser.add_argument(
        "--data", type=flags.data_set, help="benchmark: folder {style}/{object}/{number}.jpg, or mini"
    )
    parser.add_argument("--protocol", help="transfer, transfer-published, transfer-mini, or a YAML file")
    parser.add_argument("--styles", nargs="+", help="benchmark: only these styles")
    parser.add_argument("--objects", nargs="+", help="benchmark: only these objects")
    parser.add_argument("--limit", type=flags.whole(), help="stop after so many outputs, in whole batches")
    parser.add_argument("--cross-object", action="store_true", help="references show other objects")
    parser.add_argument("--out", type=flags.new_folder, required=True, help="folder of the outputs")
    parser.add_argument(
        "--max-side", type=flags.whole(), default=1024, help="reduce larger pictures (1024 pixels)"
    )
    parser.add_argument("--strength", type=flags.decimal(0, 1), help="of the style, where the method has it")
    parser.add_argument("--batch", type=flags.whole(), help="images painted at once (default: by image size)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of autocast")
    parser.add_argument("--channels-last", action="store_true", help="memory layout that many GPUs prefer")
    flags.add_device(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options of the method")
    return parser


def check_transfer(
    parser: argparse.ArgumentParser, argv, method: str, options: Mapping, limits: Mapping
) -> argparse.Namespace:
    """The flags, `method`, `options` as they were changed, and of the benchmark `protocol`, a
    TransferProtocol. Raises UserError for flags that disagree, options that are unknown or out of limits."""
    args = parser.parse_intermixed_args(argv)
    for flag in ("styles", "objects"):  # argparse gives them the options of the method that follow
        words = getattr(args, flag) or []
        args.overrides += [word for word in words if "=" in word]
        setattr(args, flag, [word for word in words if "=" not in word] or None)
    if "weights" in args and not Path(args.weights).is_dir():
        raise UserError(f"--weights {args.weights}: no such folder")
    if args.strength is not None:
        if "strength" not in options:
            raise UserError(f"--strength: {method} has none")
        args.overrides.append(f"strength={args.strength}")
    args.method = method
    args.options = OmegaConf.to_container(override(OmegaConf.create(dict(options)), args.overrides))
    check_limits(args.options, LIMITS | dict(limits))
    _check_pairs(args)
    return args


def _check_pairs(args) -> None:
    single = [flag for flag in ("content", "style") if getattr(args, flag) is not None]
    whole = [f for f in ("protocol", "styles", "objects", "cross_object") if getattr(args, f)]
    if args.data and single:
        raise UserError(f"--data and --{single[0]}: name a data set, or a content and a style")
    if args.data:
        p = protocols.load(args.protocol or ("transfer-mini" if is_mini(args.data) else "transfer"))
        if args.cross_object:
            p = replace(p, name=f"{p.name}-cross", pairs="cross")
        protocols.chosen(args.styles, p.styles, "--styles")
        protocols.chosen(args.objects, p.objects, "--objects")
        args.protocol = p
        return
    if len(single) < 2:
        raise UserError("name --content and --style, or --data for the benchmark")
    if whole:
        raise UserError(f"--{whole[0].replace('_', '-')}: is for the benchmark, which --data starts")
    pictures(args.content, "--content")
    pictures(args.style, "--style")


def pictures(path: str | Path, flag: str) -> list[Path]:
    """A picture, or those in a folder by name; files of other kinds are passed over. Raises UserError."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{flag} {path}: no such file or folder")
    if not path.is_dir():
        return [path]
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in known and not p.name.startswith("."))
    if not found:
        raise UserError(f"{flag} {path}: no pictures in this folder")
    return found


def parse_train(doc: str, train_file: str, argv=None) -> argparse.Namespace:
    """Of the train.py with this __doc__ and __file__: the flags, `method` (the folder's name), `settings`
    and `world`, the protocol that names styles and objects. Raises UserError for an unknown setting, or one
    out of its limits."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=flags.new_folder, required=True, help="folder of the weights to write")
    parser.add_argument(
        "--data", type=flags.data_set, default="mini", help="folder {style}/{object}/{number}.jpg, or mini"
    )
    parser.add_argument("--encoder", help="normalised VGG-19 (default: the miniature's for its data)")
    parser.add_argument("--variant", choices=["canvas", "mini"], help="default: mini for --data mini")
    flags.add_seed(parser)
    parser.add_argument(
        "--workers", type=flags.whole(0, 1024), default=2, help="processes that read images (2)"
    )
    flags.add_device(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of config.yaml to change")
    args = parser.parse_intermixed_args(argv)
    folder, mini = Path(train_file).parent, is_mini(args.data)
    args.method, args.out = folder.name, Path(args.out)
    args.variant = args.variant or ("mini" if mini else "canvas")
    args.encoder = args.encoder or (ENCODER if args.variant == "mini" else None)
    if args.encoder and not Path(args.encoder).is_file():
        raise UserError(
            f"--encoder {args.encoder}: no such file; give vgg_normalised.pth, or train the miniature's with "
            "python -m style_transfer.train_encoder"
        )
    args.world = protocols.load("transfer-mini" if mini else "transfer")
    config = OmegaConf.create(read_settings(folder / "config.yaml"))
    settings = OmegaConf.merge(config.canvas, config[args.variant])
    OmegaConf.set_struct(settings, True)  # no loss is added to the weights
    args.settings = override(settings, args.overrides)
    _check_training(args, config.get("limits", {}))
    return args


def parse_train_with_encoder(doc: str, train_file: str, argv=None) -> argparse.Namespace:
    """`parse_train` for a method that sees with VGG-19 while it trains."""
    args = parse_train(doc, train_file, argv)
    check_encoder(args)
    return args


def check_encoder(args: argparse.Namespace) -> None:
    """UserError unless the encoder is named. That it exists is checked before."""
    if not args.encoder:
        raise UserError("--encoder: name the file vgg_normalised.pth that the method's authors released")


def _check_training(args, limits: Mapping) -> None:
    settings = OmegaConf.to_container(args.settings)
    weights = {f"weights.{name}": weight for name, weight in settings.pop("weights").items()}
    check_limits(settings | weights, LIMITS | dict.fromkeys(weights, LIMIT_OF_WEIGHTS) | dict(limits))
    crop, load, batch = settings["crop"], settings["load"], settings["batch"]
    if crop > load or crop % MULTIPLE:
        raise UserError(f"crop={crop}: expected a multiple of {MULTIPLE}, and no more than load={load}")
    photos = len(args.world.objects) * len(canvas.TRAIN)
    if batch > photos:
        raise UserError(f"batch={batch}: there are {photos} photos to train on")
