"""The words of command lines, read and checked before anything slow is imported; those of a transfer here

A method's `model.py` has beside its OPTIONS, which become attributes of its network, LIMITS: between what
numbers, or of what words, its own may be. Both are constants, so that they can be read without torch.
"""

import argparse
import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf
from PIL import Image

from evaluation.core import flags
from evaluation.core.config import check_limits, override
from evaluation.core.errors import UserError
from style_transfer import protocol as protocols

PACKAGE = Path(__file__).parents[1]
METHODS = sorted(path.parent.name for path in PACKAGE.glob("*/model.py"))
LIMITS = {"strength": (0, 1), "load": (32, 4096), "crop": (32, 4096), "decay": (0, 1), "cooldown": (0, 1)}
DATA_SET = "folder {style}/{object}/{number}.jpg, or mini"


def new_parser(name: str, doc: str) -> argparse.ArgumentParser:
    """Of a command of this package, whose help begins with the text as it is."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(f"python -m style_transfer.{name}", description=doc, formatter_class=raw)


def is_mini(data: str | None) -> bool:
    return (data or "").partition(":")[0] == "mini"


def constant(method: str, name: str) -> dict:
    """What a method's model.py sets the name to; {} if it does not."""
    for node in ast.parse((PACKAGE / method / "model.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    return {}


def parse_transfer(doc: str, argv=None) -> argparse.Namespace:
    """`method`, `weights`, and what `check_transfer` adds."""
    options = {method: constant(method, "OPTIONS") for method in METHODS}
    lines = (f"    {m:12}{' '.join(f'{name}={v!s:.40}' for name, v in options[m].items())}" for m in METHODS)
    parser = transfer_parser("transfer", doc + "\nOptions:\n\n" + "\n".join(lines), METHODS)
    parser.add_argument("--weights", required=True, help="folder of the files that its authors released")
    args = parser.parse_intermixed_args(argv)
    return check_transfer(args, options[args.method], constant(args.method, "LIMITS"))


def transfer_parser(command: str, doc: str, methods=()) -> argparse.ArgumentParser:
    parser = new_parser(command, doc)
    if methods:
        parser.add_argument("method", choices=methods)
    parser.add_argument("--content", help="picture to paint, or a folder of them")
    parser.add_argument("--style", help="picture to take the style from, or a folder: every pair is made")
    parser.add_argument("--data", type=flags.data_set, help=f"benchmark: {DATA_SET}")
    parser.add_argument("--protocol", help="transfer, transfer-published, transfer-mini, or a YAML file")
    parser.add_argument("--styles", nargs="+", help="benchmark: only these styles")
    parser.add_argument("--objects", nargs="+", help="benchmark: only these objects")
    parser.add_argument("--limit", type=flags.whole(), help="stop after so many outputs, in whole batches")
    parser.add_argument("--cross-object", action="store_true", help="references show other objects")
    parser.add_argument("--out", type=flags.new_folder, required=True, help="folder of the outputs")
    parser.add_argument("--max-side", type=flags.whole(), default=1024, help="reduce larger pictures (1024)")
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
    free_overrides(args, "styles", "objects")
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


def free_overrides(args, *names: str) -> None:
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
