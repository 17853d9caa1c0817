"""What SAeUron makes once for all targets of a base model, kept in `.cache/unlearncanvas/`

    python -m machine_unlearning.saeuron.prepare --model MODEL [--target Sketch,Cats] [flags of train.py]

Activations of a block, the SAE of them, and what its latents are in images of every cell of the model's
world. Targets whose settings name the same block share all of it. A training makes what is missing itself;
several of these commands, or of trainings, share the work.
"""

from evaluation.core.errors import UserError, command, early
from machine_unlearning.core import cli
from machine_unlearning.saeuron import settings


def parse(argv=None):
    """-> flags and settings of a training for each target."""
    trainings = cli.parse_apart(__doc__, __file__, argv)
    for args in trainings:
        settings.check(args)
    return trainings


early(__name__, parse)  # before the slow imports

import time
from pathlib import Path

import torch
from tqdm import tqdm

from diffusion_model_finetuning.core.sd import load_sd
from diffusion_model_finetuning.core.shared import shared
from evaluation.core.environment import find_device
from evaluation.core.files import atomic, digest, file_digest
from machine_unlearning.core import concepts, embeddings, weights
from machine_unlearning.saeuron import sae
from machine_unlearning.saeuron.activations import Patches, collected, made_by
from machine_unlearning.saeuron.selection import looked_up

TRAINED = ("latents", "k", "patches", "epochs", "lr", "alpha", "aux", "dead_after")  # what an SAE depends on


def train_sae(sd, prompts: list[str], shape: tuple[int, int], s, state: Path, key: str):
    """-> an SAE trained on the activations of images of the prompts, and what is worth telling of it."""
    began = time.monotonic()
    patches = Patches(collected(sd, prompts, shape, s), s.patches, s.epochs, s.image_seed)
    generator = torch.Generator().manual_seed(s.image_seed)
    network = sae.SAE(shape[0], s.latents, s.k).start(generator).to(sd.device)
    steps = patches.steps
    batches = lambda start: patches.batches(start, sd.device)  # noqa: E731
    last = []  # of an epoch's numbers
    with torch.enable_grad(), tqdm(total=steps, desc="train SAE", disable=None) as bar:
        for numbers in sae.train(network, batches, steps, s, state, key):
            last = [*last, torch.stack([numbers["fvu"], numbers["dead"]])][-max(1, steps // s.epochs) :]
            bar.update()
    if not last:
        raise UserError(f"{state}: holds the end of a training; remove it and run the same command again")
    fvu, dead = torch.stack(last).mean(0).tolist()
    about = {"fvu": round(fvu, 4), "dead": round(dead, 1), "steps": steps, "images": len(prompts)}
    about["patches"] = patches.maps * patches.places
    return network, about | {"seconds": round(time.monotonic() - began, 1)}


def shared_sae(sd, args) -> tuple[sae.SAE, dict]:
    """The SAE that `args` ask for, trained if it is missing; the `block`, `sae` and `sha256` of a plan."""
    s = args.settings
    if s.sae:
        folder = Path(s.sae).resolve()
    else:
        shape = settings.sites(sd.unet.config)[s.block]
        prompts = concepts.spread(settings.world_prompts(args), s.images)
        key = digest([made_by(sd, prompts, s, s.walk), {name: s[name] for name in TRAINED}])
        folder = embeddings.CACHE / f"sae-{key}"
        state = embeddings.CACHE / f"sae-{key}.pt"
        claims = embeddings.CACHE / ".claims"
        for claim, _ in shared(claims, {folder.name: folder}, lambda folder: (folder / sae.SIZES).is_file()):
            network, about = train_sae(sd, prompts, shape, s, state, key)
            if claim.held():
                with atomic(folder) as draft:
                    sae.save(draft, network, **about)
                state.unlink(missing_ok=True)
    where = {"block": s.block, "sae": str(folder if s.sae else folder.name)}
    return sae.load(folder, sd.device), where | {"sha256": file_digest(folder / sae.FILE)}


def prepared(sd, args):
    """-> block, SAE and hash of a plan, and files of the latents in `lookup_images` images of every cell."""
    s = args.settings
    network, where = shared_sae(sd, args)
    if (inputs := settings.sites(sd.unet.config)[s.block][0]) != len(network.b_dec):
        raise UserError(f"sae={s.sae}: of {len(network.b_dec)} inputs, but block={s.block} gives {inputs}")
    prompts = [prompt for prompt in settings.world_prompts(args) for _ in range(s.lookup_images)]
    return where, looked_up(sd, network, where["sha256"], prompts, s)


@command
def main(argv=None):
    trainings = parse(argv)
    sd = load_sd(trainings[0].model, find_device(trainings[0].device), config=trainings[0].config)
    weights.begin(sd, trainings[0])
    shared_settings = set(TRAINED) | {"block", "images", "walk", "sae", "lookup_walk", "lookup_images"}
    done = []
    for args in trainings:
        wanted = {name: args.settings[name] for name in shared_settings}
        if wanted not in done:
            prepared(sd, args)
            done.append(wanted)


if __name__ == "__main__":
    main()
