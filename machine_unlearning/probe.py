"""Probes of finished runs: does a model still know what it forgot, if it is asked in other ways?

    python -m machine_unlearning.probe completion --runs runs/esd/Sketch runs/uce/Cats
    python -m machine_unlearning.probe noise --runs runs/esd/Sketch runs/uce/Cats

completion: the base model draws the first steps, the unlearned model the rest. noise: every step adds noise
of its own; the best of several pictures counts. A method is probed as it samples. Results lie in `RUN/NAME/`:
`probe.csv`, a row a picture, the pictures in which the target is recognised, and `manifest.json`; the base
model's, which noise asks for what takes the target's place, in `BASE/{targets}/`. The same command, repeated,
goes on; several, on one GPU each, share the blocks of prompts.
"""

import argparse
from pathlib import Path

from diffusion_model_finetuning.core.card import read_card
from evaluation import probes
from evaluation.core.errors import command, early
from machine_unlearning.core.runs import add_runs, check_model, models, read_runs


def parse(argv=None) -> argparse.Namespace:
    """The flags, or what the model's card says; `plan`, the probe; the runs' `records` and `targets`."""
    parser = argparse.ArgumentParser(
        prog="python -m machine_unlearning.probe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=list(probes.KINDS))
    parser.add_argument("--probe", help="the probe's protocol: canvas, mini, or a YAML file (the model's)")
    add_runs(parser, "NAME")
    args = parser.parse_args(argv)
    card = read_card(args.model, args.config)
    args.plan = probes.load(args.name, args.probe or card.get("protocol", "canvas"))
    read_runs(args, args.plan.world, args.name)
    return args


early(__name__, parse)  # before the slow imports

import torch
from tqdm import tqdm

from diffusion_model_finetuning.core.drawing import store
from diffusion_model_finetuning.core.sd import load_sd, sample
from evaluation.answers.blocks import Blocks
from evaluation.answers.claims import agree
from evaluation.answers.probed import PLAIN, TABLE, Probed
from evaluation.canvas import answer_name
from evaluation.core.environment import find_device, made_with
from evaluation.core.files import file_digest
from evaluation.judges.judging import find_files, open_judges
from evaluation.metrics.robustness import asked, recognised
from machine_unlearning.core import concepts, probing
from machine_unlearning.sample import unlearned


def pictures(sd, plan, run, record, model: str, targets, cells):
    """Yields conditions and their pictures of cells [B]: the plain ones first.

    Without a run they are the base model's. It is not completed by itself, which would change nothing; it is
    asked under noise for what takes the targets' place, so that its rows tell chance.
    """
    world = plan.world
    ids = sd.tokens([world.prompt(cell.theme, cell.object) for cell in cells])
    completion = isinstance(plan, probes.Completion)
    latents = probing.begun(sd, plan, cells, ids) if run and completion else {}
    with unlearned(sd, run, record, model) as act:
        yield PLAIN, sample(sd, ids, cells, world.steps, world.guidance, world.size, world.precision, act)
        if latents:
            yield from probing.completed(sd, act, plan, ids, latents)
        elif not completion:
            if not run:
                instead = [concepts.substitute(world, targets, cell.theme, cell.object) for cell in cells]
                ids = sd.tokens([world.prompt(*cell) for cell in instead])
            yield from probing.noised(sd, act, plan, cells, ids)


def probe_block(sd, plan, run, record, model: str, targets, prompts, folder: Path, judges) -> list[Probed]:
    """The rows of a block of prompts, each prompt's together; stores the pictures that show the target."""
    cells, rows = [cell for _, cell in prompts], [[] for _ in prompts]
    # a prompt may be asked for two of several targets
    places = [folder / str(target) if len(targets) > 1 else folder for target, _ in prompts]
    for condition, made in pictures(sd, plan, run, record, model, targets, cells):
        name = "" if condition == PLAIN else f"_{condition.replace(' ', '_')}"
        suffix = f"{name}.{plan.world.format}"
        paths = [place / answer_name(*cell, suffix) for place, cell in zip(places, cells)]
        with torch.inference_mode():
            images = [judges.load(path, store(pixels, path)) for path, pixels in zip(paths, made)]
            seen = judges.look(cells, images, paths)
        for (target, _), own, path, prediction in zip(prompts, rows, paths, seen):
            own.append(Probed(str(target), condition, recognised(target, prediction), prediction))
            if not own[-1].shown and condition != PLAIN:
                path.unlink()
    return [row for own in rows for row in own]


def probe_model(sd, run, record, folder: Path, targets, about: dict, args, judges) -> None:
    """Probes the model of a run, or the base model, for all prompts of its targets, block by block.

    `about`: the model's part of the manifest. The probe is finished when its table is written, last.
    """
    plan, prompts = args.plan, asked(args.plan, targets)
    content = {"kind": args.name, **plan.__dict__, "hash": plan.hash}
    about |= {"probe": content, "targets": ",".join(map(str, targets))}
    batch = args.batch or max(1, min(32, 16 * 512**2 // plan.world.size**2))
    batch = agree(folder, about, "a probe", block=batch, made_with=made_with(sd.device))["block"]
    blocks = Blocks(folder, TABLE, prompts, batch)
    with tqdm(total=len(blocks.items), desc=str(folder), unit="block", disable=None) as bar:
        for claim, number, part in blocks.todo():
            rows = probe_block(sd, plan, run, record, about["model"], targets, part, folder, judges)
            if claim.held():  # else this process was held up so long that another took over
                TABLE.write(blocks.part(number), rows)
            bar.update()
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
    for run, record, folder, targets in models(args, args.name, TABLE.file):
        probe_model(sd, run, record, folder, targets, about | {"run": record}, args, judges)


if __name__ == "__main__":
    main()
