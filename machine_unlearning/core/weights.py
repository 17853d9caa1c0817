"""What a run stores: the UNet tensors that differ from the base model, and nothing else."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from diffusion_model_finetuning.core.sd import StableDiffusion, load_sd
from evaluation.errors import UserError
from evaluation.files import atomic
from evaluation.records import read_record

FILE = "weights.safetensors"


def intervenes(method: str) -> bool:
    """Whether a method acts while images are sampled, so that weights alone do not hold its result."""
    return (Path(__file__).parent.parent / method / "intervene.py").exists()


def load_base(args, run) -> StableDiffusion:
    """The model a method starts from: `--model` with the weights of `--from`. Tells `run` its fingerprint."""
    sd = load_sd(args.model, args.device)
    run.model = sd.fingerprint()
    if args.start:
        earlier = read_record(args.start)["method"]
        if intervenes(earlier) and earlier != run.method:
            raise UserError(
                f"--from {args.start}: {earlier} acts while sampling; no other method can go on from its run"
            )
        load_run(sd, args.start)
    return sd


def save_delta(run, sd: StableDiffusion, names) -> None:
    """Writes UNet tensors `names`, and those of the run this one started from, as they are now."""
    if run.args.start:
        with safe_open(Path(run.args.start) / FILE, "pt") as earlier:
            names = {*names, *earlier.keys()}
    state = sd.unet.state_dict()
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(names)}
    with atomic(run.out / FILE) as temporary:
        save_file(tensors, temporary, {"model": run.model})  # a second entry would stand in random order


def load_run(sd: StableDiffusion, folder: str | Path) -> None:
    """Puts a run's stored weights into its base model; a UserError if they belong to another."""
    path = Path(folder) / FILE
    if not path.exists():
        raise UserError(f"--run {folder}: no {FILE}; run the method's train.py with --out {folder} first")
    try:
        with safe_open(path, "pt") as file:
            base, tensors = file.metadata()["model"], {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: not weights stored by a run ({error}); remove the folder and run again"
        ) from error
    if base != sd.fingerprint():
        raise UserError(
            f"--run {folder}: made from another base model ({base}) than {sd.path} ({sd.fingerprint()})"
        )
    unknown = sd.unet.load_state_dict(tensors, strict=False).unexpected_keys
    if unknown:
        raise UserError(f"--run {folder}: {len(unknown)} weights unknown to the UNet, first {unknown[0]}")
