"""A second instance of SAeUron: other sizes, counts, concepts and options; the formulas in loops, in float64.

The function takes the stored description, changes it in place and returns the arrays.
"""

import numpy as np
import torch

from tests.parity.instances.drawn import drawn
from tests.seeded_weights import seeded_state_dict

INPUTS, LATENTS = 12, 40
SHAPES = {"forward": (3, 7, INPUTS), "training": (10, 8, INPUTS), "averages": (3, 2, 9, INPUTS)}
COUNTS = {"Cubism": 2, "Rust": 5, "Sketch": 3, "Van_Gogh": 4}  # images of each concept
STEPS, GRID = 4, (4, INPUTS, 3, 5)


def weights(d):
    rule = d["sae"]["weights"]
    shapes = {"encoder.weight": [LATENTS, INPUTS], "encoder.bias": [LATENTS], "W_dec": [LATENTS, INPUTS]}
    rule |= {
        "seed": 5,
        "shapes": {f"{rule['prefix']}{n}": s for n, s in (shapes | {"b_dec": [INPUTS]}).items()},
    }
    state = seeded_state_dict(rule["shapes"], rule["seed"])
    E, b, D, c = (w.double() for w in state.values())
    return {"encoder.weight": E, "encoder.bias": b, "W_dec": D / D.norm(dim=1, keepdim=True), "b_dec": c}


def active(w, x):
    return ((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]).clamp(min=0)


def kept(z, k, form):
    """Zeroes what is below the smallest number kept, of a patch or of the batch."""
    rows = z.flatten()[None] if form == "batch" else z
    count = k * len(z) // len(rows)
    least = rows.detach().sort(dim=1, descending=True).values[:, count - 1 : count]
    return torch.where(rows >= least, rows, 0).view_as(z)


def decoded(w, z):
    return z @ w["W_dec"] + w["b_dec"]


def forward(w, x, k, dead, form, alpha):
    """-> every output of one forward pass, by name."""
    z_all = active(w, x)
    z = kept(z_all, k, form)
    made, V = decoded(w, z), ((x - x.mean(0)) ** 2).sum()
    error, half = made - x, INPUTS // 2
    out = {"latents": z, "reconstruction": made, "fvu": (error**2).sum() / V, "l2": (error**2).mean()}
    out |= {"l0": (z_all > 0).sum(1).double().mean(), "auxk": torch.zeros(()).double()}
    if dead:
        alone = torch.zeros(LATENTS).double()
        alone[dead] = 1
        z_dead, share = kept(z_all * alone, min(half, len(dead)), form), min(len(dead) / half, 1) / V
        out["auxk"] = share * ((decoded(w, z_dead) - error) ** 2).sum()
        out["auxk_correct"] = share * ((z_dead @ w["W_dec"] + error) ** 2).sum()
    return out | {"loss": out["fvu"] + alpha * out["auxk"]}


def forward_cases(d, w):
    spec = d["forward"]
    spec |= {"k": 3, "dead": [0, 2, 5, 9, 17, 30, 31, 38], "auxk_alpha": 0.25}
    spec["modes"] = {"patch": {"k": 3}, "batch": {"k": 2}, "patch_no_dead": {"k": 5}}
    x, arrays = drawn(spec["input"]["name"], spec["input"]).flatten(0, 1), {}
    for mode, options in spec["modes"].items():
        w = {name: weight.clone().requires_grad_() for name, weight in w.items()}
        dead, form = ([], mode[:-8]) if mode.endswith("_no_dead") else (spec["dead"], mode)
        out = forward(w, x, options["k"], dead, form, spec["auxk_alpha"])
        gradients = torch.autograd.grad(out["loss"], [*w.values()])
        out |= {f"grad:{name}": gradient for name, gradient in zip(w, gradients)}
        arrays |= {f"forward.{mode}:{name}": value for name, value in out.items()}
    return arrays


def training(d, w):
    """Adam by hand."""
    spec = d["training"]
    changes = {"k": 3, "tokens_per_batch": 40, "examples_per_batch": 5, "epochs": 2, "lr": 0.01}
    spec |= changes | {"auxk_alpha": 0.5, "dead_after_tokens": 70}
    x = drawn(spec["input"]["name"], spec["input"])
    batches = [part.flatten(0, 1) for part in x.split(5)] * 2
    centre = batches[0].mean(0)
    for _ in range(100):
        far = 1 / (batches[0] - centre).norm(dim=1)
        before, centre = centre, (far / far.sum()) @ batches[0]
        if (before - centre).norm() < 1e-5:
            break
    w, rows = w | {"b_dec": centre}, []
    mean, square = ({name: torch.zeros_like(weight) for name, weight in w.items()} for _ in range(2))
    since = torch.zeros(LATENTS)
    for i, patches in enumerate(batches):
        w["W_dec"] = w["W_dec"] / w["W_dec"].norm(dim=1, keepdim=True)
        w = {name: weight.detach().requires_grad_() for name, weight in w.items()}
        dead, rate = (since > 70).nonzero().flatten().tolist(), 0.01 * (1 - i / 4)
        out = forward(w, patches, 3, dead, "batch", 0.5)
        grads = dict(zip(w, torch.autograd.grad(out["loss"], [*w.values()])))
        norm = sum((g**2).sum() for g in grads.values()).sqrt()
        rows.append([*(out[n].item() for n in ("fvu", "auxk", "loss")), len(dead), norm.item(), rate])
        grads = {name: g / max(norm + 1e-6, 1) for name, g in grads.items()}
        along = (grads["W_dec"] * w["W_dec"]).sum(1, keepdim=True)
        grads["W_dec"] = grads["W_dec"] - along * w["W_dec"]
        for name, g in grads.items():
            mean[name], square[name] = 0.9 * mean[name] + 0.1 * g, 0.999 * square[name] + 0.001 * g**2
            step = mean[name] / (1 - 0.9 ** (i + 1))
            step = step / ((square[name] / (1 - 0.999 ** (i + 1))).sqrt() + 6.25e-10)
            w[name] = w[name].detach() - rate * step
        since = torch.where((out["latents"] > 0).any(0), 0, since + 40)
    names = ("fvu", "auxk", "loss", "dead", "grad_norm", "lr")
    arrays = {
        f"training:{n}": torch.tensor(column, dtype=torch.double) for n, column in zip(names, zip(*rows))
    }
    assert max(arrays["training:dead"]) > 0
    finals = {f"training:final:{name}": weight for name, weight in w.items()}
    return arrays | {"training:b_dec_start": centre} | finals


def scored(latents, target):
    """-> mean of the target, mean of all concepts, scores: [T,n] each."""
    own = latents[target].mean(0)
    others = torch.cat([z for name, z in latents.items() if name != target]).mean(0)
    every = torch.stack([z.mean(0) for z in latents.values()]).mean(0)
    share = lambda a: a / (a.sum(1, keepdim=True) + 1e-8)  # noqa: E731
    return own, every, share(own) - share(others)


def looked_up(d, w, latents):
    d["sae"]["k"] = 3
    x = drawn(d["averages"]["input"]["name"], d["averages"]["input"])
    z = torch.stack([kept(active(w, patches), 3, "patch").mean(0) for patches in x.flatten(0, 1)])
    found = scored(latents, "Sketch")[2]
    d["scores"] = {"target": "Sketch", "percentiles": [97.0, 80.0], "selected": {}}
    arrays = {"averages:latents": z.unflatten(0, x.shape[:2]), "scores:all": found}
    for percentile in (97.0, 80.0):
        level = torch.tensor([np.percentile(row.numpy(), percentile) for row in found])
        arrays[f"scores:threshold:{percentile}"] = level
        above = [(row > least).nonzero().flatten().tolist() for row, least in zip(found, level)]
        d["scores"]["selected"][str(percentile)] = above
    return arrays


def intervened(d, w, latents):
    """Entry by entry, patch by patch."""
    X = drawn(d["intervention"]["input"]["name"], d["intervention"]["input"])
    draws = drawn(d["replace"]["draws"]["name"], d["replace"]["draws"])
    x = X.flatten(2).mT
    z = torch.stack([kept(active(w, image), 3, "patch") for image in x])
    back = lambda y: y.mT.reshape(X.shape)  # noqa: E731
    arrays, cases = {"intervention:reconstruction": back(decoded(w, z))}, {}
    asked = {"mild": (["Cubism"], 92.0, -2.0, 3), "three": (["Rust", "Sketch", "Cubism"], 75.0, -4.0, 0)}
    for name, (targets, percentile, multiplier, t) in asked.items():
        features, scale, average = [], [], []
        for target in targets:
            own, every, found = scored(latents, target)
            chosen = (found[t] > np.percentile(found[t].numpy(), percentile)).nonzero().flatten().tolist()
            features += chosen
            scale += (multiplier * own[t, chosen]).tolist()
            average += every[t, chosen].tolist()
        new, flags = z.clone(), torch.zeros(z.shape[:2], dtype=torch.uint8)
        for image, patch in np.ndindex(*flags.shape):
            for i, factor, usual in zip(features, scale, average):
                if z[image, patch, i] > usual:
                    new[image, patch, i] = z[image, patch, i] * factor
                    flags[image, patch] = 1
        put = x.clone()
        for image, row in enumerate(flags.tolist()):
            free = [j for j, flag in enumerate(row) if not flag]
            for j, flag in enumerate(row):
                if flag and free:
                    put[image, j] = x[image, free[int(draws[image, j] * len(free))]]
        made, edited = decoded(w, z), decoded(w, new)
        out = {"published": edited + made - x, "none": edited, "correct": x + edited - made}
        arrays |= {f"intervention.{name}:{residual}": back(y) for residual, y in out.items()}
        arrays[f"intervention.{name}:scale"] = torch.tensor(scale)
        arrays[f"intervention.{name}:average_all"] = torch.tensor(average)
        arrays[f"intervention.{name}:flagged"] = flags.view(len(X), *X.shape[2:])
        arrays[f"replace.{name}:output"] = back(put)
        twice = sorted({i for i in features if features.count(i) > 1})
        entries = sum(int((z[..., i] > usual).sum()) for i, usual in zip(features, average))
        cases[name] = {"targets": targets, "percentile": percentile, "multiplier": multiplier}
        cases[name] |= {"timestep_index": t, "features": features, "shared_features": twice}
        cases[name] |= {"scaled_entries": entries, "flagged_patches": flags.sum(1).tolist()}
    assert cases["three"]["shared_features"]
    d["intervention"]["cases"], d["replace"]["cases"] = cases, [*cases]
    return arrays


def mu_saeuron(d):
    d["sae"] |= {"inputs": INPUTS, "latents": LATENTS}
    for name, shape in SHAPES.items():
        d[name]["input"] |= {"shape": [*shape], "seed": 6}
    d["intervention"]["input"] |= {"shape": [*GRID], "seed": 8}
    d["replace"]["draws"] |= {"shape": [GRID[0], GRID[2] * GRID[3]], "seed": 9}
    for name, spec in d["concepts"].items():
        spec |= {"shape": [COUNTS[name], STEPS, LATENTS], "seed": 7}
    w = weights(d)
    latents = {n: drawn(s["name"], s).clamp(min=s["clip_below"]) for n, s in d["concepts"].items()}
    arrays = forward_cases(d, w) | training(d, w) | looked_up(d, w, latents) | intervened(d, w, latents)
    arrays = {name: a.float() if a.is_floating_point() else a for name, a in arrays.items()}
    d["arrays"] = {name: {"shape": [*a.shape]} for name, a in arrays.items()}
    return arrays
