"""Semantic Surgery (Xiong et al., NeurIPS 2025)

No weight changes: before an image is sampled, concepts k that the embedding e(p) [L,D] of its prompt seems to
hold are subtracted from all of it. n is the empty text:

    a_k = mean_i cos( (e(k) - e(n))_i , e(p)_i )        rho_k = sigmoid((a_k + beta) / gamma)
    e' = e(p) - scale rho (e(all k with rho_k > threshold, joined by commas) - e(n))        rho = max rho_k

Here the run is only written, with the beta of each target: chosen from texts alone, so that it best tells the
prompts of the model's world that name the target from the others. `intervene.py` acts when
`machine_unlearning.sample` draws its images.
"""

from evaluation import canvas
from evaluation.core.errors import UserError, command, early, refused
from evaluation.core.record import read_record
from machine_unlearning.core import cli, concepts


def signs_of(target: canvas.Target, templates: list[str]) -> dict[str, canvas.Target]:
    """The texts that must be present -> the part of the target that each of them names.

    UserError for a text that names none.
    """
    signs = {}
    for template in templates:
        named = {kind: name for kind, name in target._asdict().items() if f"{{{kind}}}" in template}
        if not named:
            raise UserError(f"signs: {template!r} names no part of {target}; write {{style}} or {{object}}")
        signs[concepts.say(template, target)] = canvas.Target(named.get("style"), named.get("object"))
    return signs


def parse(argv=None):
    """-> flags and settings; the signs of each target."""
    args = cli.parse(__doc__, __file__, argv)
    return args, [signs_of(target, args.settings.signs) for target in args.targets]


early(__name__, parse)  # before the slow imports

import torch

from evaluation.core.run import Run
from machine_unlearning.core import weights
from machine_unlearning.core.embeddings import cached_embeddings
from machine_unlearning.semantic_surgery.gates import Gate, detector, directions_of, read_gates
from machine_unlearning.semantic_surgery.surgery import best_beta, similarity


def calibrated(sd, signs: dict[str, canvas.Target], cells, wordings) -> tuple[dict, dict]:
    """-> beta, and balanced accuracy, by sign: how it best tells the cells that show what it names.

    `cells` are those of the model's world, all of them in each of the `wordings`. UserError for a sign that
    tells nothing.
    """
    d, best = directions_of(sd, [*signs]), {}
    said = ([concepts.cell_prompt(wording, *cell) for cell in cells] for wording in wordings)
    a = torch.cat([similarity(cached_embeddings(sd, prompts), d) for prompts in said])
    for (sign, part), column in zip(signs.items(), a.T.cpu(), strict=True):
        shown = torch.tensor([part.covers(*cell) for cell in cells] * len(wordings))
        with refused(f"signs: {sign!r} tells no prompt from another; choose other words", ValueError):
            best[sign] = best_beta(column, shown)
    return tuple({sign: numbers[i] for sign, numbers in best.items()} for i in range(2))


def fired(sd, gates: list[Gate], args, cells) -> dict[str, int]:
    """Of the cells of the model's world, in the benchmark's words: how many show a target of the gates and
    how many do not, and in how many of both a gate opens."""
    s, text = args.settings, cached_embeddings(sd, [args.world.prompt(*cell) for cell in cells])
    fires = (detector(sd, gates, s.gamma)(text) > s.threshold).any(-1).tolist()
    targets = canvas.parse_targets(",".join(gate.target for gate in gates))
    shown = [any(target.covers(*cell) for target in targets) for cell in cells]
    right, wrong = (sum(f for f, s in zip(fires, shown) if s is kind) for kind in (True, False))
    others = len(cells) - sum(shown)
    return {"shown": sum(shown), "shown_fired": right, "others": others, "others_fired": wrong}


@command
def main(argv=None):
    args, signs = parse(argv)
    s, cells = args.settings, concepts.kept_cells(args.world, [])
    with Run(args, method="semantic_surgery") as run, torch.no_grad():
        sd = weights.load_base(args, run)
        run.begin()
        every = {sign: part for parts in signs for sign, part in parts.items()}
        betas = dict.fromkeys(every, s.beta)
        if s.beta is None:
            betas, told = calibrated(sd, every, cells, s.wordings)
            run.results["balanced_accuracy"] = {sign: round(share, 4) for sign, share in told.items()}
        gates = {}
        for target, parts in zip(args.targets, signs, strict=True):
            own = {sign: float(betas[sign]) for sign in parts}
            gates[str(target)] = Gate(str(target), concepts.say(s.concept, target), own)
        if args.start and (folder := cli.acting(args.start, read_record(args.start)).get(run.method)):
            earlier = read_gates(folder, read_record(folder))
            gates = {gate.target: gate for gate in earlier} | gates
        run.results["gates"] = [gate._asdict() for gate in gates.values()]
        run.results["cells"] = fired(sd, [*gates.values()], args, cells)
        weights.save_delta(run, sd, {})


if __name__ == "__main__":
    main()
