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
from style_transfer.core.outputs import read_outputs

EXTRA = ("lpips", "inception", "style_encoder", "content_encoder")  # there only if named
FOLDERS = ("stytr2", "style_encoder", "content_encoder")
FILES = ("vgg", "stytr2", "style_classifier", "object_classifier", *EXTRA)


def parse(argv=None) -> argparse.Namespace:
    """The flags, and `opened`: folder -> its Outputs."""
    parser = argparse.ArgumentParser(
        prog="python -m style_transfer.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="outputs of one method")
    parser.add_argument("--variant", default="canvas", choices=["canvas", "published"])
    parser.add_argument(
        "--data", type=flags.data_set, help="the data set (default: as the folder's manifest says)"
    )
    parser.add_argument("--protocol", help="of a folder without manifest (default: transfer, transfer-mini)")
    parser.add_argument("--styles", nargs="+", help="judge only these")
    parser.add_argument("--objects", nargs="+", help="judge only these")
    parser.add_argument("--partial", action="store_true", help="missing outputs are no fault")
    parser.add_argument("--vgg", metavar="FILE", help="normalised VGG-19, of any widths")
    parser.add_argument("--stytr2", metavar="DIR", help="published: StyTr2's files (default: beside --vgg)")
    parser.add_argument(
        "--style-classifier", metavar="FILE", help="default: the miniature's or published one"
    )
    parser.add_argument("--object-classifier", metavar="FILE")
    parser.add_argument("--lpips", metavar="FILE", help="torchvision's VGG-16 or AlexNet, for LPIPS")
    parser.add_argument("--inception", metavar="FILE", help="for FID and ArtFID: also ArtFID's own")
    parser.add_argument("--style-encoder", metavar="PATH", help="CSD's file, or a folder with CLIP or DINO")
    parser.add_argument("--content-encoder", metavar="PATH", help="the same, for the content")
    parser.add_argument("--batch", type=flags.whole(), help="images at once (default: by image size)")
    parser.add_argument("--dtype", choices=["float32", "float16"], help="default: float16 on a GPU")
    flags.add_device(parser)
    args = parser.parse_args(argv)
    args.opened = {folder: read_outputs(folder, args) for folder in args.folders}
    for name in FILES:
        path = getattr(args, name)
        if path and not (Path(path).exists() if name in FOLDERS else Path(path).is_file()):
            what = "no such file or folder" if name in FOLDERS else "no such file"
            raise UserError(f"--{name.replace('_', '-')} {path}: {what}")
    if args.variant == "published" and (extra := [name for name in EXTRA if getattr(args, name)]):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in extra)
        raise UserError(f"{names}: the published losses know no such judge; leave it out")
    return args


early(__name__, parse)

import importlib
import sys

import torch

from evaluation import canvas
from evaluation.core.environment import find_device, made_with
from evaluation.core.files import digest, file_digest, write_json
from evaluation.core.pools import threads
from evaluation.judges import judging as classifiers
from evaluation.judges.classifier import load_classifier
from evaluation.mini.objects import SIZE as MINI_SIZE
from style_transfer import protocol as protocols
from style_transfer.core import cells, costs, embeddings, judges, judging, losses, perceptual
from style_transfer.core.statistics import results

DEFAULTS = {  # whether the outputs are the miniature's -> VGG, style classifier, object classifier
    True: ("checkpoints/mini/style_transfer/vgg_normalised.pth", *classifiers.MINI),
    False: ("checkpoints/style_loss_vgg/vgg_normalised.pth", *classifiers.PUBLISHED),
}
LISTED = 20  # faults that are printed; the JSON file has all


def is_miniature(protocol: protocols.TransferProtocol) -> bool:
    return protocol.size == MINI_SIZE


def find_files(protocol: protocols.TransferProtocol, args) -> dict[str, Path | None]:
    """The judges' files; None for one that is neither named nor where it is looked for. Raises UserError."""
    names = ["vgg", "style_classifier", *(["object_classifier"] if args.variant == "canvas" else [])]
    files, defaults = {}, DEFAULTS[is_miniature(protocol)]
    for name, default in zip(names, defaults):
        given = getattr(args, name)
        files[name] = Path(given or default) if given or Path(default).exists() else None
    files |= {name: Path(getattr(args, name)) for name in EXTRA if getattr(args, name)}
    if not any(files.values()):
        raise UserError(f"nothing to judge with; name --vgg or a classifier, or put {defaults[0]} there")
    return files


def open_classifiers(protocol: protocols.TransferProtocol, files: dict, device: str, dtype) -> list:
    """Those of style and object that there are, in this order; raises UserError if one lacks a label."""
    known = {"style": [s for s in protocol.styles if s in canvas.STYLES], "object": protocol.objects}
    opened = []
    for task, names in known.items():
        if path := files.get(f"{task}_classifier"):
            opened.append(load_classifier(path, task, device=device).to(dtype))
            classifiers.check_labels(opened[-1], names, str(path), protocol)
    return opened


def open_judges(protocol: protocols.TransferProtocol, files: dict, device: str, dtype) -> list[judges.Judge]:
    """All that there are files of."""
    size, miniature, panel = protocol.size, is_miniature(protocol), [judges.pixels(protocol.size)]
    if files["vgg"]:
        encoder = losses.load_encoder(files["vgg"]).to(device, dtype)
        panel.append(judges.vgg(encoder, size, miniature and "lpips" not in files))
    opened = open_classifiers(protocol, files, device, dtype)
    stand_in = miniature and len(opened) == 2 and "inception" not in files  # for Inception
    panel += [judges.classifier(network, stand_in) for network in opened]
    if "lpips" in files:
        panel.append(judges.lpips(perceptual.load_lpips(files["lpips"]).to(device, dtype), size))
    for kind in ("style", "content"):
        if path := files.get(f"{kind}_encoder"):
            name, embed = embeddings.load(path, f"--{kind}-encoder", device, dtype)
            panel.append(judges.embedding(embed, name, kind, size))
    if "inception" in files:
        panel.append(judges.inception(perceptual.extractor(files["inception"], device), size))
    return panel


def open_published(
    protocol: protocols.TransferProtocol, files: dict, args, device: str
) -> list[judges.Judge]:
    """Those of the released scripts; adds the files of StyTr2 to `files`."""
    panel = []
    if files["vgg"]:
        encoder, folder = losses.load_encoder(files["vgg"]), Path(args.stytr2 or files["vgg"].parent)
        model = importlib.import_module("style_transfer.stytr2.model")  # all else does without this folder
        found = {path.name: path for path in sorted(folder.iterdir()) if path.name in model.FILES}
        network = model.load(found).to(device)
        panel.append(judges.published_vgg(encoder.to(device), network, protocol.size))
        files |= found
    styles = {"style_classifier": files["style_classifier"]}
    opened = open_classifiers(protocol, styles, device, torch.float32)
    return panel + [judges.published_classifier(network) for network in opened]


def fingerprint(path: Path) -> str:
    """Of a file, or of the weights and configuration in a folder."""
    if path.is_file():
        return file_digest(path)
    return digest([file_digest(p) for p in sorted(path.iterdir()) if p.suffix in (".json", ".safetensors")])


def evaluate(folder: Path, args) -> tuple[dict, str | None]:
    """Judges a folder and writes its two files; -> what is in the JSON, and what is at fault."""
    protocol, data, manifest = args.opened[folder]
    styles = protocols.chosen(args.styles, protocol.styles, "--styles")
    objects = protocols.chosen(args.objects, protocol.objects, "--objects")
    files, device = find_files(protocol, args), find_device(args.device)
    published, on_gpu = args.variant == "published", device != "cpu"
    dtype = "float32" if published else args.dtype or ("float16" if on_gpu else "float32")
    if published:
        panel = open_published(protocol, files, args, device)
    else:
        panel = open_judges(protocol, files, device, getattr(torch, dtype))
    wanted = judging.cells(folder, protocol, styles, objects)
    there = sum(pair["output"].exists() for cell in wanted for pair in cell.pairs)
    if not there:
        raise UserError(f"{folder}: none of the outputs is there, such as {wanted[0].pairs[0]['output']}")
    identity = {"variant": args.variant, "protocol": {"name": protocol.name, "hash": protocol.hash}}
    identity |= {"data": data, "judges": {name: path and fingerprint(path) for name, path in files.items()}}
    identity |= {"dtype": dtype, "columns": 2}  # what is measured; counted up where that changes
    batch = args.batch or max(8, 64 * 64 // protocol.size)
    work, agreed = cells.open_folder(folder, identity, batch=batch)
    with threads(8) as pool:
        images = judging.Images(protocol, data, {judge.size for judge in panel}, pool)
        panel = judging.Panel(panel, images, device, getattr(torch, dtype), max(1, agreed["batch"]))
        faults = cells.judge(work, wanted, panel, str(folder))
    rows = cells.read(work, wanted)
    whole = all(cells.done(work, cell) for cell in wanted)
    selection = {name: getattr(args, name) for name in ("styles", "objects")}
    name = "losses" + "-published" * published
    name += "-partial" * (not whole or any(selection.values()))
    total = len(judging.cells(folder, protocol, protocol.styles, protocol.objects)) * len(wanted[0].pairs)
    about = {key: value for key, value in identity.items() if key != "columns"}
    about |= {"made": {key: manifest.get(key) for key in ("method", "weights", "options")}}
    about |= {"selection": selection, "outputs": len(rows.table), "of": total, "faults": faults}
    if len(rows.table):
        about |= results(rows.table)
        means = {column: figures["mean"] for column, figures in about["summary"].items()}
        if found := perceptual.figures(means, rows.outputs, rows.references):
            about["perceptual"] = found
    about |= costs.summed(folder) | {"made_with": made_with(device)}
    if len(rows.table):
        cells.write_table(folder / f"{name}.csv.gz", rows.table)
        write_json(folder / f"{name}.json", about)
    return about, fault(folder, about, sum(len(cell.pairs) for cell in wanted), args.partial)


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
    remedy = "make them with the method's transfer command and run this again"
    return (
        f"{folder}: {len(faults)} of {wanted} outputs could not be judged{waiting}; {remedy}:{''.join(lines)}"
    )


def show(folder: Path, about: dict) -> None:
    count = f"{about['outputs']} of {about['of']} outputs"
    print(f"{folder}: {count}, variant {about['variant']}, protocol {about['protocol']['name']}")
    print(f"{'':26}{'mean':>10}{'std style':>12}{'object':>10}{'content':>10}")
    for column, figures in about.get("summary", {}).items():
        print(f"{column:26}" + "".join(f"{v:{w}.4f}" for v, w in zip(figures.values(), (10, 12, 10, 10))))
    if lacking := [f"--{flag.replace('_', '-')}" for flag, found in about["judges"].items() if not found]:
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
