"""FID and KID: how far the generated images are from the real ones, in the features of a network

    python -m evaluation.fid runs/esd/Sketch/answers --data mini

What was unlearned is left out of both sets: beside a run, its target; of a base model's images first nothing,
then every target of the protocol, since its row in a table leaves out what a method's row leaves out.
`fid.json` holds the values by what is left out, and their origin: network, contents of the real images (not
where they lie), protocol, and the images measured. Features are computed once per image and kept.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np

from evaluation import canvas
from evaluation.answers.answer_set import protocol_of, target_of
from evaluation.core import flags
from evaluation.core.errors import UserError, command, early
from evaluation.core.files import file_digest, write_json
from evaluation.metrics.distances import FEWEST, FID, WEIGHTS, distances, read_distances
from evaluation.metrics.figures import check_targets
from evaluation.mini.dataset import check_drawn
from evaluation.protocol import Protocol

SHOWN = 2  # values that are printed; the base model has one for every style and object


def choices(folder: Path, asked: list[str], protocol: Protocol) -> dict[str, list[canvas.Target]]:
    """What is left out of an answer set, in turn, by its name in `fid.json`; raises UserError."""
    made = target_of(folder)
    texts = [target_of(folder, text) for text in asked] or ([made] if made else ["", *protocol.everything])
    parsed = [canvas.parse_targets(text) if text else [] for text in texts]
    for targets in parsed:
        check_targets(targets, protocol)
    return {",".join(map(str, targets)): targets for targets in parsed}


def parse(argv=None) -> argparse.Namespace:
    counts = ", ".join(f"{count} ({name})" for name, count in FEWEST.items())
    about = f"FID, from {counts} real and generated images, and KID, from two of every cell."
    left = "what is left out, may be repeated (default: what its run unlearned; without a run, nothing, then "
    left += "every style and object)"
    data = "real images: folder {theme}/{object}/{n}.jpg, parquet shards, or mini; copies that prepare made "
    data += "are taken but marked, and compare with no value of the originals"
    parser = argparse.ArgumentParser("python -m evaluation.fid", description=about)
    parser.add_argument("answers", type=Path, help="folder of the answer set")
    parser.add_argument("--target", action="append", default=[], help=left)
    parser.add_argument("--data", required=True, help=data)
    parser.add_argument("--weights", nargs="+", metavar="FILE", help="the extractor's, else in checkpoints/")
    cache = "for features of real images"
    parser.add_argument("--cache", type=flags.new_path, default="runs/cache", help=cache)
    flags.add_device(parser)
    args = parser.parse_args(argv)
    protocol = protocol_of(args.answers)
    choices(args.answers, args.target, protocol)
    flags.data_set(args.data)
    args.files = [Path(file) for file in args.weights or WEIGHTS[protocol.fid_extractor]]
    if len(args.files) != (count := len(WEIGHTS[protocol.fid_extractor])):
        raise UserError(f"--weights: {count} files are needed by the extractor {protocol.fid_extractor}")
    args.missing = [file for file in args.files if not file.exists()]
    if not args.missing:
        check_drawn(args.data, protocol)
    return args


early(__name__, parse)

from evaluation.core.environment import find_device, made_with
from evaluation.judges import features


def kept(cells, targets: list[canvas.Target]) -> np.ndarray:
    """Which of the cells (theme, object) show no target: a mask."""
    return np.array([not any(target.covers(*cell) for target in targets) for cell in cells])


def measure(folder: Path, asked: list[str], data: str, files: list[Path], device: str, cache: Path):
    """-> what `fid.json` is to hold, and names of its new values; others stay if they are of the same origin.

    `files` are the weights of the protocol's extractor, `cache` a folder for features of real images. None if
    images are needed that were removed after they were judged.
    """
    protocol = protocol_of(folder)
    left_out, images = choices(folder, asked, protocol), features.real_images(data, protocol)
    name, weights = protocol.fid_extractor, [file_digest(file) for file in files]
    extractor = features.open_extractor(protocol, files, weights, device)
    generated = features.generated_features(folder, protocol, weights, extractor)
    real = features.real_features(images, protocol, weights, extractor, cache)
    origin = {"extractor": name, "weights": weights, "data": data, "data_digest": real.digest}
    origin |= {"protocol": protocol.hash, "images": generated.digest}
    if images.prepared:
        origin["prepared"] = images.prepared
    content = {"origin": origin, "values": known_values(folder, origin), "made_with": made_with(device)}
    if new := [key for key in left_out if key not in content["values"]]:
        if generated.array is None:
            return None
        cells = list(product(protocol.themes, protocol.objects))
        masks = np.array([kept(cells, left_out[key]) for key in new])
        theirs = real.array.reshape(len(cells), len(protocol.fid_images), -1)
        ours = generated.array.reshape(len(protocol.seeds), len(cells), -1).swapaxes(0, 1)  # seed after seed
        content["values"] |= dict(zip(new, distances(theirs, ours, masks, FEWEST[name])))
    return content, new


def known_values(folder: Path, origin: dict) -> dict:
    """Those measured before, unless that was of another origin; the data may lie elsewhere now."""
    try:
        before = read_distances(folder)
    except UserError:  # is measured anew
        before = None
    same = before and before["origin"] | {"data": origin["data"]} == origin
    return before["values"] if same else {}


def sentence(key: str, value: dict, extractor: str) -> str:
    """What the command prints of a value."""
    counts = f"{value['real_images']} real, {value['generated_images']} generated images"
    fewest = min(value["real_images"], value["generated_images"])
    few = f"not given: {fewest} images, at least {FEWEST[extractor]} are needed"
    fid = f"{value['fid']:.2f}" if "fid" in value else few
    kid = f"{value['kid']:.5f} ±{value['kid_std']:.5f}" if "kid" in value else "not given"
    return f"FID {fid}; KID {kid}  ({extractor}, {counts}, {f'without {key}' if key else 'nothing left out'})"


@command
def main(argv=None):
    args = parse(argv)
    if args.missing:
        print(f"FID not measured (needs {args.missing[0]})")
        return
    device = find_device(args.device)
    measured = measure(args.answers, args.target, args.data, args.files, device, Path(args.cache))
    if not measured:
        print(f"{args.answers}: FID not measured (its images were removed after they were judged)")
        return
    content, new = measured
    if not new:
        print(f"{args.answers}: FID and KID are measured already")
        return
    write_json(args.answers / FID, content)
    for key in new[:SHOWN]:
        print(sentence(key, content["values"][key], content["origin"]["extractor"]))
    if more := new[SHOWN:]:
        print(f"... and in {args.answers}/{FID} without {more[0]} to {more[-1]}, {len(more)} in turn")
    if size := content["origin"].get("prepared"):
        print(f"--data {args.data} holds copies of {size} pixels; values of the originals do not compare")


if __name__ == "__main__":
    main()
