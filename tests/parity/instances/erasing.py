"""Second instances of ESD, CA, UCE, FMN and the prompts: other widths, batches, counts and options.

Each function takes the stored description, changes it in place and returns the arrays, computed in float64.
"""

import hashlib
import json
from functools import partial

import torch
import torch.nn.functional as F

from diffusion_model_finetuning.core.sd import ddim_grid, denoise_until
from machine_unlearning.ca.train import ca_loss, detach_start_token
from machine_unlearning.core import attention
from machine_unlearning.esd.train import esd_loss, esd_target
from tests.parity.instances.drawn import (
    DOWN,
    LENGTH,
    UP,
    WIDTH,
    abar,
    chosen,
    drawn,
    gradients,
    listed,
    narrow,
    noised,
    norm,
)
from tests.parity.test_mu_esd import build_unet, predict


def mu_esd(d):
    config = narrow(d["unet"]["config"])
    text = (1, LENGTH, WIDTH)
    x = listed(d, {"latents": (3, 4, 6, 8), "x_T": (2, 4, 8, 6), "emb_concept": text, "emb_null": text})
    d |= {"frozen_seed": 5, "timestep": 205, "eta": [0.5], "grad_eta": 2.0, "cfg": 1.5}
    d |= {"k_values": [47, 0], "last_grid_index": [46, 0]}
    d["student"] |= {"base_seed": 5, "attn2_seed": 77}
    frozen, student = (
        build_unet(config, lambda name, seed=seed: seed if "attn2" in name else 5).double()
        for seed in (5, 77)
    )
    weights, t = chosen(student, "attn2"), d["timestep"]
    with torch.no_grad():
        e_null, e_concept = (predict(frozen, x["latents"], t, x[n]) for n in ("emb_null", "emb_concept"))
    loss_of = partial(esd_loss, eps_null=e_null, eps_concept=e_concept)
    ask = partial(predict, student, x["latents"], t, x["emb_concept"])
    grads = gradients(loss_of(ask(), eta=2.0), weights)
    arrays = {"e_null": e_null, "e_concept": e_concept, "e_student": ask()}
    arrays |= {"target": esd_target(e_null, e_concept, 2.0), "loss_eta0.5": loss_of(ask(), eta=0.5)}
    arrays |= {"grad_norm_xattn": norm(grads.values()), f"grad:{UP}.to_q.weight": grads[f"{UP}.to_q.weight"]}
    texts = [x[name].expand(2, -1, -1) for name in ("emb_concept", "emb_null")]
    for name, stop in {"z_v1_k47": 46, "z_v1_k0": 0, "z_unlearncanvas_nostop": 0}.items():
        arrays[name] = denoise_until(student, x["x_T"], *texts, 1.5, ddim_grid(50)[:-1], abar, stop)
    optimizer, losses = torch.optim.Adam(weights.values(), 2e-3), []
    for _ in range(3):
        losses.append(loss_of(ask(), eta=2.0))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    return arrays | {"loss_trajectory_adam_lr2e-3": torch.stack(losses)}


def mu_ca(d):
    config, image = narrow(d["unet"]["config"]), (4, 6, 8)
    shapes = dict.fromkeys(("latents", "noise"), (3, *image)) | {"emb_target": (3, LENGTH, WIDTH)}
    shapes |= dict.fromkeys(("reg_latents", "reg_noise"), (2, *image)) | {"emb_anchor": (1, LENGTH, WIDTH)}
    x = listed(d, shapes | {"reg_emb": (2, LENGTH, WIDTH)})
    d |= {"weights_seed": 2, "timesteps": [3, 500, 998], "reg_timesteps": [40, 411]}
    d["mask_box"] |= {"rows": [0, 5], "cols": [3, 4]}
    d["expected"]["loss.ablate_plus_reg_compvis"] = "loss.ones + 0.35*loss.reg"
    unet = build_unet(config, lambda name: 2).double()
    weights = chosen(unet, "attn2.to_k", "attn2.to_v")
    ones, box = torch.ones(3, 1, *image[1:]).double(), torch.zeros(3, 1, *image[1:]).double()
    box[:, :, 0:5, 3:4] = 1
    noisy, reg = (noised(x[p + "latents"], x[p + "noise"], d[p + "timesteps"]) for p in ("", "reg_"))

    def losses():
        target, anchor = (predict(unet, noisy, d["timesteps"], x[n]) for n in ("emb_target", "emb_anchor"))
        rehearsed = predict(unet, reg, d["reg_timesteps"], x["reg_emb"])
        made = {"ones": ca_loss(target, anchor, ones), "box": ca_loss(target, anchor, box)}
        made |= {"noise_based": ca_loss(target, x["noise"], ones)}
        return made | {"reg": ca_loss(rehearsed, x["reg_noise"], ones[:2])}, target, anchor, rehearsed

    arrays = {"noisy_latents": noisy}
    for name, loss in losses()[0].items():
        arrays[f"grad_norm_kv_without_token0_detach.{name}"] = norm(gradients(loss, weights).values())
    detach_start_token(unet)
    made, arrays["pred_target"], arrays["pred_anchor"], rehearsed = losses()
    for name, loss in made.items():
        grads = gradients(loss, weights)
        arrays |= {f"loss.{name}": loss, f"grad_norm_kv.{name}": norm(grads.values())}
    arrays[f"grad.reg:{UP}.to_v.weight"] = grads[f"{UP}.to_v.weight"]
    arrays["loss.ablate_plus_reg_compvis"] = made["ones"] + 0.35 * made["reg"]
    arrays["loss.ablate_plus_prior_diffusers"] = made["ones"] + F.mse_loss(rehearsed, x["reg_noise"])
    optimizer, trajectory = torch.optim.AdamW(weights.values(), 3e-3), []
    for _ in range(2):
        trajectory.append(losses()[0]["ones"])
        optimizer.zero_grad()
        trajectory[-1].backward()
        optimizer.step()
    return arrays | {"loss_trajectory_adamw_lr3e-3": torch.stack(trajectory)}


def mu_uce(d):
    config = narrow(d["unet"]["config"])
    last = {"keep": 3, "one": 2, "other": 5, "third": 4, "guide_a": 7, "guide_b": 1}
    box = {"shape": (LENGTH, WIDTH), "seed": 9, "low": -1, "high": 1}
    d["inputs"] = [{"name": f"mu_uce.{name}"} | box for name in last]
    d["prompts"] = {n: {"embedding": f"mu_uce.{n}", "last_content_index": i} for n, i in last.items()}
    d |= {"edit_prompts": ["one", "other", "third"], "guide_prompts": ["guide_a", "guide_b", "guide_b"]}
    d |= {
        "preserve_prompts": ["keep"],
        "weights_seed": 6,
        "erase_scale": 0.3,
        "preserve_scale": 0.7,
        "lamb": 0.5,
    }
    x = {name: drawn(f"mu_uce.{name}", box) for name in last}
    weights = build_unet(config, lambda name: 6).double().state_dict()
    arrays = {}
    for tokens, technique in (("all_tokens", "tensor"), ("last_token", "tensor"), ("last_token", "replace")):
        for name in (f"{DOWN}.to_k.weight", f"{UP}.to_v.weight"):
            W, rows = weights[name], x["keep"] if tokens == "all_tokens" else x["keep"][3:4]
            left = 0.5 * W + 0.7 * W @ rows.T @ rows
            right = 0.5 * torch.eye(WIDTH).double() + 0.7 * rows.T @ rows
            for edit, guide in zip(d["edit_prompts"], d["guide_prompts"]):
                reach = LENGTH - max(last[edit], last[guide]) if tokens == "all_tokens" else 1
                c, g = (x[n][last[n] : last[n] + reach] for n in (edit, guide))
                v, old = g @ W.T, c @ W.T / (c @ W.T).norm()
                v = v - (old * v).sum() * old if technique == "tensor" else v
                left, right = left + 0.3 * v.T @ c, right + 0.3 * c.T @ c
            arrays[f"{tokens}.{technique}:{name}"] = torch.linalg.solve(right, left, left=False).float()
    return arrays


def mu_fmn(d):
    config = narrow(d["unet"]["config"])
    x = listed(d, {"latents": (2, 4, 8, 6), "noise": (2, 4, 8, 6), "emb": (1, LENGTH, WIDTH)})
    d |= {"weights_seed": 8, "timesteps": [17, 880], "concept_positions": {"some": [2], "others": [1, 3, 9]}}
    unet = build_unet(config, lambda name: 8).double()
    weights = chosen(unet, "attn2")
    arrays = {"noisy_latents": noised(x["latents"], x["noise"], d["timesteps"])}
    with attention.recorded(unet, lambda name: name.endswith("attn2")) as maps:
        predict(unet, arrays["noisy_latents"], d["timesteps"], x["emb"])
    for name, positions in d["concept_positions"].items():
        sums = torch.stack([maps[layer][..., positions].pow(2).sum() for layer in d["layer_order"]])
        grads = gradients(sums.sum().sqrt(), weights)
        arrays |= {f"loss.{name}": sums.sum().sqrt(), f"layer_sq_sums.{name}": sums}
        arrays |= {f"grad_norm_attn2.{name}": norm(grads.values())}
    return arrays | {f"grad.others:{DOWN}.to_q.weight": grads[f"{DOWN}.to_q.weight"]}


def mu_prompts(d):
    """Other targets, in the words that the stored ones have."""
    styles, objects, photo = d["styles"], d["objects"], {"Seed_Images": "Photo"}
    told = json.dumps(d["targets"])
    for old, new in (("Abstractionism", "Cold_Warm"), ("Architectures", "Waterfalls")):
        kind = "style" if new in styles else "object"
        target = json.loads(json.dumps(json.loads(told)[old]).replace(old, new))
        target["esd"] = target["esd"].replace(new, new.replace("_", " "))
        target["evaluation"]["esd_ca_uce"] = target["evaluation"]["esd_ca_uce"].replace(
            new, new.replace("_", " ")
        )
        cells = [(s, o) for s in styles for o in objects if new not in (s, o)]
        kept = ["", *(f"A {o} image in {photo.get(s, s)} style" for s, o in cells)]
        target["uce"] |= {"preserve_count": len(kept), "preserve_first": kept[:4], "preserve_last": kept[-1]}
        target["uce"]["preserve_sha256_newline_joined"] = hashlib.sha256("\n".join(kept).encode()).hexdigest()
        d["targets"][new] = target | {"kind": kind}
        del d["targets"][old]
    del d["targets"]["Dogs"]
    return None
