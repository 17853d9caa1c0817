"""The words of the two command lines, read and checked before anything slow is imported

    python -m style_transfer.transfer METHOD ... [strength=0.5 ...]   options: METHOD/model.py
    python -m style_transfer.train METHOD ... [steps=1000 ...]        settings: METHOD/config.yaml, train.yaml

A method's `model.py` has beside its OPTIONS, which become attributes of its network, LIMITS: between what
numbers, or of what words, its own may be. Of `config.yaml`, `canvas` are the settings of a training, `mini`
what is otherwise for the miniature, and `limits` theirs. Both files have constants alone in these places,
so that they can be read without torch.
"""

import argparse
import ast
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

PACKAGE = Path(__file__).parents[1]
METHODS = sorted(path.parent.name for path in PACKAGE.glob("*/model.py"))
TRAINED = sorted(path.parent.name for path in PACKAGE.glob("*/train.py"))
ENCODER = "checkpoints/mini/style_transfer/vgg_normalised.pth"
MIRROR = "decoder.pth"  # beside the miniature's encoder: gives back the image from its relu4_1
LIMITS = {"strength": (0, 1), "load": (32, 4096), "crop": (32, 4096), "decay": (0, 1), "cooldown": (0, 1)}
LIMIT_OF_WEIGHTS = (0, 1e9)  # of losses
MULTIPLE = 16  # of pixels, that sides of crops must be: what the networks make of them is compared with them


def is_mini(data: str | None) -> bool:
    return (data or "").partition(":")[0] == "mini"


def constant(method: str, name: str) -> dict:
    """What a method's model.py sets the name to; {} if it does not."""
    for node in ast.parse((PACKAGE / method / "model.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    return {}


# --- transfer ---------------------------------------------------------------------------------------------


def parse_transfer(doc: str, argv=None) -> argparse.Namespace:
    """`method`, `weights`, and what `check_transfer` adds."""
    options = {method: constant(method, "OPTIONS") for method in METHODS}
    lines = (f"    {m:12}{' '.join(f'{name}={v!s:.40}' for name, v in options[m].items())}" for m in METHODS)
    parser = transfer_parser(doc + "\nOptions:\n\n" + "\n".join(lines), METHODS)
    parser.add_argument("--weights", required=True, help="folder of the files that its authors released")
    args = parser.parse_intermixed_args(argv)
    return check_transfer(args, options[args.method], constant(args.method, "LIMITS"))


def transfer_parser(doc: str, methods=()) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if methods:
        parser.add_argument("method", choices=methods)
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
    parser.add_argument("--batch", type=flags.whole(), help="images at once (default: by size and device)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of autocast")
    parser.add_argument("--channels-last", action="store_true", help="memory layout that many GPUs prefer")
    flags.add_device(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options of the method")
    return parser


def check_transfer(args, options: Mapping, limits: Mapping) -> argparse.Namespace:
    """The flags, `options` as they were changed, and of the benchmark `protocol`, a TransferProtocol. Raises
    UserError for flags that disagree, options that are unknown or out of limits."""
    _free_overrides(args, "styles", "objects")
    if "weights" in args and not Path(args.weights).is_dir():
        raise UserError(f"--weights {args.weights}: no such folder")
    if args.strength is not None:
        if "strength" not in options:
            raise UserError(f"--strength: {args.method} has none")
        args.overrides.append(f"strength={args.strength}")
    args.options = OmegaConf.to_container(override(OmegaConf.create(dict(options)), args.overrides))
    check_limits(args.options, LIMITS | dict(limits))
    _check_pairs(args)
    return args


def _free_overrides(args, *names: str) -> None:
    """argparse gives a flag of several words the key=value that follow."""
    for name in names:
        words = getattr(args, name) or []
        args.overrides += [word for word in words if "=" in word]
        setattr(args, name, [word for word in words if "=" not in word] or None)


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


def pictures(path: str | Path, flag: str, below: bool = False) -> list[Path]:
    """A picture, or those in a folder by name, also `below` it; files of other kinds are passed over. Raises
    UserError."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{flag} {path}: no such file or folder")
    if not path.is_dir():
        return [path]
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    inside = path.rglob("*") if below else path.iterdir()
    paths = sorted(p for p in inside if p.suffix.lower() in known and not p.name.startswith("."))
    if not paths:
        raise UserError(f"{flag} {path}: no pictures in this folder")
    return paths


# --- train ------------------------------------------------------------------------------------------------


def parse_train(doc: str, argv=None) -> argparse.Namespace:
    """The flags, `settings` and `world`, the protocol that names styles and objects. Raises UserError for an
    unknown setting, or one out of its limits."""
    args = train_parser(doc).parse_intermixed_args(argv)
    _free_overrides(args, "hold_out")
    args.out = Path(args.out)
    _check_data(args)
    mini = is_mini(args.data)
    args.variant = args.variant or ("mini" if mini else "canvas")
    args.world = protocols.load("transfer-mini" if mini else "transfer")
    if args.data:
        protocols.chosen(args.hold_out, args.world.styles, "--hold-out")
    config, common = (
        read_settings(path) for path in (PACKAGE / args.method / "config.yaml", PACKAGE / "train.yaml")
    )
    sections = (common["canvas"], common[args.variant], config["canvas"], config[args.variant])
    settings = OmegaConf.merge(*map(OmegaConf.create, sections))
    OmegaConf.set_struct(settings, True)  # no loss is added to the weights
    args.settings = override(settings, args.overrides)
    _check_settings(args, config.get("limits", {}))
    _check_files(args, config.get("looks_with_vgg", "always"), config.get("has_decoder", True))
    return args


def train_parser(doc: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=TRAINED)
    parser.add_argument("--out", type=flags.new_folder, required=True, help="folder of the weights to write")
    parser.add_argument(
        "--data", type=flags.data_set, help="folder {style}/{object}/{number}.jpg, or mini (the default)"
    )
    parser.add_argument("--contents", metavar="DIR", help="instead: any folder of photos, such as COCO's")
    parser.add_argument("--styles", metavar="DIR", help="and one of paintings, such as WikiArt's")
    parser.add_argument(
        "--hold-out", nargs="+", metavar="STYLE", help="styles, or folders in --styles, not trained on"
    )
    parser.add_argument("--encoder", help="normalised VGG-19 (default: the miniature's for its data)")
    parser.add_argument(
        "--init", help=f"decoder to begin with, or none (default for mini: {MIRROR} beside --encoder)"
    )
    parser.add_argument("--variant", choices=["canvas", "mini"], help="default: mini for --data mini")
    flags.add_seed(parser)
    parser.add_argument(
        "--workers", type=flags.whole(0, 1024), default=2, help="processes that read images (2)"
    )
    flags.add_device(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of config.yaml to change")
    return parser


def _check_data(args) -> None:
    folders = [args.contents, args.styles]
    if not any(folders):
        args.data = args.data or "mini"
        return
    if args.data or not all(folders):
        raise UserError("--contents and --styles go together, without --data")
    for flag, folder in zip(("--contents", "--styles"), folders):
        if not Path(folder).is_dir():
            raise UserError(f"{flag} {folder}: no such folder")
    for name in args.hold_out or []:
        if not Path(args.styles, name).is_dir():
            raise UserError(f"--hold-out {name}: no such folder in --styles {args.styles}")


def _check_settings(args, limits: Mapping) -> None:
    settings = OmegaConf.to_container(args.settings)
    weights = {f"weights.{name}": weight for name, weight in settings.pop("weights").items()}
    check_limits(settings | weights, LIMITS | dict.fromkeys(weights, LIMIT_OF_WEIGHTS) | dict(limits))
    crop, load, batch = settings["crop"], settings["load"], settings["batch"]
    if crop > load or crop % MULTIPLE:
        raise UserError(f"crop={crop}: expected a multiple of {MULTIPLE}, and no more than load={load}")
    photos = len(args.world.objects) * len(canvas.TRAIN)
    if args.data and batch > photos:
        raise UserError(f"batch={batch}: there are {photos} photos to train on")


def _check_files(args, looks_with_vgg: str, has_decoder: bool) -> None:
    """Finds --encoder and --init, None where there is none."""
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
