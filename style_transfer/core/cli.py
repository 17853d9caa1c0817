"""The command line that all methods share.

    python -m style_transfer.METHOD.transfer --weights DIR --content IMG|DIR --style IMG|DIR --out DIR
    python -m style_transfer.METHOD.transfer --weights DIR --data DATA|mini --protocol transfer --out DIR

A method's own options follow as key=value: they are the keywords of its network's functions. The outputs are
`OUT/{style}/{content}.png`, or the benchmark's. Run a command again to go on, or several at once to share the
work; with other weights, options or pairs it is refused.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from evaluation.answers.claims import agree, claimed
from evaluation.core.config import override
from evaluation.core.errors import UserError
from evaluation.core.files import digest, file_digest
from style_transfer import protocol as protocols
from style_transfer.core import costs, weights
from style_transfer.core.pairs import Benchmark, Folders
from style_transfer.core.run import Painter, Stylist, keywords, stylist

LISTED = 50  # failures spelled out at the end


def main(doc: str, model, argv=None) -> None:
    """The command of a method. `doc` is the caller's __doc__, `model` its module with FILES and `load`."""
    args = parse(doc, model, argv)
    network, found = load(model, args)
    functions = [network.encode_content, network.encode_style, network.decode, network.stylise]
    options = settings(args, *functions)
    run(args, stylist(network, options), options, found)


def parse(doc: str, model, argv=None) -> argparse.Namespace:
    """The flags, `method` (the folder's name) and `pairs`. Raises UserError for flags that disagree."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if model.FILES:
        parser.add_argument("--weights", required=True, help=f"folder with {', '.join(model.FILES)}")
    parser.add_argument("--content", help="picture to paint, or a folder of them")
    parser.add_argument("--style", help="picture to take the style from, or a folder: every pair is made")
    parser.add_argument("--data", help="benchmark: folder {style}/{object}/{number}.jpg, or mini")
    parser.add_argument("--protocol", help="transfer, transfer-published, transfer-mini, or a YAML file")
    parser.add_argument("--styles", nargs="+", help="benchmark: only these styles")
    parser.add_argument("--objects", nargs="+", help="benchmark: only these objects")
    parser.add_argument("--limit", type=positive, help="stop after so many outputs, in whole batches")
    parser.add_argument("--cross-object", action="store_true", help="references show other objects")
    parser.add_argument("--out", required=True, help="folder of the outputs")
    parser.add_argument(
        "--max-side", type=positive, default=1024, help="reduce larger pictures (1024 pixels)"
    )
    parser.add_argument("--strength", type=float, help="of the style, 0 to 1, where the method has it")
    parser.add_argument("--batch", type=positive, help="images painted at once (default: by image size)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of autocast")
    parser.add_argument("--channels-last", action="store_true", help="memory layout that many GPUs prefer")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options of the method")
    args = parser.parse_intermixed_args(argv)
    for flag in ("styles", "objects"):  # argparse gives them the options of the method that follow
        words = getattr(args, flag) or []
        args.overrides += [word for word in words if "=" in word]
        setattr(args, flag, [word for word in words if "=" not in word] or None)
    args.method = model.__name__.split(".")[-2]
    args.pairs = _pairs(args)
    return args


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _pairs(args) -> Benchmark | Folders:
    single = [flag for flag in ("content", "style") if getattr(args, flag)]
    whole = [f for f in ("protocol", "styles", "objects", "cross_object") if getattr(args, f)]
    if args.data and single:
        raise UserError(f"--data and --{single[0]}: name a data set, or a content and a style")
    if not args.data:
        if len(single) < 2:
            raise UserError("name --content and --style, or --data for the benchmark")
        if whole:
            raise UserError(f"--{whole[0].replace('_', '-')}: is for the benchmark, which --data starts")
        return Folders(args.content, args.style, args.max_side)
    mini = args.data.partition(":")[0] == "mini"
    p = protocols.load(args.protocol or ("transfer-mini" if mini else "transfer"))
    if args.cross_object:
        p = replace(p, name=f"{p.name}-cross", pairs="cross")
    return Benchmark(p, args.data, args.method, args.styles, args.objects)


def load(model, args) -> tuple[torch.nn.Module, dict[str, str]]:
    """-> the network on its device, fingerprints of its files. Raises UserError if one is missing."""
    files = {name: _find(Path(args.weights), name) for name in model.FILES}
    network = model.load(files).to(args.device)
    if args.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return network, {name: fingerprint(path) for name, path in files.items()}


def _find(folder: Path, name: str) -> Path:
    """The released file in the folder or below, also one of another training step; or beside the folder,
    where methods share an encoder."""
    if not folder.is_dir():
        raise UserError(f"--weights {folder}: no such folder")
    if (folder / name).exists():
        return folder / name
    exact = sorted(p for p in folder.rglob(name) if p.name == name)
    found = exact or sorted(p for p in folder.rglob("*") if weights.slot(p.name) == weights.slot(name))
    if not found and (folder.parent / name).exists():
        return folder.parent / name
    if not found:
        raise UserError(f"--weights {folder}: {name} is missing; put the file its authors released there")
    if len(found) > 1:
        raise UserError(f"--weights {folder}: which is {name}, {found[0]} or {found[1]}? leave one")
    return found[0]


def fingerprint(path: Path) -> str:
    """16 digits that stand for the content of a file, or of all files below a folder."""
    if path.is_file():
        return file_digest(path)
    return digest({str(p.relative_to(path)): file_digest(p) for p in path.rglob("*") if p.is_file()})


def settings(args, *functions) -> dict:
    """The keywords that a method's functions take, as the command line changes them."""
    known = {name: default for function in functions for name, default in keywords(function).items()}
    overrides = list(args.overrides)
    if args.strength is not None:
        if "strength" not in known:
            raise UserError(f"--strength: {args.method} has none")
        overrides.append(f"strength={args.strength}")
    options = OmegaConf.to_container(override(OmegaConf.create(known), overrides))
    if not 0 <= options.get("strength", 0) <= 1:
        raise UserError(f"strength={options['strength']}: lies between 0, no style, and 1")
    return options


def run(args, stylist: Stylist, options: dict, found: dict[str, str]) -> None:
    """Makes the outputs that are missing. Raises UserError at the end if some could not be made."""
    pairs, out = args.pairs, Path(args.out)
    how = {"options": options, "dtype": args.dtype, "channels_last": args.channels_last}
    size = pairs.protocol.size if args.data else 512
    manifest = agree(
        out,
        {"method": args.method, "weights": found, **how, **pairs.asked},
        "outputs",
        batch=args.batch or max(4, 36 * 64 // size),
    )
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    meter = costs.Meter(args.device)
    painter = Painter(meter.timed(stylist), pairs, out, args.device, layout)
    blocks = _first(pairs.blocks(manifest["batch"]), args.limit)
    todo = sum(block.size for _, block in blocks if not painter.done(block))
    autocast = torch.autocast(
        torch.device(args.device).type, torch.bfloat16, enabled=args.dtype == "bfloat16"
    )
    try:
        with (
            torch.inference_mode(),
            autocast,
            tqdm(total=todo, desc=f"{args.method} {out}", unit="image", disable=None) as bar,
        ):
            for claim, block in claimed(out, blocks, painter.done):
                made = painter.paint(block, claim.held)
                meter.outputs += made
                bar.update(made)
    finally:
        meter.write(out, sum(costs.size(_find(Path(args.weights), name)) for name in found))
    if painter.failed:
        raise UserError(_report(painter.failed, out))
    if left := sum(not painter.done(block) for _, block in blocks):
        raise UserError(
            f"{out}: {left} batches are with other processes; run this command again when they end"
        )


def _first(blocks, limit: int | None) -> list:
    """Blocks up to `limit` pairs, the last one whole."""
    first, count = [], 0
    for key, block in blocks:
        if limit is not None and count >= limit:
            break
        first.append((key, block))
        count += block.size
    return first


def _report(failed: dict[str, str], out: Path) -> str:
    lines = [text if text.startswith(name) else f"{name}: {text}" for name, text in failed.items()]
    lines = [f"\n  {line}" for line in lines[:LISTED]] + ["\n  ..."] * (len(lines) > LISTED)
    return f"{out}: {len(failed)} inputs could not be used, all else is done:{''.join(lines)}"
