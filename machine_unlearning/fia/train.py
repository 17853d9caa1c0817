"""FIA: Forget-It-All (Deng et al., ICML 2026), with ConceptPrune's rule as an option

Sets single weights W_ij of the second layers of the UNet's feed-forward networks to zero: large ones whose
input j is driven more by prompts c that show the target than by base prompts b, in the first steps t.

    S_tij = |W_ij| max(0, mean_c u_tj - mean_b u_tj - std_b u_tj)
    A = 1/2 mean_t S / max(mean_t S) + 1/2 share of steps with S_t > tau_t
    Q = {the largest of each row of A} and {the largest of the layer}

One target: Q is pruned. Several: what most of their Q flag is general and spared, the rest is pruned. There
is no training, and no image is kept. u is in `activations.py`, the formulas are in `pruning.py`.
"""

from evaluation.canvas import Target, parse_targets
from evaluation.core.errors import UserError, command, early
from machine_unlearning.core import cli, concepts


def prompts_of(args, target: Target) -> tuple[list[str], list[str]]:
    """-> prompts that show the target, and base prompts: wordings of its cells, and of those that take their
    place; at most `images` of each, evenly spread."""
    s, sides = args.settings, []
    shown = concepts.forget_cells(args.world, [target])
    instead = [concepts.substitute(args.world, args.forgotten, *cell) for cell in shown]
    for cells, templates in ((shown, s.concept), (instead, s.base)):
        said = dict.fromkeys(concepts.cell_prompt(t, *cell) for t in templates for cell in cells)
        sides.append(concepts.spread([*said], min(s.images, len(said))))
    return tuple(sides)


def parse(argv=None):
    """-> flags and settings; prompts of both sides by target."""
    args = cli.parse(__doc__, __file__, argv)
    return args, {str(target): prompts_of(args, target) for target in args.targets}


early(__name__, parse)  # before the slow imports

import torch

from evaluation.core.run import Run
from machine_unlearning.core import weights
from machine_unlearning.core.embeddings import cached_embeddings
from machine_unlearning.fia import masks, pruning
from machine_unlearning.fia.activations import layers, observed


def flagged(W, u, base, s):
    """A target's mask of W [O,I], from column norms [T,P,I] of both sides."""
    if s.rule == "fia":
        return pruning.flagged(pruning.sensitivity(W, pruning.gain(u, base), s.r1), s.r2)
    steps = zip(pruning.joint_norms(u), pruning.joint_norms(base), strict=True)
    return pruning.agreed(torch.stack([pruning.skilled(W, *both, s.ratio) for both in steps]), s.share)


def pruned(of_targets: list, names, s):
    """The entries to set to zero, of the masks of the targets `names`."""
    if len(of_targets) == 1 or s.rule == "conceptprune":
        return torch.stack(of_targets).any(0)
    styles = any(target.style for target in parse_targets(",".join(names)))
    return pruning.fused(of_targets, s.alpha or (0.8 if styles else 0.6))


@command
def main(argv=None):
    args, prompts = parse(argv)
    s = args.settings
    with Run(args, method="fia") as run, torch.no_grad():
        sd = weights.load_base(args, run)
        pruneable, flags = layers(sd.unet), {}
        if args.earlier and args.earlier[-1].method == "fia":
            flags = masks.restore(args.start, pruneable)
        changed = {*pruneable} if flags else set()
        steps = s.walk or args.world.steps
        walk = {"steps": steps, "observe": max(1, round(s.observed * steps)), "halves": s.halves}
        walk["guidance"] = args.world.guidance if s.guidance is None else s.guidance
        shape = (s.noises, sd.unet.config.in_channels, *[sd.unet.config.sample_size] * 2)
        noise = torch.randn(shape, generator=run.generator).to(run.device)
        run.begin()

        def norms(texts):
            """u of the prompts, each from each noise."""
            text = cached_embeddings(sd, [*texts]).repeat_interleave(s.noises, 0)
            return observed(sd, text, noise.repeat(len(texts), 1, 1, 1), **walk, batch=s.batch)

        seen = {texts: norms(texts) for texts in {tuple(side) for both in prompts.values() for side in both}}
        for target, (concept, base) in prompts.items():
            u, v = seen[tuple(concept)], seen[tuple(base)]
            flags[target] = {n: flagged(layer.weight, u[n], v[n], s) for n, layer in pruneable.items()}
        masks.save(run.out, flags, pruneable)
        zeroed = 0
        for name, layer in pruneable.items():
            mask = pruned([of_target[name] for of_target in flags.values()], flags, s)
            layer.weight[mask] = 0
            changed |= {name} if mask.any() else set()
            zeroed += int(mask.sum())
        if not zeroed:
            raise UserError(f"--target {args.target}: no weight would be pruned; raise alpha, or images")
        total = sum(weight.numel() for weight in sd.unet.parameters())
        ours = sum(layer.weight.numel() for layer in pruneable.values())
        run.results |= {"zeroed": zeroed, "share_of_layers": zeroed / ours, "share_of_unet": zeroed / total}
        weights.save_delta(run, sd, [f"{name}.weight" for name in changed])


if __name__ == "__main__":
    main()
