"""Enters a model that was trained without a target as a run: what unlearning is measured against

    python -m diffusion_model_finetuning.train_sd --settings sd15 --model SD --data DATA --out MODEL \\
        without=Monet
    python -m machine_unlearning.retrained MODEL --model BASE --target Monet --out runs/retrained/Monet

BASE is what the same training gave with the target. The run holds the difference of UNet and text encoder, so
it is sampled, judged, attacked and probed as an unlearned model is, and has a row in every table:
`python -m machine_unlearning.probe distance` measures how far others are from it. Autoencoder, tokenizer and
noise schedule must be the base model's own.
"""

import argparse
from pathlib import Path

from diffusion_model_finetuning.core.card import config_folder
from diffusion_model_finetuning.core.states import folder as states_folder
from evaluation import canvas
from evaluation.core import flags
from evaluation.core.errors import Finished, UserError, command, early
from evaluation.core.files import read_json
from evaluation.core.record import RECORD, WEIGHTS, now, write_record
from machine_unlearning.core.runs import RETRAINED


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m machine_unlearning.retrained", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("trained", metavar="MODEL", help="folder or file of the model trained without it")
    flags.add_model(parser)
    parser.add_argument("--target", required=True, help="what was left out: Sketch, Cats, or several, commas")
    parser.add_argument("--out", type=flags.new_folder, required=True, help="run folder to write")
    args = parser.parse_args(argv)
    config_folder(args.trained, args.config, "MODEL")
    canvas.parse_targets(args.target)
    if (Path(args.out) / RECORD).exists():
        raise Finished(f"{args.out}: holds a run already; remove the folder to enter another")
    settings = states_folder(args.trained, "sd").with_suffix(".json")
    left_out = read_json(settings).get("without") if settings.exists() else args.target
    if left_out != args.target:
        left_out = left_out or "nothing"
        raise UserError(f"--target {args.target}: {settings} says that {left_out} was left out")
    return args


early(__name__, parse)

from diffusion_model_finetuning.core.sd import load_sd
from evaluation.core.environment import made_with
from evaluation.core.tensors import save_tensors


def difference(base, trained) -> dict:
    """The weights of UNet and text encoder of `trained`, by name, which are put into `base`, too.

    Raises UserError unless that makes `trained` of `base`.
    """
    weights, tensors = base.weights(), trained.weights()
    alike = {name: tensor.shape for name, tensor in tensors.items()} == {
        n: w.shape for n, w in weights.items()
    }
    if alike:
        for name, tensor in tensors.items():
            weights[name].copy_(tensor)
    if not alike or base.fingerprint() != trained.fingerprint():
        other = "sizes, autoencoder, tokenizer or noise schedule are not those of"
        raise UserError(f"{trained.path}: {other} --model {base.path}; train it around these")
    return tensors


@command
def main(argv=None):
    args = parse(argv)
    base, trained = (load_sd(path, "cpu", config=args.config) for path in (args.model, args.trained))
    model = base.fingerprint()
    if trained.fingerprint() == model:
        raise UserError(f"{args.trained}: is --model {args.model} itself, which was trained with the target")
    tensors = difference(base, trained)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    save_tensors(Path(args.out) / WEIGHTS, tensors, {"model": model})
    record = {"method": RETRAINED, "target": args.target, "variant": RETRAINED, "settings": {}, "seed": None}
    record |= {"model": model, "model_path": args.model, "data": None, "from": None, "finished": now()}
    record |= {"seconds": {}, "peak_memory_bytes": None}  # of a training, not of unlearning
    record |= {"stored_bytes": (Path(args.out) / WEIGHTS).stat().st_size}
    write_record(args.out, record | made_with("cpu"))
    print(f"{args.out}: entered; next: python -m machine_unlearning.probe distance --runs RUN...")


if __name__ == "__main__":
    main()
