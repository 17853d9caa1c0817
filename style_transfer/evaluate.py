"""Judges a method's outputs: distances from ground truth, photo and reference, and what the classifiers see

    python -m style_transfer.evaluate runs/mini/sanet [MORE ...] [--variant published]

Every output becomes a row of `losses.csv.gz`; `losses.json` holds means and deviations (core/statistics.py).
Any folder of {style}/{object}_test{n}_ref{n}.jpg or .png can be judged, with --data. Run it again to go on,
or several at once to share the work: rows are kept for every style and object (core/cells.py).

Only all outputs of the protocol make `losses`. What --styles and --objects choose, and what is there where
outputs are missing or cannot be read, which ends in exit code 2, is `losses-partial`; no table takes it.

`published` is what the benchmark's two scripts compute (core/judges.py), in files called `losses-published`.
Its VGG figures are no distances: a perfect output gets the floor that is printed beside them.
"""

import argparse
from pathlib import Path

from evaluation.core import flags
from evaluation.core.errors import UserError, command, early
from style_transfer.core.cli import new_parser
from style_transfer.core.outputs import add_flags, read_outputs

FILES = {
    "vgg": "normalised VGG-19, of any widths",
    "stytr2": "published: folder of StyTr2's files (default: beside --vgg)",
    "style_classifier": "default: the miniature's or published one",
    "object_classifier": "the same",
    "lpips": "torchvision's VGG-16 or AlexNet, for LPIPS",
    "inception": "for FID and ArtFID: also ArtFID's own",
    "style_encoder": "CSD's file, or a folder with CLIP or DINO",
    "content_encoder": "the same, for the content",
}
EXTRA = ("lpips", "inception", "style_encoder", "content_encoder")  # there only if named
FOLDERS = ("stytr2", "style_encoder", "content_encoder")


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def parse(argv=None) -> argparse.Namespace:
    """The flags, and `opened`: folder -> its Outputs."""
    parser = new_parser("evaluate", __doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="outputs of one method")
    parser.add_argument("--variant", default="canvas", choices=["canvas", "published"])
    add_flags(parser)
    parser.add_argument("--partial", action="store_true", help="missing outputs are no fault")
    for name, what in FILES.items():
        parser.add_argument(flag(name), metavar="PATH" if name in FOLDERS else "FILE", help=what)
    parser.add_argument("--batch", type=flags.whole(), help="images at once (default: by image size)")
    parser.add_argument("--dtype", choices=["float32", "float16"], help="default: float16 on a GPU")
    flags.add_device(parser)
    args = parser.parse_args(argv)
    args.opened = {folder: read_outputs(folder, args) for folder in args.folders}
    for name in FILES:
        path = getattr(args, name)
        if path and not (Path(path).exists() if name in FOLDERS else Path(path).is_file()):
            what = "no such file or folder" if name in FOLDERS else "no such file"
            raise UserError(f"{flag(name)} {path}: {what}")
    args.extra = [name for name in EXTRA if getattr(args, name)]
    if args.variant == "published" and args.dtype == "float16":
        raise UserError("--dtype float16: the published losses are those of float32; leave it out")
    if args.variant == "published" and args.extra:
        names = ", ".join(map(flag, args.extra))
        raise UserError(f"{names}: the published losses know no such judge; leave it out")
    return args


early(__name__, parse)

import importlib
import sys

import torch

from evaluation.core.environment import find_device, made_with
from evaluation.core.files import write_json
from evaluation.core.pools import threads
from style_transfer.core import cells, costs, judges, judging, opening, perceptual, weights
from style_transfer.core.pairs import Benchmark
from style_transfer.core.statistics import results

COLUMNS = 2  # counted up where other things are measured
LISTED = 20  # faults that are printed; the JSON file has all


def open_stytr2(folder: Path, device: str) -> tuple[torch.nn.Module, dict[str, Path]]:
    """The network that the published losses paint with, and its files; raises UserError."""
    model = importlib.import_module("style_transfer.stytr2.model")  # all else does without this folder
    slots = {weights.slot(name) for name in model.FILES}
    files = {path.name: path for path in sorted(folder.iterdir()) if weights.slot(path.name) in slots}
    return model.load(files).to(device), files


def open_work(folder: Path, args) -> tuple[Path, dict, list[judges.Judge], int]:
    """Opens the judges; -> where their rows lie, what stands for them, the judges, images at once."""
    protocol, data, _ = args.opened[folder]
    published, network = args.variant == "published", None
    files, device = opening.find_files(protocol, args), find_device(args.device)
    if published and files["vgg"]:
        network, found = open_stytr2(Path(args.stytr2 or files["vgg"].parent), device)
        files |= found
    on_gpu = device != "cpu" and not published
    dtype = args.dtype or ("float16" if on_gpu else "float32")
    opened = opening.open_judges(protocol, files, network, published, device, getattr(torch, dtype))
    known = {name: path and weights.fingerprint(path) for name, path in files.items()}
    identity = {"variant": args.variant, "protocol": {"name": protocol.name, "hash": protocol.hash}}
    identity |= {"data": data, "judges": known, "dtype": dtype, "columns": COLUMNS}
    usual = max(8, 64 * 64 // protocol.size)
    first = {"batch": args.batch or usual, "made_with": made_with(device)}
    work, agreed = cells.open_folder(folder, identity, **first)
    return work, identity, opened, agreed["batch"]


def evaluate(folder: Path, args) -> tuple[dict, str | None]:
    """Judges a folder and writes its two files; -> what is in the JSON, and what is at fault."""
    protocol, data, manifest = args.opened[folder]
    selection = {name: getattr(args, name) for name in ("styles", "objects")}
    benchmark = Benchmark(protocol, data, "", **selection)
    wanted = judging.cells(folder, benchmark)
    if not any(pair["output"].exists() for cell in wanted for pair in cell.pairs):
        raise UserError(f"{folder}: none of the outputs is there, such as {wanted[0].pairs[0]['output']}")
    work, identity, opened, batch = open_work(folder, args)
    device, dtype = find_device(args.device), getattr(torch, identity["dtype"])
    with threads(8) as pool:
        panel = judging.Panel(opened, benchmark, pool, device, dtype, batch)
        faults = cells.judge(work, wanted, panel, str(folder))
    rows = cells.read(work, wanted)
    pairs = len(protocol.styles) * len(protocol.objects) * len(wanted[0].pairs)
    about = {key: value for key, value in identity.items() if key != "columns"}
    about |= {"made": {key: manifest.get(key) for key in ("method", "weights", "options")}}
    about |= {"selection": selection, "outputs": len(rows.table), "of": pairs, "faults": faults}
    about |= figures(rows) | costs.summed(folder) | {"made_with": made_with(device)}
    whole = not any(selection.values()) and all(cells.done(work, cell) for cell in wanted)
    name = "losses" + "-published" * (args.variant == "published") + "-partial" * (not whole)
    if len(rows.table):
        cells.write_table(folder / f"{name}.csv.gz", rows.table)
        write_json(folder / f"{name}.json", about)
    return about, fault(folder, about, sum(len(cell.pairs) for cell in wanted), args.partial)


def figures(rows: cells.Rows) -> dict:
    """What the rows say, as far as there are any."""
    if not len(rows.table):
        return {}
    about = results(rows.table)
    means = {column: summary["mean"] for column, summary in about["summary"].items()}
    found = perceptual.figures(means, rows.outputs, rows.references)
    return about | ({"perceptual": found} if found else {})


def fault(folder: Path, about: dict, wanted: int, partial: bool) -> str | None:
    """What to tell of outputs that have no row."""
    faults = about["faults"]
    if partial:
        faults = {path: reason for path, reason in faults.items() if Path(path).exists()}
    if not faults and (partial or about["outputs"] == wanted):
        return None
    lines = [f"\n  {reason}" for reason in [*faults.values()][:LISTED]] + ["\n  ..."] * (len(faults) > LISTED)
    others = wanted - about["outputs"] - len(about["faults"])
    waiting = f"; {others} are with other processes" if others > 0 else ""
    fate = f"{len(faults)} of {wanted} outputs could not be judged{waiting}"
    remedy = "make them with the method's transfer command and run this again"
    return f"{folder}: {fate}; {remedy}:{''.join(lines)}"


def show(folder: Path, about: dict) -> None:
    count = f"{about['outputs']} of {about['of']} outputs"
    print(f"{folder}: {count}, variant {about['variant']}, protocol {about['protocol']['name']}")
    print(f"{'':26}{'mean':>10}{'std style':>12}{'object':>10}{'content':>10}")
    for column, figures in about.get("summary", {}).items():
        print(f"{column:26}" + "".join(f"{v:{w}.4f}" for v, w in zip(figures.values(), (10, 12, 10, 10))))
    if lacking := [flag(name) for name, found in about["judges"].items() if not found]:
        print(f"not all was measured, for want of a file: {', '.join(lacking)}")
    for task in ("style", "object"):
        if task in about.get("accuracy", {}):
            print(f"{task} seen as asked in {about['accuracy'][task]:.1%} of {about['accuracy']['outputs']}")
    if "perceptual" in about:
        print(", ".join(f"{name} {value:.4f}" for name, value in about["perceptual"].items()))
    if cost := about.get("cost"):
        seconds = f"{cost['seconds_network']:.4f} s an output in the network, {cost['seconds']:.4f} in all"
        print(f"{seconds}; {cost['peak_memory'] / 1e9:.2f} GB, {cost['stored_bytes'] / 1e6:.1f} MB stored")


@command
def main(argv=None):
    args = parse(argv)
    faults = []
    for folder in args.folders:
        about, fault_of_folder = evaluate(folder, args)
        show(folder, about)
        faults += [fault_of_folder] if fault_of_folder else []
    if faults:
        sys.stdout.flush()
        raise UserError("\n".join(faults))


if __name__ == "__main__":
    main()
