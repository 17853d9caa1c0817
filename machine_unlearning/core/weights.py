"""What a run stores: the UNet tensors that differ from the base model, and nothing else."""

from pathlib import Path

from safetensors import safe_open

from diffusion_model_finetuning.core.load import load_run, swapped
from diffusion_model_finetuning.core.sd import StableDiffusion, load_sd
from evaluation.core.record import WEIGHTS
from evaluation.core.tensors import save_tensors

__all__ = ["load_base", "load_run", "save_delta", "swapped"]


def load_base(args, run) -> StableDiffusion:
    """The model a method starts from: `--model` with the weights of `--from`. Tells `run` its
    fingerprint, which may end it: see `Run.starts_from`."""
    sd = load_sd(args.model, run.device, config=args.config)
    run.starts_from(sd.fingerprint())
    if args.start:
        load_run(sd, args.start)
    return sd


def save_delta(run, sd: StableDiffusion, names) -> None:
    """Writes UNet tensors `names`, and those of the run this one started from, as they are now."""
    if run.args.start:
        with safe_open(Path(run.args.start) / WEIGHTS, "pt") as earlier:
            names = {*names, *earlier.keys()}
    state = sd.unet.state_dict()
    tensors = {name: state[name] for name in sorted(names)}
    about = {"model": run.model}  # a second entry would stand in random order
    save_tensors(run.out / WEIGHTS, tensors, about)
