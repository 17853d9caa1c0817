"""SAeUron while images are drawn: a block of the UNet gives x' in place of x, at each step by the run's plan

The hook on the block learns the timestep from the UNet's own call, so it counts no steps: at a timestep that
the plan does not have (an attack's), it does as at the nearest. It computes in float32, whatever images are
drawn in.
"""

from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from omegaconf import OmegaConf

from diffusion_model_finetuning.core.intervention import Intervention
from diffusion_model_finetuning.core.sd import ddim_grid
from evaluation.core.errors import UserError
from evaluation.core.files import file_digest
from evaluation.core.record import read_record
from machine_unlearning.core import embeddings
from machine_unlearning.core.cli import recorded_settings
from machine_unlearning.saeuron import edits, plan, sae, settings


@contextmanager
def acting(unet, block: str, change):
    """Within, `block` gives change(X, t) in place of X [R,m,h,w]; t [R]: the timesteps of the UNet's call."""
    t = None

    def note(module, args, kwargs):
        nonlocal t
        t = kwargs["timestep"] if "timestep" in kwargs else args[1]

    def act(module, inputs, output):
        times = torch.as_tensor(t, device=output[0].device).expand(len(output[0]))
        return change(output[0], times), *output[1:]

    handles = [
        unet.register_forward_pre_hook(note, with_kwargs=True),
        unet.get_submodule(block).register_forward_hook(act),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def changed(network, steps: list[plan.Step], timesteps, s, ids, X, times):
    """X' [R,m,h,w] of a block's X, at the timesteps `times` [R], for prompts of token ids [B,L].

    R is B, or 2 B with guidance: first the rows of the empty prompt, which `halves` may leave alone.
    """
    number = (times[:, None] - timesteps).abs().argmin(1)
    halves = ["null"] * (len(X) - len(ids)) + ["conditional"] * len(ids)
    touched = torch.tensor([s.halves == "both" or half == "conditional" for half in halves], device=X.device)
    words = ids.tolist()
    x = X.flatten(2).mT.float()
    new = x.clone()
    with torch.autocast(X.device.type, enabled=False):
        for i in number.unique().tolist():
            rows = (touched & (number == i)).nonzero().squeeze(1)
            if s.action == "scale":
                new[rows] = edits.scaled(network, x[rows], steps[i], s.residual)
            else:
                keys = [(*words[row % len(ids)], halves[row], int(timesteps[i])) for row in rows.tolist()]
                flags, draws = edits.flagged(network, x[rows], steps[i]), edits.uniform(keys, x.shape[1])
                new[rows] = edits.replaced(x[rows], flags, draws.to(x.device))
    return torch.empty_like(X).copy_(new.mT.unflatten(2, X.shape[2:]))  # laid out as X


def shared_sae(sd, run, record: dict, part: plan.Plan) -> sae.SAE:
    """The SAE of a plan; UserError, with the command that makes it, if it is not where the plan says."""
    folder = embeddings.CACHE / part.sae  # or, if that is absolute, there
    again = settings.remake(sd.path, record, part.target)
    if not (folder / sae.FILE).is_file():
        raise UserError(f"--run {run}: its SAE is not in {folder}; make it again: {again}")
    if file_digest(folder / sae.FILE) != part.sha256:
        other = f"{folder} holds another SAE than the run's"
        raise UserError(f"--run {run}: {other}; put that one there, or remove the run and train it again")
    network = sae.load(folder, sd.device)
    latents, inputs = network.W_dec.shape
    if ((part.features < 0) | (part.features >= latents)).any():
        raise UserError(f"{run}/{plan.FILE}: names latents that its SAE has not; remove the run, run again")
    if settings.sites(sd.unet.config).get(part.block, (0,))[0] != inputs:
        raise UserError(f"{run}/{plan.FILE}: no block {part.block} of {inputs} channels; remove the run")
    return network


def intervention(sd, run) -> Intervention:
    """What a run does while images are sampled: plans of one SAE together, those of several one by one."""
    record, plans, work, places = read_record(run), plan.load(run), [], {}
    s = OmegaConf.create(recorded_settings(run, record))
    for part in plans:
        places.setdefault((part.block, part.sae, part.sha256), []).append(part)
    for (block, *_), parts in places.items():
        network = shared_sae(sd, run, record, parts[0])
        steps = [plan.Step(*(tensor.to(sd.device) for tensor in step)) for step in plan.joined(parts)]
        work.append((block, partial(changed, network, steps, parts[0].timesteps.to(sd.device), s)))

    @contextmanager
    def around(ids, text):
        with ExitStack() as stack:
            for block, change in work:
                stack.enter_context(acting(sd.unet, block, partial(change, ids)))
            yield

    def check_steps(ids, text, steps):
        if any(part.timesteps.tolist() != ddim_grid(steps)[::-1] for part in plans):
            there = f"its latents were looked up at {len(plans[0].timesteps)} steps"
            raise UserError(
                f"--run {run}: {there}, images are drawn with {steps}; train again with lookup_walk={steps}"
            )

    return Intervention(around=around, step=check_steps)
