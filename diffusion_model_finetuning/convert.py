"""Convert a model between the two layouts, as it is or with a finished run's weights put in

    python -m diffusion_model_finetuning.convert checkpoints/mini mini.ckpt                # to CompVis
    python -m diffusion_model_finetuning.convert mini.ckpt mini --config checkpoints/mini  # to diffusers
    python -m diffusion_model_finetuning.convert checkpoints/mini sketchless.ckpt --run runs/esd/Sketch

DST is a CompVis file if it ends in .ckpt, .pt, .pth or .safetensors, else a diffusers folder. Tensors keep
their bits and dtypes, without --half; with --run they are float32. Names and vocabulary files in a folder are
such that older tools read it too.
"""

import argparse
from pathlib import Path

from diffusion_model_finetuning.core.card import check_averages, config_folder
from evaluation.core import flags
from evaluation.core.errors import Finished, UserError, command, early
from evaluation.core.record import RECORD, read_record, requests

FILES = (".ckpt", ".pt", ".pth", ".safetensors")
METHODS = Path(__file__).parent.parent / "machine_unlearning"


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SRC", help="diffusers folder or CompVis file")
    parser.add_argument("out", metavar="DST", type=flags.new_path, help="file or folder to write")
    parser.add_argument(
        "--config", help="for a file: folder with its sizes and tokenizer (default: SD 1.5's, built in)"
    )
    parser.add_argument("--run", help="run folder of an unlearning method, made from SRC")
    parser.add_argument("--weights", choices=("raw", "ema"), default="raw", help="of a file that has both")
    parser.add_argument("--half", action="store_true", help="store float16")
    parser.add_argument(
        "--ignore-objects",
        action="store_true",
        help="read pickles with other objects than tensors, without them",
    )
    args = parser.parse_args(argv)
    config_folder(args.source, args.config, "SRC")
    check_averages(args.source, args.weights)
    for method, _ in requests(read_record(args.run), Path(args.run) / RECORD) if args.run else []:
        if (METHODS / method / "intervene.py").exists():
            raise UserError(
                f"--run {args.run}: {method} acts while images are sampled, so no file holds its result; "
                "use it with machine_unlearning.sample"
            )
    return args


early(__name__, parse)

import contextlib

import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, StableDiffusionPipeline
from safetensors.torch import load_file

from diffusion_model_finetuning.core import formats, ip2p
from diffusion_model_finetuning.core.load import load_run
from diffusion_model_finetuning.core.sd import StableDiffusion, load_sd
from diffusion_model_finetuning.core.training import save_pipeline
from evaluation.core.files import atomic, read_json, write_json
from evaluation.core.tensors import save_tensors


def write_folder(sd, out: Path) -> None:
    """A diffusers folder; with the text encoder's names and the vocabulary files of transformers before 5."""
    pipeline = StableDiffusionInstructPix2PixPipeline if ip2p.edits(sd) else StableDiffusionPipeline
    save_pipeline(sd, out, False, sd.card, pipeline)
    file = out / "text_encoder" / "model.safetensors"
    text = formats.classic_text(load_file(file))
    save_tensors(file, text, {"format": "pt"})
    bpe = read_json(out / "tokenizer" / "tokenizer.json", model=dict)["model"]
    write_json(out / "tokenizer" / "vocab.json", bpe["vocab"])
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in bpe["merges"]]
    (out / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


def networks(sd: StableDiffusion) -> list[torch.nn.Module]:
    return [sd.unet, sd.vae, sd.text_encoder]


def same(sd: StableDiffusion, other: StableDiffusion) -> bool:
    """Whether two models are the same, bit for bit."""
    pairs = [(a.state_dict(), b.state_dict()) for a, b in zip(networks(sd), networks(other))]
    return (sd.fingerprint(), sd.card) == (other.fingerprint(), other.card) and all(
        tensor.dtype == others[name].dtype and torch.equal(tensor, others[name])
        for tensors, others in pairs
        for name, tensor in tensors.items()
    )


def check_new(out: Path, sd: StableDiffusion, config: str | None) -> None:
    """Finished if `out` holds this very model, as after a command that was killed late; UserError if it holds
    anything else. `config` is a file's."""
    if not out.exists():
        return
    with contextlib.suppress(UserError):
        if same(sd, load_sd(out, "cpu", None, config)):
            raise Finished(f"{out}: written already")
    raise UserError(f"{out}: exists already, and is not this model; remove it or name another")


@command
def main(argv=None):
    args = parse(argv)
    out = Path(args.out)
    sd = load_sd(
        args.source,
        "cpu",
        torch.float32 if args.run else None,
        args.config,
        args.weights,
        args.ignore_objects,
    )
    if args.run:
        load_run(sd, args.run)
    if args.half:
        for network in networks(sd):
            network.half()
    check_new(out, sd, args.source if Path(args.source).is_dir() else args.config)
    if out.suffix.lower() in FILES:
        state = formats.to_compvis(*(network.state_dict() for network in networks(sd)))
        save_tensors(out, state, wrapped=True)
    else:
        with atomic(out) as draft:  # whole or not at all
            write_folder(sd, draft)
    print(f"{out}: written")


if __name__ == "__main__":
    main()
