"""Judges a method's outputs: style and content losses, and what the classifiers see

    python -m style_transfer.evaluate runs/mini/sanet [MORE ...] [--variant published]

Every output becomes a row of `losses.csv.gz`; `losses.json` holds means and deviations (core/statistics.py).
Any folder of {style}/{object}_test{n}_ref{n}.jpg or .png can be judged, with --data.

`published` is what the benchmark's two scripts compute (core/judges.py), in files called `losses-published`.
Its VGG figures are no distances: a perfect output gets the floor that is printed beside them.
"""

import argparse
from pathlib import Path

from evaluation.core import flags
from evaluation.core.errors import UserError, command, early
from style_transfer.core.outputs import read_outputs


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
    parser.add_argument("--partial", action="store_true", help="judge what is there if outputs are missing")
    parser.add_argument("--vgg", metavar="FILE", help="normalised VGG-19, of any widths")
    parser.add_argument("--stytr2", metavar="DIR", help="published: StyTr2's files (default: beside --vgg)")
    parser.add_argument(
        "--style-classifier", metavar="FILE", help="default: the miniature's or published one"
    )
    parser.add_argument("--object-classifier", metavar="FILE")
    parser.add_argument("--lpips", nargs=2, metavar="FILE", help="VGG-16 or AlexNet; LPIPS's weights for it")
    parser.add_argument("--inception", metavar="FILE", help="for FID and ArtFID")
    parser.add_argument("--batch", type=flags.whole(), help="outputs judged at once (default: by image size)")
    flags.add_device(parser)
    args = parser.parse_args(argv)
    args.opened = {folder: read_outputs(folder, args) for folder in args.folders}
    given = {
        name: getattr(args, name) for name in ("vgg", "style_classifier", "object_classifier", "inception")
    }
    for name, file in [*given.items(), *(("lpips", file) for file in args.lpips or ())]:
        if file and not Path(file).is_file():
            raise UserError(f"--{name.replace('_', '-')} {file}: no such file")
    if args.stytr2 and not Path(args.stytr2).is_dir():
        raise UserError(f"--stytr2 {args.stytr2}: no such folder")
    if args.variant == "published" and (args.lpips or args.inception):
        raise UserError("--lpips, --inception: the published losses know neither; leave them out")
    return args


early(__name__, parse)

import importlib
import math

import torch
from tqdm import tqdm

from evaluation import canvas
from evaluation.core.environment import find_device, made_with
from evaluation.core.files import file_digest, write_json
from evaluation.core.pools import threads
from evaluation.judges import judging
from evaluation.judges.classifier import TASKS, load_classifier
from evaluation.mini.objects import SIZE as MINI_SIZE
from style_transfer.core import costs, losses, perceptual, weights
from style_transfer.core.judges import Court, Direct, Published
from style_transfer.core.pairs import Benchmark
from style_transfer.core.statistics import results, write_rows

DEFAULTS = {  # whether the outputs are the miniature's -> VGG, style classifier, object classifier
    True: ("checkpoints/mini/style_transfer/vgg_normalised.pth", *judging.MINI),
    False: ("checkpoints/style_loss_vgg/vgg_normalised.pth", *judging.PUBLISHED),
}


def find_outputs(folder: Path, pairs: Benchmark, partial: bool) -> tuple[dict, int]:
    """-> (content, reference) -> file, how many there should be. Raises UserError if some are missing."""
    blocks = (block for _, block in pairs.blocks(1))
    wanted = {
        (c, s): folder / pairs.path(c, s) for block in blocks for c in block.contents for s in block.styles
    }
    found = {pair: path for pair, path in wanted.items() if path.exists()}
    if not found or (len(found) < len(wanted) and not partial):
        first = next(path for path in wanted.values() if not path.exists())
        raise UserError(
            f"{folder}: {len(wanted) - len(found)} of {len(wanted)} outputs are missing, first "
            f"{first.relative_to(folder)}; make them with the method's transfer.py, name --styles or "
            "--objects, or judge those that are there with --partial"
        )
    return found, len(wanted)


def find_files(pairs: Benchmark, args) -> dict[str, Path | None]:
    """The judges' files; None for one that is neither named nor where it is looked for. Raises UserError."""
    flags = ["vgg", "style_classifier", *(["object_classifier"] if args.variant == "canvas" else [])]
    files, defaults = {}, DEFAULTS[pairs.protocol.size == MINI_SIZE]
    for flag, default in zip(flags, defaults):
        given = getattr(args, flag)
        files[flag] = Path(given or default) if given or Path(default).exists() else None
    extra = {"lpips": args.lpips and args.lpips[0], "lpips_linear": args.lpips and args.lpips[1]}
    files |= {name: Path(file) for name, file in (extra | {"inception": args.inception}).items() if file}
    if not any(files.values()):
        raise UserError(f"nothing to judge with; name --vgg or a classifier, or put {defaults[0]} there")
    return files


def fid_files(pairs: Benchmark, files: dict) -> list[Path]:
    """Whose features FID compares: Inception's, in the miniature the two classifiers'; [] for no FID."""
    if "inception" in files:
        return [files["inception"]]
    judges = [files[f"{task}_classifier"] for task in TASKS]
    return judges if pairs.protocol.size == MINI_SIZE and all(judges) else []


def open_judge(pairs: Benchmark, files: dict, args, device: str) -> Direct | Published:
    """With the files found; adds those of StyTr2 to them."""
    parts = {"encoder": losses.load_encoder(files["vgg"]).to(device) if files["vgg"] else None}
    names = {"style": [s for s in pairs.styles if s in canvas.STYLES], "object": pairs.objects}
    for task, known in names.items():
        path, parts[task] = files.get(f"{task}_classifier"), None
        if path:
            parts[task] = load_classifier(path, task, device=device)
            judging.check_labels(parts[task], known, str(path), pairs.protocol)
    if args.variant == "canvas":
        if "lpips" in files:
            parts["perceptual"] = perceptual.lpips(files["lpips"], files["lpips_linear"], device)
        elif pairs.protocol.size == MINI_SIZE and parts["encoder"]:
            parts["perceptual"] = perceptual.miniature(parts["encoder"])
        return Direct(pairs.protocol.size, **parts)
    network = None
    if parts["encoder"]:
        network, found = load_stytr2(Path(args.stytr2 or files["vgg"].parent))
        network.to(device)
        files |= found
    return Published(pairs.protocol.size, parts["encoder"], network, parts["style"])


def load_stytr2(folder: Path) -> tuple[torch.nn.Module, dict[str, Path]]:
    """The network that the published losses paint with, and its files; raises UserError."""
    model = importlib.import_module("style_transfer.stytr2.model")  # all else does without this folder
    slots = {weights.slot(name) for name in model.FILES}
    files = {path.name: path for path in sorted(folder.iterdir()) if weights.slot(path.name) in slots}
    return model.load(files), files


def evaluate(folder: Path, args) -> dict:
    """Judges a folder, writes its two files, returns what is in the JSON; raises UserError."""
    protocol, data, manifest = args.opened[folder]
    # ground truth and references are resized alike for all methods
    pairs = Benchmark(protocol, data, "", args.styles, args.objects)
    outputs, wanted = find_outputs(folder, pairs, args.partial)
    files, device = find_files(pairs, args), find_device(args.device)
    blocks = [block for _, block in pairs.blocks(args.batch or max(8, 64 * 64 // protocol.size))]
    judge, rows = open_judge(pairs, files, args, device), []
    with threads(8) as pool, tqdm(total=len(outputs), desc=str(folder), unit="image", disable=None) as bar:
        court = Court(judge, pairs, outputs, device, pool)
        ahead = court.begin(blocks[0])
        for number, block in enumerate(blocks, 1):
            reading, ahead = ahead, court.begin(blocks[number]) if number < len(blocks) else {}
            judged = court.rows(block, reading)
            rows += judged
            bar.update(len(judged))
    judges = {name: path and file_digest(path) for name, path in files.items()}
    made = {key: manifest.get(key) for key in ("method", "weights", "options")}
    named = {"name": protocol.name, "hash": protocol.hash}
    about = {"variant": args.variant, "protocol": named, "data": data, "judges": judges}
    about |= {"made": made, "outputs": len(outputs), "of": wanted} | results(rows)
    if args.variant == "canvas":
        seen_by = fid_files(pairs, files)
        about |= perceptual.figures(judge.perceptual, rows, outputs, court.picture, seen_by, device)
    for name, value in about.get("perceptual", {}).items():
        if not math.isfinite(value):
            raise UserError(f"{folder}: its {name} is {value}; name other files of the judges")
    about |= costs.summed(folder) | {"made_with": made_with(device)}
    name = "losses" if args.variant == "canvas" else "losses-published"
    write_rows(folder / f"{name}.csv.gz", rows)
    write_json(folder / f"{name}.json", about)
    return about


def show(folder: Path, about: dict) -> None:
    count = f"{about['outputs']} of {about['of']} outputs"
    print(f"{folder}: {count}, variant {about['variant']}, protocol {about['protocol']['name']}")
    print(f"{'':22}{'mean':>10}{'std style':>12}{'object':>10}{'content':>10}")
    for column, figures in about["summary"].items():
        print(f"{column:22}" + "".join(f"{v:{w}.4f}" for v, w in zip(figures.values(), (10, 12, 10, 10))))
    if lacking := [f"--{flag.replace('_', '-')}" for flag, found in about["judges"].items() if not found]:
        print(f"not all was measured, for want of a file: {', '.join(lacking)}")
    for task in ("style", "object"):
        if task in about["accuracy"]:
            print(f"{task} seen as asked in {about['accuracy'][task]:.1%} of {about['accuracy']['outputs']}")
    if "perceptual" in about:
        print(", ".join(f"{name} {value:.4f}" for name, value in about["perceptual"].items()))
    if cost := about.get("cost"):
        seconds = f"{cost['seconds_network']:.4f} s an output in the network, {cost['seconds']:.4f} in all"
        print(f"{seconds}; {cost['peak_memory'] / 1e9:.2f} GB, {cost['stored_bytes'] / 1e6:.1f} MB stored")


@command
def main(argv=None):
    args = parse(argv)
    for folder in args.folders:
        show(folder, evaluate(folder, args))


if __name__ == "__main__":
    main()
