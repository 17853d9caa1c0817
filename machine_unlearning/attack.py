"""Adversarial prompts against finished runs: do words before a prompt make the model draw what it forgot?

    python -m machine_unlearning.attack --model checkpoints/mini --runs runs/esd/Sketch runs/uce/Cats

Each prompt of a run's targets gets k more tokens, found by gradient on the unlearned model's own loss
(UnlearnDiffAtk, see `core/textgrad.py`), until a judge sees the target again. A method is attacked as it
samples. The base model is attacked for the same targets, as a yardstick. Results lie in `RUN/attack/` and
`BASE/{targets}/`: `attack.csv`, a row a prompt, the pictures that ended it, and `manifest.json`. The same
command, repeated, goes on after the last timestep; several, on one GPU each, share the blocks of prompts.
"""

import argparse
from pathlib import Path

from diffusion_model_finetuning.core.card import read_card
from evaluation import attacks
from evaluation.core.errors import command, early
from machine_unlearning.core.runs import add_runs, check_model, models, read_data, read_runs


def parse(argv=None) -> argparse.Namespace:
    """The flags, or what the model's card says; `plan`, the attack; the runs' `records` and `targets`."""
    parser = argparse.ArgumentParser(
        prog="python -m machine_unlearning.attack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--attack", help="canvas, canvas-lite, mini, ..., or a YAML file (the model's)")
    add_runs(parser, "attack")
    args = parser.parse_args(argv)
    card = read_card(args.model, args.config)
    args.plan = attacks.load(args.attack or card.get("protocol", "canvas"))
    read_data(args, args.plan.world)
    read_runs(args, args.plan.world, "attack")
    return args


early(__name__, parse)  # before the slow imports

import torch
from tqdm import tqdm

from diffusion_model_finetuning.core.drawing import store
from diffusion_model_finetuning.core.sd import load_sd, sample
from evaluation.answers.attacked import TABLE
from evaluation.answers.blocks import Blocks
from evaluation.answers.claims import agree
from evaluation.canvas import answer_name
from evaluation.core.environment import find_device, made_with
from evaluation.core.files import digest, file_digest
from evaluation.data.images import CanvasImages
from evaluation.judges.judging import find_files, open_judges
from evaluation.metrics.robustness import asked
from machine_unlearning.core.search import prompts_of, search
from machine_unlearning.sample import unlearned


def onlooker(sd, act, plan, judges, folder: Path, several: bool):
    """-> look(prompts, ids), which draws, stores and judges, as `search` asks for.

    A prompt may be attacked for two of `several` targets: the pictures of each have a folder then.
    """
    world = plan.world

    def look(prompts, ids):
        cells = [p.cell for p in prompts]
        pictures = sample(sd, ids, cells, world.steps, world.guidance, world.size, world.precision, act)
        folders = [folder / str(p.target) if several else folder for p in prompts]
        paths = [place / answer_name(*cell, f".{world.format}") for place, cell in zip(folders, cells)]
        with torch.inference_mode():
            images = [judges.load(path, store(pixels, path)) for path, pixels in zip(paths, pictures)]
            return judges.look(cells, images, paths)

    return look


def attack_model(sd, act, folder: Path, targets, about: dict, args, judges) -> None:
    """Attacks the model that `sd` and `act` make up, for all prompts of its targets, block by block.

    `about`: the model's part of the manifest. The attack is finished when its table is written, last.
    """
    plan, prompts = args.plan, asked(args.plan, targets)
    size, cells = plan.world.size, dict.fromkeys(cell[:2] for _, cell in prompts)
    real = CanvasImages(args.data, cells, [plan.reference], size, "bicubic")
    about |= {"attack": plan.__dict__ | {"hash": plan.hash}, "targets": ",".join(map(str, targets))}
    about["references"] = digest([file_digest(real.picture(row).tobytes()) for row in real.rows])
    batch = args.batch or max(1, min(32, 4 * 512**2 // size**2))
    batch = agree(folder, about, "an attack", block=batch, made_with=made_with(sd.device))["block"]
    blocks = Blocks(folder, TABLE, prompts, batch)
    look, steps = onlooker(sd, act, plan, judges, folder, len(targets) > 1), plan.timesteps + 1
    with tqdm(total=len(blocks.items) * steps, desc=str(folder), unit="timestep", disable=None) as bar:
        for claim, number, part in blocks.todo():
            bar.update(number * steps - bar.n)
            state = blocks.part(number) / "state.pt"
            for rows in search(sd, act, plan, prompts_of(sd, plan, part, real), look, state):
                bar.set_postfix(drawn=sum(row.after for row in rows), refresh=False)
                bar.update()
                if not claim.held():  # this process was held up so long that another took over
                    break
            if claim.held():
                TABLE.write(blocks.part(number), rows)
                state.unlink(missing_ok=True)
        bar.update(bar.total - bar.n)
    blocks.join()


@command
def main(argv=None):
    args = parse(argv)
    device, files = find_device(args.device), find_files(args.plan.world, (None, None))
    sd, judges = load_sd(args.model, device, config=args.config), open_judges(args.plan.world, files, device)
    model = sd.fingerprint()
    check_model(args, model)
    about = {"model": model, "judges": list(map(file_digest, files))}
    for run, record, folder, targets in models(args, "attack", TABLE.file):
        with unlearned(sd, run, record, model) as act:
            attack_model(sd, act, folder, targets, about | {"run": record}, args, judges)


if __name__ == "__main__":
    main()
