"""What a run stores: the tensors of UNet and text encoder that differ from the base model, and no other."""

import shutil
from pathlib import Path

from diffusion_model_finetuning.core.load import load_run, swapped
from diffusion_model_finetuning.core.sd import StableDiffusion, load_sd
from evaluation.core.record import ACTING, RECORD, WEIGHTS, read_record
from evaluation.core.tensors import read_tensors, save_tensors
from machine_unlearning.core.cli import acting
from machine_unlearning.core.precision import compute_in

__all__ = ["begin", "load_base", "load_model", "load_run", "save_delta", "swapped"]


def load_model(args, run) -> StableDiffusion:
    """`--model` as it is, for a method that asks it before `begin`. Tells `run` its fingerprint, which may
    end it: see `Run.starts_from`."""
    sd = load_sd(args.model, run.device, config=args.config)
    run.starts_from(sd.fingerprint())
    return sd


def load_base(args, run) -> StableDiffusion:
    """The model a method starts from: `--model` with the weights of `--from`; see `load_model`."""
    sd = load_model(args, run)
    begin(sd, args)
    return sd


def begin(sd: StableDiffusion, args) -> None:
    """Makes of `--model` the model that training starts from: the weights of `--from`, the precision."""
    if args.start:
        load_run(sd, args.start)
    compute_in(sd.unet, args.settings.get("precision", "float32"))


def save_delta(run, sd: StableDiffusion, names) -> None:
    """Writes the tensors `names` (see `StableDiffusion.weights`) as they are now, and what `--from` leaves to
    this run: its other tensors, and that by which other methods act while images are sampled."""
    earlier = read_tensors(Path(run.args.start) / WEIGHTS) if run.args.start else {}
    state = sd.weights()
    tensors = dict(sorted((earlier | {name: state[name] for name in names}).items()))
    about = {"model": run.model}  # a second entry would stand in random order
    save_tensors(run.out / WEIGHTS, tensors, about)
    shutil.rmtree(run.out / ACTING, ignore_errors=True)  # of an attempt that failed
    if run.args.start:
        for method, folder in acting(run.args.start, read_record(run.args.start)).items():
            if method != run.method:
                copied = run.out / ACTING / method
                copied.mkdir(parents=True, exist_ok=True)
                for path in [folder / RECORD, *folder.glob("*.safetensors")]:
                    if path.name != WEIGHTS:
                        shutil.copyfile(path, copied / path.name)
