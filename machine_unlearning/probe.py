"""Probes of finished runs: does a model still know what it forgot, if it is asked in other ways?

    python -m machine_unlearning.probe completion --runs runs/esd/Sketch runs/uce/Cats
    python -m machine_unlearning.probe noise --runs runs/esd/Sketch runs/uce/Cats

completion: the base model draws the first steps, the unlearned model the rest. noise: every step adds noise
of its own; the best of several pictures counts. ladder: the target in other words, down to a description.
inversion: a new word for it, learned on the unlearned model. relearning: the unlearned model is fine-tuned,
on kept images or on a few of the target's. A method is probed as it samples. Results lie in `RUN/NAME/`:
`probe.csv`, a row a picture, the pictures in which the target is recognised (of its first prompt, all), and
`manifest.json`; the base model's, which noise asks for what takes the target's place, in `BASE/{targets}/`.
distance draws nothing: it tells how far the predicted noise is from that of the run that
machine_unlearning.retrained wrote to `RUN/../../retrained/{targets}/`, in `distance.csv`.
The same command, repeated, goes on; several, on one GPU each, share the blocks of prompts.
"""

import argparse
from functools import cache, partial
from pathlib import Path

from diffusion_model_finetuning.core.card import read_card
from evaluation import probes
from evaluation.core.errors import UserError, command, early, refused
from machine_unlearning.core.runs import (
    add_runs,
    check_model,
    models,
    read_data,
    read_runs,
    retrained_run,
)


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
    if args.name in ("inversion", "relearning", "distance"):
        read_data(args, args.plan.world)
    else:
        args.data = None
    if args.name == "distance":
        args.retrained = {targets: retrained_run(args.base, targets) for targets in args.targets}
    for run, targets in zip(args.runs, args.targets):
        if args.name == "inversion" and any(target.kind == "pair" for target in targets):
            raise UserError(f"--runs {run}: inversion learns a style or an object; leave pairs out")
    return args


early(__name__, parse)  # before the slow imports

import torch
from tqdm import tqdm

from diffusion_model_finetuning.core.drawing import store
from diffusion_model_finetuning.core.sd import load_sd
from evaluation.answers.blocks import Blocks
from evaluation.answers.claims import agree, claimed
from evaluation.answers.distant import TABLE as DISTANCES
from evaluation.answers.probed import PLAIN, TABLE, Probed, picture_path
from evaluation.core.environment import find_device, made_with
from evaluation.core.files import file_digest
from evaluation.core.tensors import read_tensors, save_tensors
from evaluation.judges.judging import find_files, open_judges
from evaluation.metrics.robustness import asked, kept, recognised
from machine_unlearning.core import concepts, inversion, probing, relearning
from machine_unlearning.core.distance import Reference
from machine_unlearning.core.probing import drawn
from machine_unlearning.sample import unlearned


def pictures(sd, plan, run, record, model: str, targets, prompts, tokens: dict):
    """Yields conditions, prompts and their pictures uint8 [B,H,W,3]: the plain ones of all first.

    Without a run they are the base model's. It is not completed by itself, which would change nothing; it is
    asked under noise for what takes the targets' place, so that its rows tell chance. `tokens`: target -> the
    entry of its inverted token.
    """
    world, cells = plan.world, [cell for _, cell in prompts]
    ids = sd.tokens([world.prompt(cell.theme, cell.object) for cell in cells])
    completion = isinstance(plan, probes.Completion)
    latents = probing.begun(sd, plan, cells, ids) if run and completion else {}
    with unlearned(sd, run, record, model) as act:
        yield PLAIN, prompts, drawn(sd, act, world, ids, cells)
        if isinstance(plan, probes.Noise):
            if not run:
                instead = [concepts.substitute(world, targets, cell.theme, cell.object) for cell in cells]
                ids = sd.tokens([world.prompt(*cell) for cell in instead])
            for condition, images in probing.noised(sd, act, plan, cells, ids):
                yield condition, prompts, images
        elif isinstance(plan, probes.Ladder):
            yield from probing.rephrased(sd, act, plan, prompts)
        elif isinstance(plan, probes.Inversion):
            yield from inversion.pictures(sd, act, plan, prompts, tokens)
        elif latents:
            for condition, images in probing.completed(sd, act, plan, ids, latents):
                yield condition, prompts, images


def tuned(sd, plan, run, record, model: str, targets, tuning, data, batch: int):
    """As `pictures`, of all prompts of the targets and those that tell what is kept, after a `tuning`: number
    of images, weights; for None the plain ones."""
    prompts = asked(plan, targets) + kept(plan, targets)
    with unlearned(sd, run, record, model) as act:
        names = relearning.relearned(sd, act, plan, targets, data, *tuning) if tuning else [PLAIN]
        for name in names:
            for part in (prompts[i : i + batch] for i in range(0, len(prompts), batch)):
                cells = [cell for _, cell in part]
                texts = [plan.world.prompt(*cell[:2]) for cell in cells]
                yield name, part, drawn(sd, act, plan.world, texts, cells)


def judge_block(made, plan, targets, folder: Path, judges) -> list[Probed]:
    """The rows of pictures, each prompt's together; stores those that show the target, all of its first."""
    rows, first = {}, {next(prompt for prompt in asked(plan, targets) if prompt.target == t) for t in targets}
    for condition, prompts, images in made:
        place, suffix = partial(picture_path, folder), f".{plan.world.format}"
        paths = [place(target, len(targets) > 1, cell, condition, suffix) for target, cell in prompts]
        with torch.inference_mode():
            loaded = [judges.load(path, store(pixels, path)) for path, pixels in zip(paths, images)]
            seen = judges.look([cell for _, cell in prompts], loaded, paths)
        for prompt, path, prediction in zip(prompts, paths, seen):
            shown = recognised(prompt.target, prediction)
            rows.setdefault(prompt, []).append(Probed(str(prompt.target), condition, shown, prediction))
            if not shown and condition != PLAIN and prompt not in first:
                path.unlink()
    return [row for own in rows.values() for row in own]


def inverted(sd, run, record, model: str, targets, folder: Path, args) -> dict[str, torch.Tensor] | None:
    """Target -> the entry [E] of its token, learned once and kept in the folder; None while another process
    learns one of them."""
    paths = {target: folder / f"{target}.safetensors" for target in targets}
    with unlearned(sd, run, record, model) as act:
        for claim, target in claimed(folder, ((t, t) for t in targets), lambda t: paths[t].exists()):
            entry = inversion.learned(sd, act, args.plan, target, args.data)
            if claim.held():
                save_tensors(paths[target], {"token": entry})
    if not all(path.exists() for path in paths.values()):
        return None
    return {str(target): read_token(path, sd) for target, path in paths.items()}


def read_token(path: Path, sd) -> torch.Tensor:
    """The entry [E] of a token that was learned; raises UserError."""
    damaged = f"{path}: not a token of this model; remove it and run the same command again"
    with refused(damaged, UserError, LookupError, ValueError):
        entry, wanted = read_tensors(path)["token"], sd.text_encoder.get_input_embeddings().weight.shape[1:]
        if entry.shape != wanted:
            raise ValueError(f"a tensor of {[*entry.shape]}, not {[*wanted]}")
    return entry.to(sd.device)


def at_once(args) -> int:
    """Prompts, by --batch or the size of their images."""
    return args.batch or max(1, min(32, 16 * 512**2 // args.plan.world.size**2))


def new_reference(sd, model: str, args, targets) -> Reference:
    """With what the distance of models that forgot the targets is measured."""
    return Reference(sd, model, args.plan, targets, args.data, args.retrained[targets], at_once(args))


def begun(folder: Path, plan, model: dict, targets, args, device) -> int:
    """Writes the manifest, or checks the one that is there; -> batch. `model` is its part of that."""
    content = {"kind": args.name, **plan.__dict__, "hash": plan.hash}
    about = model | {"probe": content, "targets": ",".join(map(str, targets))}
    about |= {"data": args.data} if args.data else {}  # which of its images, the protocol says
    return agree(folder, about, "a probe", block=at_once(args), made_with=made_with(device))["block"]


def probe_model(sd, run, record, folder: Path, targets, about: dict, args, judges) -> None:
    """Probes the model of a run, or the base model, for all prompts of its targets, block by block.

    `about`: the model's part of the manifest. The probe is finished when its table is written, last.
    """
    plan, model = args.plan, about["model"]
    batch = begun(folder, plan, about | {"run": record}, targets, args, sd.device)
    if isinstance(plan, probes.Relearning):  # a block is a tuning, after which all prompts are drawn
        blocks = Blocks(folder, TABLE, [None, *plan.tunings] if run else [None], 1)
    else:
        blocks = Blocks(folder, TABLE, asked(plan, targets), batch)
    inverts = isinstance(plan, probes.Inversion) and not blocks.finished
    tokens = inverted(sd, run, record, model, targets, folder, args) if inverts else {}
    if tokens is None:
        return
    with tqdm(total=len(blocks.items), desc=str(folder), unit="block", disable=None) as bar:
        for claim, number, part in blocks.todo():
            asking = sd, plan, run, record, model, targets
            if isinstance(plan, probes.Relearning):
                made = tuned(*asking, part[0], args.data, batch)
            else:
                made = pictures(*asking, part, tokens)
            rows = judge_block(made, plan, targets, folder, judges)
            if claim.held():  # else this process was held up so long that another took over
                TABLE.write(blocks.part(number), rows)
            bar.update()
        bar.update(bar.total - bar.n)
    blocks.join()


def measure_model(sd, run, record, folder: Path, targets, about: dict, args, reference) -> None:
    """As `probe_model`, of the distance to a retrained model. `reference(targets)` is made at its first call,
    with the base model's weights."""
    begun(folder, args.plan, about | {"run": record}, targets, args, sd.device)
    blocks = Blocks(folder, DISTANCES, [targets], 1)
    for claim, number, _ in blocks.todo():
        retrained = reference(targets)
        with unlearned(sd, run, record, about["model"]) as act:
            rows = retrained.distances(sd, act)
        if claim.held():
            DISTANCES.write(blocks.part(number), rows)
    blocks.join()


@command
def main(argv=None):
    args = parse(argv)
    device, plan = find_device(args.device), args.plan
    measures = isinstance(plan, probes.Distance)
    files = () if measures else find_files(plan.world, (None, None))
    sd = load_sd(args.model, device, config=args.config)
    about = {"model": sd.fingerprint(), "judges": list(map(file_digest, files))}
    check_model(args, about["model"])
    if measures:
        reference = cache(partial(new_reference, sd, about["model"], args))
        probe, table = partial(measure_model, reference=reference), DISTANCES
    else:
        probe, table = partial(probe_model, judges=open_judges(plan.world, files, device)), TABLE
    for run, record, folder, targets in models(args, args.name, table.file):
        probe(sd, run, record, folder, targets, about, args)


if __name__ == "__main__":
    main()
