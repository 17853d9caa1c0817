"""What a method's transfer.py does once its flags are read: loads the network, makes the outputs

Run a command again to go on, or several at once to share the work; with other weights, options or pairs it is
refused.
"""

import contextlib
from pathlib import Path

import torch
from tqdm import tqdm

from evaluation.answers.claims import agree, claimed
from evaluation.core.environment import find_device, made_with
from evaluation.core.errors import UserError
from evaluation.core.files import digest, file_digest
from evaluation.core.pools import threads
from style_transfer.core import costs, weights
from style_transfer.core.pairs import Benchmark, Folders
from style_transfer.core.run import Painter, Stylist, stylist

LISTED = 50  # failures spelled out at the end


def main(args, model) -> None:
    """`args` of cli.py; `model`: a method's module with FILES and `load`."""
    network, found = load(model, args)
    run(args, stylist(network, args.options), found)


def load(model, args) -> tuple[torch.nn.Module, dict[str, str]]:
    """-> the network on its device, fingerprints of its files. Raises UserError if one is missing."""
    device = find_device(args.device)
    files = {name: _find(Path(args.weights), name) for name in model.FILES}
    network = model.load(files).to(device)
    if args.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return network, {name: fingerprint(path) for name, path in files.items()}


def _find(folder: Path, name: str) -> Path:
    """The released file in the folder or below, also one of another training step; or beside the folder,
    where methods share an encoder."""
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


def run(args, stylist: Stylist, found: dict[str, str]) -> None:
    """Makes the outputs that are missing. Raises UserError at the end if some could not be made."""
    pairs, out, device = open_pairs(args), Path(args.out), find_device(args.device)
    how = {"options": args.options, "dtype": args.dtype, "channels_last": args.channels_last}
    size = pairs.protocol.size if args.data else 512
    manifest = agree(
        out,
        {"method": args.method, "weights": found, **how, **pairs.asked},
        "outputs",
        batch=args.batch or max(4, 36 * 64 // size),
        made_with=made_with(device),
    )
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    meter = costs.Meter(device)
    blocks = _first(pairs.blocks(manifest["batch"]), args.limit)
    autocast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=args.dtype == "bfloat16")
    with threads(8) as pool:  # Pillow reads and writes outside Python's lock
        painter = Painter(meter.timed(stylist), pairs, out, device, pool, layout)
        todo = sum(block.size for _, block in blocks if not painter.done(block))
        bar = tqdm(total=todo, desc=f"{args.method} {out}", unit="image", disable=None)
        try:
            claims = contextlib.closing(claimed(out, blocks, painter.done))  # lets go of the last if stopped
            with torch.inference_mode(), autocast, bar, claims as mine:
                for claim, block in mine:
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


def open_pairs(args) -> Benchmark | Folders:
    if args.data:
        return Benchmark(args.protocol, args.data, args.method, args.styles, args.objects)
    return Folders(args.content, args.style, args.max_side)


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
