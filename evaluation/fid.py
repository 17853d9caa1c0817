"""FID: how far the generated images are from the real ones, as two Gaussians of network features

    |mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1^(1/2) S_2 S_1^(1/2))^(1/2)

in float64; the symmetric form needs no complex numbers. What was unlearned is left out of both sets. Features
are computed once per image and kept, so that the real images of 70 targets are 70 selections from one array.

    python -m evaluation.fid runs/esd/Sketch/answers --data mini
"""

import argparse
import functools
from pathlib import Path

import numpy as np

from evaluation import canvas
from evaluation.answers.answer_set import grid, protocol_of, target_of
from evaluation.core.errors import command
from evaluation.core.files import file_digest, write_json
from evaluation.metrics.figures import check_targets
from evaluation.metrics.frechet import FID, WEIGHTS, frechet, moments


def kept(cells, targets: list[canvas.Target]) -> np.ndarray:
    """Which of the cells (theme, object, ...) show no target: a mask."""
    return np.array([not any(target.covers(*cell[:2]) for target in targets) for cell in cells])


def measure(
    folder: Path, target: str | None, data: str, files: list[Path], device: str | None, cache: Path
) -> dict:
    """FID of an answer set against the protocol's real images, without what shows the target.

    `files` are the weights of the protocol's extractor, `cache` a folder for features of real images.
    """
    from evaluation.judges import features  # torch, which the tables that import this module do without

    protocol, targets = protocol_of(folder), canvas.parse_targets(target) if target else []
    check_targets(targets, protocol)
    name, weights = protocol.fid_extractor, [file_digest(file) for file in files]
    extractor = functools.cache(lambda: features.load_extractor(name, files, device))
    generated = features.generated_features(folder, protocol, weights, extractor)
    rows, real = features.real_features(data, protocol, weights, extractor, cache)
    generated, real = generated[kept(grid(protocol), targets)], real[kept(rows, targets)]
    a, b = moments(real), moments(generated)
    return {
        "fid": frechet(a.mean, a.covariance, b.mean, b.covariance),
        "extractor": name,
        "weights": weights,
        "real_images": len(real),
        "generated_images": len(generated),
        "data": data,
        "target": target,
        "protocol": protocol.hash,
    }


@command
def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m evaluation.fid", description="FID of an answer set.")
    parser.add_argument("answers", type=Path, help="folder of the answer set")
    parser.add_argument(
        "--target", help="what is left out (default: what the run beside it unlearned; else nothing)"
    )
    parser.add_argument("--data", required=True, help="real images: folder {theme}/{object}/{n}.jpg, or mini")
    parser.add_argument(
        "--weights", nargs="+", metavar="FILE", help="of the protocol's extractor (default: checkpoints/)"
    )
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/cache"), help="features of real images are kept here"
    )
    args = parser.parse_args(argv)
    target = target_of(args.answers, args.target)
    files = [Path(file) for file in args.weights or WEIGHTS[protocol_of(args.answers).fid_extractor]]
    if missing := [file for file in files if not file.exists()]:
        print(f"FID not measured (needs {missing[0]})")
        return
    result = measure(args.answers, target, args.data, files, args.device, args.cache)
    write_json(args.answers / FID, result)
    left_out = f"without {target}" if target else "nothing left out"
    counts = f"{result['real_images']} real, {result['generated_images']} generated images"
    print(f"FID {result['fid']:.2f}  ({result['extractor']}, {counts}, {left_out})")


if __name__ == "__main__":
    main()
