"""Second instances of SalUn, EDiff, SHS and SA: other widths, batches, draws and settings.

Each function takes the stored description, changes it in place and returns the arrays, computed in float64.
"""

import zlib
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel

from machine_unlearning.core.forget import denoising_loss, relabelling_loss
from tests.parity import test_mu_salun
from tests.parity.instances.drawn import LENGTH, UP, WIDTH, chosen, drawn, gradients, narrow
from tests.parity.test_mu_esd import build_unet, predict
from tests.seeded_weights import seeded_input


def redraw(d, texts, latents, draws):
    """Other shapes and seeds of a table of inputs; draws of other counts, batches and timesteps."""
    narrow(d["weights"]["unet_config"])
    d["weights"]["seed"] = 4
    spec = {"low": -1.0, "high": 1.0, "seed": 6}
    d["inputs"] |= {name: spec | {"shape": (1, LENGTH, WIDTH)} for name in texts}
    d["inputs"] |= {name: spec | {"shape": (count, 4, 6, 8)} for name, count in latents.items()}
    for kind, batches in draws.items():
        d["draws"][kind] = [
            {"timesteps": [(197 * i + 311 * row + 40) % 1000 for row in range(count)], "noise": f"{kind}_{i}"}
            for i, count in enumerate(batches)
        ]
        for draw, count in zip(d["draws"][kind], batches):
            d["inputs"][draw["noise"]] = spec | {"shape": (count, 4, 6, 8), "low": -2.0}


def case_of(d):
    """The fixture's network and batches, and the names of all weights."""
    unet = UNet2DConditionModel(**d["weights"]["unet_config"])
    keys = {"keys": np.array([name for name, _ in unet.named_parameters()])}
    return test_mu_salun.Case(d, keys, torch.float64), keys


def change(case):
    moved = [(w.detach() - case.start[n]).flatten() for n, w in case.unet.named_parameters()]
    return torch.stack([torch.stack([m.sum(), m.abs().sum(), (m != 0).sum()]) for m in moved])


def packed(mask):
    return np.packbits(torch.cat([part.flatten() for part in mask]).numpy())


def follow(optimizer, weights, grads):
    """A step along given gradients."""
    for name, weight in weights.items():
        weight.grad = grads[name]
    optimizer.step()


def largest(sums, count):
    """-> all values in the order of parameters, and masks of the largest."""
    flat = torch.cat([value.flatten() for value in sums])
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[flat.topk(count).indices] = True
    return flat, [part.view_as(s) for part, s in zip(mask.split([s.numel() for s in sums]), sums)]


def mu_salun(d):
    kinds = {"mask": [2, 2, 2], "train": [3, 2], "mask_uc": [2, 2, 2], "train_uc": [3, 2]}
    texts = [f"salun/text_{name}" for name in ("forget", "pseudo", "retain", "null")]
    latents = {f"salun/forget_latents_{i}": 2 for i in range(3)} | {"salun/retain_latents": 3}
    redraw(d, texts, latents, kinds)
    d["parameters"] |= {"w": 2.5, "mask_ratio_original": 0.3, "mask_ratio_uc": 0.15, "alpha": 0.8}
    d["parameters"] |= {"lr": 4e-5, "lr_mask_uc": 7e-6}
    arrays, mask = salun_masks(d)
    for kind, prefix, pseudo, alpha in (("train", "", "pseudo", 0.8), ("train_uc", "uc_", "retain", 1.0)):
        case, _ = case_of(d)
        images, trained = ["salun/retain_latents", "salun/forget_latents_0"], chosen(case.unet, "attn2")
        retain = next(case.batches(kind, images, "salun/text_retain"))
        forget = [*case.batches(kind, images, "salun/text_forget", f"salun/text_{pseudo}")][1]
        kept, gone = denoising_loss(case.unet, retain), relabelling_loss(case.unet, forget)
        grads = gradients(gone + alpha * kept, trained)
        grads = {n: g * mask[n] for n, g in grads.items()} if kind == "train" else grads
        follow(torch.optim.Adam(trained.values(), 4e-5), trained, grads)
        arrays |= {f"{prefix}retain_loss": kept, f"{prefix}forget_loss": gone}
        arrays["masked_step_delta" if kind == "train" else "uc_step_delta"] = change(case)
        arrays |= {f"{prefix}total_loss": gone + alpha * kept}
    return arrays


def salun_masks(d):
    """Both masks' arrays, and the original's by name."""
    case, arrays = case_of(d)
    weights, null, losses = chosen(case.unet, ""), case.input("salun/text_null"), []
    total = sum(weight.numel() for weight in weights.values())
    for batch in case.batches("mask", [f"salun/forget_latents_{i}" for i in range(3)], "salun/text_forget"):
        full, empty = (predict(case.unet, batch.x, batch.t, text) for text in (batch.text, null))
        losses.append(-F.mse_loss(3.5 * full - 2.5 * empty, batch.noise))
    scores = [g.abs() for g in gradients(sum(losses), weights).values()]
    flat, mask = largest(scores, int(0.3 * total))
    every = torch.cat([part.flatten() for part in mask])
    arrays |= {"mask_stage_losses": torch.stack(losses), "mask_original_packed": packed(mask)}
    arrays |= {"grad_abs_sum": torch.stack([s.sum() for s in scores])}
    arrays |= {"mask_original_counts": torch.stack([part.sum() for part in mask])}
    arrays |= {"mask_threshold": torch.stack([flat[every].min(), flat[~every].max()])}
    in_attn2 = sum(int(part.sum()) for part, name in zip(mask, weights) if "attn2" in name)
    d["expected"] |= {"N": total, "ones_original": int(0.3 * total), "attn2_ones": in_attn2}
    d["expected"]["crc32_mask_original_packed"] = zlib.crc32(packed(mask).tobytes())

    sums, optimizer = [0] * len(weights), torch.optim.Adam(weights.values(), 7e-6)
    for batch in case.batches("mask_uc", ["salun/forget_latents_0"] * 3, "salun/text_forget"):
        grads = gradients(-denoising_loss(case.unet, batch), weights)
        sums = [s + g for s, g in zip(sums, grads.values())]
        follow(optimizer, weights, grads)
    least = largest([-s.abs() for s in sums], int(0.15 * total))[1]
    arrays |= {"mask_uc_packed": packed(least), "mask_uc_counts": torch.stack([part.sum() for part in least])}
    d["expected"]["crc32_mask_uc_packed"] = zlib.crc32(packed(least).tobytes())
    return arrays, dict(zip(weights, mask))


def ediff_losses(case, kind, count):
    """g on every draw, and the retaining loss on every draw."""
    texts = ["ediff/text_forget", "ediff/text_retain"]
    forget = case.batches(kind, ["ediff/forget_latents"] * count, *texts)
    retain = case.batches(kind, ["ediff/retain_latents"] * count, texts[1])
    g = [partial(relabelling_loss, case.unet, batch) for batch in forget]
    return g, [partial(denoising_loss, case.unet, batch) for batch in retain]


def ediff_run(d):
    case, arrays = case_of(d)
    trained, draw = chosen(case.unet, "attn2"), iter(range(12))
    optimizer, (g, r) = torch.optim.Adam(trained.values(), 2e-4), ediff_losses(case, "run", 12)
    names = ("inner_g", "inner_avg", "outer_g", "outer_retain", "outer_total")
    seen = {name: [] for name in names}
    for _ in range(2):
        start, value = {n: w.detach().clone() for n, w in trained.items()}, 0.0
        for _ in range(2):
            loss = g[next(draw)]()
            value += loss.item() / 2
            seen["inner_g"].append(loss)
            follow(optimizer, trained, gradients(loss, trained))
        seen["inner_avg"].append(torch.tensor(value, dtype=torch.float64))
        with torch.no_grad():
            for name, weight in trained.items():
                weight.copy_(start[name])
        for _ in range(2):
            kept, gone = r[next(draw)](), g[next(draw)]()
            total = kept + 0.4 * (gone - value)
            for name, loss in zip(names[2:], (gone, kept, total)):
                seen[name].append(loss)
            follow(optimizer, trained, gradients(total, trained))
    arrays |= {n: torch.stack(v).view(2, -1) if n != "inner_avg" else torch.stack(v) for n, v in seen.items()}
    return arrays | {"final_delta": change(case)}


def mu_ediff(d):
    latents = {"ediff/forget_latents": 3, "ediff/retain_latents": 3}
    redraw(d, ["ediff/text_forget", "ediff/text_retain"], latents, {"run": [3] * 12, "single": [3, 3]})
    d["parameters"] |= {"epochs": 2, "K": 1, "steps_per_pass": 2, "alpha": 0.4, "lr": 2e-4, "eta": 0.25}
    arrays, (case, _) = ediff_run(d), case_of(d)
    weights, (g, r) = chosen(case.unet, ""), ediff_losses(case, "single", 2)
    kept, gone = r[0](), g[1]()
    a, b = (gradients(loss, weights) for loss in (kept, gone))
    whole = [torch.cat([part.flatten() for part in grads.values()]) for grads in (a, b)]
    norms, dot = torch.stack([part.norm() for part in whole]), whole[0] @ whole[1]
    arrays |= {"single_retain": kept, "single_g": gone, "single_grad_norms": norms}
    arrays |= {
        "single_cos": dot / norms.prod(),
        "single_lambda_bome": (0.25 - dot / norms[1] ** 2).clamp(min=0),
    }
    arrays |= {"single_lambda_adaptive": (0.25 - dot / (norms.prod() + 1e-8)).clamp(min=0)}
    mixed = {name: a[name] + 0.4 * b[name] for name in weights}
    arrays |= {"single_grad_abs_sum": torch.stack([part.abs().sum() for part in mixed.values()])}
    trained = {name: weight for name, weight in weights.items() if "attn2" in name}
    follow(torch.optim.Adam(trained.values(), 2e-4), trained, mixed)
    return arrays | {"single_delta": change(case)}


def mu_shs(d):
    texts = ["shs/text_forget", "shs/text_retain"]
    latents = {"shs/forget_latents": 2, "shs/retain_latents": 3}
    redraw(d, texts, latents, {"snip": [2, 2, 2], "memory": [2, 2], "train": [3, 2]})
    d["inputs"]["shs/reinit/<parameter key>"] |= {"low": -0.3, "high": 0.2, "seed": 3}
    d["parameters"] |= {"prune_num": 3, "sparsity": 0.9, "alpha": 0.6, "conflict_scale": 3.0, "margin": 0.2}
    d["parameters"] |= {"qp_eps": 0.01, "lr": 3e-5}
    case, arrays = case_of(d)
    weights, images = chosen(case.unet, ""), ["shs/retain_latents", *["shs/forget_latents"] * 3]
    losses = [denoising_loss(case.unet, b) for b in case.batches("snip", images[1:], texts[0])]
    pulls = [gradients(loss, weights) for loss in losses]
    scores = [w.detach().abs() * sum(p[n].abs() for p in pulls) for n, w in weights.items()]
    flat = torch.cat([score.flatten() for score in scores])
    count = int(0.9 * len(flat))
    tau = flat.kthvalue(count).values
    mask = dict(zip(weights, [score > tau for score in scores]))
    arrays |= {"snip_losses": torch.stack(losses), "score_sum": torch.stack([s.sum() for s in scores])}
    arrays |= {"threshold": torch.stack([tau, flat[flat > tau].min()]), "reset_packed": packed(mask.values())}
    arrays |= {"reset_counts": torch.stack([part.sum() for part in mask.values()])}
    part = {name: weight for name, weight in weights.items() if "attn2" in name}
    d["expected"] |= {"N": len(flat), "k": count, "marked_total": int((flat > tau).sum())}
    d["expected"] |= {"marked_attn2": sum(int(mask[name].sum()) for name in part)}
    d["expected"] |= {"crc32_reset_packed": zlib.crc32(arrays["reset_packed"].tobytes())}
    with torch.no_grad():
        for name, weight in part.items():
            new = torch.from_numpy(seeded_input(f"shs/reinit/{name}", weight.shape, 3, -0.3, 0.2)).double()
            weight[mask[name]] = 0 if name.endswith("bias") else new[mask[name]]
    arrays["reinit_delta"] = change(case)
    return arrays | shs_step(case, texts, images, weights, part)


def shs_least(vector, memories):
    """The quadratic programme's solution, by projected gradient descent."""
    A, b = memories @ memories.T + 0.01 * torch.eye(len(memories)).double(), memories @ vector
    v = torch.full_like(b, 0.2)
    for _ in range(20000):
        v = (v - (A @ v + b) / A.trace()).clamp(min=0.2)
    return v


def shs_step(case, texts, images, weights, part):
    """Projections and the training step of the trimmed network."""
    remembered = [-denoising_loss(case.unet, b) for b in case.batches("memory", images[1:3], texts[0])]
    G = torch.stack([torch.cat([g.flatten() for g in gradients(m, part).values()]) for m in remembered])
    kept = denoising_loss(case.unet, next(case.batches("train", images[:2], texts[1])))
    gone = relabelling_loss(case.unet, [*case.batches("train", images[:2], *texts)][1])
    total = kept + 0.6 * gone
    grads = gradients(total, weights)
    g = torch.cat([grads[name].flatten() for name in part])
    arrays = {"memory_losses": torch.stack(remembered), "memory_dots": G @ g, "memory_norms": G.norm(dim=1)}
    arrays |= {"retain_loss": kept, "forget_loss": gone, "total_loss": total, "grad_norm": g.norm()}

    v, both = shs_least(g, G[:1]), g + shs_least(g, G) @ G
    arrays |= {"proj1_v": v[0], "proj1_norm": (g + v @ G[:1]).norm()}
    arrays |= {"proj2_norm": both.norm(), "proj2_dots": G @ both}
    against = g - 3 * G[0]
    v = shs_least(against, G[:1])
    mended = against + v @ G[:1]
    arrays |= {"conflict_v": v[0], "conflict_norm": mended.norm(), "conflict_dot_before": against @ G[0]}
    case.start = {name: weight.detach().clone() for name, weight in weights.items()}
    follow(torch.optim.Adam(weights.values(), 3e-5), weights, grads)
    return arrays | {"conflict_dot_after": mended @ G[0], "step_delta": change(case)}


def mu_sa(d):
    samples, steps = 3, 5
    unet = build_unet(narrow(d["weights"]["unet_config"]), lambda name: 4).double()
    d["weights"]["seed"] = 4
    spec = {"low": -1.0, "high": 1.0, "seed": 2}
    text, image = {"shape": (1, LENGTH, WIDTH)} | spec, {"shape": (1, 4, 6, 8)} | spec
    for i in range(samples):
        d["inputs"] |= {f"sa/fim_latents_{i}": image, f"sa/fim_text_{i}": text}
        d["inputs"] |= {f"sa/fim_noise_{i}_{t}": image for t in range(steps)}
    d["inputs"] |= {"sa/text_forget": text, "sa/text_replay": text}
    sizes = {"sa/surrogate_latents": 3, "sa/train/noise_0": 3, "sa/replay_latents": 2, "sa/train/noise_1": 2}
    d["inputs"] |= {name: image | {"shape": (count, 4, 6, 8)} for name, count in sizes.items()}
    d["parameters"] |= {"fim_timesteps": steps, "fim_samples": samples, "lmbda": 7, "gamma": 0.3}
    for draw, t in zip(d["draws"], ([5, 250, 700], [31, 999])):
        draw["timesteps"] = t
    d["expected"]["probe"] = f"{UP}.to_v.weight"
    weights = chosen(unet, "")
    return {"keys": np.array([*weights])} | sa_fisher(d, unet, weights) | sa_losses(d, unet, weights)


def sa_loss(d, unet, latents, noise, t, text):
    """Denoising loss of the inputs with these names."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    a = (1 - betas).cumprod(0)[torch.tensor(t)].view(-1, 1, 1, 1)
    latents, noise, text = (drawn(name, d["inputs"][name]) for name in (latents, noise, text))
    return F.mse_loss(predict(unet, a.sqrt() * latents + (1 - a).sqrt() * noise, t, text), noise)


def sa_fisher(d, unet, weights):
    samples, steps = d["parameters"]["fim_samples"], d["parameters"]["fim_timesteps"]
    fisher = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for i in range(samples):
        of_image = partial(sa_loss, d, unet, f"sa/fim_latents_{i}", text=f"sa/fim_text_{i}")
        total = sum(of_image(f"sa/fim_noise_{i}_{t}", [t]) for t in range(steps))
        for name, gradient in gradients(total, weights).items():
            fisher[name] += gradient**2 / samples
    figures = {"fim_probe": fisher[d["expected"]["probe"]]}
    figures["fim_sum"], figures["fim_max"] = (
        torch.stack([of(values) for values in fisher.values()]) for of in (torch.sum, torch.max)
    )
    return figures


def sa_losses(d, unet, weights):
    ewc = 0.0
    for name, weight in weights.items():
        rules = (d["inputs"][f"sa/{kind}/<parameter key>"] for kind in ("delta", "fisher"))
        delta, fisher = (
            drawn(f"sa/{kind}/{name}", rule | {"shape": weight.shape})
            for kind, rule in zip(("delta", "fisher"), rules)
        )
        start = weight.detach().clone()
        weight.data.add_(delta)
        ewc = ewc + 7 * (fisher * (weight - start) ** 2).sum()
    forget, replay = (
        sa_loss(d, unet, f"sa/{images}_latents", draw["noise"], draw["timesteps"], f"sa/text_{name}")
        for (name, images), draw in zip((("forget", "surrogate"), ("replay", "replay")), d["draws"])
    )
    total = forget + 0.3 * replay + ewc
    grads = gradients(total, weights)
    arrays = {"loss_forget": forget, "loss_replay": replay, "loss_ewc": ewc, "loss_total": total}
    sums = torch.stack([gradient.abs().sum() for gradient in grads.values()])
    return arrays | {"grad_abs_sum": sums, "grad_probe": grads[d["expected"]["probe"]]}
