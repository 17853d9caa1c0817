"""Convert a model between the two layouts, as it is or with a finished run's weights put in

    python -m diffusion_model_finetuning.convert checkpoints/mini mini.ckpt                # to CompVis
    python -m diffusion_model_finetuning.convert mini.ckpt mini --config checkpoints/mini  # to diffusers
    python -m diffusion_model_finetuning.convert checkpoints/mini sketchless.ckpt --run runs/esd/Sketch

DST is a CompVis file if it ends in .ckpt, .pt, .pth or .safetensors, else a diffusers folder. Tensors keep
their bits and dtypes, without --half; with --run they are float32. Names and vocabulary files in a folder are
such that older tools read it too.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from diffusion_model_finetuning.core import formats, ip2p
from diffusion_model_finetuning.core.load import load_run
from diffusion_model_finetuning.core.sd import load_sd
from diffusion_model_finetuning.core.training import save_pipeline
from evaluation.core.errors import UserError, command
from evaluation.core.files import atomic, write_json
from evaluation.core.record import read_record

FILES = (".ckpt", ".pt", ".pth", ".safetensors")
METHODS = Path(__file__).parent.parent / "machine_unlearning"


def write_compvis(state: formats.Tensors, path: Path) -> None:
    """Pickles hold it under `state_dict`, as CompVis's own."""
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    with atomic(path) as temporary:
        if path.suffix == ".safetensors":
            save_file(state, temporary)
        else:
            with open(temporary, "wb") as file:  # an open file: its name would become part of the bytes
                torch.save({"state_dict": state}, file)


def write_folder(sd, out: Path) -> None:
    """A diffusers folder; with the text encoder's names and the vocabulary files of transformers before 5."""
    pipeline = StableDiffusionInstructPix2PixPipeline if ip2p.edits(sd) else StableDiffusionPipeline
    save_pipeline(sd, out, False, sd.card, pipeline)
    file = out / "text_encoder" / "model.safetensors"
    text = formats.classic_text(load_file(file))
    with atomic(file) as temporary:
        save_file(text, temporary, {"format": "pt"})
    bpe = json.loads((out / "tokenizer" / "tokenizer.json").read_text())["model"]
    write_json(out / "tokenizer" / "vocab.json", bpe["vocab"])
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in bpe["merges"]]
    (out / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


def put_in_run(sd, run: str) -> None:
    """The weights of a run whose result they hold in full."""
    method = read_record(run)["method"]
    if (METHODS / method / "intervene.py").exists():
        raise UserError(
            f"--run {run}: {method} acts while images are sampled, so no file holds its result; "
            "use it with machine_unlearning.sample"
        )
    load_run(sd, run)


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SRC", help="diffusers folder or CompVis file")
    parser.add_argument("out", metavar="DST", help="file or folder to write")
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
    out = Path(args.out)
    if out.exists():
        raise UserError(f"{out}: exists already; remove it or name another")
    dtype = torch.float32 if args.run else None
    sd = load_sd(args.source, "cpu", dtype, args.config, args.weights, args.ignore_objects)
    if args.run:
        put_in_run(sd, args.run)
    networks = [sd.unet, sd.vae, sd.text_encoder]
    if args.half:
        networks = [network.half() for network in networks]
    if out.suffix in FILES:
        write_compvis(formats.to_compvis(*(network.state_dict() for network in networks)), out)
    else:
        write_folder(sd, out)
    print(f"{out}: written")


if __name__ == "__main__":
    main()
